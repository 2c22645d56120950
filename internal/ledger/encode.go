package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"carpool/internal/fleet"
)

var errYear = errors.New("cannot encode the entry: its year has more than four digits")

// appendEntry appends an entry as it is stored: the JSON that encoding/json would make of it, without Node and Seq, which
// are columns of their own. It is written by hand because it runs twice per exchange on the request path, where
// reflection costs more than the whole journal. Usage must be valid JSON.
func appendEntry(b []byte, e *Entry) ([]byte, error) {
	if y := e.StartedAt.Year(); y < 0 || y > 9999 {
		return nil, errYear
	}
	w := body{b}
	w.b = append(w.b, `{"node":"","seq":0`...)
	w.text("id", e.ID)
	w.b = append(w.b, `,"startedAt":"`...)
	w.b = e.StartedAt.AppendFormat(w.b, time.RFC3339Nano)
	w.b = append(w.b, '"')
	w.number("firstByteMs", e.FirstByte)
	w.number("durationMs", e.Duration)
	w.text("outcome", string(e.Outcome))
	w.number("status", int64(e.Status))
	w.optional("errorType", e.ErrorType)

	w.text("user", e.User)
	w.optional("team", e.Team)
	w.text("keyId", e.KeyID)
	w.text("keyName", e.KeyName)
	w.text("endpoint", e.Endpoint)
	w.truth("stream", e.Stream)

	w.text("modelAsked", e.ModelAsked)
	w.optional("modelSent", e.ModelSent)
	w.optional("modelServed", e.ModelServed)
	w.optional("route", e.Route)
	w.optional("upstream", e.Upstream)
	w.number("attempts", int64(e.Attempts))
	w.optional("movedFrom", e.MovedFrom)
	w.optional("messageId", e.MessageID)
	w.optional("stopReason", e.StopReason)

	w.number("inputTokens", e.InputTokens)
	w.number("outputTokens", e.OutputTokens)
	w.number("cacheReadTokens", e.CacheReadTokens)
	w.number("cacheWrite5mTokens", e.CacheWrite5mTokens)
	w.number("cacheWrite1hTokens", e.CacheWrite1hTokens)
	w.number("thinkingTokens", e.ThinkingTokens)
	w.number("webSearches", e.WebSearches)
	w.optional("serviceTier", e.ServiceTier)
	w.optional("inferenceGeo", e.InferenceGeo)
	w.optional("speed", e.Speed)
	if len(e.Usage) > 0 {
		w.key("usage")
		w.b = append(w.b, e.Usage...)
	}
	w.truth("estimated", e.Estimated)
	w.number("quotaTokens", e.QuotaTokens)

	w.optional("sessionId", e.SessionID)
	w.optional("agentId", e.AgentID)
	w.optional("parentAgentId", e.ParentAgentID)
	w.optional("requestClass", e.RequestClass)
	w.optional("client", e.Client)
	w.optional("clientVersion", e.ClientVersion)
	w.optional("clientRequestId", e.ClientRequestID)
	w.optional("upstreamRequestId", e.UpstreamRequestID)

	w.tools(e.Tools)
	w.number("fileOperations", e.FileOperations)
	w.number("requestBytes", e.RequestBytes)
	w.number("responseBytes", e.ResponseBytes)
	return append(w.b, '}'), nil
}

// body is an entry's JSON in the making. Names are plain ASCII.
type body struct{ b []byte }

func (w *body) key(name string) {
	w.b = append(w.b, ',', '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *body) number(name string, n int64) {
	w.key(name)
	w.b = strconv.AppendInt(w.b, n, 10)
}

func (w *body) truth(name string, is bool) {
	w.key(name)
	w.b = strconv.AppendBool(w.b, is)
}

func (w *body) optional(name, s string) {
	if s != "" {
		w.text(name, s)
	}
}

func (w *body) text(name, s string) {
	w.key(name)
	w.quote(s)
}

func (w *body) tools(tools []ToolCount) {
	if len(tools) == 0 {
		return
	}
	w.key("tools")
	for i, t := range tools {
		if i == 0 {
			w.b = append(w.b, '[')
		} else {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, `{"name":`...)
		w.quote(t.Name)
		w.number("count", t.Count)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
}

// quote leaves what needs escapes to encoding/json.
func (w *body) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			escaped, _ := json.Marshal(s) // a string has no way to fail
			w.b = append(w.b, escaped...)
			return
		}
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, s...)
	w.b = append(w.b, '"')
}

func decode(body []byte, node string, seq int64) (fleet.Entry, error) {
	var e Entry
	if err := json.Unmarshal(body, &e); err != nil {
		return Entry{}, fmt.Errorf("cannot decode entry %d: %w", seq, err)
	}
	e.Node, e.Seq = node, seq
	return e, nil
}

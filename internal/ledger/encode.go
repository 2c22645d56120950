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

// appendEntry appends an entry as it is stored: JSON that encoding/json reads, without Node and Seq, which are columns of
// their own, and without fields that are zero. It is written by hand because it runs twice per exchange on the request
// path, where reflection costs more than the whole journal. Usage must be valid JSON.
func appendEntry(b []byte, e *Entry) ([]byte, error) {
	if y := e.StartedAt.Year(); y < 0 || y > 9999 {
		return nil, errYear
	}
	w := body{b}
	w.b = append(w.b, `{"startedAt":"`...)
	w.b = e.StartedAt.AppendFormat(w.b, time.RFC3339Nano)
	w.b = append(w.b, '"')
	w.text("id", e.ID)
	w.number("firstByteMs", e.FirstByte)
	w.number("durationMs", e.Duration)
	w.text("outcome", string(e.Outcome))
	w.number("status", int64(e.Status))
	w.text("errorType", e.ErrorType)

	w.text("user", e.User)
	w.text("team", e.Team)
	w.text("keyId", e.KeyID)
	w.text("keyName", e.KeyName)
	w.text("endpoint", e.Endpoint)
	w.truth("stream", e.Stream)

	w.text("modelAsked", e.ModelAsked)
	w.text("modelSent", e.ModelSent)
	w.text("modelServed", e.ModelServed)
	w.text("route", e.Route)
	w.text("upstream", e.Upstream)
	w.text("provider", e.Provider)
	w.text("location", e.Location)
	w.number("attempts", int64(e.Attempts))
	w.text("movedFrom", e.MovedFrom)
	w.text("messageId", e.MessageID)
	w.text("stopReason", e.StopReason)

	w.number("inputTokens", e.InputTokens)
	w.number("outputTokens", e.OutputTokens)
	w.number("cacheReadTokens", e.CacheReadTokens)
	w.number("cacheWrite5mTokens", e.CacheWrite5mTokens)
	w.number("cacheWrite1hTokens", e.CacheWrite1hTokens)
	w.number("thinkingTokens", e.ThinkingTokens)
	w.number("webSearches", e.WebSearches)
	w.text("serviceTier", e.ServiceTier)
	w.text("inferenceGeo", e.InferenceGeo)
	w.text("speed", e.Speed)
	if len(e.Usage) > 0 {
		w.key("usage")
		w.b = append(w.b, e.Usage...)
	}
	w.truth("estimated", e.Estimated)
	w.truth("uncharged", e.Uncharged)
	w.number("quotaTokens", e.QuotaTokens)

	w.number("costMicroUsd", e.Cost)
	w.number("cacheSavingsMicroUsd", e.CacheSavings)
	w.truth("unpriced", e.Unpriced)
	w.text("priceRule", e.PriceRule)
	w.text("priceVersion", e.PriceVersion)

	w.text("sessionId", e.SessionID)
	w.text("agentId", e.AgentID)
	w.text("parentAgentId", e.ParentAgentID)
	w.text("requestClass", e.RequestClass)
	w.text("client", e.Client)
	w.text("clientVersion", e.ClientVersion)
	w.text("clientRequestId", e.ClientRequestID)
	w.text("upstreamRequestId", e.UpstreamRequestID)

	w.tools(e.Tools)
	w.number("fileOperations", e.FileOperations)
	w.number("requestBytes", e.RequestBytes)
	w.number("responseBytes", e.ResponseBytes)
	return append(w.b, '}'), nil
}

// body is an entry's JSON in the making. Names are plain ASCII. What is zero is left out.
type body struct{ b []byte }

func (w *body) key(name string) {
	w.b = append(w.b, ',', '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *body) number(name string, n int64) {
	if n != 0 {
		w.key(name)
		w.b = strconv.AppendInt(w.b, n, 10)
	}
}

func (w *body) truth(name string, is bool) {
	if is {
		w.key(name)
		w.b = append(w.b, "true"...)
	}
}

func (w *body) text(name, s string) {
	if s != "" {
		w.key(name)
		w.quote(s)
	}
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

package gateway_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"carpool/internal/fleet"
	"carpool/internal/policy"
)

func errorOf(t *testing.T, a answer) (kind, message string) {
	t.Helper()
	var e struct {
		Type      string
		RequestID string `json:"request_id"`
		Error     struct{ Type, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Type != "error" {
		t.Fatalf("not an error in the API's shape: %d %s", a.status, a.body)
	}
	if e.RequestID == "" || e.RequestID != a.header.Get("Request-Id") {
		t.Errorf("request id in body %q, in header %q", e.RequestID, a.header.Get("Request-Id"))
	}
	return e.Error.Type, e.Error.Message
}

func TestForwardsBytesAndWritesTheBooks(t *testing.T) {
	r := newRig(t, answerPlain, nil)
	// Spaces, escapes, key order and numbers must arrive as they were sent.
	body := `{ "model" : "claude-opus-5-5", "max_tokens":100, "metadata":{"user_id":"user_` + strings.Repeat("a", 64) + `_account__session_11111111-2222-3333-4444-555555555555"},"x_new":[1.50,"\u00e9\/"], "messages":[{"role":"user","content":"h\u00e9llo é"}]}`
	got := r.post(body,
		"User-Agent: claude-cli/2.1.330 (external, cli)", "Anthropic-Beta: a,b", "X-Unknown: kept", "Cookie: c=1", "X-Forwarded-For: 10.0.0.1",
		"X-Claude-Code-Agent-Id: agent-7", "Accept-Encoding: gzip, br", "Authorization: Bearer sk-ant-of-a-stranger")
	if got.status != 200 || got.body != plainAnswer {
		t.Fatalf("answer %d %s", got.status, got.body)
	}
	if got.header.Get("Request-Id") != "req_upstream" {
		t.Errorf("request id %q is not the upstream's", got.header.Get("Request-Id"))
	}
	seen := r.upstream.last(t)
	if !bytes.Contains(seen.body, []byte(`"x_new":[1.50,"\u00e9\/"]`)) || !strings.HasPrefix(seen.uri, "/v1/messages?beta=true") {
		t.Errorf("the upstream received %s %s", seen.uri, seen.body)
	}
	want := map[string]string{
		"X-Api-Key": credential, "Authorization": "", "Anthropic-Beta": "a,b", "X-Unknown": "kept", "Cookie": "", "X-Forwarded-For": "",
		"User-Agent": "claude-cli/2.1.330 (external, cli)", "Accept-Encoding": "gzip, br", "X-App": "cli", "Anthropic-Version": "2023-06-01",
	}
	for name, value := range want {
		if got := seen.header.Get(name); got != value {
			t.Errorf("the upstream received %s: %q, want %q", name, got, value)
		}
	}
	e := r.entries(1)[0]
	if e.User != "alice" || e.Team != "platform" || e.KeyName != "alice-laptop" || e.Upstream != "main" || e.Route != "default" || e.Attempts != 1 ||
		e.Outcome != fleet.OutcomeFinished || e.Status != 200 || e.Endpoint != "messages" || e.Stream || e.ModelServed != "claude-opus-5-5" ||
		e.InputTokens != 12 || e.OutputTokens != 5 || e.CacheReadTokens != 7 || e.CacheWrite5mTokens != 3 || e.QuotaTokens != 17 || e.Estimated ||
		e.SessionID != "11111111-2222-3333-4444-555555555555" || e.AgentID != "agent-7" || e.ClientVersion != "2.1.330" || e.Client != "claude-cli" ||
		e.UpstreamRequestID != "req_upstream" || e.MessageID != "msg_1" || e.RequestBytes == 0 || e.ResponseBytes != int64(len(plainAnswer)) || e.FirstByte < 0 {
		t.Errorf("entry %+v", e)
	}
	for _, secret := range []string{aliceKey, credential, "sk-ant-of-a-stranger", "h\u00e9llo"} {
		if strings.Contains(r.logs.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestRelaysEachEventAtOnce(t *testing.T) {
	proceed := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, p := range streamEvents {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-proceed:
			case <-req.Context().Done():
			}
		}
	}, nil)
	resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/v1/messages", streamRequest))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	for i, p := range streamEvents {
		got := make([]byte, len(p))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != p {
			t.Fatalf("event %d: %q, %v", i, got, err)
		}
		if last := i == len(streamEvents)-1; last != (r.ledger.LastSeq() == 1) {
			t.Errorf("event %d: %d entries; the books are written before the end is sent, not earlier", i, r.ledger.LastSeq())
		}
		proceed <- struct{}{}
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Fatalf("after the last event: %q, %v", rest, err)
	}
	e := r.entries(1)[0]
	if e.InputTokens != 20 || e.OutputTokens != 9 || e.StopReason != "tool_use" || !e.Stream || e.FileOperations != 1 ||
		len(e.Tools) != 1 || e.Tools[0] != (fleet.ToolCount{Name: "Write", Count: 1}) || e.Outcome != fleet.OutcomeFinished {
		t.Errorf("entry %+v", e)
	}
}

func TestAuthentication(t *testing.T) {
	past := time.Now().Add(-time.Hour)
	r := newRig(t, answerPlain, func(d *policy.Document) {
		h := policy.NewHasher([]byte("pepper"))
		d.Users = append(d.Users, policy.User{Name: "carol", Disabled: true, Quota: d.Users[0].Quota})
		d.Keys = append(d.Keys,
			policy.Key{ID: "a2", Name: "old", User: "alice", Hash: h.Hash("expired-key-of-twenty-chars"), ExpiresAt: past},
			policy.Key{ID: "a3", Name: "off", User: "alice", Hash: h.Hash("disabled-key-of-twenty-char"), Disabled: true},
			policy.Key{ID: "c1", Name: "carols", User: "carol", Hash: h.Hash("carols-key-of-twenty-chars!")})
	})
	tests := []struct {
		name, apiKey, bearer string
		status               int
		message              string
	}{
		{"key", aliceKey, "", 200, ""},
		{"bearer", "", aliceKey, 200, ""},
		{"the same twice", aliceKey, aliceKey, 200, ""},
		{"a stranger's bearer", aliceKey, "sk-ant-xyz", 200, ""},
		{"a stranger's key", "sk-ant-xyz", aliceKey, 200, ""},
		{"two different keys", aliceKey, bobKey, 401, "two different Carpool keys"},
		{"nothing", "", "", 401, "carries no key"},
		{"unknown", "sk-ant-xyz", "", 401, "does not know the key"},
		{"damaged", "cpk_abc", "", 401, "damaged"},
		{"expired", "expired-key-of-twenty-chars", "", 401, "expired on"},
		{"disabled", "disabled-key-of-twenty-char", "", 401, "disabled"},
		{"disabled user", "carols-key-of-twenty-chars!", "", 403, "carol is disabled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			auth := "Authorization: "
			if tt.bearer != "" {
				auth += "Bearer " + tt.bearer
			}
			got := r.post(plainRequest, "X-Api-Key: "+tt.apiKey, auth)
			if got.status != tt.status {
				t.Fatalf("status %d, want %d: %s", got.status, tt.status, got.body)
			}
			if tt.status == 200 {
				return
			}
			if _, message := errorOf(t, got); !strings.Contains(message, tt.message) {
				t.Errorf("message %q", message)
			}
			if got.header.Get("X-Should-Retry") != "false" {
				t.Error("without x-should-retry: false the client goes on trying for three minutes")
			}
		})
	}
}

func TestPaths(t *testing.T) {
	r := newRig(t, answerPlain, nil)
	tests := []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/messages", plainRequest, 200},
		{"POST", "/v1/v1/messages?beta=true", plainRequest, 200},
		{"POST", "/v1/messages/count_tokens?beta=true", plainRequest, 200},
		{"POST", "/v1/v1/messages/count_tokens", plainRequest, 200},
		{"HEAD", "/", "", 200},
		{"HEAD", "/api/hello", "", 200},
		{"GET", "/v1/models?limit=1000", "", 200},
		{"GET", "/v1/user", "", 200},
		{"GET", "/v1/v1/usage", "", 200},
		{"POST", "/api/event_logging/batch", `{"events":[]}`, 204},
		{"GET", "/v1/messages", "", 405},
		{"POST", "/v1/complete", "{}", 404},
		{"POST", "/v1/messages/batches", "{}", 404},
		{"POST", "/v1/files", "{}", 404},
		{"GET", "/v1/messages/batches/b1/results", "", 404},
		{"GET", "/v1/filesystem", "", 404},
		{"GET", "/favicon.ico", "", 404},
		{"GET", "/v1/models/none", "", 404},
	}
	for _, tt := range tests {
		got := r.do(r.request(tt.method, tt.path, tt.body))
		if got.status != tt.status {
			t.Errorf("%s %s: status %d, want %d: %s", tt.method, tt.path, got.status, tt.status, got.body)
		}
		if got.status >= 400 {
			_, message := errorOf(t, got)
			elsewhere, known := strings.Contains(message, "ANTHROPIC_BASE_URL"), strings.Contains(message, "does not serve "+tt.path)
			if wantKnown := strings.HasPrefix(tt.path, "/v1/messages/") || tt.path == "/v1/files" || tt.path == "/v1/complete"; known != wantKnown || known && elsewhere {
				t.Errorf("%s: %s", tt.path, message)
			}
		}
		if got.header.Get("Request-Id") == "" {
			t.Errorf("%s %s: no request id", tt.method, tt.path)
		}
	}
}

func TestBadRequestsNeverReachTheUpstream(t *testing.T) {
	r := newRig(t, answerPlain, nil)
	tests := []struct {
		name, body string
		status     int
		message    string
	}{
		{"not JSON", "hello", 400, "not valid JSON"},
		{"empty", "", 400, "JSON"},
		{"model twice", `{"model":"a","model":"b","max_tokens":1,"messages":[]}`, 400, "model"},
		{"model twice by an escape", `{"model":"a","\u006dodel":"b","max_tokens":1,"messages":[]}`, 400, "model"},
		{"model by letter case", `{"Model":"a","model":"b","max_tokens":1,"messages":[]}`, 400, "Model"},
		{"model a number", `{"model":1,"max_tokens":1,"messages":[]}`, 400, "model"},
		{"no model", `{"max_tokens":1,"messages":[]}`, 400, "model"},
		{"stream a string", `{"model":"a","stream":"true","max_tokens":1,"messages":[]}`, 400, "stream"},
		{"invalid UTF-8", "{\"model\":\"a\xff\",\"max_tokens\":1,\"messages\":[]}", 400, "UTF-8"},
		{"bytes after it", plainRequest + "x", 400, "body"},
		{"too large", `{"model":"a","x":"` + strings.Repeat("y", 1<<20) + `"}`, 413, "1"},
	}
	for _, tt := range tests {
		got := r.post(tt.body)
		if got.status != tt.status {
			t.Errorf("%s: status %d, want %d: %s", tt.name, got.status, tt.status, got.body)
			continue
		}
		if _, message := errorOf(t, got); !strings.Contains(message, tt.message) {
			t.Errorf("%s: message %q", tt.name, message)
		}
	}
	if got := r.post(plainRequest, "Content-Encoding: gzip"); got.status != 400 {
		t.Errorf("compressed request: %d %s", got.status, got.body)
	}
	if n := r.upstream.count(); n != 0 {
		t.Errorf("the upstream received %d requests", n)
	}
	r.entries(0)
}

func TestModelAliasAndSystemPromptAreSplices(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) {
		d.Aliases = []policy.AliasSpec{{Name: "fast", Model: "claude-haiku-4-5"}}
		d.Upstreams[0].Models = map[string]string{"claude-haiku-4-5": "deployment-7"}
	})
	const request = `{"model":"fast", "max_tokens":10,"messages":[{"role":"user","content":"x"}]}`
	tests := []struct{ name, agent, body, want string }{
		{"alias only", "curl/8", request, `{"model":"deployment-7", "max_tokens":10,"messages":[{"role":"user","content":"x"}]}`},
		{
			"a Claude Code client without system", "claude-cli/1.0.57 (external, cli)", request,
			`{"model":"deployment-7","system":[{"type":"text","text":"You are Claude Code."}], "max_tokens":10,"messages":[{"role":"user","content":"x"}]}`,
		},
		{
			"a Claude Code client with system", "claude-cli/1.0.57 (external, cli)", `{"system":"mine","model":"claude-opus-5-5","max_tokens":1,"messages":[]}`,
			`{"system":"mine","model":"claude-opus-5-5","max_tokens":1,"messages":[]}`,
		},
	}
	for _, tt := range tests {
		if got := r.post(tt.body, "User-Agent: "+tt.agent); got.status != 200 {
			t.Fatalf("%s: %d %s", tt.name, got.status, got.body)
		}
		if got := string(r.upstream.last(t).body); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if e := r.entries(3)[0]; e.ModelAsked != "fast" || e.ModelSent != "deployment-7" {
		t.Errorf("entry %+v", e)
	}
	if got := r.do(r.request("POST", "/v1/messages/count_tokens", request, "User-Agent: claude-cli/2.1.330 (external, cli)")); got.status != 200 {
		t.Fatalf("count_tokens: %d %s", got.status, got.body)
	}
	if got := string(r.upstream.last(t).body); strings.Contains(got, "system") {
		t.Errorf("counting changed what is counted: %s", got)
	}
}

func TestUpstreamErrors(t *testing.T) {
	const apiError = `{"type":"error","error":{"type":"rate_limit_error","message":"Number of requests has exceeded"},"request_id":"req_1"}`
	tests := []struct {
		name, kind, body string
		status           int
		wantStatus       int
		wantBody         string // "": one of our own
		wantType         string
	}{
		{"429 passes", "application/json", apiError, 429, 429, apiError, "rate_limit_error"},
		{"400 passes", "application/json", `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 1 tokens > 0 maximum"}}`, 400, 400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 1 tokens > 0 maximum"}}`, "invalid_request_error"},
		{"401 is hidden", "application/json", `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`, 401, 502, "", "api_error"},
		{"403 is hidden", "application/json", `{"type":"error","error":{"type":"permission_error","message":"org acct-1234"}}`, 403, 502, "", "api_error"},
		{"HTML is replaced", "text/html", "<html>Bad Gateway</html>", 502, 502, "", "api_error"},
		{"empty is replaced", "", "", 529, 529, "", "overloaded_error"},
		{"a redirect is not followed", "", "", 307, 502, "", "api_error"},
		{"a page for an answer", "text/html", "<html>Sign in</html>", 200, 502, "", "api_error"},
		{"an empty answer", "application/json", "", 200, 502, "", "api_error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h.Set("Content-Type", tt.kind)
				h.Set("Retry-After", "7")
				h.Set("X-Should-Retry", "true")
				h.Set("Anthropic-Organization-Id", "org")
				h.Set("Anthropic-Ratelimit-Requests-Remaining", "3")
				h.Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}, nil)
			got := r.post(plainRequest)
			if got.status != tt.wantStatus {
				t.Fatalf("status %d, want %d: %s", got.status, tt.wantStatus, got.body)
			}
			if tt.wantBody != "" && (got.body != tt.wantBody || got.header.Get("Retry-After") != "7" || got.header.Get("X-Should-Retry") != "true") {
				t.Errorf("not passed unmodified: %v %s", got.header, got.body)
			}
			if tt.wantBody == "" {
				if kind, message := errorOf(t, got); kind != tt.wantType || strings.Contains(message, "acct-1234") || strings.Contains(message, "x-api-key") {
					t.Errorf("error %s: %s", kind, message)
				}
			}
			for _, name := range []string{"Anthropic-Organization-Id", "Anthropic-Ratelimit-Requests-Remaining"} {
				if got.header.Get(name) != "" {
					t.Errorf("the client sees %s", name)
				}
			}
			e := r.entries(1)[0]
			if e.Status != tt.wantStatus || e.ErrorType != tt.wantType || e.Outcome == fleet.OutcomeFinished || e.QuotaTokens != 0 {
				t.Errorf("entry %+v", e)
			}
		})
	}
}

func TestUnreachableUpstream(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Upstreams[0].BaseURL = "http://127.0.0.1:1" })
	got := r.post(plainRequest)
	if kind, message := errorOf(t, got); got.status != 502 || kind != "api_error" || strings.Contains(message, "127.0.0.1") {
		t.Errorf("%d %s: %s", got.status, kind, message)
	}
	if e := r.entries(1)[0]; e.Outcome != fleet.OutcomeFailed || e.Status != 502 || e.Upstream != "main" {
		t.Errorf("entry %+v", e)
	}
}

func TestCutStreamsAreNeverEndedCleanly(t *testing.T) {
	tests := []struct {
		name    string
		answer  http.HandlerFunc
		outcome fleet.Outcome
		clean   bool
	}{
		{"ends before message_stop", answerStream(streamEvents[:4]...), fleet.OutcomeCut, false},
		{"ends after a whole block", answerStream(streamEvents[:5]...), fleet.OutcomeCut, false},
		{"nothing at all", answerStream(), fleet.OutcomeFailed, true}, // known before anything was sent: an honest 502
		{"reset", func(w http.ResponseWriter, req *http.Request) {
			answerStream(streamEvents[:4]...)(w, req)
			panic(http.ErrAbortHandler)
		}, fleet.OutcomeCut, false},
		{"only message_stop is missing", answerStream(streamEvents[:6]...), fleet.OutcomeFinished, true},
		{"an error told in the stream", answerStream(append(slices.Clone(streamEvents[:4]), "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n")...), fleet.OutcomeUpstreamError, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.answer, nil)
			got := r.post(streamRequest)
			if clean := got.err == nil; clean != tt.clean {
				t.Errorf("clean end %v, want %v: %v %q", clean, tt.clean, got.err, got.body)
			}
			e := r.entries(1)[0]
			if e.Outcome != tt.outcome {
				t.Errorf("entry %+v", e)
			}
			if tt.outcome == fleet.OutcomeCut && strings.Contains(got.body, "message_start") && (!e.Estimated || e.InputTokens != 20) {
				t.Errorf("a cut stream is billed with what was seen: %+v", e)
			}
		})
	}
}

func TestClientThatLeavesCancelsTheUpstreamAndHasAnEntry(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		answerStream(streamEvents[:4]...)(w, req)
		<-req.Context().Done()
	}, nil)
	ctx, leave := context.WithCancel(t.Context())
	resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/v1/messages", streamRequest).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, len(streamEvents[0]))); err != nil {
		t.Fatal(err)
	}
	leave()
	_ = resp.Body.Close()
	select {
	case <-r.upstream.last(t).gone:
	case <-time.After(2 * time.Second):
		t.Fatal("the upstream request goes on")
	}
	e := r.entries(1)[0]
	if e.Outcome != fleet.OutcomeCanceled || e.InputTokens != 20 || !e.Estimated {
		t.Errorf("entry %+v", e)
	}
}

func TestMetersCompressedAnswers(t *testing.T) {
	whole := strings.Join(streamEvents, "")
	compress := map[string]func(io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"br":   func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser { e, _ := zstd.NewWriter(w); return e },
	}
	for name, encoder := range compress {
		t.Run(name, func(t *testing.T) {
			var packed bytes.Buffer
			e := encoder(&packed)
			_, _ = io.WriteString(e, whole)
			_ = e.Close()
			r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.Header().Set("Content-Encoding", name)
				for _, b := range packed.Bytes() {
					_, _ = w.Write([]byte{b})
					_ = http.NewResponseController(w).Flush()
				}
			}, nil)
			got := r.post(streamRequest, "Accept-Encoding: "+name)
			if got.err != nil || got.body != packed.String() || got.header.Get("Content-Encoding") != name {
				t.Fatalf("not passed unmodified: %v %v", got.err, got.header)
			}
			if e := r.entries(1)[0]; e.InputTokens != 20 || e.OutputTokens != 9 || e.Outcome != fleet.OutcomeFinished {
				t.Errorf("entry %+v", e)
			}
		})
	}
}

func TestOfManyParallelRequestsExactlyThoseThatFitAreAdmitted(t *testing.T) {
	const fit, all = 13, 200
	release := make(chan struct{})
	// A request of this size reserves a third of its bytes and its 100 tokens of output.
	perRequest := int64((len(plainRequest)+2)/3 + 100)
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		<-release
		answerPlain(w, req)
	}, func(d *policy.Document) { d.Users[0].Quota.Daily = fit*perRequest + perRequest/2 })
	var mu sync.Mutex
	statuses := map[int]int{}
	var busy string
	var clients sync.WaitGroup
	for range all {
		clients.Go(func() {
			got := r.post(plainRequest)
			mu.Lock()
			defer mu.Unlock()
			statuses[got.status]++
			if got.status == 429 {
				busy = got.body + got.header.Get("Retry-After")
				if statuses[429] == all-fit {
					close(release)
				}
			}
		})
	}
	clients.Wait()
	if statuses[200] != fit || statuses[429] != all-fit {
		t.Errorf("statuses %v, want %d admitted", statuses, fit)
	}
	if !strings.Contains(busy, "rate_limit_error") || !strings.HasSuffix(busy, "3") {
		t.Errorf("a quota that is only held by running requests is not spent: %s", busy)
	}
	r.entries(fit)
	state := r.ledger.QuotaState("alice", 1, policy.Unlimited, time.UTC)
	if state.Daily.Used != fit*17 || state.Daily.Reserved != 0 {
		t.Errorf("settled %+v", state.Daily)
	}
}

func TestSpentQuota(t *testing.T) {
	perRequest := int64((len(plainRequest)+2)/3 + 100)
	limit := perRequest + 16 // one token short of a second request
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Users[0].Quota.Monthly = limit })
	if got := r.post(plainRequest); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	r.entries(1)
	got := r.post(plainRequest)
	kind, message := errorOf(t, got)
	if got.status != 429 || kind != "billing_error" || !strings.Contains(message, "monthly") || !strings.Contains(message, fmt.Sprintf("17 of %d", limit)) || !strings.Contains(message, "Ask ops@example.com.") {
		t.Errorf("%d %s: %s", got.status, kind, message)
	}
	for name, want := range map[string]string{
		"X-Should-Retry": "false", "Anthropic-Ratelimit-Unified-Status": "rejected", "Anthropic-Ratelimit-Unified-Overage-Period": "monthly",
		"Anthropic-Ratelimit-Unified-Overage-Disabled-Reason": "org_spend_cap_reached", "Anthropic-Ratelimit-Unified-Representative-Claim": "",
	} {
		if v := got.header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if got := r.do(r.request("POST", "/v1/messages/count_tokens", plainRequest)); got.status != 200 {
		t.Errorf("counting tokens is free: %d %s", got.status, got.body)
	}
	if got := r.post(plainRequest, "X-Api-Key: "+bobKey); got.status != 200 {
		t.Errorf("another user is not concerned: %d", got.status)
	}
}

// What cannot be accounted for is not sent, and the client is told to come back.
func TestBooksThatCannotBeWritten(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") }, nil)
	if err := r.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	got := r.post(plainRequest)
	if kind, message := errorOf(t, got); got.status != 503 || kind != "api_error" || !strings.Contains(message, "the request was not sent") || got.header.Get("Retry-After") != "5" {
		t.Errorf("%d %s: %s %v", got.status, kind, message, got.header)
	}
}

// A quota of nothing is no quota that comes back at midnight.
func TestQuotaOfNothing(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Users[0].Quota.Daily = 0 })
	got := r.post(plainRequest)
	if kind, message := errorOf(t, got); got.status != 429 || kind != "billing_error" || !strings.Contains(message, "is 0") || !strings.Contains(message, "Ask ops@example.com.") {
		t.Errorf("%d %s: %s", got.status, kind, message)
	}
}

func TestUserLimits(t *testing.T) {
	inside, release := make(chan struct{}, 8), make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		inside <- struct{}{}
		<-release
		answerPlain(w, req)
	}, func(d *policy.Document) {
		d.Users[0].Limits = policy.LimitsSpec{InFlight: 2}
		d.Users[1].Limits = policy.LimitsSpec{RequestsPerMinute: 1}
	})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			if got := r.post(plainRequest); got.status != 200 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
		<-inside
	}
	got := r.post(plainRequest)
	if kind, _ := errorOf(t, got); got.status != 429 || kind != "rate_limit_error" || got.header.Get("Retry-After") == "" {
		t.Errorf("third at once: %d %s", got.status, got.body)
	}
	close(release)
	clients.Wait()
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("after the others ended: %d", got.status)
	}
	if got := r.post(plainRequest, "X-Api-Key: "+bobKey); got.status != 200 {
		t.Errorf("first of the minute: %d", got.status)
	}
	got = r.post(plainRequest, "X-Api-Key: "+bobKey)
	var wait int
	if _, err := fmt.Sscan(got.header.Get("Retry-After"), &wait); err != nil || got.status != 429 || wait < 1 || wait > 60 {
		t.Errorf("second of the minute: %d, retry-after %q", got.status, got.header.Get("Retry-After"))
	}
}

// A client that sends one request after the other never meets itself at a limit of one.
func TestAnAnswerEndsAfterItsPlaceIsFree(t *testing.T) {
	r := newRig(t, answerStream(streamEvents...), func(d *policy.Document) { d.Users[0].Limits = policy.LimitsSpec{InFlight: 1} })
	for range 200 {
		resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/v1/messages", streamRequest))
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		readUntil(t, resp.Body, streamEvents[6])
		_ = resp.Body.Close()
	}
}

func TestUnreadableCompressionIsRelayedAndEstimated(t *testing.T) {
	whole := strings.Join(streamEvents, "")
	var raw bytes.Buffer
	packed, _ := flate.NewWriter(&raw, -1)
	_, _ = io.WriteString(packed, whole)
	_ = packed.Close()
	for _, tt := range []struct {
		encoding, body string
		known          bool
	}{{"deflate", raw.String(), true}, {"x-new", whole, false}, {"br, gzip", whole, false}} {
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Content-Encoding", tt.encoding)
			_, _ = io.WriteString(w, tt.body)
		}, nil)
		got := r.post(streamRequest, "Accept-Encoding: "+tt.encoding)
		if got.err != nil || got.body != tt.body {
			t.Errorf("%s: %v", tt.encoding, got.err)
		}
		e := r.entries(1)[0]
		if e.Outcome != fleet.OutcomeFinished || e.Estimated == tt.known || tt.known && e.OutputTokens != 9 || !tt.known && e.InputTokens == 0 {
			t.Errorf("%s: entry %+v", tt.encoding, e)
		}
	}
}

func TestModelsAreThoseTheCallerMayUse(t *testing.T) {
	models := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":[{"type":"model","id":"claude-opus-5-5","display_name":"Claude Opus 5.5","created_at":"2026-09-22T00:00:00Z","new":1},{"type":"model","id":"claude-haiku-4-5"}],"has_more":false}`)
	}
	r := newRig(t, models, func(d *policy.Document) {
		d.Routes = []policy.RouteSpec{
			{Name: "all", Upstreams: []string{"main"}, Users: []string{"alice"}},
			{Name: "small", Models: []string{"claude-haiku-*"}, Upstreams: []string{"main"}},
		}
		d.Aliases = []policy.AliasSpec{{Name: "claude-fast", Model: "claude-haiku-4-5"}}
	})
	ids := func(key string) string {
		got := r.do(r.request("GET", "/v1/models?limit=1000", "", "X-Api-Key: "+key))
		var page struct {
			Data []struct {
				ID string
			}
			HasMore bool `json:"has_more"`
		}
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || page.HasMore {
			t.Fatalf("%d %s", got.status, got.body)
		}
		var list []string
		for _, m := range page.Data {
			list = append(list, m.ID)
		}
		return strings.Join(list, " ")
	}
	if got := ids(aliceKey); got != "claude-fast claude-opus-5-5 claude-haiku-4-5" {
		t.Errorf("alice: %s", got)
	}
	if got := ids(bobKey); got != "claude-fast claude-haiku-4-5" {
		t.Errorf("bob: %s", got)
	}
	if n := r.upstream.count(); n != 1 {
		t.Errorf("the upstream was asked %d times for its list", n)
	}
	if got := r.do(r.request("GET", "/v1/models/claude-opus-5-5", "")); got.status != 200 || !strings.Contains(got.body, `"new":1`) {
		t.Errorf("one model: %d %s", got.status, got.body)
	}
	if got := r.do(r.request("GET", "/v1/models/claude-opus-5-5", "", "X-Api-Key: "+bobKey)); got.status != 404 {
		t.Errorf("a model that bob may not use: %d", got.status)
	}
	got := r.post(plainRequest, "X-Api-Key: "+bobKey)
	if kind, message := errorOf(t, got); got.status != 404 || kind != "not_found_error" || !strings.Contains(message, "claude-opus-5-5") ||
		!strings.Contains(message, "Permitted: claude-fast, claude-haiku-*.") {
		t.Errorf("%d %s: %s", got.status, kind, message)
	}
}

func TestAccount(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Users[0].Quota.Daily = 1000 })
	if got := r.post(plainRequest); got.status != 200 {
		t.Fatal(got.body)
	}
	r.entries(1)
	var user struct {
		UserID string `json:"user_id"`
		Quota  struct {
			Daily, Monthly struct {
				Limit, Remaining *int64
				Used             int64
				ResetsAt         time.Time `json:"resets_at"`
			}
		}
	}
	got := r.do(r.request("GET", "/v1/user", ""))
	if err := json.Unmarshal([]byte(got.body), &user); err != nil || got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	d, m := user.Quota.Daily, user.Quota.Monthly
	if user.UserID != "alice" || *d.Limit != 1000 || d.Used != 17 || *d.Remaining != 983 || !d.ResetsAt.After(time.Now()) || m.Limit != nil || m.Used != 17 {
		t.Errorf("user %s", got.body)
	}
	got = r.do(r.request("GET", "/v1/usage", ""))
	var usage struct {
		Totals, Today, Month map[string]int64
		Recent               []map[string]any
	}
	if err := json.Unmarshal([]byte(got.body), &usage); err != nil || got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for name, totals := range map[string]map[string]int64{"totals": usage.Totals, "today": usage.Today, "month": usage.Month} {
		if totals["requests"] != 1 || totals["input_tokens"] != 12 || totals["output_tokens"] != 5 || totals["cost_micro_usd"] != 164 || totals["cache_savings_micro_usd"] != 24 {
			t.Errorf("%s %v", name, totals)
		}
	}
	if len(usage.Recent) != 1 || usage.Recent[0]["model"] != "claude-opus-5-5" || usage.Recent[0]["cost_micro_usd"] != 164.0 { // 12 × 4 + 5 × 20 + 7 × 0.2 + 3 × 5
		t.Errorf("recent %v", usage.Recent)
	}
	if got := r.do(r.request("GET", "/v1/usage", "", "X-Api-Key: "+bobKey)); strings.Contains(got.body, `"requests":1`) {
		t.Errorf("bob sees alice's usage: %s", got.body)
	}
}

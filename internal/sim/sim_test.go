package sim_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carpool/internal/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a simulator behind a real socket.
type rig struct {
	t   *testing.T
	sim *sim.Server
	url string
}

func newRig(t *testing.T, o sim.Options) *rig {
	t.Helper()
	s, err := sim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	return &rig{t: t, sim: s, url: web.URL}
}

type result struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body
}

// do sends a request with the default credential; pairs are further headers, an empty value removes one.
func (g *rig) do(method, path, body string, pairs ...string) (result, error) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("x-api-key", sim.DefaultKey)
	req.Header.Set("anthropic-version", "2023-06-01")
	for i := 0; i+1 < len(pairs); i += 2 {
		if req.Header.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			req.Header.Del(pairs[i])
		}
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return result{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	return result{resp.StatusCode, resp.Header, data, err}, nil
}

func (g *rig) must(method, path, body string, pairs ...string) result {
	g.t.Helper()
	res, err := g.do(method, path, body, pairs...)
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

// prompt is a Messages request with one user message; more are further members, as JSON.
func prompt(text string, more ...string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return `{"model":"claude-sonnet-4-5","max_tokens":1000,` + strings.Join(append(more, ""), ",") +
		`"messages":[{"role":"user","content":` + string(quoted) + `}]}`
}

const (
	streaming = `"stream":true`
	twoTools  = `"tools":[{"name":"Bash","input_schema":{"type":"object"}},{"name":"Task","input_schema":{"type":"object"}}]`
)

// msg is a message, whole or assembled from a stream.
type msg struct {
	ID      string `json:"id"`
	Model   string `json:"model"`
	Content []struct {
		Type      string          `json:"type"`
		Text      string          `json:"text"`
		Thinking  string          `json:"thinking"`
		Signature string          `json:"signature"`
		ID        string          `json:"id"`
		Name      string          `json:"name"`
		Input     json.RawMessage `json:"input"`
	} `json:"content"`
	StopReason string         `json:"stop_reason"`
	Usage      map[string]any `json:"usage"`
}

func (g *rig) message(body string, pairs ...string) msg {
	g.t.Helper()
	res := g.must(http.MethodPost, "/v1/messages", body, pairs...)
	if res.status != http.StatusOK || res.err != nil {
		g.t.Fatalf("status %d, %v: %s", res.status, res.err, res.body)
	}
	var m msg
	if err := json.Unmarshal(res.body, &m); err != nil {
		g.t.Fatalf("%v: %s", err, res.body)
	}
	return m
}

func (m msg) text() string {
	var b strings.Builder
	for _, c := range m.Content {
		b.WriteString(c.Text)
	}
	return b.String()
}

// event is one server-sent event.
type event struct {
	name  string
	data  map[string]any
	usage string // of message_start, as JSON
}

// events parses a stream as the SSE specification says, comments dropped.
func events(t *testing.T, body []byte) []event {
	t.Helper()
	var list []event
	var name string
	var data []string
	sc := bufio.NewScanner(bytes.NewReader(body))
	sc.Buffer(nil, 64<<20)
	for sc.Scan() {
		line := strings.TrimSuffix(sc.Text(), "\r")
		switch {
		case line == "" && len(data) > 0:
			e := event{name: name}
			if err := json.Unmarshal([]byte(strings.Join(data, "\n")), &e.data); err != nil {
				t.Fatalf("event %s: %v: %.200s", name, err, data)
			}
			if m, ok := e.data["message"].(map[string]any); ok {
				e.usage = asJSON(t, m["usage"])
			}
			list, name, data = append(list, e), "", nil
		case strings.HasPrefix(line, "event: "):
			name = line[7:]
		case strings.HasPrefix(line, "data: "):
			data = append(data, line[6:])
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func names(list []event) string {
	var out []string
	for _, e := range list {
		if len(out) == 0 || out[len(out)-1] != e.name {
			out = append(out, e.name)
		}
	}
	return strings.Join(out, " ")
}

// assemble builds the message that a stream tells, and fails on a stream out of order.
func assemble(t *testing.T, list []event) msg {
	t.Helper()
	var whole map[string]any
	var content []any
	parts := map[int]string{}
	for _, e := range list {
		if e.data["type"] != e.name {
			t.Fatalf("event %s has data of type %v", e.name, e.data["type"])
		}
		index := 0
		if f, ok := e.data["index"].(float64); ok {
			index = int(f)
		}
		switch e.name {
		case "message_start":
			whole = e.data["message"].(map[string]any)
		case "content_block_start":
			if index != len(content) {
				t.Fatalf("block %d starts after %d blocks", index, len(content))
			}
			content = append(content, e.data["content_block"])
		case "content_block_delta":
			b := content[index].(map[string]any)
			d := e.data["delta"].(map[string]any)
			switch d["type"] {
			case "text_delta":
				b["text"] = b["text"].(string) + d["text"].(string)
			case "thinking_delta":
				b["thinking"] = b["thinking"].(string) + d["thinking"].(string)
			case "signature_delta":
				b["signature"] = d["signature"]
			case "input_json_delta":
				parts[index] += d["partial_json"].(string)
			default:
				t.Fatalf("delta of type %v", d["type"])
			}
		case "message_delta":
			whole["stop_reason"] = e.data["delta"].(map[string]any)["stop_reason"]
			maps.Copy(whole["usage"].(map[string]any), e.data["usage"].(map[string]any))
		}
	}
	for i, p := range parts {
		content[i].(map[string]any)["input"] = json.RawMessage(p)
	}
	whole["content"] = content
	raw, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var m msg
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func (g *rig) streamed(body string, pairs ...string) (msg, []event) {
	g.t.Helper()
	res := g.must(http.MethodPost, "/v1/messages?beta=true", body, pairs...)
	if res.status != http.StatusOK || res.err != nil {
		g.t.Fatalf("status %d, %v: %s", res.status, res.err, res.body)
	}
	list := events(g.t, res.body)
	return assemble(g.t, list), list
}

// until waits for a state of the simulator.
func (g *rig) until(ready func(sim.Counters) bool) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	if err := g.sim.Wait(ctx, ready); err != nil {
		g.t.Fatalf("%v: %+v", err, g.sim.Counters())
	}
}

func wantError(t *testing.T, res result, status int, kind, message string) {
	t.Helper()
	var body struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(res.body, &body); err != nil {
		t.Fatalf("%v: %q", err, res.body)
	}
	if res.status != status || body.Type != "error" || body.Error.Type != kind || !strings.HasPrefix(body.Error.Message, message) {
		t.Errorf("got %d %s", res.status, res.body)
	}
	if id := res.header.Get("Request-Id"); id != body.RequestID || !strings.HasPrefix(id, "req_") {
		t.Errorf("request-id %q, in the body %q", id, body.RequestID)
	}
}

func Example() {
	s, err := sim.New(sim.Options{})
	if err != nil {
		panic(err)
	}
	body := `{"model":"claude-opus-5-5","max_tokens":100,"messages":[{"role":"user","content":"[[sim \"hello\"]]"}]}`
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/messages", strings.NewReader(body))
	r.Header.Set("X-Api-Key", sim.DefaultKey)
	r.Header.Set("Anthropic-Version", "2023-06-01")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var m msg
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		panic(err)
	}
	fmt.Println(m.Content[0].Text, m.StopReason)
	// Output: hello end_turn
}

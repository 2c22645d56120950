package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// The documented examples, as people paste them into a shell, apart from host and key.
const (
	curlMessages = `curl -X POST http://your-proxy-domain/v1/messages \
  -H "Content-Type: application/json" \
  -H "X-API-Key: your-api-key" \
  -H "User-Agent: claude-cli/1.0.57 (external, cli)" \
  -d '{
    "model": "claude-3-5-sonnet-20241022",
    "max_tokens": 4096,
    "messages": [
      {"role": "user", "content": "Hello, Claude!"}
    ]
  }'`

	curlUser = `curl -X GET http://your-proxy-domain/v1/user \
  -H "X-API-Key: your-api-key" \
  -H "User-Agent: claude-cli/1.0.57 (external, cli)"`

	curlUsage = `curl -X GET http://your-proxy-domain/v1/usage \
  -H "X-API-Key: your-api-key" \
  -H "User-Agent: claude-cli/1.0.57 (external, cli)"`

	curlHealth = `curl http://your-proxy-domain/health`

	curlQuota = `curl -H "X-API-Key: your-api-key" http://your-proxy-domain/v1/user`

	curlAgent = `curl -I -H "User-Agent: claude-cli/1.0.57 (external, cli)" http://your-proxy-domain/health`

	curlReset = `curl -X POST http://your-proxy-domain/admin/reset-quota`
)

// shell runs an example and returns its standard output.
func (g *gateway) shell(example string) string {
	g.t.Helper()
	line := strings.NewReplacer("http://your-proxy-domain", g.url, "your-api-key", g.key).Replace(example)
	home := g.t.TempDir()
	r := runProgram(g.t, callPatience, home, plainEnv(home), nil, "bash", "-c", line)
	if r.code != 0 {
		g.t.Fatalf("exit status %d\n%s\n%s", r.code, line, r.stderr)
	}
	return r.stdout
}

func decodeShell[T any](g *gateway, example string) T {
	g.t.Helper()
	var v T
	out := g.shell(example)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		g.t.Fatalf("%v\n%s", err, out)
	}
	return v
}

// recorder is an upstream that keeps what it received and answers like the API.
type recorder struct {
	mu     sync.Mutex
	header []http.Header
	body   [][]byte
}

func (u *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	u.mu.Lock()
	u.header, u.body = append(u.header, r.Header.Clone()), append(u.body, body)
	u.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", "req_recorded")
	_, _ = io.WriteString(w, `{"id":"msg_1","type":"message","role":"assistant","model":"claude-3-5-sonnet-20241022",`+
		`"content":[{"type":"text","text":"Hello!"}],"stop_reason":"end_turn","stop_sequence":null,`+
		`"usage":{"input_tokens":21,"output_tokens":9}}`)
}

func (u *recorder) last() (http.Header, []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.header[len(u.header)-1], u.body[len(u.body)-1]
}

// TestDocumentedCurlExamples: each works as written, with the effects that the first design described.
func TestDocumentedCurlExamples(t *testing.T) {
	t.Parallel()
	upstream := &recorder{}
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	g := startServe(t, server.URL, 50_000)

	type message struct {
		Type    string
		Role    string
		Content []struct{ Type, Text string }
	}
	m := decodeShell[message](g, curlMessages)
	if m.Type != "message" || m.Role != "assistant" || len(m.Content) != 1 || m.Content[0].Text != "Hello!" {
		t.Errorf("messages: %+v", m)
	}
	header, body := upstream.last()
	checkFilledIn(t, header, body)

	checkUser(t, decodeShell[map[string]any](g, curlUser))
	checkUser(t, decodeShell[map[string]any](g, curlQuota))

	usage := g.shell(curlUsage)
	for _, want := range []string{`"requests":1`, "21", "9", "claude-3-5-sonnet-20241022"} {
		if !strings.Contains(strings.ReplaceAll(usage, " ", ""), want) {
			t.Errorf("usage does not show %s:\n%s", want, usage)
		}
	}

	if both := g.shell(curlUser + "; " + curlHealth); strings.Count(both, "\n") != 2 {
		t.Errorf("two answers run together: %q", both)
	}

	type health struct {
		Status    string
		Service   string
		Timestamp time.Time
		Uptime    float64
		NodeID    string `json:"node_id"`
		Connected bool
	}
	h := decodeShell[health](g, curlHealth)
	if h.Status != "healthy" || h.Service == "" || time.Since(h.Timestamp).Abs() > time.Minute || h.Uptime < 0 || h.NodeID == "" || !h.Connected {
		t.Errorf("health: %+v", h)
	}
	if head := g.shell(curlAgent); !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Errorf("curl -I: %s", head)
	}

	// The example has no credential, which no server may accept for this.
	if status := g.shell(curlReset + ` -s -o /dev/null -w '%{http_code}'`); status != "401" {
		t.Errorf("reset without a credential: status %s", status)
	}
	if used := g.account().Quota.Daily.Used; used != 30 {
		t.Errorf("used %d tokens, want 30", used)
	}
	var token struct {
		Token string `json:"token"`
	}
	g.decode(&token, "admin", "token", "add", "e2e")
	g.shell(curlReset + ` -f -H "Authorization: Bearer ` + token.Token + `" -H "Content-Type: application/json" -d '{"user": "alice"}'`)
	if used := g.account().Quota.Daily.Used; used != 0 {
		t.Errorf("used %d tokens after the reset, want 0", used)
	}
}

// checkFilledIn: a request of an accepted Claude Code client without any system text gets the Claude Code system block, and
// the headers that a CLI would have sent; the rest of the body stays as it was typed.
func checkFilledIn(t *testing.T, header http.Header, body []byte) {
	t.Helper()
	var got struct {
		Model     string
		MaxTokens int `json:"max_tokens"`
		System    json.RawMessage
		Messages  []struct{ Role, Content string }
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got.System), "You are Claude Code, Anthropic's official CLI for Claude.") {
		t.Errorf("system: %s", got.System)
	}
	if got.Model != "claude-3-5-sonnet-20241022" || got.MaxTokens != 4096 || len(got.Messages) != 1 || got.Messages[0].Content != "Hello, Claude!" {
		t.Errorf("body: %s", body)
	}
	if !strings.Contains(string(body), "\n      {\"role\": \"user\", \"content\": \"Hello, Claude!\"}\n    ]") {
		t.Errorf("the body was written anew: %s", body)
	}
	for name, want := range map[string]string{
		"X-Stainless-Lang": "js", "X-Stainless-Package-Version": "0.55.1", "Anthropic-Dangerous-Direct-Browser-Access": "true",
		"X-App": "cli", "Anthropic-Version": "2023-06-01", "User-Agent": "claude-cli/1.0.57 (external, cli)", "X-Api-Key": simKey,
	} {
		if v := header.Get(name); v != want {
			t.Errorf("header %s: %q, want %q", name, v, want)
		}
	}
}

func checkUser(t *testing.T, user map[string]any) {
	t.Helper()
	if !strings.Contains(mustJSON(user), `"alice"`) {
		t.Errorf("user does not say who: %v", user)
	}
	quota, _ := user["quota"].(map[string]any)
	daily, _ := quota["daily"].(map[string]any)
	if daily["limit"] != 50_000.0 || daily["used"] != 30.0 || daily["remaining"] != 49_970.0 {
		t.Errorf("daily quota: %v", daily)
	}
	resets, err := time.Parse(time.RFC3339, daily["resets_at"].(string))
	if err != nil || time.Until(resets) <= 0 || time.Until(resets) > 25*time.Hour {
		t.Errorf("daily quota resets at %v, %v", daily["resets_at"], err)
	}
	if _, ok := quota["monthly"].(map[string]any); !ok {
		t.Errorf("monthly quota: %v", quota["monthly"])
	}
}

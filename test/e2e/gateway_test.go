package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gateway is a running Carpool with a developer's key for it.
type gateway struct {
	t    testing.TB
	proc *process
	url  string // without a path
	key  string
	data string // the data folder, through which the command line finds it
}

// startDemo starts `carpool demo` on a free port and waits until it is ready, which is when it prints the exports.
func startDemo(t testing.TB) *gateway {
	t.Helper()
	return demoIn(t, t.TempDir())
}

func demoIn(t testing.TB, data string) *gateway {
	t.Helper()
	home := t.TempDir()
	p := start(t, home, plainEnv(home), binary, "demo", "--listen", "127.0.0.1:0", "--data", data)
	return readyDemo(t, p, data)
}

func readyDemo(t testing.TB, p *process, data string) *gateway {
	t.Helper()
	g := &gateway{t: t, proc: p, data: data}
	g.url = p.line(p.stdout, "the export of ANTHROPIC_BASE_URL", exported("ANTHROPIC_BASE_URL"))
	g.key = p.line(p.stdout, "the export of ANTHROPIC_AUTH_TOKEN", exported("ANTHROPIC_AUTH_TOKEN"))
	return g
}

// exported matches `export NAME=VALUE` as `eval` would take it.
func exported(name string) func(string) (string, bool) {
	return func(line string) (string, bool) {
		value, ok := strings.CutPrefix(line, "export "+name+"=")
		return strings.Trim(value, `"'`), ok
	}
}

// simulator is a running `carpool sim`.
type simulator struct {
	t   testing.TB
	url string
}

// simKey is the credential that every simulator takes.
const simKey = "sk-ant-sim"

func startSim(t testing.TB, args ...string) *simulator {
	t.Helper()
	home := t.TempDir()
	p := start(t, home, plainEnv(home), binary, append([]string{"sim", "--listen", "127.0.0.1:0"}, args...)...)
	return &simulator{t: t, url: p.line(p.stdout, "its address", func(line string) (string, bool) {
		return line, strings.HasPrefix(line, "http://127.0.0.1:")
	})}
}

// serving matches the log line of a server that is ready, and returns its address.
func serving(line string) (string, bool) {
	var l struct{ Msg, Address string }
	err := json.Unmarshal([]byte(line), &l)
	return l.Address, err == nil && l.Msg == "serving" && l.Address != ""
}

// received is what the simulator knows of one request and its answer.
type received struct {
	Seq            int64               `json:"seq"`
	Method         string              `json:"method"`
	Path           string              `json:"path"`
	Query          string              `json:"query"`
	Header         map[string][]string `json:"header"`
	Credential     string              `json:"credential"`
	BodyBytes      int64               `json:"body_bytes"`
	BodySHA256     string              `json:"body_sha256"`
	Finished       bool                `json:"finished"`
	Status         int                 `json:"status"`
	RequestID      string              `json:"request_id"`
	ResponseBytes  int64               `json:"response_bytes"`
	ResponseSHA256 string              `json:"response_sha256"`
	ClientGone     bool                `json:"client_gone"`
}

// requests returns what the simulator received after sequence number since.
func (s *simulator) requests(since int64) []received {
	s.t.Helper()
	var list struct {
		Requests []received `json:"requests"`
	}
	getJSON(s.t, fmt.Sprintf("%s/__sim/requests?since=%d", s.url, since), nil, &list)
	return list.Requests
}

// finished waits until n requests after since have been answered, and returns them.
func (s *simulator) finished(since int64, n int) []received {
	s.t.Helper()
	var list []received
	eventually(s.t, callPatience, fmt.Sprintf("the simulator has answered %d requests", n), func() bool {
		list = s.requests(since)
		done := 0
		for _, r := range list {
			if r.Finished {
				done++
			}
		}
		return done >= n
	})
	return list
}

// newKey makes a developer's key as an operator might give it.
func newKey(name string) string { return "cpk_e2e_" + name + "_0123456789abcdef0123456789" }

// startServe starts `carpool serve` in front of an upstream, with the user alice and a quota of daily tokens (-1: none).
func startServe(t testing.TB, upstream string, daily int64, settings ...string) *gateway {
	t.Helper()
	return serveIn(t, t.TempDir(), upstream, daily, settings...)
}

// serveIn is startServe on a data folder of the caller, which may hold an earlier server's data.
func serveIn(t testing.TB, dir, upstream string, daily int64, settings ...string) *gateway {
	t.Helper()
	resources := fmt.Sprintf(`upstreams:
  - {name: main, provider: anthropic, baseUrl: %q, apiKeyEnv: E2E_UPSTREAM_KEY}
routes:
  - {name: default, models: ["*"], upstreams: [main]}
users:
  - {name: alice, team: platform, quota: {daily: %d, monthly: -1}}
keys:
  - {name: alice-laptop, user: alice, key: %s, limits: {inFlight: 0}}
`, upstream, daily, newKey("alice"))
	config := fmt.Sprintf(`server: {host: 127.0.0.1, port: 0, drainTimeout: 5s}
metrics: {listen: main}
log: {format: json}
dataDir: %q
resources: resources.yml
%s
`, filepath.Join(dir, "data"), strings.Join(settings, "\n"))
	write(t, filepath.Join(dir, "resources.yml"), resources)
	write(t, filepath.Join(dir, "carpool.yml"), config)
	p := start(t, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), binary, "serve", "--config", "carpool.yml")
	return &gateway{
		t: t, proc: p, data: filepath.Join(dir, "data"), key: newKey("alice"),
		url: p.line(p.stderr, "its address", serving),
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs the command line against this server.
func (g *gateway) run(args ...string) result {
	g.t.Helper()
	home := g.t.TempDir()
	return runProgram(g.t, callPatience, home, plainEnv(home), nil, binary, append(args, "--data", g.data)...)
}

// decode runs the command line with --output json, which must succeed, and decodes what it prints.
func (g *gateway) decode(v any, args ...string) {
	g.t.Helper()
	r := g.run(append(args, "--output", "json")...)
	if r.code != 0 {
		g.t.Fatalf("carpool %s: exit status %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
		g.t.Fatalf("carpool %s: %v\n%s", strings.Join(args, " "), err, r.stdout)
	}
}

// must runs the command line, which must succeed.
func (g *gateway) must(args ...string) string {
	g.t.Helper()
	r := g.run(args...)
	if r.code != 0 {
		g.t.Fatalf("carpool %s: exit status %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// entry is one row of `carpool usage --output json`.
type entry struct {
	ID              string      `json:"id"`
	StartedAt       time.Time   `json:"startedAt"`
	FirstByteMs     int64       `json:"firstByteMs"`
	DurationMs      int64       `json:"durationMs"`
	Outcome         string      `json:"outcome"`
	Status          int         `json:"status"`
	ErrorType       string      `json:"errorType"`
	User            string      `json:"user"`
	KeyName         string      `json:"keyName"`
	Endpoint        string      `json:"endpoint"`
	Stream          bool        `json:"stream"`
	ModelAsked      string      `json:"modelAsked"`
	ModelServed     string      `json:"modelServed"`
	Upstream        string      `json:"upstream"`
	StopReason      string      `json:"stopReason"`
	InputTokens     int64       `json:"inputTokens"`
	OutputTokens    int64       `json:"outputTokens"`
	CacheReadTokens int64       `json:"cacheReadTokens"`
	CacheWrite5m    int64       `json:"cacheWrite5mTokens"`
	CacheWrite1h    int64       `json:"cacheWrite1hTokens"`
	QuotaTokens     int64       `json:"quotaTokens"`
	SessionID       string      `json:"sessionId"`
	AgentID         string      `json:"agentId"`
	RequestClass    string      `json:"requestClass"`
	Client          string      `json:"client"`
	ClientVersion   string      `json:"clientVersion"`
	Tools           []toolCount `json:"tools"`
	FileOperations  int64       `json:"fileOperations"`
	RequestBytes    int64       `json:"requestBytes"`
	ResponseBytes   int64       `json:"responseBytes"`
}

type toolCount struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// books is the answer of `carpool usage --output json`.
type books struct {
	Totals struct {
		Requests        int64 `json:"requests"`
		Errors          int64 `json:"errors"`
		InputTokens     int64 `json:"inputTokens"`
		OutputTokens    int64 `json:"outputTokens"`
		CacheReadTokens int64 `json:"cacheReadTokens"`
		QuotaTokens     int64 `json:"quotaTokens"`
		FileOperations  int64 `json:"fileOperations"`
	} `json:"totals"`
	Rows []entry `json:"rows"`
}

func (g *gateway) books(args ...string) books {
	g.t.Helper()
	var b books
	g.decode(&b, append([]string{"usage", "--limit", "1000"}, args...)...)
	return b
}

// settled waits until the books hold n exchanges, and returns them.
func (g *gateway) settled(n int) books {
	g.t.Helper()
	var b books
	eventually(g.t, callPatience, fmt.Sprintf("the books hold %d exchanges", n), func() bool {
		b = g.books()
		return len(b.Rows) >= n
	})
	return b
}

// tools sums the tool calls of entries by name.
func tools(rows []entry) map[string]int64 {
	sum := map[string]int64{}
	for _, e := range rows {
		for _, c := range e.Tools {
			sum[c.Name] += c.Count
		}
	}
	return sum
}

// response is an answer read to its end, or to where it broke off (err).
type response struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// client sends requests as they are: it neither asks for compression nor undoes it, and follows no redirect.
func client() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		Timeout:       callPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// call sends one request; the header's names are sent in canonical form.
func call(t testing.TB, method, address string, header http.Header, body []byte) response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	resp, err := client().Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, got, err}
}

// agent is the User-Agent of a current client, which every policy accepts.
const agent = "claude-cli/2.1.330 (external, sdk-cli)"

// header is what a client sends with the gateway's key.
func (g *gateway) header() http.Header {
	return http.Header{
		"X-Api-Key": {g.key}, "Content-Type": {"application/json"}, "Anthropic-Version": {"2023-06-01"}, "User-Agent": {agent},
	}
}

// messages posts a Messages request with the gateway's key.
func (g *gateway) messages(body any) response {
	g.t.Helper()
	return call(g.t, http.MethodPost, g.url+"/v1/messages", g.header(), []byte(mustJSON(body)))
}

// prompt is the body of a Messages request with one user message.
func prompt(text string) map[string]any {
	return map[string]any{
		"model": "claude-sonnet-4-5", "max_tokens": 64,
		"messages": []any{map[string]any{"role": "user", "content": text}},
	}
}

// script is a directive for the simulator; each step is a string or an object.
func script(steps ...any) string { return "[[sim " + mustJSON(steps) + "]]" }

func getJSON(t testing.TB, address string, header http.Header, v any) {
	t.Helper()
	r := call(t, http.MethodGet, address, header, nil)
	if r.status != http.StatusOK {
		t.Fatalf("GET %s: status %d\n%s", address, r.status, r.body)
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("GET %s: %v\n%s", address, err, r.body)
	}
}

// apiError decodes an error in the API's envelope.
func apiError(t testing.TB, r response) (kind, message string) {
	t.Helper()
	var e struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(r.body, &e); err != nil || e.Type != "error" {
		t.Fatalf("status %d with a body that is no API error: %s", r.status, r.body)
	}
	if id := r.header.Get("Request-Id"); id == "" || id != e.RequestID {
		t.Errorf("request-id header %q and body %q are not the same id", id, e.RequestID)
	}
	return e.Error.Type, e.Error.Message
}

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestOnlyClaudeCodeByDefault: without any setting a server serves every form of Claude Code, and no other program; whoever
// has a key sees the account with whatever there is at hand.
func TestOnlyClaudeCodeByDefault(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	count := mustJSON(map[string]any{"model": "claude-sonnet-4-5", "messages": prompt("count me")["messages"]})
	ask := func(method, path, agent string) response {
		header, body := g.header(), ""
		header["User-Agent"] = nil
		if agent != "" {
			header.Set("User-Agent", agent)
		}
		switch path {
		case "/v1/messages":
			body = mustJSON(prompt("x"))
		case "/v1/messages/count_tokens":
			body = count
		}
		return call(t, method, g.url+path, header, []byte(body))
	}
	served := []struct{ method, path string }{
		{"POST", "/v1/messages"}, {"POST", "/v1/messages/count_tokens"}, {"GET", "/v1/models"},
	}
	for _, agent := range []string{ // as real CLIs, their SDK and their model discovery were seen to send them
		"claude-cli/1.0.59 (external, cli)", "claude-cli/2.1.330 (external, sdk-cli)", "claude-cli/2.1.50 (external, sdk-ts, agent-sdk/0.1.2)",
		"claude-cli/2.1.330 (external, claude-vscode)", "claude-code/2.1.330",
	} {
		for _, to := range served {
			if r := ask(to.method, to.path, agent); r.status != http.StatusOK {
				t.Errorf("%s by %s: status %d\n%s", to.path, agent, r.status, r.body)
			}
		}
	}
	before := len(sim.requests(0))
	for _, agent := range []string{"curl/8.5.0", "Anthropic/JS 0.70.0", "Anthropic/Python 0.40.0", "python-requests/2.32.0", ""} {
		for _, to := range served {
			r := ask(to.method, to.path, agent)
			kind, message := apiError(t, r)
			if r.status != http.StatusForbidden || kind != "permission_error" || r.header.Get("X-Should-Retry") != "false" ||
				!strings.Contains(message, "npm install -g @anthropic-ai/claude-code") || !strings.Contains(message, agent) || !strings.Contains(message, "claudeCode.requireClient") {
				t.Errorf("%s by %q: status %d, %s: %s", to.path, agent, r.status, kind, message)
			}
		}
		for _, path := range []string{"/v1/user", "/v1/usage"} {
			if r := ask("GET", path, agent); r.status != http.StatusOK {
				t.Errorf("%s by %q: status %d\n%s", path, agent, r.status, r.body)
			}
		}
	}
	if n := len(sim.requests(0)); n != before {
		t.Errorf("%d refused requests reached the upstream", n-before)
	}
	// The CLI's preconnections and telemetry have other agents, and no key.
	for _, probe := range []struct{ method, path, agent string }{
		{"HEAD", "/", "Bun/1.4.0"}, {"HEAD", "/api/hello", "Bun/1.4.4"}, {"POST", "/api/event_logging/batch", "claude-code/2.0.77"},
	} {
		if r := call(t, probe.method, g.url+probe.path, http.Header{"User-Agent": {probe.agent}}, nil); r.status >= 300 {
			t.Errorf("%s %s: status %d", probe.method, probe.path, r.status)
		}
	}
}

// TestRefusedProgramUnderTheRealSDK: what an SDK's user sees where only Claude Code is served, at once and without a repetition.
func TestRefusedProgramUnderTheRealSDK(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	pkg := installed(t, "@anthropic-ai/sdk@1.12.0")
	home := t.TempDir()
	script := `const A = require(process.argv[1]); const C = A.Anthropic || A.default || A;
new C({apiKey: process.env.API_KEY, baseURL: process.env.BASE_URL}).messages.create({model: "claude-sonnet-4-5", max_tokens: 1, messages: [{role: "user", content: "x"}]})
  .then(() => console.log("served"), e => console.log(e.status + " " + e.message));`
	r := runProgram(t, time.Minute, home, plainEnv(home, "BASE_URL="+g.url, "API_KEY="+g.key), nil,
		"node", "-e", script, filepath.Join(pkg, "node_modules", "@anthropic-ai", "sdk"))
	if !strings.HasPrefix(r.stdout, "403 ") || !strings.Contains(r.stdout, "This gateway serves only Claude Code; this request came from Anthropic/JS 1.12.0") {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if n := g.metric(`carpool_client_objections_total{action="refused",reason="other_client"}`); n != 1 {
		t.Errorf("%v requests were refused, want 1: it was repeated", n)
	}
}

// crowd sends requests with a key together, of which the simulator holds those that reach it until all others were refused.
// It returns how many were served.
func (g *gateway) crowd(sim *simulator, requests, fit int) (served int) {
	g.t.Helper()
	var seq int64
	if list := sim.requests(0); len(list) > 0 {
		seq = list[len(list)-1].Seq
	}
	body := []byte(mustJSON(prompt(script(map[string]any{"hold": "crowd"}))))
	var mu sync.Mutex
	count := map[int]int{}
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			r := g.raw(g.t, body)
			mu.Lock()
			defer mu.Unlock()
			count[r.status]++
			if kind, message := apiErrorOf(r); r.status != http.StatusOK && (kind != "rate_limit_error" || r.header.Get("Retry-After") != "2" || !strings.Contains(message, "running already")) {
				g.t.Errorf("refused with %d %s, retry-after %q: %s", r.status, kind, r.header.Get("Retry-After"), message)
			}
		})
	}
	eventually(g.t, callPatience, "all others have been refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return count[http.StatusTooManyRequests] >= requests-fit
	})
	if r := call(g.t, http.MethodGet, fmt.Sprintf("%s/__sim/wait?held=%d&timeout_ms=20000", sim.url, fit), nil, nil); r.status != http.StatusOK {
		g.t.Errorf("not %d are held: %s", fit, r.body)
	}
	if n := len(sim.requests(seq)); n != fit {
		g.t.Errorf("%d requests reached the upstream, want %d", n, fit)
	}
	if r := call(g.t, http.MethodPost, sim.url+"/__sim/release?name=crowd", nil, nil); r.status != http.StatusOK {
		g.t.Errorf("release: status %d", r.status)
	}
	all.Wait()
	return count[http.StatusOK]
}

// TestDefaultLimitOfKeys: a key without limits of its own has the default ones, which a reload changes, and of which it can be
// freed.
func TestDefaultLimitOfKeys(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	var key struct {
		Key    string
		Limits struct{ InFlight int }
	}
	g.decode(&key, "key", "add", "plain", "--user", "alice")
	g.key = key.Key
	if served := g.crowd(sim, 200, 64); served != 64 {
		t.Errorf("%d of 200 were served, want the default of 64", served)
	}

	config, err := os.ReadFile(filepath.Join(dir, "carpool.yml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "carpool.yml"), string(config)+"claudeCode: {defaultLimits: {inFlight: 17}}\n")
	g.proc.signal(syscall.SIGHUP)
	eventually(t, callPatience, "the new default is in force", func() bool {
		g.decode(&key, "key", "show", "plain")
		return key.Limits.InFlight == 17
	})
	if shown := g.must("key", "show", "plain"); !strings.Contains(shown, "17 (default)") {
		t.Errorf("shown:\n%s", shown)
	}
	if served := g.crowd(sim, 40, 17); served != 17 {
		t.Errorf("%d of 40 were served, want the new default of 17", served)
	}
	g.must("key", "set", "plain", "--in-flight", "0")
	if served := g.crowd(sim, 100, 100); served != 100 {
		t.Errorf("%d of 100 were served with a key that is not limited", served)
	}
}

// TestARemovedUserLeavesNoQuotaBehind: a new user of the same name begins afresh, and the books keep what the old one used.
func TestARemovedUserLeavesNoQuotaBehind(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	add := func() {
		t.Helper()
		var key struct{ Key string }
		g.must("user", "add", "bob", "--daily", "1000")
		g.decode(&key, "key", "add", "bob-laptop", "--user", "bob")
		g.key = key.Key
	}
	use := func() response {
		return g.messages(prompt(script(map[string]any{"text": "x", "usage": map[string]any{"input_tokens": 500, "output_tokens": 500}})))
	}
	add()
	if r := use(); r.status != http.StatusOK {
		t.Fatalf("status %d\n%s", r.status, r.body)
	}
	if r := use(); r.status != http.StatusTooManyRequests {
		t.Fatalf("the quota is spent: status %d\n%s", r.status, r.body)
	}
	if r := g.run("user", "remove", "bob", "--yes"); r.code != 0 || !strings.Contains(r.stderr, "stays in the books under this name") {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	add()
	if used := g.account().Quota.Daily.Used; used != 0 {
		t.Errorf("a new user begins with %d tokens used", used)
	}
	if r := use(); r.status != http.StatusOK {
		t.Errorf("a new user: status %d\n%s", r.status, r.body)
	}
	if total := g.books("--user", "bob").Totals; total.Requests != 2 || total.QuotaTokens != 2000 {
		t.Errorf("the books: %+v", total)
	}
}

// TestUpstreamsHealthIsShown: the operator sees which upstream is left alone, why and for how long, and when it is not any more.
func TestUpstreamsHealthIsShown(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	type shown struct {
		Health  string
		Cooling []struct {
			Cause, Model string
			Seconds      int
		}
	}
	look := func() (u shown) {
		t.Helper()
		g.decode(&u, "upstream", "show", "main")
		return u
	}
	if u := look(); u.Health != "ready" || len(u.Cooling) != 0 {
		t.Errorf("at first: %+v", u)
	}
	if r := g.messages(prompt(script(map[string]any{"status": 429, "headers": map[string]string{"retry-after": "250"}}))); r.status != http.StatusTooManyRequests {
		t.Fatalf("status %d\n%s", r.status, r.body)
	}
	u := look()
	if u.Health != "cooling" || len(u.Cooling) != 1 || u.Cooling[0].Cause != "rate" || u.Cooling[0].Model != "claude-sonnet-4-5" || u.Cooling[0].Seconds < 150 || u.Cooling[0].Seconds > 250 {
		t.Errorf("after a 429: %+v", u)
	}
	if list := g.must("upstream", "list"); !strings.Contains(list, "cooling: rate 2") || !strings.Contains(list, "s (claude-sonnet-4-5)") {
		t.Errorf("the list:\n%s", list)
	}
	g.must("upstream", "disable", "main")
	g.must("upstream", "enable", "main")
	if u := look(); u.Health != "ready" {
		t.Errorf("after a fresh start: %+v", u)
	}
}

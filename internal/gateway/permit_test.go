package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"carpool/internal/policy"
)

const cliAgent = "User-Agent: claude-cli/2.1.50 (external, cli)"

// forbidden asserts a refusal that every client shows at once.
func forbidden(t *testing.T, got answer, says ...string) {
	t.Helper()
	kind, message := errorOf(t, got)
	if got.status != 403 || kind != "permission_error" || got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	for _, text := range says {
		if !strings.Contains(message, text) {
			t.Errorf("%q does not say %q", message, text)
		}
	}
}

func TestOnlyAcceptedClientsAreServed(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) {
		d.Settings.Client = policy.ClientPolicy{Require: policy.RequireEnforce, MinVersion: "2.1.9"}
	})
	for _, endpoint := range []struct{ method, path string }{
		{"POST", "/v1/messages"},
		{"POST", "/v1/v1/messages"},
		{"POST", "/v1/messages/count_tokens"},
		{"GET", "/v1/models"},
		{"GET", "/v1/models/claude-opus-5-5"},
	} {
		ask := func(headers ...string) answer {
			return r.do(r.request(endpoint.method, endpoint.path, plainRequest, headers...))
		}
		forbidden(t, ask("User-Agent: curl/8.5.0"), "only Claude Code 2.1.9 or later", "came from curl/8.5.0", "npm install -g @anthropic-ai/claude-code@latest", "claudeCode.requireClient")
		forbidden(t, ask("User-Agent: claude-cli/2.1.8 (external, cli)"), "serves Claude Code 2.1.9 or later; this is 2.1.8.", "npm install -g")
		if got := ask(cliAgent); got.status == 403 {
			t.Errorf("%s: %s", endpoint.path, got.body)
		}
		if got := ask("User-Agent: claude-code/2.1.50"); got.status == 403 {
			t.Errorf("%s: %s", endpoint.path, got.body)
		}
	}
	none := r.request("POST", "/v1/messages", plainRequest)
	none.Header["User-Agent"] = []string{""} // otherwise the client sends its own
	forbidden(t, r.do(none), "came from a program without a User-Agent")
	forbidden(t, r.post(plainRequest, "User-Agent: "+strings.Repeat("x", 50)+"\u00e9"+strings.Repeat("y", 500)), "came from x")
	if got := r.do(r.request("HEAD", "/", "")); got.status != 200 {
		t.Errorf("a probe: %d", got.status)
	}
	if got := r.do(r.request("POST", "/v1/messages", plainRequest, "X-Api-Key: nobody", "User-Agent: curl/8.5.0")); got.status != 401 {
		t.Errorf("a stranger learns of the client policy: %d %s", got.status, got.body)
	}
	// The body is not looked at: it could not be accepted either.
	forbidden(t, r.post(plainRequest, "User-Agent: curl/8.5.0", "Content-Encoding: br"))

	want := `
# HELP carpool_client_objections_total Requests of programs that the client policy objects to, by reason and by whether they were refused or only warned of.
# TYPE carpool_client_objections_total counter
carpool_client_objections_total{action="refused",reason="old_version"} 5
carpool_client_objections_total{action="refused",reason="other_client"} 8
`
	if err := testutil.GatherAndCompare(r.registry, strings.NewReader(want), "carpool_client_objections_total"); err != nil {
		t.Error(err)
	}
}

// Developers look at their own account with whatever they have, as docs/developers.md tells them to.
func TestEveryProgramSeesItsAccount(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) {
		d.Settings.Client = policy.ClientPolicy{Disabled: true, Require: policy.RequireEnforce, MinVersion: "9.0.0"}
	})
	for _, path := range []string{"/v1/user", "/v1/usage", "/v1/v1/user"} {
		for _, agent := range []string{"curl/8.5.0", "Anthropic/JS 0.70.0", "claude-cli/1.0.57 (external, cli)"} {
			if got := r.do(r.request("GET", path, "", "User-Agent: "+agent)); got.status != 200 {
				t.Errorf("%s by %s: %d %s", path, agent, got.status, got.body)
			}
		}
	}
	forbidden(t, r.do(r.request("GET", "/v1/models", "", "User-Agent: curl/8.5.0")))
	if n := testutil.CollectAndCount(r.registry, "carpool_client_objections_total"); n != 1 {
		t.Errorf("%d kinds of objections counted, want that of the list of models alone", n)
	}
}

func TestExactVersions(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) {
		d.Settings.Client = policy.ClientPolicy{Require: policy.RequireEnforce, SupportedVersions: []string{"1.0.57", "1.0.59"}}
	})
	forbidden(t, r.post(plainRequest, cliAgent), "serves Claude Code in version 1.0.57 or 1.0.59; this is 2.1.50.", "npm install -g @anthropic-ai/claude-code@1.0.59")
	if got := r.post(plainRequest, "User-Agent: claude-cli/1.0.57 (external, cli)"); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestWarnedClientsAreServed(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Settings.Client.Require = policy.RequireWarn })
	if got := r.post(plainRequest, "User-Agent: curl/8.5.0"); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	waitFor(t, "the access line", func() bool { return strings.Contains(r.logs.String(), "clientPolicy=other_client agent=curl/8.5.0") })
	if n := testutil.CollectAndCount(r.registry, "carpool_client_objections_total"); n != 1 {
		t.Errorf("%d objections counted", n)
	}
}

func TestClaudeCodeSwitchedOff(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Settings.Client.Disabled = true })
	forbidden(t, r.post(plainRequest, cliAgent), "does not serve Claude Code at present")
	if got := r.post(plainRequest, "User-Agent: Anthropic/JS 0.70.0"); got.status != 200 {
		t.Errorf("another program: %d %s", got.status, got.body)
	}
}

func TestKeyScopeOfEndpoints(t *testing.T) {
	all := map[string]string{
		"POST /v1/messages": "messages", "POST /v1/messages/count_tokens": "count_tokens", "GET /v1/models": "models",
		"GET /v1/models/x": "models", "GET /v1/user": "account", "GET /v1/usage": "account",
	}
	r := newRig(t, answerPlain, nil)
	for _, allowed := range []string{"messages", "count_tokens", "models", "account"} {
		r.change(func(d *policy.Document) { d.Keys[0].Scope = policy.ScopeSpec{Endpoints: []string{allowed}} })
		for what, endpoint := range all {
			method, path, _ := strings.Cut(what, " ")
			got := r.do(r.request(method, path, plainRequest))
			if endpoint == allowed {
				if got.status == 403 {
					t.Errorf("%s with a key for %s: %s", what, allowed, got.body)
				}
				continue
			}
			forbidden(t, got, "The Carpool key alice-laptop may not be used for /v1/")
		}
	}
	if got := r.post(plainRequest, "X-Api-Key: "+bobKey); got.status != 200 {
		t.Errorf("another key: %d %s", got.status, got.body)
	}
}

func TestKeyScopeOfAddresses(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Keys[0].Scope.Addresses = []string{"203.0.113.0/24"} })
	forbidden(t, r.post(plainRequest), "may not be used from 127.0.0.1")
	if got := r.post(plainRequest, "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.0.0.5"); got.status != 200 {
		t.Errorf("from its network: %d %s", got.status, got.body)
	}
	forbidden(t, r.post(plainRequest, "X-Forwarded-For: 203.0.113.9, 198.51.100.1"), "may not be used from 198.51.100.1")
	waitFor(t, "the access line", func() bool { return strings.Contains(r.logs.String(), "client=203.0.113.9") })
}

func TestKeyScopeOfModels(t *testing.T) {
	models := func(w http.ResponseWriter, req *http.Request) {
		if req.Method == "GET" {
			_, _ = io.WriteString(w, `{"data":[{"type":"model","id":"claude-opus-5-5"},{"type":"model","id":"claude-haiku-4-5"}],"has_more":false}`)
			return
		}
		answerPlain(w, req)
	}
	r := newRig(t, models, func(d *policy.Document) {
		d.Aliases = []policy.AliasSpec{{Name: "fast", Model: "claude-haiku-4-5"}}
		d.Keys[0].Scope.Models = []string{"claude-haiku-*"}
	})
	for _, model := range []string{"claude-haiku-4-5", "fast"} {
		if got := r.post(strings.ReplaceAll(plainRequest, "claude-opus-5-5", model)); got.status != 200 {
			t.Errorf("%s: %d %s", model, got.status, got.body)
		}
	}
	r.upstream.forget()
	for _, path := range []string{"/v1/messages", "/v1/messages/count_tokens"} {
		got := r.do(r.request("POST", path, plainRequest))
		if kind, message := errorOf(t, got); got.status != 404 || kind != "not_found_error" || message != "model: claude-opus-5-5 is not available here. Permitted: claude-haiku-*, fast." {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if r.upstream.count() != 0 {
		t.Error("a model outside of the scope reached the upstream")
	}
	ids := func(key string) string {
		var page struct{ Data []struct{ ID string } }
		got := r.do(r.request("GET", "/v1/models", "", "X-Api-Key: "+key))
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			t.Fatalf("%v: %s", err, got.body)
		}
		var list []string
		for _, m := range page.Data {
			list = append(list, m.ID)
		}
		return strings.Join(list, " ")
	}
	if got := ids(aliceKey); got != "fast claude-haiku-4-5" {
		t.Errorf("listed: %s", got)
	}
	if got := ids(bobKey); got != "fast claude-opus-5-5 claude-haiku-4-5" {
		t.Errorf("listed for another key: %s", got)
	}
	if got := r.do(r.request("GET", "/v1/models/claude-opus-5-5", "")); got.status != 404 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

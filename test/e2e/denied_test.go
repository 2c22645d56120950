package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// atOnceLimit is how long a developer may wait for a refusal: without the right headers the CLI retries for three minutes.
const atOnceLimit = 15 * time.Second

// TestClaudeWrongKey: a key that Carpool does not know ends the CLI at once, with our words and not its own advice to sign in.
func TestClaudeWrongKey(t *testing.T) {
	t.Parallel()
	g, other := startDemo(t), startDemo(t)
	for _, version := range claudeVersions() {
		for name, key := range map[string]string{"damaged": other.key[:len(other.key)-1] + "~", "of another server": other.key} {
			t.Run(version+" "+name, func(t *testing.T) {
				t.Parallel()
				s := claude{version: version, url: g.url, token: key, prompt: script("never"), text: true, env: []string{quiet}}.run(t)
				if s.code != 1 || s.elapsed > atOnceLimit {
					t.Errorf("exit status %d after %v, want 1 within %v", s.code, s.elapsed, atOnceLimit)
				}
				if shown := s.stdout + s.stderr; !strings.Contains(shown, "401") || !strings.Contains(shown, "Carpool") {
					t.Errorf("the CLI shows %q", shown)
				}
				if b := g.books("--endpoint", "all"); len(b.Rows) != 0 {
					t.Errorf("a stranger's request is in the books: %+v", b.Rows)
				}
			})
		}
	}
}

// TestClaudeAPIKey: the key works in ANTHROPIC_API_KEY as well, also beside a stranger's ANTHROPIC_AUTH_TOKEN, and the other
// way round.
func TestClaudeAPIKey(t *testing.T) {
	t.Parallel()
	g := startDemo(t)
	for _, version := range claudeVersions() {
		for name, pair := range map[string][2]string{
			"alone":                    {"", g.key},
			"beside a stranger's":      {"sk-ant-somebody-elses", g.key},
			"with a stranger's beside": {g.key, "sk-ant-somebody-elses"},
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				t.Parallel()
				s := claude{
					version: version, url: g.url, token: pair[0], prompt: script("reached"),
					env: []string{quiet, "ANTHROPIC_API_KEY=" + pair[1]},
				}.run(t)
				s.ok(t)
				if s.answer.Result != "reached" {
					t.Errorf("answer %q", s.answer.Result)
				}
			})
		}
	}
}

// TestClaudeQuotaExhausted: the developer reads Carpool's own message, at once, and the next day's reset is in it.
func TestClaudeQuotaExhausted(t *testing.T) {
	t.Parallel()
	for _, version := range claudeVersions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			sim := startSim(t)
			g := startServe(t, sim.url, 5000, "claudeCode: {quotaMessage: Ask the platform team for more.}")
			g.spend(6000)

			s := claude{version: version, url: g.url, token: g.key, prompt: script("never"), text: true, env: []string{quiet}}.run(t)
			if s.code != 1 || s.elapsed > atOnceLimit {
				t.Errorf("exit status %d after %v, want 1 within %v", s.code, s.elapsed, atOnceLimit)
			}
			shown := s.stdout + s.stderr
			for _, want := range []string{"429", "daily", "Ask the platform team for more."} {
				if !strings.Contains(shown, want) {
					t.Errorf("the CLI does not show %q:\n%s", want, shown)
				}
			}
			if n := len(sim.requests(0)); n != 1 {
				t.Errorf("the upstream got %d requests, want only the one before the quota was exhausted", n)
			}
		})
	}
}

// spend has the simulator report that a short request cost this many output tokens.
func (g *gateway) spend(n int64) {
	g.t.Helper()
	r := g.messages(prompt(script(map[string]any{"text": "expensive", "usage": map[string]int64{"input_tokens": 0, "output_tokens": n}})))
	if r.status != http.StatusOK {
		g.t.Fatalf("status %d\n%s", r.status, r.body)
	}
}

// TestQuotaBlockShape: the answer to an exhausted quota is what the CLI needs to stop and to tell why.
func TestQuotaBlockShape(t *testing.T) {
	t.Parallel()
	g := startServe(t, startSim(t).url, 1000)
	g.spend(1500)
	r := g.messages(prompt("more"))
	kind, message := apiError(t, r)
	if r.status != http.StatusTooManyRequests || kind != "billing_error" || !strings.Contains(message, "daily") {
		t.Errorf("status %d, %s: %s", r.status, kind, message)
	}
	for name, want := range map[string]string{
		"X-Should-Retry":                                      "false",
		"Anthropic-Ratelimit-Unified-Status":                  "rejected",
		"Anthropic-Ratelimit-Unified-Overage-Period":          "daily",
		"Anthropic-Ratelimit-Unified-Overage-Disabled-Reason": "org_spend_cap_reached",
		"Anthropic-Ratelimit-Unified-Representative-Claim":    "",
		"Anthropic-Ratelimit-Unified-Overage-Status":          "",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("header %s: %q, want %q", name, got, want)
		}
	}
}

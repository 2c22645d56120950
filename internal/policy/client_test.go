package policy_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	const (
		cli       = "claude-cli/2.1.50 (external, cli)"
		sdk       = "claude-cli/2.1.50 (external, sdk-ts, agent-sdk/0.1.2)"
		discovery = "claude-code/2.1.50"
	)
	enforce := func(min string, versions ...string) policy.ClientPolicy {
		return policy.ClientPolicy{Require: policy.RequireEnforce, MinVersion: min, SupportedVersions: versions}
	}
	cases := []struct {
		what    string
		rules   policy.ClientPolicy
		agent   string
		against policy.Objection
		refused bool
	}{
		{"no policy", policy.ClientPolicy{}, "curl/8.5.0", "", false},
		{"off", policy.ClientPolicy{Require: policy.RequireOff, MinVersion: "9.0.0"}, cli, "", false},
		{"the CLI", enforce(""), cli, "", false},
		{"an SDK agent", enforce(""), sdk, "", false},
		{"model discovery", enforce(""), discovery, "", false},
		{"curl", enforce(""), "curl/8.5.0", policy.ObjectionOtherClient, true},
		{"an SDK", enforce(""), "Anthropic/JS 0.70.0", policy.ObjectionOtherClient, true},
		{"no User-Agent", enforce(""), "", policy.ObjectionOtherClient, true},
		{"no version", enforce(""), "claude-cli", policy.ObjectionOtherClient, true},
		{"an odd version", enforce(""), "claude-cli/abc (external, cli)", policy.ObjectionOtherClient, true},
		{"half a version", enforce(""), "claude-cli/2.1 (external, cli)", policy.ObjectionOtherClient, true},
		{"a longer name", enforce(""), "claude-cli-fork/2.1.50", policy.ObjectionOtherClient, true},
		{"in the middle", enforce(""), "Mozilla/5.0 claude-cli/2.1.50", policy.ObjectionOtherClient, true},
		{"old enough", enforce("2.1.50"), cli, "", false},
		{"numbers, not text", enforce("2.1.9"), cli, "", false},
		{"too old", enforce("2.1.51"), cli, policy.ObjectionOldVersion, true},
		{"too old discovery", enforce("2.1.51"), discovery, policy.ObjectionOldVersion, true},
		{"exact", enforce("", "2.1.49", "2.1.50"), cli, "", false},
		{"not exact", enforce("", "2.1.49", "2.1.51"), cli, policy.ObjectionUnsupported, true},
		{"both", enforce("2.1.51", "2.1.50"), cli, policy.ObjectionOldVersion, true},
		{"warn of another", policy.ClientPolicy{Require: policy.RequireWarn}, "curl/8.5.0", policy.ObjectionOtherClient, false},
		{"warn of old", policy.ClientPolicy{Require: policy.RequireWarn, MinVersion: "3.0.0"}, cli, policy.ObjectionOldVersion, false},
		{"warn of nothing", policy.ClientPolicy{Require: policy.RequireWarn}, cli, "", false},
		{"disabled", policy.ClientPolicy{Disabled: true}, cli, policy.ObjectionDisabled, true},
		{"disabled, discovery", policy.ClientPolicy{Disabled: true, Require: policy.RequireWarn}, discovery, policy.ObjectionDisabled, true},
		{"disabled, odd version", policy.ClientPolicy{Disabled: true}, "claude-cli/x", policy.ObjectionDisabled, true},
		{"disabled, another program", policy.ClientPolicy{Disabled: true}, "curl/8.5.0", "", false},
		{"disabled and enforced", policy.ClientPolicy{Disabled: true, Require: policy.RequireEnforce}, "curl/8.5.0", policy.ObjectionDisabled, true},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			against, refused := c.rules.Judge(anthropic.ParseUserAgent(c.agent))
			if against != c.against || refused != c.refused {
				t.Errorf("%q: %q, refused %v; want %q, %v", c.agent, against, refused, c.against, c.refused)
			}
		})
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	for want, rules := range map[string]policy.ClientPolicy{
		"latest": {MinVersion: "2.1.0"},
		"1.0.10": {SupportedVersions: []string{"1.0.9", "1.0.10", "1.0.2"}},
	} {
		if got := rules.Wanted(); got != want {
			t.Errorf("%+v: %q, want %q", rules, got, want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	ordered := []string{
		"1.0.9", "1.0.10", "1.0.59-alpha", "1.0.59-alpha.1", "1.0.59-alpha.beta", "1.0.59-beta.2", "1.0.59-beta.11", "1.0.59",
		"1.2.0", "1.10.0", "2.0.0", "10.0.0",
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := policy.CompareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
		if policy.CompareVersions(a, a+"+build.5") != 0 {
			t.Errorf("%s: what follows a plus sign counts", a)
		}
		for _, odd := range []string{"", "1", "1.0", "1.0.", "1.0.0.0", "a.b.c", "-1.0.0", "1.0.0000000000", "v1.0.0", "1..0"} {
			if policy.IsVersion(odd) || policy.CompareVersions(odd, a) >= 0 || policy.CompareVersions(a, odd) <= 0 {
				t.Errorf("%q is taken for a version", odd)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringMatching(`[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}(-[ab0-9]{1,2}(\.[ab0-9]{1,2})?)?`)
		list := rapid.SliceOfN(part, 3, 3).Draw(t, "versions")
		slices.SortFunc(list, policy.CompareVersions)
		for i := range list {
			for j := i; j < len(list); j++ {
				if policy.CompareVersions(list[i], list[j]) > 0 || policy.CompareVersions(list[j], list[i]) < 0 {
					t.Fatalf("no order: %v", list)
				}
			}
		}
	})
}

func FuzzJudge(f *testing.F) {
	f.Add("claude-cli/2.1.50 (external, cli)", "2.1.9")
	f.Add("claude-code/2.1.50-beta+x", "2.1.50-alpha.1")
	f.Fuzz(func(t *testing.T, agent, min string) {
		client := anthropic.ParseUserAgent(agent)
		rules := policy.ClientPolicy{Require: policy.RequireEnforce, MinVersion: min}
		against, refused := rules.Judge(client)
		if refused != (against != "") {
			t.Errorf("%q, %q: %q, %v", agent, min, against, refused)
		}
		if !refused && (!client.IsClaudeCode() || !policy.IsVersion(client.Version) || policy.CompareVersions(client.Version, min) < 0 && min != "") {
			t.Errorf("%q passes with at least %q", agent, min)
		}
		policy.CompareVersions(agent, min)
	})
}

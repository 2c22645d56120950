package anthropic

import (
	"strings"
	"testing"
)

func TestParseUserAgent(t *testing.T) {
	tests := []struct {
		ua   string
		want Client
	}{
		{"", Client{}},
		{"  ", Client{}},
		{"claude-cli/2.1.330 (external, sdk-cli)", Client{"claude-cli", "2.1.330", "sdk-cli"}},
		{"claude-cli/1.0.59 (external, cli)", Client{"claude-cli", "1.0.59", "cli"}},
		{"claude-cli/2.1.330", Client{"claude-cli", "2.1.330", ""}},
		{"claude-cli/2.1.330 (external, cli, agent-sdk/0.1.0)", Client{"claude-cli", "2.1.330", ""}},
		{"claude-cli/2.1.330 (unclosed, cli", Client{"claude-cli", "2.1.330", ""}},
		{"claude-code/2.1.330", Client{"claude-code", "2.1.330", ""}},
		{"Anthropic/JS 0.70.0", Client{"Anthropic/JS", "0.70.0", ""}},
		{"AsyncAnthropic/Python 0.40.0", Client{"Anthropic/Python", "0.40.0", ""}},
		{"Anthropic/Fortran 1", Client{"other", "1", ""}},
		{"curl/8.5.0", Client{"curl", "8.5.0", ""}},
		{"Bun/1.4.4", Client{"other", "1.4.4", ""}},
		{"Mozilla/5.0 (X11; Linux) Firefox", Client{"other", "5.0", ""}},
		{"claude-cli/v1", Client{"claude-cli", "", ""}},
		{"claude-cli/1\"} evil", Client{"claude-cli", "", ""}},
		{"claude-cli/1." + strings.Repeat("0", 300), Client{"claude-cli", "", ""}},
		{"Claude-CLI/1.0", Client{"other", "1.0", ""}},
	}
	for _, tt := range tests {
		if got := ParseUserAgent(tt.ua); got != tt.want {
			t.Errorf("%q: %+v, want %+v", tt.ua, got, tt.want)
		}
	}
	if !ParseUserAgent("claude-cli/1.0.59 (external, cli)").IsClaudeCode() || !ParseUserAgent("claude-code/2.1.330").IsClaudeCode() ||
		ParseUserAgent("curl/8").IsClaudeCode() || (Client{}).IsClaudeCode() {
		t.Error("IsClaudeCode")
	}
}

func FuzzParseUserAgent(f *testing.F) {
	f.Add("claude-cli/2.1.330 (external, sdk-cli)")
	f.Add("Anthropic/JS 0.70.0")
	f.Add("a/\x00(,)")
	f.Fuzz(func(t *testing.T, ua string) {
		c := ParseUserAgent(ua)
		if c.Name != "" && c.Name != "other" && knownClient(c.Name) != c.Name {
			t.Fatalf("name %q", c.Name)
		}
		for _, s := range []string{c.Version, c.Entry} {
			if s != "" && !boundedToken(s, "._+-") {
				t.Fatalf("%q", s)
			}
		}
	})
}

func TestNormalizeModel(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"claude-opus-5-5":         "claude-opus-5-5",
		"Claude-Opus-5-5[1m]":     "claude-opus-5-5",
		" claude-opus-5-5 [1M] ":  "claude-opus-5-5",
		"claude-opus-5-5[1m][1m]": "claude-opus-5-5",
		"claude-[1m]-x":           "claude-[1m]-x",
		"[1m]":                    "",
	} {
		got := NormalizeModel(in)
		if got != want || NormalizeModel(got) != got {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

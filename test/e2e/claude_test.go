package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestClaudePlainAnswer: the real CLI, given only what `carpool demo` prints, gets its answer, and the books know who asked.
func TestClaudePlainAnswer(t *testing.T) {
	t.Parallel()
	for _, version := range claudeVersions() {
		for name, env := range map[string][]string{"quiet": {quiet}, "as installed": nil} {
			t.Run(version+" "+name, func(t *testing.T) {
				t.Parallel()
				g := startDemo(t)
				s := claude{
					version: version, url: g.url, token: g.key, env: env,
					prompt: script(map[string]any{"think": "The user greets me.", "text": "Good morning from the simulator."}),
				}.run(t)
				s.ok(t)
				if s.answer.Result != "Good morning from the simulator." {
					t.Errorf("answer %q", s.answer.Result)
				}
				rows := g.settled(1).Rows
				checkEntries(t, rows, version, s.answer.SessionID)
				if n := inferences(rows); n != 1 {
					t.Errorf("%d main exchanges in the books, want 1", n)
				}
			})
		}
	}
}

// TestClaudeBaseURLWithV1: developers who append /v1 to the base URL, as other tools want it, are served too.
func TestClaudeBaseURLWithV1(t *testing.T) {
	t.Parallel()
	for _, version := range claudeVersions() {
		for _, suffix := range []string{"/v1", "/v1/", "/"} {
			t.Run(version+" "+suffix, func(t *testing.T) {
				t.Parallel()
				g := startDemo(t)
				s := claude{version: version, url: g.url + suffix, token: g.key, prompt: script("reached"), env: []string{quiet}}.run(t)
				s.ok(t)
				if s.answer.Result != "reached" {
					t.Errorf("answer %q", s.answer.Result)
				}
			})
		}
	}
}

// TestClaudeToolLoop: the CLI really runs Bash, writes a file and reads it back, over at least four turns.
func TestClaudeToolLoop(t *testing.T) {
	t.Parallel()
	for _, version := range claudeVersions() {
		for name, env := range map[string][]string{"quiet": {quiet}, "as installed": nil} {
			t.Run(version+" "+name, func(t *testing.T) {
				t.Parallel()
				g := startDemo(t)
				nonce := "nonce-" + strings.ReplaceAll(version, ".", "-")
				s := claude{
					version: version, url: g.url, token: g.key, allowed: "Bash,Write,Read", env: env,
					prompt: script(
						map[string]any{
							"think": "First a command.", "text": "I run a command.",
							"tool": "Bash", "input": map[string]any{"command": "echo computed-$((6*7)) > made.txt", "description": "Compute"},
						},
						map[string]any{"tool": "Write", "input": map[string]any{"file_path": "{{dir}}/nonce.txt", "content": nonce + "\n"}},
						map[string]any{"tool": "Read", "input": map[string]any{"file_path": "{{dir}}/nonce.txt"}},
						map[string]any{"tool": "Bash", "input": map[string]any{"command": "cat made.txt", "description": "Show"}},
						"The command made {{result}}",
					),
				}.run(t)
				s.ok(t)
				if !strings.Contains(s.answer.Result, "The command made computed-42") {
					t.Errorf("answer %q", s.answer.Result)
				}
				written, err := os.ReadFile(filepath.Join(s.dir, "nonce.txt"))
				if err != nil || string(written) != nonce+"\n" {
					t.Errorf("the CLI wrote %q, %v", written, err)
				}

				rows := g.settled(5).Rows
				checkEntries(t, rows, version, s.answer.SessionID)
				if n := inferences(rows); n != 5 {
					t.Errorf("%d main exchanges in the books, want 5", n)
				}
				calls := tools(rows)
				for tool, want := range map[string]int64{"Bash": 2, "Write": 1, "Read": 1} {
					if calls[tool] != want {
						t.Errorf("the books say %d calls of %s, want %d", calls[tool], tool, want)
					}
				}
				if n := g.books().Totals.FileOperations; n != 2 {
					t.Errorf("the books say %d file operations, want 2", n)
				}
				checkReport(t, g, version, calls)
			})
		}
	}
}

// report is the answer of `carpool report --output json`.
type report struct {
	TotalRequests       int64            `json:"totalRequests"`
	SuccessRate         float64          `json:"successRate"`
	AverageResponseTime float64          `json:"averageResponseTime"`
	TopTools            []toolCount      `json:"topTools"`
	VersionDistribution []map[string]any `json:"versionDistribution"`
	TokenUsage          map[string]int64 `json:"tokenUsage"`
}

// checkReport compares the report with the books.
func checkReport(t *testing.T, g *gateway, version string, calls map[string]int64) {
	t.Helper()
	var r report
	g.decode(&r, "report", "--since", "1h")
	b := g.books("--endpoint", "messages")
	if r.TotalRequests != b.Totals.Requests || r.SuccessRate != 1 || r.AverageResponseTime <= 0 {
		t.Errorf("report: %d requests (books: %d), success rate %v, average response time %v",
			r.TotalRequests, b.Totals.Requests, r.SuccessRate, r.AverageResponseTime)
	}
	for _, c := range r.TopTools {
		if calls[c.Name] != c.Count {
			t.Errorf("report: %d calls of %s, want %d", c.Count, c.Name, calls[c.Name])
		}
	}
	if len(r.TopTools) != len(calls) {
		t.Errorf("report names %d tools, want %d", len(r.TopTools), len(calls))
	}
	if len(r.VersionDistribution) != 1 || r.VersionDistribution[0]["version"] != version {
		t.Errorf("report: versions %v, want only %s", r.VersionDistribution, version)
	}
	if r.TokenUsage["input"] != b.Totals.InputTokens || r.TokenUsage["output"] != b.Totals.OutputTokens {
		t.Errorf("report: tokens %v, want input %d and output %d", r.TokenUsage, b.Totals.InputTokens, b.Totals.OutputTokens)
	}
}

// TestClaudeSubAgents: three sub-agents of one session work at the same time, each running a command of its own.
func TestClaudeSubAgents(t *testing.T) {
	t.Parallel()
	for _, version := range claudeVersions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			g := startDemo(t)
			var agents []string
			for i := range 3 {
				agents = append(agents, script(
					map[string]any{
						"delay_ms": 700, "tool": "Bash",
						"input": map[string]any{"command": fmt.Sprintf("echo agent > agent-%d.txt", i), "description": "Leave a mark"},
					},
					fmt.Sprintf("agent %d is done", i),
				))
			}
			s := claude{
				version: version, url: g.url, token: g.key, allowed: "Bash,Task,Agent",
				env:    []string{quiet, "CLAUDE_CODE_GATEWAY_HINT_HEADERS=1"},
				prompt: script(map[string]any{"text": "I ask three agents.", "agents": agents}, "All agents have been asked."),
			}.run(t)
			s.ok(t)
			if !strings.Contains(s.answer.Result, "All agents have been asked.") {
				t.Errorf("answer %q", s.answer.Result)
			}
			for i := range 3 {
				if _, err := os.Stat(filepath.Join(s.dir, fmt.Sprintf("agent-%d.txt", i))); err != nil {
					t.Error(err)
				}
			}
			rows := g.settled(8).Rows
			checkEntries(t, rows, version, s.answer.SessionID)
			calls := tools(rows)
			if calls["Bash"] != 3 || calls["Task"]+calls["Agent"] != 3 {
				t.Errorf("tool calls in the books: %v, want 3 of Bash and 3 of Task or Agent", calls)
			}
			if n := atOnce(rows); n < 3 {
				t.Errorf("at most %d exchanges at the same time, want 3", n)
			}
			if version == claudeNew {
				checkAgents(t, rows)
			}
		})
	}
}

// checkAgents wants two or more exchanges of each of three agents, told apart by the id that the CLI sends.
func checkAgents(t *testing.T, rows []entry) {
	t.Helper()
	agents := map[string]int{}
	for _, e := range rows {
		if e.RequestClass == "subagent" {
			agents[e.AgentID]++
		}
	}
	if len(agents) != 3 || agents[""] != 0 {
		t.Fatalf("sub-agents in the books: %v, want three with an id", agents)
	}
	for id, n := range agents {
		if n < 2 {
			t.Errorf("agent %s has %d exchanges, want its command and its answer", id, n)
		}
	}
}

// checkEntries checks what is true of every exchange of a well ended session.
func checkEntries(t *testing.T, rows []entry, version, session string) {
	t.Helper()
	if len(rows) == 0 {
		t.Fatal("the books are empty")
	}
	ids := map[string]bool{}
	for _, e := range rows {
		if ids[e.ID] {
			t.Errorf("entry %s occurs twice", e.ID)
		}
		ids[e.ID] = true
		if e.Outcome != "finished" || e.Status != 200 {
			t.Errorf("entry %s: outcome %s, status %d, error %s", e.ID, e.Outcome, e.Status, e.ErrorType)
		}
		if e.ClientVersion != version || e.Client != "claude-cli" {
			t.Errorf("entry %s: client %q, version %q, want claude-cli %s", e.ID, e.Client, e.ClientVersion, version)
		}
		if e.SessionID != session {
			t.Errorf("entry %s: session %q, want %q", e.ID, e.SessionID, session)
		}
		if e.User == "" || e.KeyName == "" || e.Upstream == "" || e.ModelAsked == "" {
			t.Errorf("entry %s: user %q, key %q, upstream %q, model %q", e.ID, e.User, e.KeyName, e.Upstream, e.ModelAsked)
		}
		if e.ModelServed != e.ModelAsked {
			t.Errorf("entry %s: model %q served for %q", e.ID, e.ModelServed, e.ModelAsked)
		}
		if e.OutputTokens <= 0 || e.InputTokens+e.CacheReadTokens+e.CacheWrite5m+e.CacheWrite1h <= 0 {
			t.Errorf("entry %s: no tokens counted: %+v", e.ID, e)
		}
		if e.QuotaTokens != e.InputTokens+e.OutputTokens {
			t.Errorf("entry %s: %d quota tokens, want input %d + output %d", e.ID, e.QuotaTokens, e.InputTokens, e.OutputTokens)
		}
		if e.FirstByteMs < 0 || e.DurationMs < e.FirstByteMs || e.RequestBytes <= 0 || e.ResponseBytes <= 0 {
			t.Errorf("entry %s: first byte after %d ms, end after %d ms, %d bytes in, %d out",
				e.ID, e.FirstByteMs, e.DurationMs, e.RequestBytes, e.ResponseBytes)
		}
		if !e.Stream || e.Endpoint != "messages" {
			t.Errorf("entry %s: endpoint %s, stream %v", e.ID, e.Endpoint, e.Stream)
		}
	}
}

// inferences counts the exchanges of the conversation itself: older CLIs send short ones to a small model besides.
func inferences(rows []entry) int {
	n := 0
	for _, e := range rows {
		if !strings.Contains(e.ModelAsked, "haiku") {
			n++
		}
	}
	return n
}

// atOnce is the largest number of exchanges that were open at the same time.
func atOnce(rows []entry) int {
	type change struct {
		at time.Time
		by int
	}
	var changes []change
	for _, e := range rows {
		changes = append(changes,
			change{e.StartedAt, 1},
			change{e.StartedAt.Add(time.Duration(e.DurationMs) * time.Millisecond), -1})
	}
	slices.SortFunc(changes, func(a, b change) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.by - b.by
	})
	most, open := 0, 0
	for _, c := range changes {
		open += c.by
		most = max(most, open)
	}
	return most
}

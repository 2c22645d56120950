package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a real server has in its books is what the provider reports, to the token and the micro-dollar: streams and plain
// answers, several models, cache reads and writes of both lifetimes, web searches, and what costs nothing: errors, and
// refusals before any output.
func TestBooksAreTheProvidersReport(t *testing.T) {
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	asked := 0
	for _, model := range []string{"claude-sonnet-4-5", "claude-haiku-4-5-20251001", "claude-opus-5-5"} {
		for i, text := range []string{
			"a prompt", script("scripted"), script(map[string]any{"text": "found", "usage": map[string]any{
				"input_tokens": 1234, "output_tokens": 567, "cache_read_input_tokens": 89_012, "cache_creation_input_tokens": 700,
				"cache_creation":  map[string]any{"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 400},
				"server_tool_use": map[string]any{"web_search_requests": 3},
			}}),
			script(map[string]any{"text": "no", "status": 400}),
			script(map[string]any{"stop": "refusal", "usage": map[string]any{"input_tokens": 5000, "output_tokens": 0}}),
		} {
			body := prompt(text)
			body["model"], body["stream"] = model, i%2 == 0
			g.messages(body)
			asked++
		}
	}
	g.settled(asked)
	key := filepath.Join(t.TempDir(), "admin.key")
	write(t, key, "sk-ant-admin01-sim\n")
	now := time.Now().UTC()
	args := []string{
		"reconcile", "--from", "API", "--api-url", sim.url, "--admin-key-file", key, "--tolerance", "0",
		"--since", now.AddDate(0, 0, -1).Format(time.DateOnly), "--until", now.AddDate(0, 0, 2).Format(time.DateOnly),
	}
	if r := g.run(args...); r.code != 0 || strings.Count(r.stdout, " cost ") < 4 || !strings.Contains(r.stdout, "Everything is within the tolerance.") {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	// What reached the provider past this server shows.
	body := prompt("past the gateway")
	header := http.Header{"X-Api-Key": {simKey}, "Content-Type": {"application/json"}, "Anthropic-Version": {"2023-06-01"}}
	if r := call(t, http.MethodPost, sim.url+"/v1/messages", header, []byte(mustJSON(body))); r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if r := g.run(args...); r.code != 1 || !strings.Contains(r.stderr, "drift: 1 of ") {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// The examples of docs/reports.md do what it says, and the agents of a session are those that Claude Code names in its
// headers (contract/client.md §2.1).
func TestReportsExamples(t *testing.T) {
	g := startDemo(t)
	const session = "5f0c3c1e-7a52-4f0e-9a38-2c2f7f0a1b6d"
	for _, by := range []struct{ id, parent string }{{}, {"explore-1", ""}, {"nested-1", "explore-1"}, {}} {
		header := g.header()
		header.Set("X-Claude-Code-Session-Id", session)
		if by.id != "" {
			header.Set("X-Claude-Code-Agent-Id", by.id)
		}
		if by.parent != "" {
			header.Set("X-Claude-Code-Parent-Agent-Id", by.parent)
		}
		if r := call(t, http.MethodPost, g.url+"/v1/messages", header, []byte(mustJSON(prompt("hello")))); r.status != http.StatusOK {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	// Before 2.1 the session is in the body, and sub-agents say nothing.
	old := prompt("hello")
	old["metadata"] = map[string]any{"user_id": "user_7fc3_account__session_9b332529-5cc5-4f6d-9385-7e860b46212d"}
	if r := g.messages(old); r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	g.settled(5)

	dir := t.TempDir()
	out := runExample(t, dir, readmeBlocks(t, "docs/reports.md")["reports"], "CARPOOL_DATA="+g.data)
	for _, want := range []string{
		"total  ", "Cache reads", session, "9b332529-5cc5-4f6d-9385-7e860b46212d",
		"\nmain ", "\n└ explore-1 ", "\n  └ nested-1 ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	table, err := os.ReadFile(filepath.Join(dir, "usage.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if table := string(table); strings.Count(table, "\n") != 6 || strings.Count(table, session) != 4 {
		t.Errorf("usage.csv:\n%s", table)
	}
}

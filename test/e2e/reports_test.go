package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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

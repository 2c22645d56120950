package e2e

import (
	"database/sql"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"
)

// behind changes the ledger behind the server's back.
func (g *gateway) behind(statement string) {
	g.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(g.data, "node.db"))
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = db.ExecContext(g.t.Context(), statement)
	if err := errors.Join(err, db.Close()); err != nil {
		g.t.Fatal(err)
	}
}

// TestDamagedAtStart: a server does not start on books that are damaged, and says how to restore them; that helps.
func TestDamagedAtStart(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	g.spend(100)
	g.settled(1)
	archive := filepath.Join(dir, "backup.tar.gz")
	g.must("db", "backup", "--to", archive, "--with-keys")
	g.proc.terminate()
	serve := func() result {
		return runProgram(t, callPatience, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), nil, binary, "serve", "--config", "carpool.yml")
	}
	refused := func(why, what string) {
		t.Helper()
		r := serve()
		if r.code != 1 || !strings.Contains(r.stderr, what) || !strings.Contains(r.stderr, "carpool db restore FILE --data "+g.data) || strings.Contains(r.stderr, "panic") {
			t.Errorf("%s: exit status %d: %s", why, r.code, r.stderr)
		}
		if _, said, ok := strings.Cut(r.stderr, "carpool: "); !ok || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: not one line: %s", why, r.stderr)
		}
	}
	node := filepath.Join(g.data, "node.db")
	whole, err := os.ReadFile(node)
	if err != nil {
		t.Fatal(err)
	}
	g.behind(`UPDATE counters SET used = 1`)
	refused("a counter", "the counter says 1 tokens")
	for name, at := range map[string]int{"node.db": 4096 + 1, "control.db": 4096 + 1} {
		path := filepath.Join(g.data, name)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := append([]byte{}, before...)
		if name == "node.db" {
			damaged = append([]byte{}, whole...)
		}
		copy(damaged[at:], strings.Repeat("\xff", 64))
		write(t, path, string(damaged))
		refused(name, "damaged")
		write(t, path, string(before))
	}

	g.must("db", "restore", archive, "--yes")
	g = serveIn(t, dir, sim.url, -1)
	g.spend(100)
	g.settled(2)
	g.proc.terminate()

	g.behind(`UPDATE counters SET used = used + 1`)
	g = serveIn(t, dir, sim.url, -1, "storage: {onDamage: warn}")
	g.logged("the finding", func(msg string, line map[string]any) bool {
		return msg == "the books are not as they should be" && line["check"] == "counters"
	})
	var health struct{ Status, Problem string }
	getJSON(t, g.url+"/health", http.Header{}, &health)
	if n := g.metric("carpool_ledger_verify_findings"); n != 2 || health.Status != "healthy" || !strings.Contains(health.Problem, "(counters)") {
		t.Errorf("%v findings, %+v", n, health)
	}
}

// TestLostLedger: a server whose ledger is gone does not begin a new one, in which nothing is used of quotas and budgets,
// unless it is told to.
func TestLostLedger(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	g.spend(100)
	g.settled(1)
	archive := filepath.Join(dir, "backup.tar.gz")
	g.must("db", "backup", "--to", archive)
	g.proc.terminate()
	node := filepath.Join(g.data, "node.db")
	lose := func(path string) {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(why, what string) {
		t.Helper()
		r := runProgram(t, callPatience, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), nil, binary, "serve", "--config", "carpool.yml")
		if r.code != 1 || !strings.Contains(r.stderr, what) || !strings.Contains(r.stderr, "carpool db restore FILE --data "+g.data) {
			t.Errorf("%s: exit status %d: %s", why, r.code, r.stderr)
		}
		if r := g.run("db", "verify"); r.code != 1 || !strings.Contains(r.stdout, what) {
			t.Errorf("%s, db verify: exit status %d: %s%s", why, r.code, r.stdout, r.stderr)
		}
	}
	lose(node)
	refused("missing", "node.db is missing or empty although its signed head ")
	lose(node + ".head")
	refused("without its head", "control.db has entries of it, up to 1")
	write(t, node, "")
	refused("empty", "control.db has entries of it, up to 1")

	g.must("db", "restore", archive, "--yes")
	g = serveIn(t, dir, sim.url, -1)
	g.spend(100)
	g.settled(2)
	g.proc.terminate()
	lose(node)
	g = serveIn(t, dir, sim.url, -1, "storage: {onDamage: warn}")
	g.spend(100)
	g.settled(1)
}

// TestVerifyWhileServing: a server verifies its books now and then, and tells what it finds.
func TestVerifyWhileServing(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1, "storage: {verifyInterval: 200ms}")
	g.spend(100)
	g.settled(1)
	g.reaches("carpool_ledger_verify_timestamp_seconds", 1)
	if n := g.metric("carpool_ledger_verify_findings"); n != 0 {
		t.Errorf("%v findings", n)
	}
	g.behind(`UPDATE entries SET body = replace(body, '"outputTokens":', '"outputTokens":1')`)
	g.reaches("carpool_ledger_verify_findings", 3) // chain, entries, prices, copy
	g.logged("the finding", func(msg string, line map[string]any) bool {
		do, _ := line["do"].(string)
		return msg == "the books are not as they should be" && line["check"] == "chain" && strings.Contains(do, "carpool db restore")
	})
	var health struct{ Status, Problem string }
	eventually(t, callPatience, "health checks tell of it", func() bool {
		getJSON(t, g.url+"/ready", http.Header{}, &health)
		return health.Status == "healthy" && strings.Contains(health.Problem, "chain")
	})
}

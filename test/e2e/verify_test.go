package e2e

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"
)

// verified is the JSON of carpool db verify.
type verified struct {
	Entries, Chained, Priced, Compared, Counters, Open, Signed int64
	Key                                                        string
	Findings                                                   []struct{ Check, What, Do string }
}

// TestVerify: the books are verified beside a server, after its death, after the next start and when it is stopped; and
// whoever changes an entry is found out.
func TestVerify(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	g.spend(100)
	g.spend(200)
	g.settled(2)
	head := filepath.Join(t.TempDir(), "head")
	clean := func(when string, entries int64) (v verified) {
		t.Helper()
		g.decode(&v, "db", "verify")
		if v.Entries != entries || v.Chained != entries || v.Priced != entries || v.Compared != entries || v.Counters != 2 || len(v.Findings) > 0 {
			t.Errorf("%s: %+v", when, v)
		}
		return v
	}
	clean("running", 2)
	g.proc.kill()
	clean("killed", 2)
	g = serveIn(t, dir, sim.url, -1)
	g.spend(300)
	g.settled(3)
	clean("started again", 3)
	g.proc.terminate()
	if v := clean("stopped", 3); v.Signed != 3 || v.Key == "" || v.Open != 0 {
		t.Errorf("the stopped ledger: %+v", v)
	}
	if text := g.must("db", "verify"); !strings.Contains(text, "3 entries, 3 in the chain, 3 priced again, 3 compared with control, 2 counters, 0 open: nothing is wrong") {
		t.Errorf("it says %s", text)
	}
	text, err := os.ReadFile(filepath.Join(g.data, "node.db.head"))
	if err := errors.Join(err, os.WriteFile(head, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	if text := g.must("db", "verify", "--head", head); !strings.Contains(text, "nothing is wrong") {
		t.Errorf("it says %s", text)
	}

	db, err := sql.Open("sqlite", filepath.Join(g.data, "node.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `UPDATE entries SET body = replace(body, '"costMicroUsd":', '"costMicroUsd":1') WHERE seq = 2`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	r := g.run("db", "verify", "--head", head)
	if r.code != 1 {
		t.Errorf("exit status %d", r.code)
	}
	for _, want := range []string{"chain: the chain is broken at entry 2 ", "prices: entry 2 ", "a drift of 1000", "copy: entry 2 "} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("it does not say %q:\n%s", want, r.stdout)
		}
	}
	if err := os.WriteFile(head, bytes.Replace(text, []byte("head 3"), []byte("head 2"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := g.run("db", "verify", "--head", head); r.code != 1 || !strings.Contains(r.stdout, "the signed head that was kept elsewhere: it is not a signed head") {
		t.Errorf("a head that was changed: %d %s", r.code, r.stdout)
	}
}

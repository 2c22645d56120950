package ledger_test

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

// signing opens a ledger whose heads are signed.
func signing(t *testing.T, path string, c *clock) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), path, ledger.Options{Node: "n1", Now: c.Now, Key: nodeKey(t, path)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func nodeKey(t *testing.T, path string) ed25519.PrivateKey {
	t.Helper()
	key, err := ledger.LoadKey(filepath.Join(filepath.Dir(path), "node.key"), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// found verifies a ledger and returns what was found, as "check: what".
func found(t *testing.T, path string, a ledger.Audit) (*ledger.Verified, []string) {
	t.Helper()
	a.Key, _ = nodeKey(t, path).Public().(ed25519.PublicKey)
	v, err := ledger.Verify(t.Context(), path, a)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, f := range v.Findings {
		if f.Do == "" {
			t.Errorf("nobody knows what to do about %s", f.What)
		}
		all = append(all, f.Check+": "+f.What)
	}
	return v, all
}

// clean fails the test when anything is wrong with a ledger.
func clean(t *testing.T, path string) *ledger.Verified {
	t.Helper()
	v, all := found(t, path, ledger.Audit{})
	if len(all) > 0 {
		t.Errorf("found %q", all)
	}
	return v
}

// change runs statements on a ledger's file behind its back.
func change(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), statements)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func use(t *testing.T, l *ledger.Ledger, ids ...string) {
	t.Helper()
	for _, id := range ids {
		finish(t, reserve(t, l, ask(id, 10, policy.Unlimited, policy.Unlimited)), 7)
	}
}

// tampered changes an entry and has the ledger look as if all were from before the chain.
const tampered = `UPDATE entries SET body = replace(body, 'alice', 'mandy'), user_name = 'mandy', hash = NULL;
	UPDATE counters SET user_name = 'mandy'; UPDATE chain SET passed = 5, hash = zeroblob(32)`

func TestVerifyFindsWhatWasChanged(t *testing.T) {
	for _, c := range []struct {
		why, statements string
		want            []string // a beginning of each finding
	}{
		{"nothing", ``, nil},
		{"an edit", `UPDATE entries SET body = replace(body, 'alice', 'mandy'), user_name = 'mandy' WHERE seq = 3`, []string{
			"chain: the chain is broken at entry 3 (c)",
			"counters: daily quota of alice in 2026-11-23: the counter says 35 tokens and the entries add up to 28: a drift of 7",
			"counters: monthly quota of alice in 2026-11:",
			"counters: daily quota of mandy in 2026-11-23: there is no counter", "counters: monthly quota of mandy in 2026-11: there is no",
		}},
		{"a column", `UPDATE entries SET input = 1 WHERE seq = 2`, []string{"entries: entry 2 (b): its columns"}},
		{"a deletion", `DELETE FROM entries WHERE seq = 2`, []string{
			"numbers: entry 2 is missing", "chain: the chain is broken at entry 3", "counters: daily", "counters: monthly",
		}},
		{"a deletion, closed up", `DELETE FROM entries WHERE seq = 2; UPDATE entries SET seq = seq - 1 WHERE seq > 2;
			UPDATE counters SET used = used - 7`, []string{
			"chain: the chain is broken at entry 2 (c)",
			"signature: the signed head in the database: entry 5",
		}},
		{"the end cut off", `DELETE FROM entries WHERE seq = 5; UPDATE counters SET used = used - 7`, []string{
			"signature: the signed head in the database: entry 5",
		}},
		{"two in each other's place", `UPDATE entries SET seq = 100 WHERE seq = 2; UPDATE entries SET seq = 2 WHERE seq = 3;
			UPDATE entries SET seq = 3 WHERE seq = 100`, []string{
			"chain: the chain is broken at entry 2 (c)",
		}},
		{"the beginning cut off", `UPDATE chain SET passed = 2, hash = (SELECT hash FROM entries WHERE seq = 2);
			DELETE FROM entries WHERE seq < 3; UPDATE counters SET used = used - 14`, []string{
			"signature: the signed head in the database: the chain began after entry 0",
		}},
		{"a hole declared", `DELETE FROM entries WHERE seq = 5; UPDATE counters SET used = used - 7; INSERT INTO skipped VALUES (5, 5, 9e15)`, []string{
			"signature: the signed head in the database: the chain began",
		}},
		{"another's signature", `UPDATE chain SET signed = replace(signed, 'head 5', 'head 4')`, []string{
			"signature: the signed head in the database: it is not a signed head",
		}},
		{"no signature", `UPDATE chain SET signed = ''`, []string{"signature: there is a key of the node"}},
		{"no signature and a chain that begins later", tampered + `; UPDATE chain SET signed = ''`, []string{
			"signature: there is a key of the node", "signature: the signed head in ",
		}},
		{"a chain that begins later", tampered, []string{
			"signature: the signed head in the database: the chain began after entry 0", "signature: the signed head in the database: entry 5",
		}},
		{"a counter", `UPDATE counters SET used = 36 WHERE period = 'daily'`, []string{
			"counters: daily quota of alice in 2026-11-23: the counter says 36 tokens and the entries add up to 35: a drift of 1",
		}},
		{"a counter as if it had been reset", `UPDATE counters SET waived = used, used = 0 WHERE period = 'daily'`, []string{
			"counters: the signed head in the database: the counters add up to 35 tokens used before resets and 0 of pruned entries, and 0 of pruned entries in budgets; what was signed is 0, 0 and 0",
		}},
		{"less than nothing pruned", `UPDATE counters SET pruned = -used, used = 0 WHERE period = 'daily'`, []string{
			"counters: daily quota of alice in 2026-11-23: the counter says that 0 tokens were used before a reset and that pruned entries had -35, which cannot be",
			"counters: the signed head",
		}},
		{"pruned where nothing was", `UPDATE counters SET pruned = 5, used = used + 5 WHERE period = 'daily'`, []string{
			"counters: daily quota of alice in 2026-11-23: the counter says that 0 tokens were used before a reset and that pruned entries had 5, which cannot be",
			"counters: the signed head",
		}},
		{"a table", `DROP INDEX entries_by_time; CREATE INDEX entries_by_time ON entries (user_name); PRAGMA writable_schema = 1;
			UPDATE sqlite_schema SET sql = 'CREATE INDEX entries_by_time ON entries (started_at)' WHERE name = 'entries_by_time'`, []string{
			"integrity: the ledger's database is damaged",
		}},
	} {
		t.Run(c.why, func(t *testing.T) {
			path := file(t)
			l := signing(t, path, noon())
			use(t, l, "a", "b", "c", "d", "e")
			shut(t, l)
			change(t, path, c.statements)
			v, all := found(t, path, ledger.Audit{})
			for _, want := range c.want {
				at := slices.IndexFunc(all, func(s string) bool { return strings.HasPrefix(s, want) })
				if at < 0 {
					t.Errorf("nothing about %q: %q", want, all)
					continue
				}
				all = slices.Delete(all, at, at+1)
			}
			if len(all) > 0 && !strings.HasPrefix(all[0], "integrity") {
				t.Errorf("found too: %q", all)
			}
			if c.statements == "" && (v.Entries != 5 || v.Chained != 5 || v.Counters != 2 || v.Signed != 5 || v.LastSeq != 5 || v.Key == "") {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestVerifyBesideARunningLedger(t *testing.T) {
	path := file(t)
	l := signing(t, path, noon())
	defer shut(t, l)
	use(t, l, "a", "b")
	if _, err := l.Outbox(t.Context(), 0, 10); err != nil { // has them booked
		t.Fatal(err)
	}
	if v := clean(t, path); v.Entries != 2 {
		t.Errorf("%+v", v)
	}
	copied := file(t)
	if err := l.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	if v, err := ledger.Verify(t.Context(), copied, ledger.Audit{}); err != nil || len(v.Findings) > 0 || v.Signed != 2 {
		t.Errorf("the copy: %+v %v", v, err)
	}
}

// Numbers that change, entries that go, and quotas that are reset leave books that can be verified.
func TestVerifyAfterOperations(t *testing.T) {
	path, c := file(t), noon()
	l := signing(t, path, c)
	use(t, l, "a", "b", "c")
	if err := l.Acknowledge(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Prune(t.Context(), c.Now().Add(time.Hour)); err != nil || n != 2 {
		t.Fatalf("pruned %d: %v", n, err)
	}
	clean(t, path)
	if err := l.ResetQuota(t.Context(), nil, []quota.Window{quota.Daily}, nil); err != nil {
		t.Fatal(err)
	}
	clean(t, path)
	use(t, l, "d", "e")
	if err := l.SkipTo(t.Context(), 4); err != nil { // 3 and 4 become 6 and 7
		t.Fatal(err)
	}
	clean(t, path)
	use(t, l, "f")
	if err := l.SkipTo(t.Context(), 20); err != nil { // all get new numbers
		t.Fatal(err)
	}
	shut(t, l)
	if v := clean(t, path); v.Entries != 4 || v.LastSeq != 24 || v.Signed != 24 {
		t.Errorf("%+v", v)
	}
	l = signing(t, path, c)
	if err := l.Acknowledge(t.Context(), 24); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Prune(t.Context(), c.Now().AddDate(1, 0, 0)); err != nil || n != 4 {
		t.Fatalf("pruned %d: %v", n, err)
	}
	clean(t, path)
	use(t, l, "g")
	shut(t, l)
	if v := clean(t, path); v.Entries != 1 || v.Signed != 25 {
		t.Errorf("%+v", v)
	}
}

// A ledger that is put back to an older state is told from one that was not, also once it runs again.
func TestVerifyAnOlderCopy(t *testing.T) {
	path, copied, c := file(t), file(t), noon()
	l := signing(t, path, c)
	use(t, l, "a")
	if err := l.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	use(t, l, "b")
	shut(t, l)
	if err := os.Rename(copied, path); err != nil {
		t.Fatal(err)
	}
	want := "signature: the signed head in " + path + ".head: entry 2"
	if _, all := found(t, path, ledger.Audit{}); len(all) != 1 || !strings.HasPrefix(all[0], want) {
		t.Errorf("found %q", all)
	}
	l = signing(t, path, c)
	use(t, l, "other")
	shut(t, l)
	if _, all := found(t, path, ledger.Audit{}); len(all) != 1 || !strings.Contains(all[0], ".head.aside") {
		t.Errorf("found %q", all)
	}
}

func TestVerifyPrices(t *testing.T) {
	path := file(t)
	l := signing(t, path, noon())
	for i, version := range []string{"", "p1", "p1", "older"} {
		x := reserve(t, l, ask(fmt.Sprint("e", i), 0, -1, -1))
		e := x.Entry()
		e.PriceVersion, e.Cost = version, 100
		if err := x.Settle(e); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, l)
	v, all := found(t, path, ledger.Audit{Cost: func(e *ledger.Entry) (int64, bool) {
		cost := int64(100)
		if e.ID == "e2" {
			cost++
		}
		return cost, e.PriceVersion == "p1"
	}})
	want := "prices: entry 3 (e2) is booked with 100 micro-dollars and costs 101: a drift of -1"
	if len(all) != 1 || all[0] != want || v.Priced != 2 {
		t.Errorf("%q, priced %d", all, v.Priced)
	}
}

// controls is what a control plane has.
type controls struct {
	entries    []ledger.Entry
	contiguous int64
}

func (c controls) Entries(context.Context, string) iter.Seq2[ledger.Entry, error] {
	return func(yield func(ledger.Entry, error) bool) {
		for _, e := range c.entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (c controls) Contiguous(context.Context, string) (int64, error) { return c.contiguous, nil }

func (c controls) Has(_ context.Context, e *ledger.Entry) (bool, error) {
	return slices.ContainsFunc(c.entries, func(have ledger.Entry) bool { return have.ID == e.ID }), nil
}

func TestVerifyAgainstACopy(t *testing.T) {
	path := file(t)
	l := signing(t, path, noon())
	use(t, l, "a", "b", "c")
	entries := outbox(t, l)
	shut(t, l)
	changed := slices.Clone(entries)
	changed[1].InputTokens++
	changed[1].Upstream = "other"
	more := append(slices.Clone(entries), entries[2])
	more[3].Seq = 4
	for _, c := range []struct {
		why  string
		copy controls
		want string
	}{
		{"the same", controls{entries, 3}, ""},
		{"what is not shipped", controls{entries[:2], 2}, ""},
		{"nothing yet", controls{}, ""},
		{"one lost", controls{entries[1:], 3}, "copy: entry 1 (a) is not in control's copy"},
		{"one changed", controls{changed, 3}, "copy: entry 2 (b) differs from control's copy in inputTokens, upstream"},
		{"one more", controls{more, 4}, "copy: control's copy has entry 4"},
	} {
		t.Run(c.why, func(t *testing.T) {
			_, all := found(t, path, ledger.Audit{Node: "n1", Copy: c.copy})
			if c.want == "" && len(all) > 0 || c.want != "" && (len(all) != 1 || !strings.HasPrefix(all[0], c.want)) {
				t.Errorf("found %q", all)
			}
		})
	}
}

func TestLoadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	first, err := ledger.LoadKey(path, crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ledger.LoadKey(path, crand.Reader); err != nil || !again.Equal(first) {
		t.Errorf("another key: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil { //nolint:gosec // that is the fault
		t.Fatal(err)
	}
	if _, err := ledger.LoadKey(path, crand.Reader); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.LoadKey(path, crand.Reader); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged key: %v", err)
	}
}

// TestVerifyBudgets: what budgets count is what entries were charged, also when the oldest were pruned, and neither can be changed unseen.
func TestVerifyBudgets(t *testing.T) {
	path, clock := file(t), noon()
	l := signing(t, path, clock)
	spend := func(ids ...string) {
		for _, id := range ids {
			x := reserve(t, l, claiming(id, strict("100 tokens", "lifetime", 10), claim(policy.BudgetSpec{Scope: "key/k1", Amount: "1 USD", Window: "day"}, 10)))
			pay(t, x, 9)
		}
	}
	spend("a", "b")
	clock.set("2026-11-24T12:00:00Z")
	spend("c")
	if err := l.Acknowledge(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Prune(t.Context(), clock.Now().Add(-time.Hour)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	shut(t, l)
	if v := clean(t, path); v.Counters != 4 { // two of the quota, and the budget of the day that is over went
		t.Errorf("%d counters", v.Counters)
	}
	change(t, path, `UPDATE budget_counters SET used = used + 1 WHERE budget = 'user-alice'`)
	if _, all := found(t, path, ledger.Audit{}); len(all) != 1 || !strings.Contains(all[0], "budgets: budget user-alice of user/alice") ||
		!strings.HasSuffix(all[0], "the counter says 28 and the entries add up to 27: a drift of 1") {
		t.Errorf("%q", all)
	}
	change(t, path, `UPDATE budget_counters SET used = used - 1 WHERE budget = 'user-alice'; UPDATE budget_counters SET pruned = -used, used = 0 WHERE budget = 'key-k1'`)
	if _, all := found(t, path, ledger.Audit{}); len(all) != 2 || !strings.HasPrefix(all[0], "budgets: budget key-k1 of key/k1") || !strings.HasSuffix(all[0], "pruned entries had -9, which cannot be") {
		t.Errorf("%q", all)
	}
	change(t, path, `UPDATE budget_counters SET used = -pruned, pruned = 0 WHERE budget = 'key-k1'; UPDATE budget_counters SET used = used - 9 WHERE budget = 'user-alice';
		UPDATE entries SET charges = json_remove(charges, '$[0]') WHERE seq = 3`)
	if _, all := found(t, path, ledger.Audit{}); len(all) != 1 || !strings.HasPrefix(all[0], "chain: the chain is broken at entry 3 (c)") {
		t.Errorf("%q", all)
	}
}

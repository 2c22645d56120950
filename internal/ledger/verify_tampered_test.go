package ledger_test

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"carpool/internal/ledger"
)

// TestVerifyWithoutAnySignature: who takes away all signed heads, too, hides nothing.
func TestVerifyWithoutAnySignature(t *testing.T) {
	path := file(t)
	l := signing(t, path, noon())
	use(t, l, "a", "b", "c", "d", "e")
	shut(t, l)
	change(t, path, tampered+`; UPDATE chain SET signed = ''`)
	if err := os.Remove(path + ".head"); err != nil {
		t.Fatal(err)
	}
	if _, all := found(t, path, ledger.Audit{}); len(all) != 1 || !strings.HasPrefix(all[0], "signature: there is a key of the node") {
		t.Errorf("found %q", all)
	}
	// One that no server has run on since the upgrade has no key either.
	if v, err := ledger.Verify(t.Context(), path, ledger.Audit{}); err != nil || len(v.Findings) > 0 {
		t.Errorf("%+v %v", v, err)
	}
}

// TestVerifyAnOldHead: a head that was signed once is no head for what was booked since, wherever it is put, unless that was
// within a minute.
func TestVerifyAnOldHead(t *testing.T) {
	path, c := file(t), noon()
	l := signing(t, path, c)
	old := read(t, path+".head")
	use(t, l, "a")
	c.set("2026-11-23T12:10:00Z")
	use(t, l, "b", "c", "d", "e")
	shut(t, l)
	newest := read(t, path+".head")
	clean(t, path)
	change(t, path, `DELETE FROM entries WHERE seq = 5; UPDATE counters SET used = used - 7; UPDATE chain SET signed = '`+old+`'`)
	write(t, path+".head", []byte(old))
	const want = "signature: the signed head in the database is from 2026-11-23 12:00:00, and 3 entries after it, from 2 on, began more than a minute later"
	if _, all := found(t, path, ledger.Audit{}); len(all) != 1 || !strings.HasPrefix(all[0], want) {
		t.Errorf("found %q", all)
	}
	if v, err := ledger.VerifyStart(t.Context(), path); err != nil || len(v.Findings) != 1 {
		t.Errorf("at the start: %+v %v", v, err)
	}
	if _, all := found(t, path, ledger.Audit{Kept: newest}); len(all) != 2 || !strings.HasPrefix(all[1], "signature: the signed head that was kept elsewhere: entry 5") {
		t.Errorf("with the one kept elsewhere: %q", all)
	}
	// With everything cut off that came later only a head that was kept elsewhere tells.
	change(t, path, `DELETE FROM entries WHERE seq > 1; UPDATE counters SET used = 7`)
	clean(t, path)
	if _, all := found(t, path, ledger.Audit{Kept: newest}); len(all) != 1 || !strings.HasPrefix(all[0], "signature: the signed head that was kept elsewhere: entry 5") {
		t.Errorf("with the one kept elsewhere: %q", all)
	}
	if _, all := found(t, path, ledger.Audit{Kept: old}); len(all) > 0 {
		t.Errorf("an older one proves less, and nothing wrong: %q", all)
	}
	if _, all := found(t, path, ledger.Audit{Kept: "hello"}); len(all) != 1 || !strings.Contains(all[0], "not a signed head") {
		t.Errorf("something else: %q", all)
	}
}

// TestVerifyKilled: the books of a server that died at any moment, idle for hours before or with a clock that was set,
// have a head that is new enough.
func TestVerifyKilled(t *testing.T) {
	path, c := file(t), noon()
	l := signing(t, path, c)
	defer shut(t, l)
	for i, at := range []string{"12:00:01", "15:00:00", "15:00:01", "12:00:00", "15:00:02", "23:00:00"} {
		c.set("2026-11-23T" + at + "Z")
		use(t, l, fmt.Sprint("e", i))
		if _, err := l.Outbox(t.Context(), 0, 10); err != nil { // has it booked
			t.Fatal(err)
		}
		if v := clean(t, path); v.Entries != int64(i+1) {
			t.Errorf("at %s: %+v", at, v)
		}
		if v, err := ledger.VerifyStart(t.Context(), path); err != nil || len(v.Findings) > 0 {
			t.Errorf("at %s: %+v %v", at, v, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestVerifyResets: a counter that was set to nothing by another hand is told from one that the operator reset, also after
// a start, after resets and after pruning, which are signed for what they change only.
func TestVerifyResets(t *testing.T) {
	path, clock := file(t), noon()
	l := signing(t, path, clock)
	wish := strict("100 tokens", "lifetime", 10)
	spend := func(id string) { pay(t, reserve(t, l, claiming(id, wish)), 9) }
	reset := func() {
		t.Helper()
		if err := l.ResetQuota(t.Context(), []string{"alice"}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	prune := func(to int64) {
		t.Helper()
		if err := l.Acknowledge(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		if n, err := l.Prune(t.Context(), clock.Now().Add(time.Hour)); n != to || err != nil {
			t.Fatal(n, err)
		}
	}
	spend("a")
	reset()
	clean(t, path)
	spend("b")
	shut(t, l)
	clean(t, path)

	l = signing(t, path, clock)
	change(t, path, `UPDATE counters SET waived = waived + used, used = 0`)
	told := func(when, want string) {
		t.Helper()
		if _, all := found(t, path, ledger.Audit{}); len(all) != 1 || !strings.Contains(all[0], want) {
			t.Errorf("%s: %q", when, all)
		}
	}
	told("changed", "add up to 36 tokens used before resets and 0 of pruned entries, and 0 of pruned entries in budgets; what was signed is 18, 0 and 0")
	reset()
	told("reset", "add up to 36 tokens")
	shut(t, l)
	l = signing(t, path, clock)
	told("started again", "add up to 36 tokens")
	prune(2)
	told("pruned", "add up to 36 tokens used before resets and 36 of pruned entries, and 18 of pruned entries in budgets; what was signed is 18, 36 and 18")
	change(t, path, `UPDATE counters SET waived = 9, used = 9`)
	clean(t, path) // put right
	change(t, path, `UPDATE budget_counters SET used = 0, pruned = 0`)
	told("a budget", "0 of pruned entries in budgets; what was signed is 18, 36 and 18")
	shut(t, l)
}

// olderHead returns the head beside a ledger signed anew without what the counters add up to, as Carpool did before it signed that.
func olderHead(t *testing.T, path string) string {
	t.Helper()
	message, _, _ := strings.Cut(read(t, path+".head"), "signature ")
	before, rest, _ := strings.Cut(message, "counted ")
	_, after, ok := strings.Cut(rest, "\n")
	if !ok {
		t.Fatalf("the head does not say what the counters add up to: %s", message)
	}
	message = before + after
	return fmt.Sprintf("%ssignature %x\n", message, ed25519.Sign(nodeKey(t, path), []byte(message)))
}

// TestVerifyAnOlderForm: books that a Carpool left that did not sign what the counters add up to are as good as others, and
// the next start signs it. From then on a head of that form is an old one.
func TestVerifyAnOlderForm(t *testing.T) {
	path, clock := file(t), noon()
	l := signing(t, path, clock)
	use(t, l, "a", "b")
	if err := l.ResetQuota(t.Context(), []string{"alice"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	newer, older := read(t, path+".head"), olderHead(t, path)
	put := func(inside, beside, further string) {
		t.Helper()
		change(t, path, `UPDATE chain SET signed = '`+inside+`';`+further)
		write(t, path+".head", []byte(beside))
	}
	told := func(when string, start int, want ...string) {
		t.Helper()
		_, all := found(t, path, ledger.Audit{})
		same := len(all) == len(want)
		for i := range min(len(all), len(want)) {
			same = same && strings.Contains(all[i], want[i])
		}
		if !same {
			t.Errorf("%s: %q", when, all)
		}
		if v, err := ledger.VerifyStart(t.Context(), path); err != nil || len(v.Findings) != start {
			t.Errorf("%s, at the start: %+v %v", when, v, err)
		}
	}
	put(older, older, `PRAGMA user_version = 0`)
	told("as it was left", 0)
	put(strings.Replace(older, "head 2", "head 1", 1), older, ``)
	told("changed", 0, "signature: the signed head in the database: it is not a signed head of a ledger, or was changed")
	put(older, newer, ``)
	told("beside a newer one", 0, "says what the counters add up to, and the one in the database does not: an old head was put there")
	put(older, older, ``)

	shut(t, signing(t, path, clock))
	told("started", 0)
	if _, err := os.Stat(path + ".head.aside"); err == nil || !strings.Contains(read(t, path+".head"), "\ncounted 28 0 0\n") {
		t.Errorf("the start took the head for one of other books, or signed %s", read(t, path+".head"))
	}
	put(older, older, ``)
	const replayed = "signature: the signed head in the database does not say what the counters add up to, and later ones did"
	told("put back", 1, replayed)
}

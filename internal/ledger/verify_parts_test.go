package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// manyEntries makes a ledger of n entries, closed.
func manyEntries(t *testing.T, n int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.db")
	l := tunedLedger(t, path, tuning{})
	settleMany(t, l, 0, n)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func settleMany(t *testing.T, l *Ledger, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		x, err := l.Reserve(t.Context(), testOpening(fmt.Sprint("e", i), 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Settle(Entry{InputTokens: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

func edit(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// A verification with pauses sees many moments of a ledger in use, and finds what one without finds: nothing, or what is
// wrong. When entries go meanwhile it says so instead of telling of a drift.
func TestVerifyInParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := tunedLedger(t, path, tuning{})
	const first = 2*part + 7
	settleMany(t, l, 0, first)
	if err := l.mover.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := first
	v, err := Verify(t.Context(), path, Audit{Pause: func(ctx context.Context) error {
		if n < 2*first {
			settleMany(t, l, n, n+100)
			n += 100
		}
		return l.mover.flush(ctx)
	}})
	if err != nil || len(v.Findings) > 0 || v.Entries != int64(n) || n < 2*first {
		t.Errorf("%d entries: %+v, %v", n, v, err)
	}
	if err := l.Acknowledge(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	pauses := 0
	_, err = Verify(t.Context(), path, Audit{Pause: func(ctx context.Context) (err error) {
		if pauses++; pauses == 12 { // amid the entries
			_, err = l.Prune(ctx, l.now().AddDate(1, 0, 0))
		}
		return err
	}})
	if err == nil || !strings.Contains(err.Error(), "tried again later") {
		t.Errorf("after %d pauses: %v", pauses, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, path, `UPDATE counters SET used = used + 1; UPDATE entries SET day = '2001-01-01' WHERE seq = 1100`)
	whole, err := Verify(t.Context(), path, Audit{})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := Verify(t.Context(), path, Audit{Pause: func(context.Context) error { return nil }})
	if err != nil || len(whole.Findings) < 3 || !slices.Equal(sorted(whole.Findings), sorted(parts.Findings)) {
		t.Errorf("%v: in parts %+v\nas a whole %+v", err, parts.Findings, whole.Findings)
	}
}

func sorted(findings []Finding) (lines []string) {
	for _, f := range findings {
		lines = append(lines, f.Check+": "+f.What)
	}
	slices.Sort(lines)
	return lines
}

// Of a large ledger the newest entries are looked at before it is opened.
func TestVerifyStartOfALargeLedger(t *testing.T) {
	path := manyEntries(t, 300)
	check := func(why string, want ...string) {
		t.Helper()
		v, err := verifyStart(t.Context(), path, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		got := sorted(v.Findings)
		if len(got) != len(want) || len(want) == 1 && !strings.HasPrefix(got[0], want[0]) {
			t.Errorf("%s: %q", why, got)
		}
	}
	check("nothing")
	edit(t, path, `UPDATE entries SET day = '2001-01-01' WHERE seq = 150`)
	check("something old, which is left to Verify")
	edit(t, path, `UPDATE entries SET day = '2001-01-01' WHERE seq = 250`)
	check("something new", "chain: the chain is broken at entry 250")
	if v, err := VerifyStart(t.Context(), path); err != nil || len(v.Findings) < 3 {
		t.Errorf("of a small one everything is looked at: %+v, %v", v, err)
	}
}

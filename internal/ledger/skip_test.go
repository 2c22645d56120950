package ledger_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"carpool/internal/ledger"
)

// numbered returns what the ledger holds as number and id.
func numbered(t *testing.T, l *ledger.Ledger) (got []string) {
	t.Helper()
	entries, err := l.Outbox(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%d %s", e.Seq, e.ID))
	}
	return got
}

func spend(t *testing.T, l *ledger.Ledger, ids ...string) {
	t.Helper()
	for _, id := range ids {
		x, err := l.Reserve(t.Context(), ask(id, 0, -1, -1))
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Settle(x.Entry()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSkipTo(t *testing.T) {
	for _, c := range []struct {
		acknowledged, to int64
		want             []string
		last             int64
	}{
		{0, 10, []string{"11 a", "12 b", "13 c", "14 new"}, 14},
		{2, 10, []string{"1 a", "2 b", "11 c", "12 new"}, 12},
		{3, 10, []string{"1 a", "2 b", "3 c", "11 new"}, 11},
		{1, 2, []string{"1 a", "3 c", "4 b", "5 new"}, 5}, // control may know another by number 2
		{0, 3, []string{"4 a", "5 b", "6 c", "7 new"}, 7},
		{2, 2, []string{"1 a", "2 b", "3 c", "4 new"}, 4},
		{2, 1, []string{"1 a", "2 b", "3 c", "4 new"}, 4},
	} {
		t.Run(fmt.Sprintf("%d to %d", c.acknowledged, c.to), func(t *testing.T) {
			path, died, clock := file(t), file(t), noon()
			l := open(t, path, clock)
			spend(t, l, "a", "b", "c")
			flying, err := l.Reserve(t.Context(), ask("z", 0, -1, -1)) // open over it all
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Acknowledge(t.Context(), c.acknowledged); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := l.SkipTo(t.Context(), c.to); err != nil {
					t.Fatal(err)
				}
			}
			if got, want := l.Acknowledged(), max(c.acknowledged, c.to); got != want || l.LastSeq() != c.last-1 {
				t.Errorf("acknowledged %d, want %d; last %d", got, want, l.LastSeq())
			}
			spend(t, l, "new")
			if got := numbered(t, l); !slices.Equal(got, c.want) || l.LastSeq() != c.last {
				t.Errorf("%v, want %v; last %d", got, c.want, l.LastSeq())
			}
			// The journal has the entries under their old numbers, and one that the file may lack.
			spend(t, l, "newer")
			image(t, path, died)
			again := open(t, died, clock)
			want := append(slices.Clone(c.want), fmt.Sprintf("%d newer", c.last+1), fmt.Sprintf("%d z", c.last+2))
			if got := numbered(t, again); !slices.Equal(got, want) {
				t.Errorf("after a crash %v, want %v", got, want)
			}
			if err := flying.Settle(flying.Entry()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// After a crash entries keep their numbers when control has got them, and it is not known of them that control may have others
// by these numbers.
func TestResume(t *testing.T) {
	path, died, again, clock := file(t), file(t), file(t), noon()
	l := open(t, path, clock)
	spend(t, l, "a", "b", "c")
	flying, err := l.Reserve(t.Context(), ask("z", 0, -1, -1))
	if err != nil {
		t.Fatal(err)
	}
	image(t, path, died)
	image(t, path, again)
	if err := flying.Settle(flying.Entry()); err != nil {
		t.Fatal(err)
	}
	resumed := func(what string, l *ledger.Ledger, mark, acknowledged int64, want ...string) {
		t.Helper()
		if err := l.Resume(t.Context(), mark); err != nil {
			t.Fatal(err)
		}
		if got := numbered(t, l); !slices.Equal(got, want) || l.Acknowledged() != acknowledged {
			t.Errorf("%s: %v, acknowledged %d; want %v", what, got, l.Acknowledged(), want)
		}
	}
	resumed("control has all but the last", l, 3, 3, "1 a", "2 b", "3 c", "4 z")
	resumed("control has fewer than it acknowledged", l, 1, 3, "1 a", "2 b", "3 c", "4 z")
	resumed("control has more than there is", l, 7, 7, "1 a", "2 b", "3 c", "8 z")

	l = open(t, died, clock) // z is 4, as crashed
	resumed("control has nothing of the crash", l, 2, 2, "1 a", "2 b", "3 c", "4 z")
	image(t, died, path+"-2") // control gets them, and the process dies
	l = open(t, path+"-2", clock)
	resumed("control has what crashed", l, 4, 4, "1 a", "2 b", "3 c", "4 z")

	l = open(t, again, clock) // an older copy, which knows nothing of how z ended
	image(t, again, path+"-3")
	resumed("control has something by the number of what crashed", l, 4, 4, "5 a", "6 b", "7 c", "8 z")
	l = open(t, path+"-3", clock) // died before it asked control
	resumed("control still has something", l, 4, 4, "5 a", "6 b", "7 c", "8 z")
	spend(t, l, "new")
	resumed("control has what came later", l, 9, 9, "5 a", "6 b", "7 c", "8 z", "9 new")
}

func TestSkippedNumbersStaySkipped(t *testing.T) {
	path, died, clock := file(t), file(t), noon()
	l := open(t, path, clock)
	if err := l.SkipTo(t.Context(), 41); err != nil {
		t.Fatal(err)
	}
	image(t, path, died)
	shut(t, l)
	for _, path := range []string{path, died} {
		l := open(t, path, clock)
		spend(t, l, "a")
		if err := l.Acknowledge(t.Context(), 42); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Prune(t.Context(), clock.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		spend(t, l, "b")
		if got := numbered(t, l); !slices.Equal(got, []string{"43 b"}) {
			t.Errorf("%v", got)
		}
	}
	if err := l.SkipTo(t.Context(), 50); err == nil {
		t.Error("a closed ledger skips")
	}
}

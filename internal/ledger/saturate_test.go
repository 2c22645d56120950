package ledger

import (
	"math"
	"testing"
	"time"

	"carpool/internal/policy"
	"carpool/internal/price"
)

// budgetOpening is testOpening with a claim on a budget of everybody's.
func budgetOpening(t *testing.T, id string) Opening {
	t.Helper()
	s, err := policy.Compile(&policy.Document{Budgets: []policy.BudgetSpec{{Name: "all", Scope: "organization", Amount: "100 USD", Window: "lifetime", Soft: true}}})
	if err != nil {
		t.Fatal(err)
	}
	o := testOpening(id, 10)
	o.Claims = []Claim{{Account: policy.Account{Budget: s.Budgets()[0], Subject: "organization"}, Amount: 1}}
	return o
}

// asBefore settles an exchange as Carpool did when a cost had no bound.
func asBefore(t *testing.T, l *Ledger, id string, cost int64) {
	t.Helper()
	x, err := l.Reserve(t.Context(), budgetOpening(t, id))
	if err != nil {
		t.Fatal(err)
	}
	e, s := x.Entry(), &x.settlement
	e.Cost, e.Outcome, e.InputTokens = cost, OutcomeFinished, 1
	x.identify(&e)
	s.charges[0].amount = cost
	s.entry, s.frame = &e, l.writer.frames.get()
	frame, body, err := settlementFrame(s.frame.b[:0], &s.reservation, s.entry)
	if err != nil {
		t.Fatal(err)
	}
	s.frame.b, s.body = frame, frame[body:]
	x.ticket = ticket{op: s, wake: x.ticket.wake}
	if err := l.writer.write(t.Context(), &x.ticket); err != nil {
		t.Fatal(err)
	}
}

// TestAbsurdCostsInTheJournal: counters stop where they are full. Otherwise nothing could be booked any more, nor the ledger be opened.
func TestAbsurdCostsInTheJournal(t *testing.T) {
	for _, c := range []struct {
		why  string
		tune tuning
	}{
		{"in one transaction", still()},
		{"in one each", tuning{every: time.Millisecond, entries: 1}},
	} {
		t.Run(c.why, func(t *testing.T) {
			l := tunedLedger(t, t.TempDir()+"/ledger.db", c.tune)
			for _, id := range []string{"a", "b", "c"} {
				asBefore(t, l, id, math.MaxInt64)
			}
			asBefore(t, l, "d", 5)
			l = crash(t, l)
			if got := outcomes(t, l); len(got) != 4 {
				t.Errorf("booked %q", got)
			}
			x, err := l.Reserve(t.Context(), budgetOpening(t, "e"))
			if err == nil {
				err = x.Settle(Entry{InputTokens: 1, Cost: 7, Outcome: OutcomeFinished})
			}
			if err != nil {
				t.Fatal(err)
			}
			totals, err := l.Totals(t.Context(), Filter{})
			if err != nil || totals.Requests != 5 || totals.InputTokens != 5 || totals.Cost != math.MaxInt64 {
				t.Errorf("totals %+v, %v", totals, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if v, err := Verify(t.Context(), l.file.path, Audit{}); err != nil || len(v.Findings) > 0 {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

func TestNothingIsChargedMoreThanOneExchangeCanCost(t *testing.T) {
	if got := Spent(policy.Dollars, &Entry{Endpoint: EndpointMessages, Cost: math.MaxInt64}); got != price.MaxCost {
		t.Errorf("%d", got)
	}
}

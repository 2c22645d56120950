package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

// claim is a claim on a budget, whose name is its scope.
func claim(spec policy.BudgetSpec, amount int64) ledger.Claim {
	spec.Name = strings.ReplaceAll(spec.Scope, "/", "-")
	s, err := policy.Compile(&policy.Document{Budgets: []policy.BudgetSpec{spec}})
	if err != nil {
		panic(err)
	}
	return ledger.Claim{Account: policy.Account{Budget: s.Budgets()[0], Subject: spec.Scope}, Amount: amount}
}

// strict is a claim on a budget of alice's.
func strict(amount, window string, reserved int64) ledger.Claim {
	return claim(policy.BudgetSpec{Scope: "user/alice", Amount: amount, Window: window, Mode: "strict"}, reserved)
}

func budgetUse(l *ledger.Ledger, c ledger.Claim) ledger.BudgetUse { return l.Budget(c.Budget)[0] }

func claiming(id string, claims ...ledger.Claim) ledger.Opening {
	o := ask(id, 0, -1, -1)
	o.Claims = claims
	return o
}

func pay(t testing.TB, x *ledger.Exchange, cost int64) {
	t.Helper()
	e := x.Entry()
	e.Cost, e.InputTokens = cost, cost
	if err := x.Settle(e); err != nil {
		t.Fatal(err)
	}
}

func refusedBy(t testing.TB, l *ledger.Ledger, o ledger.Opening) *ledger.Denied {
	t.Helper()
	x, err := l.Reserve(t.Context(), o)
	denied, ok := errors.AsType[*ledger.Denied](err)
	if !ok {
		t.Fatalf("admitted: %v, %v", x, err)
	}
	return denied
}

// TestHerd: of 200 requests at once exactly those are admitted for which there is room, whatever the window does.
func TestHerd(t *testing.T) {
	const room, each = 37, 1000
	for _, c := range []struct {
		name string
		spec policy.BudgetSpec
		at   []string // the clock goes on to the next in the middle of it
		want int64
	}{
		{"of a day", policy.BudgetSpec{Window: "day"}, []string{"2026-11-23T12:00:00Z"}, room},
		{"rolling", policy.BudgetSpec{Window: "hour", Rolling: true}, []string{"2026-11-23T12:00:00Z"}, room},
		{"for ever", policy.BudgetSpec{Window: "lifetime"}, []string{"2026-11-23T12:00:00Z", "2027-12-01T00:00:00Z"}, room},
		{"clock set forth", policy.BudgetSpec{Window: "day"}, []string{"2026-11-23T12:00:00Z", "2026-11-23T13:00:00Z"}, room},
		{"clock set back", policy.BudgetSpec{Window: "day"}, []string{"2026-11-23T12:00:00Z", "2026-11-23T11:00:00Z"}, room},
		{"rolling, clock set back", policy.BudgetSpec{Window: "hour", Rolling: true}, []string{"2026-11-23T12:00:00Z", "2026-11-23T11:00:00Z"}, room},
		{"the hour that happens twice", policy.BudgetSpec{Window: "day", TimeZone: "Europe/Berlin"}, []string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"}, room},
		{"a change of window", policy.BudgetSpec{Window: "day"}, []string{"2026-11-23T23:59:59Z", "2026-11-24T00:00:00Z"}, 2 * room},
		{"and back", policy.BudgetSpec{Window: "day"}, []string{"2026-11-23T23:59:59Z", "2026-11-24T00:00:00Z", "2026-11-23T23:59:59Z"}, 2 * room},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, clock := file(t), newClock(c.at[0])
			l := open(t, path, clock)
			c.spec.Scope, c.spec.Mode, c.spec.Amount = "user/alice", "strict", policy.FormatAmount(room*each, policy.Dollars)
			wish := claim(c.spec, each)
			var admitted atomic.Int64
			var settling sync.WaitGroup
			for phase, at := range c.at {
				clock.set(at)
				var herd sync.WaitGroup
				for i := range 200 {
					herd.Go(func() {
						x, err := l.Reserve(t.Context(), claiming(fmt.Sprintf("%d-%d", phase, i), wish))
						if denied, ok := errors.AsType[*ledger.Denied](err); ok {
							if denied.Budget == nil || denied.Limit != room*each {
								t.Errorf("denied by %+v", denied)
							}
							return
						}
						if err != nil {
							t.Error(err)
							return
						}
						admitted.Add(1)
						settling.Go(func() { pay(t, x, each) })
					})
				}
				herd.Wait()
			}
			settling.Wait()
			if admitted.Load() != c.want {
				t.Errorf("%d admitted, want %d", admitted.Load(), c.want)
			}
			if use := budgetUse(l, wish); use.Used != room*each || use.Reserved != 0 {
				t.Errorf("%d used, %d reserved of %d", use.Used, use.Reserved, room*each)
			}
			shut(t, l)
			reconcile(t, path)
		})
	}
}

// A request holds all that it needs or nothing.
func TestAllBudgetsOrNone(t *testing.T) {
	l := open(t, file(t), noon())
	user := strict("10 tokens", "day", 4)
	team := claim(policy.BudgetSpec{Scope: "team/platform", Amount: "5 tokens", Window: "week", Mode: "strict"}, 4)
	x := reserve(t, l, claiming("a", user, team))
	d := refusedBy(t, l, claiming("b", user, team))
	if d.Budget.Name != "team-platform" || d.Used != 0 || d.Reserved != 4 || !d.Temporary || !d.ResetsAt.Equal(time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", d)
	}
	o := claiming("c", user)
	o.Tokens, o.Daily = 5, 4
	if d := refusedBy(t, l, o); d.Budget != nil || d.Window != quota.Daily {
		t.Errorf("%+v", d)
	}
	if use := budgetUse(l, user); use.Reserved != 4 {
		t.Errorf("a refusal holds %d", use.Reserved-4)
	}
	if u := daily(l, 4); u.Reserved != 0 {
		t.Errorf("a refusal holds %+v", u)
	}
	pay(t, x, 5)
	d = refusedBy(t, l, claiming("d", user, team))
	if d.Budget.Name != "team-platform" || d.Temporary || d.Used != 5 {
		t.Errorf("%+v", d)
	}
	// Where several refuse, the one that resets last is told of.
	d = refusedBy(t, l, claiming("e", strict("10 tokens", "day", 6), team))
	if d.Budget.Name != "team-platform" {
		t.Errorf("%+v", d)
	}
}

// What asks for less than nothing has lost count: it fits nowhere, and no reservation is lost by it.
func TestAmountsThatOverflowed(t *testing.T) {
	l := open(t, file(t), noon())
	held := strict("10 tokens", "day", 4)
	x := reserve(t, l, claiming("a", held))
	for _, amount := range []int64{-1, math.MinInt64, math.MaxInt64} {
		for mode, spec := range map[string]policy.BudgetSpec{"strict": {Mode: "strict"}, "fair": {}} {
			spec.Scope, spec.Amount, spec.Window = "user/alice", "10 tokens", "day"
			if d := refusedBy(t, l, claiming(fmt.Sprint(mode, amount), claim(spec, amount))); d.Used != 0 || d.Reserved != 4 {
				t.Errorf("%s %d: %+v", mode, amount, d)
			}
		}
		soft := claim(policy.BudgetSpec{Scope: "user/alice", Amount: "10 tokens", Window: "day", Mode: "strict", Soft: true}, amount)
		pay(t, reserve(t, l, claiming(fmt.Sprint("soft", amount), soft)), 0)
	}
	if use := budgetUse(l, held); use.Reserved != 4 {
		t.Errorf("%+v", use)
	}
	pay(t, x, 4)
}

func TestFairAndSoftBudgets(t *testing.T) {
	l := open(t, file(t), noon())
	fair := claim(policy.BudgetSpec{Scope: "user/alice", Amount: "10 tokens", Window: "day"}, 50)
	x := reserve(t, l, claiming("a", fair)) // more than all of it, of which all is there
	if d := refusedBy(t, l, claiming("b", fair)); !d.Temporary || d.Asked != 10 {
		t.Errorf("%+v", d)
	}
	pay(t, x, 40) // 30 more than it held
	if d := refusedBy(t, l, claiming("c", fair)); d.Temporary || d.Used != 40 {
		t.Errorf("%+v", d)
	}
	soft := claim(policy.BudgetSpec{Scope: "key/k", Amount: "10 tokens", Window: "day", Soft: true}, 50)
	for _, id := range []string{"d", "e"} {
		pay(t, reserve(t, l, claiming(id, soft)), 40)
	}
	overdraft := claim(policy.BudgetSpec{Scope: "organization", Amount: "10 tokens", Window: "day", Mode: "strict", Overdraft: "5 tokens"}, 15)
	pay(t, reserve(t, l, claiming("f", overdraft)), 15)
	nothing := claim(policy.BudgetSpec{Scope: "team/none", Amount: "0 USD", Window: "day"}, 0)
	if d := refusedBy(t, l, claiming("g", nothing)); d.Temporary || d.Limit != 0 {
		t.Errorf("%+v", d)
	}
	if use := budgetUse(l, soft); use.Used != 80 || use.Share() != 8 {
		t.Errorf("%+v", use)
	}
}

// A reservation is charged to the window in which it was admitted, whatever time it is when it ends.
func TestWindowChangesDuringAnExchange(t *testing.T) {
	clock := newClock("2026-11-23T23:59:00Z")
	path, copied := file(t), file(t)
	l := open(t, path, clock)
	c := strict("10 tokens", "day", 6)
	x := reserve(t, l, claiming("a", c))
	flying := reserve(t, l, claiming("b", strict("10 tokens", "day", 3)))
	clock.set("2026-11-24T00:01:00Z")
	pay(t, x, 5)
	if use := budgetUse(l, c); use.Used != 0 || use.Reserved != 0 {
		t.Errorf("the new day has %+v", use)
	}
	clock.set("2026-11-23T23:59:30Z")
	if use := budgetUse(l, c); use.Used != 5 || use.Reserved != 3 {
		t.Errorf("the old day has %+v", use)
	}
	image(t, path, copied)
	again := open(t, copied, clock) // b crashed: half of its tokens, which was none
	if use := budgetUse(again, c); use.Used != 5 || use.Reserved != 0 {
		t.Errorf("after a crash the old day has %+v", use)
	}
	pay(t, flying, 0)
}

func TestThresholdsAreLoggedOnce(t *testing.T) {
	var text strings.Builder
	l, err := ledger.Open(t.Context(), file(t), ledger.Options{Node: "n1", Now: noon().Now, Log: slog.New(slog.NewTextHandler(&text, nil))})
	if err != nil {
		t.Fatal(err)
	}
	c := strict("1 USD", "day", 10)
	used := int64(0)
	for i, cost := range []int64{700_000, 60_000, 60_000, 140_000} {
		x := reserve(t, l, claiming(fmt.Sprint(i), c))
		want := ledger.Fill{Share: float64(used) / 1_000_000, Warn: used >= 750_000, ResetsAt: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)}
		if full, limited := x.Fullest(); !limited || full != want {
			t.Errorf("%+v, want %+v", full, want)
		}
		pay(t, x, cost)
		used += cost
	}
	shut(t, l)
	for _, percent := range []string{"percent=75", "percent=95"} {
		if n := strings.Count(text.String(), percent); n != 1 {
			t.Errorf("%q is logged %d times:\n%s", percent, n, text.String())
		}
	}
	if n := strings.Count(text.String(), "resetsAt=2026-11-24T00:00:00.000Z"); n != 2 {
		t.Errorf("the end of the window is logged %d times:\n%s", n, text.String())
	}
}

func TestALifetimeIsLoggedWithoutItsEnd(t *testing.T) {
	var text strings.Builder
	l, err := ledger.Open(t.Context(), file(t), ledger.Options{Node: "n1", Now: noon().Now, Log: slog.New(slog.NewTextHandler(&text, nil))})
	if err != nil {
		t.Fatal(err)
	}
	pay(t, reserve(t, l, claiming("a", strict("1 USD", "lifetime", 10))), 800_000)
	shut(t, l)
	if !strings.Contains(text.String(), "percent=75") || strings.Contains(text.String(), "resetsAt") {
		t.Errorf("logged was:\n%s", text.String())
	}
}

// TestBudgetModel: reservations, settlements, crashes and a clock that jumps, in any order, under all kinds of windows.
func TestBudgetModel(t *testing.T) {
	t.Parallel()
	specs := []policy.BudgetSpec{
		{Scope: "organization", Amount: "3000 tokens", Window: "lifetime", Mode: "strict"},
		{Scope: "team/platform", Amount: "800 tokens", Window: "hour", Mode: "strict", Rolling: true},
		{Scope: "user/alice", Amount: "1000 tokens", Window: "day", TimeZone: "Europe/Berlin"},
		{Scope: "key/k1", Amount: "0.0007 USD", Window: "week", Mode: "strict"},
	}
	accounts := make([]policy.Account, len(specs))
	for i, spec := range specs {
		accounts[i] = claim(spec, 0).Account
	}
	rapid.Check(t, func(t *rapid.T) {
		folder, err := os.MkdirTemp("", "carpool-budgets-") //nolint:usetesting // a new one for each check, of which there are hundreds
		if err != nil {
			t.Fatal(err)
		}
		clock := newClock("2026-10-24T20:00:00Z")
		files, path := 0, filepath.Join(folder, "0.db")
		start := func() *ledger.Ledger {
			l, err := ledger.Open(context.Background(), path, ledger.Options{Node: "n1", Now: clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := start()
		defer func() { _ = errors.Join(l.Close(), os.RemoveAll(folder)) }()
		type flight struct {
			x              *ledger.Exchange
			expected, most int64 // reserved of the fair budget and of the strict ones
		}
		var flying []flight
		var lifetime, beyond int64
		id := 0
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				n := rapid.Int64Range(1, 300).Draw(t, "n")
				most := n + rapid.Int64Range(0, 200).Draw(t, "more at most")
				o := claiming(fmt.Sprintf("e%d", id))
				id++
				for _, a := range accounts {
					c := ledger.Claim{Account: a, Amount: n}
					if a.Strict {
						c.Amount = most
					}
					o.Claims = append(o.Claims, c)
				}
				o.InputEstimate, o.Entry.Cost = n/2, n/2
				x, err := l.Reserve(context.Background(), o)
				if _, denied := errors.AsType[*ledger.Denied](err); err != nil && !denied {
					t.Fatal(err)
				}
				if err != nil {
					return
				}
				flying = append(flying, flight{x, n, most})
				for _, a := range accounts {
					if use := l.Budget(a.Budget)[0]; use.Used+use.Reserved > use.Limit() {
						t.Fatalf("%s: admitted with %d used and %d reserved of %d", a.Subject, use.Used, use.Reserved, use.Limit())
					}
				}
			},
			"settle": func(t *rapid.T) {
				if len(flying) == 0 {
					return
				}
				f := flying[0]
				actual := rapid.Int64Range(0, f.most).Draw(t, "actual")
				flying = flying[1:]
				e := f.x.Entry()
				e.InputTokens, e.Cost = actual, actual
				for range 2 { // the second changes nothing
					if err := f.x.Settle(e); err != nil {
						t.Fatal(err)
					}
				}
				lifetime, beyond = lifetime+actual, beyond+max(actual-f.expected, 0)
			},
			"restart": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "often") > 0 { // it takes longer than all the others
					return
				}
				if rapid.Bool().Draw(t, "crash") {
					from := path
					files++
					path = filepath.Join(folder, fmt.Sprintf("%d.db", files))
					image(t, from, path)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				for _, f := range flying {
					lifetime += f.expected / 2
				}
				flying = nil
				l = start()
				if err := disagreement(context.Background(), path); err != nil {
					t.Fatal(err)
				}
			},
			"time": func(t *rapid.T) {
				minutes := rapid.IntRange(-60, 400).Draw(t, "minutes")
				clock.set(clock.Now().Add(time.Duration(minutes) * time.Minute).Format(time.RFC3339))
			},
			"": func(t *rapid.T) {
				for i, s := range specs {
					held, over := int64(0), beyond
					for _, f := range flying {
						held += f.expected
						if accounts[i].Strict {
							held += f.most - f.expected
						}
					}
					if accounts[i].Strict {
						over = 0 // nothing was settled above its reservation
					}
					use := l.Budget(accounts[i].Budget)[0]
					if use.Used < 0 || use.Reserved < 0 || use.Used > lifetime || use.Reserved > held {
						t.Fatalf("%s: %d used, %d reserved", s.Scope, use.Used, use.Reserved)
					}
					// What a clock set forth has let out of a rolling window comes back when it is set back.
					if !s.Rolling && use.Used+use.Reserved > use.Limit()+over {
						t.Fatalf("%s: %d used, %d reserved of %d, %d beyond reservations", s.Scope, use.Used, use.Reserved, use.Limit(), over)
					}
					if s.Window == "lifetime" && (use.Used != lifetime || use.Reserved != held) {
						t.Fatalf("%s: %d used of %d, %d reserved of %d", s.Scope, use.Used, lifetime, use.Reserved, held)
					}
				}
			},
		})
	})
}

package quota_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"carpool/internal/quota"
)

func TestAccount(t *testing.T) {
	for _, c := range []struct {
		why           string
		account       quota.Account
		ask           int64
		fits, settled bool
		remaining     int64
	}{
		{"empty", quota.Account{Limit: 10}, 10, true, true, 10},
		{"one too many", quota.Account{Limit: 10}, 11, false, false, 10},
		{"held by others", quota.Account{Limit: 10, Used: 4, Reserved: 3}, 4, false, true, 3},
		{"used up", quota.Account{Limit: 10, Used: 10}, 1, false, false, 0},
		{"overdrawn", quota.Account{Limit: 10, Used: 15}, 1, false, false, 0},
		{"nothing asked of an overdrawn account", quota.Account{Limit: 10, Used: 15}, 0, true, true, 0},
		{"limit zero", quota.Account{}, 1, false, false, 0},
		{"nothing asked of limit zero", quota.Account{}, 0, true, true, 0},
		{"unlimited", quota.Account{Limit: quota.Unlimited, Used: 1 << 60}, 1 << 40, true, true, quota.Unlimited},
		{"no overflow", quota.Account{Limit: 10, Used: math.MaxInt64, Reserved: math.MaxInt64}, 1, false, false, 0},
		{"absurd request", quota.Account{Limit: 10, Used: 5}, math.MaxInt64, false, false, 5},
	} {
		t.Run(c.why, func(t *testing.T) {
			a := c.account
			if a.Fits(c.ask) != c.fits || a.FitsSettled(c.ask) != c.settled || a.Remaining() != c.remaining {
				t.Errorf("%+v: Fits %v, FitsSettled %v, Remaining %d", a, a.Fits(c.ask), a.FitsSettled(c.ask), a.Remaining())
			}
			if a != c.account {
				t.Error("asking changed the account")
			}
		})
	}
}

func TestReserveIsAllOrNone(t *testing.T) {
	day, month := quota.Account{Limit: 10}, quota.Account{Limit: 5}
	if refused := quota.Reserve(6, &day, &month); !slices.Equal(refused, []int{1}) || day.Reserved != 0 || month.Reserved != 0 {
		t.Errorf("refused %v, day %+v, month %+v", refused, day, month)
	}
	if refused := quota.Reserve(11, &day, &month); !slices.Equal(refused, []int{0, 1}) {
		t.Errorf("refused %v", refused)
	}
	if refused := quota.Reserve(5, &day, &month); refused != nil || day.Reserved != 5 || month.Reserved != 5 {
		t.Errorf("refused %v, day %+v, month %+v", refused, day, month)
	}
}

// Settled and reserved stay within the limit, apart from what settlements used beyond their reservations.
func TestAccountInvariant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(0, 1000).Draw(t, "limit")
		a := quota.Account{Limit: limit}
		var held []int64
		var used, beyond int64
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				n := rapid.Int64Range(0, 400).Draw(t, "n")
				fits, remaining := a.Fits(n), a.Remaining()
				if admitted := quota.Reserve(n, &a) == nil; admitted != fits || admitted != (n <= remaining) {
					t.Fatalf("%d of %d: admitted %v", n, remaining, admitted)
				}
				if fits {
					held = append(held, n)
				}
			},
			"settle": func(t *rapid.T) {
				if len(held) == 0 {
					return
				}
				n := rapid.Int64Range(0, 600).Draw(t, "used")
				a.Settle(held[0], n)
				used += n
				beyond += max(n-held[0], 0)
				held = held[1:]
			},
			"release": func(*rapid.T) {
				if len(held) > 0 {
					a.Release(held[0])
					held = held[1:]
				}
			},
			"": func(t *rapid.T) {
				var reserved int64
				for _, n := range held {
					reserved += n
				}
				if a.Used != used || a.Reserved != reserved {
					t.Fatalf("%+v, want used %d reserved %d", a, used, reserved)
				}
				if a.Used+a.Reserved > limit+beyond {
					t.Fatalf("%+v exceeds its limit by more than %d", a, beyond)
				}
			},
		})
	})
}

package quota

import "math"

// Unlimited is the limit that never runs out.
const Unlimited = -1

// MaxTokens is the largest number of tokens one reservation or settlement may name. It is far above any real request and
// low enough that no sum of them overflows.
const MaxTokens = 1 << 40

// Clamp brings a number of tokens into 0 … MaxTokens.
func Clamp(tokens int64) int64 { return min(max(tokens, 0), MaxTokens) }

// Account is what is left of one quota window.
type Account struct {
	Limit    int64 // Unlimited (-1): no limit
	Used     int64 // settled
	Reserved int64 // held by requests in flight
}

// Unlimited reports whether the account never runs out.
func (a Account) Unlimited() bool { return a.Limit <= Unlimited }

// Remaining returns what may still be reserved: Limit - Used - Reserved, not below 0; Unlimited without a limit.
func (a Account) Remaining() int64 {
	if a.Unlimited() {
		return Unlimited
	}
	return max(a.Limit-Add(a.Used, a.Reserved), 0)
}

// Fits reports whether n tokens can be reserved now. Nothing (n <= 0) always fits, in an overdrawn account too.
func (a Account) Fits(n int64) bool {
	return n <= 0 || a.Unlimited() || n <= a.Remaining()
}

// FitsSettled reports whether n tokens would fit if no request were in flight. Where Fits is false and FitsSettled true,
// only reservations stand in the way, and a retry in seconds may succeed.
func (a Account) FitsSettled(n int64) bool {
	a.Reserved = 0
	return a.Fits(n)
}

// Reserve takes n tokens (see Clamp) from every account, or from none. It returns the indexes of the accounts in which they
// do not fit; nil means that the reservation was made.
func Reserve(n int64, accounts ...*Account) (refused []int) {
	for i, a := range accounts {
		if !a.Fits(n) {
			refused = append(refused, i)
		}
	}
	if refused != nil {
		return refused
	}
	for _, a := range accounts {
		a.Reserved = Add(a.Reserved, Clamp(n))
	}
	return nil
}

// Release gives a reservation of n tokens back.
func (a *Account) Release(n int64) { a.Reserved = max(a.Reserved-Clamp(n), 0) }

// Settle replaces a reservation by what was really used, which may be more and then overdraws the account.
func (a *Account) Settle(reserved, used int64) {
	a.Release(reserved)
	a.Used = Add(a.Used, Clamp(used))
}

// Add sums two numbers that are not negative and stops at the largest int64.
func Add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

package main

import "fmt"

// dollars writes micro-dollars for people: in cents from a dollar on, with more places below it, so that no cost looks like
// none. JSON and CSV have the exact amount.
func dollars(micro int64) string {
	sign, amount := "", uint64(micro) //nolint:gosec // the sign is dealt with
	if micro < 0 {
		sign, amount = "-", -amount
	}
	unit, whole, places := uint64(1), uint64(1e6), 6 // micro-dollars in one of the last place
	switch {
	case amount >= 1e6-50, amount == 0:
		unit, whole, places = 1e4, 1e2, 2
	case amount >= 1e4:
		unit, whole, places = 1e2, 1e4, 4
	}
	amount = (amount + unit/2) / unit
	return fmt.Sprintf("%s$%s.%0*d", sign, number(int64(amount/whole)), places, amount%whole) //nolint:gosec // far below
}

package main

import (
	"fmt"
	"strings"

	"carpool/internal/control"
	"carpool/internal/fleet"
)

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

// The marks before an amount; costNotes explains them.
const (
	markUnpriced  = "*"
	markEstimated = "~"
)

// marked is an amount of which a part is without a price, or estimated.
func marked(micro int64, unpriced, estimated bool) string {
	text := dollars(micro)
	if estimated {
		text = markEstimated + text
	}
	if unpriced {
		text = markUnpriced + text
	}
	return text
}

// sumCost is what exchanges cost.
func sumCost(s control.UsageTotals) string {
	return marked(s.CostMicroUSD, s.Unpriced > 0, s.Estimated > 0)
}

// entryCost is what an exchange cost. One from before there were prices has no cost.
func entryCost(e *fleet.Entry) string {
	if e.PriceVersion == "" && !e.Unpriced && e.InputTokens+e.OutputTokens+e.CacheReadTokens+e.CacheWrite5mTokens+e.CacheWrite1hTokens > 0 {
		return markUnpriced + "-"
	}
	return marked(e.Cost, e.Unpriced, e.Estimated)
}

// costNotes says below a table what is not certain about its costs.
func costNotes(unpriced, estimated int64) string {
	var text strings.Builder
	if unpriced > 0 {
		fmt.Fprintf(&text, "%s %s without a price: the cost follows the rule for that,\n  or is nothing where the request is older than the prices.\n",
			markUnpriced, countOf(int(unpriced), "request"))
	}
	if estimated > 0 {
		fmt.Fprintf(&text, "%s %s ended before all was reported: the rest is estimated.\n", markEstimated, countOf(int(estimated), "request"))
	}
	if text.Len() > 0 {
		return "\n" + text.String()
	}
	return ""
}

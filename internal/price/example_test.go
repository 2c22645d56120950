package price_test

import (
	"fmt"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

func Example() {
	prices, err := price.New(price.Overlay{
		Models:    []price.Rates{{Model: "claude-opus-6", From: "2026-12-01", Input: "6", Output: "30"}},
		Discounts: []price.Discount{{Upstream: "main", Multiplier: "0.85"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	start := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	r := price.Request{Provider: price.Anthropic, Upstream: "main", Sent: "claude-opus-5"}

	// Before it is sent: what can it cost at most?
	fmt.Println(prices.UpperBound(start, r, price.Bound{Prompt: 20_000, Output: 4_096, ShortLife: true}))

	// Afterwards: what did it cost?
	r.Served, r.Usage = "claude-opus-5-20260724", anthropic.Usage{Input: 200, CacheRead: 18_000, CacheWrite5m: 1_500, Output: 700}
	cost := prices.Cost(start, r)
	fmt.Println(cost.Total, cost.Rule)
	fmt.Printf("%+v\n", cost.Parts)

	// And with another model?
	fmt.Println(prices.Cost(start, r.As("claude-sonnet-5")).Total)
	// Output:
	// 212619
	// 31344 claude-opus-5 since 2026-07-24, upstream's multiplier ×0.85
	// {Input:850 CacheWrite5m:7969 CacheWrite1h:0 CacheRead:7650 Output:14875 WebSearches:0}
	// 12538
}

package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/control/store"
	"carpool/internal/policy"
	"carpool/internal/price"
)

type billingInput struct {
	Since    string `query:"since" doc:"Start: RFC 3339 time, date in the configured time zone, or an age like 24h or 7d" example:"7d"`
	Until    string `query:"until" doc:"End, exclusive, in the same forms"`
	Upstream string `query:"upstream" doc:"Only what this upstream served"`
}

// billing answers by the days and names of Anthropic's Usage and Cost report: UTC, whatever time zone is configured.
func (c *Control) billing(ctx context.Context, in *billingInput) ([]BillingRow, error) {
	f, err := c.filter(&Range{Since: in.Since, Until: in.Until})
	if err != nil {
		return nil, err
	}
	f.Endpoint, f.Upstream, f.Provider, f.Charged = policy.EndpointMessages, in.Upstream, policy.ProviderAnthropic, true
	c.flush(ctx)
	sums, err := c.store.Sums(ctx, f, store.ByDay, store.ByModel)
	if err != nil {
		return nil, err
	}
	type line struct{ day, model string }
	mixed := map[line]int64{}
	f.Runs = true
	for e, err := range c.store.Costs(ctx, f) {
		if err != nil {
			return nil, err
		}
		if e.Mixed() {
			mixed[line{e.StartedAt.UTC().Format(time.DateOnly), cmp.Or(e.ModelServed, e.ModelSent, e.ModelAsked)}]++
		}
	}
	prices := c.current.Load().snapshot.Prices
	rows := make([]BillingRow, len(sums))
	for i, s := range sums {
		micros, err := strconv.ParseInt(s.Groups[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the database says that %q is a day: %w", s.Groups[0], err)
		}
		at, model := time.UnixMicro(micros).UTC(), s.Groups[1]
		day := at.Format(time.DateOnly)
		searches := prices.Cost(at, price.Request{Usage: anthropic.Usage{WebSearches: s.WebSearches}})
		rows[i] = BillingRow{
			Day: day, Model: model, Mixed: mixed[line{day, model}], UsageTotals: totalsOf(s),
			WebSearchMicroUSD: min(searches.Parts.WebSearches, s.Cost), // requests without a price may have cost less
		}
	}
	slices.SortFunc(rows, func(a, b BillingRow) int { return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Model, b.Model)) })
	return rows, nil
}

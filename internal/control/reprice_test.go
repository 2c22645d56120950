package control_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/price"
)

// TestReprice prices what was shipped again, by other days, other models and other prices than those that it is booked with.
func TestReprice(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		at := must[time.Time](t)(time.Parse(time.RFC3339, "2026-10-06T12:00:00Z"))
		used := func(seq int64, edit func(*fleet.Entry)) fleet.Entry {
			return entry("n1", seq, func(e *fleet.Entry) {
				e.ID, e.StartedAt, e.Upstream, e.Provider = fmt.Sprint(seq), at, "main", "anthropic"
				e.ModelAsked, e.ModelSent, e.ModelServed = "claude-sonnet-5-5", "claude-sonnet-5-5", "claude-sonnet-5-5"
				e.InputTokens, e.OutputTokens, e.CacheReadTokens, e.CacheWrite5mTokens, e.CacheWrite1hTokens = 1000, 100, 10_000, 0, 0
				e.WebSearches, e.ServiceTier, e.InferenceGeo, e.Speed, e.Usage, e.Estimated = 0, "", "", "", nil, false
				e.Cost, e.PriceVersion = 2000+1000+2000, "2026-10-01-00000000"
				edit(e)
			})
		}
		runs := json.RawMessage(`{"input_tokens":412,"output_tokens":264,"iterations":[{"type":"message","input_tokens":535,"output_tokens":0},` +
			`{"type":"fallback_message","model":"claude-sonnet-5","input_tokens":412,"output_tokens":264},{"type":"advisor_message","model":"claude-opus-5","input_tokens":100,"output_tokens":10}]}`)
		n.mu.Lock()
		n.settled = []fleet.Entry{
			used(1, func(*fleet.Entry) {}),
			used(2, func(e *fleet.Entry) { e.Cost, e.PriceVersion = 0, "" }), // from before there were prices
			used(3, func(e *fleet.Entry) { // of three models, one of which declined
				e.ModelServed, e.Usage, e.Cost = "claude-sonnet-5", runs, 412*2+264*10+500+250
				e.InputTokens, e.OutputTokens, e.CacheReadTokens = 512, 274, 0
			}),
			used(4, func(e *fleet.Entry) { // the same, and its report is lost
				e.ModelServed, e.Usage, e.Cost = "claude-sonnet-5", json.RawMessage(`{"input_tokens":412}`), 412*2+264*10+500+250
				e.InputTokens, e.OutputTokens, e.CacheReadTokens = 512, 274, 0
			}),
			used(5, func(e *fleet.Entry) {
				e.ModelAsked, e.ModelSent, e.ModelServed, e.Cost, e.Unpriced = "x", "x", "unheard-of", 5000+2500+5000, true
			}),
			used(6, func(e *fleet.Entry) { // refused before any output
				e.Uncharged, e.Cost, e.Usage = true, 0, json.RawMessage(`{"input_tokens":1000}`)
				e.InputTokens, e.OutputTokens, e.CacheReadTokens = 0, 0, 0
			}),
			used(7, func(e *fleet.Entry) { e.Endpoint = policy.EndpointCountTokens }),
		}
		n.mu.Unlock()
		for _, c2 := range []struct {
			why   string
			query control.RepriceQuery
			want  map[string]control.RepricedTotals
		}{
			{"at their own time", control.RepriceQuery{}, map[string]control.RepricedTotals{
				"claude-sonnet-5-5": {Requests: 3, Booked: 5000, Repriced: 10_000, Difference: 5000},
				"claude-sonnet-5":   {Requests: 2, Booked: 2 * 4214, Repriced: 4214 + 512*2 + 274*10, Difference: 512*2 + 274*10 - 4214, Inexact: 1},
				"unheard-of":        {Requests: 1, Booked: 12_500, Repriced: 12_500, Unpriced: 1},
			}},
			{"when reads were cheaper", control.RepriceQuery{AsOf: "2026-10-07"}, map[string]control.RepricedTotals{
				"claude-sonnet-5-5": {Requests: 3, Booked: 5000, Repriced: 8000, Difference: 3000},
				"claude-sonnet-5":   {Requests: 2, Booked: 2 * 4214, Repriced: 4214 + 512*2 + 274*10, Difference: 512*2 + 274*10 - 4214, Inexact: 1},
				"unheard-of":        {Requests: 1, Booked: 12_500, Repriced: 12_500, Unpriced: 1},
			}},
			{"with another model", control.RepriceQuery{Model: "claude-opus-5"}, map[string]control.RepricedTotals{
				"claude-sonnet-5-5": {Requests: 3, Booked: 5000, Repriced: 2 * 12_500, Difference: 20_000},
				"claude-sonnet-5":   {Requests: 2, Booked: 2 * 4214, Repriced: 2 * (512*5 + 274*25), Difference: 2 * (512*5 + 274*25 - 4214)},
				"unheard-of":        {Requests: 1, Booked: 12_500, Repriced: 12_500},
			}},
			{"of nobody", control.RepriceQuery{User: "nobody"}, map[string]control.RepricedTotals{}},
		} {
			c2.query.Since = "2026-10-01"
			got := must[control.Repricing](t)(c.Reprice(ctx, c2.query))
			var sum control.RepricedTotals
			for _, m := range got.Models {
				if m.RepricedTotals != c2.want[m.Model] {
					t.Errorf("%s: %+v, want %+v", c2.why, m, c2.want[m.Model])
				}
				sum.Requests, sum.Booked, sum.Repriced = sum.Requests+m.Requests, sum.Booked+m.Booked, sum.Repriced+m.Repriced
				sum.Difference, sum.Unpriced, sum.Inexact = sum.Difference+m.Difference, sum.Unpriced+m.Unpriced, sum.Inexact+m.Inexact
			}
			if len(got.Models) != len(c2.want) || got.Totals != sum || got.PriceVersion == "" {
				t.Errorf("%s: %+v", c2.why, got)
			}
		}

		o := options(t, p.folder)
		o.Settings.Prices = price.Overlay{Discounts: []price.Discount{{Upstream: "main", Multiplier: "0.5"}}}
		must[any](t)(nil, p.UpdateSettings(ctx, o.Settings, o.DefaultQuota))
		got := must[control.Repricing](t)(c.Reprice(ctx, control.RepriceQuery{Since: "2026-10-01"}))
		if !slices.ContainsFunc(got.Models, func(m control.RepricedModel) bool { return m.Model == "claude-sonnet-5-5" && m.Repriced == 5000 }) {
			t.Errorf("with a discount: %+v", got)
		}
		for _, wrong := range []control.RepriceQuery{{}, {Since: "then"}, {Since: "7d", AsOf: "then"}, {Since: "7d", AsOf: "2026-10-07", Model: "m"}} {
			if _, err := c.Reprice(ctx, wrong); err == nil {
				t.Errorf("%+v was answered", wrong)
			}
		}
	})
}

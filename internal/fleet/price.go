package fleet

import (
	"slices"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/price"
)

// Charge prices an entry by a table as of its start. u is what it is settled with, of which an [Entry] keeps the sum and the report that it
// follows from. Counting tokens costs nothing, and neither does what used nothing: no price is looked up for them.
// One that costs [price.MaxCost] is marked as estimated, since nobody can believe what it follows from.
func (e *Entry) Charge(prices *price.Table, u anthropic.Usage) {
	e.Cost, e.CacheSavings, e.Unpriced, e.PriceRule, e.PriceVersion = 0, 0, false, "", ""
	r := e.priced(u)
	if e.Endpoint == policy.EndpointCountTokens || e.Uncharged || r.Free() {
		return
	}
	cost := prices.Cost(e.StartedAt, r)
	e.Cost, e.Unpriced, e.PriceRule, e.PriceVersion = cost.Total, cost.Unpriced, cost.Rule, prices.Version()
	e.Estimated = e.Estimated || cost.Total == price.MaxCost
	if plain, cached := r.Uncached(); cached {
		e.CacheSavings = prices.Cost(e.StartedAt, plain).Total - cost.Total
	}
}

// Counts is the sum that an entry has of its usage, as one sampling run.
func (e *Entry) Counts() anthropic.Usage {
	return anthropic.Usage{
		Input: e.InputTokens, Output: e.OutputTokens, CacheRead: e.CacheReadTokens, CacheWrite5m: e.CacheWrite5mTokens,
		CacheWrite1h: e.CacheWrite1hTokens, Thinking: e.ThinkingTokens, WebSearches: e.WebSearches,
		ServiceTier: e.ServiceTier, InferenceGeo: e.InferenceGeo, Speed: e.Speed,
	}
}

// PriceRequest is what an entry's cost follows from, by what is stored of it. The counts of the entry have precedence over the report: where
// that does not add up to them it is not used and whole is false; a price of several sampling runs, each at the rates of its own model, is
// then not to be had again.
func (e *Entry) PriceRequest() (r price.Request, whole bool) {
	counts := e.Counts()
	if e.Uncharged || len(e.Usage) == 0 {
		return e.priced(counts), true
	}
	u := anthropic.ParseUsage(e.Usage)
	if e.Estimated && u.Prompt() == 0 && len(u.Iterations) == 0 { // it was guessed
		return e.priced(counts), true
	}
	if e.CacheWrite1hTokens > u.BilledTotal().CacheWrite1h { // as the request had asked
		u = u.ForAnHour(e.Usage)
	}
	if e.Estimated {
		u = u.WithOutput(e.OutputTokens - u.BilledTotal().Output)
	}
	sum := u.BilledTotal()
	if sum.Input != counts.Input || sum.Output != counts.Output || sum.CacheRead != counts.CacheRead ||
		sum.CacheWrite5m != counts.CacheWrite5m || sum.CacheWrite1h != counts.CacheWrite1h {
		return e.priced(counts), false
	}
	counts.Iterations = u.Iterations
	return e.priced(counts), true
}

func (e *Entry) priced(u anthropic.Usage) price.Request {
	return price.Request{
		Provider: price.Provider(e.Provider), Upstream: e.Upstream, Location: e.Location,
		Served: e.ModelServed, Sent: e.ModelSent, Asked: e.ModelAsked, Usage: u,
	}
}

// Mixed reports whether other models than the one that answered took part and are billed for it: an advisor, or one that declined after
// some output and was replaced. Whoever divides usage by model counts it elsewhere than an entry does.
func (e *Entry) Mixed() bool {
	if e.Uncharged || len(e.Usage) == 0 {
		return false
	}
	u := anthropic.ParseUsage(e.Usage)
	replaced := slices.ContainsFunc(u.Iterations, func(it anthropic.Iteration) bool { return it.Type == "fallback_message" })
	for run := range u.Billed() {
		switch run.Model {
		case e.ModelServed:
		case "", e.ModelSent, e.ModelAsked: // the requested model, by a name that may lack the date of the one that served
			if replaced {
				return true
			}
		default:
			return true
		}
	}
	return false
}

package price

import "time"

// Bound is what a request can use at most, known before it is sent. What is left at its zero value is taken at its worst.
type Bound struct {
	Prompt int64 // tokens, never below the true count: input, cache reads and cache writes of all sampling runs together
	Output int64 // max_tokens, of all sampling runs together

	Fast      bool // the request asks for speed "fast"; others are never answered so
	ShortLife bool // nothing in the request asks for a cache lifetime (ttl) beyond five minutes
	GlobalGeo bool // the request itself pins inference_geo to "global"
}

// UpperBound is the most that a request can cost, in micro-dollars rounded up: no usage within the bound has a higher [Table.Cost] at the
// same instant and on the same upstream, however its prompt is divided into classes; web searches come on top. The Usage of the request has
// no meaning here.
//
// The bound is for the model that the request names. A request that lets the server run other models too (fallbacks, an advisor) needs the
// sum of the bounds of each; one that may go to several upstreams the largest. Where no id names a known model the answer may be any, and
// the bound is that of the dearest.
func (t *Table) UpperBound(at time.Time, r Request, b Bound) int64 {
	s := settings{fast: b.Fast || t.deployedFast(&r), own: true, geo: "us"}
	if b.GlobalGeo {
		s.geo = Global
	}
	var worst amount
	consider := func(m *model) {
		x := t.terms(at, &r, m, b.Prompt, s)
		dearest := max(x.input, x.cacheWrite5m, x.cacheRead)
		if !b.ShortLife {
			dearest = max(dearest, x.cacheWrite1h)
		}
		factor := x.product()
		if a := product(b.Prompt, dearest, factor).plus(product(b.Output, x.output, factor)); worst.less(a) {
			worst = a
		}
	}
	if m := t.place(r.Upstream, [3]string{r.Served, r.Sent, r.Asked}); m != nil {
		consider(m)
	} else {
		s.fast = s.fast || r.Provider == Foundry // where fast mode is a model of its own, which a deployment's name does not tell
		consider(nil)
		for _, m := range t.list.models {
			consider(m)
		}
		if a := t.upstreams[r.Upstream]; a != nil {
			for _, m := range a.models.models {
				consider(m)
			}
		}
	}
	return worst.microUp()
}

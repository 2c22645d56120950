package price

import (
	"encoding/json"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/anthropic"
)

// operator is an Overlay with something of everything.
func operator() Overlay {
	return Overlay{
		Models: []Rates{
			{Model: "claude-opus-6", From: "2026-12-01", Input: "6", Output: "30", Fast: "2.5"},
			{Model: "claude-haiku-6", Input: "0.3333", Output: "1", UpTo: 50_000},
			{Model: "claude-haiku-6", Input: "0.6667", Output: "2"},
			{Model: "claude-sonnet-5", Upstream: "eu", From: "2026-10-01", Input: "1.7", Output: "8.5"},
			{Model: "claude-sonnet-5", Upstream: "eu", From: "2026-11-01", Input: "1.6", Output: "8", CacheWrite5m: "1.9", CacheRead: "0.0001"},
			{Model: "free", Input: "0", Output: "0"},
		},
		Discounts: []Discount{
			{Upstream: "eu", Multiplier: "0.9"}, {Upstream: "eu", From: "2026-11-10", Multiplier: "0.8333"}, {Upstream: "us", Multiplier: "1.25"},
		},
	}
}

func operated(t testing.TB) *Table {
	t.Helper()
	table, err := New(operator())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func drawTime(t *rapid.T) time.Time {
	days := []string{"1970-01-01", "2026-03-13", "2026-04-30", "2026-09-22", "2026-10-07", "2026-11-09", "2026-11-10", "2026-11-30", "2026-12-01", "2027-01-01"}
	at, err := time.Parse(time.DateOnly, rapid.SampledFrom(days).Draw(t, "day"))
	if err != nil {
		t.Fatal(err)
	}
	return at.Add(time.Duration(rapid.SampledFrom([]int{-1, 0, 1}).Draw(t, "nanoseconds")))
}

// drawRequest makes a request of a model that is the same under all of its names, or of none that is known.
func drawRequest(t *rapid.T, table *Table) Request {
	var ids []string
	for _, list := range []map[string]*model{table.list.models, table.upstreams["eu"].models.models} {
		for id := range list {
			ids = append(ids, id)
		}
	}
	id := rapid.SampledFrom(slices.Sorted(slices.Values(append(ids, "claude-unknown", "prod")))).Draw(t, "model")
	r := Request{
		Provider: rapid.SampledFrom([]Provider{"", Anthropic, AWS, Bedrock, Vertex, Foundry}).Draw(t, "provider"),
		Upstream: rapid.SampledFrom([]string{"", "eu", "us"}).Draw(t, "upstream"),
		Location: rapid.SampledFrom([]string{"", "us", "eu-west-1", "global"}).Draw(t, "location"),
		Sent:     rapid.SampledFrom([]string{"", "us.", "global.", "anthropic/"}).Draw(t, "prefix") + id,
		Asked:    id,
	}
	if rapid.Bool().Draw(t, "deployed fast") {
		r.Sent += "-fast"
	}
	return r
}

func drawUsage(t *rapid.T, prompt, output, searches int64) anthropic.Usage {
	share := func(of *int64, label string) int64 {
		n := rapid.Int64Range(0, *of).Draw(t, label)
		*of -= n
		return n
	}
	u := anthropic.Usage{
		Speed:        rapid.SampledFrom([]string{"", "standard", "fast"}).Draw(t, "speed"),
		InferenceGeo: rapid.SampledFrom([]string{"", "global", "us", "eu", "not_available"}).Draw(t, "geo"),
		ServiceTier:  rapid.SampledFrom([]string{"", "standard", "batch", "priority"}).Draw(t, "tier"),
		WebSearches:  share(&searches, "searches"),
	}
	one := func() anthropic.Iteration {
		return anthropic.Iteration{
			Type: "message", Input: share(&prompt, "input"), CacheRead: share(&prompt, "read"), CacheWrite5m: share(&prompt, "5m"),
			CacheWrite1h: share(&prompt, "1h"), Output: share(&output, "output"),
		}
	}
	top := one()
	u.Input, u.CacheRead, u.CacheWrite5m, u.CacheWrite1h, u.Output = top.Input, top.CacheRead, top.CacheWrite5m, top.CacheWrite1h, top.Output
	if rapid.Bool().Draw(t, "iterations") {
		u.Iterations = []anthropic.Iteration{top}
		for range rapid.IntRange(0, 3).Draw(t, "more") {
			u.Iterations = append(u.Iterations, one())
		}
	}
	return u
}

// TestExact reckons with fractions what the table reckons with integers, from the published document itself: the total is the exact cost
// rounded half up once, however many runs and classes it has, and the parts add up to it.
func TestExact(t *testing.T) {
	table := operated(t)
	var p published
	if err := json.Unmarshal(publishedJSON, &p); err != nil {
		t.Fatal(err)
	}
	fraction := func(n json.Number) *big.Rat {
		r, ok := new(big.Rat).SetString(string(n))
		if !ok {
			t.Fatalf("not a number: %q", n)
		}
		return r
	}
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SampledFrom(p.Models).Draw(t, "model")
		period := rapid.SampledFrom(m.Periods).Draw(t, "period")
		at, err := time.Parse(time.DateOnly, period.From)
		if err != nil {
			t.Fatal(err)
		}
		u := drawUsage(t, rapid.Int64Range(0, 2_000_000).Draw(t, "prompt"), rapid.Int64Range(0, 200_000).Draw(t, "output"), 20)
		u.InferenceGeo = rapid.SampledFrom([]string{"", "us"}).Draw(t, "place")
		factor := big.NewRat(1, 1)
		switch {
		case m.Fast == nil || m.Fast.Multiplier == "" || m.Fast.Until != "":
			u.Speed = ""
		case u.Speed == "fast":
			factor.Mul(factor, fraction(m.Fast.Multiplier))
		}
		if u.ServiceTier == "batch" && u.Speed != "fast" {
			factor.Mul(factor, big.NewRat(1, 2))
		}
		if u.InferenceGeo == "us" && m.US != "" {
			factor.Mul(factor, fraction(m.US))
		}
		upstream := rapid.SampledFrom([]string{"", "us"}).Draw(t, "upstream")
		if upstream == "us" {
			factor.Mul(factor, big.NewRat(5, 4))
		}
		exact := map[string]*big.Rat{}
		sum := new(big.Rat)
		charge := func(class string, count int64, rate *big.Rat) {
			part := new(big.Rat).Mul(big.NewRat(count, 1), rate) // tokens at dollars per million are micro-dollars
			if exact[class] == nil {
				exact[class] = new(big.Rat)
			}
			exact[class].Add(exact[class], part)
			sum.Add(sum, part)
		}
		for run := range u.Billed() {
			i := 0
			for period.Tiers[i].UpTo != nil && run.Input+run.CacheRead+run.CacheWrite5m+run.CacheWrite1h > *period.Tiers[i].UpTo {
				i++
			}
			rates := period.Tiers[i].Rates
			charge("input", run.Input, new(big.Rat).Mul(factor, fraction(rates.Input)))
			charge("5m", run.CacheWrite5m, new(big.Rat).Mul(factor, fraction(rates.CacheWrite5m)))
			charge("1h", run.CacheWrite1h, new(big.Rat).Mul(factor, fraction(rates.CacheWrite1h)))
			charge("read", run.CacheRead, new(big.Rat).Mul(factor, fraction(rates.CacheRead)))
			charge("output", run.Output, new(big.Rat).Mul(factor, fraction(rates.Output)))
		}
		charge("searches", u.WebSearches, big.NewRat(10_000, 1))

		got := table.Cost(at, Request{Upstream: upstream, Sent: m.ID, Usage: u})
		up := new(big.Rat).Add(sum, big.NewRat(1, 2))
		if want := new(big.Int).Quo(up.Num(), up.Denom()); want.Int64() != got.Total {
			t.Fatalf("%s: %+v, exact %s", m.ID, got, sum.FloatString(6))
		}
		var parts int64
		for class, part := range map[string]int64{
			"input": got.Parts.Input, "5m": got.Parts.CacheWrite5m, "1h": got.Parts.CacheWrite1h, "read": got.Parts.CacheRead,
			"output": got.Parts.Output, "searches": got.Parts.WebSearches,
		} {
			parts += part
			off := new(big.Rat).Sub(big.NewRat(part, 1), exact[class])
			if part < 0 || off.Abs(off).Cmp(big.NewRat(1, 1)) >= 0 {
				t.Fatalf("%s: %d micro-dollars of %s", class, part, exact[class].FloatString(6))
			}
		}
		if parts != got.Total {
			t.Fatalf("the parts of %+v add up to %d", got, parts)
		}
	})
}

// TestMonotone: a token more, of whatever class, never makes a request cheaper; not at the end of a tier either.
func TestMonotone(t *testing.T) {
	table := operated(t)
	rapid.Check(t, func(t *rapid.T) {
		at, r := drawTime(t), drawRequest(t, table)
		near := rapid.SampledFrom([]int64{0, 50_000, 100_000, 200_000, 1_000_000}).Draw(t, "near")
		r.Usage = drawUsage(t, near, 100_000, 10)
		before := table.Cost(at, r)
		u := &r.Usage
		if len(u.Iterations) > 0 {
			u.Iterations = slices.Clone(u.Iterations)
		}
		more := rapid.Int64Range(1, 100_000).Draw(t, "more")
		counts := []*int64{&u.Input, &u.CacheRead, &u.CacheWrite5m, &u.CacheWrite1h, &u.Output, &u.WebSearches}
		for i := range u.Iterations {
			it := &u.Iterations[i]
			counts = append(counts, &it.Input, &it.CacheRead, &it.CacheWrite5m, &it.CacheWrite1h, &it.Output)
		}
		*rapid.SampledFrom(counts).Draw(t, "class") += more
		if after := table.Cost(at, r); after.Total < before.Total {
			t.Fatalf("%d tokens more: %+v, before %+v", more, after, before)
		}
	})
}

// TestUpperBoundHolds: nothing within the bound costs more, whatever the classes, the sampling runs, the place and the model that answers
// where the request does not say one.
func TestUpperBoundHolds(t *testing.T) {
	table := operated(t)
	rapid.Check(t, func(t *rapid.T) {
		at, r := drawTime(t), drawRequest(t, table)
		b := Bound{
			Prompt:    rapid.SampledFrom([]int64{0, 1, 50_000, 50_001, 100_000, 100_001, 200_001, 1 << 50}).Draw(t, "prompt"),
			Output:    rapid.Int64Range(0, 128_000).Draw(t, "output"),
			Fast:      rapid.Bool().Draw(t, "fast"),
			ShortLife: rapid.Bool().Draw(t, "short"),
			GlobalGeo: rapid.Bool().Draw(t, "global"),
		}
		bound := table.UpperBound(at, r, b)
		r.Usage = drawUsage(t, b.Prompt, b.Output, 0)
		if !b.Fast && r.Usage.Speed == "fast" {
			r.Usage.Speed = "standard"
		}
		if b.GlobalGeo && r.Usage.InferenceGeo != "" {
			r.Usage.InferenceGeo = "global"
		}
		if b.ShortLife {
			r.Usage.CacheWrite1h = 0
			for i := range r.Usage.Iterations {
				r.Usage.Iterations[i].CacheWrite1h = 0
			}
		}
		if table.place(r.Upstream, [3]string{r.Sent, r.Asked}) == nil {
			r.Served = drawRequest(t, table).Asked
		} else if rapid.Bool().Draw(t, "named") {
			r.Served = r.Asked
		}
		if cost := table.Cost(at, r); cost.Total > bound {
			t.Fatalf("bound %d of %+v, cost %+v", bound, b, cost)
		}
	})
}

// TestOrderMeansNothing: neither that of the published document nor that of the operator's lists.
func TestOrderMeansNothing(t *testing.T) {
	table := operated(t)
	rapid.Check(t, func(t *rapid.T) {
		var document map[string]any
		if err := json.Unmarshal(publishedJSON, &document); err != nil {
			t.Fatal(err)
		}
		models := shuffled(t, document["models"])
		for _, m := range models {
			m := m.(map[string]any)
			periods := shuffled(t, m["periods"])
			for _, p := range periods {
				p := p.(map[string]any)
				p["tiers"] = shuffled(t, p["tiers"])
			}
			m["periods"] = periods
		}
		document["models"] = models
		mixed, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		o := operator()
		o.Models = rapid.Permutation(o.Models).Draw(t, "models")
		o.Discounts = rapid.Permutation(o.Discounts).Draw(t, "discounts")
		other, err := build(mixed, o)
		if err != nil {
			t.Fatal(err)
		}
		at, r := drawTime(t), drawRequest(t, table)
		r.Usage = drawUsage(t, 300_000, 10_000, 2)
		if a, b := table.Cost(at, r), other.Cost(at, r); a != b {
			t.Fatalf("%+v, in another order %+v", a, b)
		}
		b := Bound{Prompt: 300_000, Output: 10_000}
		if a, b := table.UpperBound(at, r, b), other.UpperBound(at, r, b); a != b {
			t.Fatalf("bound %d, in another order %d", a, b)
		}
	})
}

func shuffled(t *rapid.T, list any) []any {
	return rapid.Permutation(list.([]any)).Draw(t, "order")
}

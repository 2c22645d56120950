package price

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"carpool/internal/anthropic"
)

// Provider is the kind of an upstream, as far as it matters for prices.
type Provider string

// The providers. Any other one is priced like Anthropic.
const (
	Anthropic Provider = "anthropic" // the Claude API and whatever speaks like it
	AWS       Provider = "aws"       // Claude Platform on AWS
	Bedrock   Provider = "bedrock"
	Vertex    Provider = "vertex"
	Foundry   Provider = "foundry"
)

// Global is the Location of an endpoint that is served from anywhere.
const Global = "global"

// Request is what decides the price of an exchange: where it ran, which model answered, and what it used.
type Request struct {
	Provider Provider
	Upstream string // its name, by which the operator's prices know it
	// Location is where the endpoint is, as configured: a region of Bedrock or Vertex, the data zone of a Foundry deployment, or Global. On
	// Bedrock and Vertex an empty one is not global. Ids of Bedrock's global profiles say it themselves.
	Location string

	// The model as the answer names it, as it was sent to the upstream, and as the client asked for it. The first that names a model decides;
	// a deployment's name or an opaque ARN does not. Any may be empty.
	Served, Sent, Asked string

	// Usage is what the exchange is settled with. A refusal before any output costs nothing and has an empty one.
	Usage anthropic.Usage
}

// As is the request as if the given model had run all of it, in the same place and at standard speed: what would it have cost? An id that
// ends in -fast asks for fast mode.
func (r Request) As(id string) Request {
	if isGlobal(r.Sent) {
		r.Location = Global
	}
	r.Served, r.Sent, r.Asked = id, id, id
	r.Usage.Speed = ""
	runs := append([]anthropic.Iteration(nil), r.Usage.Iterations...)
	for i := range runs {
		runs[i].Model = ""
	}
	r.Usage.Iterations = runs
	return r
}

// MaxCost is the most that one exchange costs: a million dollars, in micro-dollars. No real one comes near it. A report of usage
// that does is nonsense, and must not make every sum that it is part of nonsense as well.
const MaxCost = 1_000_000_000_000

// Cost is what an exchange costs, in micro-dollars.
type Cost struct {
	Total int64 // rounded half up, once; MaxCost when it is more
	Parts Parts
	// Unpriced says that some of it has no published or configured price and was charged by a rule of its own, which Rule names.
	Unpriced bool
	// Rule says for people which prices these are: "claude-opus-5 since 2026-07-24, fast ×2".
	Rule string
}

// Parts divides a Cost by class. They add up to its Total exactly; each is less than a micro-dollar away from its own exact value.
type Parts struct {
	Input, CacheWrite5m, CacheWrite1h, CacheRead, Output, WebSearches int64
}

// Cost prices an exchange at an instant, which should be its start: the price that held when it was admitted is the one it has, also when
// another begins before it ends. A response of several sampling runs is the sum of them, each at its own model's rates and its own size of
// prompt.
func (t *Table) Cost(at time.Time, r Request) Cost {
	var b bill
	s := t.settings(&r)
	for run := range r.Usage.Billed() {
		s.own = run.Model == "" || run.Model == r.Served || run.Model == r.Sent || run.Model == r.Asked
		ids := r.ids(run.Model)
		m := t.place(r.Upstream, ids)
		x := t.terms(at, &r, m, prompt(run), s)
		if m == nil {
			x.what = "unknown model " + strconv.Quote(cmp.Or(ids[0], ids[1], ids[2])) + x.what
		}
		b.add(run, x)
	}
	b.sums[webSearches] = product(r.Usage.WebSearches, t.webSearch, yoctoPerPico)
	return b.cost()
}

// Free reports whether nothing was used that has a price.
func (r Request) Free() bool {
	if r.Usage.WebSearches > 0 {
		return false
	}
	for run := range r.Usage.Billed() {
		if prompt(run) > 0 || run.Output > 0 {
			return false
		}
	}
	return true
}

// Uncached is the request as if nothing had been cached: reads and writes are plain input. cached reports whether that changes anything.
func (r Request) Uncached() (plain Request, cached bool) {
	u := &r.Usage
	u.Iterations = slices.Clone(u.Iterations)
	uncache := func(input, read, write5m, write1h *int64) {
		if *read > 0 || *write5m > 0 || *write1h > 0 {
			cached = true
			*input = prompt(anthropic.Iteration{Input: *input, CacheRead: *read, CacheWrite5m: *write5m, CacheWrite1h: *write1h})
			*read, *write5m, *write1h = 0, 0, 0
		}
	}
	uncache(&u.Input, &u.CacheRead, &u.CacheWrite5m, &u.CacheWrite1h)
	for i := range u.Iterations {
		it := &u.Iterations[i]
		uncache(&it.Input, &it.CacheRead, &it.CacheWrite5m, &it.CacheWrite1h)
	}
	return r, cached
}

// ids are the names under which the model of a sampling run is looked up, in this order.
func (r *Request) ids(run string) [3]string {
	switch {
	case run == r.Served, run == "" && len(r.Usage.Iterations) == 0:
		return [3]string{r.Served, r.Sent, r.Asked}
	case run == "", run == r.Sent, run == r.Asked: // the requested model; another may have served in its place
		return [3]string{r.Sent, r.Asked, r.Served}
	}
	return [3]string{run}
}

// prompt is the size of a run's prompt, by which its tier is chosen.
func prompt(run anthropic.Iteration) int64 {
	sum := int64(0)
	for _, n := range [...]int64{run.Input, run.CacheRead, run.CacheWrite5m, run.CacheWrite1h} {
		if sum += max(n, 0); sum < 0 {
			return math.MaxInt64
		}
	}
	return sum
}

// The classes of a bill.
const (
	input = iota
	cacheWrite5m
	cacheWrite1h
	cacheRead
	output
	webSearches
	classes
)

// bill adds up sampling runs.
type bill struct {
	sums     [classes]amount
	unpriced bool
	rule     string
	others   []string
}

func (b *bill) add(run anthropic.Iteration, x terms) {
	factor := x.product()
	for class, p := range [...]struct {
		tokens int64
		rate   uint64
	}{
		input:        {run.Input, x.input},
		cacheWrite5m: {run.CacheWrite5m, x.cacheWrite5m},
		cacheWrite1h: {run.CacheWrite1h, x.cacheWrite1h},
		cacheRead:    {run.CacheRead, x.cacheRead},
		output:       {run.Output, x.output},
	} {
		b.sums[class] = b.sums[class].plus(product(p.tokens, p.rate, factor))
	}
	b.unpriced = b.unpriced || x.unpriced
	switch rule := x.what + x.applied(); {
	case b.rule == "":
		b.rule = rule
	case rule != b.rule && !slices.Contains(b.others, rule):
		b.others = append(b.others, rule)
	}
}

// cost rounds the sum. Each part is what the rounded sum grows by with it, so that parts add up.
func (b *bill) cost() Cost {
	c := Cost{Unpriced: b.unpriced, Rule: b.rule}
	for _, rule := range b.others {
		c.Rule += "; " + rule
	}
	var sum amount
	var parts [classes]int64
	for class, a := range b.sums {
		sum = sum.plus(a)
		total := min(sum.micro(), MaxCost)
		parts[class] = total - c.Total
		c.Total = total
	}
	c.Parts = Parts{parts[input], parts[cacheWrite5m], parts[cacheWrite1h], parts[cacheRead], parts[output], parts[webSearches]}
	return c
}

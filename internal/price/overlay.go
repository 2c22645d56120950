package price

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Overlay is what an operator says about prices: the configuration's section "prices". Numbers are kept as they are written, because a
// float could not hold them. The order of the lists has no meaning.
type Overlay struct {
	Models      []Rates     `json:"models,omitempty"`      // of models that are not in the table, or instead of what is there
	Discounts   []Discount  `json:"discounts,omitempty"`   // on whole upstreams
	Unknown     *Rates      `json:"unknown,omitempty"`     // of models without any price; only the five rates
	WebSearches json.Number `json:"webSearches,omitempty"` // dollars per 1 000
}

// Rates are a model's prices in dollars per million tokens, with at most four decimal places. Cache rates that are absent follow from the
// input rate by the standard factors: 0.1 for reads, 1.25 for five-minute and 2 for one-hour writes.
type Rates struct {
	// Model is an id as it is sent or answered, or its part without region, vendor, date and version. It is the exact id that counts
	// first: a row for eu.anthropic.claude-opus-5 is for that one alone.
	Model string `json:"model,omitempty"`
	// Upstream makes them the rates agreed for one upstream. They are final: no discount, no premium for a regional endpoint.
	Upstream string `json:"upstream,omitempty"`
	From     string `json:"from,omitempty"` // first day, UTC, as 2026-12-01; absent: always. They hold until a later row of the same model
	UpTo     int64  `json:"upTo,omitempty"` // only for prompts of up to so many tokens; another row without it has the rest

	Input        json.Number `json:"input"`
	Output       json.Number `json:"output"`
	CacheRead    json.Number `json:"cacheRead,omitempty"`
	CacheWrite5m json.Number `json:"cacheWrite5m,omitempty"`
	CacheWrite1h json.Number `json:"cacheWrite1h,omitempty"`
	Fast         json.Number `json:"fast,omitempty"` // factor of fast mode; absent: as published for the model
}

// Discount multiplies the price of all tokens of an upstream, except what Rates name for it.
type Discount struct {
	Upstream   string      `json:"upstream"`
	From       string      `json:"from,omitempty"` // first day, UTC, as 2026-12-01; absent: always
	Multiplier json.Number `json:"multiplier"`     // 0.85 takes off 15 %; above 0, at most 10, four decimal places
}

// Upstreams returns the upstreams that an Overlay names, in order.
func (o Overlay) Upstreams() []string {
	var names []string
	for _, r := range o.Models {
		names = append(names, r.Upstream)
	}
	for _, d := range o.Discounts {
		names = append(names, d.Upstream)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// Problem is one thing wrong with an Overlay.
type Problem struct {
	Key     string // prices.models[2].input
	Message string
}

// Problems is everything wrong with an Overlay, as an error.
type Problems []Problem

// Error implements error: a line for each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Key + ": " + one.Message
	}
	return strings.Join(lines, "\n")
}

const (
	maxRate   = 100_000 // dollars per million tokens
	fullPrice = 10_000  // a discount's multiplier of 1

	// picoPerRate is the pico-dollars per token in the least rate that can be configured, a ten-thousandth of a dollar per million tokens.
	// It is divisible by what the standard cache rates divide by.
	picoPerRate = 100
)

// changes is an Overlay as numbers.
type changes struct {
	models    map[string]map[string][]row // by upstream ("" for all), then by model
	discounts map[string][]discount       // by upstream, ascending by from
	unknown   *rates
	webSearch *uint64

	problems Problems
}

type discount struct {
	from   time.Time
	factor uint64 // in ten-thousandths
}

func (c *changes) problem(key, format string, args ...any) {
	c.problems = append(c.problems, Problem{"prices." + key, fmt.Sprintf(format, args...)})
}

// read makes numbers of an Overlay. canonical gives a published model's id for each of its names.
func (o Overlay) read(canonical func(string) string) *changes {
	c := &changes{models: map[string]map[string][]row{}, discounts: map[string][]discount{}}
	c.readModels(o.Models, canonical)
	c.readDiscounts(o.Discounts)
	if u := o.Unknown; u != nil {
		if u.Model+u.Upstream+u.From+string(u.Fast) != "" || u.UpTo != 0 {
			c.problem("unknown", "takes rates only: input, output, cacheRead, cacheWrite5m, cacheWrite1h")
		}
		r := c.rates("unknown", *u)
		c.unknown = &r
	}
	if o.WebSearches != "" {
		n, _ := c.number("webSearches", o.WebSearches, 4, maxRate)
		n *= 100_000 // pico-dollars for one in a ten-thousandth of a dollar for a thousand
		c.webSearch = &n
	}
	return c
}

// stated is a tier and where it stands: in the configuration and in time.
type stated struct {
	key             string // models[2]
	upstream, model string
	from            time.Time
	tier
}

func (c *changes) readModels(models []Rates, canonical func(string) string) {
	var list []stated
	for i, r := range models {
		p := stated{key: "models[" + strconv.Itoa(i) + "]", upstream: r.Upstream, model: canonical(strings.ToLower(r.Model))}
		switch {
		case r.Model == "":
			c.problem(p.key+".model", "is missing: name the model")
		case len(r.Model) > 256 || strings.ContainsFunc(r.Model, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) || c == '*' }):
			c.problem(p.key+".model", "must be the id of one model, without spaces or *")
		}
		p.from = c.day(p.key+".from", r.From)
		p.upTo = r.UpTo
		switch {
		case r.UpTo < 0:
			c.problem(p.key+".upTo", "must be a number of tokens above 0")
		case r.UpTo == 0:
			p.upTo = math.MaxInt64
		}
		p.rates = c.rates(p.key, r)
		if r.Fast != "" {
			var ok bool
			if p.fast, ok = c.number(p.key+".fast", r.Fast, 2, 100); ok && p.fast < one {
				c.problem(p.key+".fast", "must be 1 or more (found %q)", string(r.Fast))
			}
		}
		list = append(list, p)
	}
	slices.SortStableFunc(list, func(a, b stated) int {
		return cmp.Or(strings.Compare(a.upstream, b.upstream), strings.Compare(a.model, b.model), a.from.Compare(b.from), cmp.Compare(a.upTo, b.upTo))
	})
	for len(list) > 0 {
		first := list[0]
		n := slices.IndexFunc(list, func(p stated) bool {
			return p.upstream != first.upstream || p.model != first.model || !p.from.Equal(first.from)
		})
		if n < 0 {
			n = len(list)
		}
		c.readRow(list[:n])
		list = list[n:]
	}
}

// readRow makes one row of the sorted tiers of one model from one day on.
func (c *changes) readRow(tiers []stated) {
	first, last := tiers[0], tiers[len(tiers)-1]
	r := row{from: first.from, negotiated: first.upstream != ""}
	for i, p := range tiers {
		if i > 0 {
			before := tiers[i-1]
			switch {
			case p.upTo == before.upTo:
				c.problem(p.key, "gives the same model, day and size of prompt a price as prices.%s does; keep one of them", before.key)
			case !p.noLessThan(before.rates):
				c.problem(p.key, "has a lower rate than prices.%s has for smaller prompts; more tokens must not cost less", before.key)
			case p.fast != before.fast:
				c.problem(p.key+".fast", "must be the same as in prices.%s", before.key)
			}
		}
		r.tiers = append(r.tiers, p.tier)
	}
	if last.upTo != math.MaxInt64 {
		c.problem(last.key+".upTo", "leaves larger prompts without a price; add a row without upTo")
	}
	what := "configured " + first.model
	if first.upstream != "" {
		what += " on " + first.upstream
	}
	r.label(what)
	if c.models[first.upstream] == nil {
		c.models[first.upstream] = map[string][]row{}
	}
	c.models[first.upstream][first.model] = append(c.models[first.upstream][first.model], r)
}

func (c *changes) readDiscounts(list []Discount) {
	for i, d := range list {
		key := "discounts[" + strconv.Itoa(i) + "]"
		if d.Upstream == "" {
			c.problem(key+".upstream", "is missing: name the upstream")
		}
		next := discount{from: c.day(key+".from", d.From)}
		var ok bool
		if next.factor, ok = c.number(key+".multiplier", d.Multiplier, 4, 10); ok && next.factor == 0 {
			c.problem(key+".multiplier", "must be above 0")
		}
		for _, other := range c.discounts[d.Upstream] {
			if other.from.Equal(next.from) {
				c.problem(key, "is a second discount of upstream %q from the same day on; keep one of them", d.Upstream)
			}
		}
		c.discounts[d.Upstream] = append(c.discounts[d.Upstream], next)
	}
	for _, d := range c.discounts {
		slices.SortFunc(d, func(a, b discount) int { return a.from.Compare(b.from) })
	}
}

func (c *changes) rates(key string, from Rates) rates {
	rate := func(name string, n json.Number, standard uint64) uint64 {
		if n == "" && standard != math.MaxUint64 {
			return standard
		}
		v, _ := c.number(key+"."+name, n, 4, maxRate)
		return v * picoPerRate
	}
	input := rate("input", from.Input, math.MaxUint64)
	return rates{
		input:        input,
		output:       rate("output", from.Output, math.MaxUint64),
		cacheRead:    rate("cacheRead", from.CacheRead, input/10),
		cacheWrite5m: rate("cacheWrite5m", from.CacheWrite5m, input/4*5),
		cacheWrite1h: rate("cacheWrite1h", from.CacheWrite1h, input*2),
	}
}

// number reads a number as a whole number of 10^-places.
func (c *changes) number(key string, n json.Number, places int, most uint64) (v uint64, ok bool) {
	if n == "" {
		c.problem(key, "is missing")
		return 0, false
	}
	v, err := decimal(string(n), places)
	limit := most
	for range places {
		limit *= 10
	}
	switch {
	case err != nil:
		c.problem(key, "%v (found %q)", err, string(n))
		return 0, false
	case v > limit:
		c.problem(key, "must be at most %d (found %q)", most, string(n))
		return 0, false
	}
	return v, true
}

func (c *changes) day(key, s string) time.Time {
	if s == "" {
		return always()
	}
	day, err := time.Parse(time.DateOnly, s)
	if err != nil || day.Before(always()) {
		c.problem(key, "must be a day such as 2026-12-01 (found %q)", s)
		return always()
	}
	return day
}

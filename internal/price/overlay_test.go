package price_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

func TestOverlay(t *testing.T) {
	prices := table(t, price.Overlay{
		Models: []price.Rates{
			// A model that is not published, with what follows from its input rate, and a new price from a day on.
			{Model: "Claude-Opus-6", Input: "6", Output: "30"},
			{Model: "claude-opus-6", From: "2026-12-01", Input: "5", Output: "20", CacheRead: "0.25", CacheWrite5m: "6", CacheWrite1h: "8", Fast: "1.5"},
			// Instead of a published price, from a day on, under all of the model's names.
			{Model: "claude-opus-4-0", From: "2026-12-01", Input: "12", Output: "60"},
			// One id only.
			{Model: "eu.anthropic.claude-opus-4-8", Input: "5.5", Output: "27.5"},
			// Tiers.
			{Model: "glm-4.6", UpTo: 1000, Input: "0.6", Output: "2.2"},
			{Model: "glm-4.6", Input: "1.2", Output: "4.4"},
			// Agreed for one upstream.
			{Model: "claude-sonnet-5", Upstream: "big", From: "2026-11-01", Input: "1.5", Output: "7.5"},
			{Model: "arn:aws:bedrock:us-east-1:1:application-inference-profile/x1", Upstream: "big", Input: "1", Output: "2"},
			{Model: "claude-opus-5-5", Upstream: "parts", Input: "3", Output: "15"},
			{Model: "eu.anthropic.claude-opus-5-5", Upstream: "parts", From: "2026-12-01", Input: "3.5", Output: "17.5"},
			{Model: "claude-opus-5-5", Upstream: "dear", Input: "200", Output: "1000"},
			// Of one's own machines.
			{Model: "local", Input: "0", Output: "0"},
		},
		Discounts: []price.Discount{
			{Upstream: "big", Multiplier: "0.9"},
			{Upstream: "big", From: "2026-12-01", Multiplier: "0.8333"},
		},
		Unknown:     &price.Rates{Input: "20", Output: "100"},
		WebSearches: "12.5",
	})
	for _, c := range []struct {
		why      string
		at       string
		request  price.Request
		want     price.Parts
		unpriced bool
		rule     string
	}{
		{
			"added", "2026-11-23",
			price.Request{Sent: "us.anthropic.claude-opus-6-v1:0", Usage: each(1000)},
			price.Parts{Input: 6000, CacheWrite5m: 7500, CacheWrite1h: 12000, CacheRead: 600, Output: 30000},
			false, "configured claude-opus-6",
		},
		{
			"changed", "2026-12-01",
			price.Request{Sent: "claude-opus-6", Usage: each(1000)},
			price.Parts{Input: 5000, CacheWrite5m: 6000, CacheWrite1h: 8000, CacheRead: 250, Output: 20000},
			false, "configured claude-opus-6 since 2026-12-01",
		},
		{
			"its fast mode", "2026-12-01",
			price.Request{Sent: "claude-opus-6", Usage: anthropic.Usage{Input: 1000, Speed: "fast"}},
			price.Parts{Input: 7500},
			false, "configured claude-opus-6 since 2026-12-01, fast ×1.5",
		},
		{
			"fast mode without a price", "2026-11-23",
			price.Request{Sent: "claude-opus-6", Usage: anthropic.Usage{Input: 1000, Speed: "fast"}},
			price.Parts{Input: 12000},
			true, "configured claude-opus-6, no price of its fast mode is known, fast ×2",
		},
		{
			"a new Claude has the premiums of its generation", "2026-11-23",
			price.Request{Provider: price.Vertex, Sent: "claude-opus-6", Usage: each(1000)},
			price.Parts{Input: 6600, CacheWrite5m: 8250, CacheWrite1h: 13200, CacheRead: 660, Output: 33000},
			false, "configured claude-opus-6, regional endpoint ×1.1",
		},
		{
			"published until then", "2026-11-30",
			price.Request{Sent: "claude-opus-4-20250514", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 15000},
			false, "claude-opus-4",
		},
		{
			"overridden from then on", "2026-12-01",
			price.Request{Sent: "claude-opus-4-20250514", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 12000},
			false, "configured claude-opus-4 since 2026-12-01",
		},
		{
			"under all names", "2026-12-01",
			price.Request{Sent: "claude-opus-4-0", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 12000},
			false, "configured claude-opus-4 since 2026-12-01",
		},
		{
			"a longer id, agreed later", "2026-12-01",
			price.Request{Upstream: "parts", Sent: "eu.anthropic.claude-opus-5-5", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 3500},
			false, "configured eu.anthropic.claude-opus-5-5 on parts since 2026-12-01",
		},
		{
			"and until then as the shorter one", "2026-11-30",
			price.Request{Upstream: "parts", Sent: "eu.anthropic.claude-opus-5-5", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 3000},
			false, "configured claude-opus-5-5 on parts",
		},
		{
			"one id", "2026-11-23",
			price.Request{Sent: "eu.anthropic.claude-opus-4-8", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 5500},
			false, "configured eu.anthropic.claude-opus-4-8",
		},
		{
			"its fast mode is that of the model", "2026-11-23",
			price.Request{Sent: "eu.anthropic.claude-opus-4-8", Usage: anthropic.Usage{Input: 1000, Speed: "fast"}},
			price.Parts{Input: 11000},
			false, "configured eu.anthropic.claude-opus-4-8, fast ×2",
		},
		{
			"and no other", "2026-11-23",
			price.Request{Sent: "us.anthropic.claude-opus-4-8", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 5000},
			false, "claude-opus-4-8",
		},
		{
			"at the tier", "2026-11-23",
			price.Request{Sent: "z-ai/glm-4.6", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 600},
			false, "configured glm-4.6, prompt up to 1000",
		},
		{
			"above the tier", "2026-11-23",
			price.Request{Sent: "z-ai/glm-4.6", Usage: anthropic.Usage{Input: 1000, CacheRead: 100}},
			price.Parts{Input: 1200, CacheRead: 12},
			false, "configured glm-4.6, prompt above 1000",
		},
		{
			"no premium on what is not Claude", "2026-11-23",
			price.Request{Provider: price.Vertex, Sent: "glm-4.6", Usage: anthropic.Usage{Input: 1000, InferenceGeo: "us"}},
			price.Parts{Input: 600},
			false, "configured glm-4.6, prompt up to 1000",
		},
		{
			"discount", "2026-11-30",
			price.Request{Upstream: "big", Sent: "claude-opus-5", Usage: anthropic.Usage{Input: 1000, WebSearches: 2}},
			price.Parts{Input: 4500, WebSearches: 25000},
			false, "claude-opus-5 since 2026-07-24, upstream's multiplier ×0.9",
		},
		{
			"next discount", "2026-12-01",
			price.Request{Upstream: "big", Sent: "claude-opus-5", Usage: anthropic.Usage{Input: 10000}},
			price.Parts{Input: 41665},
			false, "claude-opus-5 since 2026-07-24, upstream's multiplier ×0.8333",
		},
		{
			"no discount elsewhere", "2026-12-01",
			price.Request{Upstream: "small", Sent: "claude-opus-5", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 5000},
			false, "claude-opus-5 since 2026-07-24",
		},
		{
			"agreed rates are final", "2026-11-23",
			price.Request{Upstream: "big", Provider: price.Bedrock, Sent: "eu.anthropic.claude-sonnet-5", Usage: each(1000)},
			price.Parts{Input: 1500, CacheWrite5m: 1875, CacheWrite1h: 3000, CacheRead: 150, Output: 7500},
			false, "configured claude-sonnet-5 on big since 2026-11-01",
		},
		{
			"agreed rates, batch, in the US", "2026-11-23",
			price.Request{Upstream: "big", Sent: "claude-sonnet-5", Usage: anthropic.Usage{Input: 1000, ServiceTier: "batch", InferenceGeo: "us"}},
			price.Parts{Input: 825},
			false, "configured claude-sonnet-5 on big since 2026-11-01, batch ×0.5, inference geo ×1.1",
		},
		{
			"agreed rates, US data zone", "2026-11-23",
			price.Request{Upstream: "big", Provider: price.Foundry, Location: "us", Sent: "claude-sonnet-5", Usage: anthropic.Usage{Input: 1000}},
			price.Parts{Input: 1500},
			false, "configured claude-sonnet-5 on big since 2026-11-01",
		},
		{
			"the list before they were agreed", "2026-10-31",
			price.Request{Upstream: "big", Provider: price.Bedrock, Sent: "eu.anthropic.claude-sonnet-5", Usage: anthropic.Usage{Input: 10000}},
			price.Parts{Input: 19800},
			false, "claude-sonnet-5 since 2026-06-30, regional endpoint ×1.1, upstream's multiplier ×0.9",
		},
		{
			"an opaque id with a price", "2026-11-23",
			price.Request{
				Upstream: "big", Provider: price.Bedrock, Sent: "arn:aws:bedrock:us-east-1:1:application-inference-profile/X1", Asked: "claude-opus-5", Usage: anthropic.Usage{Input: 1000},
			},
			price.Parts{Input: 1000},
			false, "configured arn:aws:bedrock:us-east-1:1:application-inference-profile/x1 on big",
		},
		{"free on purpose", "2026-11-23", price.Request{Sent: "local", Usage: each(1000)}, price.Parts{}, false, "configured local"},
		{
			"unknown", "2026-11-23",
			price.Request{Sent: "claude-opus-7", Usage: each(1000)},
			price.Parts{Input: 20000, CacheWrite5m: 25000, CacheWrite1h: 40000, CacheRead: 2000, Output: 100000},
			true, `unknown model "claude-opus-7"`,
		},
	} {
		t.Run(c.why, func(t *testing.T) {
			got := prices.Cost(day(c.at), c.request)
			if got.Parts != c.want || got.Unpriced != c.unpriced || got.Rule != c.rule {
				t.Errorf("%+v\nwant %+v, unpriced %v, %q", got, c.want, c.unpriced, c.rule)
			}
		})
	}

	// What is not known may turn out to be anything that the upstream has.
	if got := prices.UpperBound(autumn, price.Request{Upstream: "dear", Sent: "prod"}, price.Bound{Prompt: 1000, Output: 1000, GlobalGeo: true}); got != 400000+1000000 {
		t.Errorf("upper bound %d", got)
	}
}

// TestOverlayProblems: all of them at once, each with its key.
func TestOverlayProblems(t *testing.T) {
	good := price.Rates{Model: "m", Input: "1", Output: "2"}
	change := func(f func(*price.Rates)) price.Overlay {
		r := good
		f(&r)
		return price.Overlay{Models: []price.Rates{{Model: "other", Input: "1", Output: "1"}, r}}
	}
	both := func(f func(*price.Rates)) price.Overlay {
		r := good
		f(&r)
		return price.Overlay{Models: []price.Rates{good, r}}
	}
	for _, c := range []struct {
		why  string
		o    price.Overlay
		want string
	}{
		{"no model", change(func(r *price.Rates) { r.Model = "" }), "prices.models[1].model: is missing: name the model"},
		{"pattern", change(func(r *price.Rates) { r.Model = "claude-*" }), "prices.models[1].model: must be the id of one model, without spaces or *"},
		{"no input", change(func(r *price.Rates) { r.Input = "" }), "prices.models[1].input: is missing"},
		{"no output", change(func(r *price.Rates) { r.Output = "" }), "prices.models[1].output: is missing"},
		{"negative", change(func(r *price.Rates) { r.Output = "-1" }), `prices.models[1].output: must not be negative (found "-1")`},
		{"too fine", change(func(r *price.Rates) { r.CacheRead = "0.00001" }), `prices.models[1].cacheRead: must have at most 4 decimal places (found "0.00001")`},
		{"too dear", change(func(r *price.Rates) { r.CacheWrite5m = "100000.1" }), `prices.models[1].cacheWrite5m: must be at most 100000 (found "100000.1")`},
		{"far too dear", change(func(r *price.Rates) { r.CacheWrite1h = "99999999999999999999" }), `prices.models[1].cacheWrite1h: is too large (found "99999999999999999999")`},
		{"exponent", change(func(r *price.Rates) { r.Input = "1e1" }), `prices.models[1].input: must be a decimal number such as 5 or 0.25 (found "1e1")`},
		{"no number", change(func(r *price.Rates) { r.Input = "1." }), `prices.models[1].input: must be a decimal number such as 5 or 0.25 (found "1.")`},
		{"cheaper when fast", change(func(r *price.Rates) { r.Fast = "0.5" }), `prices.models[1].fast: must be 1 or more (found "0.5")`},
		{"no day", change(func(r *price.Rates) { r.From = "2026-13-01" }), `prices.models[1].from: must be a day such as 2026-12-01 (found "2026-13-01")`},
		{"negative size", change(func(r *price.Rates) { r.UpTo = -1 }), "prices.models[1].upTo: must be a number of tokens above 0\nprices.models[1].upTo: leaves larger prompts without a price; add a row without upTo"},
		{"no rest", change(func(r *price.Rates) { r.UpTo = 5 }), "prices.models[1].upTo: leaves larger prompts without a price; add a row without upTo"},
		{"twice", both(func(r *price.Rates) { r.Model = "M" }), "prices.models[1]: gives the same model, day and size of prompt a price as prices.models[0] does; keep one of them"},
		{
			"twice under two names",
			price.Overlay{Models: []price.Rates{{Model: "claude-opus-4", Input: "1", Output: "1"}, {Model: "claude-opus-4-0", Input: "1", Output: "1"}}},
			"prices.models[1]: gives the same model, day and size of prompt a price as prices.models[0] does; keep one of them",
		},
		{"falling", both(func(r *price.Rates) { r.UpTo, r.Output = 5, "3" }), "prices.models[0]: has a lower rate than prices.models[1] has for smaller prompts; more tokens must not cost less"},
		{"two fast modes", both(func(r *price.Rates) { r.UpTo, r.Fast = 5, "3" }), "prices.models[0].fast: must be the same as in prices.models[1]"},
		{"no upstream", price.Overlay{Discounts: []price.Discount{{Multiplier: "1"}}}, "prices.discounts[0].upstream: is missing: name the upstream"},
		{"no multiplier", price.Overlay{Discounts: []price.Discount{{Upstream: "a"}}}, "prices.discounts[0].multiplier: is missing"},
		{"for nothing", price.Overlay{Discounts: []price.Discount{{Upstream: "a", Multiplier: "0.0"}}}, "prices.discounts[0].multiplier: must be above 0"},
		{"too much", price.Overlay{Discounts: []price.Discount{{Upstream: "a", Multiplier: "10.0001"}}}, `prices.discounts[0].multiplier: must be at most 10 (found "10.0001")`},
		{"two discounts", price.Overlay{Discounts: []price.Discount{{Upstream: "a", Multiplier: "1"}, {Upstream: "a", Multiplier: "2"}}}, `prices.discounts[1]: is a second discount of upstream "a" from the same day on; keep one of them`},
		{"unknown with a name", price.Overlay{Unknown: &good}, "prices.unknown: takes rates only: input, output, cacheRead, cacheWrite5m, cacheWrite1h"},
		{"searches", price.Overlay{WebSearches: "x"}, `prices.webSearches: must be a decimal number such as 5 or 0.25 (found "x")`},
		{
			"several",
			price.Overlay{Models: []price.Rates{{Input: "x", Output: "1"}}, WebSearches: "-1"},
			"prices.models[0].model: is missing: name the model\nprices.models[0].input: must be a decimal number such as 5 or 0.25 (found \"x\")\nprices.webSearches: must not be negative (found \"-1\")",
		},
	} {
		t.Run(c.why, func(t *testing.T) {
			_, err := price.New(c.o)
			problems, ok := errors.AsType[price.Problems](err)
			if !ok || err.Error() != c.want || len(problems) != 1+strings.Count(c.want, "\n") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

// TestKnows: what is published, or the operator's, in any of the forms that ids have; and nothing that merely looks like it.
func TestKnows(t *testing.T) {
	prices := table(t, price.Overlay{Models: []price.Rates{
		{Model: "house-model", Input: "1", Output: "2"}, {Model: "agreed-model", Upstream: "a", Input: "1", Output: "2"},
	}})
	for id, want := range map[string]bool{
		"claude-opus-5": true, "us.anthropic.claude-sonnet-4-5-20250929-v1:0": true, "house-model": true, "agreed-model": true,
		"claude-sonet-5": false, "other": false, "": false,
	} {
		if prices.Knows(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
	models := prices.Models()
	for _, id := range models {
		if !prices.Knows(id) {
			t.Errorf("%q is listed and not known", id)
		}
	}
	for _, id := range []string{"claude-opus-5", "house-model", "agreed-model"} {
		if !slices.Contains(models, id) {
			t.Errorf("%q is not listed", id)
		}
	}
}

// TestVersion: other prices, another version; the same prices, the same.
func TestVersion(t *testing.T) {
	o := price.Overlay{Models: []price.Rates{{Model: "m", Input: "1", Output: "2"}}}
	plain, own, again := table(t, price.Overlay{}).Version(), table(t, o).Version(), table(t, o).Version()
	if plain == own || own != again || !strings.HasPrefix(plain, "2026-11-23-") {
		t.Errorf("%s, %s, %s", plain, own, again)
	}
}

// TestOverlayAsJSON: numbers survive as they were written, also on their way to a node.
func TestOverlayAsJSON(t *testing.T) {
	const document = `{"models":[{"model":"m","upTo":5,"input":0.1,"output":0.30},{"model":"m","input":0.1,"output":0.3}],"discounts":[{"upstream":"u","multiplier":0.8333}],"unknown":{"input":7,"output":9.9999},"webSearches":10}`
	var o price.Overlay
	if err := json.Unmarshal([]byte(document), &o); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(o); err != nil || string(got) != document {
		t.Errorf("%s, %v", got, err)
	}
	table(t, o)
}

func TestOverlayNamesUpstreams(t *testing.T) {
	o := price.Overlay{
		Models:    []price.Rates{{Model: "m", Upstream: "b"}, {Model: "m"}, {Model: "n", Upstream: "b"}},
		Discounts: []price.Discount{{Upstream: "c"}, {Upstream: "a"}},
	}
	if got := strings.Join(o.Upstreams(), " "); got != "a b c" {
		t.Error(got)
	}
}

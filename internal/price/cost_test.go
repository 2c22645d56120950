package price_test

import (
	"math"
	"testing"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

// TestCost has what the published rules say, worked out by hand in micro-dollars.
func TestCost(t *testing.T) {
	prices := table(t, price.Overlay{})
	run := func(kind, model string, input, output int64) anthropic.Iteration {
		return anthropic.Iteration{Type: kind, Model: model, Input: input, Output: output}
	}
	thousand := anthropic.Usage{Input: 1000, Output: 1000}
	said := func(u anthropic.Usage, tier, geo, speed string) anthropic.Usage {
		u.ServiceTier, u.InferenceGeo, u.Speed = tier, geo, speed
		return u
	}
	for _, c := range []struct {
		why      string
		at       string
		request  price.Request
		total    int64
		unpriced bool
		rule     string
	}{
		// One write of 148 tokens for five minutes (×1.25) and one of 100 for an hour (×2).
		{
			"mixed cache writes", "2026-11-23",
			price.Request{Sent: "claude-opus-5", Usage: anthropic.Usage{CacheWrite5m: 148, CacheWrite1h: 100}},
			925 + 1000, false, "claude-opus-5 since 2026-07-24",
		},
		// 412 + 1 348 input, 412 read and 89 + 442 output at 3/0.30/15; 823/1 612 of the advisor at 5/25. 57 783.6 are rounded once.
		{
			"advisor", "2026-11-23", price.Request{Served: "claude-sonnet-4-6", Sent: "claude-sonnet-4-6", Usage: anthropic.Usage{
				Input: 1760, CacheRead: 412, Output: 531, Iterations: []anthropic.Iteration{
					run("message", "claude-sonnet-4-6", 412, 89), run("advisor_message", "claude-opus-4-6", 823, 1612),
					{Type: "message", Model: "claude-sonnet-4-6", Input: 1348, CacheRead: 412, Output: 442},
				},
			}}, 57784, false, "claude-sonnet-4-6 since 2026-03-13; claude-opus-4-6 since 2026-03-13",
		},
		{
			"compaction", "2026-11-23", price.Request{Sent: "claude-opus-4-6", Usage: anthropic.Usage{
				Input: 23000, Output: 1000, Iterations: []anthropic.Iteration{run("compaction", "", 180000, 3500), run("message", "", 23000, 1000)},
			}}, 203000*5 + 4500*25, false, "claude-opus-4-6 since 2026-03-13",
		},
		{
			"declined and fallen back", "2026-11-23", price.Request{Served: "claude-opus-4-8", Sent: "claude-fable-5", Usage: anthropic.Usage{
				Input: 412, Output: 264, Iterations: []anthropic.Iteration{
					run("message", "claude-fable-5", 535, 0), run("fallback_message", "claude-opus-4-8", 412, 264),
				},
			}}, 412*5 + 264*25, false, "claude-opus-4-8",
		},
		{
			"declined in the middle", "2026-11-23", price.Request{Served: "claude-opus-4-8", Sent: "claude-fable-5", Usage: anthropic.Usage{
				Input: 412, Output: 264, Iterations: []anthropic.Iteration{
					run("message", "", 535, 10), run("fallback_message", "claude-opus-4-8", 412, 264),
				},
			}}, 535*10 + 10*50 + 412*5 + 264*25, false, "claude-fable-5 since 2026-06-09; claude-opus-4-8",
		},
		{
			"a run that bears a deployment's name", "2026-11-23", price.Request{Served: "claude-opus-5", Sent: "prod", Usage: anthropic.Usage{
				Iterations: []anthropic.Iteration{run("message", "prod", 1000, 0), run("message", "other", 1000, 0)},
			}}, 5000 + 5000, true, `claude-opus-5 since 2026-07-24; unknown model "other"`,
		},
		{
			"a run that bears a deployment's name, which was asked for by its own", "2026-11-23", price.Request{Sent: "prod", Asked: "claude-sonnet-5", Usage: anthropic.Usage{
				Iterations: []anthropic.Iteration{run("message", "prod", 1000, 0)},
			}}, 2000, false, "claude-sonnet-5 since 2026-06-30",
		},
		{
			"a tier is chosen by each run's own prompt", "2026-11-23", price.Request{Sent: "claude-haiku-5-5", Usage: anthropic.Usage{
				Iterations: []anthropic.Iteration{run("compaction", "", 100001, 1000), run("message", "", 100000, 1000)},
			}}, 50001 + 2500 + 10000 + 500, false, "claude-haiku-5-5 since 2026-10-07, prompt above 100000; claude-haiku-5-5 since 2026-10-07, prompt up to 100000",
		},
		{"at the tier", "2026-11-23", price.Request{Sent: "claude-haiku-5-5", Usage: anthropic.Usage{Input: 40000, CacheRead: 30000, CacheWrite5m: 20000, CacheWrite1h: 10000, Output: 1000}}, 4000 + 300 + 2500 + 2000 + 500, false, "claude-haiku-5-5 since 2026-10-07, prompt up to 100000"},
		{"above the tier", "2026-11-23", price.Request{Sent: "claude-haiku-5-5", Usage: anthropic.Usage{Input: 40001, CacheRead: 30000, CacheWrite5m: 20000, CacheWrite1h: 10000, Output: 1000}}, 20001 + 1500 + 12500 + 10000 + 2500, false, "claude-haiku-5-5 since 2026-10-07, prompt above 100000"},
		{"output does not choose the tier", "2026-11-23", price.Request{Sent: "claude-haiku-5-5", Usage: anthropic.Usage{Output: 200000}}, 100000, false, "claude-haiku-5-5 since 2026-10-07, prompt up to 100000"},

		{"fast", "2026-11-23", price.Request{Sent: "claude-opus-5-5", Usage: said(each(1000), "", "", "fast")}, 2 * 37200, false, "claude-opus-5-5 since 2026-09-22, fast ×2"},
		{"fast deployment", "2026-11-23", price.Request{Provider: price.Foundry, Sent: "claude-opus-5-fast", Served: "claude-opus-5", Usage: thousand}, 60000, false, "claude-opus-5 since 2026-07-24, fast ×2"},
		{"fast and not so called", "2026-11-23", price.Request{Sent: "team-fast", Served: "claude-opus-5", Usage: thousand}, 30000, false, "claude-opus-5 since 2026-07-24"},
		{"fast on its last day", "2026-11-30", price.Request{Sent: "claude-opus-4-8", Usage: said(thousand, "", "", "fast")}, 60000, false, "claude-opus-4-8, fast ×2"},
		{"fast after its last day", "2026-12-01", price.Request{Sent: "claude-opus-4-8", Usage: said(thousand, "", "", "fast")}, 60000, true, "claude-opus-4-8, no price of its fast mode is known, fast ×2"},
		{"fast where it is ignored", "2026-11-23", price.Request{Sent: "claude-opus-4-6", Usage: said(thousand, "", "", "fast")}, 30000, false, "claude-opus-4-6 since 2026-03-13"},
		{"fast where there is none", "2026-11-23", price.Request{Sent: "claude-fable-5-1", Usage: said(thousand, "", "", "fast")}, 120000, true, "claude-fable-5-1 since 2026-09-01, no price of its fast mode is known, fast ×2"},
		{
			"fast with an advisor that has no fast mode", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(anthropic.Usage{
				Iterations: []anthropic.Iteration{run("message", "claude-opus-5", 1000, 0), run("advisor_message", "claude-sonnet-5", 1000, 0)},
			}, "", "", "fast")}, 10000 + 2000, false, "claude-opus-5 since 2026-07-24, fast ×2; claude-sonnet-5 since 2026-06-30",
		},
		{"unknown and fast", "2026-11-23", price.Request{Sent: "claude-opus-6-fast", Usage: thousand}, 60000, true, `unknown model "claude-opus-6-fast", fast ×2`},

		{"batch", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(each(1000), "batch", "", "")}, 23375, false, "claude-opus-5 since 2026-07-24, batch ×0.5"},
		{"no batch with fast", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(thousand, "batch", "", "fast")}, 60000, false, "claude-opus-5 since 2026-07-24, fast ×2"},
		{"priority at list", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(thousand, "priority", "", "standard")}, 30000, false, "claude-opus-5 since 2026-07-24"},

		{"in the US", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(thousand, "", "us", "")}, 33000, false, "claude-opus-5 since 2026-07-24, inference geo ×1.1"},
		{"in the US on AWS", "2026-11-23", price.Request{Provider: price.AWS, Sent: "claude-opus-5", Usage: said(thousand, "", "us", "")}, 33000, false, "claude-opus-5 since 2026-07-24, inference geo ×1.1"},
		{"in the US before 4.6", "2026-11-23", price.Request{Sent: "claude-opus-4-5", Usage: said(thousand, "", "us", "")}, 30000, false, "claude-opus-4-5"},
		{"anywhere", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(thousand, "", "global", "")}, 30000, false, "claude-opus-5 since 2026-07-24"},
		{"nobody knows where", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(thousand, "", "not_available", "")}, 30000, false, "claude-opus-5 since 2026-07-24"},
		{"somewhere new", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(thousand, "", "eu", "")}, 33000, true, "claude-opus-5 since 2026-07-24, no price of its inference geo is known, inference geo ×1.1"},
		{"searches are not multiplied", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: said(anthropic.Usage{Input: 1000, WebSearches: 1}, "", "us", "fast")}, 11000 + 10000, false, "claude-opus-5 since 2026-07-24, fast ×2, inference geo ×1.1"},

		{"Bedrock, geo profile", "2026-11-23", price.Request{Provider: price.Bedrock, Sent: "eu.anthropic.claude-opus-5", Served: "claude-opus-5", Usage: thousand}, 33000, false, "claude-opus-5 since 2026-07-24, regional endpoint ×1.1"},
		{"Bedrock, one region", "2026-11-23", price.Request{Provider: price.Bedrock, Sent: "anthropic.claude-opus-4-5-20251101-v1:0", Usage: thousand}, 33000, false, "claude-opus-4-5, regional endpoint ×1.1"},
		{"Bedrock, global profile", "2026-11-23", price.Request{Provider: price.Bedrock, Sent: "global.anthropic.claude-opus-5", Served: "claude-opus-5", Usage: thousand}, 30000, false, "claude-opus-5 since 2026-07-24"},
		{"Bedrock, ARN of a global profile", "2026-11-23", price.Request{Provider: price.Bedrock, Sent: "arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-opus-5", Usage: thousand}, 30000, false, "claude-opus-5 since 2026-07-24"},
		{"Bedrock, opaque profile", "2026-11-23", price.Request{Provider: price.Bedrock, Sent: "arn:aws:bedrock:us-east-1:1:application-inference-profile/x1", Asked: "claude-opus-5", Usage: thousand}, 33000, false, "claude-opus-5 since 2026-07-24, regional endpoint ×1.1"},
		{"Bedrock, opaque profile told to be global", "2026-11-23", price.Request{Provider: price.Bedrock, Location: "global", Sent: "arn:aws:bedrock:us-east-1:1:application-inference-profile/x1", Asked: "claude-opus-5", Usage: thousand}, 30000, false, "claude-opus-5 since 2026-07-24"},
		{"Bedrock, before 4.5", "2026-11-23", price.Request{Provider: price.Bedrock, Sent: "us.anthropic.claude-sonnet-4-20250514-v1:0", Usage: thousand}, 18000, false, "claude-sonnet-4"},
		{"Bedrock adds its own premium only", "2026-11-23", price.Request{Provider: price.Bedrock, Sent: "us.anthropic.claude-opus-5", Usage: said(thousand, "", "us", "")}, 33000, false, "claude-opus-5 since 2026-07-24, regional endpoint ×1.1"},
		{"Vertex, region", "2026-11-23", price.Request{Provider: price.Vertex, Location: "us-east5", Sent: "claude-haiku-4-5@20251001", Usage: thousand}, 6600, false, "claude-haiku-4-5, regional endpoint ×1.1"},
		{"Vertex, global", "2026-11-23", price.Request{Provider: price.Vertex, Location: "global", Sent: "claude-haiku-4-5@20251001", Usage: thousand}, 6000, false, "claude-haiku-4-5"},
		{"Foundry, global", "2026-11-23", price.Request{Provider: price.Foundry, Sent: "prod", Served: "claude-opus-5", Usage: thousand}, 30000, false, "claude-opus-5 since 2026-07-24"},
		{"Foundry, US data zone", "2026-11-23", price.Request{Provider: price.Foundry, Location: "us", Sent: "prod", Served: "claude-opus-5", Usage: thousand}, 33000, false, "claude-opus-5 since 2026-07-24, inference geo ×1.1"},

		{"a deployment's name says nothing", "2026-11-23", price.Request{Served: "prod", Sent: "prod", Asked: "claude-sonnet-5", Usage: thousand}, 12000, false, "claude-sonnet-5 since 2026-06-30"},
		{"what serves is priced", "2026-11-23", price.Request{Served: "claude-opus-4-8", Sent: "claude-fable-5", Asked: "claude-fable-5", Usage: thousand}, 30000, false, "claude-opus-4-8"},
		{"an unknown one that serves is not priced as another", "2026-11-23", price.Request{Served: "claude-opus-6", Sent: "claude-sonnet-5", Usage: thousand}, 30000, true, `unknown model "claude-opus-6"`},
		{"before the first price", "2026-11-08", price.Request{Sent: "claude-fable-5-2", Usage: thousand}, 48000, true, "claude-fable-5-2 since 2026-11-09, not yet in force"},

		{"nothing", "2026-11-23", price.Request{Sent: "claude-opus-5"}, 0, false, "claude-opus-5 since 2026-07-24"},
		{"half a micro-dollar is rounded up", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: anthropic.Usage{CacheRead: 1}}, 1, false, "claude-opus-5 since 2026-07-24"},
		{"less is rounded down", "2026-11-23", price.Request{Sent: "claude-opus-5-5", Usage: anthropic.Usage{CacheRead: 2}}, 0, false, "claude-opus-5-5 since 2026-09-22"},
		{"negative counts are nothing", "2026-11-23", price.Request{Sent: "claude-opus-5", Usage: anthropic.Usage{Input: -5, Output: math.MinInt64, WebSearches: -1, CacheRead: 1000}}, 500, false, "claude-opus-5 since 2026-07-24"},
	} {
		t.Run(c.why, func(t *testing.T) {
			got := prices.Cost(day(c.at), c.request)
			if got.Total != c.total || got.Unpriced != c.unpriced || got.Rule != c.rule {
				t.Errorf("%d, unpriced %v, %q\nwant %d, unpriced %v, %q", got.Total, got.Unpriced, got.Rule, c.total, c.unpriced, c.rule)
			}
		})
	}
}

// TestPriceChange: the row that holds at the instant decides, to the nanosecond and in every time zone.
func TestPriceChange(t *testing.T) {
	prices := table(t, price.Overlay{})
	change := day("2026-10-07")
	east := time.FixedZone("east", 14*3600)
	for _, c := range []struct {
		at   time.Time
		want int64
	}{
		{day("2026-09-28"), 200},
		{day("2026-10-06"), 200},
		{change.Add(-time.Nanosecond), 200},
		{change.Add(-time.Nanosecond).In(east), 200},
		{change, 100},
		{change.In(east), 100},
		{day("2036-01-01"), 100},
	} {
		got := prices.Cost(c.at, price.Request{Sent: "claude-sonnet-5-5", Usage: anthropic.Usage{CacheRead: 1000}})
		if got.Total != c.want || got.Unpriced {
			t.Errorf("%s: %+v, want %d", c.at, got, c.want)
		}
	}
}

// TestAbsurdCounts: saturated, never negative, never wrapped, and the parts still add up.
func TestAbsurdCounts(t *testing.T) {
	prices := table(t, price.Overlay{})
	for _, n := range []int64{1 << 40, 1 << 53, 1 << 62, math.MaxInt64} {
		for _, model := range []string{"claude-opus-5", "claude-haiku-5-5", "unheard-of"} {
			usage := each(n)
			usage.Speed, usage.InferenceGeo, usage.WebSearches = "fast", "us", n
			for range 256 {
				usage.Iterations = append(usage.Iterations, anthropic.Iteration{Type: "message", Input: n, Output: n, CacheRead: n, CacheWrite5m: n, CacheWrite1h: n})
			}
			for _, u := range []anthropic.Usage{usage, each(n)} {
				c := prices.Cost(autumn, price.Request{Sent: model, Usage: u})
				sum := int64(0)
				for _, part := range parts(c) {
					if part < 0 {
						t.Fatalf("%s × %d: %+v", model, n, c)
					}
					sum += part
				}
				if c.Total <= 0 || sum != c.Total {
					t.Errorf("%s × %d: %+v", model, n, c)
				}
			}
		}
	}
	if c := prices.Cost(autumn, price.Request{Sent: "claude-opus-5", Usage: each(math.MaxInt64)}); c.Total != price.MaxCost {
		t.Errorf("more than an exchange can cost is not the most that it can: %+v", c)
	}
	if b := prices.UpperBound(autumn, price.Request{Sent: "claude-opus-5"}, price.Bound{Prompt: math.MaxInt64, Output: math.MaxInt64}); b != math.MaxInt64 {
		t.Errorf("bound %d", b)
	}
}

func parts(c price.Cost) []int64 {
	p := c.Parts
	return []int64{p.Input, p.CacheWrite5m, p.CacheWrite1h, p.CacheRead, p.Output, p.WebSearches}
}

// TestAs: what would it have cost with another model.
func TestAs(t *testing.T) {
	prices := table(t, price.Overlay{})
	usage := anthropic.Usage{
		Speed: "fast", ServiceTier: "standard", WebSearches: 1,
		Iterations: []anthropic.Iteration{
			{Type: "message", Model: "claude-fable-5-2", Input: 500},
			{Type: "fallback_message", Model: "claude-opus-5-5", Input: 1000, Output: 1000},
			{Type: "advisor_message", Model: "claude-opus-5", Input: 1000},
		},
	}
	r := price.Request{Provider: price.Bedrock, Served: "claude-opus-5-5", Sent: "global.anthropic.claude-fable-5-2", Usage: usage}
	for model, want := range map[string]int64{
		"claude-sonnet-5":    2000*2 + 1000*10 + 10000,
		"claude-opus-5":      2000*5 + 1000*25 + 10000,
		"claude-opus-5-fast": 2*(2000*5+1000*25) + 10000,
	} {
		if got := prices.Cost(autumn, r.As(model)); got.Total != want || got.Unpriced {
			t.Errorf("%s: %+v, want %d", model, got, want)
		}
	}
	if usage.Iterations[0].Model != "claude-fable-5-2" {
		t.Error("asking changed the usage")
	}
}

func TestUpperBound(t *testing.T) {
	prices := table(t, price.Overlay{})
	for _, c := range []struct {
		why     string
		request price.Request
		bound   price.Bound
		want    int64
	}{
		{"one-hour writes in the US", price.Request{Sent: "claude-opus-5"}, price.Bound{Prompt: 1000, Output: 100}, 11000 + 2750},
		{"anywhere", price.Request{Sent: "claude-opus-5"}, price.Bound{Prompt: 1000, Output: 100, GlobalGeo: true}, 10000 + 2500},
		{"five-minute writes", price.Request{Sent: "claude-opus-5"}, price.Bound{Prompt: 1000, Output: 100, GlobalGeo: true, ShortLife: true}, 6250 + 2500},
		{"fast", price.Request{Sent: "claude-opus-5"}, price.Bound{Prompt: 1000, Output: 100, GlobalGeo: true, Fast: true}, 20000 + 5000},
		{"lower tier", price.Request{Sent: "claude-haiku-5-5"}, price.Bound{Prompt: 100000, Output: 1000, GlobalGeo: true}, 20000 + 500},
		{"upper tier", price.Request{Sent: "claude-haiku-5-5"}, price.Bound{Prompt: 100001, Output: 1000, GlobalGeo: true}, 100001 + 2500},
		{"rounded up", price.Request{Sent: "claude-haiku-4-5"}, price.Bound{Prompt: 1, GlobalGeo: true, ShortLife: true}, 2},
		{"before 4.6 it is nowhere dearer", price.Request{Sent: "claude-haiku-4-5"}, price.Bound{Prompt: 1000}, 2000},
		{"regional endpoint", price.Request{Provider: price.Bedrock, Sent: "us.anthropic.claude-haiku-4-5"}, price.Bound{Prompt: 1000}, 2200},
		{"unknown: the dearest there is", price.Request{Sent: "prod"}, price.Bound{Prompt: 1000, Output: 1000, GlobalGeo: true}, 30000 + 75000},
		{"unknown: also if it is called Claude", price.Request{Sent: "claude-opus-6"}, price.Bound{Prompt: 1000, Output: 1000, GlobalGeo: true}, 30000 + 75000},
		{"unknown: where any may be fast", price.Request{Provider: price.Foundry, Sent: "prod"}, price.Bound{Prompt: 1000, Output: 1000, GlobalGeo: true}, 2 * (30000 + 75000)},
		{"nothing", price.Request{Sent: "claude-opus-5"}, price.Bound{}, 0},
	} {
		t.Run(c.why, func(t *testing.T) {
			if got := prices.UpperBound(autumn, c.request, c.bound); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

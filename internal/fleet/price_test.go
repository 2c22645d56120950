package fleet_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/anthropic"
	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/price"
)

// settle makes an entry of an answer, as the request path does.
func settle(e fleet.Entry, result anthropic.Result) (fleet.Entry, anthropic.Usage) {
	u, estimated := result.Settled(0)
	if e.Uncharged = result.Uncharged(); e.Uncharged {
		u = anthropic.Usage{}
	}
	sum := u.BilledTotal()
	e.ModelServed, e.Usage, e.Estimated = result.ServingModel, result.Raw, estimated
	e.InputTokens, e.OutputTokens, e.CacheReadTokens = sum.Input, sum.Output, sum.CacheRead
	e.CacheWrite5mTokens, e.CacheWrite1hTokens, e.WebSearches = sum.CacheWrite5m, sum.CacheWrite1h, sum.WebSearches
	e.ServiceTier, e.InferenceGeo, e.Speed = sum.ServiceTier, sum.InferenceGeo, sum.Speed
	return e, u
}

// metered is what a meter makes of a stream of these events' data.
func metered(events ...string) anthropic.Result {
	m := anthropic.NewMeter("text/event-stream")
	for _, e := range events {
		_, _ = m.Write([]byte("data: " + e + "\n\n"))
	}
	return m.Result()
}

func start(usage string) string {
	return `{"type":"message_start","message":{"id":"m","type":"message","model":"claude-opus-5","usage":` + usage + `}}`
}

func text(n int) string {
	return `{"type":"content_block_delta","delta":{"type":"text_delta","text":"` + strings.Repeat("x", n) + `"}}`
}

func delta(stop, usage string) string {
	return `{"type":"message_delta","delta":{"stop_reason":` + stop + `},"usage":` + usage + `}`
}

// TestCharge prices settled answers and prices each again by what is stored of it.
func TestCharge(t *testing.T) {
	prices, err := price.New(price.Overlay{Discounts: []price.Discount{{Upstream: "half", Multiplier: "0.5"}}})
	if err != nil {
		t.Fatal(err)
	}
	const stop = `{"type":"message_stop"}`
	advised := `{"input_tokens":1760,"output_tokens":531,"iterations":[` +
		`{"type":"message","input_tokens":412,"output_tokens":89},{"type":"advisor_message","model":"claude-sonnet-5","input_tokens":823,"output_tokens":1612},` +
		`{"type":"message","input_tokens":1348,"output_tokens":442}]}`
	long := `{"input_tokens":1,"output_tokens":1000,"iterations":[{"type":"message","model":"` + strings.Repeat("y", 20_000) + `","input_tokens":1000,"output_tokens":1000}]}`
	for _, c := range []struct {
		why           string
		entry         fleet.Entry
		result        anthropic.Result
		cost, savings int64
		unpriced      bool
		again         int64 // cost by what is stored; 0: the same
	}{
		{
			"cache",
			fleet.Entry{},
			metered(start(`{"input_tokens":100,"output_tokens":1,"cache_read_input_tokens":10000,"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":300}}`), delta(`"end_turn"`, `{"output_tokens":50}`), stop),
			500 + 5000 + 1250 + 3000 + 1250, 10500*5 - (5000 + 1250 + 3000), false, 0,
		},
		{"writes that nobody read", fleet.Entry{}, metered(start(`{"cache_creation_input_tokens":1000}`), stop), 6250, -1250, false, 0},
		{"an upstream's discount", fleet.Entry{Upstream: "half"}, metered(start(`{"input_tokens":1000,"cache_read_input_tokens":1000}`), stop), 2500 + 250, 2250, false, 0},
		{"advisor", fleet.Entry{}, metered(start(`{"input_tokens":412}`), delta(`"end_turn"`, advised), stop), 1760*5 + 531*25 + 823*2 + 1612*10, 0, false, 0},
		{"cut", fleet.Entry{}, metered(start(`{"input_tokens":100,"output_tokens":1}`), text(401)), 500 + 101*25, 0, false, 0},
		{"cut after a report of runs", fleet.Entry{}, metered(start(`{"input_tokens":412}`), delta(`null`, advised), text(4*600)), 1760*5 + (89+600)*25 + 823*2 + 1612*10, 0, false, 0},
		{"refused before any output", fleet.Entry{}, metered(start(`{"input_tokens":100,"output_tokens":1,"cache_read_input_tokens":10}`), delta(`"refusal"`, `{"output_tokens":0}`), stop), 0, 0, false, 0},
		{"declined and replaced", fleet.Entry{}, metered(start(`{"input_tokens":535}`), delta(`"end_turn"`, `{"iterations":[{"type":"message","input_tokens":535,"output_tokens":0},{"type":"fallback_message","model":"claude-sonnet-5","input_tokens":412,"output_tokens":264}]}`), stop), 412*2 + 264*10, 0, false, 0},
		{"fast", fleet.Entry{}, metered(start(`{"input_tokens":1000,"speed":"fast"}`), stop), 10000, 0, false, 0},
		{"writes that grew", fleet.Entry{}, metered(start(`{"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_1h_input_tokens":100}}`), delta(`"end_turn"`, `{"cache_creation_input_tokens":300}`), stop), 1000 + 1250, -750, false, 0},
		{"searches", fleet.Entry{}, metered(start(`{"server_tool_use":{"web_search_requests":3}}`), stop), 30_000, 0, false, 0},
		{"nothing used", fleet.Entry{ModelSent: "unheard-of"}, anthropic.Result{}, 0, 0, false, 0},
		{"counting", fleet.Entry{Endpoint: policy.EndpointCountTokens}, metered(start(`{"input_tokens":1000}`), stop), 0, 0, false, 0},
		{"a report too long to be kept", fleet.Entry{}, metered(start(`{"input_tokens":1}`), delta(`"end_turn"`, long), stop), 1000*5 + 1000*25, 0, true, 30_000},
	} {
		t.Run(c.why, func(t *testing.T) {
			c.entry.StartedAt = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
			e, u := settle(c.entry, c.result)
			e.Charge(prices, u)
			if e.Cost != c.cost || e.CacheSavings != c.savings || e.Unpriced != c.unpriced || (e.PriceVersion == "") != (c.cost == 0) {
				t.Errorf("%d, saved %d, unpriced %v, %q %q", e.Cost, e.CacheSavings, e.Unpriced, e.PriceRule, e.PriceVersion)
			}
			if e.Endpoint != "" {
				return
			}
			body, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			var stored fleet.Entry
			if err := json.Unmarshal(body, &stored); err != nil {
				t.Fatal(err)
			}
			r, whole := stored.PriceRequest()
			want := c.cost
			if c.again != 0 {
				want = c.again
			}
			if got := prices.Cost(stored.StartedAt, r).Total; got != want || whole != (c.again == 0) {
				t.Errorf("%d by what is stored (%s), whole %v", got, strconv.Quote(string(stored.Usage)), whole)
			}
		})
	}
}

// TestWhatIsStoredPricesTheSame: whatever an upstream reports and wherever its answer ends, the cost follows from the entry alone.
func TestWhatIsStoredPricesTheSame(t *testing.T) {
	prices, err := price.New(price.Overlay{})
	if err != nil {
		t.Fatal(err)
	}
	models := rapid.SampledFrom([]string{"claude-opus-5", "claude-sonnet-5", "claude-haiku-5-5", "unheard-of", ""})
	number := rapid.OneOf(rapid.Int64Range(0, 500), rapid.Int64Range(0, 300_000))
	rapid.Check(t, func(t *rapid.T) {
		counts := func(o map[string]any, names ...string) {
			for _, name := range names {
				if rapid.Bool().Draw(t, name) {
					o[name] = number.Draw(t, name)
				}
			}
		}
		usage := func(first bool) string {
			o := map[string]any{}
			counts(o, "input_tokens", "output_tokens", "cache_read_input_tokens")
			if first {
				split := map[string]any{}
				counts(split, "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
				o["cache_creation"] = split
				o["speed"] = rapid.SampledFrom([]string{"standard", "fast"}).Draw(t, "speed")
				o["service_tier"] = rapid.SampledFrom([]string{"standard", "batch", "priority"}).Draw(t, "tier")
				o["inference_geo"] = rapid.SampledFrom([]string{"us", "global", "moon"}).Draw(t, "geo")
				o["server_tool_use"] = map[string]any{"web_search_requests": rapid.Int64Range(0, 3).Draw(t, "searches")}
			} else if rapid.Bool().Draw(t, "runs") {
				var runs []any
				for range rapid.IntRange(0, 4).Draw(t, "how many") {
					run := map[string]any{"type": rapid.SampledFrom([]string{"message", "fallback_message", "advisor_message", "compaction"}).Draw(t, "type")}
					if id := models.Draw(t, "model"); id != "" {
						run["model"] = id
					}
					counts(run, "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
					runs = append(runs, run)
				}
				o["iterations"] = runs
			}
			data, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		events := []string{start(usage(true)), text(rapid.IntRange(0, 3000).Draw(t, "characters"))}
		for range rapid.IntRange(0, 3).Draw(t, "reports") {
			events = append(events, delta("null", usage(false)))
		}
		events = append(events, delta(rapid.SampledFrom([]string{`"end_turn"`, `"refusal"`}).Draw(t, "stop"), usage(false)))
		e, u := settle(fleet.Entry{
			StartedAt: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), ModelAsked: "prod", ModelSent: models.Draw(t, "sent"),
		}, metered(events[:rapid.IntRange(0, len(events)).Draw(t, "cut")]...))
		e.Charge(prices, u)
		r, whole := e.PriceRequest()
		if got := prices.Cost(e.StartedAt, r); !whole || got.Total != e.Cost || e.Cost > 0 && (got.Unpriced != e.Unpriced || got.Rule != e.PriceRule) {
			t.Fatalf("booked %d by %q, by what is stored %d by %q (whole %v)\n%s", e.Cost, e.PriceRule, got.Total, got.Rule, whole, e.Usage)
		}
	})
}

func TestEntryMixed(t *testing.T) {
	for name, c := range map[string]struct {
		usage string
		mixed bool
	}{
		"one run":                {`{"input_tokens":1,"output_tokens":1}`, false},
		"nothing reported":       {``, false},
		"its own run":            {`{"iterations":[{"type":"message","model":"claude-opus-5-20260701","output_tokens":1}]}`, false},
		"a run without a name":   {`{"iterations":[{"type":"message","output_tokens":1},{"type":"compaction","output_tokens":1}]}`, false},
		"a run as it was sent":   {`{"iterations":[{"type":"message","model":"claude-opus-5","output_tokens":1}]}`, false},
		"an advisor":             {`{"iterations":[{"type":"message","output_tokens":1},{"type":"advisor_message","model":"claude-haiku-5","output_tokens":1}]}`, true},
		"replaced before output": {`{"iterations":[{"type":"message","output_tokens":0},{"type":"fallback_message","model":"claude-opus-5-20260701","output_tokens":1}]}`, false},
		"replaced after output":  {`{"iterations":[{"type":"message","output_tokens":1},{"type":"fallback_message","model":"claude-opus-5-20260701","output_tokens":1}]}`, true},
	} {
		e := fleet.Entry{ModelAsked: "opus", ModelSent: "claude-opus-5", ModelServed: "claude-opus-5-20260701", Usage: json.RawMessage(c.usage)}
		if e.Mixed() != c.mixed {
			t.Errorf("%s: %v", name, e.Mixed())
		}
		e.Uncharged = true
		if e.Mixed() {
			t.Errorf("%s: what is not charged is in no bill", name)
		}
	}
}

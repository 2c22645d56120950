package price_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

// autumn is a day on which the published prices were checked.
var autumn = day("2026-11-23")

func day(s string) time.Time {
	at, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return at
}

func table(t testing.TB, o price.Overlay) *price.Table {
	t.Helper()
	table, err := price.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// each is a usage of so many tokens in every class.
func each(n int64) anthropic.Usage {
	return anthropic.Usage{Input: n, CacheWrite5m: n, CacheWrite1h: n, CacheRead: n, Output: n}
}

// TestPublishedPrices has every price that is published, worked out by hand: tokens in each class, and what they cost in micro-dollars. A
// thousand tokens at $8 a million are $0.008, which is 8 000.
func TestPublishedPrices(t *testing.T) {
	seen := map[string]bool{}
	prices := table(t, price.Overlay{})
	for _, c := range []struct {
		model, from                        string
		upTo                               int64 // of the tier; 0: the rest
		tokens                             int64 // in each class
		input, write5m, write1h, read, out int64
	}{
		{"claude-fable-5-2", "2026-11-09", 0, 1000, 8000, 10000, 16000, 200, 40000},
		{"claude-mythos-5-2", "2026-11-09", 0, 1000, 8000, 10000, 16000, 200, 40000},
		{"claude-fable-5-1", "2026-09-01", 0, 1000, 10000, 12500, 20000, 250, 50000},
		{"claude-mythos-5-1", "2026-09-01", 0, 1000, 10000, 12500, 20000, 250, 50000},
		{"claude-fable-5", "2026-06-09", 0, 1000, 10000, 12500, 20000, 1000, 50000},
		{"claude-mythos-5", "2026-06-09", 0, 1000, 10000, 12500, 20000, 1000, 50000},
		{"claude-opus-5-5", "2026-09-22", 0, 1000, 4000, 5000, 8000, 200, 20000},
		{"claude-opus-5", "2026-07-24", 0, 1000, 5000, 6250, 10000, 500, 25000},
		{"claude-opus-4-8", "1970-01-01", 0, 1000, 5000, 6250, 10000, 500, 25000},
		{"claude-opus-4-7", "1970-01-01", 0, 1000, 5000, 6250, 10000, 500, 25000},
		{"claude-opus-4-6", "1970-01-01", 200000, 1000, 5000, 6250, 10000, 500, 25000},
		{"claude-opus-4-6", "1970-01-01", 0, 100000, 1000000, 1250000, 2000000, 100000, 3750000},
		{"claude-opus-4-6", "2026-03-13", 0, 100000, 500000, 625000, 1000000, 50000, 2500000},
		{"claude-opus-4-5", "1970-01-01", 0, 1000, 5000, 6250, 10000, 500, 25000},
		{"claude-opus-4-1", "1970-01-01", 0, 1000, 15000, 18750, 30000, 1500, 75000},
		{"claude-opus-4", "1970-01-01", 0, 1000, 15000, 18750, 30000, 1500, 75000},
		{"claude-sonnet-5-5", "2026-09-28", 0, 1000, 2000, 2500, 4000, 200, 10000},
		{"claude-sonnet-5-5", "2026-10-07", 0, 1000, 2000, 2500, 4000, 100, 10000},
		{"claude-sonnet-5", "2026-06-30", 0, 1000, 2000, 2500, 4000, 200, 10000},
		{"claude-sonnet-4-6", "1970-01-01", 200000, 1000, 3000, 3750, 6000, 300, 15000},
		{"claude-sonnet-4-6", "1970-01-01", 0, 100000, 600000, 750000, 1200000, 60000, 2250000},
		{"claude-sonnet-4-6", "2026-03-13", 0, 100000, 300000, 375000, 600000, 30000, 1500000},
		{"claude-sonnet-4-5", "1970-01-01", 200000, 1000, 3000, 3750, 6000, 300, 15000},
		{"claude-sonnet-4-5", "1970-01-01", 0, 100000, 600000, 750000, 1200000, 60000, 2250000},
		{"claude-sonnet-4-5", "2026-04-30", 0, 100000, 300000, 375000, 600000, 30000, 1500000},
		{"claude-sonnet-4", "1970-01-01", 0, 1000, 3000, 3750, 6000, 300, 15000},
		{"claude-haiku-5-5", "2026-10-07", 100000, 1000, 100, 125, 200, 10, 500},
		{"claude-haiku-5-5", "2026-10-07", 0, 100000, 50000, 62500, 100000, 5000, 250000},
		{"claude-haiku-4-5", "1970-01-01", 0, 1000, 1000, 1250, 2000, 100, 5000},
		{"claude-3-5-haiku", "1970-01-01", 0, 1000, 800, 1000, 1600, 80, 4000},
		{"claude-3-7-sonnet", "1970-01-01", 0, 1000, 3000, 3750, 6000, 300, 15000},
		{"claude-3-5-sonnet", "1970-01-01", 0, 1000, 3000, 3750, 6000, 300, 15000},
		{"claude-3-opus", "1970-01-01", 0, 1000, 15000, 18750, 30000, 1500, 75000},
		{"claude-3-haiku", "1970-01-01", 0, 1000, 250, 300, 500, 30, 1250},
	} {
		name := fmt.Sprint(c.model, " ", c.from, " ", c.upTo)
		seen[name] = true
		usage := each(c.tokens)
		usage.WebSearches = 3
		want := price.Parts{
			Input: c.input, CacheWrite5m: c.write5m, CacheWrite1h: c.write1h, CacheRead: c.read, Output: c.out, WebSearches: 30000,
		}
		total := c.input + c.write5m + c.write1h + c.read + c.out + 30000
		got := prices.Cost(day(c.from), price.Request{Sent: c.model, Usage: usage})
		if got.Parts != want || got.Total != total || got.Unpriced {
			t.Errorf("%s: %+v, want %d: %+v", name, got, total, want)
		}
	}
	for _, name := range published(t) {
		if !seen[name] {
			t.Errorf("no case for the published price %s", name)
		}
		delete(seen, name)
	}
	for name := range seen {
		t.Errorf("%s is not published", name)
	}
}

// published lists the rows and tiers in the published table.
func published(t testing.TB) (names []string) {
	t.Helper()
	document, err := os.ReadFile("prices.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Models []struct {
			ID      string
			Periods []struct {
				From  string
				Tiers []struct {
					UpTo int64 `json:"max_prompt_tokens"`
				}
			}
		}
	}
	if err := json.Unmarshal(document, &p); err != nil {
		t.Fatal(err)
	}
	for _, m := range p.Models {
		for _, period := range m.Periods {
			for _, tier := range period.Tiers {
				names = append(names, fmt.Sprint(m.ID, " ", period.From, " ", tier.UpTo))
			}
		}
	}
	return names
}

// TestUnknownModel: never free, never priced as a shorter name, always marked.
func TestUnknownModel(t *testing.T) {
	prices := table(t, price.Overlay{})
	want := price.Parts{Input: 5000, CacheWrite5m: 6250, CacheWrite1h: 10000, CacheRead: 500, Output: 25000}
	for _, id := range []string{
		"", "claude-opus-5-6", "claude-opus-6", "claude-fable-5-10", "claude-opus-50", "claude-opus", "gpt-7", "opus-5", "xclaude-opus-5",
		"claude-opus-5-fast-v1", "claude-opus-5[1m][1m]", "claude-opus-5-2026112", "claude-opus-5-v", "claude-opus-5-v1:", "claude-opus-4.5",
		"anthropic/claude-opus-5:beta", "claude-opus-5 ", "x\n/claude-opus-5",
	} {
		got := prices.Cost(autumn, price.Request{Served: id, Usage: each(1000)})
		if got.Parts != want || got.Total != 46750 || !got.Unpriced || got.Rule != fmt.Sprintf("unknown model %q", id) {
			t.Errorf("%q: %+v", id, got)
		}
	}
}

// TestModelNames: the same model under the names that clients, clouds and proxies write.
func TestModelNames(t *testing.T) {
	prices := table(t, price.Overlay{})
	for id, input := range map[string]int64{
		"claude-opus-5":                                        5000,
		"Claude-Opus-5":                                        5000,
		"claude-opus-5[1m]":                                    5000,
		"claude-opus-5-20260724":                               5000,
		"claude-opus-5-5":                                      4000,
		"claude-opus-5-5-20260922[1m]":                         4000,
		"claude-opus-4-0":                                      15000,
		"claude-opus-4-20250514":                               15000,
		"claude-opus-4@20250514":                               15000,
		"claude-opus-4-1-20250805":                             15000,
		"claude-3-5-haiku-latest":                              800,
		"claude-3-5-haiku@20241022":                            800,
		"anthropic/claude-3-5-sonnet-v2-latest":                3000,
		"claude-3-5-sonnet-v2@20241022":                        3000,
		"anthropic.claude-3-5-sonnet-20241022-v2:0":            3000,
		"claude-haiku-4-5@20251001":                            1000,
		"anthropic.claude-haiku-4-5-20251001-v1:0":             1000,
		"global.anthropic.claude-haiku-4-5-20251001-v1:0":      1000,
		"anthropic/claude-sonnet-5":                            2000,
		"vertex_ai/claude-sonnet-4-5@20250929":                 3000,
		"bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0": 3000,
		"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-5-20251101-v1:0": 5000,
		"projects/p/locations/global/publishers/anthropic/models/claude-opus-4-8":                             5000,
		"arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0":                  250,
	} {
		got := prices.Cost(autumn, price.Request{Sent: id, Usage: anthropic.Usage{Input: 1000}})
		if got.Total != input || got.Unpriced {
			t.Errorf("%q: %+v, want %d", id, got, input)
		}
	}
}

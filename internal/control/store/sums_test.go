package store_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"carpool/internal/control/store"
	"carpool/internal/fleet"
)

// TestSumsOfAbsurdEntries: entries that cost more than all the money there is can be summed up and rolled up, again and again.
func TestSumsOfAbsurdEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.db")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing is left to be written
	const most = 4_000_000_000_000_000_000
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	seq := int64(0)
	for round := range 3 {
		batch := fleet.UsageBatch{Node: "n1"}
		for range 3 {
			seq++
			batch.Entries = append(batch.Entries, fleet.Entry{
				Node: "n1", Seq: seq, ID: fmt.Sprint(seq), StartedAt: noon.Add(time.Duration(seq) * time.Second), Endpoint: "messages", User: "alice",
				Outcome: fleet.OutcomeFinished, PriceVersion: "v1", Cost: math.MaxInt64, CacheSavings: math.MinInt64 + 1,
				InputTokens: math.MaxInt64, OutputTokens: math.MaxInt64, QuotaTokens: 1<<49 + 1,
			})
		}
		if _, err := s.Ingest(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			t.Helper()
			for _, by := range [][]store.Dimension{nil, {store.ByUser}} {
				sums, err := s.Sums(t.Context(), store.Filter{}, by...)
				if err != nil || len(sums) != 1 {
					t.Fatalf("round %d, %s: %+v, %v", round, when, sums, err)
				}
				sum := &sums[0]
				if sum.Requests != seq || sum.Cost != most || sum.CacheSavings != -most || sum.Input != most || sum.Tokens() != most || sum.Quota != seq*(1<<49+1) {
					t.Errorf("round %d, %s: %+v", round, when, sum)
				}
			}
		}
		check("one by one")
		if n, err := s.RollUp(t.Context(), noon.Add(time.Hour), time.Hour, 1000); err != nil || n != 3 {
			t.Fatalf("%d were rolled up: %v", n, err)
		}
		check("rolled up")
	}
	books, err := store.OpenBooks(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close() //nolint:errcheck // only read
	if drift, err := books.RollupDrift(t.Context()); err != nil || drift != (store.Drift{}) {
		t.Errorf("%+v, %v", drift, err)
	}
}

package control_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

func TestUsage(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		at := func(text string) func(*fleet.Entry) {
			when := must[time.Time](t)(time.Parse(time.RFC3339, text))
			return func(e *fleet.Entry) { e.StartedAt = when }
		}
		whole := entry("n1", 1, at("2026-03-28T22:30:00Z"), func(e *fleet.Entry) { // 23:30 in Berlin
			e.ErrorType, e.MessageID, e.StopReason, e.ServiceTier, e.InferenceGeo, e.Speed = "x", "m", "end_turn", "standard", "eu", "fast"
			e.AgentID, e.ParentAgentID, e.RequestClass, e.ClientRequestID, e.UpstreamRequestID, e.Estimated = "a", "b", "main", "c", "d", true
			e.Provider, e.Location, e.Cost, e.CacheSavings, e.PriceRule, e.PriceVersion = "anthropic", "eu", 3_000_000, 1000, "table", "v1"
		})
		n.mu.Lock()
		n.settled = []fleet.Entry{
			whole,
			entry("n1", 2, at("2026-03-28T23:30:00Z")), // 00:30, the day the clock goes forward
			entry("n1", 3, at("2026-03-29T01:30:00Z"), func(e *fleet.Entry) { // 03:30
				e.User, e.KeyID, e.KeyName, e.Team, e.Outcome, e.Status, e.FirstByte = "bob", "k2", "bob-key", "", fleet.OutcomeCut, 200, -1
				e.ClientVersion, e.ModelAsked, e.ModelSent, e.ModelServed, e.Duration, e.Tools, e.Usage = "1.0.59", "claude\x1fb", "", "", 1000, nil, nil
				e.OutputTokens, e.Cost, e.CacheSavings, e.Unpriced, e.PriceVersion = 900, 123, -1077, true, "v1"
			}),
			entry("n1", 4, at("2026-03-29T22:30:00Z"), func(e *fleet.Entry) { e.Endpoint = "count_tokens" }), // 00:30 the day after
		}
		n.mu.Unlock()

		// Nothing was shipped yet: the question makes the node deliver.
		usage := must[control.Usage](t)(c.Usage(ctx, control.UsageQuery{Endpoint: "all"}))
		if usage.Totals.Requests != 4 || len(usage.Rows) != 4 || usage.Rows[3].Entry == nil || usage.GroupBy != "none" {
			t.Fatalf("%+v", usage)
		}
		if got := *usage.Rows[3].Entry; !reflect.DeepEqual(got, whole) {
			t.Errorf("an entry came back different:\n%+v\n%+v", got, whole)
		}
		usage = must[control.Usage](t)(c.Usage(ctx, control.UsageQuery{}))
		want := control.UsageTotals{
			Requests: 3, Errors: 1, InputTokens: 30, OutputTokens: 940, CacheReadTokens: 90, CacheWriteTokens: 27, CacheWrite5mTokens: 12,
			CacheWrite1hTokens: 15, ThinkingTokens: 18, QuotaTokens: 90, WebSearches: 3, FileOperations: 3, RequestBytes: 3000, ResponseBytes: 6000,
			AverageDurationMs: 400, AverageFirstByteMs: 100,
			CostMicroUSD: 3_000_123, CacheSavingsMicroUSD: -77, Unpriced: 2, Estimated: 1,
		}
		if usage.Totals != want {
			t.Errorf("%+v", usage.Totals)
		}

		counts := func(q control.UsageQuery) string {
			text := ""
			for _, row := range must[control.Usage](t)(c.Usage(ctx, q)).Rows {
				text += fmt.Sprintf("%s=%d ", row.Group.Group, row.Group.Requests)
			}
			return text
		}
		for groupBy, want := range map[string]string{
			"user": "bob=1 alice=2 ", "team": "=1 platform=2 ", "key": "bob-key=1 alice-laptop=2 ", "model": "claude\x1fb=1 claude-a-1=2 ",
			"upstream": "main=3 ", "session": "s1=3 ", "version": "1.0.59=1 2.1.0=2 ",
			"day":  "2026-03-28=1 2026-03-29=2 ",
			"hour": "2026-03-28T23:00+01:00=1 2026-03-29T00:00+01:00=1 2026-03-29T03:00+02:00=1 ",
		} {
			if got := counts(control.UsageQuery{GroupBy: groupBy}); got != want {
				t.Errorf("by %s: %q, want %q", groupBy, got, want)
			}
		}
		for _, filter := range []struct {
			query control.UsageQuery
			want  int64
		}{
			{control.UsageQuery{Since: "2026-03-29"}, 2},
			{control.UsageQuery{Until: "2026-03-29"}, 1},
			{control.UsageQuery{Since: "2026-03-29T03:30:00+02:00"}, 1},
			{control.UsageQuery{Since: "2026-03-28T22:30:00Z", Until: "2026-03-28T23:30:00Z"}, 1},
			{control.UsageQuery{User: "bob"}, 1},
			{control.UsageQuery{Team: "platform"}, 2},
			{control.UsageQuery{Key: "k1"}, 2},
			{control.UsageQuery{Key: "bob-key"}, 1},
			{control.UsageQuery{Model: "claude-a"}, 2},
			{control.UsageQuery{Model: "fast"}, 2},
			{control.UsageQuery{Session: "s2"}, 0},
			{control.UsageQuery{Endpoint: "count_tokens"}, 1},
			{control.UsageQuery{User: "nobody", GroupBy: "day"}, 0},
		} {
			if got := must[control.Usage](t)(c.Usage(ctx, filter.query)); got.Totals.Requests != filter.want || (filter.want == 0 && len(got.Rows) != 0) {
				t.Errorf("%+v: %d, want %d", filter.query, got.Totals.Requests, filter.want)
			}
		}
		limited := must[control.Usage](t)(c.Usage(ctx, control.UsageQuery{Limit: 1}))
		if len(limited.Rows) != 1 || limited.Rows[0].Entry.Seq != 3 || limited.Totals.Requests != 3 {
			t.Errorf("%+v", limited)
		}
		for groupBy, want := range map[string]string{"user": "bob=1 ", "day": "2026-03-29=2 "} {
			if got := counts(control.UsageQuery{GroupBy: groupBy, Limit: 1}); got != want {
				t.Errorf("one row by %s: %q, want %q", groupBy, got, want)
			}
		}
		recent := must[control.Usage](t)(c.Usage(ctx, control.UsageQuery{Since: "7d"}))
		if recent.From == nil || recent.From.After(time.Now().AddDate(0, 0, -7)) {
			t.Errorf("%v", recent.From)
		}

		report := must[control.Report](t)(c.Report(ctx, control.ReportQuery{}))
		wantReport := control.Report{
			TotalRequests: 3, SuccessRate: 2.0 / 3, AverageResponseTime: 400, AverageFirstByte: 100, FileOperations: 3,
			TopTools: []control.ReportCount{{Name: "Bash", Count: 4}, {Name: "Read", Count: 2}},
			VersionDistribution: []control.ReportVersion{
				{Version: "2.1.0", Count: 2, Share: 2.0 / 3}, {Version: "1.0.59", Count: 1, Share: 1.0 / 3},
			},
			TokenUsage: control.ReportTokens{
				Input: 30, Output: 940, CacheRead: 90, CacheWrite: 27, CacheWrite5m: 12, CacheWrite1h: 15, Thinking: 18, Quota: 90, Total: 1087,
			},
			Models: []control.ReportModel{
				{Model: "claude-a-1", Count: 2, Input: 20, Output: 40, CostMicroUSD: 3_000_000, Unpriced: 1, Estimated: 1},
				{Model: "claude\x1fb", Count: 1, Input: 10, Output: 900, CostMicroUSD: 123, Unpriced: 1},
			},
			Cost: control.ReportCost{
				MicroUSD: 3_000_123, CacheSavingsMicroUSD: -77, CacheReadShare: 90.0 / 147, Unpriced: 2, Estimated: 1,
			},
			Outcomes: map[string]int64{"finished": 2, "cut": 1}, ActiveUsers: 2, Sessions: 1,
		}
		if !reflect.DeepEqual(report, wantReport) {
			t.Errorf("%+v\n%+v", report, wantReport)
		}
		empty := must[control.Report](t)(c.Report(ctx, control.ReportQuery{User: "nobody"}))
		if empty.TotalRequests != 0 || empty.SuccessRate != 0 || empty.TopTools == nil {
			t.Errorf("%+v", empty)
		}
		if got := must[control.Report](t)(c.Report(ctx, control.ReportQuery{Team: "platform", Since: "2026-03-29"})); got.TotalRequests != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestEntriesTellWhenKeysWereUsed(t *testing.T) {
	p := open(t, t.TempDir())
	ctx := t.Context()
	must[control.User](t)(p.socket.CreateUser(ctx, policy.UserSpec{Name: "alice"}))
	key := must[control.NewKey](t)(p.socket.CreateKey(ctx, policy.KeySpec{Name: "k", User: "alice"}))
	e := entry("n1", 1, func(e *fleet.Entry) { e.KeyID = key.ID })
	must[int64](t)(p.Link("n1").Ship(ctx, fleet.UsageBatch{Node: "n1", Entries: []fleet.Entry{e}}))
	if got := must[control.Key](t)(p.socket.Key(ctx, "k")); got.LastUsedAt == nil || !got.LastUsedAt.Equal(e.StartedAt) {
		t.Errorf("%+v", got)
	}
}

// What a month of a team costs to ask about.
func BenchmarkUsage(b *testing.B) {
	p := open(b, b.TempDir())
	link := p.Link("n1")
	const total, batchSize = 100_000, 500
	begin := time.Now()
	for first := int64(1); first <= total; first += batchSize {
		batch := fleet.UsageBatch{Node: "n1"}
		for seq := first; seq < first+batchSize; seq++ {
			batch.Entries = append(batch.Entries, entry("n1", seq, func(e *fleet.Entry) {
				e.StartedAt = e.StartedAt.Add(time.Duration(seq) * 24 * time.Second)
				e.User, e.SessionID = fmt.Sprintf("user-%d", seq%50), fmt.Sprintf("s-%d", seq%1000)
			}))
		}
		if _, err := link.Ship(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("%d entries in batches of %d: %v", total, batchSize, time.Since(begin))
	for _, groupBy := range []string{"none", "user", "day", "session"} {
		b.Run("by="+groupBy, func(b *testing.B) {
			for b.Loop() {
				if _, err := p.socket.Usage(b.Context(), control.UsageQuery{GroupBy: groupBy}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("report", func(b *testing.B) {
		for b.Loop() {
			if _, err := p.socket.Report(b.Context(), control.ReportQuery{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sessions", func(b *testing.B) {
		for b.Loop() {
			if _, err := p.socket.Sessions(b.Context(), control.SessionQuery{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("session", func(b *testing.B) {
		for b.Loop() {
			if _, err := p.socket.Session(b.Context(), "s-77"); err != nil { // others begin so
				b.Fatal(err)
			}
		}
	})
	b.Run("entries", func(b *testing.B) {
		for b.Loop() {
			for _, err := range p.socket.Entries(b.Context(), control.UsageQuery{}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := p.socket.CreateUser(b.Context(), policy.UserSpec{Name: fmt.Sprintf("u%d", i)}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package control_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
)

// busyDays are entries of everybody with everything over some days, each with an id of its own.
func busyDays(first time.Time, days, n int) []fleet.Entry {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	entries := make([]fleet.Entry, n)
	for i := range entries {
		entries[i] = entry("n1", int64(i+1), func(e *fleet.Entry) {
			e.ID, e.StartedAt = fmt.Sprintf("exchange-%d", i), first.Add(time.Duration(i)*time.Duration(days)*24*time.Hour/time.Duration(n)).Truncate(time.Microsecond)
			e.User = pick("alice", "bob", "carol")
			e.Team, e.KeyName, e.KeyID = pick("platform", ""), e.User+pick("-ci", "-laptop"), pick("k1", "k2")
			e.ModelAsked, e.ModelSent, e.ModelServed = pick("fast", "opus", "a, b\x1f"), pick("", "claude-a", "claude-b"), pick("", "claude-a-1")
			e.Upstream, e.Provider, e.Endpoint = pick("main", "spare"), pick("", "anthropic", "bedrock"), pick("messages", "messages", "count_tokens")
			e.SessionID, e.AgentID, e.ParentAgentID = pick("", "s1", "s2"), pick("", "a1", "a2"), pick("", "a1")
			e.Client, e.ClientVersion = pick("claude-cli", "curl", ""), pick("2.1.0", "1.0.59")
			e.Outcome = fleet.Outcome(pick("finished", "finished", "cut", "canceled", "crashed"))
			e.FirstByte, e.Duration = random.Int64N(500)-10, random.Int64N(100_000)
			e.InputTokens, e.OutputTokens, e.CacheReadTokens = random.Int64N(9000), random.Int64N(9000), random.Int64N(90_000)
			e.CacheWrite5mTokens, e.CacheWrite1hTokens, e.QuotaTokens = random.Int64N(900), random.Int64N(900), random.Int64N(20_000)
			e.Cost, e.CacheSavings = random.Int64N(1_000_000), random.Int64N(10_000)-5000
			e.PriceVersion, e.Unpriced = pick("", "v1"), random.IntN(9) == 0
			e.Estimated, e.Uncharged = random.IntN(9) == 0, random.IntN(9) == 0
		})
	}
	return entries
}

// everyGrouping is what roll-ups can be asked for by.
const everyGrouping = "user team key model upstream version day hour user,model model,user,key team,day hour,upstream"

// answers are all that can be asked and that retention must not change, as text.
func answers(t *testing.T, c *control.Client, ranges [][2]string, groupings string) map[string]string {
	t.Helper()
	ctx, got := t.Context(), map[string]string{}
	put := func(name string, value any) {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = string(text)
	}
	for _, r := range ranges {
		for by := range strings.FieldsSeq(groupings) {
			selections := []control.UsageQuery{
				{}, {Endpoint: "all"}, {User: "alice", Team: "platform"}, {Key: "k1"}, {Key: "bob-ci"}, {Model: "claude-a"}, {Model: "opus", Endpoint: "count_tokens"},
			}
			q := selections[(len(by)+int(by[0]))%len(selections)] // one or another, the same for the same grouping
			q.Since, q.Until, q.GroupBy = r[0], r[1], by
			usage := must[control.Usage](t)(c.Usage(ctx, q))
			put(fmt.Sprintf("usage %+v", q), []any{usage.Totals, usage.Rows})
		}
		report := must[control.Report](t)(c.Report(ctx, control.ReportQuery{Since: r[0], Until: r[1]}))
		report.Sessions, report.TopTools, report.KeptFrom = 0, nil, nil
		put(fmt.Sprintf("report %v", r), report)
	}
	whole := func(text string) time.Time { return must[time.Time](t)(time.Parse(time.DateOnly, text)) }
	put("billing", must[[]control.BillingRow](t)(c.Billing(ctx, whole("2026-10-20"), whole("2026-10-30"), "main")))
	return got
}

func compareAnswers(t *testing.T, when string, got, want map[string]string) {
	t.Helper()
	for name := range got {
		if got[name] != want[name] {
			t.Fatalf("%s: %s:\n%.600s\nwant\n%.600s", when, name, got[name], want[name])
		}
	}
}

// Sums by everything that roll-ups know are the same before, while and after entries are removed, in zones whose days do not begin with an
// hour of UTC, and while the clock is put back; and what is delivered again is not counted again.
func TestRetentionKeepsSums(t *testing.T) {
	for zone, groupings := range map[string]string{"Europe/Berlin": everyGrouping, "Asia/Kathmandu": "user day hour,upstream"} {
		t.Run(zone, func(t *testing.T) {
			first := time.Date(2026, 10, 23, 12, 0, 0, 0, time.UTC)
			now := first.AddDate(0, 0, 4)
			p := open(t, t.TempDir(), func(o *control.Options) {
				o.Settings.TimeZone, o.Now = zone, func() time.Time { return now }
			})
			ctx, link := t.Context(), p.Link("n1")
			entries := busyDays(first, 4, 600)
			must[int64](t)(link.Ship(ctx, fleet.UsageBatch{Node: "n1", Entries: entries}))
			ranges := [][2]string{{"", ""}, {"2026-10-24", "2026-10-25"}, {"2026-10-25", "2026-10-27"}}
			before := answers(t, p.socket, ranges, groupings)

			midnight := time.Date(2026, 10, 26, 0, 0, 0, 0, must[*time.Location](t)(time.LoadLocation(zone)))
			for _, limit := range []int{7, 200} { // in the middle of hours
				if gone := must[int64](t)(control.ForgetSome(ctx, p.Control, midnight, limit)); gone != int64(limit) {
					t.Fatalf("%d entries are gone, not %d", gone, limit)
				}
				compareAnswers(t, fmt.Sprintf("after another %d entries", limit), answers(t, p.socket, ranges[1:2], "user day"), before)
			}
			old := 0
			for _, e := range entries {
				if e.StartedAt.Before(midnight) {
					old++
				}
			}
			if gone := must[int64](t)(control.Forget(ctx, p.Control, 30*time.Hour)); gone != int64(old-207) {
				t.Errorf("%d entries are gone of %d", gone+207, old)
			}
			compareAnswers(t, "after all", answers(t, p.socket, ranges, groupings), before)
			if gone := must[int64](t)(control.Forget(ctx, p.Control, 30*time.Hour)); gone != 0 {
				t.Errorf("%d more", gone)
			}

			// A node that was restored from a backup delivers the same under other numbers.
			again := fleet.UsageBatch{Node: "n1"}
			for i := range 300 {
				e := entries[i*2]
				e.Seq = int64(len(entries) + i + 1)
				again.Entries = append(again.Entries, e)
			}
			if mark := must[int64](t)(link.Ship(ctx, again)); mark != int64(len(entries)+len(again.Entries)) {
				t.Errorf("the mark is %d", mark)
			}
			compareAnswers(t, "delivered again", answers(t, p.socket, ranges[:1], "user day"), before)

			// What is late counts, now and when it is rolled up too.
			late := entries[0]
			late.ID, late.Node, late.Seq = "late", "n2", 1
			must[int64](t)(p.Link("n2").Ship(ctx, fleet.UsageBatch{Node: "n2", Entries: []fleet.Entry{late}}))
			with := answers(t, p.socket, ranges[:1], "user day")
			if gone := must[int64](t)(control.Forget(ctx, p.Control, 30*time.Hour)); gone != 1 {
				t.Errorf("%d late entries are gone", gone)
			}
			compareAnswers(t, "late", answers(t, p.socket, ranges[:1], "user day"), with)
			all := must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{Endpoint: "all", GroupBy: "user"}))
			if all.Totals.Requests != int64(len(entries)+1) {
				t.Errorf("%d requests", all.Totals.Requests)
			}
		})
	}
}

// What cannot be answered from roll-ups is said to begin where entries do.
func TestRetentionSaysWhatItTook(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	p := open(t, t.TempDir(), func(o *control.Options) { o.Now = func() time.Time { return now } })
	ctx := t.Context()
	at := func(day int, agent string) func(*fleet.Entry) {
		return func(e *fleet.Entry) { e.StartedAt, e.AgentID = time.Date(2026, 11, day, 12, 0, 0, 0, time.UTC), agent }
	}
	must[int64](t)(p.Link("n1").Ship(ctx, fleet.UsageBatch{Node: "n1", Entries: []fleet.Entry{
		entry("n1", 1, at(1, "")), entry("n1", 2, at(2, "a")), entry("n1", 3, at(3, "b")), entry("n1", 4, at(24, "c")),
	}}))
	if u := must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{})); u.KeptFrom != nil {
		t.Errorf("nothing was removed, and there is a mark: %v", u.KeptFrom)
	}
	if gone := must[int64](t)(control.Forget(ctx, p.Control, 7*24*time.Hour)); gone != 3 {
		t.Fatal(gone)
	}
	kept := time.Date(2026, 11, 17, 23, 0, 0, 0, time.UTC) // midnight in Berlin
	said := func(what string, mark *time.Time) {
		t.Helper()
		if mark == nil || !mark.Equal(kept) {
			t.Errorf("%s: entries are kept from %v, want %v", what, mark, kept)
		}
	}
	usage := must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{}))
	said("usage", usage.KeptFrom)
	if usage.Totals.Requests != 4 || len(usage.Rows) != 1 {
		t.Errorf("%+v", usage)
	}
	if s := must[control.Status](t)(p.socket.Status(ctx)); s.Entries != 4 {
		t.Errorf("%d entries in the books", s.Entries)
	}
	report := must[control.Report](t)(p.socket.Report(ctx, control.ReportQuery{Since: "2026-11-01"}))
	said("report", report.KeptFrom)
	if report.TotalRequests != 4 || report.ActiveUsers != 1 || report.Sessions != 1 || report.TopTools[0].Count != 2 {
		t.Errorf("%+v", report)
	}
	repriced := must[control.Repricing](t)(p.socket.Reprice(ctx, control.RepriceQuery{Since: "2026-11-01"}))
	said("reprice", repriced.KeptFrom)
	if repriced.Totals.Requests != 1 {
		t.Errorf("%+v", repriced)
	}
	if u := must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{Since: "2026-11-18"})); u.KeptFrom != nil || u.Totals.Requests != 1 {
		t.Errorf("%+v", u)
	}
	// Agents are main or not; what is of no session that is known stands apart.
	for by, want := range map[string]string{"agent": "*=2 =1 c=1 ", "session": "=3 s1=1 "} {
		text := ""
		for _, row := range must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{GroupBy: by})).Rows {
			text += fmt.Sprintf("%s=%d ", row.Group.Group, row.Group.Requests)
		}
		if text != want {
			t.Errorf("by %s: %q, want %q", by, text, want)
		}
	}
	if u := must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{Session: "s1"})); u.Totals.Requests != 1 {
		t.Errorf("%+v", u.Totals)
	}
	_, err := p.socket.Session(ctx, "gone")
	status(t, err, 404, "2026-11-17T23:00:00Z")
	sessions := must[control.Sessions](t)(p.socket.Sessions(ctx, control.SessionQuery{}))
	said("sessions", sessions.KeptFrom)
}

// A removal that fails at its end changes nothing, and the next one does all of it.
func TestRetentionIsAllOrNothing(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	folder := t.TempDir()
	p := open(t, folder, func(o *control.Options) { o.Now = func() time.Time { return now } })
	ctx := t.Context()
	ship(t, p.Link("n1"), 1, 2, 3, 5) // 4 may come: 5 stays
	count := func() (all, single int64) {
		u := must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{}))
		return u.Totals.Requests, int64(len(u.Rows))
	}
	breakIt := func(statement string) {
		t.Helper()
		db := must[*sql.DB](t)(sql.Open("sqlite", filepath.Join(folder, "control.db")))
		defer db.Close() //nolint:errcheck // nothing is left to be written
		if _, err := db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []string{"INSERT ON removals", "INSERT ON rollups", "DELETE ON entries"} {
		breakIt(`CREATE TRIGGER broken BEFORE ` + step + ` BEGIN SELECT RAISE(ABORT, 'the disk broke'); END`)
		if gone, err := control.Forget(ctx, p.Control, 24*time.Hour); err == nil || gone != 0 || !strings.Contains(err.Error(), "the disk broke") {
			t.Errorf("%s: %d %v", step, gone, err)
		}
		if all, single := count(); all != 4 || single != 4 {
			t.Errorf("%s: %d requests, %d of them single", step, all, single)
		}
		breakIt(`DROP TRIGGER broken`)
	}
	if gone := must[int64](t)(control.Forget(ctx, p.Control, 24*time.Hour)); gone != 3 {
		t.Errorf("%d are gone", gone)
	}
	if all, single := count(); all != 4 || single != 1 {
		t.Errorf("%d requests, %d of them single", all, single)
	}
	drift := func() control.Drift {
		books := must[*control.Books](t)(control.OpenBooks(ctx, filepath.Join(folder, "control.db")))
		defer books.Close() //nolint:errcheck // only read
		return must[control.Drift](t)(books.RollupDrift(ctx))
	}
	if d := drift(); d != (control.Drift{}) {
		t.Errorf("%+v", d)
	}
	breakIt(`UPDATE rollups SET requests = requests + 1, cost_micro_usd = cost_micro_usd + 5, output_tokens = output_tokens - 7`)
	if d := drift(); d != (control.Drift{Requests: 1, Tokens: -7, Cost: 5}) {
		t.Errorf("%+v", d)
	}
}

// Whoever asks while entries are removed counts each once.
func TestSumsWhileEntriesAreRemoved(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	p := open(t, t.TempDir(), func(o *control.Options) { o.Now = func() time.Time { return now } })
	const all = 200
	must[int64](t)(p.Link("n1").Ship(t.Context(), fleet.UsageBatch{Node: "n1", Entries: busyDays(now.AddDate(0, 0, -9), 4, all)}))
	var removing sync.WaitGroup
	ended := make(chan struct{})
	removing.Go(func() {
		defer close(ended)
		for range all / 10 {
			if _, err := control.ForgetSome(t.Context(), p.Control, now, 10); err != nil {
				t.Error(err)
			}
		}
	})
	defer removing.Wait()
	for {
		for _, by := range []string{"", "user"} {
			usage := must[control.Usage](t)(p.socket.Usage(t.Context(), control.UsageQuery{Endpoint: "all", GroupBy: by}))
			if usage.Totals.Requests != all {
				t.Fatalf("%d requests, %d are there", usage.Totals.Requests, all)
			}
		}
		select {
		case <-ended:
			return
		default:
		}
	}
}

func TestForgetEndsWithItsContext(t *testing.T) {
	p := open(t, t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan struct{})
	go func() { p.Forget(ctx, time.Hour); close(ended) }()
	stop()
	<-ended
}

func TestUsageByTwoDimensions(t *testing.T) {
	p := open(t, t.TempDir())
	ctx := t.Context()
	of := func(user, model, agent string) func(*fleet.Entry) {
		return func(e *fleet.Entry) { e.User, e.ModelServed, e.AgentID, e.ParentAgentID = user, model, agent, "up" }
	}
	must[int64](t)(p.Link("n1").Ship(ctx, fleet.UsageBatch{Node: "n1", Entries: []fleet.Entry{
		entry("n1", 1, of("a", "b, c", "")), entry("n1", 2, of("a, b", "c", "")), entry("n1", 3, of("a", "b, c", "x")),
		entry("n1", 4, of("a", "b, c", "")), entry("n1", 5, of("a", "m", "")),
	}}))
	for by, want := range map[string]string{
		"user,model": "[a|b, c]=3 [a|m]=1 [a, b|c]=1 ", "model,user": "[b, c|a]=3 [c|a, b]=1 [m|a]=1 ",
		"day,user": "[2026-11-20|a]=4 [2026-11-20|a, b]=1 ", "agent,user": "[|a]=3 [|a, b]=1 [x|a]=1 ",
	} {
		usage, text := must[control.Usage](t)(p.socket.Usage(ctx, control.UsageQuery{GroupBy: by})), ""
		for _, row := range usage.Rows {
			text += fmt.Sprintf("[%s]=%d ", strings.Join(row.Group.Groups, "|"), row.Group.Requests)
			if row.Group.Group != strings.Join(row.Group.Groups, ", ") || (by == "agent,user") != (row.Group.Parent == "up") {
				t.Errorf("%+v", row.Group)
			}
		}
		if text != want || usage.GroupBy != by || usage.Totals.Requests != 5 {
			t.Errorf("by %s: %q, want %q; %s %+v", by, text, want, usage.GroupBy, usage.Totals)
		}
	}
	for by, want := range map[string]string{"user,user": "unique", "none,user": "groupBy: none goes with nothing else", "user,color": "one of"} {
		_, err := p.socket.Usage(ctx, control.UsageQuery{GroupBy: by})
		status(t, err, 422, want)
	}
}

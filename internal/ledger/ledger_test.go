package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(victimVariable); path != "" {
		victim(path)
		return
	}
	if path := os.Getenv(hurriedVariable); path != "" {
		hurriedVictim(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// clock is a time that stands still until it is told to move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock(now string) *clock {
	at, err := time.Parse(time.RFC3339, now)
	if err != nil {
		panic(err)
	}
	return &clock{now: at}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now string) {
	at := newClock(now).now
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = at
}

func noon() *clock { return newClock("2026-11-23T12:00:00Z") }

func open(t testing.TB, path string, c *clock) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), path, ledger.Options{Node: "n1", Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func shut(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func file(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger.db") }

// ask is an opening of alice's with a quota; limits of -1 are none.
func ask(id string, tokens, daily, monthly int64) ledger.Opening {
	return ledger.Opening{
		Entry: ledger.Entry{
			ID: id, User: "alice", Team: "platform", KeyID: "k1", KeyName: "alice-laptop",
			Endpoint: ledger.EndpointMessages, Stream: true, ModelAsked: "claude-sonnet-4-5",
		},
		Tokens: tokens, InputEstimate: tokens / 2, Daily: daily, Monthly: monthly, Formula: policy.DefaultFormula(),
	}
}

func reserve(t testing.TB, l *ledger.Ledger, o ledger.Opening) *ledger.Exchange {
	t.Helper()
	x, err := l.Reserve(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// finish settles with an input and no output, which the default formula charges as it is.
func finish(t testing.TB, x *ledger.Exchange, input int64) {
	t.Helper()
	e := x.Entry()
	e.Outcome, e.Status, e.InputTokens = fleet.OutcomeFinished, 200, input
	if err := x.Settle(e); err != nil {
		t.Fatal(err)
	}
}

func outbox(t testing.TB, l *ledger.Ledger) []ledger.Entry {
	t.Helper()
	entries, err := l.Outbox(t.Context(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if e.Seq != entries[0].Seq+int64(i) {
			t.Fatalf("entry %d has sequence number %d after %d", i, e.Seq, entries[0].Seq)
		}
	}
	return entries
}

func daily(l *ledger.Ledger, limit int64) fleet.WindowUsage {
	return l.QuotaState("alice", limit, policy.Unlimited, nil).Daily
}

func TestEntryIsKeptWhole(t *testing.T) {
	c := noon()
	path := file(t)
	l := open(t, path, c)
	o := ask("e1", 500, 1000, 10000)
	o.Entry.StartedAt = time.Date(2026, 11, 23, 13, 0, 0, 123456789, time.FixedZone("", 3600))
	x := reserve(t, l, o)
	final := ledger.Entry{
		ID: "another", User: "mallory", KeyID: "k9", Seq: 99, Node: "n9", QuotaTokens: 1,
		FirstByte: 12, Duration: 345, Outcome: fleet.OutcomeFinished, Status: 200,
		ModelSent: "claude-sonnet-4-5-20250929", ModelServed: "claude-sonnet-4-5-20250929", Route: "default", Upstream: "main",
		Attempts: 1, MessageID: "msg_1", StopReason: "end_turn",
		InputTokens: 100, OutputTokens: 50, CacheReadTokens: 7, CacheWrite5mTokens: 5, CacheWrite1hTokens: 3, ThinkingTokens: 20,
		WebSearches: 1, ServiceTier: "standard", Usage: []byte(`{"input_tokens":100}`),
		SessionID: "s1", AgentID: "a1", ParentAgentID: "p1", Client: "claude-cli", ClientVersion: "2.1.330",
		Tools: []fleet.ToolCount{{Name: "Bash", Count: 2}}, FileOperations: 1, RequestBytes: 1000, ResponseBytes: 2000,
	}
	if err := x.Settle(final); err != nil {
		t.Fatal(err)
	}
	want := final
	want.Node, want.Seq, want.ID, want.User, want.Team, want.KeyID, want.KeyName = "n1", 1, "e1", "alice", "platform", "k1", "alice-laptop"
	want.Endpoint, want.Stream, want.ModelAsked = "messages", true, "claude-sonnet-4-5"
	want.StartedAt = time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC)
	want.QuotaTokens = 150
	check := func(l *ledger.Ledger) {
		t.Helper()
		recent, err := l.Recent(t.Context(), "alice", 5)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(recent, []ledger.Entry{want}) || !reflect.DeepEqual(outbox(t, l), recent) {
			t.Errorf("got  %+v\nwant %+v", recent, want)
		}
		activity, err := l.KeyActivity(t.Context())
		if err != nil || len(activity) != 1 || !activity["k1"].Equal(want.StartedAt) {
			t.Errorf("key activity %v, %v", activity, err)
		}
	}
	check(l)
	shut(t, l)
	check(open(t, path, c))
}

func TestBrokenUsageDoesNotBreakTheEntry(t *testing.T) {
	l := open(t, file(t), noon())
	x := reserve(t, l, ask("e1", 0, -1, -1))
	if err := x.Settle(ledger.Entry{Outcome: fleet.OutcomeCut, Usage: []byte(`{"input_tok`), ErrorType: "\xff\x00", InputTokens: -5, OutputTokens: 1 << 62}); err != nil {
		t.Fatal(err)
	}
	if got := outbox(t, l); len(got) != 1 || got[0].Usage != nil || got[0].QuotaTokens != quota.MaxTokens {
		t.Errorf("%+v", got)
	}
}

func TestSettleOnce(t *testing.T) {
	l := open(t, file(t), noon())
	x := reserve(t, l, ask("e1", 100, 1000, 1000))
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() { finish(t, x, 70) })
	}
	group.Wait()
	if got := outbox(t, l); len(got) != 1 {
		t.Errorf("%d entries", len(got))
	}
	if u := daily(l, 1000); u.Used != 70 || u.Reserved != 0 || u.Remaining != 930 {
		t.Errorf("%+v", u)
	}
}

func TestDenied(t *testing.T) {
	for _, c := range []struct {
		why             string
		daily, monthly  int64
		settled, flying int64
		ask             int64
		window          quota.Window // "" is admitted
		temporary       bool
	}{
		{"fits exactly", 100, 100, 40, 10, 50, "", false},
		{"day is full", 100, 1000, 100, 0, 1, quota.Daily, false},
		{"month is full", -1, 100, 100, 0, 1, quota.Monthly, false},
		{"both are full: the month resets last", 100, 100, 100, 0, 1, quota.Monthly, false},
		{"only reservations stand in the way", 100, 1000, 0, 100, 1, quota.Daily, true},
		{"a lasting denial wins over a temporary one", 100, 1000, 100, 900, 0, "", false},
		{"the day for good, the month for now", 150, 200, 100, 50, 51, quota.Daily, false},
		{"both for now: the month resets last", 100, 100, 10, 50, 50, quota.Monthly, true},
		{"never fits", 100, 1000, 0, 0, 101, quota.Daily, false},
		{"nothing is never denied", 0, 0, 100, 0, 0, "", false},
		{"limit zero", 0, -1, 0, 0, 1, quota.Daily, false},
		{"unlimited", -1, -1, 1 << 39, 1 << 39, 1 << 39, "", false},
	} {
		t.Run(c.why, func(t *testing.T) {
			l := open(t, file(t), noon())
			finish(t, reserve(t, l, ask("settled", 0, -1, -1)), c.settled)
			reserve(t, l, ask("flying", c.flying, -1, -1))
			_, err := l.Reserve(t.Context(), ask("asked", c.ask, c.daily, c.monthly))
			if c.window == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			denied, ok := errors.AsType[*ledger.Denied](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			want := ledger.Denied{
				Window: quota.Daily, Limit: c.daily, Used: c.settled, Reserved: c.flying, Asked: c.ask,
				ResetsAt: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Temporary: c.temporary,
			}
			if c.window == quota.Monthly {
				want.Window, want.Limit, want.ResetsAt = quota.Monthly, c.monthly, time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
			}
			if *denied != want {
				t.Errorf("got  %+v\nwant %+v", *denied, want)
			}
			if got := l.QuotaState("alice", 1, 1, nil); got.Daily.Reserved != c.flying || got.Monthly.Reserved != c.flying {
				t.Errorf("a denial holds tokens: %+v", got)
			}
		})
	}
}

func TestExactlyThoseThatFitAreAdmitted(t *testing.T) {
	l := open(t, file(t), noon())
	const fit = 73
	var mu sync.Mutex
	var admitted []*ledger.Exchange
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			x, err := l.Reserve(t.Context(), ask(fmt.Sprint("e", i), 10, fit*10+9, 10_000))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				admitted = append(admitted, x)
			} else if denied, ok := errors.AsType[*ledger.Denied](err); !ok || !denied.Temporary || denied.Window != quota.Daily {
				t.Errorf("%v", err)
			}
		})
	}
	group.Wait()
	if len(admitted) != fit {
		t.Fatalf("%d admitted, want %d", len(admitted), fit)
	}
	for _, x := range admitted {
		group.Go(func() { finish(t, x, 4) })
	}
	group.Wait()
	if u := daily(l, fit*10+9); u.Used != fit*4 || u.Reserved != 0 {
		t.Errorf("%+v", u)
	}
	if got := outbox(t, l); len(got) != fit || l.LastSeq() != fit {
		t.Errorf("%d entries, last %d", len(got), l.LastSeq())
	}
}

func TestCountTokensIsFree(t *testing.T) {
	l := open(t, file(t), noon())
	o := ask("e1", 0, 0, 0)
	o.Entry.Endpoint = ledger.EndpointCountTokens
	finish(t, reserve(t, l, o), 1000)
	if u := daily(l, 0); u.Used != 0 {
		t.Errorf("%+v", u)
	}
	totals, err := l.Totals(t.Context(), ledger.Filter{})
	if err != nil || totals != (ledger.Totals{}) || len(outbox(t, l)) != 1 {
		t.Errorf("%+v, %v", totals, err)
	}
}

func TestWindowsEnd(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	c := newClock("2026-10-31T22:59:59Z") // a second before midnight in Berlin, and before November
	path := file(t)
	l := open(t, path, c)
	in := func(o ledger.Opening) ledger.Opening { o.Location = berlin; return o }
	over := reserve(t, l, in(ask("e1", 60, 100, 100)))
	finish(t, reserve(t, l, in(ask("e2", 40, 100, 100))), 40)
	_, err = l.Reserve(t.Context(), in(ask("e3", 1, 100, 100)))
	if denied, ok := errors.AsType[*ledger.Denied](err); !ok || !denied.ResetsAt.Equal(time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC)) {
		t.Fatal(err)
	}
	c.set("2026-10-31T23:00:00Z")
	finish(t, reserve(t, l, in(ask("e4", 100, 100, 100))), 30)
	finish(t, over, 60) // counts where it was reserved
	want := func(l *ledger.Ledger, day, month int64) {
		t.Helper()
		s := l.QuotaState("alice", 100, 100, berlin)
		if s.Daily.Used != day || s.Monthly.Used != month || s.Daily.Reserved != 0 || s.Monthly.Reserved != 0 {
			t.Errorf("used %d and %d, want %d and %d: %+v", s.Daily.Used, s.Monthly.Used, day, month, s)
		}
	}
	want(l, 30, 30)
	c.set("2026-10-31T22:59:59Z") // the clock is set back across midnight
	want(l, 100, 100)
	c.set("2026-11-02T23:30:00Z")
	want(l, 0, 30)
	finish(t, reserve(t, l, in(ask("e5", 10, 100, 100))), 10)
	want(l, 10, 40)
	c.set("2026-11-02T22:30:00Z")
	want(l, 0, 40)
	c.set("2026-11-01T22:30:00Z")
	want(l, 30, 40)
	shut(t, l)
	c.set("2026-10-31T22:59:59Z")
	want(open(t, path, c), 100, 100)
}

func TestZoneChangeKeepsWhatWasSpent(t *testing.T) {
	l := open(t, file(t), noon())
	finish(t, reserve(t, l, ask("e1", 0, -1, -1)), 70)
	for _, name := range []string{"Asia/Tokyo", "America/New_York"} {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		if s := l.QuotaState("alice", 100, 100, loc); s.Daily.Used != 70 || s.Monthly.Used != 70 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestReset(t *testing.T) {
	path, c := file(t), noon()
	l := open(t, path, c)
	other := ask("b1", 0, -1, -1)
	other.Entry.User = "bob"
	finish(t, reserve(t, l, other), 11)
	finish(t, reserve(t, l, ask("e1", 100, 1000, 1000)), 100)
	flying := reserve(t, l, ask("e2", 50, 1000, 1000))
	reset := func(users []string, windows ...quota.Window) {
		t.Helper()
		if err := l.ResetQuota(t.Context(), users, windows, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := func(day, month, reserved, bob int64) {
		t.Helper()
		a, b := l.QuotaState("alice", 1000, 1000, nil), l.QuotaState("bob", -1, -1, nil)
		if a.Daily.Used != day || a.Monthly.Used != month || a.Daily.Reserved != reserved || a.Monthly.Reserved != reserved || b.Daily.Used != bob {
			t.Errorf("alice %+v, bob %+v", a, b)
		}
	}
	reset([]string{"alice", "nobody"}, quota.Daily)
	want(0, 100, 50, 11)
	finish(t, flying, 30)
	want(30, 130, 0, 11)
	shut(t, l)
	l = open(t, path, c)
	want(30, 130, 0, 11)
	reset(nil)
	want(0, 0, 0, 0)
	shut(t, l)
	l = open(t, path, c)
	want(0, 0, 0, 0)
	if err := l.ResetQuota(t.Context(), nil, []quota.Window{"weekly"}, nil); err == nil {
		t.Error("reset a window that does not exist")
	}
}

func TestRestart(t *testing.T) {
	path, c := file(t), noon()
	l := open(t, path, c)
	finish(t, reserve(t, l, ask("e1", 100, 100, 100)), 90)
	shut(t, l)
	l = open(t, path, c)
	if _, err := l.Reserve(t.Context(), ask("e2", 11, 100, 100)); err == nil {
		t.Error("what was spent before the restart is not spent any more")
	}
	if _, err := l.Reserve(t.Context(), ask("e3", 11, 120, 120)); err != nil {
		t.Errorf("a raised limit is not in force: %v", err)
	}
	finish(t, reserve(t, l, ask("e4", 10, 200, 200)), 10)
	if got := outbox(t, l); len(got) != 2 || got[1].Seq != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAcknowledgeAndPrune(t *testing.T) {
	path, c := file(t), noon()
	l := open(t, path, c)
	for i := range 5 {
		finish(t, reserve(t, l, ask(fmt.Sprint("e", i), 0, -1, -1)), 1)
	}
	select {
	case <-l.Committed():
	default:
		t.Error("no signal after a commit")
	}
	if err := l.Acknowledge(t.Context(), 6); err == nil {
		t.Error("acknowledged an entry that does not exist")
	}
	for _, seq := range []int64{3, 2} {
		if err := l.Acknowledge(t.Context(), seq); err != nil || l.Acknowledged() != 3 {
			t.Errorf("acknowledged %d: %v", l.Acknowledged(), err)
		}
	}
	prune := func(at time.Time, want int64) {
		t.Helper()
		if n, err := l.Prune(t.Context(), at); err != nil || n != want {
			t.Errorf("pruned %d, want %d: %v", n, want, err)
		}
	}
	prune(c.Now(), 0)
	prune(c.Now().Add(time.Second), 3)
	if got := outbox(t, l); len(got) != 2 || got[0].Seq != 4 {
		t.Errorf("%+v", got)
	}
	shut(t, l)
	l = open(t, path, c)
	select {
	case <-l.Committed():
	default:
		t.Error("no signal although the outbox is not empty")
	}
	if err := l.Acknowledge(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	prune(c.Now().Add(time.Second), 2)
	shut(t, l)
	l = open(t, path, c)
	finish(t, reserve(t, l, ask("next", 0, -1, -1)), 1)
	if l.LastSeq() != 6 || l.Acknowledged() != 5 {
		t.Errorf("last %d, acknowledged %d", l.LastSeq(), l.Acknowledged())
	}
	if u := daily(l, -1); u.Used != 6 {
		t.Errorf("%+v", u)
	}
	prune(c.Now().Add(100*24*time.Hour), 0)
}

func TestTotalsAndRecent(t *testing.T) {
	c := newClock("2026-11-23T10:00:00Z")
	l := open(t, file(t), c)
	for i, outcome := range []fleet.Outcome{
		fleet.OutcomeFinished, fleet.OutcomeUpstreamError, fleet.OutcomeFailed, fleet.OutcomeCut, fleet.OutcomeCanceled,
	} {
		c.set(fmt.Sprintf("2026-11-23T1%d:00:00Z", i))
		o := ask(fmt.Sprint("e", i), 0, -1, -1)
		if i == 4 {
			o.Entry.User = "bob"
		}
		if err := reserve(t, l, o).Settle(ledger.Entry{Outcome: outcome, InputTokens: 1, OutputTokens: 2, CacheReadTokens: 3, CacheWrite5mTokens: 4, CacheWrite1hTokens: 5, ThinkingTokens: 6, Cost: 7, CacheSavings: -8}); err != nil {
			t.Fatal(err)
		}
	}
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		filter           ledger.Filter
		requests, errors int64
	}{
		{ledger.Filter{}, 5, 3},
		{ledger.Filter{User: "alice"}, 4, 3},
		{ledger.Filter{User: "bob"}, 1, 0},
		{ledger.Filter{User: "nobody"}, 0, 0},
		{ledger.Filter{Since: at(11)}, 4, 3},
		{ledger.Filter{Until: at(11)}, 1, 0},
		{ledger.Filter{User: "alice", Since: at(11), Until: at(13)}, 2, 2},
	} {
		n := c.requests
		want := ledger.Totals{
			Requests: n, Errors: c.errors, InputTokens: n, OutputTokens: 2 * n, CacheReadTokens: 3 * n, CacheWrite5mTokens: 4 * n,
			CacheWrite1hTokens: 5 * n, ThinkingTokens: 6 * n, QuotaTokens: 3 * n, Cost: 7 * n, CacheSavings: -8 * n,
		}
		if got, err := l.Totals(t.Context(), c.filter); err != nil || got != want {
			t.Errorf("%+v: got %+v, want %+v, %v", c.filter, got, want, err)
		}
	}
	for user, want := range map[string]string{"": "e4 e3 e2", "alice": "e3 e2 e1", "nobody": ""} {
		recent, err := l.Recent(t.Context(), user, 3)
		var ids []string
		for _, e := range recent {
			ids = append(ids, e.ID)
		}
		if got := strings.Join(ids, " "); got != want || err != nil {
			t.Errorf("recent of %q: %s, want %s, %v", user, got, want, err)
		}
	}
}

func TestClosed(t *testing.T) {
	l := open(t, file(t), noon())
	x := reserve(t, l, ask("e1", 10, 100, 100))
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	shut(t, l)
	shut(t, l)
	if _, err := l.Reserve(t.Context(), ask("e2", 10, 100, 100)); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("reserve: %v", err)
	}
	if err := x.Settle(x.Entry()); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("settle: %v", err)
	}
	if err := l.Ready(); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("ready: %v", err)
	}
	if u := daily(l, 100); u.Reserved != 10 {
		t.Errorf("%+v", u)
	}
}

func TestReserveRefusesWhatItCannotRecord(t *testing.T) {
	l := open(t, file(t), noon())
	reserve(t, l, ask("e1", 10, 100, 100))
	if _, err := l.Reserve(t.Context(), ask("e1", 10, 100, 100)); err == nil || errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("the same id twice: %v", err)
	}
	if _, err := l.Reserve(t.Context(), ask("", 10, 100, 100)); err == nil {
		t.Error("admitted without an id")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Reserve(ctx, ask("e2", 10, 100, 100)); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if u := daily(l, 100); u.Reserved != 10 || l.Ready() != nil {
		t.Errorf("%+v, %v", u, l.Ready())
	}
}

func TestMetricsAndLog(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	path := file(t)
	var text strings.Builder
	options := ledger.Options{Node: "n1", Now: noon().Now, Registerer: registry, Log: slog.New(slog.NewTextHandler(&text, nil))}
	for range 2 { // a ledger that is opened again registers again
		l, err := ledger.Open(t.Context(), path, options)
		if err != nil {
			t.Fatal(err)
		}
		finish(t, reserve(t, l, ask(rand(), 10, -1, -1)), 10)
		reserve(t, l, ask(rand(), 10, -1, -1))
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		if n, err := testutil.GatherAndCount(registry, "carpool_ledger_outbox_entries", "carpool_ledger_commit_duration_seconds"); n != 2 || err != nil {
			t.Errorf("%d series, %v", n, err)
		}
		shut(t, l)
	}
	if got := strings.Count(text.String(), "without settling all requests"); got != 1 || !strings.Contains(text.String(), "requests=1") {
		t.Errorf("log: %s", text.String())
	}
	registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "carpool_quota_denials_total", Help: "Requests that did not fit into their user's quota."}))
	if _, err := ledger.Open(t.Context(), path, options); err == nil {
		t.Error("opened although its metrics are taken")
	}
}

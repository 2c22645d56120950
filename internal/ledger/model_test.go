package ledger_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/quota"
)

// disagreement looks for counters that are not the sum of their entries, entries without a counter, and openings.
func disagreement(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	const query = `
		WITH charged AS (
			SELECT c.value ->> 0 AS budget, c.value ->> 1 AS subject, c.value ->> 2 AS series, c.value ->> 3 AS label, sum(c.value ->> 5) AS used
			FROM entries, json_each(charges) c GROUP BY 1, 2, 3, 4),
		budget_sums AS (
			SELECT coalesce(s.budget, c.budget), coalesce(s.series || s.label, c.series || c.label), coalesce(s.used, 0), coalesce(c.used, 0)
			FROM charged s FULL JOIN budget_counters c USING (budget, subject, series, label)
			WHERE coalesce(s.used, 0) <> coalesce(c.used, 0)),
		sums AS (
			SELECT user_name, 'daily' AS period, day AS label, sum(quota_tokens) AS tokens FROM entries GROUP BY 1, 3
			UNION ALL SELECT user_name, 'monthly', month, sum(quota_tokens) FROM entries GROUP BY 1, 3)
		SELECT coalesce(s.user_name, c.user_name), coalesce(s.label, c.label), coalesce(s.tokens, 0), coalesce(c.used + c.waived, 0)
			FROM sums s FULL JOIN counters c USING (user_name, period, label)
			WHERE coalesce(s.tokens, 0) <> coalesce(c.used + c.waived, 0)
		UNION ALL SELECT user_name, id, 1, 0 FROM openings
		UNION ALL SELECT * FROM budget_sums`
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var user, label string
		var entries, counter int64
		if err := rows.Scan(&user, &label, &entries, &counter); err != nil {
			return err
		}
		err = errors.Join(err, fmt.Errorf("%s %s: entries %d, counter %d", user, label, entries, counter))
	}
	return errors.Join(err, rows.Err())
}

// model is a ledger and what it should hold.
type model struct {
	folder string
	path   string
	files  int
	clock  *clock
	ledger *ledger.Ledger
	nextID int
	seq    int64

	used   map[string]int64 // by user and label
	beyond map[string]int64 // used beyond reservations, and what was admitted under other limits
	flying []flight
}

type flight struct {
	exchange   *ledger.Exchange
	user       string
	day, month string
	tokens     int64
	crash      int64 // what it is charged if nobody settles it
}

const (
	modelDaily   = 1000
	modelMonthly = 3000
)

func (m *model) open(t *rapid.T) {
	var err error
	m.ledger, err = ledger.Open(context.Background(), m.path, ledger.Options{Node: "n1", Now: m.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *model) labels() (day, month string) {
	now := m.clock.Now()
	return quota.Daily.Period(now, nil).Label, quota.Monthly.Period(now, nil).Label
}

func (m *model) reserved(user, label string) (sum int64) {
	for _, f := range m.flying {
		if f.user == user && (f.day == label || f.month == label) {
			sum += f.tokens
		}
	}
	return sum
}

func (m *model) reserve(t *rapid.T) {
	user := rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "user")
	tokens := rapid.Int64Range(0, 400).Draw(t, "tokens")
	day, month := m.labels()
	m.nextID++
	o := ask(fmt.Sprintf("e%06d", m.nextID), tokens, modelDaily, modelMonthly)
	o.Entry.User = user
	fits := tokens == 0 || m.used[user+day]+m.reserved(user, day)+tokens <= modelDaily &&
		m.used[user+month]+m.reserved(user, month)+tokens <= modelMonthly
	x, err := m.ledger.Reserve(context.Background(), o)
	if (err == nil) != fits {
		t.Fatalf("%d tokens fit: %v, but %v", tokens, fits, err)
	}
	if err == nil {
		m.flying = append(m.flying, flight{x, user, day, month, tokens, tokens / 2})
	}
}

// checkpoint lets an exchange say what it has cost so far, and something else take that along into the journal.
func (m *model) checkpoint(t *rapid.T) {
	if len(m.flying) == 0 {
		return
	}
	f := &m.flying[rapid.IntRange(0, len(m.flying)-1).Draw(t, "which")]
	f.crash = rapid.Int64Range(0, 500).Draw(t, "so far")
	e := f.exchange.Entry()
	e.Status, e.InputTokens, e.OutputTokens = 200, f.crash, 0
	f.exchange.Checkpoint(e)
	m.nextID++
	free := ask(fmt.Sprintf("e%06d", m.nextID), 0, modelDaily, modelMonthly)
	x, err := m.ledger.Reserve(context.Background(), free)
	if err != nil {
		t.Fatal(err)
	}
	day, month := m.labels()
	m.flying = append(m.flying, flight{x, free.Entry.User, day, month, 0, 0})
}

func (m *model) charge(f flight, tokens int64) {
	for _, key := range []string{f.user + f.day, f.user + f.month} {
		m.used[key] += tokens
		m.beyond[key] += max(tokens-f.tokens, 0)
	}
	m.seq++
}

func (m *model) settle(t *rapid.T) {
	if len(m.flying) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.flying)-1).Draw(t, "which")
	f, actual := m.flying[i], rapid.Int64Range(0, 500).Draw(t, "actual")
	e := f.exchange.Entry()
	e.Outcome, e.OutputTokens = fleet.OutcomeFinished, actual
	if err := f.exchange.Settle(e); err != nil {
		t.Fatal(err)
	}
	m.charge(f, actual)
	m.flying = append(m.flying[:i], m.flying[i+1:]...)
}

func (m *model) reset(t *rapid.T) {
	users := rapid.SampledFrom([][]string{nil, {"alice"}, {"alice", "bob"}}).Draw(t, "users")
	windows := rapid.SampledFrom([][]quota.Window{nil, {quota.Daily}, {quota.Monthly}}).Draw(t, "windows")
	if err := m.ledger.ResetQuota(context.Background(), users, windows, nil); err != nil {
		t.Fatal(err)
	}
	day, month := m.labels()
	if users == nil {
		users = []string{"alice", "bob"}
	}
	for _, user := range users {
		if len(windows) == 0 || windows[0] == quota.Daily {
			delete(m.used, user+day)
		}
		if len(windows) == 0 || windows[0] == quota.Monthly {
			delete(m.used, user+month)
		}
	}
}

// ship reads a part of the outbox, which must be what the file has, and may acknowledge it.
func (m *model) ship(t *rapid.T) {
	ctx := context.Background()
	after := rapid.Int64Range(0, m.seq).Draw(t, "after")
	limit := rapid.IntRange(1, 20).Draw(t, "limit")
	entries, err := m.ledger.Outbox(ctx, after, limit)
	if err != nil {
		t.Fatal(err)
	}
	if want := min(int64(limit), m.seq-after); int64(len(entries)) != want {
		t.Fatalf("%d entries after %d of %d, want %d", len(entries), after, m.seq, want)
	}
	stored, err := bodies(ctx, m.path, after, limit)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if e.Seq != after+int64(i)+1 || !reflect.DeepEqual(e, stored[i]) {
			t.Fatalf("the outbox has %+v, the file %+v", e, stored[i])
		}
	}
	if len(entries) > 0 && rapid.Bool().Draw(t, "acknowledge") {
		if err := m.ledger.Acknowledge(ctx, entries[len(entries)-1].Seq); err != nil {
			t.Fatal(err)
		}
	}
}

// bodies reads entries as a file has them.
func bodies(ctx context.Context, path string, after int64, limit int) (entries []ledger.Entry, err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, `SELECT seq, node, body FROM entries WHERE seq > ? ORDER BY seq LIMIT ?`, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var node string
		var body []byte
		var e ledger.Entry
		if err := rows.Scan(&seq, &node, &body); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(body, &e); err != nil {
			return nil, err
		}
		e.Seq, e.Node = seq, node
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// restart goes on with the files as they are at this moment, as after a crash, or closes them first. Both leave nothing
// in flight.
func (m *model) restart(t *rapid.T) {
	if rapid.Bool().Draw(t, "crash") {
		from := m.path
		m.files++
		m.path = filepath.Join(m.folder, fmt.Sprintf("%d.db", m.files))
		image(t, from, m.path)
	}
	if err := m.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	m.recover(t)
}

func (m *model) recover(t *rapid.T) {
	for _, f := range m.flying {
		m.charge(f, f.crash)
	}
	m.flying = nil
	m.open(t)
	if err := disagreement(context.Background(), m.path); err != nil {
		t.Fatal(err)
	}
}

func (m *model) check(t *rapid.T) {
	day, month := m.labels()
	for _, user := range []string{"alice", "bob"} {
		s := m.ledger.QuotaState(user, modelDaily, modelMonthly, nil)
		for label, got := range map[string]fleet.WindowUsage{day: s.Daily, month: s.Monthly} {
			used, reserved := m.used[user+label], m.reserved(user, label)
			if got.Used != used || got.Reserved != reserved || got.Remaining != max(got.Limit-used-reserved, 0) {
				t.Fatalf("%s %s: got %+v, want used %d, reserved %d", user, label, got, used, reserved)
			}
			if used+reserved > got.Limit+m.beyond[user+label] {
				t.Fatalf("%s %s: %+v is over by more than %d", user, label, got, m.beyond[user+label])
			}
		}
	}
	if m.ledger.LastSeq() != m.seq {
		t.Fatalf("sequence %d, want %d", m.ledger.LastSeq(), m.seq)
	}
}

func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		folder, err := os.MkdirTemp("", "carpool-ledger-") //nolint:usetesting // a new one for each check, of which there are hundreds
		if err != nil {
			t.Fatal(err)
		}
		m := &model{
			folder: folder, path: filepath.Join(folder, "0.db"), clock: newClock("2026-11-30T20:00:00Z"),
			used: map[string]int64{}, beyond: map[string]int64{},
		}
		m.open(t)
		defer func() {
			if err := errors.Join(m.ledger.Close(), os.RemoveAll(folder)); err != nil {
				t.Error(err)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"reserve": m.reserve, "reserve again": m.reserve, "settle": m.settle, "settle again": m.settle, "checkpoint": m.checkpoint,
			"ship": m.ship, "reset": m.reset, "restart": m.restart,
			"time": func(t *rapid.T) {
				hours := rapid.IntRange(-2, 9).Draw(t, "hours")
				m.clock.set(m.clock.Now().Add(time.Duration(hours) * time.Hour).Format(time.RFC3339))
			},
			"": m.check,
		})
		entries, err := m.ledger.Outbox(context.Background(), 0, 10_000)
		if err != nil || int64(len(entries)) != m.seq {
			t.Fatalf("%d entries, want %d, %v", len(entries), m.seq, err)
		}
	})
}

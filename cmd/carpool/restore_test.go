package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/control"
	"carpool/internal/gateway"
	"carpool/internal/ledger"
	"carpool/internal/node"
	"carpool/internal/policy"
)

// site is a data folder whose databases are put back now and then.
type site struct {
	t      *testing.T
	folder string
	copies int
	now    time.Time
}

func (s *site) path(name string) string { return filepath.Join(s.folder, name+".db") }

// running is control and a ledger with a node between them.
type running struct {
	site    *site
	control *control.Control
	ledger  *ledger.Ledger
	stop    func() // ships what is settled, as at the end of every run, and closes everything
}

func (s *site) open(t *testing.T) (*control.Control, *ledger.Ledger) {
	t.Helper()
	master, err := control.LoadMasterKey(filepath.Join(s.folder, "master.key"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	c, err := control.Open(t.Context(), control.Options{
		StorePath: s.path("control"), MasterKey: master, Settings: policy.Settings{TimeZone: "UTC", Formula: policy.DefaultFormula()},
		Now: time.Now, Random: rand.Reader, Log: log, Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s.path("node"), ledger.Options{Node: "local", Now: func() time.Time { return s.now }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return c, l
}

func (s *site) start() *running {
	s.t.Helper()
	c, l := s.open(s.t)
	n, err := node.New(s.t.Context(), node.Options{
		Name: "local", Version: "test", Link: c.Link("local"), Ledger: l, Hasher: policy.NewHasher(nil), Log: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(), Now: time.Now, Bodies: gateway.BodyLimits{Size: 1 << 20, Timeout: time.Second},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return &running{s, c, l, func() {
		ended, end := context.WithCancel(s.t.Context())
		end()
		n.Run(ended)
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
		if err := c.Close(); err != nil {
			s.t.Error(err)
		}
	}}
}

func (r *running) begin(id string) *ledger.Exchange {
	r.site.t.Helper()
	r.site.now = r.site.now.Add(time.Second)
	x, err := r.ledger.Reserve(r.site.t.Context(), ledger.Opening{
		Entry: ledger.Entry{ID: id, User: "alice", Endpoint: ledger.EndpointMessages}, Daily: policy.Unlimited, Monthly: policy.Unlimited,
	})
	if err != nil {
		r.site.t.Fatal(err)
	}
	return x
}

func (r *running) end(x *ledger.Exchange) {
	r.site.t.Helper()
	e := x.Entry()
	e.Outcome, e.InputTokens = "finished", 1
	if err := x.Settle(e); err != nil {
		r.site.t.Fatal(err)
	}
}

func (r *running) spend(ids ...string) {
	for _, id := range ids {
		r.end(r.begin(id))
	}
}

// copy makes a copy of one of the databases, and returns its path.
func (r *running) copy(name string) string {
	r.site.t.Helper()
	write := r.control.Backup
	if name == "node" {
		write = r.ledger.Backup
	}
	r.site.copies++
	path := r.site.path(fmt.Sprintf("%s-%d", name, r.site.copies))
	if err := write(r.site.t.Context(), path); err != nil {
		r.site.t.Fatal(err)
	}
	return path
}

// restore puts a copy in the place of a database; "" only loses it.
func (s *site) restore(name, from string) {
	s.t.Helper()
	old, err := filepath.Glob(s.path(name) + "*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			s.t.Fatal(err)
		}
	}
	if from == "" {
		return
	}
	if err := os.Rename(from, s.path(name)); err != nil {
		s.t.Fatal(err)
	}
}

// expect looks, while nothing runs, at what control has booked and that nothing waits in the ledger.
func (s *site) expect(ids ...string) {
	s.t.Helper()
	c, l := s.open(s.t)
	defer func() { _, _ = l.Close(), c.Close() }()
	if l.Acknowledged() != l.LastSeq() {
		s.t.Errorf("the ledger ends at %d, and %d is acknowledged", l.LastSeq(), l.Acknowledged())
	}
	got := booked(s.t, s.path("control"))
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		s.t.Errorf("control has %v, want %v", got, ids)
	}
}

// booked returns the ids of control's entries, sorted.
func booked(t *testing.T, path string) (ids []string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), `SELECT id FROM entries ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return ids
}

func newSite(t *testing.T) *site {
	return &site{t: t, folder: t.TempDir(), now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
}

func TestAnOlderNodeDatabaseLosesNothing(t *testing.T) {
	s := newSite(t)
	r := s.start()
	r.spend("a", "b")
	settled, unsettled := r.begin("c"), r.begin("d")
	older := r.copy("node") // c and d are open in it
	r.end(settled)
	r.spend("e")
	r.end(unsettled)
	r.stop()
	s.expect("a", "b", "c", "d", "e")

	// What is open in the copy is settled as crashed: control has it already.
	s.restore("node", older)
	r = s.start()
	r.spend("f", "g")
	r.stop()
	s.expect("a", "b", "c", "d", "e", "f", "g")

	s.restore("node", "")
	r = s.start()
	r.spend("h")
	r.stop()
	r = s.start()
	r.spend("i")
	r.stop()
	s.expect("a", "b", "c", "d", "e", "f", "g", "h", "i")
}

func TestAnOlderControlDatabaseGetsWhatItLacks(t *testing.T) {
	for _, name := range []string{"older", "lost"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			r := s.start()
			r.spend("a", "b")
			r.stop()
			r = s.start()
			older := ""
			if name == "older" {
				older = r.copy("control")
			}
			r.spend("c", "d")
			r.stop()
			s.expect("a", "b", "c", "d")

			s.restore("control", older)
			r = s.start()
			r.stop() // nothing new has to come first
			s.expect("a", "b", "c", "d")
			r = s.start()
			r.spend("e")
			r.stop()
			s.expect("a", "b", "c", "d", "e")
		})
	}
}

func TestControlDoesNotWaitForWhatIsPruned(t *testing.T) {
	s := newSite(t)
	r := s.start()
	older := r.copy("control")
	slow := r.begin("slow")
	r.spend("a", "b")
	slept := s.now.Add(time.Hour)
	s.now = slept
	r.spend("c")
	r.end(slow)
	r.spend("d")
	r.stop()
	s.expect("a", "b", "c", "d", "slow")

	// A hole before c. The slow one, which had begun first and ended after c, goes with c and not before.
	r = s.start()
	if n, err := r.ledger.Prune(t.Context(), slept); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	r.stop()
	s.restore("control", older)
	r = s.start()
	r.spend("e")
	r.stop()
	s.expect("c", "d", "e", "slow")

	// Nothing left at all.
	r = s.start()
	if n, err := r.ledger.Prune(t.Context(), s.now.Add(time.Hour)); err != nil || n != 4 {
		t.Fatal(n, err)
	}
	r.stop()
	s.restore("control", "")
	r = s.start()
	r.stop()
	s.expect()
	r = s.start()
	r.spend("f")
	r.stop()
	s.expect("f")
}

func TestAPairOfBackupsGoesOn(t *testing.T) {
	s := newSite(t)
	r := s.start()
	r.spend("a")
	nodeCopy := r.copy("node")
	r.spend("b")
	r.stop()
	r = s.start()
	controlCopy := r.copy("control")
	r.spend("c")
	r.stop()
	s.restore("node", nodeCopy)
	s.restore("control", controlCopy)
	r = s.start()
	r.spend("d")
	r.stop()
	s.expect("a", "b", "d")
}

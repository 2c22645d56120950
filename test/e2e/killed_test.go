package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

var kills = flag.Int("kills", 3, "how often TestKilled kills the server")

// longestSoak is after what time no kill follows any more.
const longestSoak = 10 * time.Minute

// driver is a user of the pool under test, with a key of the same name.
type driver struct{ name, team string }

func drivers() []driver {
	return []driver{{"alice", "platform"}, {"bob", "platform"}, {"carol", "research"}, {"dave", "research"}, {"erin", "research"}}
}

// tight is the name of the budget that has no room for all of dave's requests; the others have.
const tight = "dave-in-all"

// killedResources is a pool with quotas and with budgets of every kind.
func killedResources(upstream string, kills int) string {
	text := fmt.Sprintf(`upstreams:
  - {name: main, provider: anthropic, baseUrl: %q, apiKeyEnv: E2E_UPSTREAM_KEY}
  - {name: second, provider: anthropic, baseUrl: %q, apiKey: %s}
routes:
  - {name: default, models: ["*"], upstreams: [main, second]}
budgets:
  - {name: everybody, scope: organization, amount: 1000000000000 tokens, window: day, rolling: true}
  - {name: platform, scope: team/platform, amount: 1000000 USD, window: lifetime, mode: strict}
  - {name: each, scope: team/research, perMember: true, amount: 1000000000000 tokens, window: lifetime}
  - {name: bob, scope: user/bob, amount: 1000000 USD, window: week, rolling: true}
  - {name: carols-key, scope: key/carol, amount: 1000000000000 tokens, window: lifetime, mode: strict}
  - {name: %s, scope: user/dave, amount: %d.%02d USD, window: lifetime, mode: strict}
`, upstream, upstream, spare, tight, kills*6/100, kills*6%100)
	users, keys := "users:\n", "keys:\n"
	for _, d := range drivers() {
		users += fmt.Sprintf("  - {name: %s, team: %s, quota: {daily: 1000000000, monthly: 10000000000}, limits: {inFlight: 100000}}\n", d.name, d.team)
		keys += fmt.Sprintf("  - {name: %s, user: %s, key: %s, limits: {inFlight: 0}}\n", d.name, d.name, newKey(d.name))
	}
	return text + users + keys
}

// soak is a server that is killed and started again on the same data, and all that is known of what it was asked.
type soak struct {
	t     *testing.T
	dir   string
	sim   *simulator
	g     *gateway
	books *reconciliation

	kills, starts int // of the server as it served, and as it started
	loaded        time.Duration
}

// TestKilled: a server that is killed at any moment under load, and started again, has one entry for each request that reached the
// upstream and none for others; an answer that a client saw to its end is booked with what the upstream says that it used; and all
// counters, hashes and copies agree with the entries.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := &soak{t: t, dir: t.TempDir(), sim: startSim(t, "--credential", simKey, "--credential", spare)}
	s.books = newReconciliation(t, s.sim)
	write(t, filepath.Join(s.dir, "resources.yml"), killedResources(s.sim.url, *kills))
	write(t, filepath.Join(s.dir, "carpool.yml"), configFor(s.dir, "drainTimeout: 5s"))
	begun := time.Now()
	s.start()
	for s.kills < *kills && !t.Failed() {
		if time.Since(begun) > longestSoak {
			t.Errorf("time is up after %d of %d kills", s.kills, *kills)
			break
		}
		s.cycle()
	}
	s.report()
}

// start starts the server and waits until it serves.
func (s *soak) start() {
	s.t.Helper()
	p := s.launch()
	s.g = &gateway{t: s.t, proc: p, data: filepath.Join(s.dir, "data"), key: newKey("alice"), url: p.line(p.stderr, "its address", serving)}
}

func (s *soak) launch() *process {
	return start(s.t, s.dir, plainEnv(s.dir, "E2E_UPSTREAM_KEY="+simKey), binary, "serve", "--config", "carpool.yml")
}

// cycle puts load on the server, kills it, starts it again and reconciles.
func (s *soak) cycle() {
	since := time.Now()
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	l := startTraffic(ctx, s.t, s.g, fmt.Sprintf("soak-%d", s.kills))
	<-time.After(500*time.Millisecond + rand.N(4*time.Second))
	s.g.proc.kill()
	stop()
	s.loaded += time.Since(since)
	s.kills++
	s.books.asked(l.end())
	s.books.receive()
	s.verify("dead")
	for rand.IntN(3) == 0 { // a server that recovers may be killed as well
		p := s.launch()
		<-time.After(rand.N(300 * time.Millisecond))
		p.kill()
		s.starts++
		s.verify("killed as it started")
	}
	s.start()
	s.shipped()
	s.books.book(s.entries(since))
	if got, want := s.verify("started again"), int64(len(s.books.entries)); got.Entries != want || got.Compared != want || got.Open != 0 {
		s.t.Errorf("after kill %d control showed %d entries; verified: %+v", s.kills, want, got)
	}
	s.counters()
	s.t.Logf("kill %d: %v", s.kills, s.books.judge())
}

// verify lets the command line verify the books, in which nothing may be wrong, server or not.
func (s *soak) verify(when string) (v verified) {
	s.t.Helper()
	r := s.g.run("db", "verify", "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.code != 0 || len(v.Findings) > 0 {
		s.t.Errorf("kill %d, %s: exit status %d\n%s%s", s.kills, when, r.code, r.stdout, r.stderr)
	}
	return v
}

// shipped waits until control has all entries.
func (s *soak) shipped() {
	s.t.Helper()
	eventually(s.t, callPatience, "control has what the ledger has", func() bool {
		return s.g.metric("carpool_ledger_outbox_entries") == 0
	})
}

// entries is what control has of the time since then.
func (s *soak) entries(since time.Time) []booked {
	s.t.Helper()
	var b struct{ Rows []booked }
	s.g.decode(&b, "usage", "--endpoint", "all", "--all", "--since", since.Add(-time.Second).UTC().Format(time.RFC3339))
	return b.Rows
}

// counters compares what quotas and budgets say is used with the entries. Nothing is running.
func (s *soak) counters() {
	s.t.Helper()
	var quotas []struct {
		User           string
		Daily, Monthly struct{ Used, Reserved int64 }
	}
	s.g.decode(&quotas, "quota", "list")
	now := time.Now().UTC()
	day := now.Truncate(24 * time.Hour)
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	for _, q := range quotas {
		ofDay, ofMonth := s.books.quota(q.User, day), s.books.quota(q.User, month)
		if q.Daily.Used != ofDay || q.Monthly.Used != ofMonth || q.Daily.Reserved != 0 || q.Monthly.Reserved != 0 {
			s.t.Errorf("kill %d: the quota %+v, and the entries say %d and %d", s.kills, q, ofDay, ofMonth)
		}
	}
	var budgets []struct {
		Name  string
		State []struct {
			Subject, Unit          string
			Amount, Used, Reserved int64
		}
	}
	s.g.decode(&budgets, "budget", "list")
	compared := 0
	for _, b := range budgets {
		for _, part := range b.State {
			compared++
			if want := s.books.spent(part.Subject, part.Unit); part.Used != want || part.Reserved != 0 {
				s.t.Errorf("kill %d: budget %s of %s has used %d and holds %d, and the entries say %d", s.kills, b.Name, part.Subject, part.Used, part.Reserved, want)
			}
			if b.Name == tight && part.Used > part.Amount {
				s.t.Errorf("kill %d: of %d micro-dollars %d were spent", s.kills, part.Amount, part.Used)
			}
		}
	}
	if len(quotas) != len(drivers()) || compared < 8 {
		s.t.Errorf("kill %d: %d quotas and %d parts of budgets", s.kills, len(quotas), compared)
	}
}

// report stops the server and compares the whole with the simulator's own report.
func (s *soak) report() {
	s.t.Helper()
	s.books.receive()
	again := s.entries(time.Unix(0, 0).Add(time.Hour))
	s.books.book(again)
	if n := len(s.books.entries); len(again) != n {
		s.t.Errorf("control has %d entries and showed %d", len(again), n)
	}
	drift := s.books.reported(s.g)
	s.g.proc.terminate()
	s.verify("stopped")
	j := s.books.judge()
	if estimated := j.estimated(); drift != estimated {
		s.t.Errorf("the books differ from the simulator's report by %+v, and the estimates by %+v", drift, estimated)
	}
	if j.finished == 0 || j.crashed == 0 || j.denied == 0 {
		s.t.Error("the load was not mixed")
	}
	s.t.Logf("%d kills under load and %d of a server that recovered; %.0f requests a second\n%s",
		s.kills, s.starts, float64(j.sent)/s.loaded.Seconds(), j.table())
}

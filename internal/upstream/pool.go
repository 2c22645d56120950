package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/wire"
)

// Options configure a Pool.
type Options struct {
	Client     *wire.Client
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
	Random     func(n int) int // uniform in [0, n)
}

// Pool sends exchanges to the upstreams of a route and remembers how they answered. It is safe for concurrent use.
type Pool struct {
	client    *wire.Client
	log       *slog.Logger
	now       func() time.Time
	random    func(n int) int
	metrics   *metrics
	providers map[string]Provider
	affinity  *affinity
	errorTime time.Duration
	buffers   plainBuffers

	mu      sync.Mutex
	members map[string]*member    // by upstream name
	models  map[string]*modelList // by upstream name
	tasks   sync.WaitGroup
}

// member is what the pool knows of an upstream. A new one begins when its address or credential changes.
type member struct {
	identity identity
	health   health
}

// NewPool returns a Pool.
func NewPool(o Options) *Pool {
	p := &Pool{
		client: o.Client, log: o.Log, now: o.Now, random: o.Random, metrics: newMetrics(o.Registerer),
		providers: providers(), affinity: newAffinity(), errorTime: errorTime, members: map[string]*member{}, models: map[string]*modelList{},
	}
	o.Registerer.MustRegister(&coolingCollector{p})
	return p
}

// Close waits for background work and drops idle connections.
func (p *Pool) Close() {
	p.tasks.Wait()
	p.client.Close()
}

// Bind tells the pool which upstream served a session before the process started.
func (p *Pool) Bind(route, session, upstream string, at time.Time) {
	p.affinity.bind(route, session, upstream, at)
}

// Retain forgets what is known of upstreams other than these; those that are disabled or have become other ones are forgotten, too,
// and begin afresh. It is to be called with all upstreams of a policy that comes into force.
func (p *Pool) Retain(upstreams []*policy.Upstream) {
	keep := make(map[string]identity, len(upstreams))
	for _, u := range upstreams {
		if !u.Disabled {
			keep[u.Name] = identityOf(u)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.members, func(name string, m *member) bool { return keep[name] != m.identity })
	maps.DeleteFunc(p.models, func(name string, list *modelList) bool { return keep[name] != list.identity })
}

// Broke tells the pool that an upstream cut an answer which it had begun. It counts as a failure of the upstream, and the session
// is free to go elsewhere. model is the one that was sent.
func (p *Pool) Broke(route, session string, u *policy.Upstream, model string) {
	p.affinity.unbind(route, session, u.Name)
	o := &outcome{cause: causeBroken, failure: own(anthropic.ErrUpstream(fmt.Errorf("upstream %q cut its answer", u.Name)))}
	if p.health(u).broke(model, o, p.now(), p.spread()) {
		p.logCooling(u.Name, model, o)
	}
}

// Cooling lists why upstreams, or models of them, are left alone at this moment, in the order of upstreams' names.
func (p *Pool) Cooling() []Cooling {
	p.mu.Lock()
	members := maps.Clone(p.members)
	p.mu.Unlock()
	var all []Cooling
	for _, name := range slices.Sorted(maps.Keys(members)) {
		for _, c := range members[name].health.cooling(p.now()) {
			c.Upstream = name
			all = append(all, c)
		}
	}
	return all
}

// spread is what varies the length of cooldowns, from 0 to 1, so that nodes do not come back all at once.
func (p *Pool) spread() float64 { return float64(p.random(1000)) / 1000 }

func (p *Pool) logCooling(upstream, model string, o *outcome) {
	p.log.Warn("an upstream is left alone for a while", slog.String("upstream", upstream), slog.String("model", model),
		slog.String("cause", string(o.cause)), slog.String("error", o.describe()))
}

func (p *Pool) health(u *policy.Upstream) *health {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.members[u.Name]
	if id := identityOf(u); m == nil || m.identity != id {
		m = &member{identity: id}
		p.members[u.Name] = m
	}
	return &m.health
}

// Result is what became of an exchange.
type Result struct {
	Answer    *Answer  // nil when there is none
	Failure   *Failure // what the client gets instead
	Upstream  string   // the last one asked
	ModelSent string
	Attempts  int
	MovedFrom string // the session's upstream, when another one had to serve it
}

// Do sends an exchange to the best upstream of a target, and to the next best as long as nothing has come back that could
// be the answer, each at most once. Nothing of the answer's body has been consumed when it returns. The error is that of
// ctx.
func (p *Pool) Do(ctx context.Context, target policy.Target, x *Exchange) (Result, error) {
	s := &search{
		pool: p, target: target, exchange: x, until: p.now().Add(selectionTime), patience: queueWait,
		bound: p.affinity.lookup(target.Route, x.Session, p.now()), aside: x.Path != messagesPath,
	}
	s.candidates = p.order(target.Upstreams, x.Model, s.bound)
	switch done, err := s.run(ctx); {
	case err != nil:
		return s.result, err
	case done:
		s.note()
	default:
		s.result.Failure = s.giveUp()
	}
	return s.result, nil
}

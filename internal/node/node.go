package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/fleet"
	"carpool/internal/gateway"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/upstream"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// Options are what a Node is made of.
type Options struct {
	Name        string
	Version     string // of the program
	Link        fleet.Link
	Ledger      *ledger.Ledger
	Hasher      policy.Hasher
	Client      wire.ClientOptions
	Bodies      gateway.BodyLimits
	MaxRequests int64 // served at once, health checks aside; 0: no limit
	Log         *slog.Logger
	Registerer  prometheus.Registerer
	Now         func() time.Time
	Retention   time.Duration // how long the ledger keeps entries that control has; 0: for ever
}

// Node is a running data plane.
type Node struct {
	name     string
	version  string
	link     fleet.Link
	ledger   *ledger.Ledger
	pool     *upstream.Pool
	gateway  *gateway.Gateway
	serve    web.Handler // the gateway, with a limit
	snapshot atomic.Pointer[policy.Snapshot]
	log      *slog.Logger
	now      func() time.Time
	started  time.Time

	retention time.Duration
	draining  atomic.Bool
	connected atomic.Bool
	warning   atomic.Pointer[string] // see Warn

	mu      sync.Mutex
	refused int64  // version of a newer document that did not compile
	problem string // why

	ship sync.Mutex
	mark int64 // up to which control has everything, by its last answer; ship guards it
}

// New assembles a node, waits for its first policy, and agrees with control on where the ledger goes on.
func New(ctx context.Context, o Options) (*Node, error) {
	n := &Node{name: o.Name, version: o.Version, link: o.Link, ledger: o.Ledger, log: o.Log, now: o.Now, started: o.Now(), retention: o.Retention}
	n.pool = upstream.NewPool(upstream.Options{
		Client: wire.NewClient(o.Client), Log: o.Log, Registerer: o.Registerer, Now: o.Now, Random: randomIndex,
	})
	n.gateway = gateway.New(gateway.Options{
		Snapshot: &n.snapshot, Hasher: o.Hasher, Ledger: o.Ledger, Pool: n.pool, Log: o.Log, Registerer: o.Registerer, Now: o.Now,
		Bodies: o.Bodies,
	})
	// Prompt caches outlive a restart of the node, so sessions go on where they were.
	err := n.ledger.Sessions(ctx, o.Now().Add(-upstream.AffinityTTL), func(s ledger.Session) { n.pool.Bind(s.Route, s.Session, s.Upstream, s.At) })
	if err != nil {
		return nil, err
	}
	n.serve = n.gateway.Handle
	if o.MaxRequests > 0 {
		n.serve = web.AtMost(o.MaxRequests, n.gateway.Handle)
	}
	doc, err := n.link.Snapshot(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot get a policy: %w", err)
	}
	if err := n.apply(ctx, doc); err != nil {
		return nil, err
	}
	if err := n.resume(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

func randomIndex(n int) int {
	if n <= 1 {
		return 0
	}
	var b [8]byte
	_, _ = rand.Read(b[:])                                   // never fails
	return int(binary.LittleEndian.Uint64(b[:]) % uint64(n)) //nolint:gosec // n is a small positive sum of weights
}

// Run keeps the node in touch with control until ctx ends, then ships what is left in the ledger.
func (n *Node) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, loop := range []func(context.Context){n.followPolicy, n.shipUsage, n.obey, n.beat, n.forget} {
		loops.Go(func() { loop(ctx) })
	}
	loops.Wait()
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if err := n.shipAll(last); err != nil {
		n.log.Warn("entries stay in the ledger until the next start", slog.String("error", err.Error()))
	}
	n.pool.Close()
}

// Drain makes the node unready: load balancers stop sending to it, what runs goes on.
func (n *Node) Drain() { n.draining.Store(true) }

// Warn has health checks tell of a problem that does not keep the node from serving, until it is "".
func (n *Node) Warn(problem string) { n.warning.Store(&problem) }

// Handle answers everything a node serves. It is a web.Handler.
func (n *Node) Handle(ctx context.Context, w wire.Writer, r *web.Request) error {
	switch r.Path {
	case "/health", "/live", "/ready":
		return n.health(w, r)
	}
	return n.serve(ctx, w, r)
}

// SetBodyLimits changes the limits of requests that begin from now on.
func (n *Node) SetBodyLimits(l gateway.BodyLimits) { n.gateway.SetBodyLimits(l) }

// apply puts a document in force, or says why not and leaves the old one.
func (n *Node) apply(ctx context.Context, doc *policy.Document) error {
	snapshot, err := policy.Compile(doc)
	n.mu.Lock()
	if err != nil {
		n.refused, n.problem = doc.Version, err.Error()
	} else {
		n.refused, n.problem = 0, ""
		n.snapshot.Store(snapshot)
		n.pool.Retain(snapshot.Upstreams())
	}
	n.mu.Unlock()
	n.heartbeat(ctx)
	if err != nil {
		return fmt.Errorf("cannot put policy version %d in force: %w", doc.Version, err)
	}
	return nil
}

func (n *Node) heartbeat(ctx context.Context) {
	n.mu.Lock()
	beat := fleet.Heartbeat{
		Protocol: fleet.Protocol, Time: n.now(), Refused: n.refused, Problem: n.problem,
		Outbox: n.ledger.LastSeq() - n.ledger.Acknowledged(), InFlight: n.gateway.InFlight(),
	}
	if s := n.snapshot.Load(); s != nil {
		beat.Applied = s.Version
	}
	n.mu.Unlock()
	n.connected.Store(n.link.Heartbeat(ctx, beat) == nil)
}

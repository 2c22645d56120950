package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/control/store"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// Options are what Open needs.
type Options struct {
	StorePath      string // of the SQLite database
	MasterKey      MasterKey
	Settings       policy.Settings
	DefaultQuota   policy.Quota  // for users without their own; policy.Unlimited (-1) is none
	BootstrapToken policy.Secret // a further administrator's token, from the configuration; zero is none
	Now            func() time.Time
	Random         io.Reader
	Log            *slog.Logger
	Version        string                // of the program
	Registerer     prometheus.Registerer // nil: no metrics
}

// Control is the control plane. It is safe for concurrent use.
type Control struct {
	options   Options
	store     *store.Store
	hasher    policy.Hasher
	bootstrap policy.KeyHash
	started   time.Time
	metrics   metrics

	changing sync.Mutex // held by the one change in progress, until current shows it
	current  atomic.Pointer[current]

	mu      sync.Mutex
	wake    chan struct{} // closed and replaced at every event that somebody may wait for
	closed  bool
	nodes   map[string]*node
	pending map[string]chan fleet.CommandResult // asked commands by id
	touched map[string]time.Time                // when a token's use was last stored
}

// current is the policy in force with its look-ups; it is never changed.
type current struct {
	state    *store.State
	document *policy.Document
	snapshot *policy.Snapshot
	tokens   map[policy.KeyHash]string // to the name
}

// What a sealed text in the database must say, so that a replaced master key is noticed at the start.
const (
	sealCheckName = "\x00check"
	sealCheckText = "carpool"
)

// How long control waits for nodes.
const (
	applyWait = 2 * time.Second // until a change is in force
	flushWait = time.Second     // until usage is delivered
	askWait   = 2 * time.Second // until a question is answered
	resetWait = 5 * time.Second // until a quota is reset

	presence = 5 * time.Second // a node counts as connected so long after its last word
)

// errClosed ends what waits when control closes.
var errClosed = errors.New("control is closed")

// Open opens the store and brings the settings of the options in force.
func Open(ctx context.Context, o Options) (*Control, error) {
	books, err := store.Open(ctx, o.StorePath)
	if err != nil {
		return nil, err
	}
	c := &Control{
		options: o, store: books, hasher: o.MasterKey.Hasher(), started: o.Now().UTC(),
		wake: make(chan struct{}), nodes: map[string]*node{},
		pending: map[string]chan fleet.CommandResult{}, touched: map[string]time.Time{},
	}
	if !o.BootstrapToken.IsZero() {
		c.bootstrap = c.hasher.Hash(o.BootstrapToken.Reveal())
	}
	c.metrics = newMetrics(c)
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, books.Close())
	}
	if err := c.metrics.register(o.Registerer); err != nil {
		return nil, errors.Join(err, books.Close())
	}
	return c, nil
}

func (c *Control) start(ctx context.Context) error {
	state, err := c.store.Load(ctx)
	if err != nil {
		return err
	}
	if state.SealCheck != "" {
		if _, err := c.options.MasterKey.unseal(sealCheckName, state.SealCheck); err != nil {
			return fmt.Errorf("cannot use the database %s: %w", c.options.StorePath, err)
		}
	}
	if state.Version > 0 {
		// What was right for the prices that another version of Carpool published need not be right for these: what counts is what the
		// configuration says now, which is brought in force below.
		state.Settings.Prices = c.options.Settings.Prices
		next, err := c.compile(state)
		if err != nil {
			return fmt.Errorf("cannot use the policy in %s: %w", c.options.StorePath, err)
		}
		c.current.Store(next)
	}
	return c.UpdateSettings(ctx, c.options.Settings, c.options.DefaultQuota)
}

// Close ends everything that waits and closes the store. Handlers must not be called afterwards.
func (c *Control) Close() error {
	c.mu.Lock()
	already := c.closed
	c.closed = true
	c.broadcast()
	c.mu.Unlock()
	if already {
		return nil
	}
	c.metrics.unregister(c.options.Registerer)
	return c.store.Close()
}

// UpdateSettings brings the settings of the configuration in force. The version of the policy grows only when they differ
// from those in force.
func (c *Control) UpdateSettings(ctx context.Context, s policy.Settings, defaultQuota policy.Quota) error {
	_, err := c.change(ctx, func(ctx context.Context, e *edit) error {
		var d diff
		set(&d, "organization", &e.state.Settings.Organization, s.Organization)
		set(&d, "timeZone", &e.state.Settings.TimeZone, s.TimeZone)
		set(&d, "formula", &e.state.Settings.Formula, s.Formula)
		set(&d, "quotaMessage", &e.state.Settings.QuotaMessage, s.QuotaMessage)
		set(&d, "systemPrompt", &e.state.Settings.SystemPrompt, s.SystemPrompt)
		if len(e.state.Settings.DefaultHeaders)+len(s.DefaultHeaders) > 0 {
			set(&d, "defaultHeaders", &e.state.Settings.DefaultHeaders, s.DefaultHeaders)
		}
		set(&d, "client", &e.state.Settings.Client, s.Client)
		set(&d, "defaultLimits", &e.state.Settings.DefaultLimits, s.DefaultLimits)
		set(&d, "prices", &e.state.Settings.Prices, s.Prices)
		set(&d, "limits", &e.state.Settings.Limits, s.Limits)
		set(&d, "defaultQuota", &e.state.DefaultQuota, defaultQuota)
		if e.state.Version > 0 && d.none() {
			return nil
		}
		e.note(ActionUpdated, "settings", "", d.String())
		return nil
	})
	return err
}

// StrayPrices returns the upstreams that the prices in force name and that do not exist.
func (c *Control) StrayPrices() []string { return c.current.Load().snapshot.StrayPrices() }

// edit is a change in the making: what it stores it also does to state.
type edit struct {
	c     *Control
	tx    *store.Tx
	state *store.State
	at    time.Time
	actor string
	rows  []store.Audit
	quiet bool // the change is none of the nodes' business
}

// note writes down what was done; a change without a note changes nothing and is rolled back.
func (e *edit) note(action, kind, name, detail string) {
	e.rows = append(e.rows, store.Audit{At: e.at, Actor: e.actor, Action: action, Kind: kind, Name: name, Detail: detail})
}

// Ways to end a change without storing it that are not failures.
var (
	errUnchanged = errors.New("nothing changed")
	errDryRun    = errors.New("dry run")
)

// change runs make in one transaction with its audit rows and the version it leads to, compiles the outcome, and waits a
// moment until the connected nodes serve by it. It returns the version in force. An error means that nothing changed.
func (c *Control) change(ctx context.Context, make func(context.Context, *edit) error) (int64, error) {
	version, err := c.commit(ctx, make)
	if errors.Is(err, errUnchanged) || errors.Is(err, errDryRun) {
		return version, nil
	}
	if err != nil {
		return 0, err
	}
	c.waitApplied(ctx, version)
	return version, nil
}

func (c *Control) commit(ctx context.Context, make func(context.Context, *edit) error) (version int64, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	var next *current
	err = c.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		state, err := tx.Load(ctx)
		if err != nil {
			return err
		}
		version = state.Version
		e := &edit{c: c, tx: tx, state: state, at: c.options.Now().UTC(), actor: actor(ctx)}
		made := make(ctx, e)
		if made != nil && !errors.Is(made, errDryRun) {
			return made
		}
		if len(e.rows) == 0 {
			return errUnchanged
		}
		if err := e.finish(ctx); err != nil {
			return err
		}
		if next, err = c.reload(ctx, tx); err != nil {
			return err
		}
		if made == nil {
			version = next.state.Version
		}
		return made
	})
	if err != nil {
		return version, err
	}
	c.current.Store(next)
	c.metrics.changes.Inc()
	c.mu.Lock()
	c.broadcast()
	c.mu.Unlock()
	return version, nil
}

// finish stores the audit rows and the new version.
func (e *edit) finish(ctx context.Context) (err error) {
	if !e.quiet {
		e.state.Version++
	}
	if e.state.SealCheck == "" {
		if e.state.SealCheck, err = e.c.options.MasterKey.seal(sealCheckName, policy.NewSecret(sealCheckText), e.c.options.Random); err != nil {
			return err
		}
	}
	if err := e.tx.PutPolicy(ctx, e.state); err != nil {
		return err
	}
	for _, row := range e.rows {
		row.Version = e.state.Version
		if err := e.tx.PutAudit(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

// reload compiles what the database holds now, rather than what the edit believes.
func (c *Control) reload(ctx context.Context, tx *store.Tx) (*current, error) {
	state, err := tx.Load(ctx)
	if err != nil {
		return nil, err
	}
	return c.compile(state)
}

// leap raises the version above one that a node has: the store was restored from an older backup, and the node must not
// take its own document for the newer one.
func (c *Control) leap(ctx context.Context, above int64) error {
	_, err := c.commit(context.WithoutCancel(ctx), func(_ context.Context, e *edit) error {
		if e.state.Version > above {
			return nil
		}
		e.state.Version = above
		e.note(ActionUpdated, "policy", "", "version raised above a node's")
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

type actorKey struct{}

// as returns ctx for the work of an actor.
func as(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actor is who ctx works for; what the program itself does it does for its configuration.
func actor(ctx context.Context) string {
	if name, ok := ctx.Value(actorKey{}).(string); ok {
		return name
	}
	return "config"
}

// diff describes how a noun changes.
type diff struct{ parts []string }

func (d *diff) none() bool { return len(d.parts) == 0 }

// set changes a field and describes it when that makes a difference.
func set[T any](d *diff, name string, field *T, to T) {
	if reflect.DeepEqual(*field, to) {
		return
	}
	if reflect.ValueOf(field).Elem().IsZero() {
		d.parts = append(d.parts, name+": "+show(to))
	} else {
		d.parts = append(d.parts, name+": "+show(*field)+" → "+show(to))
	}
	*field = to
}

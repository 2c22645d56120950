package ledger

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

// Entry is one exchange.
type Entry = fleet.Entry

// What Entry.Endpoint can be. Only messages are counted as requests and against quotas.
const (
	EndpointMessages    = policy.EndpointMessages
	EndpointCountTokens = policy.EndpointCountTokens
)

// ErrUnavailable means that the ledger cannot write: the disk is full or broken, or the ledger is closed. Nothing may be
// spent then, because it could not be accounted for.
var ErrUnavailable = errors.New("the ledger cannot write")

// Options are what a Ledger needs beside its file.
type Options struct {
	Node       string                // the node's name, stamped on every entry
	Now        func() time.Time      // clock; nil is time.Now
	Log        *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: no metrics
	// After SyncInterval at most, what was written is forced to stable storage; with 0 before Reserve and Settle return.
	// nil is 100 ms.
	SyncInterval *time.Duration

	Key ed25519.PrivateKey // signs the heads of the chain of entries, see LoadKey; nil: they are not signed

	tune tuning // zero fields stand for the constants
}

// tuning lets tests see in a second what otherwise takes hours.
type tuning struct {
	segment int64         // segmentSize
	every   time.Duration // moveEvery
	entries int           // moveEntries, as the number of entries that are moved at once
	create  func(path string) (segmentFile, error)
}

func (t tuning) orUsual() tuning {
	if t.segment == 0 {
		t.segment = segmentSize
	}
	if t.every == 0 {
		t.every = moveEvery
	}
	if t.entries == 0 {
		t.entries = moveEntries
	}
	t.entries = min(t.entries, maxTail)
	if t.create == nil {
		t.create = createSegment
	}
	return t
}

// Ledger is an open ledger. Its methods may be called concurrently.
type Ledger struct {
	file   *file
	node   string
	now    func() time.Time
	log    *slog.Logger
	sync   time.Duration // what Options.SyncInterval says
	name   string        // as its journal knows it
	writer *writer
	mover  *mover
	gauges *metrics
	tune   tuning

	lastSeq      atomic.Int64
	acknowledged atomic.Int64
	fresh        chan struct{} // see Committed

	mu    sync.Mutex
	books books

	close func() error
}

// Open opens the ledger in the file path, and makes the file (mode 0600) and its folder (mode 0700) where they do not
// exist. It settles what a crash left open, see Opening. Errors name the path and say what to do.
func Open(ctx context.Context, path string, o Options) (*Ledger, error) {
	l := &Ledger{
		node:  o.Node,
		now:   o.Now,
		log:   o.Log,
		sync:  syncInterval,
		tune:  o.tune.orUsual(),
		fresh: make(chan struct{}, 1),
		books: newBooks(),
	}
	if o.SyncInterval != nil {
		l.sync = *o.SyncInterval
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.close = sync.OnceValue(l.shut)
	if err := l.open(ctx, path, o.Registerer, o.Key); err != nil {
		return nil, fmt.Errorf("cannot open ledger %s: %w", path, err)
	}
	return l, nil
}

func (l *Ledger) open(ctx context.Context, path string, registerer prometheus.Registerer, key ed25519.PrivateKey) (err error) {
	if l.file, err = openFile(ctx, path); err != nil {
		return err
	}
	if l.mover, err = newMover(ctx, l); err != nil {
		return errors.Join(explain(err), l.file.close())
	}
	c := &l.mover.tx.chain
	c.key, c.node, c.now = key, l.node, l.now
	if l.gauges, err = newMetrics(l, registerer); err != nil {
		return errors.Join(err, l.mover.tx.close(), l.file.close())
	}
	if err := l.start(ctx); err != nil {
		l.gauges.unregister()
		return errors.Join(explain(err), l.mover.tx.close(), l.file.close())
	}
	go l.mover.run() //nolint:contextcheck // it outlives the opening
	if l.lastSeq.Load() > l.acknowledged.Load() {
		l.announce()
	}
	return nil
}

// start recovers what a dead process left behind and begins a new journal.
func (l *Ledger) start(ctx context.Context) error {
	tx := l.mover.tx
	if err := tx.conn.QueryRowContext(ctx, `SELECT journal FROM state`).Scan(&l.name); err != nil {
		return fmt.Errorf("cannot read the ledger's state: %w", err)
	}
	next, err := l.recover(ctx)
	if err != nil {
		return err
	}
	l.checkHead(ctx)
	l.mover.sign() //nolint:contextcheck // a statement of it that began must end
	if err := l.load(ctx); err != nil {
		return err
	}
	l.lastSeq.Store(tx.lastSeq)
	l.acknowledged.Store(tx.acknowledged)
	l.mover.moved.Store(tx.lastSeq)
	j := &journal{path: l.file.path, name: l.name, create: l.tune.create, interval: l.sync, number: next - 1}
	l.writer = newWriter(l, j)
	l.writer.seq = tx.lastSeq
	return j.rotate(tx.lastSeq, nil)
}

// Close writes what is queued and what only the journal has into the file, removes the journal, then closes the file.
// Exchanges not settled by then are settled as crashed at the next Open. What cannot be moved into the file stays in the
// journal for the next Open, and the error says so. Closing again does nothing.
func (l *Ledger) Close() error { return l.close() }

func (l *Ledger) shut() error {
	lost := l.writer.close()
	open, wrong := l.writer.leftovers()
	unmoved := l.mover.close(open)
	l.gauges.unregister()
	wrong = errors.Join(lost, wrong, unmoved, l.writer.journal.close())
	if unmoved == nil {
		wrong = errors.Join(wrong, l.removeJournal())
	}
	if err := errors.Join(wrong, l.mover.tx.close(), l.file.close()); err != nil {
		return fmt.Errorf("cannot close the ledger: %w", err)
	}
	return nil
}

// removeJournal removes all segments, whose content the file has.
func (l *Ledger) removeJournal() error {
	numbers, _, err := segments(l.file.path)
	if err != nil {
		return err
	}
	return removeSegments(l.file.path, numbers)
}

// Ready returns nil when the ledger can write as far as it knows: the last write succeeded and no settlement waits for
// another attempt. Otherwise the error is ErrUnavailable with the cause.
func (l *Ledger) Ready() error { return l.writer.ready() }

// LastSeq returns the sequence number of the newest entry, 0 when there never was one.
func (l *Ledger) LastSeq() int64 { return l.lastSeq.Load() }

// Acknowledged returns the sequence number up to which control has everything.
func (l *Ledger) Acknowledged() int64 { return l.acknowledged.Load() }

// Committed returns a channel that receives when there are new entries since the last receive; many commits may make
// one signal. It is meant for one reader, which looks into the Outbox after each signal.
func (l *Ledger) Committed() <-chan struct{} { return l.fresh }

func (l *Ledger) announce() {
	select {
	case l.fresh <- struct{}{}:
	default:
	}
}

// QuotaState returns the state of a user's current windows, given its limits (policy.Unlimited for none), from memory.
func (l *Ledger) QuotaState(user string, daily, monthly int64, loc *time.Location) fleet.UserQuota {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	periods := l.books.at(now, loc)
	state := func(w quota.Window, p quota.Period, limit int64) fleet.WindowUsage {
		var a quota.Account
		if known := l.books.accounts[accountKey{user, w, p.Label}]; known != nil {
			a = known.Account
		}
		a.Limit = limit
		return fleet.WindowUsage{Limit: limit, Used: a.Used, Reserved: a.Reserved, Remaining: a.Remaining(), ResetsAt: p.End.UTC()}
	}
	return fleet.UserQuota{
		Daily:   state(quota.Daily, periods.daily, daily),
		Monthly: state(quota.Monthly, periods.monthly, monthly),
	}
}

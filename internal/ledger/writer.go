package ledger

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBatch    = 512     // records written at once
	segmentSize = 8 << 20 // bytes after which the journal goes on in a new segment
	maxOverlong = 8       // times that, when no new segment can be made
)

// writer owns the journal. One goroutine takes the openings and settlements that are queued and appends them with one
// write. The queue is bounded by the callers: each waits for its ticket.
type writer struct {
	ledger  *Ledger
	journal *journal
	seq     int64             // of the last settlement in the journal
	open    map[string][]byte // frames of the openings in the journal that have no settlement there, by id

	backlog []*ticket // settlements that could not be written; retried before anything else
	trouble atomic.Pointer[error]

	stuck   bool // the last attempt to begin a new segment failed
	buffer  []byte
	batch   []*settlement
	wake    chan struct{}
	stopped chan struct{}

	mu     sync.Mutex
	queue  []*ticket
	spare  []*ticket
	closed bool
}

func newWriter(l *Ledger, j *journal) *writer {
	return &writer{
		ledger: l, journal: j, open: make(map[string][]byte),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
}

// do queues an opening, a settlement or an operation and waits until it is durable or failed, or ctx ends before the
// writer has taken it. An operation goes on to the mover, and the writer waits for it: nothing is settled meanwhile.
func (w *writer) do(ctx context.Context, op operation) error {
	t := newTicket(op)
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	w.queue = append(w.queue, t)
	first := len(w.queue) == 1
	w.mu.Unlock()
	if first {
		signal(w.wake)
	}
	return t.wait(ctx)
}

// take returns the next tickets, at most maxBatch, how many it took off the queue for that, and whether more may come.
func (w *writer) take() (batch []*ticket, n int, open bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = min(len(w.queue), maxBatch)
	batch = w.spare[:0]
	for _, t := range w.queue[:n] {
		if t.take() {
			batch = append(batch, t)
		}
	}
	w.queue = append(w.queue[:0], w.queue[n:]...)
	clear(w.queue[len(w.queue):cap(w.queue)])
	w.spare = batch
	return batch, n, !w.closed
}

// run is the writer's goroutine. It ends when the ledger is closed and the queue empty.
func (w *writer) run() {
	defer close(w.stopped)
	for {
		batch, n, open := w.take()
		switch {
		case n > 0:
			w.write(batch)
			clear(batch)
		case !open:
			w.retry()
			return
		default:
			w.idle()
		}
	}
}

// idle waits for the next ticket, or for the time to retry the backlog.
func (w *writer) idle() {
	if len(w.backlog) == 0 {
		<-w.wake
		runtime.Gosched() // those who are about to queue something get into the same write
		return
	}
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-w.wake:
	case <-timer.C:
		w.retry()
	}
}

// write works a batch off, in order.
func (w *writer) write(batch []*ticket) {
	w.retry()
	w.ledger.mover.makeRoom()
	refusal := w.rotate()
	if refusal == nil {
		refusal = w.refusal(batch)
	}
	start := 0
	for i, t := range batch {
		switch op := t.op.(type) {
		case *opening, *settlement:
			continue
		default:
			w.append(w.admit(batch[start:i], refusal))
			start = i + 1
			t.finish(w.ledger.mover.do(context.Background(), op))
		}
	}
	w.append(w.admit(batch[start:], refusal))
}

// refusal returns why no opening can be written, or nil: while settlements of the past cannot be written or moved,
// nothing new is opened.
func (w *writer) refusal(batch []*ticket) error {
	if len(w.backlog) > 0 {
		return *w.trouble.Load()
	}
	m := w.ledger.mover
	if m.trouble.Load() == nil {
		return nil
	}
	for _, t := range batch {
		if _, ok := t.op.(*opening); ok {
			return m.flush(context.Background()) // what was impossible may be possible by now
		}
	}
	return nil
}

// admit finishes the openings of a batch that cannot be written, and returns the rest.
func (w *writer) admit(batch []*ticket, refusal error) []*ticket {
	rest := batch[:0]
	for _, t := range batch {
		if o, ok := t.op.(*opening); ok {
			if _, exists := w.open[o.id]; exists && refusal == nil {
				t.finish(errTwice)
				continue
			}
			if refusal != nil {
				t.finish(refusal)
				continue
			}
			w.open[o.id] = o.frame
		}
		rest = append(rest, t)
	}
	return rest
}

var errTwice = errors.New("an exchange with its id is open already")

// rotate goes on in a new segment when the present one is long. If that fails, the present one is used until it is much
// too long; then nothing new is opened, and the error says why.
func (w *writer) rotate() error {
	j, limit := w.journal, w.ledger.tune.segment
	if j.size < limit {
		return nil
	}
	number := j.number
	if err := j.rotate(w.seq, w.open); err != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, explain(err))
		if !w.stuck {
			w.ledger.log.Warn("cannot begin a new segment of the journal, and goes on in the old one", "error", err)
		}
		if w.stuck = true; j.size < limit*maxOverlong {
			return nil
		}
		w.trouble.Store(&err)
		return err
	}
	w.stuck = false
	w.ledger.mover.retire(number, w.seq)
	return nil
}

// retry tries to write the backlog.
func (w *writer) retry() {
	if len(w.backlog) == 0 {
		return
	}
	batch := w.backlog
	w.backlog = nil
	w.append(batch)
	if len(w.backlog) == 0 {
		w.ledger.log.Info("the ledger can write its journal again", "settlements", len(batch))
	}
}

// append writes openings and settlements with one write. Settlements get their sequence numbers here, in this order.
func (w *writer) append(batch []*ticket) {
	if len(batch) == 0 {
		return
	}
	start := time.Now()
	seq := w.seq
	b, settled := w.buffer[:0], w.batch[:0]
	for _, t := range batch {
		switch op := t.op.(type) {
		case *opening:
			b = append(b, op.frame...)
		case *settlement:
			seq++
			op.number(seq)
			b = append(b, op.frame...)
			settled = append(settled, op)
		}
	}
	err := w.journal.append(b)
	w.ledger.gauges.committed(len(batch), time.Since(start), err)
	if w.buffer = b; cap(b) > 1<<20 {
		w.buffer = nil
	}
	if err != nil {
		w.fail(batch, err)
	} else {
		w.seq = seq
		w.succeed(settled)
		for _, t := range batch {
			w.finish(t)
		}
	}
	clear(settled)
	w.batch = settled
}

// succeed tells memory and the mover of settlements that are in the journal.
func (w *writer) succeed(settled []*settlement) {
	if len(w.backlog) == 0 && w.journal.size < w.ledger.tune.segment*maxOverlong {
		w.trouble.Store(nil)
	}
	if len(settled) == 0 {
		return
	}
	l := w.ledger
	l.mu.Lock()
	for _, s := range settled {
		s.charge()
	}
	l.mu.Unlock()
	for _, s := range settled {
		delete(w.open, s.entry.ID)
	}
	l.lastSeq.Store(w.seq)
	l.mover.add(settled)
	l.announce()
}

func (w *writer) finish(t *ticket) {
	select {
	case <-t.done: // a retry from the backlog: nobody waits any more
	default:
		t.finish(nil)
	}
}

// fail refuses the openings of a batch that could not be written, and keeps the settlements.
func (w *writer) fail(batch []*ticket, err error) {
	err = fmt.Errorf("%w: %w", ErrUnavailable, explain(err))
	if w.trouble.Swap(&err) == nil {
		w.ledger.log.Error("the ledger cannot write its journal", "error", err)
	}
	for _, t := range batch {
		if o, ok := t.op.(*opening); ok {
			delete(w.open, o.id)
		} else {
			w.backlog = append(w.backlog, t)
		}
		select {
		case <-t.done:
		default:
			t.finish(err)
		}
	}
}

func (w *writer) ready() error {
	w.mu.Lock()
	closed := w.closed
	w.mu.Unlock()
	if closed {
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	for _, trouble := range []*error{w.trouble.Load(), w.ledger.mover.trouble.Load()} {
		if trouble != nil {
			return *trouble
		}
	}
	return nil
}

// close lets the goroutine finish what is queued, and waits for it.
func (w *writer) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	signal(w.wake)
	<-w.stopped
	if n := len(w.backlog); n > 0 {
		return fmt.Errorf("%d settlements could not be written: %w", n, *w.trouble.Load())
	}
	return nil
}

// leftovers returns what is open. The goroutine must have ended, or wait for an operation.
func (w *writer) leftovers() ([]*leftover, error) {
	left := make([]*leftover, 0, len(w.open))
	for _, frame := range w.open {
		o, err := readOpening(frame[frameHead:])
		if err != nil {
			return nil, err
		}
		left = append(left, o)
	}
	return left, nil
}

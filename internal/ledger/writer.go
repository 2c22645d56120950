package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBatch     = 512                    // records written at once
	syncInterval = 100 * time.Millisecond // see Options.SyncInterval
	segmentSize  = 8 << 20                // bytes after which the journal goes on in a new segment
	maxOverlong  = 8                      // times that, when no new segment can be made
	notePause    = 100 * time.Millisecond // a checkpoint waits this long at most for a write that takes it along
)

// writer owns the journal. Openings and settlements queue up, and one of those who wait for them writes: whoever finds
// nobody at it leads. A leader appends all that is queued with one write, and hands on to the first of those who came
// meanwhile. So nobody waits for a goroutine that does nothing else. The queue is bounded by the callers: each waits for
// its ticket. An operation is led by its own caller.
type writer struct {
	ledger *Ledger

	// The leader's.
	journal *journal
	seq     int64              // of the last settlement in the journal
	open    map[string]*buffer // frames of the openings in the journal that have no settlement there, by id
	backlog []*ticket          // settlements that could not be written; retried before anything else
	stuck   bool               // the last attempt to begin a new segment failed
	joined  []byte
	batch   []*ticket
	settled []*settlement
	taken   []*opening // whose checkpoints are being written

	trouble atomic.Pointer[error]
	waiting atomic.Int64 // the length of backlog
	frames  buffers

	mu     sync.Mutex
	queue  []*ticket
	noted  []*opening // that may have a checkpoint which is not written
	led    bool       // somebody leads; when nobody does, the queue is empty
	timed  bool       // again is going to be called, by timer
	timer  *time.Timer
	closed bool
	idle   chan struct{} // closed when, after closed, nobody leads
}

func newWriter(l *Ledger, j *journal) *writer {
	w := &writer{ledger: l, journal: j, open: make(map[string]*buffer), idle: make(chan struct{})}
	j.failed = w.lose
	return w
}

// do has an operation carried out, after everything that was queued before. It goes on to the mover, and nothing is
// settled meanwhile.
func (w *writer) do(ctx context.Context, op operation) error { return w.write(ctx, newTicket(op)) }

// write queues a ticket and returns when it is durable or failed, or ctx ends before anybody has taken it.
func (w *writer) write(ctx context.Context, t *ticket) error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	leads := !w.led
	switch {
	case leads:
		w.led = true
		t.state.Store(leading)
	case t.wake == nil:
		t.wake = make(chan struct{}, 1)
	}
	w.queue = append(w.queue, t)
	w.mu.Unlock()
	if leads {
		runtime.Gosched() // those who are about to queue something get into the same write
	} else if err := t.wait(ctx); err != nil {
		return err
	}
	if !t.done {
		w.lead() //nolint:contextcheck // it works for others as well, whose requests go on when this one is over
	}
	return t.err
}

// lead works off what is queued; the caller's ticket is the first.
func (w *writer) lead() {
	defer w.guard()
	w.work(w.take())
	w.handOn()
}

// guard lets a bug end the process, as it would in a goroutine of the ledger's own: those in the queue would wait for ever,
// and what a caller recovers from has not happened.
func (w *writer) guard() {
	if p := recover(); p != nil {
		go panic(fmt.Sprintf("%v\n%s", p, debug.Stack()))
		select {}
	}
}

// take takes the next tickets off the queue: at most maxBatch records, or one operation.
func (w *writer) take() []*ticket {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, n := w.batch[:0], 0
	for _, t := range w.queue[:min(len(w.queue), maxBatch)] {
		record := isRecord(t.op)
		if !record && n > 0 {
			break
		}
		n++
		if t.take() {
			batch = append(batch, t)
		}
		if !record {
			break
		}
	}
	w.dequeue(n)
	w.batch = batch
	return batch
}

// dequeue drops the first of the queue; mu is held.
func (w *writer) dequeue(n int) {
	rest := append(w.queue[:0], w.queue[n:]...)
	clear(w.queue[len(rest):])
	w.queue = rest
}

func isRecord(op operation) bool {
	switch op.(type) {
	case *opening, *settlement:
		return true
	}
	return false
}

// handOn lets the first in the queue lead who still waits.
func (w *writer) handOn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, t := range w.queue {
		if t.state.CompareAndSwap(queued, leading) {
			w.dequeue(i)
			signal(t.wake)
			return
		}
	}
	w.dequeue(len(w.queue))
	switch {
	case w.closed:
		close(w.idle)
		return
	case len(w.backlog) > 0 || w.journal.lost.Load() != nil:
		w.soon(retryPause)
	case len(w.noted) > 0:
		w.soon(notePause)
	}
	w.led = false
}

// soon has again called; mu is held.
func (w *writer) soon(pause time.Duration) {
	switch {
	case w.timed:
		return
	case w.timer == nil:
		w.timer = time.AfterFunc(pause, w.again)
	default:
		w.timer.Reset(pause)
	}
	w.timed = true
}

// lose is told that the segment is lost, by the leader or while somebody may lead: who leads sees it in handOn.
func (w *writer) lose(err error) {
	w.ledger.gauges.failures.Inc()
	w.ledger.log.Error("the ledger cannot force its journal to stable storage", "error", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.led && !w.closed {
		w.soon(retryPause)
	}
}

// leave leaves a segment that is lost: what it settles goes into the database, what it opens into a new segment.
func (w *writer) leave() {
	j, m, ctx := w.journal, w.ledger.mover, context.Background()
	if j.lost.Load() == nil || m.flush(ctx) != nil {
		return
	}
	number := j.number
	if err := j.rotate(w.seq, w.open); err != nil {
		w.ledger.log.Warn("cannot leave the journal's segment for a new one", "error", err)
		return
	}
	m.retire(number, w.seq)
	_ = m.do(ctx, nothing{}) // has it dropped, and so the database forced to stable storage; if not, the next move does
	w.ledger.log.Info("the ledger can force its journal to stable storage again")
}

// again retries the backlog, or to leave a segment that is lost, and writes checkpoints, when nobody else has.
func (w *writer) again() {
	w.mu.Lock()
	w.timed = false
	idle := !w.led && !w.closed
	w.led = w.led || idle
	w.mu.Unlock()
	if idle {
		defer w.guard()
		w.retry()
		w.append(nil)
		w.handOn()
	}
}

// work works a batch off: an operation, or openings and settlements.
func (w *writer) work(batch []*ticket) {
	defer clear(batch)
	w.retry()
	if op := batch[0].op; !isRecord(op) {
		batch[0].finish(w.ledger.mover.do(context.Background(), op))
		return
	}
	w.ledger.mover.makeRoom()
	refusal := w.rotate()
	if refusal == nil {
		refusal = w.refusal(batch)
	}
	w.append(w.admit(batch, refusal))
}

// refusal returns why no opening can be written, or nil: while settlements of the past cannot be written or moved,
// nothing new is opened.
func (w *writer) refusal(batch []*ticket) error {
	if lost := w.journal.lost.Load(); lost != nil {
		return *lost
	}
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

// retry tries to write the backlog, after the segment was left if it is lost.
func (w *writer) retry() {
	w.leave()
	if len(w.backlog) == 0 {
		return
	}
	batch := w.backlog
	w.backlog = nil
	w.append(batch)
	if len(w.backlog) == 0 {
		w.waiting.Store(0)
		w.ledger.log.Info("the ledger can write its journal again", "settlements", len(batch))
	}
}

// note gives the next write a checkpoint to take along, in place of one that no write has taken yet.
func (w *writer) note(o *opening, frame *buffer) {
	if older := o.newer.Swap(frame); older != nil {
		w.frames.put(older)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.noted = append(w.noted, o)
	if !w.led {
		w.soon(notePause)
	}
}

// unnote drops a checkpoint that is not written yet. It must come before the settlement is queued.
func (w *writer) unnote(o *opening) { w.frames.put(o.newer.Swap(nil)) }

// appendNotes appends the checkpoints that wait. Each takes the place of its opening, also at the beginning of the next
// segment, whether or not this write succeeds.
func (w *writer) appendNotes(b []byte) (_ []byte, n int) {
	w.mu.Lock()
	w.taken, w.noted = w.noted, w.taken
	w.mu.Unlock()
	for _, o := range w.taken {
		frame := o.newer.Swap(nil)
		if frame == nil { // it has settled
			continue
		}
		b = append(b, frame.b...)
		w.frames.put(w.open[o.id])
		w.open[o.id] = frame
		n++
	}
	clear(w.taken)
	w.taken = w.taken[:0]
	return b, n
}

// append writes openings and settlements, and checkpoints before them, with one write. Settlements get their sequence
// numbers here, in this order.
func (w *writer) append(batch []*ticket) {
	start := time.Now()
	b, notes := w.appendNotes(w.joined[:0])
	if len(batch)+notes == 0 {
		return
	}
	seq, settled := w.seq, w.settled[:0]
	for _, t := range batch {
		switch op := t.op.(type) {
		case *opening:
			b = append(b, op.frame.b...)
		case *settlement:
			seq++
			op.number(seq)
			b = append(b, op.frame.b...)
			settled = append(settled, op)
		}
	}
	err := w.journal.append(b)
	w.ledger.gauges.committed(len(batch)+notes, time.Since(start), err)
	if w.joined = b; cap(b) > 1<<20 {
		w.joined = nil
	}
	if err != nil {
		w.fail(batch, err)
	} else {
		w.seq = seq
		w.succeed(settled)
		for _, t := range batch {
			if !t.done { // in a retry of the backlog nobody waits any more
				t.finish(nil)
			}
		}
	}
	clear(settled)
	w.settled = settled
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
	now := l.now()
	var reached []*BudgetUse
	for _, s := range settled {
		reached = append(reached, s.charge(now)...)
	}
	l.mu.Unlock()
	for _, use := range reached {
		l.warn(use)
	}
	for _, s := range settled {
		w.frames.put(w.open[s.entry.ID])
		delete(w.open, s.entry.ID)
	}
	l.lastSeq.Store(w.seq)
	l.mover.add(settled)
	l.announce()
}

// fail refuses the openings of a batch that could not be written, and keeps the settlements.
func (w *writer) fail(batch []*ticket, err error) {
	err = fmt.Errorf("%w: %w", ErrUnavailable, explain(err))
	if w.trouble.Swap(&err) == nil {
		w.ledger.log.Error("the ledger cannot write its journal; nothing new is served until it can",
			"file", segmentPath(w.ledger.file.path, w.journal.number), "error", err)
	}
	for _, t := range batch {
		if o, ok := t.op.(*opening); ok {
			delete(w.open, o.id)
		} else {
			w.backlog = append(w.backlog, t)
		}
		if !t.done {
			t.finish(err)
		}
	}
	w.waiting.Store(int64(len(w.backlog)))
}

func (w *writer) ready() error {
	w.mu.Lock()
	closed := w.closed
	w.mu.Unlock()
	if closed {
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	for _, trouble := range []*error{w.trouble.Load(), w.journal.lost.Load(), w.ledger.mover.trouble.Load()} {
		if trouble != nil {
			return *trouble
		}
	}
	return nil
}

// close waits until what is queued is written.
func (w *writer) close() error {
	w.mu.Lock()
	led := w.led
	w.closed, w.led = true, true
	w.mu.Unlock()
	if led {
		<-w.idle
	}
	w.retry()
	w.append(nil)
	if n := len(w.backlog); n > 0 {
		return fmt.Errorf("%d settlements could not be written: %w", n, *w.trouble.Load())
	}
	return nil
}

// leftovers returns what is open. The caller leads, or is an operation for which the leader waits.
func (w *writer) leftovers() ([]*leftover, error) {
	left := make([]*leftover, 0, len(w.open))
	for _, frame := range w.open {
		o, err := readOpening(bytes.Clone(frame.b[frameHead:]))
		if err != nil {
			return nil, err
		}
		left = append(left, o)
	}
	return left, nil
}

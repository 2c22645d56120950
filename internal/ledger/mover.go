package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

const (
	moveEvery   = time.Second     // a settlement waits this long at most before it is moved
	moveEntries = 2048            // and at most this many are moved in one transaction
	maxTail     = 4 * moveEntries // settlements in memory that are not moved; above, writers wait
	retryPause  = time.Second     // between attempts that failed
)

var errClosed = errors.New("it is closed")

// operation is a change of the database. It is applied inside a transaction of its own, after all settlements before it.
type operation interface {
	apply(tx *transaction) error
	committed(l *Ledger)
}

// mover owns the connection that writes. Its goroutine takes the settlements that the journal has and books them in the
// database, many in one transaction.
type mover struct {
	ledger     *Ledger
	tx         *transaction
	exported   time.Time // when the head was signed that is beside the database, and
	exportedAt time.Time // when it, or one before it, was written there
	stale      bool      // a transaction failed: what tx assumes of the file has to be read again

	moved   atomic.Int64 // the last sequence number in the database
	recent  recent
	trouble atomic.Pointer[error]

	wake    chan struct{}
	room    chan struct{} // after each move, for the writer
	stopped chan struct{}

	mu      sync.Mutex
	tail    []item
	asked   int       // operations in tail
	since   time.Time // when tail had its first item
	retryAt time.Time
	closed  bool
	retired []retired
}

// item is a settlement to be moved, or an operation.
type item struct {
	settlement *settlement
	ticket     *ticket
}

// retired is a segment that is not written any more. It can go when the entry last is in the database.
type retired struct{ number, last int64 }

func newMover(ctx context.Context, l *Ledger) (*mover, error) {
	tx, err := newTransaction(ctx, l.file.write, l.file.path)
	if err != nil {
		return nil, err
	}
	return &mover{
		ledger: l, tx: tx,
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), stopped: make(chan struct{}),
	}, nil
}

// do has an operation applied and waits until it is committed or failed, or ctx ends before the mover has taken it.
func (m *mover) do(ctx context.Context, op operation) error {
	t := newTicket(op)
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	m.tail = append(m.tail, item{ticket: t})
	m.asked++
	m.mu.Unlock()
	signal(m.wake)
	if err := t.wait(ctx); err != nil {
		return err
	}
	return t.err
}

// flush waits until everything settled before is in the database. Without an error it is.
func (m *mover) flush(ctx context.Context) error {
	if m.moved.Load() == m.ledger.lastSeq.Load() && m.trouble.Load() == nil {
		return nil
	}
	return m.do(ctx, nothing{})
}

type nothing struct{}

func (nothing) apply(*transaction) error { return nil }
func (nothing) committed(*Ledger)        {}

// add takes settlements that are in the journal.
func (m *mover) add(settlements []*settlement) {
	m.mu.Lock()
	before := len(m.tail)
	if before == 0 {
		m.since = time.Now()
	}
	for _, s := range settlements {
		m.tail = append(m.tail, item{settlement: s})
	}
	after := len(m.tail)
	m.mu.Unlock()
	if limit := m.ledger.tune.entries; before == 0 || before < limit && after >= limit {
		signal(m.wake)
	}
}

// makeRoom waits while too much is not moved. When nothing can be moved, it does not wait: then nothing new is opened,
// and what may still be settled is bounded by what is in flight.
func (m *mover) makeRoom() {
	for {
		m.mu.Lock()
		n := len(m.tail)
		m.mu.Unlock()
		if n < maxTail || m.trouble.Load() != nil {
			return
		}
		<-m.room
	}
}

// retire has a segment removed as soon as everything up to the entry last is in the database.
func (m *mover) retire(number, last int64) {
	m.mu.Lock()
	m.retired = append(m.retired, retired{number, last})
	m.mu.Unlock()
}

// run is the mover's goroutine. It ends when the ledger is closed and nothing is left to do, or what is left failed.
func (m *mover) run() {
	defer close(m.stopped)
	for {
		wait, more := m.pause()
		switch {
		case !more:
			return
		case wait == 0:
			m.step()
		case wait < 0:
			<-m.wake
		default:
			timer := time.NewTimer(wait)
			select {
			case <-m.wake:
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// pause returns how long there is nothing to do, negative for until something comes, and whether to go on at all.
func (m *mover) pause() (wait time.Duration, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	failed := m.trouble.Load() != nil
	switch {
	case m.closed:
		return 0, len(m.tail) > 0 && (m.asked > 0 || m.retryAt.IsZero())
	case len(m.tail) == 0:
		return -1, true
	case m.asked > 0:
		return 0, true
	case failed && !m.retryAt.IsZero():
		return max(time.Until(m.retryAt), 0), true
	case len(m.tail) >= m.ledger.tune.entries:
		return 0, true
	}
	return max(time.Until(m.since.Add(m.ledger.tune.every)), 0), true
}

// step does what comes next: an operation, or the settlements before it.
func (m *mover) step() {
	m.mu.Lock()
	if t := m.tail[0].ticket; t != nil {
		m.remove(1)
		m.asked--
		m.mu.Unlock()
		if t.take() {
			m.operate(t)
		}
		return
	}
	var batch []*settlement
	for _, i := range m.tail[:min(len(m.tail), moveEntries)] {
		if i.settlement == nil {
			break
		}
		batch = append(batch, i.settlement)
	}
	m.mu.Unlock()
	if err := m.book(batch); err != nil {
		m.fail(err)
		return
	}
	m.keep(batch)
	m.mu.Lock()
	m.remove(len(batch))
	m.retryAt = time.Time{}
	m.mu.Unlock()
	m.recovered()
	signal(m.room)
	m.drop()
	m.exportSometimes()
}

// keep remembers settlements that are in the database, and gives back what only the way there needed.
func (m *mover) keep(batch []*settlement) {
	if err := m.recent.add(batch, m.ledger.node); err != nil {
		m.recent.clear()
		m.ledger.log.Error("cannot keep entries in memory", "error", err)
	}
	for _, s := range batch {
		m.ledger.writer.frames.put(s.frame)
		s.frame, s.body = nil, nil
	}
}

// remove takes items off the tail; mu is held.
func (m *mover) remove(n int) {
	m.tail = append(m.tail[:0], m.tail[n:]...)
	clear(m.tail[len(m.tail):cap(m.tail)])
	m.since = time.Now()
}

func (m *mover) operate(t *ticket) {
	err := m.transact(t.op.apply)
	if err == nil {
		t.op.committed(m.ledger)
		m.recovered()
		m.drop()
	} else if lasting(err) {
		err = m.report(err)
	}
	t.finish(err)
}

// book writes settlements in one transaction.
func (m *mover) book(batch []*settlement) error {
	start := time.Now()
	err := m.transact(func(tx *transaction) error {
		for _, s := range batch {
			if err := s.apply(tx); err != nil {
				return fmt.Errorf("cannot book exchange %s: %w", s.entry.ID, err)
			}
		}
		if !tx.chain.due(batch) {
			return nil
		}
		if err := tx.flush(); err != nil {
			return err
		}
		if err := tx.sign(); err != nil { // for which nothing that is booked may be lost
			m.ledger.log.Warn("cannot sign the ledger's head; the next entries try again", "error", err)
		}
		return nil
	})
	m.ledger.gauges.booked(time.Since(start), err)
	return err
}

// carry writes openings into the table openings, where the next start finds them.
func (m *mover) carry(left []*leftover) error {
	if len(left) == 0 {
		return nil
	}
	return m.transact(func(tx *transaction) error {
		for _, o := range left {
			if err := tx.carry(o); err != nil {
				return err
			}
		}
		return nil
	})
}

// doubt notes that what is settled next, as crashed, may get numbers by which control knows something else.
func (m *mover) doubt() error {
	return m.transact(func(tx *transaction) error {
		if tx.doubtful > 0 {
			return nil
		}
		return tx.doubt(tx.lastSeq + 1)
	})
}

// transact runs a change as one transaction: all or nothing. A panic counts as an error.
func (m *mover) transact(change func(*transaction) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		if err != nil {
			m.stale = true
			m.tx.rollback()
			return
		}
		m.ledger.acknowledged.Store(m.tx.acknowledged)
		m.moved.Store(m.tx.lastSeq)
	}()
	if m.stale {
		if err := m.tx.readState(context.Background()); err != nil {
			return err
		}
		m.stale = false
	}
	if err := m.tx.begin(); err != nil {
		return err
	}
	if err := change(m.tx); err != nil {
		return err
	}
	return m.tx.commit()
}

// fail notes that settlements could not be moved. Whoever waits for them is told; they stay in the tail and the journal.
func (m *mover) fail(err error) {
	err = m.report(err)
	m.mu.Lock()
	m.retryAt = time.Now().Add(retryPause)
	kept := m.tail[:0]
	var waiting []*ticket
	for _, i := range m.tail {
		if i.ticket != nil {
			waiting = append(waiting, i.ticket)
		} else {
			kept = append(kept, i)
		}
	}
	m.tail, m.asked = kept, 0
	m.mu.Unlock()
	for _, t := range waiting {
		if t.take() {
			t.finish(err)
		}
	}
	signal(m.room)
}

func (m *mover) report(err error) error {
	err = fmt.Errorf("%w: %w", ErrUnavailable, explain(err))
	if m.trouble.Swap(&err) == nil {
		m.ledger.log.Error("the ledger cannot write its database; nothing new is served until it can", "file", m.ledger.file.path, "error", err)
	}
	return err
}

func (m *mover) recovered() {
	if m.trouble.Swap(nil) != nil {
		m.ledger.log.Info("the ledger can write its database again")
	}
}

// drop removes the retired segments whose settlements are all in the database, oldest first. What takes their place, the
// database and the segment after them with the openings carried over, is written through to the disk before.
func (m *mover) drop() {
	m.mu.Lock()
	var numbers []int64
	for _, r := range m.retired {
		if r.last <= m.tx.lastSeq {
			numbers = append(numbers, r.number)
		}
	}
	m.mu.Unlock()
	if len(numbers) == 0 {
		return
	}
	path := m.ledger.file.path
	err := m.tx.checkpoint()
	if err == nil {
		err = syncFile(segmentPath(path, numbers[len(numbers)-1]+1))
	}
	if err == nil {
		err = removeSegments(path, numbers)
	}
	if err != nil {
		m.ledger.log.Warn("cannot remove a part of the journal that is booked; the next move tries again", "error", err)
		return
	}
	m.mu.Lock()
	m.retired = m.retired[len(numbers):]
	m.mu.Unlock()
}

// close lets the goroutine finish, waits for it, and puts what is open into the database. Then nothing is left in the
// journal that the database has not.
func (m *mover) close(open []*leftover) error {
	m.mu.Lock()
	m.closed, m.retryAt = true, time.Time{} // one more attempt
	m.mu.Unlock()
	signal(m.wake)
	<-m.stopped
	if n := len(m.tail); n > 0 {
		return fmt.Errorf("%d settlements wait in the journal for the next start: %w", n, *m.trouble.Load())
	}
	if err := m.carry(open); err != nil {
		return fmt.Errorf("%d exchanges wait in the journal for the next start: %w", len(open), explain(err))
	}
	m.sign()
	return m.tx.checkpoint()
}

// lasting reports whether an error is the storage's fault rather than that of one operation.
func lasting(err error) bool {
	switch code(err) {
	case 0:
		return errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn)
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
		return false
	}
	return true
}

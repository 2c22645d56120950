package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// step is an operation made for a test.
type step func(tx *transaction) error

func (s step) apply(tx *transaction) error { return s(tx) }
func (step) committed(*Ledger)             {}

// barrier is an operation that stands in the writer's way until it is opened.
type barrier struct{ reached, open chan struct{} }

func newBarrier() barrier { return barrier{make(chan struct{}), make(chan struct{})} }

func (b barrier) apply(*transaction) error {
	close(b.reached)
	<-b.open
	return nil
}
func (barrier) committed(*Ledger) {}

func testLedger(t *testing.T) *Ledger {
	t.Helper()
	return tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tuning{})
}

func tunedLedger(t *testing.T, path string, tune tuning) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), path, Options{Node: "n1", tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func testOpening(id string, tokens int64) Opening {
	return Opening{
		Entry:  Entry{ID: id, User: "alice", KeyID: "k1", Endpoint: EndpointMessages},
		Tokens: tokens, InputEstimate: tokens, Daily: policy.Unlimited, Monthly: policy.Unlimited, Formula: policy.DefaultFormula(),
	}
}

func state(l *Ledger) fleet.WindowUsage { return l.QuotaState("alice", -1, -1, nil).Daily }

// waitQueued waits until n operations are in the queue.
func waitQueued(l *Ledger, n int) {
	for {
		l.writer.mu.Lock()
		have := len(l.writer.queue)
		l.writer.mu.Unlock()
		if have == n {
			return
		}
		runtime.Gosched()
	}
}

// booked counts the entries.
func booked(t *testing.T, l *Ledger) (n int) {
	t.Helper()
	if err := l.mover.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.file.read.QueryRowContext(t.Context(), "SELECT count(*) FROM entries").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// inFlight counts the openings without a settlement.
func inFlight(t *testing.T, l *Ledger) (n int) {
	t.Helper()
	if err := l.writer.do(t.Context(), step(func(*transaction) error { n = len(l.writer.open); return nil })); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBadOperationsDoNotFailTheirNeighbours(t *testing.T) {
	l := testLedger(t)
	first := newBarrier()
	var group sync.WaitGroup
	submit := func(op operation, check func(error)) {
		group.Go(func() { check(l.writer.do(context.Background(), op)) })
	}
	good := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	submit(first, good)
	<-first.reached
	for i := range 3 {
		group.Go(func() {
			x, err := l.Reserve(context.Background(), testOpening(fmt.Sprint("e", i), 10))
			if err != nil {
				t.Error(err)
				return
			}
			good(x.Settle(Entry{InputTokens: 5}))
		})
	}
	submit(step(func(*transaction) error { panic("a bug") }), func(err error) {
		if err == nil || !strings.Contains(err.Error(), "a bug") {
			t.Errorf("a panic gave %v", err)
		}
	})
	submit(step(func(tx *transaction) error {
		tx.lastSeq += 100
		_, err := tx.exec(tx.stmt.renumber, 1)
		return err
	}), func(err error) {
		if err == nil {
			t.Error("half a statement succeeded")
		}
	})
	submit(step(func(tx *transaction) error {
		tx.charge("alice", "daily", l.books.current.daily, 1000)
		return errors.New("on second thoughts")
	}), func(err error) {
		if err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	waitQueued(l, 6)
	close(first.open)
	group.Wait()
	if u := state(l); u.Used != 15 || u.Reserved != 0 || l.LastSeq() != 3 || booked(t, l) != 3 {
		t.Errorf("%+v, last %d", u, l.LastSeq())
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
}

func TestReserveGivenUpInTheQueueHoldsNothing(t *testing.T) {
	l := testLedger(t)
	first := newBarrier()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = l.writer.do(context.Background(), first) })
	<-first.reached
	group.Go(func() {
		if x, err := l.Reserve(ctx, testOpening("e1", 10)); !errors.Is(err, context.Canceled) || x != nil {
			t.Errorf("got %v, %v", x, err)
		}
		close(first.open) // the writer is still busy when Reserve has returned
	})
	waitQueued(l, 1)
	cancel()
	group.Wait()
	// The writer passes over the ticket before it takes this one.
	if err := l.writer.do(t.Context(), step(func(*transaction) error { return nil })); err != nil {
		t.Fatal(err)
	}
	if u := state(l); u.Reserved != 0 || inFlight(t, l) != 0 {
		t.Errorf("%+v", u)
	}
}

func TestReserveGivenUpDuringTheCommitIsAdmitted(t *testing.T) {
	d := &disk{}
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tuning{create: d.create})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	exchange := func(id string) {
		x, err := l.Reserve(ctx, testOpening(id, 10))
		if err != nil {
			t.Error(err)
			return
		}
		if err := x.Settle(Entry{Outcome: fleet.OutcomeCanceled}); err != nil {
			t.Error(err)
		}
	}
	first, second := newBarrier(), newBarrier()
	d.hold.Store(&first)
	group.Go(func() { exchange("e1") })
	<-first.reached // e1 is being written
	group.Go(func() { exchange("e2") })
	waitQueued(l, 1)
	d.hold.Store(&second)
	close(first.open)
	<-second.reached // e2 is being written, by whoever
	cancel()
	close(second.open)
	group.Wait()
	if u := state(l); u.Reserved != 0 || inFlight(t, l) != 0 || booked(t, l) != 2 {
		t.Errorf("%+v", u)
	}
}

func TestCancellationAtAnyMomentLeaksNothing(t *testing.T) {
	l := testLedger(t)
	var group sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for i := range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		group.Go(cancel)
		group.Go(func() {
			x, err := l.Reserve(ctx, testOpening(fmt.Sprint("e", i), 10))
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			admitted++
			mu.Unlock()
			if err := x.Settle(Entry{InputTokens: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if u := state(l); u.Reserved != 0 || u.Used != int64(admitted) || inFlight(t, l) != 0 || booked(t, l) != admitted {
		t.Errorf("%+v, %d admitted", u, admitted)
	}
}

// disk makes segments whose disk can be full. Before it says so, it writes some bytes.
type disk struct {
	full    atomic.Bool
	partial int
	stuck   atomic.Bool             // nothing can be cut off either
	refuse  atomic.Bool             // no new files
	hold    atomic.Pointer[barrier] // in the way of the next write
	writes  atomic.Int64
}

func (d *disk) create(path string) (segmentFile, error) {
	if d.refuse.Load() {
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrPermission}
	}
	f, err := createSegment(path)
	return &diskFile{f, d}, err
}

type diskFile struct {
	segmentFile
	disk *disk
}

func (f *diskFile) WriteAt(p []byte, at int64) (int, error) {
	f.disk.writes.Add(1)
	if b := f.disk.hold.Swap(nil); b != nil {
		close(b.reached)
		<-b.open
	}
	if !f.disk.full.Load() {
		return f.segmentFile.WriteAt(p, at)
	}
	n, err := f.segmentFile.WriteAt(p[:min(f.disk.partial, len(p))], at)
	return n, errors.Join(err, &os.PathError{Op: "write", Path: "segment", Err: syscall.ENOSPC})
}

func (f *diskFile) Truncate(size int64) error {
	if f.disk.stuck.Load() {
		return syscall.EIO
	}
	return f.segmentFile.Truncate(size)
}

// fullDisk returns a ledger with an exchange of 10 tokens whose settlement with 7 did not fit on the disk.
func fullDisk(t *testing.T, partial int) (*Ledger, *disk) {
	t.Helper()
	d := &disk{partial: partial}
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tuning{create: d.create})
	x, err := l.Reserve(t.Context(), testOpening("e1", 10))
	if err != nil {
		t.Fatal(err)
	}
	d.full.Store(true)
	d.stuck.Store(partial > 0)
	if err := x.Settle(Entry{InputTokens: 7}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "disk is full") {
		t.Fatalf("got %v", err)
	}
	if err := l.Ready(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("ready: %v", err)
	}
	if _, err := l.Reserve(t.Context(), testOpening("e2", 10)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("admitted although the ledger cannot write: %v", err)
	}
	if u := state(l); u.Used != 0 || u.Reserved != 10 {
		t.Errorf("%+v", u)
	}
	return l, d
}

func TestFullDiskRecovers(t *testing.T) {
	for _, partial := range []int{0, 1, 100, 1 << 20} {
		l, d := fullDisk(t, partial)
		d.stuck.Store(false)
		d.full.Store(false)
		select {
		case <-l.Committed(): // by itself
		case <-t.Context().Done():
		}
		x, err := l.Reserve(t.Context(), testOpening("e3", 5))
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Settle(Entry{InputTokens: 1}); err != nil {
			t.Fatal(err)
		}
		if u := state(l); u.Used != 8 || u.Reserved != 0 || l.LastSeq() != 2 || l.Ready() != nil {
			t.Errorf("%+v, last %d, %v", u, l.LastSeq(), l.Ready())
		}
		again := crash(t, l) // what was written in part is not in the way
		if u := state(again); u.Used != 8 || again.LastSeq() != 2 || booked(t, again) != 2 {
			t.Errorf("after a crash: %+v, last %d", u, again.LastSeq())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRequestsRetryAtOnce(t *testing.T) {
	l, d := fullDisk(t, 0)
	d.full.Store(false)
	if _, err := l.Reserve(t.Context(), testOpening("e3", 5)); err != nil {
		t.Fatal(err)
	}
	if u := state(l); u.Used != 7 || u.Reserved != 5 {
		t.Errorf("%+v", u)
	}
}

// fill lets the database grow no further, or again.
func fill(t *testing.T, l *Ledger, full bool) {
	t.Helper()
	if err := l.writer.do(t.Context(), step(func(tx *transaction) error {
		pages := int64(1 << 30)
		if full {
			if err := l.file.read.QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
				return err
			}
		}
		_, err := tx.conn.ExecContext(t.Context(), fmt.Sprint("PRAGMA max_page_count = ", pages))
		return err
	})); err != nil {
		t.Fatal(err)
	}
}

func TestFullDatabase(t *testing.T) {
	l := testLedger(t)
	x, err := l.Reserve(t.Context(), testOpening("e1", 10))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, true)
	if err := x.Settle(Entry{InputTokens: 7, StopReason: strings.Repeat("x", 1<<20)}); err != nil {
		t.Fatal(err) // the journal has it
	}
	if totals, err := l.Totals(t.Context(), Filter{}); err != nil || totals.Requests != 0 {
		t.Errorf("a read sees what the database has: %+v, %v", totals, err)
	}
	if err := l.Ready(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("ready: %v", err)
	}
	if _, err := l.Reserve(t.Context(), testOpening("e2", 10)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("admitted although nothing can be moved: %v", err)
	}
	if err := l.Acknowledge(t.Context(), 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("acknowledged: %v", err)
	}
	if u := state(l); u.Used != 7 || u.Reserved != 0 {
		t.Errorf("%+v", u)
	}
	if again := crash(t, l); state(again).Used != 7 || booked(t, again) != 1 {
		t.Errorf("after a crash: %+v", state(again))
	}
	// No operation gets past the settlement that cannot be moved, but a connection may be shared.
	if _, err := l.mover.tx.conn.ExecContext(t.Context(), "PRAGMA max_page_count = 1073741823"); err != nil {
		t.Fatal(err)
	}
	for l.Ready() != nil { // by itself
		runtime.Gosched()
	}
	if _, err := l.Reserve(t.Context(), testOpening("e3", 5)); err != nil || booked(t, l) != 1 {
		t.Errorf("%v", err)
	}
}

func TestCloseSaysWhatIsLost(t *testing.T) {
	l, _ := fullDisk(t, 0)
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "1 settlements could not be written") {
		t.Errorf("got %v", err)
	}
}

// A commit may happen and report a failure. The settlement's second attempt must find the first.
func TestSettlementAppliedTwiceCountsOnce(t *testing.T) {
	l := testLedger(t)
	x, err := l.Reserve(t.Context(), testOpening("e1", 10))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Settle(Entry{InputTokens: 7}); err != nil {
		t.Fatal(err)
	}
	for seq := range int64(2) { // without a number it is known by its id
		s := &settlement{reservation: x.settlement.reservation, entry: &Entry{ID: "e1", StartedAt: x.entry.StartedAt, User: "alice", QuotaTokens: 7}, seq: seq}
		if err := l.writer.do(t.Context(), step(s.apply)); err != nil {
			t.Fatal(err)
		}
	}
	if booked(t, l) != 1 || l.LastSeq() != 1 {
		t.Errorf("%d entries, last %d", booked(t, l), l.LastSeq())
	}
}

func TestMemoryForgetsOldWindows(t *testing.T) {
	l := testLedger(t)
	now := l.now()
	l.now = func() time.Time { return now }
	for i := range 50 {
		o := testOpening(fmt.Sprint("e", i), 1)
		o.Entry.User = fmt.Sprint("user", i)
		x, err := l.Reserve(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Settle(Entry{InputTokens: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.books.accounts); n != 100 {
		t.Fatalf("%d accounts", n)
	}
	now = now.AddDate(0, 2, 0)
	if _, err := l.Reserve(t.Context(), testOpening("next", 1)); err != nil {
		t.Fatal(err)
	}
	if n := len(l.books.accounts); n != 2 {
		t.Errorf("%d accounts two months later", n)
	}
}

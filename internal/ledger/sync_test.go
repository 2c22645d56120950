package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// platter counts what is forced to it, and can refuse.
type platter struct {
	disk
	syncs  atomic.Int64
	broken atomic.Bool
}

func (p *platter) create(path string) (segmentFile, error) {
	f, err := p.disk.create(path)
	return &platterFile{f, p}, err
}

type platterFile struct {
	segmentFile
	platter *platter
}

func (f *platterFile) Sync() error {
	f.platter.syncs.Add(1)
	if f.platter.broken.Load() {
		return syscall.EIO
	}
	return nil
}

// onPlatter opens a ledger; what opening it forces to the disk is not counted.
func onPlatter(t *testing.T, interval time.Duration) (*Ledger, *platter) {
	t.Helper()
	p := &platter{}
	tune := still()
	tune.create = p.create
	l, err := Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), Options{Node: "n1", SyncInterval: &interval, tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p.syncs.Store(0)
	return l, p
}

// The journal alone, in a bubble of time: once per interval in which something was written, never when nothing was.
func TestSyncsAtMostOncePerIntervalAndNeverWhileIdle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	synctest.Test(t, func(t *testing.T) {
		p := &platter{}
		j := &journal{path: path, create: p.create, interval: 100 * time.Millisecond, failed: func(err error) { t.Error(err) }}
		if err := j.rotate(0, nil); err != nil {
			t.Fatal(err)
		}
		p.syncs.Store(0)
		check := func(want int64) {
			t.Helper()
			synctest.Wait()
			if n := p.syncs.Load(); n != want {
				t.Errorf("%d syncs instead of %d", n, want)
			}
		}
		<-time.After(time.Hour)
		check(0)
		for range 1000 {
			if err := j.append([]byte("frame")); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Millisecond)
		}
		check(9)
		<-time.After(100 * time.Millisecond)
		check(10)
		<-time.After(time.Hour)
		check(10)
		if err := j.append([]byte("frame")); err != nil {
			t.Fatal(err)
		}
		<-time.After(99 * time.Millisecond)
		check(10)
		<-time.After(time.Millisecond)
		check(11)
		if err := j.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSyncBeforeAnythingReturnsIsShared(t *testing.T) {
	l, p := onPlatter(t, 0)
	exchange(t, l, "alone", 1)
	if n := p.syncs.Load(); n != 2 {
		t.Errorf("%d syncs for an opening and a settlement", n)
	}
	const others = 20
	writing := newBarrier()
	p.hold.Store(&writing)
	var group sync.WaitGroup
	reserve := func(id string) {
		if _, err := l.Reserve(t.Context(), testOpening(id, 10)); err != nil {
			t.Error(err)
		}
	}
	group.Go(func() { reserve("first") })
	<-writing.reached
	for i := range others {
		group.Go(func() { reserve(fmt.Sprint("e", i)) })
	}
	waitQueued(l, others)
	close(writing.open)
	group.Wait()
	if n := p.syncs.Load(); n != 2+2 {
		t.Errorf("%d syncs for two groups", n-2)
	}
}

func TestAFailedSyncRefusesAndLeavesTheSegment(t *testing.T) {
	l, p := onPlatter(t, 0)
	x, err := l.Reserve(t.Context(), testOpening("e1", 10))
	if err != nil {
		t.Fatal(err)
	}
	number := l.writer.journal.number
	p.broken.Store(true)
	if _, err := l.Reserve(t.Context(), testOpening("e2", 10)); !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EIO) {
		t.Errorf("reserved what is not on stable storage: %v", err)
	}
	if err := x.Settle(Entry{InputTokens: 7}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("settled what is not on stable storage: %v", err)
	}
	if err := l.Ready(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("ready: %v", err)
	}
	p.broken.Store(false)
	exchange(t, l, "e3", 5) // tries again at once
	if err := l.Ready(); err != nil || l.writer.journal.number == number {
		t.Errorf("%v, in segment %d", err, l.writer.journal.number)
	}
	if u := state(l); u.Used != 12 || u.Reserved != 0 || booked(t, l) != 2 {
		t.Errorf("%+v", u)
	}
	if again := crash(t, l); state(again).Used != 12 || booked(t, again) != 2 {
		t.Errorf("after a crash: %+v", state(again))
	}
}

func TestAFailedSyncInTheBackgroundIsNotForgotten(t *testing.T) {
	l, p := onPlatter(t, time.Millisecond)
	p.broken.Store(true)
	exchange(t, l, "e1", 7)
	x, err := l.Reserve(t.Context(), testOpening("e2", 10))
	for l.Ready() == nil {
		<-time.After(time.Millisecond)
	}
	if _, err := l.Reserve(t.Context(), testOpening("e3", 10)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("admitted although nobody knows what is on stable storage: %v", err)
	}
	p.broken.Store(false)
	for l.Ready() != nil { // by itself
		<-time.After(time.Millisecond)
	}
	if err == nil { // the sync may have failed before e2
		if err := x.Settle(Entry{InputTokens: 3}); err != nil {
			t.Fatal(err)
		}
	} else {
		exchange(t, l, "e2", 3)
	}
	if u := state(l); u.Used != 10 || u.Reserved != 0 || booked(t, l) != 2 {
		t.Errorf("%+v", u)
	}
	journalOf(t, l.file.path) // the one that was lost is gone
}

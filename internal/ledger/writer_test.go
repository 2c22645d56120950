package ledger

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

// Whoever writes for the others does not wait for what else is in the queue.
func TestAnOperationIsItsOwnCallersToCarryOut(t *testing.T) {
	d := &disk{}
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tuning{create: d.create})
	writing, operation := newBarrier(), newBarrier()
	d.hold.Store(&writing)
	var group sync.WaitGroup
	opened := make(chan error, 1)
	group.Go(func() {
		_, err := l.Reserve(t.Context(), testOpening("e1", 10))
		opened <- err
	})
	<-writing.reached
	group.Go(func() {
		if err := l.writer.do(t.Context(), operation); err != nil {
			t.Error(err)
		}
	})
	waitQueued(l, 1)
	close(writing.open)
	<-operation.reached
	if err := <-opened; err != nil {
		t.Error(err)
	}
	close(operation.open)
	group.Wait()
}

// Those who come while somebody writes share the next write, in the order in which they came.
func TestQueuedRecordsShareAWrite(t *testing.T) {
	d := &disk{}
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tuning{create: d.create})
	const others = 20
	var held []*Exchange
	for i := range others {
		x, err := l.Reserve(t.Context(), testOpening(fmt.Sprintf("e%02d", i), 10))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, x)
	}
	writing := newBarrier()
	d.hold.Store(&writing)
	before := d.writes.Load()
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := l.Reserve(t.Context(), testOpening("first", 10)); err != nil {
			t.Error(err)
		}
	})
	<-writing.reached
	for i, x := range held {
		group.Go(func() {
			if err := x.Settle(Entry{Outcome: OutcomeFinished}); err != nil {
				t.Error(err)
			}
		})
		waitQueued(l, i+1)
	}
	close(writing.open)
	group.Wait()
	if n := d.writes.Load() - before; n != 2 {
		t.Errorf("%d writes", n)
	}
	for i, got := range outcomes(t, l) {
		if want := fmt.Sprintf("e%02d finished", i); got != want {
			t.Errorf("%s where %s should be", got, want)
		}
	}
}

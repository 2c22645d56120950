package upstream

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// enter takes a place at one queue.
func (q *queue) enter(ctx context.Context, user string, limit int, wait time.Duration) bool {
	_, ok := enterFirst(ctx, user, wait, entrance{q, limit})
	return ok
}

// state is how many are inside and how many wait.
func (q *queue) state() (held, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held, q.waiting
}

// empty fails the test if anything is left of whoever was there.
func (q *queue) empty(t *testing.T) {
	t.Helper()
	if q.held != 0 || q.waiting != 0 || q.length != 0 || len(q.turns) != 0 || len(q.lines) != 0 {
		t.Errorf("left behind: %d held, %d waiting, %v, %v", q.held, q.waiting, q.turns, q.lines)
	}
}

func TestQueueIsFairAmongUsers(t *testing.T) {
	var q queue
	if !q.enter(t.Context(), "greedy", 1, queueWait) {
		t.Fatal("the first place")
	}
	order := make(chan string, 8)
	var waiters sync.WaitGroup
	for i, user := range []string{"greedy", "modest"} {
		waiters.Go(func() {
			if q.enter(t.Context(), user, 1, queueWait) {
				order <- user
				q.leave(1)
			}
		})
		for {
			q.mu.Lock()
			n := q.waiting
			q.mu.Unlock()
			if n == i+1 {
				break
			}
		}
	}
	if q.enter(t.Context(), "third", 1, queueWait) {
		t.Error("more wait than the queue holds")
	}
	q.leave(1)
	waiters.Wait()
	if first, second := <-order, <-order; first != "greedy" || second != "modest" {
		t.Errorf("order %s, %s", first, second)
	}
	gone, leave := context.WithCancel(t.Context())
	q.enter(t.Context(), "x", 1, queueWait)
	leave()
	if q.enter(gone, "y", 1, queueWait) || q.waiting != 0 || len(q.turns) != 0 {
		t.Errorf("a client that left still waits: %+v", &q)
	}
}

func TestAPlaceIsTakenWhereverItIsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b queue
		at := []entrance{{&a, 1}, {&b, 1}}
		enter := func() (int, bool) { return enterFirst(t.Context(), "alice", queueWait, at...) }
		for want := range at {
			if i, ok := enter(); !ok || i != want {
				t.Fatalf("place %d: %d, %v", want, i, ok)
			}
		}
		begun := time.Now()
		time.AfterFunc(time.Second, func() { b.leave(1) })
		if i, ok := enter(); !ok || i != 1 || time.Since(begun) != time.Second {
			t.Errorf("entrance %d, %v after %s", i, ok, time.Since(begun))
		}
		if _, waiting := a.state(); waiting != 0 {
			t.Error("it still waits at the other entrance")
		}

		begun = time.Now()
		if _, ok := enter(); ok || time.Since(begun) != queueWait {
			t.Errorf("without a place: %v after %s, want the patience for both together", ok, time.Since(begun))
		}
		ctx, leave := context.WithCancel(t.Context())
		go leave()
		begun = time.Now()
		if _, ok := enterFirst(ctx, "alice", queueWait, at...); ok || time.Since(begun) != 0 {
			t.Errorf("a client that left waits: %v after %s", ok, time.Since(begun))
		}
		a.leave(1)
		b.leave(1)
		a.empty(t)
		b.empty(t)
	})
}

// A line that is full does not keep a request from another one.
func TestOneLineIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b queue
		a.enter(t.Context(), "first", 1, 0)
		b.enter(t.Context(), "first", 1, 0)
		for range queueFactor {
			go func() {
				if a.enter(t.Context(), "crowd", 1, queueWait) {
					t.Error("a place that nobody gave back")
				}
			}()
		}
		synctest.Wait()
		time.AfterFunc(time.Second, func() { b.leave(1) })
		if i, ok := enterFirst(t.Context(), "late", queueWait, entrance{&a, 1}, entrance{&b, 1}); !ok || i != 1 {
			t.Errorf("entrance %d, %v", i, ok)
		}
		if _, ok := enterFirst(t.Context(), "later", queueWait, entrance{&a, 1}); ok {
			t.Error("a line longer than it may be")
		}
	})
}

// Several entrances hold as many as their lines together, and one of them is not full because of those who wait at others, too.
func TestLinesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := [...]int{2, 2, 3}
		var queues [3]queue
		var at []entrance
		const places = 7
		for i, limit := range limits {
			at = append(at, entrance{&queues[i], limit})
		}
		var served, refused atomic.Int64
		enter := func(at ...entrance) {
			if _, ok := enterFirst(t.Context(), "crowd", queueWait, at...); ok {
				served.Add(1)
			} else {
				refused.Add(1)
			}
		}
		for range (1+queueFactor)*places - 1 {
			go enter(at...)
		}
		synctest.Wait()
		if served.Load() != places || refused.Load() != 0 {
			t.Errorf("%d served and %d refused at once", served.Load(), refused.Load())
		}
		go enter(at[1])
		synctest.Wait()
		if refused.Load() != 0 {
			t.Error("one that waits at one entrance only finds its line full")
		}
		for range 3 {
			go enter(at...)
		}
		synctest.Wait()
		if n := refused.Load(); n != 2 { // the one before took a place in a line that others wait in with a part of them
			t.Errorf("of the last three %d were refused", n)
		}
		<-time.After(queueWait)
		synctest.Wait()
		for i, limit := range limits {
			for range limit {
				queues[i].leave(limit)
			}
			queues[i].empty(t)
		}
	})
}

// However many come and go, at several entrances at once, no more are inside than places, and no place gets lost.
func TestQueuesUnderACrowd(t *testing.T) {
	var queues [3]queue
	limits := [3]int{1, 2, 3}
	var inside [3]atomic.Int64
	var entered atomic.Int64
	var crowd sync.WaitGroup
	for i := range 64 {
		crowd.Go(func() {
			user := string(rune('a' + i%5))
			for n := range 200 {
				first := (i + n) % 3
				at := []entrance{{&queues[first], limits[first]}, {&queues[(first+1)%3], limits[(first+1)%3]}}
				ctx, leave := context.WithCancel(t.Context())
				if n%7 == 0 {
					go leave()
				}
				which, ok := enterFirst(ctx, user, time.Duration(n%3)*time.Millisecond, at...)
				leave()
				if !ok {
					continue
				}
				place := (first + which) % 3
				if now := inside[place].Add(1); now > int64(limits[place]) {
					t.Errorf("%d inside of %d", now, limits[place])
				}
				entered.Add(1)
				inside[place].Add(-1)
				queues[place].leave(limits[place])
			}
		})
	}
	crowd.Wait()
	for i := range queues {
		queues[i].empty(t)
	}
	if entered.Load() == 0 {
		t.Error("nobody got in")
	}
}

// When all upstreams are full a request goes to whichever has a place first, though another one comes first in the order.
func TestARequestWaitsAtAllFullUpstreams(t *testing.T) {
	l := newLab(t, "a", "b")
	l.ups[0].MaxInFlight, l.ups[1].MaxInFlight = 1, 1
	ha, enteredA, openA := gate(success)
	hb, enteredB, openB := gate(success)
	l.fakes["a"].set(ha)
	l.fakes["b"].set(hb)
	first := l.background("one")
	<-enteredA
	second := l.background("two")
	<-enteredB
	l.fakes["b"].set(success)

	served := make(chan Result, 1)
	go func() { r, _ := l.do(""); served <- r }()
	a, b := &l.pool.health(l.ups[0]).inFlight, &l.pool.health(l.ups[1]).inFlight
	for waiting := 0; waiting < 2; {
		_, atA := a.state()
		_, atB := b.state()
		waiting = atA + atB
	}
	openB()
	if r := <-served; r.Answer == nil || r.Upstream != "b" || r.Attempts != 1 {
		t.Errorf("%+v", r)
	}
	if held, waiting := a.state(); held != 1 || waiting != 0 {
		t.Errorf("at the upstream that stayed full: %d held, %d waiting", held, waiting)
	}
	openA()
	<-first
	<-second
	a.empty(t)
	b.empty(t)
}

// One that had a place first and then fails leaves time to wait for the other.
func TestAPlaceThatWasOfNoUse(t *testing.T) {
	l := newLab(t, "a", "b")
	l.ups[0].MaxInFlight, l.ups[1].MaxInFlight = 1, 1
	ha, enteredA, openA := gate(success)
	hb, enteredB, openB := gate(success)
	l.fakes["a"].set(ha)
	l.fakes["b"].set(hb)
	first := l.background("one")
	<-enteredA
	second := l.background("two")
	<-enteredB
	failed := make(chan struct{})
	l.fakes["b"].set(func(w http.ResponseWriter, r *http.Request) {
		status(500, "api_error")(w, r)
		close(failed)
	})
	served := make(chan Result, 1)
	go func() { r, _ := l.do(""); served <- r }()
	a, b := &l.pool.health(l.ups[0]).inFlight, &l.pool.health(l.ups[1]).inFlight
	for waiting := 0; waiting < 1; {
		_, waiting = b.state()
	}
	openB()
	<-failed
	for waiting := 0; waiting < 1; {
		_, waiting = a.state()
	}
	l.fakes["a"].set(success)
	openA()
	if r := <-served; r.Answer == nil || r.Upstream != "a" || r.Attempts != 2 {
		t.Errorf("%+v", r)
	}
	<-first
	<-second
	a.empty(t)
	b.empty(t)
}

package upstream

import (
	"context"
	"sync"
	"testing"
)

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

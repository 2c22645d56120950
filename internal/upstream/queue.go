package upstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// queueWait bounds how long a request waits for places at upstreams, and queueFactor how many wait, relative to the cap.
const (
	queueWait   = 3 * time.Second
	queueFactor = 2
	whole       = 1 << 40 // what a waiter at one entrance counts in its line
)

// queue caps the requests in flight at an upstream. Those over the cap wait for a short time, and places go round the users
// who wait, so that one who sends a hundred does not keep out one who sends a single one. The zero value is ready.
type queue struct {
	mu      sync.Mutex
	held    int
	waiting int      // more than none only while there is no place
	length  int64    // of the lines together, as waiters count
	turns   []string // users who wait, next first
	lines   map[string][]waiter
}

// entrance is a queue with its cap; 0 is no cap.
type entrance struct {
	queue *queue
	limit int
}

// ticket is a request that waits at one or more entrances. It gets one place: whoever claims it first decides.
type ticket struct {
	user    string
	claimed atomic.Bool
	place   chan int // number of the entrance that had a place
}

func (t *ticket) claim() bool { return t.claimed.CompareAndSwap(false, true) }

// waiter is a ticket in the line of one entrance. It counts there for the entrance's part of the places that the ticket waits for,
// so that several entrances hold as many tickets together as their lines do.
type waiter struct {
	*ticket
	number int
	share  int64
}

// enterFirst takes a place at the first entrance that has one, waiting for at most wait at all of them together if it must. It
// returns the entrance's number; ok is false when there is no place in time.
func enterFirst(ctx context.Context, user string, wait time.Duration, at ...entrance) (number int, ok bool) {
	for i, e := range at {
		if e.queue.enterNow(e.limit) {
			return i, true
		}
	}
	if wait <= 0 {
		return 0, false
	}
	t := &ticket{user: user, place: make(chan int, 1)}
	lined, places := false, int64(0)
	for _, e := range at {
		places += int64(e.limit)
	}
	for i, e := range at {
		share := int64(whole)
		if places > 0 {
			share = (whole*int64(e.limit) + places - 1) / places
		}
		lined = e.queue.line(waiter{t, i, share}, e.limit) || lined
	}
	if !lined {
		return 0, false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case number = <-t.place:
		ok = true
	case <-timer.C:
	case <-ctx.Done():
	}
	if !ok && !t.claim() { // the place came at the same moment
		number, ok = <-t.place, true
	}
	for _, e := range at {
		e.queue.leaveLine(t)
	}
	return number, ok
}

// enterNow takes a place if there is one.
func (q *queue) enterNow(limit int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.free(limit) {
		return false
	}
	q.held++
	return true
}

func (q *queue) free(limit int) bool { return limit <= 0 || q.held < limit && q.waiting == 0 }

// line puts a waiter into its user's line, or gives it a place that has become free; false: the line is full.
func (q *queue) line(w waiter, limit int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.free(limit):
		q.give(w)
		return true
	case q.length >= queueFactor*whole*int64(limit):
		return false
	}
	if q.lines == nil {
		q.lines = map[string][]waiter{}
	}
	if len(q.lines[w.user]) == 0 {
		q.turns = append(q.turns, w.user)
	}
	q.lines[w.user] = append(q.lines[w.user], w)
	q.waiting++
	q.length += w.share
	return true
}

// give hands a place to a waiter, unless it has got one elsewhere or has given up.
func (q *queue) give(w waiter) {
	if w.claim() {
		q.held++
		w.place <- w.number // it has room for one
	}
}

// leaveLine takes a ticket out of its user's line, if it is there.
func (q *queue) leaveLine(t *ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[t.user]
	i := slices.IndexFunc(line, func(w waiter) bool { return w.ticket == t })
	if i < 0 {
		return
	}
	q.waiting--
	q.length -= line[i].share
	if line = slices.Delete(line, i, i+1); len(line) > 0 {
		q.lines[t.user] = line
		return
	}
	delete(q.lines, t.user)
	if i := slices.Index(q.turns, t.user); i >= 0 {
		q.turns = slices.Delete(q.turns, i, i+1)
	}
}

// leave gives a place back and hands it to the next in turn.
func (q *queue) leave(limit int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held--
	for q.waiting > 0 && (limit <= 0 || q.held < limit) {
		user := q.turns[0]
		q.turns = q.turns[1:]
		next := q.lines[user][0]
		if q.lines[user] = q.lines[user][1:]; len(q.lines[user]) == 0 {
			delete(q.lines, user)
		} else {
			q.turns = append(q.turns, user)
		}
		q.waiting--
		q.length -= next.share
		q.give(next)
	}
}

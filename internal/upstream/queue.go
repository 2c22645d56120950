package upstream

import (
	"context"
	"sync"
	"time"
)

// queueWait bounds how long a request waits for places at upstreams, and queueFactor how many wait, relative to the cap.
const (
	queueWait   = 3 * time.Second
	queueFactor = 2
)

// queue caps the requests in flight at an upstream. Those over the cap wait for a short time, and places go round the users
// who wait, so that one who sends a hundred does not keep out one who sends a single one. The zero value is ready.
type queue struct {
	mu      sync.Mutex
	held    int
	waiting int
	turns   []string // users who wait, next first
	lines   map[string][]chan struct{}
}

// enter takes a place, waiting for at most wait if it must; limit 0 is no cap. ok is false when there is none in time.
func (q *queue) enter(ctx context.Context, user string, limit int, wait time.Duration) (ok bool) {
	q.mu.Lock()
	if limit <= 0 || q.held < limit && q.waiting == 0 {
		q.held++
		q.mu.Unlock()
		return true
	}
	if wait <= 0 || q.waiting >= queueFactor*limit {
		q.mu.Unlock()
		return false
	}
	place := make(chan struct{})
	q.line(user, place)
	q.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-place:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return q.leaveLine(user, place)
}

func (q *queue) line(user string, place chan struct{}) {
	if q.lines == nil {
		q.lines = map[string][]chan struct{}{}
	}
	if len(q.lines[user]) == 0 {
		q.turns = append(q.turns, user)
	}
	q.lines[user] = append(q.lines[user], place)
	q.waiting++
}

// leaveLine gives up waiting; it returns true when the place came at the same moment.
func (q *queue) leaveLine(user string, place chan struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[user]
	for i, p := range line {
		if p != place {
			continue
		}
		q.lines[user] = append(line[:i:i], line[i+1:]...)
		q.waiting--
		if len(q.lines[user]) == 0 {
			q.dropTurn(user)
		}
		return false
	}
	return true
}

func (q *queue) dropTurn(user string) {
	delete(q.lines, user)
	for i, u := range q.turns {
		if u == user {
			q.turns = append(q.turns[:i:i], q.turns[i+1:]...)
			return
		}
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
		place := q.lines[user][0]
		q.lines[user] = q.lines[user][1:]
		if len(q.lines[user]) == 0 {
			delete(q.lines, user)
		} else {
			q.turns = append(q.turns, user)
		}
		q.waiting--
		q.held++
		close(place)
	}
}

package ledger

import (
	"context"
	"sync/atomic"
)

// ticket is a piece of work in a queue and its caller, who waits.
type ticket struct {
	op operation

	state atomic.Int32  // see below
	done  chan struct{} // closed when err is final
	err   error
}

const (
	queued    = iota // the caller may still withdraw it
	taken            // its goroutine has it and will finish it
	withdrawn        // the caller gave up; the goroutine passes over it
)

func newTicket(op operation) *ticket { return &ticket{op: op, done: make(chan struct{})} }

// take claims the ticket for the goroutine that works it off, unless the caller has withdrawn it.
func (t *ticket) take() bool { return t.state.CompareAndSwap(queued, taken) }

func (t *ticket) finish(err error) {
	t.err = err
	close(t.done)
}

// wait waits for the ticket to be finished, or for ctx to end before it is taken.
func (t *ticket) wait(ctx context.Context) error {
	select {
	case <-t.done:
	case <-ctx.Done():
		if t.state.CompareAndSwap(queued, withdrawn) {
			return ctx.Err()
		}
		<-t.done
	}
	return t.err
}

// signal wakes whoever receives from c, which has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

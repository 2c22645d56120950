package ledger

import (
	"context"
	"sync/atomic"
)

// ticket is a piece of work in a queue and its caller, who waits.
type ticket struct {
	op operation

	state atomic.Int32
	done  bool          // err is final
	wake  chan struct{} // has room for one; nil while nobody waits
	err   error
}

// The states of a ticket. It leaves the first one once.
const (
	queued    = iota // the caller may still withdraw it
	taken            // somebody works on it and will finish it
	leading          // its caller is to do the work, see writer
	withdrawn        // the caller gave up; it is passed over
)

func newTicket(op operation) *ticket { return &ticket{op: op, wake: make(chan struct{}, 1)} }

// take claims the ticket for whoever works it off, unless the caller has withdrawn it.
func (t *ticket) take() bool {
	return t.state.CompareAndSwap(queued, taken) || t.state.Load() == leading
}

// finish tells the caller, unless it is he who works it off. A ticket is finished once.
func (t *ticket) finish(err error) {
	t.done, t.err = true, err
	if t.state.Load() == taken {
		signal(t.wake)
	}
}

// wait waits until the ticket is finished or its caller is to lead, or ctx ends before anybody has taken it. The error is
// that of ctx.
func (t *ticket) wait(ctx context.Context) error {
	select {
	case <-t.wake:
	case <-ctx.Done():
		if t.state.CompareAndSwap(queued, withdrawn) {
			return ctx.Err()
		}
		<-t.wake
	}
	return nil
}

// signal wakes whoever receives from c, which has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

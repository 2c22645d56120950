package gateway

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/web"
)

const (
	// firstRead is what a request gets before it has sent anything, and readGrowth how many times more it gets each time it
	// has filled what it has: nobody holds memory by merely announcing a large body.
	firstRead  = 16 << 10
	readGrowth = 8
	// minBodyRate, in bytes per second, is what a client has to send on average once its time is up.
	minBodyRate = 16 << 10
	// overloadWait, in seconds, is how long a client is told to wait when bodies fill the memory; they are let go as soon as
	// their answers begin.
	overloadWait = 5
)

// BodyLimits bound the bodies of requests.
type BodyLimits struct {
	Size    int64         // bytes of one
	Timeout time.Duration // for a client to send it; one that keeps sending fast enough may take longer
	Memory  int64         // bytes of all that wait for an answer; 0: no limit
}

// bodies keeps count of the memory that request bodies hold.
type bodies struct {
	limits atomic.Pointer[BodyLimits]
	held   atomic.Int64
	first  sync.Pool // of *[firstRead]byte, for the beginnings of bodies that are longer
}

// SetBodyLimits brings other limits in force, for requests that begin from now on.
func (g *Gateway) SetBodyLimits(l BodyLimits) { g.bodies.limits.Store(&l) }

// take reserves n bytes, if the limit allows it.
func (b *bodies) take(n, limit int64) bool {
	if b.held.Add(n) > limit && limit > 0 {
		b.held.Add(-n)
		return false
	}
	return true
}

// buffer grows with what has arrived, and accounts for its memory.
type buffer struct {
	bodies *bodies
	limits *BodyLimits
	taken  atomic.Int64
	bytes  []byte

	lent     *[firstRead]byte // what bytes began as
	returned bool
}

// grow makes room for at least one byte more. want is the length that was announced, -1 if none was.
func (b *buffer) grow(want int64) error {
	size := int64(firstRead)
	if cap(b.bytes) > 0 {
		size = int64(cap(b.bytes)) * readGrowth
	}
	if want >= int64(len(b.bytes)) { // one byte more, so that the end is seen without growing again
		size = min(size, want+1)
	}
	size = min(size, b.limits.Size+1)
	if !b.bodies.take(size-int64(cap(b.bytes)), b.limits.Memory) {
		e := anthropic.ErrOverloaded(overloadWait)
		e.Message = "Overloaded: this gateway has no memory left for another request; try again in a moment."
		return e
	}
	b.taken.Add(size - int64(cap(b.bytes)))
	if b.lent == nil && want >= firstRead {
		b.lent = b.bodies.lend()
		b.bytes = b.lent[:0]
		return nil
	}
	grown := make([]byte, len(b.bytes), size)
	copy(grown, b.bytes)
	if b.bytes = grown; b.lent != nil && !b.returned {
		b.bodies.first.Put(b.lent)
		b.returned = true
	}
	return nil
}

func (b *bodies) lend() *[firstRead]byte {
	if lent, ok := b.first.Get().(*[firstRead]byte); ok {
		return lent
	}
	return new([firstRead]byte)
}

// release gives the memory back to the account.
func (b *buffer) release() { b.bodies.held.Add(-b.taken.Swap(0)) }

// readBody reads the whole body, so that it can be judged before it is sent, sent more than once, and sent with a length.
// Its memory counts as held until the answer begins.
func (g *Gateway) readBody(r *web.Request) ([]byte, error) {
	if e := r.Head.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, anthropic.ErrInvalidRequest("A request body with content-encoding " + shorten(e) + " is not supported. Send it uncompressed.")
	}
	limits := g.bodies.limits.Load()
	if r.ContentLength > limits.Size {
		return nil, anthropic.ErrTooLarge(limits.Size)
	}
	body := &buffer{bodies: &g.bodies, limits: limits}
	r.Hold(body.release)
	pace := g.newPace(r, limits.Timeout)
	defer pace.end()
	for {
		if len(body.bytes) == cap(body.bytes) {
			if err := body.grow(r.ContentLength); err != nil {
				g.metrics.denials.WithLabelValues("overload").Inc()
				return nil, err
			}
		}
		n, err := r.Body.Read(body.bytes[len(body.bytes):cap(body.bytes)])
		body.bytes = body.bytes[:len(body.bytes)+n]
		switch {
		case int64(len(body.bytes)) > limits.Size:
			return nil, anthropic.ErrTooLarge(limits.Size)
		case errors.Is(err, io.EOF):
			return body.bytes, nil
		case err != nil:
			return nil, unreadable(err)
		}
		pace.progress(n)
	}
}

func (g *Gateway) discardBody(r *web.Request) error {
	limits := g.bodies.limits.Load()
	pace := g.newPace(r, limits.Timeout)
	defer pace.end()
	var some [4 << 10]byte
	for total := int64(0); total <= limits.Size; {
		n, err := r.Body.Read(some[:])
		total += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return unreadable(err)
		}
		pace.progress(n)
	}
	return anthropic.ErrTooLarge(limits.Size)
}

// pace gives a client its time to send a body, and a second more for each minBodyRate bytes that have arrived: a large body
// gets through a slow line, while a drip is cut off.
type pace struct {
	request *web.Request
	due     time.Time // with all that has arrived
	set     time.Time // the deadline in force
}

func (g *Gateway) newPace(r *web.Request, patience time.Duration) *pace {
	due := g.now().Add(patience)
	_ = r.ReadDeadline(due) // fails on a connection on which reading fails, too
	return &pace{request: r, due: due, set: due}
}

func (p *pace) progress(n int) {
	p.due = p.due.Add(time.Duration(n) * time.Second / minBodyRate)
	if p.due.Sub(p.set) >= time.Second {
		p.set = p.due
		_ = p.request.ReadDeadline(p.set)
	}
}

// end lifts the deadline.
func (p *pace) end() { _ = p.request.ReadDeadline(time.Time{}) }

func unreadable(err error) error {
	e := anthropic.ErrInvalidRequest("The request body could not be read to its end.").WithCause(fmt.Errorf("cannot read the request body: %w", err))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Status, e.Message = 408, "The request body took too long to arrive."
	}
	return e
}

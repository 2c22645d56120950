package gateway

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/web"
	"carpool/internal/wire"
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

	// Bodies up to largestLent are read into memory that is used again.
	smallestLent = 4 << 10
	largestLent  = 32 << 20
)

// BodyLimits bound the bodies of requests.
type BodyLimits struct {
	Size    int64         // bytes of one
	Timeout time.Duration // for a client to send it; one that keeps sending fast enough may take longer
	Memory  int64         // bytes of all that wait for an answer; 0: no limit
}

// bodies lends the memory for request bodies and keeps count of it.
type bodies struct {
	limits atomic.Pointer[BodyLimits]
	held   atomic.Int64
	lent   [1 + 13*4]sync.Pool // of *[]byte, by class
}

// sizeOf returns the size of memory that is lent for n bytes, at most a quarter more than those, and its class: there are four
// sizes between a power of two and the next.
func sizeOf(n int64) (size int64, class int) {
	n = max(n, smallestLent)
	steps := bits.Len64(uint64(n-1)) - 3 //nolint:gosec // n is positive
	quarters := (n-1)>>steps + 1         // 5 to 8 of them
	return quarters << steps, 4*(steps-10) + int(quarters) - 4
}

// SetBodyLimits brings other limits in force, for requests that begin from now on. One body of the largest size always fits.
func (g *Gateway) SetBodyLimits(l BodyLimits) {
	if l.Memory > 0 {
		largest := l.Size + 1
		if largest <= largestLent {
			largest, _ = sizeOf(largest)
		}
		l.Memory = max(l.Memory, largest)
	}
	g.bodies.limits.Store(&l)
}

// lend returns memory for at least n bytes, or nil when the limit does not allow it. It is to take the place of old, which may be
// nil and does not count any more when there is memory; its bytes are the new one's first, and it must not be looked at again.
func (b *bodies) lend(n, limit int64, old *[]byte) *[]byte {
	class, replaced := -1, int64(0)
	if n <= largestLent {
		n, class = sizeOf(n)
	}
	if old != nil {
		replaced = int64(len(*old))
	}
	if b.held.Add(n-replaced) > limit && limit > 0 {
		b.held.Add(replaced - n)
		return nil
	}
	memory := b.take(n, class)
	if old != nil {
		copy(*memory, *old)
		b.put(old)
	}
	return memory
}

func (b *bodies) take(n int64, class int) *[]byte {
	if class >= 0 {
		if m, ok := b.lent[class].Get().(*[]byte); ok {
			return m
		}
	}
	return new(make([]byte, n))
}

// back takes memory that nobody looks at any more.
func (b *bodies) back(m *[]byte) {
	b.held.Add(-int64(len(*m)))
	b.put(m)
}

func (b *bodies) put(m *[]byte) {
	if n := int64(len(*m)); n <= largestLent {
		_, class := sizeOf(n)
		b.lent[class].Put(m)
	}
}

// buffer is a body that grows with what has arrived.
type buffer struct {
	bodies *bodies
	limits *BodyLimits
	memory *[]byte // nil before the first byte
	size   int
}

// grow makes room for at least one byte more. want is the length that was announced, -1 if none was.
func (b *buffer) grow(want int64) error {
	size := int64(firstRead)
	if b.memory != nil {
		size = int64(len(*b.memory)) * readGrowth
	}
	if want >= int64(b.size) { // one byte more, so that the end is seen without growing again
		size = min(size, want+1)
	}
	grown := b.bodies.lend(min(size, b.limits.Size+1), b.limits.Memory, b.memory)
	if grown == nil {
		e := anthropic.ErrOverloaded(overloadWait)
		e.Message = "Overloaded: this gateway has no memory left for another request; try again in a moment."
		return e
	}
	b.memory = grown
	return nil
}

// discard gives up a body that did not come to be.
func (b *buffer) discard() {
	if b.memory != nil {
		b.bodies.back(b.memory)
	}
}

// whole is the body, whose memory goes back when nobody needs it any more.
func (b *buffer) whole() *wire.Body {
	memory := b.memory
	return wire.NewBody((*memory)[:b.size], func() { b.bodies.back(memory) })
}

// readBody reads the whole body, so that it can be judged before it is sent, sent more than once, and sent with a length.
// Its memory counts as held until it is released.
func (g *Gateway) readBody(r *web.Request) (*wire.Body, error) {
	if e := r.Head.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, anthropic.ErrInvalidRequest("A request body with content-encoding " + shorten(e) + " is not supported. Send it uncompressed.")
	}
	limits := g.bodies.limits.Load()
	if r.ContentLength > limits.Size {
		return nil, anthropic.ErrTooLarge(limits.Size)
	}
	body := &buffer{bodies: &g.bodies, limits: limits}
	if err := g.fill(body, r); err != nil {
		body.discard()
		return nil, err
	}
	return body.whole(), nil
}

// fill reads all of a request's body.
func (g *Gateway) fill(body *buffer, r *web.Request) error {
	pace := g.newPace(r, body.limits.Timeout)
	defer pace.end()
	for {
		if body.memory == nil || body.size == len(*body.memory) {
			if err := body.grow(r.ContentLength); err != nil {
				g.metrics.denials.WithLabelValues("overload").Inc()
				return err
			}
		}
		n, err := r.Body.Read((*body.memory)[body.size:])
		body.size += n
		switch {
		case int64(body.size) > body.limits.Size:
			return anthropic.ErrTooLarge(body.limits.Size)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return unreadable(err)
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

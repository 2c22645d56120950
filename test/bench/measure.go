//go:build linux

package main

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// patience with one answer, beyond the time that it takes by itself.
const patience = 30 * time.Second

// manyErrors end a measurement: whatever it is, it has been shown.
const manyErrors = 1000

// run sends a load to one address and counts what comes of it.
type run struct {
	load      *load
	exchanges []*exchange
	requests  [][]byte // of the exchanges, ready to be sent
	address   string
	cpu       func() time.Duration // used so far by who is measured

	measuring            atomic.Bool
	sent, answers, bytes atomic.Int64
	errors               atomic.Int64

	mu     sync.Mutex
	first  []time.Duration // until first bytes, of the window
	sample string          // the first error
}

// point is what was counted up to a moment.
type point struct {
	at             time.Time
	cpu            time.Duration // used by who is measured
	others         time.Duration // used on the machine by all but who is measured and this process
	answers, bytes int64
}

func newRun(l *load, exchanges []*exchange, address string, cpu func() time.Duration) *run {
	r := &run{load: l, exchanges: exchanges, address: address, cpu: cpu}
	for _, x := range exchanges {
		r.requests = append(r.requests, append(x.head(address), x.request...))
	}
	return r
}

// do sends the load and returns the two ends of the window.
func (r *run) do(ctx context.Context) (begin, end point) {
	switch r.load.pattern {
	case open:
		return r.open(ctx)
	case slow:
		return r.slow(ctx)
	default:
		return r.closed(ctx)
	}
}

func (r *run) point() point {
	cpu := r.cpu()
	return point{time.Now(), cpu, machine() - cpu - own(), r.answers.Load(), r.bytes.Load()}
}

// window waits for the window to pass.
func (r *run) window(ctx context.Context) (begin, end point) {
	begin = r.point()
	r.measuring.Store(true)
	pause(ctx, r.load.window)
	r.measuring.Store(false)
	return begin, r.point()
}

// hopeless reports whether to go on makes no sense.
func (r *run) hopeless(ctx context.Context) bool {
	return ctx.Err() != nil || r.errors.Load() >= manyErrors
}

// call sends the request of one of the exchanges. The time until the first byte counts from since.
func (r *run) call(ctx context.Context, c *client, i int, since time.Time, limit time.Duration) {
	i %= len(r.exchanges)
	counted := r.measuring.Load()
	r.sent.Add(1)
	first, err := c.call(ctx, r.exchanges[i], r.requests[i], limit)
	if err != nil {
		r.fail(err.Error())
		pause(ctx, 10*time.Millisecond) // a client that has failed does not hammer
		return
	}
	r.answers.Add(1)
	if counted {
		r.mu.Lock()
		r.first = append(r.first, first.Sub(since))
		r.mu.Unlock()
	}
}

func (r *run) fail(what string) {
	r.errors.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sample == "" {
		r.sample = what
	}
}

func (r *run) client() *client {
	return &client{address: r.address, got: func(n int) { r.bytes.Add(int64(n)) }}
}

func (r *run) closed(ctx context.Context) (begin, end point) {
	var clients sync.WaitGroup
	var over atomic.Bool
	for i := range r.load.conns {
		clients.Go(func() {
			c := r.client()
			defer c.close()
			for !over.Load() && !r.hopeless(ctx) {
				r.call(ctx, c, i, time.Now(), patience)
			}
		})
	}
	pause(ctx, r.load.warm)
	begin, end = r.window(ctx)
	over.Store(true)
	clients.Wait()
	return begin, end
}

// open sends each request at its appointed time, and counts from there, so that a proxy that stalls cannot hide it by being
// sent less.
func (r *run) open(ctx context.Context) (begin, end point) {
	var calls, window sync.WaitGroup
	idle := &pool{}
	gap := time.Second / time.Duration(r.load.rate)
	total := int((r.load.warm + r.load.window) / gap)
	begun := time.Now()
	window.Go(func() { // on its own: reading /proc must not delay a request
		pause(ctx, r.load.warm)
		begin, end = r.window(ctx)
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range total {
		at := begun.Add(time.Duration(i) * gap)
		for wait := time.Until(at); wait > 0; wait = time.Until(at) {
			ts := syscall.NsecToTimespec(int64(wait))
			_ = syscall.Nanosleep(&ts, nil) // interrupted or not: a timer of the runtime may be a millisecond late
		}
		if r.hopeless(ctx) {
			break
		}
		c := idle.take()
		if c == nil {
			if idle.made == r.load.conns {
				r.fail("not sent: every connection waits for an answer")
				continue
			}
			idle.made++
			c = r.client()
		}
		calls.Go(func() {
			r.call(ctx, c, i, at, patience)
			idle.put(c)
		})
	}
	window.Wait()
	calls.Wait()
	idle.close()
	return begin, end
}

// pool holds the clients that have nothing to do; the last one to come is the first to be taken.
type pool struct {
	made    int // clients, by the one who takes them
	mu      sync.Mutex
	clients []*client
}

func (p *pool) take() *client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.clients) == 0 {
		return nil
	}
	c := p.clients[len(p.clients)-1]
	p.clients = p.clients[:len(p.clients)-1]
	return c
}

func (p *pool) put(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients = append(p.clients, c)
}

func (p *pool) close() {
	for c := p.take(); c != nil; c = p.take() {
		c.close()
	}
}

// slow opens the streams one by one; the window begins when all are open. Each stream goes on to its end.
func (r *run) slow(ctx context.Context) (begin, end point) {
	var streams sync.WaitGroup
	defer streams.Wait()
	life := time.Duration(r.load.events+2) * r.load.every
	begun := time.Now()
	for i := range r.load.conns {
		if r.hopeless(ctx) {
			break
		}
		streams.Go(func() {
			c := r.client()
			defer c.close()
			r.call(ctx, c, i, time.Now(), life+patience)
		})
		pause(ctx, time.Until(begun.Add(r.load.warm*time.Duration(i+1)/time.Duration(r.load.conns))))
	}
	pause(ctx, settle)
	return r.window(ctx)
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

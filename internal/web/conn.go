package web

import (
	"container/list"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"carpool/internal/wire"
)

// doorkeeper is a listener that bounds how many connections are open at once and how long one may take nothing of what is
// sent on it. One connection beyond the limit is accepted and kept waiting, which is how it is known that there is one; it
// gets the place of the connection that has been idle for longest, or of the next one that is closed. All others wait in
// the kernel's queue.
type doorkeeper struct {
	net.Listener
	patience time.Duration // 0: none
	slow     func()        // called for each connection that is given up

	mu    sync.Mutex
	max   int // 0: no limit
	open  int
	idle  list.List     // of *conn, longest idle first
	left  chan struct{} // holds a token when a place may have become free
	ended chan struct{}
	end   sync.Once
}

func newDoorkeeper(l net.Listener, most int, patience time.Duration, slow func()) *doorkeeper {
	return &doorkeeper{Listener: l, max: most, patience: patience, slow: slow, left: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Accept waits for a connection and for a place for it.
func (d *doorkeeper) Accept() (net.Conn, error) {
	inner, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for !d.enter() {
		select {
		case <-d.left:
		case <-d.ended:
			_ = inner.Close()
			return nil, net.ErrClosed
		}
	}
	boundUnsent(inner)
	return &conn{Conn: wire.Socket(inner), door: d}, nil
}

// enter takes a place if there is one, and otherwise makes the connection leave that has been idle for longest.
func (d *doorkeeper) enter() bool {
	d.mu.Lock()
	if d.max == 0 || d.open < d.max {
		d.open++
		d.mu.Unlock()
		return true
	}
	var longest *conn
	if e := d.idle.Front(); e != nil {
		longest = d.forget(e)
	}
	d.mu.Unlock()
	if longest != nil {
		_ = longest.Close()
	}
	return false
}

func (d *doorkeeper) forget(e *list.Element) *conn {
	c := e.Value.(*conn) //nolint:forcetypeassert // the list holds nothing else
	d.idle.Remove(e)
	c.idle = nil
	return c
}

func (d *doorkeeper) leave(c *conn) {
	d.mu.Lock()
	d.open--
	if c.idle != nil {
		d.forget(c.idle)
	}
	d.mu.Unlock()
	d.wake()
}

func (d *doorkeeper) wake() {
	select {
	case d.left <- struct{}{}:
	default:
	}
}

// setMax changes the limit. Connections beyond a lower one stay until they end.
func (d *doorkeeper) setMax(most int) {
	d.mu.Lock()
	d.max = most
	d.mu.Unlock()
	d.wake()
}

// noteState is told whether a connection waits for a next request.
func (d *doorkeeper) noteState(nc net.Conn, idle bool) {
	c, ok := nc.(*conn)
	for !ok {
		outer, wrapped := nc.(interface{ NetConn() net.Conn })
		if !wrapped {
			return
		}
		nc = outer.NetConn()
		c, ok = nc.(*conn)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case idle && c.idle == nil && !c.closed.Load():
		c.idle = d.idle.PushBack(c)
		d.wake()
	case !idle && c.idle != nil:
		d.forget(c.idle)
	}
}

// Close stops accepting.
func (d *doorkeeper) Close() error {
	d.end.Do(func() { close(d.ended) })
	return d.Listener.Close()
}

// conn is a connection that is given up when its other side takes nothing of what is sent for a while. A deadline that was
// set from outside has precedence.
type conn struct {
	net.Conn
	door   *doorkeeper
	idle   *list.Element // guarded by door.mu
	closed atomic.Bool

	given    atomic.Bool  // a write deadline was set from outside
	extended atomic.Int64 // when our own was last set, in Unix nanoseconds
	stuck    atomic.Bool
}

// mostAtOnce bounds a write for which the deadline holds: a client that takes a little of a large one now and then makes progress.
const mostAtOnce = 64 << 10

// Write sends p, as long as the other side takes it.
func (c *conn) Write(p []byte) (n int, err error) {
	if c.door.patience <= 0 || c.given.Load() {
		return c.Conn.Write(p)
	}
	for {
		part := p[n:min(len(p), n+mostAtOnce)]
		c.extend()
		sent, err := c.Conn.Write(part)
		n += sent
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !c.stuck.Swap(true) {
				c.door.slow()
			}
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// extend sets the deadline anew. One that was set a moment ago is left alone, which is cheaper.
func (c *conn) extend() {
	now := time.Now()
	if last := c.extended.Load(); now.UnixNano()-last >= int64(c.door.patience/8) {
		c.extended.Store(now.UnixNano())
		_ = c.Conn.SetWriteDeadline(now.Add(c.door.patience)) // fails on a connection on which writing fails, too
	}
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline sets a deadline instead of our own; the zero time brings ours back.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) note(t time.Time) {
	c.given.Store(!t.IsZero())
	c.extended.Store(0)
}

// CloseWrite ends the sending side; net/http does so before it gives up a connection on which a client still sends.
func (c *conn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close gives the place away. What a client that took nothing has not taken yet is thrown away at once; the kernel would
// keep it for minutes.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return c.Conn.Close()
	}
	defer c.door.leave(c)
	if t, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok && c.stuck.Load() {
		_ = t.SetLinger(0)
	}
	return c.Conn.Close()
}

// NetConn returns the connection below, for those who have to reset it.
func (c *conn) NetConn() net.Conn { return c.Conn }

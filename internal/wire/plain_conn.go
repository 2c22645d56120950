package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	usualRequestHead = 4 << 10
	// MostHead bounds the request line and the header of a request; net/http adds 4 KiB to it, and so does Plain.
	MostHead        = 64 << 10
	mostRequestHead = MostHead + 4<<10
)

//nolint:gochecknoglobals // memory to be used again, no state
var headBuffers = sync.Pool{New: func() any { return new([usualRequestHead]byte) }}

// plainConn is a connection with its requests, one after the other.
type plainConn struct {
	plain  *Plain
	nc     net.Conn
	remote netip.AddrPort

	buf  []byte                  // nil while nothing is read or kept
	lent *[usualRequestHead]byte // what buf is, unless it had to grow
	r, w int                     // buf[r:w] was read and not yet used

	mu    sync.Mutex
	state connState
}

type connState int

const (
	fresh   connState = iota // nothing has come yet
	waiting                  // for a further request
	serving
)

// run serves requests until one is not plain, or there is no further one.
func (c *plainConn) run(ctx context.Context) (rest net.Conn) {
	for {
		x, err := c.next()
		switch {
		case errors.Is(err, errOdd):
			return c.replay()
		case err != nil:
			return nil
		}
		if !c.serve(ctx, x) {
			return nil
		}
	}
}

// next reads the head of the next request. The error is errOdd when it, or what comes in its place, is net/http's.
func (c *plainConn) next() (*plainExchange, error) {
	again := c.state == serving
	if !c.await() {
		return nil, net.ErrClosed
	}
	if again {
		c.tell(true)
	}
	x, err := c.readHead(again)
	if again {
		c.tell(false)
	}
	c.change(serving)
	if err != nil {
		return nil, err
	}
	if c.plain.options.Elsewhere != nil && c.plain.options.Elsewhere(x.request.Path) {
		return nil, errOdd
	}
	c.r += x.request.size
	return x, nil
}

func (c *plainConn) readHead(again bool) (*plainExchange, error) {
	var scan headScan
	for begun := false; ; {
		end, err := scan.find(c.buf[c.r:c.w])
		switch {
		case err != nil:
			return nil, err
		case end > 0:
			x := &plainExchange{}
			return x, x.request.parse(c.buf[c.r : c.r+end])
		case !c.room():
			return nil, errOdd // net/http has the words for a head that is too long
		}
		if c.w > c.r && again && !begun { // the first of it has come: from now on its own time counts
			begun = true
			c.tell(false)
			_ = c.nc.SetReadDeadline(deadline(c.plain.options.HeaderTimeout))
		}
		n, err := c.nc.Read(c.buf[c.w:])
		if c.w += n; n == 0 && err != nil {
			return nil, err
		}
	}
}

// room makes room for at least one more byte of a head.
func (c *plainConn) room() bool {
	switch {
	case c.buf == nil:
		c.lent = headBuffers.Get().(*[usualRequestHead]byte) //nolint:forcetypeassert // the pool holds nothing else
		c.buf = c.lent[:]
	case c.w < len(c.buf):
	case c.r > 0:
		c.w, c.r = copy(c.buf, c.buf[c.r:c.w]), 0
	case c.w >= mostRequestHead:
		return false
	default:
		grown := make([]byte, min(2*len(c.buf), mostRequestHead))
		n := copy(grown, c.buf)
		c.release()
		c.buf, c.w = grown, n
	}
	return true
}

// release gives the buffer and what is in it away.
func (c *plainConn) release() {
	if c.lent != nil {
		headBuffers.Put(c.lent)
	}
	c.buf, c.lent, c.r, c.w = nil, nil, 0, 0
}

// await says that the connection waits for a request; false means that there will be none.
func (c *plainConn) await() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	patience, ending := c.plain.options.HeaderTimeout, c.plain.ending.Load()
	switch {
	case c.state == serving && ending:
		return false
	case c.state == serving:
		c.state, patience = waiting, c.plain.options.IdleTimeout
	case ending && (patience <= 0 || patience > freshGrace):
		patience = freshGrace
	}
	_ = c.nc.SetReadDeadline(deadline(patience)) // fails on a connection on which reading fails, too
	return true
}

// dismiss ends a connection that waits.
func (c *plainConn) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case fresh:
		_ = c.nc.SetReadDeadline(time.Now().Add(freshGrace))
	case waiting:
		_ = c.nc.SetReadDeadline(past)
	case serving:
	}
}

//nolint:gochecknoglobals // a constant
var past = time.Unix(1, 0)

func (c *plainConn) change(to connState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = to
}

func (c *plainConn) tell(idle bool) {
	if c.plain.options.Idle != nil {
		c.plain.options.Idle(c.nc, idle)
	}
}

// plainExchange is a request with its answer.
type plainExchange struct {
	request plainRequest
	body    plainBody
	writer  plainWriter
	watch   watch
}

// serve has a request answered, and reports whether another one may follow.
func (c *plainConn) serve(ctx context.Context, x *plainExchange) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = c.nc.SetReadDeadline(time.Time{})
	r := &x.request
	x.watch.nc, x.watch.leave = c.nc, cancel
	x.body.conn, x.body.watch, x.body.left = c, &x.watch, r.ContentLength
	x.body.used()
	r.Body, r.Remote, r.ReadDeadline = &x.body, c.remote, c.nc.SetReadDeadline
	x.writer.conn, x.writer.body, x.writer.head, x.writer.last = c, &x.body, r.Method == "HEAD", r.last
	defer x.writer.release()
	defer x.watch.end()
	c.plain.options.Serve(ctx, &x.writer, &r.Request)
	whole := x.writer.end()
	early := x.watch.end()
	switch {
	case !whole:
		return false
	case x.body.left > 0:
		c.linger()
		return false
	case early.came && c.room():
		c.buf[c.w] = early.b
		c.w++
	}
	return !x.writer.last
}

// What is taken in of a body that nobody reads, before a connection is closed: closed at once, it would be reset, and the
// client might lose the answer. Nobody waits for that: the client has the answer and its end already.
const (
	lingerBytes = 256 << 10
	lingerTime  = 4 * time.Second
)

func (c *plainConn) linger() {
	if t, ok := c.nc.(interface{ CloseWrite() error }); !ok || t.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	if !c.room() {
		return
	}
	for total := 0; total < lingerBytes; {
		n, err := c.nc.Read(c.buf)
		if total += n; err != nil {
			return
		}
	}
}

// replay is the connection for net/http, which gets what was read of it first.
func (c *plainConn) replay() net.Conn {
	_ = c.nc.SetDeadline(time.Time{})
	return &replayed{Conn: c.nc, read: append([]byte(nil), c.buf[c.r:c.w]...)}
}

// replayed is a connection of which something was read already.
type replayed struct {
	net.Conn
	read []byte
}

func (c *replayed) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil
	}
	return n, nil
}

// CloseWrite ends the sending side; net/http does so before it gives up a connection on which a client still sends.
func (c *replayed) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection below.
func (c *replayed) NetConn() net.Conn { return c.Conn }

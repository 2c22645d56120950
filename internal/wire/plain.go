package wire

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// PlainOptions configure a Plain.
type PlainOptions struct {
	Serve HandlerFunc
	// Elsewhere reports whether requests for a path are net/http's; nil: none.
	Elsewhere func(path string) bool
	// Idle is told when a connection begins to wait for a further request, and when that has come; may be nil.
	Idle func(conn net.Conn, idle bool)
	// HandOver takes a connection that net/http has to go on with. It returns when somebody has taken charge of it.
	HandOver      func(conn net.Conn)
	HeaderTimeout time.Duration // for the head of a request
	IdleTimeout   time.Duration // until the next request
	Log           *slog.Logger
}

// Plain serves HTTP/1.1 in the shape in which every released CLI speaks it: GET, HEAD and POST in origin form, bodies with a
// Content-Length. Whatever has another shape is handed to net/http with all its bytes, so that only one program decides
// about what is unusual. It costs a fifth of net/http, and keeps order and case of the fields.
type Plain struct {
	options PlainOptions
	close   atomic.Bool // answers end their connections, and say so
	ending  atomic.Bool // no connection waits for a further request

	mu      sync.Mutex
	conns   map[*plainConn]struct{}
	drained chan struct{} // closed when there are no connections and none is let in; nil before Drain
}

// NewPlain returns a Plain.
func NewPlain(o PlainOptions) *Plain {
	return &Plain{options: o, conns: make(map[*plainConn]struct{})}
}

// CloseAfterAnswers makes every answer from now on the last one of its connection, and says so in it.
func (p *Plain) CloseAfterAnswers() { p.close.Store(true) }

// freshGrace is how long a connection that is drained before it has sent anything may still begin a request.
const freshGrace = 5 * time.Second

// Drain lets no connection in any more and ends those that wait for a request. It returns a channel that is closed when
// all have ended.
func (p *Plain) Drain() <-chan struct{} {
	p.close.Store(true)
	p.ending.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drained == nil {
		p.drained = make(chan struct{})
		if len(p.conns) == 0 {
			close(p.drained)
		}
		for c := range p.conns {
			c.dismiss()
		}
	}
	return p.drained
}

// Close breaks all connections off.
func (p *Plain) Close() {
	p.Drain()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.nc.Close()
	}
}

func (p *Plain) enter(c *plainConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drained != nil {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Plain) leave(c *plainConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	if p.drained != nil && len(p.conns) == 0 {
		close(p.drained)
	}
}

// ServeConn serves the requests of a connection, which may be a *tls.Conn, and closes it, or hands it over. Requests get
// contexts that end with ctx, or when the client leaves.
func (p *Plain) ServeConn(ctx context.Context, nc net.Conn) {
	c := &plainConn{plain: p, nc: nc}
	if !p.enter(c) {
		_ = nc.Close()
		return
	}
	defer p.leave(c)
	if rest := p.serve(ctx, c); rest != nil {
		p.options.HandOver(rest)
	}
}

// serve returns a connection that net/http has to go on with, and closes every other one.
func (p *Plain) serve(ctx context.Context, c *plainConn) (rest net.Conn) {
	nc := c.nc
	defer func() {
		if r := recover(); r != nil {
			p.options.Log.ErrorContext(ctx, "a connection panicked", slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
			rest = nil
		}
		c.release()
		if rest == nil {
			_ = nc.Close()
		}
	}()
	if t, ok := nc.(*tls.Conn); ok {
		_ = nc.SetDeadline(deadline(p.options.HeaderTimeout))
		if err := t.HandshakeContext(ctx); err != nil || t.ConnectionState().NegotiatedProtocol == "h2" {
			return nc // net/http explains a failed handshake
		}
		_ = nc.SetDeadline(time.Time{})
	}
	if remote, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		c.remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	}
	return c.run(ctx)
}

func deadline(patience time.Duration) time.Time {
	if patience <= 0 {
		return time.Time{}
	}
	return time.Now().Add(patience)
}

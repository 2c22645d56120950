package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// Outgoing is a request to an upstream.
type Outgoing struct {
	Method string
	URL    *url.URL
	Head   Head  // without Host and Content-Length
	Body   *Body // nil for none
}

// Client sends requests to upstreams over HTTP/1.1, keeping connections open. Fields are sent and handed over in the order
// and case given. It follows no redirects, adds no fields of its own but Host and Content-Length, and never decodes an
// answer. An open answer costs no goroutine and no buffer.
//
// Where the environment names a proxy for an upstream, net/http goes through it.
type Client struct {
	options ClientOptions
	dialer  net.Dialer
	tls     *tls.Config
	pool    pool
	proxy   *proxyClient

	requests, heads lender
}

// ClientOptions configure a Client. A time of 0 is no limit.
type ClientOptions struct {
	HeaderTimeout   time.Duration // from the end of the request to the answer's header
	DialTimeout     time.Duration // for the connection, and once more for the TLS handshake
	IdleTimeout     time.Duration
	IdlePerUpstream int         // 0: none is kept
	TLS             *tls.Config // nil: the system's roots
}

// NewClient returns a Client. Close it to drop idle connections.
func NewClient(o ClientOptions) *Client {
	c := &Client{
		options: o, dialer: net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second}, tls: &tls.Config{MinVersion: tls.VersionTLS12},
		pool:     pool{most: o.IdlePerUpstream, idleTime: o.IdleTimeout},
		requests: lender{size: smallBody + 4<<10}, heads: lender{size: 4 << 10},
	}
	if o.TLS != nil {
		c.tls = o.TLS.Clone()
	}
	c.tls.NextProtos = []string{"http/1.1"}  // a broken connection costs one stream, not a hundred
	c.tls.DynamicRecordSizingDisabled = true // nobody can use the beginning of a request before its end
	if c.tls.ClientSessionCache == nil {
		c.tls.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	c.proxy = newProxyClient(o, &c.dialer)
	return c
}

// Close drops idle connections; requests in flight go on, and theirs are not kept.
func (c *Client) Close() {
	c.pool.close()
	c.proxy.pooled.CloseIdleConnections()
}

// Do sends a request and returns as soon as the answer's header is there. sent reports whether any byte may have
// reached the upstream, which tells a safe repetition from an unsafe one.
//
// A kept-open connection that the upstream closes at the moment it is used again fails a request which was never looked at;
// every HTTP client meets that, and the CLI repeats without a word. So does Do, once, on a new connection.
func (c *Client) Do(ctx context.Context, out *Outgoing) (resp *Response, sent bool, err error) {
	resp, f, err := c.attempt(ctx, out, false)
	sent = f.sent
	if err != nil && ctx.Err() == nil && f.stale(err) {
		resp, f, err = c.attempt(ctx, out, true)
		sent = true
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		var timeout net.Error
		if sent && (errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()) {
			return nil, sent, fmt.Errorf("%s did not answer in time: %w", out.URL.Host, err)
		}
		return nil, sent, fmt.Errorf("cannot reach %s: %w", out.URL.Host, err)
	}
	return resp, sent, nil
}

// attempt sends a request on a kept-open connection, or on a new one when there is none or fresh is asked for.
func (c *Client) attempt(ctx context.Context, out *Outgoing, fresh bool) (*Response, fate, error) {
	if ctx.Err() != nil {
		return nil, fate{}, ctx.Err()
	}
	host, err := c.pool.host(out.URL, c.tls)
	if err != nil {
		return nil, fate{}, err
	}
	if host.proxied {
		return c.proxy.attempt(ctx, out, fresh)
	}
	req, err := c.prepare(out)
	if err != nil {
		return nil, fate{}, err
	}
	var conn *conn
	if !fresh {
		conn = c.pool.take(host)
	}
	if conn == nil {
		if conn, err = c.dial(ctx, host); err != nil {
			c.discard(req)
			return nil, fate{}, err
		}
	}
	return conn.exchange(ctx, req, out.Method)
}

// fate is what became of a request's connection.
type fate struct {
	sent     bool // a byte may have reached the upstream
	reused   bool
	answered bool // a byte has come back
	since    time.Time
}

// staleTime is how soon a kept-open connection has to fail for that to have been closed already.
const staleTime = time.Second

// stale reports whether an error is that of a kept-open connection which the other side had closed.
func (f fate) stale(err error) bool {
	if !f.reused || f.answered || time.Since(f.since) > staleTime {
		return false
	}
	return errors.Is(err, io.EOF) || hungUp(err) ||
		strings.Contains(err.Error(), "server closed idle connection") // net/http has no name for it
}

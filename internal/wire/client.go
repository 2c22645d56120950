package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Outgoing is a request to an upstream.
type Outgoing struct {
	Method string
	URL    *url.URL
	Head   Head  // without Host and Content-Length
	Body   *Body // nil for none
}

// Client sends requests to upstreams over net/http, keeping connections open. It follows no redirects, adds no fields of
// its own and never decodes an answer.
type Client struct {
	transport *http.Transport
	single    *http.Transport // for a request whose kept-open connection was closed: one new connection for it alone
}

// ClientOptions configure a Client.
type ClientOptions struct {
	HeaderTimeout   time.Duration // from the end of the request to the answer's header
	DialTimeout     time.Duration
	IdleTimeout     time.Duration
	IdlePerUpstream int
	TLS             *tls.Config // nil: the system's roots
}

// NewClient returns a Client. Close it to drop idle connections.
func NewClient(o ClientOptions) *Client {
	dialer := &net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second}
	pooled := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialPatient(dialer),
		TLSHandshakeTimeout:   o.DialTimeout,
		TLSClientConfig:       o.TLS,
		ForceAttemptHTTP2:     false, // a broken connection costs one stream, not a hundred
		ResponseHeaderTimeout: o.HeaderTimeout,
		IdleConnTimeout:       o.IdleTimeout,
		MaxIdleConns:          0,
		MaxIdleConnsPerHost:   o.IdlePerUpstream,
		DisableCompression:    true,
		WriteBufferSize:       2 << 10, // both are held by every open stream
		ReadBufferSize:        2 << 10,
	}
	single := pooled.Clone()
	single.DisableKeepAlives = true
	return &Client{transport: pooled, single: single}
}

// Close drops idle connections; requests in flight go on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Do sends a request and returns as soon as the answer's header is there. sent reports whether any byte may have
// reached the upstream, which tells a safe repetition from an unsafe one.
//
// A kept-open connection that the upstream closes at the moment it is used again fails a request which was never looked at;
// every HTTP client meets that, and the CLI repeats without a word. So does Do, once, on a new connection.
func (c *Client) Do(ctx context.Context, out *Outgoing) (resp *Response, sent bool, err error) {
	var use connectionUse
	resp, err = c.roundTrip(httptrace.WithClientTrace(ctx, use.trace()), c.transport, out)
	if err != nil && ctx.Err() == nil && use.stale(err) {
		resp, err = c.roundTrip(httptrace.WithClientTrace(ctx, use.trace()), c.single, out)
	}
	return resp, use.connected.Load(), err
}

// staleTime is how soon a kept-open connection has to fail for that to have been closed already.
const staleTime = time.Second

// connectionUse is what became of a request's connection.
type connectionUse struct {
	connected, reused, answered atomic.Bool
	since                       atomic.Int64 // Unix nanoseconds
}

func (u *connectionUse) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			u.connected.Store(true)
			u.reused.Store(info.Reused)
			u.since.Store(time.Now().UnixNano())
			requestBegins(info.Conn)
		},
		GotFirstResponseByte: func() { u.answered.Store(true) },
	}
}

// stale reports whether an error is that of a kept-open connection which the other side had closed.
func (u *connectionUse) stale(err error) bool {
	if !u.reused.Load() || u.answered.Load() || time.Now().UnixNano()-u.since.Load() > int64(staleTime) {
		return false
	}
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "server closed idle connection") // net/http has no name for it
}

func (c *Client) roundTrip(ctx context.Context, transport *http.Transport, out *Outgoing) (*Response, error) {
	req := (&http.Request{
		Method: out.Method, URL: out.URL, Host: out.URL.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: toHeader(out.Head),
	}).WithContext(ctx)
	switch {
	case out.Body == nil:
	case out.Body.Size() == 0:
		req.Body = http.NoBody // a length of 0 would mean that it is not known
	default:
		req.ContentLength = int64(out.Body.Size())
		req.Body = out.Body.Reader()
		// net/http repeats a POST by itself only on a kept-open connection that turned out closed before any byte was written.
		req.GetBody = func() (io.ReadCloser, error) { return out.Body.Reader(), nil }
	}
	answer, err := transport.RoundTrip(req) //nolint:bodyclose // the caller closes it
	if err != nil {
		return nil, fmt.Errorf("cannot reach %s: %w", out.URL.Host, err)
	}
	if answer.StatusCode < 200 { // nobody asked to switch protocols, and the rest is no answer
		_ = answer.Body.Close()
		return nil, fmt.Errorf("%s answered with status %d", out.URL.Host, answer.StatusCode)
	}
	return &Response{Status: answer.StatusCode, Head: fromHeader(answer.Header), ContentLength: answer.ContentLength, Body: answer.Body}, nil
}

func toHeader(head Head) http.Header {
	header := make(http.Header, len(head)+1)
	addTo(header, head)
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		// net/http takes them for the permission to send a POST twice, which the Messages API does not give; in lower case
		// it passes them on without a thought.
		if values, ok := header[name]; ok {
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = []string{""} // net/http then sends none, instead of its own
	}
	return header
}

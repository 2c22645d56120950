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

// hasProxy reports whether the environment names a proxy for an address (HTTPS_PROXY, HTTP_PROXY, NO_PROXY; never for the
// machine itself), or names one that cannot be understood.
func hasProxy(u *url.URL) bool {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	return proxy != nil || err != nil
}

// proxyClient sends requests through the proxy that the environment names, which is the one case that is left to net/http. It
// keeps neither the order nor the case of the fields.
type proxyClient struct {
	pooled *http.Transport
	single *http.Transport // for a request whose kept-open connection was closed: one new connection for it alone
}

func newProxyClient(o ClientOptions, dialer *net.Dialer) *proxyClient {
	pooled := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialPatient(dialer),
		TLSHandshakeTimeout:   o.DialTimeout,
		TLSClientConfig:       o.TLS,
		ForceAttemptHTTP2:     false,
		ResponseHeaderTimeout: o.HeaderTimeout,
		IdleConnTimeout:       o.IdleTimeout,
		MaxIdleConnsPerHost:   o.IdlePerUpstream,
		DisableCompression:    true,
		WriteBufferSize:       2 << 10, // both are held by every open stream
		ReadBufferSize:        2 << 10,
	}
	single := pooled.Clone()
	single.DisableKeepAlives = true
	return &proxyClient{pooled, single}
}

func (c *proxyClient) attempt(ctx context.Context, out *Outgoing, fresh bool) (resp *Response, f fate, err error) {
	transport := c.pooled
	if fresh {
		transport = c.single
	}
	var reused, sent, answered atomic.Bool
	start := time.Now()
	resp, err = roundTrip(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			reused.Store(info.Reused)
			sent.Store(true)
			requestBegins(info.Conn)
		},
		GotFirstResponseByte: func() { answered.Store(true) },
	}), transport, out)
	return resp, fate{sent: sent.Load(), reused: reused.Load(), answered: answered.Load(), since: start}, err
}

func roundTrip(ctx context.Context, transport *http.Transport, out *Outgoing) (*Response, error) {
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
		return nil, err
	}
	if answer.StatusCode < 200 { // nobody asked to switch protocols, and the rest is no answer
		_ = answer.Body.Close()
		return nil, fmt.Errorf("the answer has the status %d", answer.StatusCode)
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

// dialPatient makes connections on which an answer survives a broken request: net/http would report the failed write instead
// of reading the answer.
func dialPatient(dialer *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &patientConn{Conn: conn}, nil
	}
}

// patientConn hides that the other side has hung up in the middle of what is being written. The reader gets to know it
// next, after all that had arrived before. The first write of a request still fails, because a request of which nothing
// was written can be sent again on another connection.
type patientConn struct {
	net.Conn
	writing atomic.Bool // something of the request was written
}

// requestBegins tells a connection of dialPatient, which may be below TLS, that what is written from now on is a new request.
func requestBegins(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if c, ok := conn.(*patientConn); ok {
		c.writing.Store(false)
	}
}

func (c *patientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	switch {
	case err == nil:
		c.writing.Store(true)
	case (n > 0 || c.writing.Load()) && hungUp(err):
		return len(p), nil
	}
	return n, err
}

// hungUp reports whether a write failed because the other side has closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

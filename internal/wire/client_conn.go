package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// mostHead bounds the head of an answer, together with the interim answers before it.
const mostHead = 256 << 10

// conn is a connection to an upstream. It carries one exchange at a time: the caller writes the request and reads the answer;
// a second goroutine exists only while the rest of a large request is being written.
type conn struct {
	net.Conn          // with TLS, where there is
	tcp      net.Conn // below it
	client   *Client
	host     *host
	watcher  *watcher
	onCancel func() // abort, made once

	idleSince time.Time // of the pool's lock

	reused  bool        // there was an exchange before
	unwatch func() bool // undoes the watch over the caller's context

	mu      sync.Mutex
	writing bool // the rest of the request is on its way
	broken  bool // the request could not be written whole
	waiting bool // for the answer's head
}

func (c *Client) dial(ctx context.Context, h *host) (*conn, error) {
	tcp, err := c.dialer.DialContext(ctx, "tcp", h.address)
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: Socket(tcp), tcp: tcp, client: c, host: h, watcher: newWatcher(tcp)}
	k.onCancel = k.abort
	if h.tls == nil {
		return k, nil
	}
	if c.options.DialTimeout > 0 {
		_ = tcp.SetDeadline(time.Now().Add(c.options.DialTimeout))
	}
	secure := tls.Client(k.Conn, h.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		k.abort()
		return nil, fmt.Errorf("no TLS: %w", err)
	}
	_ = tcp.SetDeadline(time.Time{})
	k.Conn = secure
	return k, nil
}

// abort closes the connection at once, whatever is being read or written. With TLS there is no farewell, which could have to
// wait.
func (c *conn) abort() { c.tcp.Close() }

// exchange sends a request and reads the head of the answer, whose body then has the connection.
func (c *conn) exchange(ctx context.Context, r request, method string) (resp *Response, f fate, err error) {
	f = fate{sent: true, reused: c.reused, since: time.Now()}
	if ctx.Done() != nil {
		c.unwatch = context.AfterFunc(ctx, c.onCancel)
	}
	if err = c.send(r); err == nil {
		resp, err = c.receive(ctx, method, &f)
	}
	if err != nil {
		c.end(false)
	}
	return resp, f, err
}

// end is the end of an exchange: the connection is kept for the next one, or closed.
func (c *conn) end(keep bool) {
	if c.unwatch != nil && !c.unwatch() {
		keep = false // it is being closed
	}
	c.unwatch = nil
	c.mu.Lock()
	keep = keep && !c.writing && !c.broken
	c.mu.Unlock()
	if keep {
		c.client.pool.put(c)
	} else {
		c.abort()
	}
}

// send writes a request, or begins to. That the other side hangs up is not an error as long as it may have answered before:
// who refuses a large body does not always read it first.
func (c *conn) send(r request) error {
	c.mu.Lock()
	c.writing, c.broken, c.waiting = true, false, true
	c.mu.Unlock()
	n, err := c.Write(*r.first)
	if err != nil || r.rest == nil {
		c.client.discard(r)
		c.written(err)
		if err != nil && (!hungUp(err) || n == 0 && c.reused) {
			return err
		}
		return nil
	}
	c.client.requests.back(r.first)
	rest := r.rest
	if c.host.tls == nil { // most connections take it all at once
		rest = rest[c.watcher.offer(rest):]
	}
	if len(rest) == 0 {
		r.body.Release()
		c.written(nil)
		return nil
	}
	go func() {
		_, err := c.Write(rest)
		r.body.Release()
		c.written(err)
	}()
	return nil
}

// written is the end of writing a request; from now on the head of the answer is due.
func (c *conn) written(err error) {
	if err != nil && !hungUp(err) {
		c.abort() // nothing can be expected
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing, c.broken = false, err != nil
	if most := c.client.options.HeaderTimeout; most > 0 && c.waiting {
		_ = c.SetReadDeadline(time.Now().Add(most))
	}
}

// receive reads the head of the answer.
func (c *conn) receive(ctx context.Context, method string, f *fate) (*Response, error) {
	head, buffer, rest, err := c.readHead(f)
	c.mu.Lock()
	c.waiting = false
	if c.client.options.HeaderTimeout > 0 {
		_ = c.SetReadDeadline(time.Time{})
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	a := &answer{Response: Response{Status: head.status, Head: head.fields, ContentLength: head.length}}
	if !head.hasBody(method) {
		c.client.heads.back(buffer)
		if method != http.MethodHead {
			a.ContentLength = 0
		}
		a.Body = http.NoBody
		c.end(head.keep && len(rest) == 0) // from here on it may be another exchange's
		return &a.Response, nil
	}
	a.body = answerBody{ctx: ctx, conn: c, buffer: buffer, rest: rest, keep: head.keep && (head.chunked || head.length > 0), left: head.length}
	if head.chunked {
		a.body.chunks = &a.chunks
	}
	if len(rest) == 0 {
		a.body.dropBuffer()
	}
	a.Body = &a.body
	return &a.Response, nil
}

// readHead reads up to the end of the head of the final answer. rest is what of the body has come with it, in a buffer which
// is lent.
func (c *conn) readHead(f *fate) (head answerHead, buffer *[]byte, rest []byte, err error) {
	buffer = c.client.heads.lend()
	defer func() {
		if err != nil {
			c.client.heads.back(buffer)
			buffer = nil
		}
	}()
	got, looked, skipped := (*buffer)[:0], 0, 0
	for {
		end := headEnd(got, looked)
		if end < 0 {
			if !mayBeAnswer(got) {
				return head, buffer, nil, errNotHTTP
			}
			looked = len(got)
			if got, err = c.readMore(buffer, got, mostHead-skipped, f); err != nil {
				return head, buffer, nil, err
			}
			continue
		}
		if head, err = parseAnswer(got[:end]); err != nil {
			return head, buffer, nil, err
		}
		if !head.interim() {
			return head, buffer, got[end:], nil
		}
		skipped += end
		got, looked = got[:copy(got, got[end:])], 0
	}
}

// readMore reads once and appends what comes, in the buffer that got is the beginning of, which grows.
func (c *conn) readMore(buffer *[]byte, got []byte, most int, f *fate) ([]byte, error) {
	if len(got) >= most {
		return got, fmt.Errorf("the head of the answer is larger than %d bytes", mostHead)
	}
	if len(got) == cap(got) {
		larger := make([]byte, len(got), 2*cap(got))
		copy(larger, got)
		*buffer, got = larger, larger
	}
	n, err := c.Read(got[len(got):min(cap(got), most)])
	if n > 0 {
		f.answered = true
		return got[:len(got)+n], nil
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no answer within %v: %w", c.client.options.HeaderTimeout, err)
	case len(got) > 0 && errors.Is(err, io.EOF):
		err = fmt.Errorf("the head of the answer breaks off: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, io.ErrUnexpectedEOF): // of TLS without a farewell
		err = fmt.Errorf("the connection was closed without an answer: %w", io.EOF)
	}
	return got, err
}

// lender lends buffers of one size, which may grow.
type lender struct {
	size int
	pool sync.Pool
}

func (l *lender) lend() *[]byte {
	if b, ok := l.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, l.size)
	return &b
}

func (l *lender) back(b *[]byte) {
	if cap(*b) <= 2*l.size {
		l.pool.Put(b)
	}
}

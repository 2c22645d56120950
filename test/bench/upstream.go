//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// upstream is the Messages API behind the proxies: HTTP/1.1 over plain connections, which knows every request beforehand and
// has every answer ready.
type upstream struct {
	listener net.Listener
	serving  atomic.Pointer[service]
	tasks    sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil: closed
}

// service is what the upstream answers at present.
type service struct {
	exchanges map[string]*exchange // by session
	every     time.Duration        // between the writes of an answer
}

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot start the upstream: %w", err)
	}
	u := &upstream{listener: l, conns: map[net.Conn]struct{}{}}
	u.tasks.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of files: the client in want of an answer will tell
				time.Sleep(10 * time.Millisecond)
				continue
			}
			u.tasks.Go(func() { u.converse(c) })
		}
	})
	return u, nil
}

func (u *upstream) address() string { return u.listener.Addr().String() }

// serve makes the upstream answer the requests of these exchanges, and no others.
func (u *upstream) serve(exchanges []*exchange, every time.Duration) {
	s := &service{exchanges: map[string]*exchange{}, every: every}
	for _, x := range exchanges {
		s.exchanges[x.session] = x
	}
	u.serving.Store(s)
}

// close ends all connections and waits for them.
func (u *upstream) close() {
	u.listener.Close()
	u.mu.Lock()
	for c := range u.conns {
		c.Close()
	}
	u.conns = nil
	u.mu.Unlock()
	u.tasks.Wait()
}

func (u *upstream) converse(c net.Conn) {
	defer c.Close()
	u.mu.Lock()
	if u.conns == nil {
		u.mu.Unlock()
		return
	}
	u.conns[c] = struct{}{}
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.conns, c)
		u.mu.Unlock()
	}()

	in := bufio.NewReaderSize(c, 32<<10)
	for {
		if _, err := in.Peek(1); err != nil {
			return
		}
		s := u.serving.Load()
		x, err := s.receive(in)
		if err != nil {
			complain(c, err)
			return
		}
		if x.send(c, s.every) != nil {
			return
		}
	}
}

// receive reads a request and compares its body with the one that was sent.
func (s *service) receive(in *bufio.Reader) (*exchange, error) {
	h, err := readHead(in)
	if err != nil {
		return nil, err
	}
	x := s.exchanges[h.session]
	switch {
	case !strings.HasPrefix(h.start, "POST /v1/messages"):
		return nil, fmt.Errorf("not expected: %s", h.start)
	case x == nil:
		return nil, fmt.Errorf("no session %q", h.session)
	case h.length != len(x.request):
		return nil, fmt.Errorf("a body of %d bytes instead of %d", h.length, len(x.request))
	}
	return x, compare(in, x.request, nil)
}

func (x *exchange) send(c net.Conn, every time.Duration) error {
	begun := time.Now()
	for i, b := range x.writes {
		if every > 0 {
			time.Sleep(time.Until(begun.Add(time.Duration(i) * every)))
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// complain answers a request that was not sent like this; the client counts it as an error.
func complain(c net.Conn, err error) {
	body := fmt.Sprintf(`{"type":"error","error":{"type":"invalid_request_error","message":%s}}`, quote("upstream: "+err.Error()))
	fmt.Fprintf(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

// head is what both ends need to know of a message's head.
type head struct {
	start   string
	length  int // -1: not stated
	chunked bool
	close   bool
	session string
}

func readHead(in *bufio.Reader) (head, error) {
	h := head{length: -1}
	line, err := readLine(in)
	if err != nil {
		return h, fmt.Errorf("cannot read the head: %w", err)
	}
	h.start = string(line)
	for {
		line, err := readLine(in)
		if err != nil {
			return h, fmt.Errorf("cannot read the head: %w", err)
		}
		if len(line) == 0 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case is(name, "content-length"):
			if h.length, err = strconv.Atoi(string(value)); err != nil {
				return h, fmt.Errorf("cannot read the length: %w", err)
			}
		case is(name, "transfer-encoding"):
			h.chunked = is(value, "chunked")
		case is(name, "connection"):
			h.close = is(value, "close")
		case is(name, "x-claude-code-session-id"):
			h.session = string(value)
		}
	}
}

// is compares names without regard to case, mostly by their length.
func is(b []byte, lower string) bool {
	return len(b) == len(lower) && strings.EqualFold(string(b), lower)
}

func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

// compare reads as many bytes as want has and fails at the first that differ. It tells got how many arrived together.
func compare(in *bufio.Reader, want []byte, got func(int)) error {
	for at := 0; at < len(want); {
		if _, err := in.Peek(1); err != nil {
			return fmt.Errorf("cut off after %d of %d bytes: %w", at, len(want), err)
		}
		b, _ := in.Peek(min(in.Buffered(), len(want)-at))
		if !bytes.Equal(b, want[at:at+len(b)]) {
			return fmt.Errorf("differs within %d bytes after %d: %.60q", len(b), at, b)
		}
		at += len(b)
		_, _ = in.Discard(len(b)) // what was just seen
		if got != nil {
			got(len(b))
		}
	}
	return nil
}

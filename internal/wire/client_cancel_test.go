package wire_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"carpool/internal/wire"
)

// blackHole is an address where nobody accepts: connecting takes for ever.
func blackHole(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	raw, err := listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { _ = syscall.Listen(int(fd), 0) }); err != nil { // a queue for one
		t.Fatal(err)
	}
	for {
		c, err := net.DialTimeout("tcp", listener.Addr().String(), 50*time.Millisecond)
		if err != nil {
			return "http://" + listener.Addr().String() // the queue is full
		}
		t.Cleanup(func() { c.Close() })
	}
}

// silent is an upstream that takes connections, tells of each, and says nothing; then it tells that the client has closed.
func silent(t *testing.T, first string) (base string, arrived, gone chan struct{}) {
	t.Helper()
	arrived, gone = make(chan struct{}), make(chan struct{})
	base = listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		_, _ = io.WriteString(c, first)
		_, _ = in.Peek(1)
		arrived <- struct{}{}
		<-gone
		_, _ = io.Copy(io.Discard, in)
		gone <- struct{}{}
	})
	return base, arrived, gone
}

func TestCancelInEveryPhase(t *testing.T) {
	t.Parallel()
	because := errors.New("because")
	small, big := []byte("{}"), make([]byte, large)
	for name, phase := range map[string]struct {
		secure bool
		body   []byte
		first  string
		sent   bool
	}{
		"dialling":                     {},
		"the TLS handshake":            {secure: true, body: small},
		"writing":                      {body: big, sent: true},
		"waiting for the head":         {body: small, sent: true},
		"within the head":              {body: small, sent: true, first: "HTTP/1.1 200 OK\r\nA: "},
		"reading the body":             {body: small, sent: true, first: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"},
		"reading chunks":               {body: small, sent: true, first: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"},
		"reading until the end":        {body: small, sent: true, first: "HTTP/1.1 200 OK\r\n\r\nhe"},
		"reading and writing the rest": {body: big, sent: true, first: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var base string
			var arrived, gone chan struct{}
			if phase.body == nil {
				base = blackHole(t)
			} else {
				base, arrived, gone = silent(t, phase.first)
			}
			if phase.secure {
				base = strings.Replace(base, "http:", "https:", 1)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if arrived == nil {
				time.AfterFunc(20*time.Millisecond, func() { cancel(because) }) // whatever it is doing then
			} else {
				go func() {
					<-arrived
					cancel(because)
				}()
			}
			out := post(t, base, phase.body)
			var letGo atomic.Bool
			out.Body = wire.NewBody(phase.body, func() { letGo.Store(true) })
			client := newClient(t)
			answer, sent, err := client.Do(ctx, out)
			out.Body.Release()
			if err == nil {
				_, err = io.Copy(io.Discard, answer.Body)
				if n, again := answer.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(again, because) {
					t.Errorf("reading on: %d, %v", n, again)
				}
				answer.Body.Close()
			}
			if !errors.Is(err, because) || sent != phase.sent {
				t.Errorf("sent %v, %v", sent, err)
			}
			eventually(t, "the body is let go", letGo.Load)
			if gone != nil {
				gone <- struct{}{}
				<-gone // the client has closed the connection
			}
		})
	}
	t.Run("before all", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(because)
		if _, sent, err := newClient(t).Do(ctx, post(t, "http://127.0.0.1:1", small)); sent || !errors.Is(err, because) {
			t.Errorf("sent %v, %v", sent, err)
		}
	})
	t.Run("after all", func(t *testing.T) {
		t.Parallel()
		base, connections := answering(t, okAnswer, false)
		client := newClient(t)
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			answer, _, err := client.Do(ctx, post(t, base, small))
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(answer.Body); string(body) != "ok" || err != nil {
				t.Errorf("%q, %v", body, err)
			}
			cancel() // nobody's any more
		}
		if connections.Load() != 1 {
			t.Errorf("%d connections", connections.Load())
		}
	})
}

// The context's deadline is a timeout for whoever asks.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	const soon = 20 * time.Millisecond
	assert := func(t *testing.T, o wire.ClientOptions, base string, body []byte, sent bool) {
		t.Helper()
		client := wire.NewClient(o)
		t.Cleanup(client.Close)
		_, did, err := client.Do(t.Context(), post(t, base, body))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || did != sent {
			t.Errorf("sent %v, %v", did, err)
		}
	}
	t.Run("dialling", func(t *testing.T) {
		t.Parallel()
		assert(t, wire.ClientOptions{DialTimeout: soon}, blackHole(t), nil, false)
	})
	t.Run("the TLS handshake", func(t *testing.T) {
		t.Parallel()
		base := listen(t, func(_ *net.TCPConn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) })
		assert(t, wire.ClientOptions{DialTimeout: soon}, strings.Replace(base, "http:", "https:", 1), nil, false)
	})
	t.Run("within the head", func(t *testing.T) {
		t.Parallel()
		base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
			_, _ = io.Copy(io.Discard, in)
		})
		assert(t, wire.ClientOptions{HeaderTimeout: soon}, base, nil, true)
	})
	t.Run("after a large body", func(t *testing.T) {
		t.Parallel()
		base := listen(t, func(_ *net.TCPConn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) })
		assert(t, wire.ClientOptions{HeaderTimeout: soon}, base, make([]byte, large), true)
	})
	t.Run("not while the request is being sent, nor while the answer streams", func(t *testing.T) {
		t.Parallel()
		base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
			<-time.After(5 * soon) // longer than the client would wait for a head
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			<-time.After(20 * soon)
			_, _ = io.WriteString(c, "k")
		})
		client := wire.NewClient(wire.ClientOptions{HeaderTimeout: 10 * soon})
		t.Cleanup(client.Close)
		answer, _, err := client.Do(t.Context(), post(t, base, make([]byte, large)))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); string(body) != "ok" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	})
}

// Whoever reads may be told to stop by somebody else.
func TestCloseWhileReading(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", "chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", "until the end": "HTTP/1.1 200 OK\r\n\r\nhe",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, arrived, gone := silent(t, first)
			answer, _, err := newClient(t).Do(t.Context(), post(t, base, []byte("{}")))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				<-arrived
				answer.Body.Close()
				answer.Body.Close()
			}()
			body, err := io.ReadAll(answer.Body)
			if len(body) > 2 || err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q, %v", body, err)
			}
			gone <- struct{}{}
			<-gone
		})
	}
}

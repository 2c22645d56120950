package wire_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carpool/internal/wire"
)

// more than all buffers on the way take.
const large = 16 << 20

func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for start := time.Now(); !so(); runtime.Gosched() {
		if time.Since(start) > patience {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestBodiesOfEverySizeArriveWhole(t *testing.T) {
	t.Parallel()
	received := make(chan string, 1)
	base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		for {
			raw, err := receive(in)
			if err != nil {
				return
			}
			received <- raw
			_, _ = io.WriteString(c, okAnswer)
		}
	})
	client := newClient(t)
	for _, size := range []int{1, 1000, 16<<10 - 200, 16<<10 - 1, 16 << 10, 16<<10 + 1, 17 << 10, 100_000, large} {
		body := pattern(size)
		answer, _, err := client.Do(t.Context(), post(t, base, body, wire.Field{"a", "b"}))
		if err != nil {
			t.Fatal(err)
		}
		raw := <-received
		want := fmt.Sprintf("POST /v1/messages HTTP/1.1\r\nHost: %s\r\na: b\r\nContent-Length: %d\r\n\r\n%s", strings.TrimPrefix(base, "http://"), size, body)
		if raw != want {
			t.Errorf("a body of %d bytes: %d bytes instead of %d arrived", size, len(raw), len(want))
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
}

// An upstream may answer while it still reads.
func TestAnAnswerThatBeginsDuringTheRequest(t *testing.T) {
	t.Parallel()
	content, seen := pattern(large), make(chan struct{})
	base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n")
		<-seen
		got, err := io.ReadAll(req.Body)
		text := fmt.Sprintf("%v %v", bytes.Equal(got, content), err)
		fmt.Fprintf(c, "%x\r\n%s\r\n0\r\n\r\n", len(text), text)
	})
	// The time for the header must not run on while the rest streams.
	client := wire.NewClient(wire.ClientOptions{DialTimeout: patience, HeaderTimeout: patience, IdlePerUpstream: 1})
	t.Cleanup(client.Close)
	out := post(t, base, content)
	var letGo atomic.Bool
	out.Body = wire.NewBody(content, func() { letGo.Store(true) })
	answer, _, err := client.Do(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	out.Body.Release()
	begin := make([]byte, 5)
	if _, err := io.ReadFull(answer.Body, begin); string(begin) != "begin" || err != nil {
		t.Fatalf("%q, %v", begin, err)
	}
	if letGo.Load() {
		t.Error("the body is gone while it is being sent")
	}
	close(seen)
	if rest, err := io.ReadAll(answer.Body); string(rest) != "true <nil>" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	eventually(t, "the body is let go", letGo.Load)
}

// With the end of an answer, or of the interest in it, nothing more of the request is sent, its body is let go, and its connection is not
// used again.
func TestTheRestOfARequestIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		answer string
		read   bool
	}{
		"when the answer ends":       {"HTTP/1.1 413 Too Large\r\nContent-Length: 7\r\n\r\nrefused", true},
		"when it has no body":        {"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", true},
		"when its chunks end":        {"HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nrefused\r\n0\r\n\r\n", true},
		"when the body is closed":    {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nha", false},
		"when there is no answer":    {"nonsense\r\n\r\n", false},
		"when the answer breaks off": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 4 << 20 // what is on the way still
			var connections atomic.Int64
			given, rest := make(chan struct{}), make(chan int64, 1)
			base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				if connections.Add(1) > 1 {
					_, _ = receive(in)
					_, _ = io.WriteString(c, okAnswer)
					return
				}
				_ = c.SetReadBuffer(64 << 10)
				_, _ = in.ReadString('\n')
				_, _ = io.WriteString(c, end.answer)
				<-given
				n, _ := io.Copy(io.Discard, in) // its end: the client has closed
				rest <- n
			})
			client := newClient(t)
			out := post(t, base, nil)
			var letGo atomic.Bool
			out.Body = wire.NewBody(make([]byte, large), func() { letGo.Store(true) })
			answer, _, err := client.Do(t.Context(), out)
			out.Body.Release()
			if err == nil {
				if end.read {
					_, _ = io.Copy(io.Discard, answer.Body)
				}
				answer.Body.Close()
			}
			eventually(t, "the body is let go", letGo.Load)
			close(given)
			if n := <-rest; n > large-most {
				t.Errorf("%d bytes were sent", n)
			}
			if answer, _, err = client.Do(t.Context(), post(t, base, []byte("{}"))); err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if connections.Load() != 2 {
				t.Errorf("%d connections", connections.Load())
			}
		})
	}
}

func TestALargeRequestOnAStaleConnection(t *testing.T) {
	t.Parallel()
	content := pattern(large)
	var connections atomic.Int64
	base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		first := connections.Add(1) == 1
		for range 2 {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if first && req.ContentLength == large {
				reset(c)
				return
			}
			got, err := io.ReadAll(req.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Whole: %v\r\nContent-Length: 0\r\n\r\n", err == nil && (len(got) == 2 || bytes.Equal(got, content)))
		}
	})
	client := newClient(t)
	for _, body := range [][]byte{[]byte("{}"), content} {
		answer, _, err := client.Do(t.Context(), post(t, base, body))
		if err != nil {
			t.Fatal(err)
		}
		if answer.Head.Get("X-Whole") != "true" {
			t.Errorf("%q", answer.Head)
		}
	}
	if connections.Load() != 2 {
		t.Errorf("%d connections", connections.Load())
	}
}

// With TLS it is the same: a refusal that came before the connection broke is heard.
func TestAnEarlyAnswerOverTLS(t *testing.T) {
	t.Parallel()
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	t.Cleanup(certified.Close)
	base := listen(t, func(c *net.TCPConn, _ *bufio.Reader) {
		s := tls.Server(c, certified.TLS)
		_, _ = bufio.NewReader(s).ReadString('\n')
		_, _ = io.WriteString(s, "HTTP/1.1 413 Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused")
	})
	client := wire.NewClient(wire.ClientOptions{TLS: certified.Client().Transport.(*http.Transport).TLSClientConfig})
	t.Cleanup(client.Close)
	for range 20 {
		out := post(t, strings.Replace(base, "http:", "https:", 1), make([]byte, 8<<20))
		assertRefused(t, client, out)
	}
}

func TestABodyThatWasReleasedIsNotSent(t *testing.T) {
	t.Parallel()
	out := post(t, "http://127.0.0.1:1", []byte("{}"))
	out.Body.Release()
	if _, sent, err := newClient(t).Do(t.Context(), out); sent || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("sent %v, %v", sent, err)
	}
}

package wire_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"carpool/internal/wire"
)

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

func newClient(t testing.TB) *wire.Client {
	t.Helper()
	c := wire.NewClient(wire.ClientOptions{DialTimeout: patience, HeaderTimeout: patience, IdleTimeout: time.Minute, IdlePerUpstream: 100})
	t.Cleanup(c.Close)
	return c
}

func address(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func post(t testing.TB, base string, body []byte, head ...wire.Field) *wire.Outgoing {
	t.Helper()
	return &wire.Outgoing{Method: "POST", URL: address(t, base+"/v1/messages"), Head: head, Body: wire.NewBody(body, nil)}
}

// listen runs a server that is nothing but a conversation on each connection.
func listen(t testing.TB, talk func(c *net.TCPConn, in *bufio.Reader)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			talk(conn.(*net.TCPConn), bufio.NewReader(conn))
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return "http://" + listener.Addr().String()
}

// receive reads one request with its body and returns its raw bytes.
func receive(in *bufio.Reader) (raw string, err error) {
	var copied bytes.Buffer
	tee := bufio.NewReader(io.TeeReader(in, &copied))
	req, err := http.ReadRequest(tee)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return copied.String(), err
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestClientSendsNoFieldsOfItsOwn(t *testing.T) {
	t.Parallel()
	received := make(chan string, 1)
	base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		raw, _ := receive(in)
		received <- raw
		_, _ = io.WriteString(c, okAnswer)
	})
	host := "Host: " + strings.TrimPrefix(base, "http://") + "\r\n"
	get := &wire.Outgoing{Method: "GET", URL: address(t, base+"/v1/models?limit=1000")}
	cases := []struct {
		out  *wire.Outgoing
		want string
	}{
		{get, "GET /v1/models?limit=1000 HTTP/1.1\r\n" + host + "\r\n"},
		{post(t, base, []byte(`{}`)), "POST /v1/messages HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\n{}"},
		{post(t, base, nil), "POST /v1/messages HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n"},
		{
			post(t, base, []byte("é\x00\xff"), wire.Field{"x-b", "1"}, wire.Field{"user-agent", "claude-cli/2.1.0"}, wire.Field{"accept-encoding", "gzip, br"}, wire.Field{"anthropic-beta", "a"}, wire.Field{"X-a", " 2\t"}, wire.Field{"Anthropic-Beta", "b"}, wire.Field{"Idempotency-Key", "i"}, wire.Field{"X-EMPTY", ""}),
			"POST /v1/messages HTTP/1.1\r\n" + host + "x-b: 1\r\nuser-agent: claude-cli/2.1.0\r\naccept-encoding: gzip, br\r\nanthropic-beta: a\r\nX-a:  2\t\r\nAnthropic-Beta: b\r\nIdempotency-Key: i\r\nX-EMPTY: \r\nContent-Length: 4\r\n\r\né\x00\xff",
		},
	}
	for _, c := range cases {
		answer, sent, err := newClient(t).Do(t.Context(), c.out)
		if err != nil || !sent {
			t.Fatal(sent, err)
		}
		answer.Body.Close()
		if raw := <-received; raw != c.want {
			t.Errorf("sent %q\nwant %q", raw, c.want)
		}
	}
}

func TestClientHandsAnswersOverAsTheyAre(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, _ = zip.Write([]byte("hello"))
	_ = zip.Close()
	var followed atomic.Bool
	eachProtocol(t, func(t *testing.T, protocol string) {
		if strings.Contains(protocol, "h2c") {
			protocol = "HTTP/1.1" // the client speaks HTTP/2 over TLS only
		}
		base, trusting := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/redirect":
				w.Header().Set("Location", "/followed")
				w.WriteHeader(307)
			case "/followed":
				followed.Store(true)
			case "/gzip":
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(packed.Bytes())
			case "/error":
				w.Header()["X-Many"] = []string{"1", "2"}
				w.Header().Set("Content-Length", "5")
				w.WriteHeader(529)
				_, _ = io.WriteString(w, "error")
			case "/empty":
				w.WriteHeader(204)
			}
		}))
		options := wire.ClientOptions{DialTimeout: patience, HeaderTimeout: patience, IdlePerUpstream: 1}
		if transport := trusting.Transport.(*http.Transport); transport.TLSClientConfig != nil {
			options.TLS = transport.TLSClientConfig.Clone()
			if !strings.Contains(protocol, "2") {
				options.TLS.NextProtos = []string{"http/1.1"}
			}
		}
		client := wire.NewClient(options)
		t.Cleanup(client.Close)
		for path, want := range map[string]struct {
			status int
			length int64
			body   string
		}{
			"/redirect": {307, 0, ""}, "/gzip": {200, int64(packed.Len()), packed.String()}, "/error": {529, 5, "error"}, "/empty": {204, 0, ""},
		} {
			answer, _, err := client.Do(t.Context(), &wire.Outgoing{Method: "GET", URL: address(t, base+path), Head: wire.Head{{"Accept-Encoding", "gzip"}}})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil || answer.Status != want.status || string(body) != want.body || answer.ContentLength != want.length {
				t.Errorf("%s: %d, length %d, %q, %v", path, answer.Status, answer.ContentLength, body, err)
			}
			if path == "/error" && (!slices.Contains(answer.Head, wire.Field{"X-Many", "1"}) || !slices.Contains(answer.Head, wire.Field{"X-Many", "2"})) {
				t.Errorf("head %v", answer.Head)
			}
		}
	})
	t.Cleanup(func() {
		if followed.Load() {
			t.Error("a redirect was followed")
		}
	})
}

// A prompt must not stay in memory while its answer streams.
func TestBodyIsLetGoWhileTheAnswerStreams(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2 TLS"} {
		finished := make(chan struct{})
		finish := sync.OnceFunc(func() { close(finished) })
		base, trusting := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%d\n", n)
			w.(http.Flusher).Flush()
			<-finished
			fmt.Fprint(w, "end")
		}))
		client := wire.NewClient(wire.ClientOptions{DialTimeout: patience, TLS: trusting.Transport.(*http.Transport).TLSClientConfig})
		t.Cleanup(client.Close)
		t.Cleanup(finish)
		bytes := make([]byte, 1<<20)
		watch := weak.Make(&bytes[0])
		out := post(t, base, bytes)
		bytes = nil
		answer, _, err := client.Do(t.Context(), out)
		if err != nil {
			t.Fatal(err)
		}
		out.Body.Release()
		for start := time.Now(); watch.Value() != nil; runtime.GC() {
			if time.Since(start) > patience {
				t.Fatalf("%s: the body is held while the answer streams", protocol)
			}
		}
		finish()
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if string(text) != "1048576\nend" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		runtime.KeepAlive(out)
	}
}

// An upstream may refuse a request before it has read it.
func TestAnEarlyAnswerIsNotLost(t *testing.T) {
	t.Parallel()
	const refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused"
	servers := map[string]func(c *net.TCPConn, in *bufio.Reader){
		"goes on reading": func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = in.ReadString('\n')
			_, _ = io.WriteString(c, refusal)
			_, _ = io.Copy(io.Discard, in)
		},
		"hangs up": func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = in.ReadString('\n')
			_, _ = io.WriteString(c, refusal)
			c.Close() // a reset, for there is unread data
		},
		"ends its side": func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = in.ReadString('\n')
			_, _ = io.WriteString(c, refusal)
			_ = c.CloseWrite()
			// Open until the client has gone: a byte more than it sends can only be its end.
			for {
				if _, err := in.Discard(1 << 10); err != nil {
					return
				}
			}
		},
	}
	for name, talk := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := listen(t, talk)
			client := newClient(t)
			for range 20 {
				assertRefused(t, client, post(t, base, make([]byte, 8<<20)))
			}
		})
	}
	t.Run("net/http", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "7")
			w.WriteHeader(413)
			fmt.Fprint(w, "refused")
		}))
		t.Cleanup(server.Close)
		client := newClient(t)
		for range 20 {
			assertRefused(t, client, post(t, server.URL, make([]byte, 200<<10)))
		}
	})
}

func assertRefused(t *testing.T, client *wire.Client, out *wire.Outgoing) {
	t.Helper()
	answer, _, err := client.Do(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.Status != 413 || string(body) != "refused" || err != nil {
		t.Fatalf("%d %q, %v", answer.Status, body, err)
	}
}

func TestNoAnswerIsAnError(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		talk func(c *net.TCPConn, in *bufio.Reader)
		sent bool
	}{
		"reset after the request":  {func(c *net.TCPConn, in *bufio.Reader) { _, _ = receive(in); reset(c) }, true},
		"closed after the request": {func(_ *net.TCPConn, in *bufio.Reader) { _, _ = receive(in) }, true},
		"reset within the header": {func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = receive(in)
			_, _ = io.WriteString(c, okAnswer[:20])
			reset(c)
		}, true},
		"not HTTP": {func(c *net.TCPConn, in *bufio.Reader) { _, _ = receive(in); _, _ = io.WriteString(c, "SSH-2.0\r\n") }, true},
		"another protocol": {func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = receive(in)
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		}, true},
		"no such status": {func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = receive(in)
			_, _ = io.WriteString(c, "HTTP/1.1 007 Bond\r\nContent-Length: 0\r\n\r\n")
		}, true},
	}
	for name, c := range cases {
		base := listen(t, c.talk)
		answer, sent, err := newClient(t).Do(t.Context(), post(t, base, []byte("{}")))
		if err == nil || answer != nil || sent != c.sent {
			t.Errorf("%s: %+v, sent %v, %v", name, answer, sent, err)
		}
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
		_, sent, err := newClient(t).Do(t.Context(), post(t, "http://"+listener.Addr().String(), []byte("{}")))
		if err == nil || sent || !strings.Contains(err.Error(), listener.Addr().String()) {
			t.Errorf("sent %v, %v", sent, err)
		}
	})
}

func TestHeaderTimeout(t *testing.T) {
	t.Parallel()
	base := listen(t, func(_ *net.TCPConn, in *bufio.Reader) { _, _ = receive(in); _, _ = in.ReadByte() })
	client := wire.NewClient(wire.ClientOptions{DialTimeout: patience, HeaderTimeout: 20 * time.Millisecond})
	t.Cleanup(client.Close)
	_, sent, err := client.Do(t.Context(), post(t, base, []byte("{}")))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || !sent {
		t.Errorf("sent %v, %v", sent, err)
	}
}

func TestAnAnswerThatBreaksOffIsAnError(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"known length":     "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"chunks":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"within a chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
		"before any chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = receive(in)
			_, _ = io.WriteString(c, text)
		})
		answer, _, err := newClient(t).Do(t.Context(), post(t, base, []byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err == nil || strings.Contains(text, "half") != (string(body) == "half") {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
}

// The client keeps connections open, and the upstream closes them when it likes. Whatever the race between the two, no
// request may be received twice.
func TestAConnectionThatTheUpstreamClosedMeanwhile(t *testing.T) {
	t.Parallel()
	const rounds = 100
	for name, hangUp := range map[string]func(*net.TCPConn){
		"with a reset": reset, // the kernel refuses the next write at once: always safe to repeat
		"orderly":      func(c *net.TCPConn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var received atomic.Int64
			answered, closed := make(chan struct{}), make(chan struct{})
			base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				if _, err := receive(in); err != nil {
					return
				}
				received.Add(1)
				_, _ = io.WriteString(c, okAnswer)
				<-answered
				hangUp(c)
				closed <- struct{}{}
			})
			client, succeeded := newClient(t), int64(0)
			for range rounds {
				answer, sent, err := client.Do(t.Context(), post(t, base, []byte("{}")))
				if err != nil {
					if name != "orderly" || !sent {
						t.Fatalf("sent %v, %v", sent, err)
					}
					continue
				}
				succeeded++
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				answered <- struct{}{}
				<-closed
			}
			if succeeded == 0 || received.Load() != succeeded {
				t.Errorf("%d requests succeeded, %d were received", succeeded, received.Load())
			}
		})
	}
}

// A request whose kept-open connection breaks at once is sent once more, on a new connection; one whose new connection breaks
// is not, not even when it names an idempotency key.
func TestOnlyAKeptOpenConnectionIsGivenASecondChance(t *testing.T) {
	t.Parallel()
	for _, head := range []wire.Head{nil, {{"Idempotency-Key", "k"}}, {{"x-idempotency-key", "k"}}} {
		var received, broken atomic.Int64
		base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
			for {
				if _, err := receive(in); err != nil {
					return
				}
				if n := received.Add(1); n >= 2 && n <= broken.Load() {
					return
				}
				_, _ = io.WriteString(c, okAnswer)
			}
		})
		for breaks, want := range map[int64]struct {
			ok       bool
			received int64
		}{2: {true, 3}, 3: {false, 3}} { // the second request breaks, or its repetition, too
			received.Store(0)
			broken.Store(breaks)
			client := newClient(t)
			answer, _, err := client.Do(t.Context(), post(t, base, []byte("{}")))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			answer, sent, err := client.Do(t.Context(), post(t, base, []byte("{}"), head...))
			if (err == nil) != want.ok || !sent || received.Load() != want.received {
				t.Errorf("%v: sent %v, %v, received %d times, want %d", head, sent, err, received.Load(), want.received)
			}
			if err == nil {
				answer.Body.Close()
			}
			client.Close()
		}
	}
}

func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	client := newClient(t)
	for range 50 {
		answer, _, err := client.Do(t.Context(), post(t, server.URL, []byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	if connections.Load() != 1 {
		t.Errorf("%d connections", connections.Load())
	}
}

func TestCancelClosesTheUpstreamConnection(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"before the header": "", "while it streams": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived, gone := make(chan struct{}), make(chan struct{})
			base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				_, _ = receive(in)
				_, _ = io.WriteString(c, answer)
				close(arrived)
				_, _ = in.ReadByte() // returns when the client closes
				close(gone)
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				answer, _, err := newClient(t).Do(ctx, post(t, base, []byte("{}")))
				if err == nil {
					_, err = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
				}
				ended <- err
			}()
			<-arrived
			cancel()
			select {
			case <-gone:
			case <-time.After(time.Second):
				t.Fatal("the connection is still open after a second")
			}
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

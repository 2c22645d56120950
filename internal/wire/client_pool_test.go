package wire_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"carpool/internal/wire"
)

// counting is an upstream whose answers name the connection they come on, and that tells of each which the client has closed.
func counting(t *testing.T) (base string, closed chan int) {
	t.Helper()
	var mu sync.Mutex
	numbers := map[net.Conn]int{}
	closed = make(chan int, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Connection", strconv.Itoa(r.Context().Value(connectionKey{}).(int)))
		_, _ = io.Copy(w, r.Body)
	}))
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		mu.Lock()
		defer mu.Unlock()
		numbers[c] = len(numbers) + 1
		return context.WithValue(ctx, connectionKey{}, numbers[c])
	}
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			mu.Lock()
			defer mu.Unlock()
			closed <- numbers[c]
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, closed
}

type connectionKey struct{}

func begin(t *testing.T, client *wire.Client, base string) *wire.Response {
	t.Helper()
	answer, _, err := client.Do(t.Context(), post(t, base, []byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// end reads an answer and returns the number of its connection.
func end(t *testing.T, answer *wire.Response) int {
	t.Helper()
	if body, err := io.ReadAll(answer.Body); string(body) != "{}" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	answer.Body.Close()
	n, _ := strconv.Atoi(answer.Head.Get("X-Connection"))
	return n
}

func next(t *testing.T, closed chan int) int {
	t.Helper()
	select {
	case n := <-closed:
		return n
	case <-time.After(patience):
		t.Fatal("no connection was closed")
		return 0
	}
}

func TestTheConnectionUsedLastIsTakenFirst(t *testing.T) {
	t.Parallel()
	base, _ := counting(t)
	client := newClient(t)
	first, second, third := begin(t, client, base), begin(t, client, base), begin(t, client, base)
	for _, answer := range []*wire.Response{second, third, first} {
		end(t, answer)
	}
	for range 3 {
		if n := end(t, begin(t, client, base)); n != 1 {
			t.Errorf("connection %d", n)
		}
	}
}

func TestAtMostSoManyConnectionsAreKept(t *testing.T) {
	t.Parallel()
	base, closed := counting(t)
	client := wire.NewClient(wire.ClientOptions{IdlePerUpstream: 2})
	t.Cleanup(client.Close)
	var answers []*wire.Response
	for range 4 {
		answers = append(answers, begin(t, client, base))
	}
	for _, answer := range answers {
		end(t, answer)
	}
	if a, b := next(t, closed), next(t, closed); a+b != 3+4 {
		t.Errorf("%d and %d were closed", a, b)
	}
	if a, b := begin(t, client, base), begin(t, client, base); end(t, a) != 2 || end(t, b) != 1 {
		t.Error("the others were not kept")
	}
	client.Close()
	if a, b := next(t, closed), next(t, closed); a+b != 1+2 {
		t.Errorf("%d and %d were closed", a, b)
	}
}

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	t.Parallel()
	base, closed := counting(t)
	client := wire.NewClient(wire.ClientOptions{IdlePerUpstream: 10, IdleTimeout: 20 * time.Millisecond})
	t.Cleanup(client.Close)
	for round := range 2 { // the timer starts again
		busy, a, b := begin(t, client, base), begin(t, client, base), begin(t, client, base)
		first, second := end(t, a), end(t, b)
		if x, y := next(t, closed), next(t, closed); x+y != first+second {
			t.Errorf("%d and %d were closed, %d and %d were idle", x, y, first, second)
		}
		if n := end(t, busy); n != 3*round+1 || next(t, closed) != n {
			t.Errorf("the busy connection was %d", n)
		}
	}
}

func TestCloseLeavesRequestsInFlight(t *testing.T) {
	t.Parallel()
	base, closed := counting(t)
	client := newClient(t)
	inFlight, idle := begin(t, client, base), begin(t, client, base)
	end(t, idle)
	client.Close()
	if n := next(t, closed); n != 2 {
		t.Errorf("%d was closed", n)
	}
	if n := end(t, inFlight); n != 1 || next(t, closed) != 1 {
		t.Errorf("%d was in flight", n)
	}
	if n := end(t, begin(t, client, base)); n != 3 || next(t, closed) != 3 {
		t.Errorf("%d afterwards", n)
	}
}

// What an upstream says without being asked, such as that it was idle for too long, is no answer to the next request.
func TestWhatNobodyAskedForIsNoAnswer(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"an answer": "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "a byte": "\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answered, said := make(chan struct{}), make(chan struct{})
			base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				if _, err := receive(in); err != nil {
					return
				}
				_, _ = io.WriteString(c, okAnswer)
				<-answered
				_, _ = io.WriteString(c, text)
				said <- struct{}{}
				_, _ = io.Copy(io.Discard, in) // until the client closes it
			})
			client := newClient(t)
			for range 3 {
				answer := begin(t, client, base)
				if body, err := io.ReadAll(answer.Body); answer.Status != 200 || string(body) != "ok" || err != nil {
					t.Errorf("%d %q, %v", answer.Status, body, err)
				}
				answered <- struct{}{}
				<-said
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	resumed, protocols := make(chan bool, 10), make(chan string, 10)
	base, trusting := serve(t, "HTTP/2 TLS", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resumed <- r.TLS.DidResume
		protocols <- r.Proto
		_, _ = io.Copy(w, r.Body)
	}))
	roots := trusting.Transport.(*http.Transport).TLSClientConfig
	client := wire.NewClient(wire.ClientOptions{TLS: roots}) // each request has a connection of its own
	t.Cleanup(client.Close)
	for i := range 3 {
		end(t, begin(t, client, base))
		if did := <-resumed; did != (i > 0) {
			t.Errorf("connection %d: session resumed %v", i+1, did)
		}
		if p := <-protocols; p != "HTTP/1.1" {
			t.Errorf("protocol %s", p)
		}
	}
	for name, c := range map[string]struct {
		tls  *tls.Config
		base string
	}{
		"an unknown authority":   {nil, base},
		"another's certificate":  {&tls.Config{RootCAs: roots.RootCAs, ServerName: "example.net"}, base},
		"somebody without TLS":   {roots, "https" + strings.TrimPrefix(listen(t, func(c *net.TCPConn, _ *bufio.Reader) { _, _ = io.WriteString(c, okAnswer) }), "http")},
		"neither http nor https": {nil, "ftp://127.0.0.1"},
		"nobody":                 {nil, "http://"},
	} {
		client := wire.NewClient(wire.ClientOptions{TLS: c.tls})
		t.Cleanup(client.Close)
		if _, sent, err := client.Do(t.Context(), post(t, c.base, []byte("{}"))); sent || err == nil {
			t.Errorf("%s: sent %v, %v", name, sent, err)
		}
	}
}

// Where the environment names a proxy, requests go through it, and those to this machine do not. The environment is looked at
// once per process: this one is the proxy, another one has the client.
func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	const variable = "CARPOOL_TEST_DIRECT"
	if direct := os.Getenv(variable); direct != "" {
		client := newClient(t)
		for _, base := range []string{"http://upstream.invalid", "http://upstream.invalid", direct} {
			end(t, begin(t, client, base))
		}
		return
	}
	asked := make(chan string, 10)
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.RequestURI
		_, _ = io.Copy(w, r.Body)
	})
	proxy, _ := serve(t, "HTTP/1.1", answer)
	direct, _ := serve(t, "HTTP/1.1", answer)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$")
	child.Env = append(os.Environ(), variable+"="+direct, "HTTP_PROXY="+proxy, "NO_PROXY=", "no_proxy=", "http_proxy=")
	if output, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, want := range []string{"http://upstream.invalid/v1/messages", "http://upstream.invalid/v1/messages", "/v1/messages"} {
		if got := <-asked; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
}

package web_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// serveWith runs a Server with options of the test's own.
func serveWith(t testing.TB, o web.ServerOptions) *started {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.Listener = "test", listener
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ReadHeaderTimeout == 0 {
		o.ReadHeaderTimeout = patience
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &started{url: "http://" + listener.Addr().String(), stop: stop, ended: make(chan error, 1)}
	server := web.NewServer(ctx, o)
	go func() { s.ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := s.wait(t); err != nil {
			t.Error(err)
		}
		s.ended <- nil
	})
	return s
}

func (s *started) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// answer sends a request on conn and returns the head of what comes back.
func answer(t testing.TB, conn net.Conn) (*http.Response, error) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

func hello(_ context.Context, w wire.Writer, _ *wire.Request) {
	_ = w.Begin(200, wire.Head{{Name: "Content-Length", Value: "2"}})
	_, _ = io.WriteString(w, "hi")
}

func TestConnectionsBeyondTheLimitGetThePlaceOfAnIdleOne(t *testing.T) {
	t.Parallel()
	s := serveWith(t, web.ServerOptions{Handler: wire.Handler(hello), Plain: hello, MaxConnections: 3, IdleTimeout: patience})
	var conns []net.Conn
	for i := range 12 {
		conn := s.dial(t)
		if _, err := answer(t, conn); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns = append(conns, conn)
	}
	// The last ones stay, the first one made place.
	if _, err := answer(t, conns[11]); err != nil {
		t.Errorf("the last connection: %v", err)
	}
	for range 100 { // it is idle from when the server comes to say so, which may be later than with others
		_ = conns[0].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := conns[0].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if _, err := answer(t, s.dial(t)); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("the connection that was idle for longest is still open")
}

func TestConnectionsBeyondTheLimitWaitForABusyOne(t *testing.T) {
	t.Parallel()
	arrived, finish := make(chan struct{}, 4), make(chan struct{})
	s := serveWith(t, web.ServerOptions{MaxConnections: 2, Handler: wire.Handler(func(ctx context.Context, w wire.Writer, r *wire.Request) {
		arrived <- struct{}{}
		<-finish
		hello(ctx, w, r)
	})})
	done := make(chan error, 4)
	for range 4 {
		conn := s.dial(t)
		go func() {
			_, err := answer(t, conn)
			conn.Close()
			done <- err
		}()
	}
	<-arrived
	<-arrived
	select {
	case <-arrived:
		t.Error("three requests at once")
	default:
	}
	close(finish)
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A raised limit lets those in who wait, without any connection having ended.
func TestLimitOfConnectionsCanBeRaised(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived, finish := make(chan struct{}, 2), make(chan struct{})
	server := web.NewServer(t.Context(), web.ServerOptions{
		Name: "test", Listener: listener, MaxConnections: 1, Log: slog.New(slog.DiscardHandler), Drain: web.Drain{Timeout: patience},
		Handler: wire.Handler(func(ctx context.Context, w wire.Writer, r *wire.Request) {
			arrived <- struct{}{}
			<-finish
			hello(ctx, w, r)
		}),
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	client := newHTTPClient(t)
	first, second := get(t, client, "http://"+listener.Addr().String()), get(t, client, "http://"+listener.Addr().String())
	<-arrived
	select {
	case <-arrived:
		t.Error("two requests at once")
	default:
	}
	server.SetMaxConnections(2)
	<-arrived
	close(finish)
	for _, done := range []<-chan result{first, second} {
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// flood writes until it fails, and says how.
func flood(failed chan<- error) wire.HandlerFunc {
	return func(_ context.Context, w wire.Writer, _ *wire.Request) {
		_ = w.Begin(200, nil)
		p := make([]byte, 256<<10)
		for {
			_, err := w.Write(p)
			if err == nil {
				err = w.Flush()
			}
			if err != nil {
				failed <- err
				w.Abort()
				return
			}
		}
	}
}

func TestClientThatTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	lender := httptest.NewUnstartedServer(http.NotFoundHandler())
	lender.StartTLS()
	defer lender.Close()
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": {Certificates: lender.TLS.Certificates}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			var slow atomic.Int32
			s := serveWith(t, web.ServerOptions{Handler: wire.Handler(flood(failed)), Plain: flood(failed), WriteTimeout: 100 * time.Millisecond, TLS: config, SlowClient: func() { slow.Add(1) }})
			conn := s.dial(t)
			if config != nil {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("writing failed with %v", err)
			}
			if n := slow.Load(); n != 1 {
				t.Errorf("%d slow clients noted", n)
			}
		})
	}
}

// Over HTTP/2 a client can keep one stream from going on while its connection is in good health.
func TestStreamOfHTTP2ThatTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	mux := http.NewServeMux()
	mux.Handle("/", wire.NewHandler(flood(failed), wire.HandlerOptions{WriteTimeout: 100 * time.Millisecond}))
	mux.Handle("/hello", wire.Handler(hello))
	s := serveWith(t, web.ServerOptions{Handler: mux})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	resp, err := client.Get(s.url) // and does not read
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := <-failed; err == nil {
		t.Error("writing goes on")
	}
	if got := <-get(t, client, s.url+"/hello"); got.err != nil || got.body != "hi" {
		t.Errorf("another stream of the connection: %+v", got)
	}
}

// A client that takes a little now and then is slow, and a stream without events is silent; neither is given up.
func TestSlowAndSilentAreNotGivenUp(t *testing.T) {
	t.Parallel()
	const bound = 200 * time.Millisecond
	silence := make(chan struct{})
	s := serveWith(t, web.ServerOptions{WriteTimeout: bound, Handler: wire.Handler(func(_ context.Context, w wire.Writer, r *wire.Request) {
		_ = w.Begin(200, nil)
		_, _ = io.WriteString(w, "first")
		_ = w.Flush()
		if r.Path == "/silent" {
			<-silence
		} else {
			_, _ = w.Write(make([]byte, 8<<20))
		}
		_, _ = io.WriteString(w, "last")
	})})
	client := newHTTPClient(t)
	quiet := get(t, client, s.url+"/silent")
	resp, err := client.Get(s.url + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	total, started := 0, time.Now()
	p := make([]byte, 512<<10)
	tick := time.NewTicker(bound / 5)
	defer tick.Stop()
	for {
		n, err := io.ReadFull(resp.Body, p)
		total += n
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
		<-tick.C
	}
	if total != 8<<20+9 || time.Since(started) < bound {
		t.Errorf("%d bytes in %v", total, time.Since(started))
	}
	close(silence)
	if got := <-quiet; got.err != nil || got.body != "firstlast" {
		t.Errorf("%+v", got)
	}
}

// While the drain is delayed the door is open, and whoever comes is asked to come elsewhere next time.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveWith(t, web.ServerOptions{Handler: wire.Handler(hello), Plain: hello, Drain: web.Drain{Delay: 700 * time.Millisecond, Timeout: patience}})
			protocols := new(http.Protocols)
			protocols.SetHTTP1(!h2)
			protocols.SetUnencryptedHTTP2(h2)
			transport := &http.Transport{Protocols: protocols}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			if got := <-get(t, client, s.url); got.err != nil {
				t.Fatal(got.err)
			}
			s.stop()
			closing := false
			for begun := time.Now(); time.Since(begun) < patience; {
				resp, err := client.Get(s.url)
				if err != nil {
					break // the delay is over
				}
				closing = closing || resp.Close || h2
				resp.Body.Close()
			}
			if !closing {
				t.Error("nobody was asked to close")
			}
			if err := s.wait(t); err != nil {
				t.Error(err)
			}
			s.ended <- nil
		})
	}
}

func TestAtMost(t *testing.T) {
	t.Parallel()
	arrived, finish := make(chan struct{}, 2), make(chan struct{})
	r := newRig(t, web.AtMost(2, func(_ context.Context, w wire.Writer, _ *web.Request) error {
		arrived <- struct{}{}
		<-finish
		return w.Begin(200, nil)
	}))
	running := []<-chan result{get(t, r.client, r.url), get(t, r.client, r.url)}
	<-arrived
	<-arrived
	resp, err := r.client.Get(r.url)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != anthropic.StatusOverloaded || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "overloaded_error") {
		t.Errorf("%s %v\n%s", resp.Status, resp.Header, body)
	}
	close(finish)
	for _, done := range running {
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
	}
}

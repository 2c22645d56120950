package web_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carpool/internal/web"
	"carpool/internal/wire"
)

// started is a Server that runs.
type started struct {
	url   string
	stop  context.CancelFunc
	ended chan error
}

func start(t testing.TB, handle wire.HandlerFunc, drain time.Duration, tlsConfig *tls.Config) *started {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &started{url: "http://" + listener.Addr().String(), stop: stop, ended: make(chan error, 1)}
	server := web.NewServer(t.Context(), web.ServerOptions{
		Name: "test", Listener: listener, Handler: wire.Handler(handle), Plain: handle, TLS: tlsConfig, Drain: web.Drain{Timeout: drain},
		ReadHeaderTimeout: patience, IdleTimeout: patience, Log: slog.New(slog.DiscardHandler),
	})
	go func() { s.ended <- server.Run(ctx) }()
	t.Cleanup(stop)
	return s
}

func (s *started) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		t.Fatal("the server does not end")
		return nil
	}
}

// result is what became of a request in the background.
type result struct {
	body string
	err  error
}

func get(t testing.TB, client *http.Client, url string) <-chan result {
	t.Helper()
	done := make(chan result, 1)
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		resp, err := client.Do(req)
		if err != nil {
			done <- result{"", err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		done <- result{string(body), err}
	}()
	return done
}

func newHTTPClient(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestServerFinishesWhatIsRunning(t *testing.T) {
	t.Parallel()
	arrived, finish := make(chan context.Context, 1), make(chan struct{})
	s := start(t, func(ctx context.Context, w wire.Writer, _ *wire.Request) {
		_ = w.Begin(200, nil)
		_, _ = io.WriteString(w, "first ")
		_ = w.Flush()
		arrived <- ctx
		<-finish
		_, _ = io.WriteString(w, "last")
	}, patience, nil)
	client := newHTTPClient(t)
	running := get(t, client, s.url)
	ctx := <-arrived
	s.stop()
	// The door is closed as soon as the drain begins; what is inside is not disturbed.
	for start := time.Now(); ; {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			break
		}
		conn.Close()
		if time.Since(start) > patience {
			t.Fatal("a draining server accepts connections")
		}
	}
	if ctx.Err() != nil {
		t.Errorf("the running request was cancelled: %v", context.Cause(ctx))
	}
	select {
	case err := <-s.ended:
		t.Fatalf("ended with a request running: %v", err)
	default:
	}
	close(finish)
	if got := <-running; got.err != nil || got.body != "first last" {
		t.Errorf("%+v", got)
	}
	if err := s.wait(t); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestServerCutsWhatOutlivesTheDrain(t *testing.T) {
	t.Parallel()
	arrived, cause := make(chan struct{}), make(chan error, 1)
	s := start(t, func(ctx context.Context, w wire.Writer, _ *wire.Request) {
		_ = w.Begin(200, nil)
		_, _ = io.WriteString(w, "first")
		_ = w.Flush()
		close(arrived)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		w.Abort()
	}, 50*time.Millisecond, nil)
	running := get(t, newHTTPClient(t), s.url)
	<-arrived
	s.stop()
	if got := <-cause; !errors.Is(got, web.ErrStopping) {
		t.Errorf("cancelled with %v", got)
	}
	if got := <-running; got.err == nil || got.body != "first" {
		t.Errorf("the client took it for complete: %+v", got)
	}
	if err := s.wait(t); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// A handler that does not heed its context is cut off all the same.
func TestServerCutsAHandlerThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	arrived, finish := make(chan struct{}), make(chan struct{})
	s := start(t, func(_ context.Context, w wire.Writer, _ *wire.Request) {
		_ = w.Begin(200, nil)
		_ = w.Flush()
		close(arrived)
		<-finish
	}, 10*time.Millisecond, nil)
	running := get(t, newHTTPClient(t), s.url)
	<-arrived
	s.stop()
	if err := s.wait(t); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if got := <-running; got.err == nil {
		t.Errorf("the client took it for complete: %+v", got)
	}
	close(finish)
}

func TestServerStoppedBeforeItBegan(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	server := web.NewServer(t.Context(), web.ServerOptions{Name: "test", Listener: listener, Handler: http.NotFoundHandler(), Drain: web.Drain{Timeout: patience}, Log: slog.New(slog.DiscardHandler)})
	if err := server.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

type brokenListener struct {
	net.Listener
	err error
}

func (l brokenListener) Accept() (net.Conn, error) { return nil, l.err }

func TestServerReportsWhatKeepsItFromServing(t *testing.T) {
	t.Parallel()
	broken := errors.New("no more sockets")
	for name, o := range map[string]web.ServerOptions{
		"accept":         {},
		"no certificate": {TLS: &tls.Config{}},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.Name, o.Listener, o.Handler, o.Log = "the API", listener, http.NotFoundHandler(), slog.New(slog.DiscardHandler)
		if o.TLS == nil {
			o.Listener = brokenListener{listener, broken}
		}
		err = web.NewServer(t.Context(), o).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "cannot serve the API on "+listener.Addr().String()) || (o.TLS == nil) != errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		_ = listener.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second))
		if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is left open: %v", name, err)
		}
	}
}

func TestServerWithTLSSpeaksBothVersions(t *testing.T) {
	t.Parallel()
	lender := httptest.NewUnstartedServer(http.NotFoundHandler())
	lender.StartTLS()
	defer lender.Close()
	s := start(t, func(_ context.Context, w wire.Writer, r *wire.Request) {
		_ = w.Begin(200, nil)
		_, _ = io.WriteString(w, r.Proto)
	}, patience, &tls.Config{Certificates: lender.TLS.Certificates})
	trust := lender.Client().Transport.(*http.Transport).TLSClientConfig
	for _, want := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust.RootCAs}, ForceAttemptHTTP2: want == "HTTP/2.0"}
		got := <-get(t, &http.Client{Transport: transport}, strings.Replace(s.url, "http:", "https:", 1))
		if got.err != nil || got.body != want {
			t.Errorf("%+v, want %s", got, want)
		}
		transport.CloseIdleConnections()
	}
	s.stop()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

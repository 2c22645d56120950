package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// ErrStopping is the cause with which requests are cancelled that outlive the drain.
var ErrStopping = errors.New("the server is stopping")

// maxHeader bounds the request line and the header of a request; net/http adds 4 KiB to it.
const maxHeader = 64 << 10

// Drain is how a Server ends: for Delay it goes on as before, except that it asks clients to come back on a new connection;
// then it takes no new connections, and what runs may finish for Timeout.
type Drain struct{ Delay, Timeout time.Duration }

// ServerOptions configure a Server.
type ServerOptions struct {
	Name              string // for the log
	Listener          net.Listener
	Handler           http.Handler
	TLS               *tls.Config // nil: plain HTTP
	ReadHeaderTimeout time.Duration
	IdleTimeout       time.Duration
	WriteTimeout      time.Duration // without any progress in sending, after which a connection is given up; 0: none
	MaxConnections    int           // open at once; further ones wait. 0: no limit
	Drain             Drain
	SlowClient        func() // called for each connection given up after WriteTimeout; may be nil
	Log               *slog.Logger
}

// Server is one listener with its handler.
type Server struct {
	name     string
	address  net.Addr
	door     *doorkeeper
	handler  http.Handler
	tls      bool
	log      *slog.Logger
	http     *http.Server
	cancel   context.CancelCauseFunc
	drain    atomic.Pointer[Drain]
	stopping atomic.Bool
}

// NewServer returns a Server that does not serve yet. Requests inherit the values of ctx, not its end: that is Run's matter.
func NewServer(ctx context.Context, o ServerOptions) *Server {
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	slow := o.SlowClient
	if slow == nil {
		slow = func() {}
	}
	s := &Server{
		name: o.Name, address: o.Listener.Addr(), handler: o.Handler, tls: o.TLS != nil, log: o.Log, cancel: cancel,
		door: newDoorkeeper(o.Listener, o.MaxConnections, o.WriteTimeout, slow),
	}
	s.SetDrain(o.Drain)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(s.tls)
	protocols.SetUnencryptedHTTP2(!s.tls)
	s.http = &http.Server{
		Handler: http.HandlerFunc(s.serveHTTP), Protocols: protocols, TLSConfig: o.TLS,
		ReadHeaderTimeout: o.ReadHeaderTimeout, IdleTimeout: o.IdleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return base },
		ConnState:      s.door.noteState,
	}
	return s
}

// SetDrain changes how the server will end.
func (s *Server) SetDrain(d Drain) { s.drain.Store(&d) }

// SetMaxConnections changes the limit of open connections. Those beyond a lower one stay until they end.
func (s *Server) SetMaxConnections(n int) { s.door.setMax(n) }

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if s.stopping.Load() {
		w.Header().Set("Connection", "close") // over HTTP/2 net/http makes a GOAWAY of it
	}
	s.handler.ServeHTTP(w, r)
}

// Run serves until ctx ends, then drains; what is left after that is cancelled with ErrStopping and cut. It returns nil
// after a drain.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.serve() }()
	select {
	case err := <-failed:
		return s.failed(err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	drain := *s.drain.Load()
	if drain.Delay > 0 {
		delay := time.NewTimer(drain.Delay)
		defer delay.Stop()
		select {
		case err := <-failed:
			return s.failed(err)
		case <-delay.C:
		}
	}
	s.end(context.WithoutCancel(ctx), drain.Timeout)
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve %s on %s: %w", s.name, s.address, err)
	}
	return nil
}

// failed gives everything up because the listener did.
func (s *Server) failed(err error) error {
	s.cancel(ErrStopping)
	_ = s.http.Close()
	_ = s.door.Close() // net/http closes it only once it has begun to accept
	return fmt.Errorf("cannot serve %s on %s: %w", s.name, s.address, err)
}

func (s *Server) serve() error {
	if s.tls {
		return s.http.ServeTLS(s.door, "", "")
	}
	return s.http.Serve(s.door)
}

// end closes the listener and waits for what runs.
func (s *Server) end(ctx context.Context, patience time.Duration) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := s.http.Shutdown(ctx); err == nil {
		s.cancel(ErrStopping)
		return
	}
	s.log.WarnContext(ctx, "cutting the requests that are still running", slog.String("server", s.name), slog.Duration("drained", patience))
	s.cancel(ErrStopping)
	// The handlers now end by themselves and write their books; only what does not is closed hard.
	grace, stopGrace := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stopGrace()
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close()
	}
}

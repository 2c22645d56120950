package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"carpool/internal/wire"
)

// ErrStopping is the cause with which requests are cancelled that outlive the drain.
var ErrStopping = errors.New("the server is stopping")

// Drain is how a Server ends: for Delay it goes on as before, except that it asks clients to come back on a new connection;
// then it takes no new connections, and what runs may finish for Timeout.
type Drain struct{ Delay, Timeout time.Duration }

// ServerOptions configure a Server.
type ServerOptions struct {
	Name              string // for the log
	Listener          net.Listener
	Handler           http.Handler
	Plain             wire.HandlerFunc       // answers plain HTTP/1.1 instead of Handler, at a fraction of its cost; nil: Handler answers all
	NotPlain          func(path string) bool // whether requests for a path are Handler's all the same; nil: none
	TLS               *tls.Config            // nil: plain HTTP
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
	tls      *tls.Config
	log      *slog.Logger
	base     context.Context // of all requests
	plain    *wire.Plain     // nil: net/http serves everything
	odd      *handedOver     // what plain does not serve
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
		name: o.Name, address: o.Listener.Addr(), handler: o.Handler, tls: o.TLS, log: o.Log, base: base, cancel: cancel,
		door: newDoorkeeper(o.Listener, o.MaxConnections, o.WriteTimeout, slow),
	}
	s.SetDrain(o.Drain)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(s.tls != nil)
	protocols.SetUnencryptedHTTP2(s.tls == nil)
	s.http = &http.Server{
		Handler: http.HandlerFunc(s.serveHTTP), Protocols: protocols, TLSConfig: o.TLS,
		ReadHeaderTimeout: o.ReadHeaderTimeout, IdleTimeout: o.IdleTimeout,
		MaxHeaderBytes: wire.MostHead,
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return base },
		ConnState:      func(c net.Conn, state http.ConnState) { s.door.noteState(c, state == http.StateIdle) },
	}
	if o.Plain != nil {
		if s.tls != nil { // without ServeTLS, which would see to it
			s.http.TLSConfig = s.tls.Clone()
			s.http.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
		}
		s.odd = newHandedOver(s.address)
		s.plain = wire.NewPlain(wire.PlainOptions{
			Serve: o.Plain, Elsewhere: o.NotPlain, Idle: s.door.noteState, HandOver: s.handOver,
			HeaderTimeout: o.ReadHeaderTimeout, IdleTimeout: o.IdleTimeout, Log: o.Log,
		})
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
	if s.plain != nil {
		s.plain.CloseAfterAnswers()
	}
	drain := *s.drain.Load()
	s.log.InfoContext(ctx, "draining", slog.String("server", s.name), slog.Int64("delayMs", drain.Delay.Milliseconds()), slog.Int64("timeoutMs", drain.Timeout.Milliseconds()))
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
	s.close()
	_ = s.door.Close() // net/http closes it only once it has begun to accept
	return fmt.Errorf("cannot serve %s on %s: %w", s.name, s.address, err)
}

// serve accepts connections until the listener is closed or fails.
func (s *Server) serve() error {
	if s.plain == nil {
		return s.serveAll(s.door)
	}
	rest := make(chan error, 1)
	go func() { rest <- s.serveAll(s.odd) }()
	var err error
	for pause := acceptPause; ; {
		var c net.Conn
		if c, err = s.door.Accept(); err == nil {
			pause = acceptPause
			go s.servePlain(c)
			continue
		}
		if errors.Is(err, net.ErrClosed) || !temporary(err) {
			break
		}
		s.log.Warn("cannot accept connections; trying again", slog.String("server", s.name), slog.String("error", err.Error()))
		time.Sleep(pause)
		pause = min(2*pause, time.Second)
	}
	if s.stopping.Load() {
		return <-rest // net/http's word that all is over
	}
	_ = s.odd.Close()
	return errors.Join(err, <-rest)
}

// acceptPause is the first wait after a failure that may pass, such as too many open files.
const acceptPause = 5 * time.Millisecond

func temporary(err error) bool {
	var passing interface{ Temporary() bool }
	return errors.As(err, &passing) && passing.Temporary()
}

func (s *Server) servePlain(c net.Conn) {
	if s.tls != nil {
		c = tls.Server(c, s.http.TLSConfig)
	}
	s.plain.ServeConn(s.base, c)
}

// handOver has net/http go on with a connection. One that comes as a *tls.Conn speaks HTTP/2, which net/http recognises by this
// type, or did not get through its handshake; one on which a request has begun is another, encrypted or not.
func (s *Server) handOver(c net.Conn) {
	if _, whole := c.(*tls.Conn); !whole {
		c = &refusals{c, s.log, s.name}
	}
	s.odd.take(c)
}

func (s *Server) serveAll(l net.Listener) error {
	if s.tls != nil && s.plain == nil {
		return s.http.ServeTLS(l, "", "")
	}
	return s.http.Serve(l)
}

// end closes the listener and waits for what runs.
func (s *Server) end(ctx context.Context, patience time.Duration) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if s.shutdown(ctx) {
		s.cancel(ErrStopping)
		return
	}
	s.log.WarnContext(ctx, "cutting the requests that are still running", slog.String("server", s.name), slog.Int64("drainedMs", patience.Milliseconds()))
	s.cancel(ErrStopping)
	// The handlers now end by themselves and write their books; only what does not is closed hard.
	grace, stopGrace := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stopGrace()
	if !s.shutdown(grace) {
		s.close()
	}
}

// shutdown waits until everything has ended, and reports whether it did.
func (s *Server) shutdown(ctx context.Context) bool {
	if s.plain != nil {
		_ = s.door.Close()
		select {
		case <-s.plain.Drain(): // until then a connection may turn out to be net/http's
		case <-ctx.Done():
			return false
		}
	}
	return s.http.Shutdown(ctx) == nil
}

func (s *Server) close() {
	if s.plain != nil {
		s.plain.Close()
	}
	_ = s.http.Close()
}

// handedOver is a listener for the connections that net/http has to go on with.
type handedOver struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newHandedOver(address net.Addr) *handedOver {
	return &handedOver{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// take hands a connection over, or closes it when it comes too late.
func (h *handedOver) take(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	}
}

// Accept returns the next connection.
func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handedOver) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr returns the address of the listener on which the connections came.
func (h *handedOver) Addr() net.Addr { return h.address }

package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"carpool/internal/anthropic"
	"carpool/internal/wire"
)

// What of an unread request body is taken in before an error is sent: a client that is still writing would see a reset
// connection instead of the answer, and one that never ends, or sends nothing, must not hold the answer back.
const (
	drainLimit   = 64 << 20
	drainTimeout = 5 * time.Second
	drainSilence = time.Second

	statusTooSlow = 408 // the body did not arrive in time
)

// Request is a client's request with its id and what is to be said of it in the access log.
type Request struct {
	*wire.Request
	ID      string // UUIDv7
	Started time.Time
	Route   string // low-cardinality name of what was asked, for metrics; set by the handler
	Quiet   bool   // a probe: logged at debug level only; set by the handler

	notes []slog.Attr
}

// Note adds attributes to the request's line in the access log.
func (r *Request) Note(attrs ...slog.Attr) { r.notes = append(r.notes, attrs...) }

// Handler answers a request or returns an error to be rendered.
type Handler func(ctx context.Context, w wire.Writer, r *Request) error

// Front turns Handlers into what an adaptor of package wire takes.
type Front struct {
	log     *slog.Logger
	metrics *Metrics
	now     func() time.Time
	proxies atomic.Pointer[[]netip.Prefix]
}

// NewFront returns a Front. One Front serves a whole process.
func NewFront(log *slog.Logger, metrics *Metrics, now func() time.Time) *Front {
	return &Front{log: log, metrics: metrics, now: now}
}

// Serve makes the first stop of the request path.
func (f *Front) Serve(handle Handler) wire.HandlerFunc {
	return func(ctx context.Context, inner wire.Writer, in *wire.Request) {
		in.Remote = f.clientAddress(in)
		r := &Request{Request: in, ID: newID(), Started: f.now(), Route: "other"}
		w := &countingWriter{Writer: inner}
		f.metrics.inFlight.Inc()
		defer f.metrics.inFlight.Dec()
		err := f.guarded(ctx, w, r, handle)
		if err != nil {
			err = explain(ctx, err)
			f.render(w, r, err)
		}
		f.finish(ctx, w, r, err)
	}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// guarded keeps a panic of one request from ending the process.
func (f *Front) guarded(ctx context.Context, w *countingWriter, r *Request, handle Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = f.panicked(ctx, r, p)
		}
	}()
	return handle(ctx, w, r)
}

// panicked notes a panic and returns the error that stands for it. It is called by the deferred function that recovered.
func (f *Front) panicked(ctx context.Context, r *Request, p any) error {
	f.metrics.panics.Inc()
	f.log.ErrorContext(ctx, "a request panicked", slog.String("id", r.ID), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	return anthropic.ErrInternal(fmt.Errorf("panic: %v", p))
}

// errLeft stands for what failed because the client left.
var errLeft = errors.New("the client left")

// explain tells the two reasons for which a request is cancelled from failures. An error that the handler made for the
// client stays.
func explain(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*anthropic.Error](err); ok {
		return err
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(err, ErrStopping), errors.Is(err, context.Canceled) && errors.Is(cause, ErrStopping):
		return anthropic.ErrDraining().WithCause(err)
	case errors.Is(err, context.Canceled) && cause != nil:
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	return err
}

// render sends an error; when the answer has begun already, or nobody waits for it, only breaking it off is honest.
func (f *Front) render(w *countingWriter, r *Request, err error) {
	if w.Begun() || errors.Is(err, errLeft) {
		w.Abort()
		return
	}
	shown := visible(err)
	f.drain(r, shown.Status == statusTooSlow)
	body := shown.Body(r.ID)
	head := wire.Head{{Name: "Content-Type", Value: "application/json"}, {Name: "Request-Id", Value: r.ID}}
	for _, h := range shown.Header {
		head.Add(h.Name, h.Value)
	}
	head.Add("Content-Length", strconv.Itoa(len(body)))
	if w.Begin(shown.Status, head) == nil && r.Method != "HEAD" {
		_, _ = w.Write(body)
	}
}

// drain takes in the rest of the request body, if the time for it can be bounded. A body that was not read to its end by
// then leaves the deadline in force: net/http would go on reading without one, and gives the connection up instead.
// Who was too slow already gets no further time, and who waits to be asked for the body is not asked.
func (f *Front) drain(r *Request, slow bool) {
	if r.Body == nil || r.ReadDeadline == nil || r.Uninvited {
		return
	}
	if slow {
		_ = r.ReadDeadline(f.now())
		return
	}
	body := &refused{Request: r, now: f.now, until: f.now().Add(drainTimeout)}
	if _, err := io.CopyN(io.Discard, body, drainLimit); errors.Is(err, io.EOF) {
		_ = r.ReadDeadline(time.Time{})
	}
}

// refused is a body that is waited for as long as it comes, and not beyond a time.
type refused struct {
	*Request
	now        func() time.Time
	set, until time.Time // when the deadline in force was set
}

func (b *refused) Read(p []byte) (int, error) {
	if now := b.now(); now.Sub(b.set) >= drainSilence/8 { // more often costs and changes little
		b.set = now
		due := now.Add(drainSilence)
		if due.After(b.until) {
			due = b.until
		}
		if err := b.ReadDeadline(due); err != nil {
			return 0, err
		}
	}
	return b.Body.Read(p)
}

// visible is what of an error the client may see.
func visible(err error) *anthropic.Error {
	if shown, ok := errors.AsType[*anthropic.Error](err); ok {
		return shown
	}
	return anthropic.ErrInternal(err)
}

func (f *Front) finish(ctx context.Context, w *countingWriter, r *Request, err error) {
	took := f.now().Sub(r.Started)
	f.metrics.observe(r, w.status, took)
	level := slog.LevelInfo
	if r.Quiet {
		level = slog.LevelDebug
	}
	attrs := make([]slog.Attr, 0, 12+len(r.notes))
	attrs = append(attrs, slog.String("id", r.ID), slog.String("method", bounded(r.Method, 16)), slog.String("path", bounded(r.Path, 128)),
		slog.Int("status", w.status), slog.Float64("tookMs", float64(took.Microseconds())/1000), slog.Int64("bytes", w.bytes),
		slog.String("client", origin(r)))
	if w.aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	attrs = append(attrs, r.notes...)
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	if err != nil && !errors.Is(err, errLeft) {
		attrs = append(attrs, slog.String("errorType", visible(err).Type))
		if w.status >= 500 || w.aborted {
			level = slog.LevelWarn
		}
	}
	f.log.LogAttrs(ctx, level, "request", attrs...)
}

// origin is where a request came from; only the Unix socket of administration has no address.
func origin(r *Request) string {
	if !r.Remote.Addr().IsValid() {
		return "socket"
	}
	return r.Remote.Addr().String()
}

func bounded(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// countingWriter remembers what was sent.
type countingWriter struct {
	wire.Writer
	status  int
	bytes   int64
	aborted bool
}

func (w *countingWriter) Begin(status int, head wire.Head) error {
	w.status = status
	return w.Writer.Begin(status, head)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *countingWriter) Abort() {
	w.aborted = true
	w.Writer.Abort()
}

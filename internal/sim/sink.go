package sim

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/andybalholm/brotli"
)

// cutError ends a response at the fault's point.
type cutError struct{ kind string }

func (e cutError) Error() string { return "response cut by a fault: " + e.kind }

// sink is the response body as bytes on their way to the client: it counts and hashes them, cuts at a byte, splits writes and
// flushes each one.
type sink struct {
	ctx     context.Context
	w       http.ResponseWriter
	rc      *http.ResponseController
	f       Fault
	sum     hash.Hash
	written int64
	cut     bool // the fault's cut has happened
	flush   bool
	stall   func() error
}

// Write sends p in the portions that the fault asks for.
func (s *sink) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		n := s.portion(p)
		if s.f.Cut != "" && s.f.AtByte > 0 && !s.cut {
			room := s.f.AtByte - s.written
			if room <= 0 {
				s.cut = true
				if s.f.Cut != "stall" {
					return sent, cutError{s.f.Cut}
				}
				if err := s.stall(); err != nil {
					return sent, err
				}
				continue
			}
			n = min(n, int(min(room, int64(len(p)))))
		}
		if err := s.send(p[:n]); err != nil {
			return sent, err
		}
		sent += n
		p = p[n:]
	}
	return sent, nil
}

func (s *sink) send(p []byte) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	n, err := s.w.Write(p)
	_, _ = s.sum.Write(p[:n])
	s.written += int64(n)
	if err != nil {
		return fmt.Errorf("cannot write the response: %w", err)
	}
	if s.flush || s.f.Write > 0 || s.f.SplitUTF8 || s.f.Cut != "" || s.f.Early {
		if err := s.rc.Flush(); err != nil {
			return fmt.Errorf("cannot flush the response: %w", err)
		}
	}
	return nil
}

// portion returns how many bytes of p go into the next write.
func (s *sink) portion(p []byte) int {
	if s.f.Write > 0 {
		return min(s.f.Write, len(p))
	}
	if s.f.SplitUTF8 {
		for i, c := range p {
			if c >= utf8.RuneSelf && utf8.RuneStart(c) && i+1 < len(p) {
				return i + 1
			}
		}
	}
	return len(p)
}

// hangUp closes the connection, with RST instead of FIN if reset; over HTTP/2, where there is no connection to take, it aborts
// the stream.
func hangUp(rc *http.ResponseController, reset bool) {
	conn, _, err := rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok && reset {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}

// emitter writes events in the shape that the fault asks for.
type emitter struct {
	sink  *sink
	enc   encoder // nil for a body as it is
	f     Fault
	n     int // events sent
	cutAt int // number of events after which the cut comes, -1 for never
	pause func(ms int) error
}

// newEmitter prepares for a body of total events, a plain body being one.
func newEmitter(s *sink, f Fault, total func() int, pause func(int) error) *emitter {
	e := &emitter{sink: s, f: f, cutAt: -1, pause: pause}
	if f.Cut != "" && f.AtByte == 0 {
		e.cutAt = f.AtEvent
		if e.cutAt < 0 {
			e.cutAt = max(0, total()+e.cutAt)
		}
	}
	switch f.Encoding {
	case "gzip":
		e.enc = gzip.NewWriter(s)
	case "br":
		e.enc = brotli.NewWriter(s)
	}
	return e
}

// encoder is a content coding that can be flushed after every event.
type encoder interface {
	io.WriteCloser
	Flush() error
}

// event sends one server-sent event.
func (e *emitter) event(name string, data []byte) error {
	if err := e.reach(); err != nil {
		return err
	}
	if e.n > 0 && e.f.EveryMS > 0 {
		if err := e.pause(e.f.EveryMS); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if e.f.Comments {
		_, _ = fmt.Fprintf(&b, ": comment %d — nothing to see\n\n", e.n)
	}
	if e.f.UnknownEvents {
		_, _ = fmt.Fprintf(&b, "event: simulated_unknown\nid: %d\ndata: {\"type\":\"simulated_unknown\",\ndata: \"n\":%d}\n\n", e.n, e.n)
	}
	if e.f.LongLine > 0 && e.n == 1 {
		_, _ = b.WriteString("event: simulated_unknown\ndata: {\"type\":\"simulated_unknown\",\"padding\":\"")
		_, _ = b.WriteString(strings.Repeat("x", e.f.LongLine))
		_, _ = b.WriteString("\"}\n\n")
	}
	_, _ = fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, data)
	out := b.Bytes()
	if e.f.CRLF {
		out = bytes.ReplaceAll(out, []byte("\n"), []byte("\r\n"))
	}
	e.n++
	return e.write(out)
}

// plain sends a body that is no stream.
func (e *emitter) plain(body []byte) error {
	if err := e.reach(); err != nil {
		return err
	}
	e.n++
	return e.write(body)
}

// reach applies the cut when its event has come.
func (e *emitter) reach() error {
	if e.sink.cut || e.cutAt < 0 || e.n < e.cutAt {
		return nil
	}
	e.sink.cut = true
	if e.f.Cut == "stall" {
		return e.sink.stall()
	}
	return cutError{e.f.Cut}
}

func (e *emitter) write(p []byte) error {
	if e.enc == nil {
		_, err := e.sink.Write(p)
		return err
	}
	if _, err := e.enc.Write(p); err != nil {
		return err
	}
	return e.enc.Flush()
}

// finish ends the body: well when err is nil, otherwise as the fault says.
func (e *emitter) finish(err error) error {
	if err == nil && !e.sink.cut && e.f.Cut != "" && (e.cutAt >= e.n || e.f.AtByte > 0) {
		e.sink.cut = true
		err = cutError{e.f.Cut}
		if e.f.Cut == "stall" {
			err = e.sink.stall()
		}
	}
	var cut cutError
	if err != nil && !errors.As(err, &cut) {
		return err
	}
	switch cut.kind {
	case "reset":
		_ = e.sink.rc.Flush()
		hangUp(e.sink.rc, true)
		return err
	case "abort":
		_ = e.sink.rc.Flush()
		panic(http.ErrAbortHandler)
	case "error":
		kind, message := e.f.Type, e.f.Message
		if kind == "" {
			kind = "overloaded_error"
		}
		if message == "" {
			message = "Overloaded"
		}
		body := value(errorBody{Type: "error", Error: errorDetail{Type: kind, Message: message}})
		err = e.write(fmt.Appendf(nil, "event: error\ndata: %s\n\n", body))
	case "garbage":
		err = e.write(garbage())
	}
	if e.enc != nil {
		if closeErr := e.enc.Close(); err == nil {
			err = closeErr
		}
	}
	return err
}

func garbage() []byte {
	return []byte("\x00\xff\xfe{]this is no event\r\ndata:{\"type\":\n\ndata: {\"broken\": tru\n\n")
}

// wait pauses for d or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

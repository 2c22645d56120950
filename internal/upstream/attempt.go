package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/wire"
)

const (
	// attemptTime bounds the wait for the beginning of a stream while there is another upstream to ask. Plain answers send
	// their header when they are complete, which may take as long as it takes.
	attemptTime = 2 * time.Minute
	// errorTime bounds the wait for the body of an error.
	errorTime = 10 * time.Second
	// firstEvent bounds how much of a stream is looked at before it counts as begun.
	firstEvent = 16 << 10
)

// attempt sends the exchange to a candidate in which it has a place, and judges what comes back.
func (s *search) attempt(ctx context.Context, c *candidate, t turn) (done bool, err error) {
	leave := sync.OnceFunc(func() { c.health.inFlight.leave(c.upstream.MaxInFlight) })
	defer func() { // deferred, so that a panic does not keep the place for ever
		if s.result.Answer == nil {
			leave()
		}
	}()
	answer, o, final, err := s.send(ctx, c)
	switch {
	case err != nil: // the client left: says nothing of the upstream
		return false, err
	case answer != nil:
		c.health.succeeded(s.model(c), t, s.pool.now())
		answer.Response.Body = &leavingBody{ReadCloser: answer.Response.Body, leave: leave}
		s.result.Answer = answer
		return true, nil
	case final:
		s.result.Failure = o.failure
		return true, nil
	}
	if s.aside && o.cause == causeModel {
		o.cause = causeCapability // it is the path that is not there
	}
	if c.health.report(s.model(c), t, o, s.pool.now(), s.pool.spread()) {
		s.pool.logCooling(c.upstream.Name, c.model, o)
	}
	s.fail(o)
	return false, nil
}

// send makes one attempt. Exactly one of answer, o and err is set; final says that o is the client's own fault.
func (s *search) send(ctx context.Context, c *candidate) (answer *Answer, o *outcome, final bool, err error) {
	provider, ok := s.pool.providers[c.upstream.Provider]
	if !ok {
		unknown := fmt.Errorf("upstream %q has the unknown provider %q", c.upstream.Name, c.upstream.Provider)
		return nil, &outcome{cause: causeBroken, failure: own(anthropic.ErrUpstream(unknown))}, false, nil
	}
	out, model, err := provider.Prepare(c.upstream, s.exchange)
	if err != nil {
		return nil, nil, false, anthropic.ErrInternal(err)
	}
	defer out.Body.Release()
	s.result.Upstream, s.result.ModelSent = c.upstream.Name, model
	s.result.Attempts++

	attempt, cancel := context.WithCancelCause(ctx)
	disarm := func() bool { return true }
	if s.exchange.Peek.Stream && s.hasOthers(c) {
		disarm = time.AfterFunc(attemptTime, func() { cancel(context.DeadlineExceeded) }).Stop
	}
	response, err := s.roundTrip(attempt, c, out)
	if err == nil {
		o, final, err = s.judge(attempt, c, response)
	}
	if !disarm() && o == nil && err == nil {
		err = context.DeadlineExceeded // at the last moment: the answer's context is over
	}
	switch {
	case errors.Is(err, wire.ErrUnsendable): // says nothing of the upstream, and no other can do better
		cancel(nil)
		return nil, nil, false, anthropic.ErrInternal(err)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil:
		if late := context.Cause(attempt); late != nil {
			err = late
		}
		o, err = unreached(c.upstream.Name, err), nil
	}
	if o != nil || err != nil {
		if response != nil {
			_ = response.Body.Close()
		}
		cancel(nil)
		return nil, o, final, err
	}
	response.Body = &leavingBody{ReadCloser: response.Body, leave: func() { cancel(nil) }}
	return &Answer{Response: response, Upstream: c.upstream, ModelSent: model}, nil, false, nil
}

func (s *search) roundTrip(ctx context.Context, c *candidate, out *wire.Outgoing) (*wire.Response, error) {
	start := s.pool.now()
	response, _, err := s.pool.client.Do(ctx, out)
	s.pool.metrics.observe(c.upstream.Name, response, err, s.pool.now().Sub(start))
	if err == nil {
		c.health.noteHead(response.Head)
	}
	return response, err
}

// judge looks at an answer until it is clear whether it serves the exchange; then o is nil.
func (s *search) judge(ctx context.Context, c *candidate, r *wire.Response) (o *outcome, final bool, err error) {
	if r.Status >= 200 && r.Status <= 299 {
		return s.begin(ctx, c, r)
	}
	body, broken := readError(r.Body, s.pool.errorTime)
	o, final = failed(c.upstream.Name, r.Status, r.Head, body, broken, s.pool.now())
	return o, final, nil
}

// errSlow says that an error's body did not come in time.
var errSlow = errors.New("its body takes too long") //nolint:gochecknoglobals // a constant

// readError reads an error's body, as much of it as comes in a short time: the status has said most of it already.
func readError(from io.ReadCloser, most time.Duration) ([]byte, error) {
	timer := time.AfterFunc(most, func() { _ = from.Close() }) // unblocks the read
	body, err := io.ReadAll(io.LimitReader(from, maxErrorBody+1))
	if !timer.Stop() && err != nil {
		err = errSlow
	}
	if err != nil {
		return body, fmt.Errorf("cannot read the error: %w", err)
	}
	return body, nil
}

// begin waits until a success has shown to be one: it may still turn out to be nothing at all, a page of HTML, a stream that begins
// with an error, or a plain answer that breaks off. Until a byte has reached the client another upstream can do better.
func (s *search) begin(ctx context.Context, c *candidate, r *wire.Response) (o *outcome, final bool, err error) {
	if anthropic.IsStream(r.Head.Get("Content-Type")) {
		o, final, err = s.beginStream(c, r)
	} else {
		err = s.beginPlain(r)
	}
	if err == nil || ctx.Err() != nil {
		return o, final, err
	}
	failure := own(anthropic.ErrUpstream(fmt.Errorf("upstream %q answered %d without an answer: %w", c.upstream.Name, r.Status, err)))
	return &outcome{cause: causeBroken, failure: failure}, false, nil
}

// beginStream waits for the first bytes of a stream, or for all of an event that may be an error.
func (s *search) beginStream(c *candidate, r *wire.Response) (o *outcome, final bool, err error) {
	start := make([]byte, 0, 512)
	for {
		if len(start) == cap(start) {
			start = append(start, make([]byte, len(start))...)[:len(start)]
		}
		n, err := r.Body.Read(start[len(start):cap(start)])
		start = start[:len(start)+n]
		if err != nil && (len(start) == 0 || !errors.Is(err, io.EOF)) {
			return nil, false, err
		}
		if mayBeError(start) && eventEnd(start) > 0 {
			if o, final := errorEvent(c.upstream.Name, start, s.pool.now()); o != nil {
				return o, final, nil
			}
		} else if mayBeError(start) && err == nil && len(start) < firstEvent {
			continue // not enough to tell
		}
		if len(start) > 0 {
			r.Body = &startedBody{start: start, err: err, rest: r.Body}
			return nil, false, nil
		}
	}
}

// mayBeError reports whether the bytes so far can still become an error event.
func mayBeError(start []byte) bool {
	const event = "event: error"
	trimmed := bytes.TrimLeft(start, "\r\n")
	n := min(len(trimmed), len(event))
	return string(trimmed[:n]) == event[:n]
}

// eventEnd returns the offset after the first event, or 0.
func eventEnd(b []byte) int {
	for _, blank := range []string{"\n\n", "\r\n\r\n"} {
		if i := bytes.Index(b, []byte(blank)); i >= 0 {
			return i + len(blank)
		}
	}
	return 0
}

package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"carpool/internal/anthropic"
	"carpool/internal/ledger"
	"carpool/internal/upstream"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// A stream spends most of its life waiting for the next event of some hundred bytes, and there are thousands of them. What
// comes as fast as it is read, a plain answer or a stream at full speed, is taken in larger pieces.
const (
	streamBuffer = 4 << 10
	plainBuffer  = 32 << 10
)

// relay hands an answer's bytes to the client as they come, while a meter reads over their shoulder.
func (g *Gateway) relay(ctx context.Context, k *keeper, x *exchange, r *wire.Response) error {
	kind, encoding := r.Head.Get("Content-Type"), r.Head.Get("Content-Encoding")
	stream := anthropic.IsStream(kind)
	body, err := io.Reader(r.Body), error(nil)
	if k.committed() { // without a content encoding, which was not known then
		if body, err = upstream.Decoder(encoding, r.Body); err != nil {
			return fmt.Errorf("upstream %q: cannot decode %s: %w", x.entry.Upstream, shorten(encoding), err)
		}
		encoding = ""
	}
	tap := newTap(kind, encoding)
	may := (func() bool)(nil)
	head := x.withRequestID(upstream.ResponseHead(r.Head))
	x.tell(&head)
	if stream {
		g.metrics.streams.Inc()
		defer g.metrics.streams.Dec()
		head.Set("X-Accel-Buffering", "no")
		may = tap.Between
	}
	buffer := g.lendBuffer(stream)
	defer func() { buffer.back() }()

	x.entry.Status = r.Status
	sendErr := k.begin(r.Status, head, may)
	x.firstByte(g.now())
	see := func(p []byte) {
		tap.Write(p)
		x.entry.ResponseBytes += int64(len(p))
		if tap.Ended() {
			// The books come first: the client, once it has the end of the answer, may send its next request or ask for its
			// usage at once, and an answer that it has taken for complete must not be lost in a crash.
			result := tap.meter.Result()
			x.meter(result)
			x.came(result)
			x.end()
		}
	}
	for sendErr == nil && err == nil {
		var n int
		if n, err = body.Read(buffer.bytes); n > 0 {
			sendErr = k.send(buffer.bytes[:n], see, stream && err == nil) // the end goes out with what follows it
			if stream {
				x.checkpoint(tap)
			}
			k.yield()
		}
		if fast := n > streamBuffer/2; stream && fast == buffer.slow {
			buffer.back()
			buffer = g.lendBuffer(!fast)
		}
	}
	result, readable := tap.Close()
	if sendErr == nil && !result.Complete {
		sendErr = k.flush() // the client has all that there was of it before it sees how it ends
	}
	k.stop()
	x.meter(result)
	return x.conclude(ctx, k.w, ending{readable: readable, whole: tap.Ended(), result: result, read: err, sent: sendErr})
}

// ending is how an answer came to its end.
type ending struct {
	readable bool // the meter could read it
	whole    bool // its last word was among it
	result   anthropic.Result
	read     error // io.EOF: the upstream ended it
	sent     error // nil: the client took everything
}

// conclude decides how an answer ends. One that the upstream did not finish must not look finished: every released CLI
// repeats a request whose connection breaks, and takes a clean end for a complete answer.
func (x *exchange) conclude(ctx context.Context, w wire.Writer, end ending) error {
	ended := errors.Is(end.read, io.EOF)
	switch {
	case end.result.Complete && end.sent == nil: // a client may hang up as soon as it has everything
		x.came(end.result)
		if !ended && !end.whole { // what broke off after the last word has lost nothing
			w.Abort()
		}
		return nil
	case !ended && errors.Is(context.Cause(ctx), web.ErrStopping):
		x.entry.Outcome = ledger.OutcomeCut
		w.Abort()
		return web.ErrStopping
	case end.sent != nil || !ended && ctx.Err() != nil:
		x.entry.Outcome = ledger.OutcomeCanceled
		w.Abort()
		return context.Cause(ctx)
	case !ended:
		x.entry.Outcome = ledger.OutcomeCut
		w.Abort()
		return fmt.Errorf("upstream %q broke off: %w", x.entry.Upstream, end.read)
	case end.result.ErrorType != "": // told by the upstream in the stream itself, and relayed
		x.entry.Outcome, x.entry.ErrorType = ledger.OutcomeUpstreamError, end.result.ErrorType
		return nil
	case end.readable && !end.result.Complete && x.path == pathMessages:
		x.entry.Outcome = ledger.OutcomeCut
		w.Abort()
		return fmt.Errorf("upstream %q ended the answer before it was complete", x.entry.Upstream)
	}
	x.came(end.result)
	return nil
}

// came books an answer that came to its end.
func (x *exchange) came(result anthropic.Result) {
	x.entry.Outcome = ledger.OutcomeFinished
	if x.answeredError(result) {
		x.entry.Outcome, x.entry.ErrorType = ledger.OutcomeUpstreamError, result.ErrorType
	}
}

// answeredError reports whether what passes for a success is none: the API answers with 200 and nothing else, and not with an error
// in place of a message.
func (x *exchange) answeredError(result anthropic.Result) bool {
	return x.entry.Status != 200 || result.Complete && !result.Started && result.ErrorType != ""
}

// meter takes over what was read of the answer.
func (x *exchange) meter(result anthropic.Result) {
	e := &x.entry
	if x.path != pathMessages {
		return
	}
	e.Tools = nil
	e.ModelServed, e.MessageID, e.StopReason = result.ServingModel, result.MessageID, result.StopReason
	settled, estimated := result.Settled(x.maxOutput())
	if x.peek.LongLife {
		settled = settled.ForAnHour(result.Raw)
	}
	if e.Uncharged = result.Uncharged(); e.Uncharged {
		x.usage = anthropic.Usage{}
	} else {
		x.usage = settled
	}
	usage := x.usage.BilledTotal()
	e.Estimated = estimated
	e.InputTokens, e.OutputTokens, e.ThinkingTokens = usage.Input, usage.Output, settled.Thinking
	e.CacheReadTokens, e.CacheWrite5mTokens, e.CacheWrite1hTokens = usage.CacheRead, usage.CacheWrite5m, usage.CacheWrite1h
	e.WebSearches = settled.WebSearches
	e.ServiceTier, e.InferenceGeo, e.Speed = settled.ServiceTier, settled.InferenceGeo, settled.Speed
	e.Usage = result.Raw
	for _, t := range result.Tools {
		e.Tools = append(e.Tools, ledger.ToolCount{Name: t.Name, Count: int64(t.Count)})
	}
	e.FileOperations = int64(result.FileOperations)
	x.unreported = result.Unreported()
	if !e.Uncharged && !x.answeredError(result) && (!result.Started || !result.PromptReported()) {
		x.guessInput()
	}
}

// checkpoint notes what a stream has cost so far, for the case that this process does not live to see its end. The client has
// what it follows from already, and waits for nothing.
func (x *exchange) checkpoint(tap *tap) {
	if x.path != pathMessages {
		return
	}
	if result, ok := tap.News(); ok {
		x.meter(result)
		x.entry.Charge(x.snapshot.Prices, x.usage)
		x.place.Checkpoint(x.entry)
	}
}

// withLength fixes the length of a body that is known.
func withLength(head wire.Head, n int) wire.Head {
	head.Set("Content-Length", strconv.Itoa(n))
	return head
}

// relayBuffer is lent for reading an answer: a small one while it is slow.
type relayBuffer struct {
	bytes []byte
	slow  bool
	from  *bufferPool
}

func (g *Gateway) lendBuffer(slow bool) relayBuffer {
	from := &g.plainBuffers
	if slow {
		from = &g.streamBuffers
	}
	return relayBuffer{from.get(), slow, from}
}

func (b relayBuffer) back() { b.from.put(b.bytes) }

// bufferPool lends buffers of one size.
type bufferPool struct {
	size int
	pool sync.Pool
}

func (p *bufferPool) get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, p.size)
}

func (p *bufferPool) put(b []byte) { p.pool.Put(&b) }

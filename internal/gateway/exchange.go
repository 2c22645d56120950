package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/upstream"
	"carpool/internal/web"
	"carpool/internal/wire"
)

const (
	pathMessages    = "/v1/messages"
	pathCountTokens = "/v1/messages/count_tokens"
)

// exchange is one client request on its way. entry is what the ledger will say of it.
type exchange struct {
	path       string
	request    *web.Request
	caller     policy.Caller
	snapshot   *policy.Snapshot
	target     policy.Target
	client     anthropic.Client
	peek       *anthropic.Request
	entry      ledger.Entry
	place      *ledger.Exchange // in the books
	spending   *spending        // nil: there are no budgets
	usage      anthropic.Usage  // what entry is priced by: its counts, by sampling runs
	unreported bool             // the answer is whole and does not say what it used
	end        func()           // writes the books and gives back what the exchange holds; once, however often it is called
}

// exchange is the request path: seven stops in one direction, of which package web made the first.
func (g *Gateway) exchange(ctx context.Context, w wire.Writer, r *web.Request, path string) error {
	caller, snapshot, err := g.authenticate(r)
	if err != nil {
		return err
	}
	if strings.ContainsFunc(r.Query, func(c rune) bool { return c <= ' ' || c == 0x7f }) { // comes over HTTP/2 only
		return anthropic.ErrInvalidRequest("The query has characters that cannot be sent on. Escape them.")
	}
	body, err := g.readBody(r)
	if err != nil {
		return err
	}
	letGo := sync.OnceFunc(body.Release)
	defer letGo()
	x, err := g.understand(r, path, caller, snapshot, body)
	if err != nil {
		return err
	}
	leave, err := g.enter(x)
	if err != nil {
		return err
	}
	leave = sync.OnceFunc(leave)
	defer leave()
	if x.place, err = g.admit(ctx, x, body); err != nil {
		return err
	}
	g.exchanges.Add(1)
	x.end = sync.OnceFunc(func() { //nolint:contextcheck // what was spent is booked whether or not anybody still waits
		g.settle(x)
		leave()
		g.exchanges.Add(-1)
	})
	defer x.end()
	return g.forward(ctx, w, x, body, letGo)
}

// understand peeks at the body and finds where it goes. Everything up to here costs no more than one look at the bytes:
// the CLI repeats a refused request several times at once.
func (g *Gateway) understand(r *web.Request, path string, caller policy.Caller, snapshot *policy.Snapshot, body *wire.Body) (*exchange, error) {
	text, _ := body.Hold()
	defer body.Release()
	peek, err := anthropic.Peek(text)
	if err != nil {
		return nil, err
	}
	target, ok := snapshot.Resolve(caller, peek.Model)
	if !ok {
		return nil, anthropic.ErrModelNotFound(peek.Model, snapshot.PermittedModels(caller))
	}
	x := &exchange{
		path: path, request: r, caller: caller, snapshot: snapshot, target: target, peek: peek,
		client: anthropic.ParseUserAgent(r.Head.Get("User-Agent")),
	}
	x.open()
	return x, nil
}

// open fills in what is known of the entry at admission.
func (x *exchange) open() {
	head := x.request.Head
	endpoint := ledger.EndpointMessages
	if x.path == pathCountTokens {
		endpoint = ledger.EndpointCountTokens
	}
	session := identifier(head.Get("X-Claude-Code-Session-Id"))
	if session == "" {
		session = identifier(x.peek.SessionID())
	}
	x.entry = ledger.Entry{
		ID: x.request.ID, StartedAt: x.request.Started, FirstByte: -1,
		User: x.caller.User.Name, Team: x.caller.User.Team, KeyID: x.caller.Key.ID, KeyName: x.caller.Key.Name,
		Endpoint: endpoint, Stream: x.peek.Stream, ModelAsked: x.peek.Model, Route: x.target.Route,
		SessionID: session, AgentID: identifier(head.Get("X-Claude-Code-Agent-Id")),
		ParentAgentID: identifier(head.Get("X-Claude-Code-Parent-Agent-Id")), RequestClass: identifier(head.Get("X-Claude-Code-Request-Class")),
		Client: x.client.Name, ClientVersion: x.client.Version, ClientRequestID: identifier(head.Get("X-Client-Request-Id")),
		RequestBytes: int64(x.peek.Bytes),
	}
}

// session names the conversation for affinity: the client's session, else whatever else it says in metadata.user_id.
func (x *exchange) session() string {
	if x.entry.SessionID != "" {
		return x.entry.SessionID
	}
	return x.peek.UserID
}

// identifier keeps a value of a client or an upstream out of the ledger that is no identifier.
func identifier(id string) string {
	if len(id) > 128 {
		return ""
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return ""
		}
	}
	return id
}

// forward sends the exchange and relays the answer, for which the body is let go.
func (g *Gateway) forward(ctx context.Context, w wire.Writer, x *exchange, body *wire.Body, letGo func()) error {
	settings := &x.snapshot.Settings
	out := &upstream.Exchange{
		Path: x.path, Query: x.request.Query, Head: x.request.Head, Body: body, Peek: x.peek, Model: x.target.Model,
		User: x.caller.User.Name, Session: x.session(),
	}
	if x.client.IsClaudeCode() {
		out.Fill = settings.DefaultHeaders
		if !x.peek.HasSystem && x.path == pathMessages {
			out.System = settings.SystemPrompt
		}
	}
	k := g.newKeeper(w)
	defer k.stop()
	if patience := x.patience(); patience > 0 {
		k.commitAfter(patience, wire.Head{
			{Name: "Content-Type", Value: "text/event-stream; charset=utf-8"},
			{Name: "Cache-Control", Value: "no-cache"},
			{Name: "X-Accel-Buffering", Value: "no"},
			{Name: "Request-Id", Value: x.request.ID},
		})
	}
	result, err := g.pool.Do(ctx, x.target, out)
	letGo()
	e := &x.entry
	e.Attempts, e.Upstream, e.ModelSent, e.MovedFrom = result.Attempts, result.Upstream, result.ModelSent, result.MovedFrom
	if u := x.snapshot.Upstream(result.Upstream); u != nil {
		e.Provider = u.Provider
	}
	switch {
	case err != nil:
		e.Outcome = ledger.OutcomeFailed
		if ctx.Err() != nil && e.Attempts > 0 && x.path == pathMessages { // the upstream has the prompt, and works on
			x.guessInput()
		}
		return x.failed(ctx, err)
	case result.Failure != nil:
		return g.relayFailure(ctx, k, x, result.Failure)
	}
	response := result.Answer.Response
	defer func() { _ = response.Body.Close() }()
	e.UpstreamRequestID = identifier(response.Head.Get("Request-Id"))
	err = g.relay(ctx, k, x, response)
	if e.Outcome == ledger.OutcomeCut && ctx.Err() == nil {
		g.pool.Broke(x.target.Route, out.Session, result.Answer.Upstream, result.ModelSent)
	}
	return err
}

// failed notes an error that is shown to the client in place of an answer.
func (x *exchange) failed(ctx context.Context, err error) error {
	var shown *anthropic.Error
	switch {
	case errors.Is(context.Cause(ctx), web.ErrStopping):
		shown = anthropic.ErrDraining().WithCause(err)
	case ctx.Err() != nil:
		x.entry.Outcome = ledger.OutcomeCanceled
		return context.Cause(ctx)
	case !errors.As(err, &shown):
		shown = anthropic.ErrInternal(err)
	}
	x.entry.Status, x.entry.ErrorType = shown.Status, shown.Type
	return shown
}

// guessInput stands for what the upstream will charge for a prompt that it got, when it did not come to say so. What lies before the last
// cache breakpoint was most probably read from the cache.
func (x *exchange) guessInput() {
	e := &x.entry
	e.InputTokens, e.CacheReadTokens = x.estimateInput()
	e.Estimated = true
	x.usage = e.Counts()
}

// relayFailure hands on what an upstream said, or our own words where that would mislead the client.
func (g *Gateway) relayFailure(ctx context.Context, k *keeper, x *exchange, failure *upstream.Failure) error {
	x.entry.Outcome = ledger.OutcomeFailed
	early := k.committed()
	if own := failure.Own; own != nil {
		err := x.failed(ctx, own)
		if !early {
			return err
		}
		failure = &upstream.Failure{Status: own.Status, Type: own.Type, Body: own.Body(x.request.ID)}
	} else {
		x.entry.Outcome, x.entry.Status, x.entry.ErrorType = ledger.OutcomeUpstreamError, failure.Status, failure.Type
		x.entry.UpstreamRequestID = identifier(failure.Head.Get("Request-Id"))
	}
	x.request.Note(slog.String("errorType", failure.Type))
	body := failure.Body
	if early { // the status is gone; an error event is what the client understands now
		body = anthropic.ErrorEvent(body)
	}
	if err := k.begin(failure.Status, x.withRequestID(withLength(failure.Head, len(body))), nil); err != nil {
		return err
	}
	x.firstByte(g.now())
	x.entry.ResponseBytes = int64(len(body))
	return k.send(body, func([]byte) {}, true)
}

// patience is after what time the client needs the header of its stream, whatever the upstreams do: CLI 1.0.57 to 1.0.59
// give up after a minute without one. 0: it can wait.
func (x *exchange) patience() time.Duration {
	const short = 60
	seconds, err := strconv.Atoi(x.request.Head.Get("X-Stainless-Timeout"))
	if err != nil || seconds <= 0 || seconds > short || !x.peek.Stream || x.path != pathMessages {
		return 0
	}
	return time.Duration(seconds) * time.Second * 3 / 4
}

// withRequestID makes sure that every answer can be named: by the upstream's id, else by ours.
func (x *exchange) withRequestID(head wire.Head) wire.Head {
	if !head.Has("Request-Id") {
		head.Add("Request-Id", x.request.ID)
	}
	return head
}

func (x *exchange) firstByte(now time.Time) {
	x.entry.FirstByte = now.Sub(x.request.Started).Milliseconds()
}

// settle writes the books. It does not depend on the request's context: a client that left still has an entry.
func (g *Gateway) settle(x *exchange) {
	x.entry.Duration = g.now().Sub(x.request.Started).Milliseconds()
	if x.entry.Outcome == "" { // a panic on the way
		x.entry.Outcome = ledger.OutcomeFailed
	}
	x.entry.Charge(x.snapshot.Prices, x.usage)
	switch err := x.place.Settle(x.entry); {
	case errors.Is(err, ledger.ErrUnavailable):
		g.log.Warn("an entry waits in memory until the ledger can write it", slog.String("id", x.entry.ID), slog.String("error", err.Error()))
	case err != nil:
		g.log.Error("cannot settle an exchange; it will be resolved when the ledger is opened next", slog.String("id", x.entry.ID), slog.String("error", err.Error()))
	}
	g.spent(x)
	g.metrics.observe(&x.entry)
	if x.unreported {
		g.metrics.unreported.WithLabelValues(x.entry.Upstream).Inc()
	}
	x.request.Note(logEntry(&x.entry)...)
}

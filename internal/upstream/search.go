package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
)

// selectionTime bounds the search for an upstream that answers; after it no further one is asked.
const selectionTime = 5 * time.Minute

// messagesPath is where messages are sent; what goes elsewhere is aside.
const messagesPath = "/v1/messages"

// search is one exchange looking for an upstream.
type search struct {
	pool       *Pool
	target     policy.Target
	exchange   *Exchange
	candidates []candidate // in the order in which they are asked
	bound      string      // the session's upstream
	aside      bool        // see turn
	until      time.Time
	patience   time.Duration // how long it still waits for places, over all upstreams
	best       *outcome      // the most useful failure so far
	result     Result
}

// candidate is an upstream of the route with what is known of it.
type candidate struct {
	upstream *policy.Upstream
	health   *health
	model    string // as it is sent there
	asked    bool
}

// pass is one round over the candidates. Each is asked at most once in all.
type pass int

const (
	eager     pass = iota // those that are well and have a place
	patient               // those that are well, whichever has a place first: all were full
	desperate             // those that are to be left alone, too, unless they said so themselves
)

// run asks candidates until the result stands or nobody is left.
func (s *search) run(ctx context.Context) (done bool, err error) {
	for _, step := range []func(context.Context) (bool, error){
		func(ctx context.Context) (bool, error) { return s.each(ctx, eager) },
		s.whoeverIsFirst,
		func(ctx context.Context) (bool, error) { return s.each(ctx, desperate) },
	} {
		if done, err := step(ctx); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// each asks the candidates one after the other, those that may be asked in this pass and have a place. done is true when the
// result stands.
func (s *search) each(ctx context.Context, round pass) (done bool, err error) {
	for i := range s.candidates {
		c := &s.candidates[i]
		t, may := s.mayAsk(c, round)
		if !may {
			continue
		}
		// Its own upstream has the session's prompt cache, which is worth a short wait.
		mayWait := round != eager || c.upstream.Name == s.bound
		if s.enter(ctx, mayWait, c) == nil {
			c.health.release(s.model(c), t.probe)
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			continue
		}
		if done, err := s.ask(ctx, c, t); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// whoeverIsFirst waits at all candidates that are well, and asks the one that has a place first.
func (s *search) whoeverIsFirst(ctx context.Context) (done bool, err error) {
	for !s.pool.now().After(s.until) {
		var well []*candidate
		for i := range s.candidates {
			c := &s.candidates[i]
			if r, _, _ := c.health.state(s.model(c), s.pool.now()); !c.asked && (r == ready || r == probing) {
				well = append(well, c)
			}
		}
		c := s.enter(ctx, true, well...)
		switch {
		case ctx.Err() != nil && c == nil:
			return false, context.Cause(ctx)
		case c == nil:
			return false, nil
		}
		t, may := s.mayAsk(c, patient)
		if !may { // it was well before the wait
			c.health.inFlight.leave(c.upstream.MaxInFlight)
			continue
		}
		if done, err := s.ask(ctx, c, t); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// mayAsk reports whether a candidate may be asked in this pass. A turn with a probe is to be released.
func (s *search) mayAsk(c *candidate, round pass) (t turn, may bool) {
	now := s.pool.now()
	if c.asked || now.After(s.until) {
		return turn{}, false
	}
	readiness, wait, why := c.health.state(s.model(c), now)
	t = turn{start: now, aside: s.aside}
	if readiness == probing || readiness == resting && round == desperate {
		t.probe = c.health.claim(s.model(c), now, round == desperate)
	}
	if readiness != ready && t.probe == nil {
		if round == desperate || readiness == closed {
			s.fail(coolingOutcome(c.upstream.Name, why, wait))
		}
		return turn{}, false
	}
	return t, true
}

// ask asks a candidate in which the exchange has a place.
func (s *search) ask(ctx context.Context, c *candidate, t turn) (done bool, err error) {
	defer c.health.release(s.model(c), t.probe)
	c.asked = true
	return s.attempt(ctx, c, t)
}

// enter takes a place at the first of some candidates that has one, waiting for it as long as there is patience left if it may; nil:
// there is none in time.
func (s *search) enter(ctx context.Context, mayWait bool, candidates ...*candidate) *candidate {
	var few [4]entrance
	at := few[:0]
	for _, c := range candidates {
		at = append(at, entrance{&c.health.inFlight, c.upstream.MaxInFlight})
	}
	wait := time.Duration(0)
	if mayWait {
		wait = s.patience
	}
	start := s.pool.now()
	i, ok := enterFirst(ctx, s.exchange.User, wait, at...)
	if mayWait {
		s.patience -= s.pool.now().Sub(start)
	}
	if !ok {
		if len(candidates) > 0 {
			s.fail(&outcome{cause: causeFull, failure: own(anthropic.ErrOverloaded(2))})
		}
		return nil
	}
	return candidates[i]
}

// model names the model whose health counts for the exchange: none for what is aside.
func (s *search) model(c *candidate) string {
	if s.aside {
		return ""
	}
	return c.model
}

// hasOthers reports whether another upstream could be asked instead of a candidate.
func (s *search) hasOthers(than *candidate) bool {
	for i := range s.candidates {
		c := &s.candidates[i]
		if c == than || c.asked {
			continue
		}
		if readiness, _, _ := c.health.state(s.model(c), s.pool.now()); readiness != closed {
			return true
		}
	}
	return false
}

// note keeps the session where it was served.
func (s *search) note() {
	if s.result.Answer == nil || s.aside { // only messages fill a prompt cache
		return
	}
	if bound := s.bound; bound != "" && bound != s.result.Upstream {
		s.result.MovedFrom = bound
		s.pool.log.Info("a session moved to another upstream", slog.String("session", s.exchange.Session), slog.String("from", bound), slog.String("to", s.result.Upstream))
	}
	s.pool.affinity.bind(s.target.Route, s.exchange.Session, s.result.Upstream, s.pool.now())
}

func (s *search) fail(o *outcome) {
	sooner := func() bool { // of two that say when to come back
		return o.usefulness() == s.best.usefulness() && o.wait > 0 && o.wait < s.best.wait
	}
	switch {
	case s.best == nil || o.usefulness() > s.best.usefulness() || sooner():
		s.best = o
	case o.cause == s.best.cause && o.failure.Own != nil && s.best.failure.Own != nil && o.failure.Own.Cause != nil && s.best.failure.Own.Cause != nil:
		// The client gets the same of both; the log names each.
		s.best.failure = own(s.best.failure.Own.WithCause(fmt.Errorf("%w; %w", s.best.failure.Own.Cause, o.failure.Own.Cause)))
	}
}

// giveUp is what the client gets when every upstream failed.
func (s *search) giveUp() *Failure {
	switch {
	case s.best != nil:
		return s.best.failure
	case len(s.candidates) > 0:
		return own(anthropic.ErrOverloaded(2).WithCause(fmt.Errorf("no upstream of route %q could be asked in time", s.target.Route)))
	default:
		e := anthropic.ErrUpstream(fmt.Errorf("no upstream of route %q may be asked: they are disabled", s.target.Route))
		e.Message = "All upstreams of this route are switched off. Tell the operator of the gateway."
		e.Header = append(e.Header, anthropic.HeaderField{Name: "x-should-retry", Value: "false"})
		return own(e)
	}
}

// coolingOutcome stands for an upstream that is not asked now.
func coolingOutcome(name string, why cause, wait time.Duration) *outcome {
	seconds := int(math.Ceil(max(wait, time.Second).Seconds()))
	reason := fmt.Errorf("upstream %q is left alone for %s after %s", name, wait.Round(time.Second), why)
	o := &outcome{cause: causeCooling, wait: wait, before: why}
	switch why {
	case causeRate:
		o.failure = own(rateReached(seconds, reason))
	case causeCredential:
		o.failure = own(credentialRefused(reason))
	case causeSpend:
		o.failure = own(spendLimit(name, reason.Error()))
	case causePayment:
		o.failure = own(paymentDue(reason))
	case causeModel:
		o.failure = own(anthropic.ErrUpstream(reason))
	default:
		o.failure = own(anthropic.ErrOverloaded(min(seconds, 5)).WithCause(reason))
	}
	return o
}

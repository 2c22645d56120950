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
	patient               // those that are well, waiting for a place: all were full
	desperate             // those that are to be left alone, too, unless they said so themselves
)

// try asks one candidate, if it may be asked in this pass. done is true when the result stands.
func (s *search) try(ctx context.Context, c *candidate, round pass) (done bool, err error) {
	now := s.pool.now()
	if c.asked || now.After(s.until) {
		return false, nil
	}
	readiness, wait, why := c.health.state(s.model(c), now)
	t := turn{start: now, aside: s.aside}
	if readiness == probing || readiness == resting && round == desperate {
		t.probe = c.health.claim(s.model(c), now, round == desperate)
	}
	if readiness != ready && t.probe == nil {
		if round == desperate || readiness == closed {
			s.fail(coolingOutcome(c.upstream.Name, why, wait))
		}
		return false, nil
	}
	defer c.health.release(s.model(c), t.probe)
	// Its own upstream has the session's prompt cache, which is worth a short wait.
	mayWait := round != eager || c.upstream.Name == s.bound
	if !s.enter(ctx, c, mayWait) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		s.fail(&outcome{cause: causeFull, failure: own(anthropic.ErrOverloaded(2))})
		return false, nil
	}
	c.asked = true
	return s.attempt(ctx, c, t)
}

// enter takes a place at a candidate.
func (s *search) enter(ctx context.Context, c *candidate, mayWait bool) bool {
	if !mayWait {
		return c.health.inFlight.enter(ctx, s.exchange.User, c.upstream.MaxInFlight, 0)
	}
	start := s.pool.now()
	ok := c.health.inFlight.enter(ctx, s.exchange.User, c.upstream.MaxInFlight, s.patience)
	s.patience -= s.pool.now().Sub(start)
	return ok
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
	if s.best == nil || o.usefulness() > s.best.usefulness() || sooner() {
		s.best = o
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

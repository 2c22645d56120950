package gateway

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

// limits holds the rates of keys, users, teams and the organisation. One that is idle costs nothing.
type limits struct {
	mu    sync.Mutex
	held  map[subject]*rates
	swept time.Time
}

// subject is whose limits they are.
type subject struct{ kind, name string }

// rates is what a subject has taken of its limits.
type rates struct {
	requests, tokens quota.Rate
	slots            quota.Slots
}

func (r *rates) idle(now time.Time) bool {
	return r.slots.Held() == 0 && r.requests.Idle(now) && r.tokens.Idle(now)
}

// sweepInterval is how often subjects that became idle are forgotten. A bucket fills in a minute.
const sweepInterval = time.Minute

// busyRetry is the seconds after which a request that found all places taken should come again: nobody knows when one ends.
const busyRetry = 2 * time.Second

func newLimits() *limits { return &limits{held: map[subject]*rates{}} }

// denial is the limit that a request does not fit into, and when it will.
type denial struct {
	subject
	reason string // a metric label: requests_per_minute, tokens_per_minute, in_flight
	limit  int64
	tokens int64 // what the request is expected to need
	wait   time.Duration
}

// stay is a request's place in the limits of its subjects.
type stay struct {
	taken  [4]*rates
	n      int
	tokens int64
}

// enter gives an exchange its place in all limits that concern it, or in none. leave must be called when its entry says
// what became of it: it makes the tokens true, and takes everything back if the exchange was not admitted after all.
// Counting tokens is free.
func (g *Gateway) enter(x *exchange) (leave func(), err error) {
	if x.path == pathCountTokens {
		return func() {}, nil
	}
	formula := x.snapshot.Settings.Formula
	_, tokens := expectedTokens(formula, x.peek)
	place, denied := g.limits.take(x.caller, tokens, g.now())
	if denied != nil {
		g.metrics.denials.WithLabelValues(denied.reason).Inc()
		return nil, denied.explain()
	}
	if place.n == 0 {
		return func() {}, nil
	}
	return func() {
		if x.entry.Outcome == "" { // it never became an exchange
			g.limits.undo(place, g.now())
			return
		}
		e := &x.entry
		used := formula.Tokens(e.InputTokens, e.OutputTokens, e.CacheReadTokens, e.CacheWrite5mTokens+e.CacheWrite1hTokens)
		g.limits.settle(place, used, g.now())
	}, nil
}

// take takes a slot, a request and its tokens of each of the limits that concern the caller, or nothing. The denial is the one that lasts
// longest.
func (l *limits) take(c policy.Caller, tokens int64, now time.Time) (place stay, denied *denial) {
	tokens = quota.Clamp(tokens)
	place.tokens = tokens
	var worst denial
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	consider := func(s subject, spec *policy.LimitsSpec) {
		if *spec == (policy.LimitsSpec{}) {
			return
		}
		r := l.of(s)
		place.taken[place.n] = r
		place.n++
		r.requests.SetPerMinute(now, int64(spec.RequestsPerMinute))
		r.tokens.SetPerMinute(now, spec.TokensPerMinute)
		for _, d := range [...]denial{
			{s, "in_flight", int64(spec.InFlight), tokens, busy(&r.slots, spec.InFlight)},
			{s, "requests_per_minute", int64(spec.RequestsPerMinute), tokens, r.requests.Wait(now, 1)},
			{s, "tokens_per_minute", spec.TokensPerMinute, tokens, r.tokens.Wait(now, tokens)},
		} {
			if d.wait > worst.wait {
				worst = d
			}
		}
	}
	consider(subject{"key", c.Key.Name}, &c.Key.Limits)
	consider(subject{"user", c.User.Name}, &c.User.Limits)
	if c.Team != nil {
		consider(subject{"team", c.Team.Name}, &c.Team.Limits)
	}
	if c.Organization != nil {
		consider(subject{"organization", c.Organization.Name}, &c.Organization.Limits)
	}
	if worst.wait > 0 {
		return stay{}, new(worst)
	}
	for _, r := range place.taken[:place.n] {
		r.slots.Acquire(0) // there is one: see busy
		r.requests.Take(now, 1)
		r.tokens.Take(now, tokens)
	}
	return place, nil
}

func busy(slots *quota.Slots, limit int) time.Duration {
	if limit > 0 && slots.Held() >= limit {
		return busyRetry
	}
	return 0
}

func (l *limits) of(s subject) *rates {
	r, ok := l.held[s]
	if !ok {
		r = &rates{}
		l.held[s] = r
	}
	return r
}

// settle ends a stay of a request that used so many tokens.
func (l *limits) settle(place stay, used int64, now time.Time) {
	l.leave(place, 0, quota.Clamp(used)-place.tokens, now)
}

// undo ends a stay as if it had never begun.
func (l *limits) undo(place stay, now time.Time) { l.leave(place, -1, -place.tokens, now) }

func (l *limits) leave(place stay, requests, tokens int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range place.taken[:place.n] {
		r.requests.Correct(now, requests)
		r.tokens.Correct(now, tokens)
		r.slots.Release()
	}
	l.sweep(now)
}

// sweep forgets, once in a while, who is idle. Whoever has a request in flight is not.
func (l *limits) sweep(now time.Time) {
	if since := now.Sub(l.swept); since >= 0 && since < sweepInterval {
		return
	}
	l.swept = now
	for s, r := range l.held {
		if r.idle(now) {
			delete(l.held, s)
		}
	}
}

// explain is what the client is told.
func (d *denial) explain() error {
	seconds := int(math.Ceil(d.wait.Seconds()))
	again := fmt.Sprintf("Try again in %d seconds.", seconds)
	switch {
	case seconds == 1:
		again = "Try again in a second."
	case seconds > 60: // retry-after does not say more
		again = fmt.Sprintf("Try again in a minute; there is room for it in %d seconds.", seconds)
	}
	whose := d.kind + " " + d.name
	switch {
	case d.reason == "in_flight":
		return anthropic.ErrRateLimit(fmt.Sprintf("%d requests of %s are running already, which is its limit. One of them has to end first.", d.limit, whose), seconds)
	case d.reason == "requests_per_minute" && d.limit == 1:
		return anthropic.ErrRateLimit(fmt.Sprintf("The limit of %s is 1 request a minute. %s", whose, again), seconds)
	case d.reason == "requests_per_minute":
		return anthropic.ErrRateLimit(fmt.Sprintf("The limit of %s is %d requests a minute. %s", whose, d.limit, again), seconds)
	}
	return anthropic.ErrRateLimit(fmt.Sprintf("The limit of %s is %s tokens a minute, and this request needs about %s. %s",
		whose, thousands(d.limit), thousands(d.tokens), again), seconds)
}

// thousands writes a number for people.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}

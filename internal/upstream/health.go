package upstream

import (
	"maps"
	"slices"
	"sync"
	"time"

	"carpool/internal/policy"
	"carpool/internal/wire"
)

// How long an upstream is left alone after what.
const (
	coolFirst      = 5 * time.Second // doubled with each further failure up to coolMost, and spread by a fifth
	coolMost       = time.Minute
	coolCredential = time.Minute // doubled up to coolRefused
	coolRefused    = 10 * time.Minute
	coolPayment    = 10 * time.Minute
	coolSpend      = time.Hour
	coolModel      = 10 * time.Minute
	coolRateMost   = 5 * time.Minute // a longer retry-after is asked again after this
	coolRateBlind  = 5 * time.Second // a 429 that says nothing

	// probeTime is how long others wait for what the one request finds out. A plain answer may take minutes to its header, and
	// those behind it should not take as long to learn that the upstream is well.
	probeTime = 10 * time.Second

	refusedCredential = 3 // answers of 403 in a row that mean the credential, where it has worked before

	breakWindow   = 30 * time.Second
	breakConnects = 3  // failures to connect within the window open the circuit
	breakRequests = 10 // requests within the window of which more than half failed open it, too
)

// health is what is known of one upstream from its answers. The zero value is a healthy upstream.
type health struct {
	mu     sync.Mutex
	whole  cooldown
	models map[string]*cooldown // by model sent
	window []sample             // of breakWindow, oldest first

	left      float64 // headroom as last told; meaningless after leftUntil
	leftUntil time.Time

	served    bool // it has answered with this credential before
	forbidden int  // answers of 403 since then

	organization string // of the credential, as the upstream says
	inFlight     queue
}

type sample struct {
	at      time.Time
	failed  bool
	connect bool
}

// cooldown is a time of being left alone. When it is over, one request goes first and decides for all.
type cooldown struct {
	cause  cause
	since  time.Time
	until  time.Time
	strict bool          // not even a single request before until: it would only be refused again
	last   time.Duration // for doubling
	probe  *probe        // of the one request that is under way
}

func (c *cooldown) active() bool { return c != nil && c.cause != "" }

// probed reports whether a request is finding out; one that takes too long does not count.
func (c *cooldown) probed(now time.Time) bool {
	return c.probe != nil && now.Sub(c.probe.at) < probeTime
}

// probe is the claim to be the one request that finds out. It is compared by address, so that nobody ends another's.
type probe struct{ at time.Time }

// turn is one request's leave to ask an upstream.
type turn struct {
	start time.Time
	probe *probe // nil: the request is one of many
	// aside marks a request that is not for a message, such as counting tokens. It is free, has rate limits of its own and is
	// not offered everywhere, so its answer says little about messages.
	aside bool
}

// shows reports whether an answer to the request says something about a cause.
func (t turn) shows(c cause) bool {
	return !t.aside || c == causeConnect || c == causeTimeout || c == causeCredential
}

// ends reports whether the request's success is an end to a cooldown: it came after it began. That of an older request is
// older news, such as a stream that was under way before the rate limit was reached.
func (t turn) ends(c *cooldown) bool {
	return c.active() && t.shows(c.cause) && (c.since.Before(t.start) || t.probe != nil && c.probe == t.probe)
}

// readiness is whether an upstream may be asked.
type readiness int

const (
	ready   readiness = iota
	probing           // one request may find out; the caller is it and must report
	resting           // cooling, but a single request may try when nothing else is left
	closed
)

// state says whether the upstream may be asked for a model. wait is how long it still wants to be left alone.
func (h *health) state(model string, now time.Time) (r readiness, wait time.Duration, c cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, cool := range []*cooldown{&h.whole, h.models[model]} {
		if !cool.active() {
			continue
		}
		each, left := ready, cool.until.Sub(now)
		switch {
		case cool.probed(now):
			each, left = closed, max(left, time.Second)
		case left <= 0:
			each = probing
		case cool.strict:
			each = closed
		default:
			each = resting
		}
		if each > r {
			r, wait, c = each, max(left, 0), cool.cause
		}
	}
	return r, wait, c
}

// claim takes the place of the one request that finds out, if state still allows any, else it returns nil. A claim ends with
// report or release, or lapses after probeTime.
func (h *health) claim(model string, now time.Time, desperate bool) *probe {
	h.mu.Lock()
	defer h.mu.Unlock()
	cools := []*cooldown{&h.whole, h.models[model]}
	for _, cool := range cools {
		if cool.active() && (cool.probed(now) || cool.until.After(now) && (cool.strict || !desperate)) {
			return nil
		}
	}
	p := &probe{at: now}
	for _, cool := range cools {
		if cool.active() {
			cool.probe = p
		}
	}
	return p
}

// release ends a claim that found out nothing, because the client left or the request itself was at fault. It does nothing
// to a claim that is over, or for a request without one.
func (h *health) release(model string, p *probe) {
	if p == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endProbe(model, p)
}

func (h *health) endProbe(model string, p *probe) {
	for _, cool := range []*cooldown{&h.whole, h.models[model]} {
		if cool != nil && cool.probe == p {
			cool.probe = nil
		}
	}
}

// succeeded notes an answer that shows the upstream and the model at work.
func (h *health) succeeded(model string, t turn, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.ends(&h.whole) {
		h.whole = cooldown{}
	}
	if t.ends(h.models[model]) {
		delete(h.models, model)
	}
	h.endProbe(model, t.probe)
	h.served, h.forbidden = true, 0
	if !t.aside {
		h.sample(sample{at: now})
	}
}

// broke notes that an answer which had begun was cut. It was counted as a success then, which it is no more.
func (h *health) broke(model string, o *outcome, now time.Time, spread float64) bool {
	h.mu.Lock()
	for i, s := range slices.Backward(h.window) {
		if !s.failed {
			h.window = slices.Delete(h.window, i, i+1)
			break
		}
	}
	h.mu.Unlock()
	return h.report(model, turn{start: now}, o, now, spread)
}

// report notes a failed attempt, and returns true when the upstream, or its model, is left alone from now on.
func (h *health) report(model string, t turn, o *outcome, now time.Time, spread float64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The attempt may have been the probe of both, whichever of them its failure is about.
	h.endProbe(model, t.probe)
	if o.cause == causeFull || o.cause == causeCooling || o.cause == causeCapability || !t.shows(o.cause) {
		return false
	}
	if o.forbidden && h.served {
		// It may be about one model or one beta that a developer asked for; that must not take the upstream from all others.
		if h.forbidden++; h.forbidden < refusedCredential {
			return false
		}
	}
	of := &h.whole
	if o.cause == causeOverloaded || o.cause == causeModel || o.cause == causeRate {
		of = h.model(model)
	}
	wasCooling := of.active()
	h.sample(sample{at: now, failed: true, connect: o.cause == causeConnect})
	if (o.cause == causeConnect || o.cause == causeTimeout || o.cause == causeServer || o.cause == causeBroken) && !wasCooling && !h.broken() {
		return false
	}
	length, strict := length(o, of.last)
	if of.strict && of.until.After(now) && (!strict || now.Add(length).Before(of.until)) {
		return false // an older request's lesser trouble neither shortens nor softens it
	}
	of.last = length
	if !strict {
		length = time.Duration(float64(length) * (0.8 + 0.4*spread))
	}
	of.cause, of.since, of.until, of.strict = o.cause, now, now.Add(length), strict
	return !wasCooling
}

// length is how long to leave an upstream alone after a failure, given how long it was left alone the last time.
func length(o *outcome, last time.Duration) (d time.Duration, strict bool) {
	doubled := func(first, most time.Duration) time.Duration { return min(max(2*last, first), most) }
	switch o.cause {
	case causeRate:
		if o.wait > 0 {
			return min(o.wait, coolRateMost), true
		}
		return doubled(coolRateBlind, coolMost), false
	case causeCredential:
		return doubled(coolCredential, coolRefused), true
	case causePayment:
		return coolPayment, true
	case causeSpend:
		return coolSpend, true
	case causeModel:
		return coolModel, false
	default:
	}
	return max(doubled(coolFirst, coolMost), min(o.wait, coolMost)), false
}

// Cooling is why an upstream, or a model of it, is left alone, and for how long still.
type Cooling struct {
	Upstream string
	Model    string // as it is sent; "" for the whole upstream
	Cause    string
	Left     time.Duration
}

// cooling lists why the upstream, or a model of it, is left alone now, the whole upstream first.
func (h *health) cooling(now time.Time) []Cooling {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []Cooling
	add := func(model string, c *cooldown) {
		if c.active() && c.until.After(now) {
			all = append(all, Cooling{Model: model, Cause: string(c.cause), Left: c.until.Sub(now)})
		}
	}
	add("", &h.whole)
	for _, model := range slices.Sorted(maps.Keys(h.models)) {
		add(model, h.models[model])
	}
	return all
}

func (h *health) model(name string) *cooldown {
	if h.models == nil {
		h.models = map[string]*cooldown{}
	}
	if h.models[name] == nil {
		if len(h.models) > 256 { // names come from clients
			clear(h.models)
		}
		h.models[name] = &cooldown{}
	}
	return h.models[name]
}

func (h *health) sample(s sample) {
	fresh := h.window[:0]
	for _, old := range h.window {
		if s.at.Sub(old.at) < breakWindow {
			fresh = append(fresh, old)
		}
	}
	if len(fresh) >= 64 {
		fresh = append(fresh[:0], fresh[1:]...)
	}
	h.window = append(fresh, s)
}

// broken reports whether the recent past opens the circuit.
func (h *health) broken() bool {
	failures, connects := 0, 0
	for _, s := range h.window {
		if s.failed {
			failures++
		}
		if s.connect {
			connects++
		}
	}
	return connects >= breakConnects || len(h.window) >= breakRequests && 2*failures > len(h.window)
}

// share is the factor by which headroom scales the chance of being chosen.
func (h *health) share(now time.Time) float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	const plenty = 0.2
	if now.After(h.leftUntil) || h.left >= plenty {
		return 1
	}
	return h.left / plenty
}

// noteHead takes over what an answer's fields say of the credential: its organisation and what is left of its rates.
func (h *health) noteHead(head wire.Head) {
	left, until, told := headroom(head)
	organization := head.Get("Anthropic-Organization-Id")
	h.mu.Lock()
	defer h.mu.Unlock()
	if told {
		h.left, h.leftUntil = left, until
	}
	if organization != "" {
		h.organization = organization
	}
}

func (h *health) org() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.organization
}

// identity is what makes an upstream another one: what was learnt of it is void when it changes.
type identity struct{ baseURL, credential string }

func identityOf(u *policy.Upstream) identity { return identity{u.BaseURL, u.Credential.Reveal()} }

package quota

import "time"

// Rate admits a number of units, requests or tokens, per minute. It is a bucket that holds one minute's units and refills
// steadily, kept as the time at which it would be full again (the generic cell rate algorithm), so an idle Rate costs
// nothing.
//
// The zero Rate admits everything.
type Rate struct {
	perMinute int64
	fullAt    time.Time
	seen      time.Time // the last time there was, by which a clock that was set back is noticed
}

const (
	maxDebt = 10 * time.Minute      // see Correct
	maxSpan = 1000 * 24 * time.Hour // keeps sums of spans from overflowing
)

// NewRate returns a Rate with a full bucket; perMinute 0 or less admits everything.
func NewRate(perMinute int64) Rate { return Rate{perMinute: perMinute} }

// PerMinute returns the rate, 0 when there is none.
func (r *Rate) PerMinute() int64 { return max(r.perMinute, 0) }

// SetPerMinute changes the rate at now. Units that were taken from the bucket and have not come back yet stay taken.
func (r *Rate) SetPerMinute(now time.Time, perMinute int64) {
	if perMinute == r.perMinute {
		return
	}
	if r.perMinute <= 0 || perMinute <= 0 {
		*r = NewRate(perMinute)
		return
	}
	taken := int64((r.debt(now) + r.unit() - 1) / r.unit())
	*r = NewRate(perMinute)
	r.fullAt, r.seen = now.Add(min(r.span(taken), maxDebt)), now
}

// unit is the time in which one unit comes back.
func (r *Rate) unit() time.Duration { return max(time.Minute/time.Duration(r.perMinute), 1) }

// span is the time in which n units come back, at most maxSpan.
func (r *Rate) span(n int64) time.Duration {
	unit := r.unit()
	return unit * time.Duration(min(n, int64(maxSpan/unit)))
}

// debt is the time after which the bucket will be full.
func (r *Rate) debt(now time.Time) time.Duration {
	if now.Before(r.seen) { // a clock that was set back must not lock the caller out
		r.fullAt = r.fullAt.Add(now.Sub(r.seen))
	}
	r.seen = now
	return max(r.fullAt.Sub(now), 0)
}

// Wait returns after what time n units can be taken, 0 for now. More than the whole bucket can be taken when it is full;
// nothing can be taken from a bucket that is overdrawn, not even 0.
func (r *Rate) Wait(now time.Time, n int64) time.Duration {
	if r.perMinute <= 0 {
		return 0
	}
	return max(r.debt(now)+r.span(min(max(n, 0), r.perMinute))-r.span(r.perMinute), 0)
}

// Take takes n units at now, or says after what time they can be taken: a Take at now+retryAfter succeeds unless something
// else was taken in between. A refused Take takes nothing.
func (r *Rate) Take(now time.Time, n int64) (ok bool, retryAfter time.Duration) {
	if wait := r.Wait(now, n); wait > 0 {
		return false, wait
	}
	if r.perMinute > 0 {
		r.fullAt = now.Add(r.debt(now) + r.span(max(n, 0)))
	}
	return true, 0
}

// Allow takes one unit.
func (r *Rate) Allow(now time.Time) (ok bool, retryAfter time.Duration) { return r.Take(now, 1) }

// Correct makes true what was taken before: it takes n further units whether they are there or not, or, when n is negative,
// gives units back. A bucket that is overdrawn admits nothing until it has refilled, which takes ten minutes at most.
func (r *Rate) Correct(now time.Time, n int64) {
	if r.perMinute <= 0 || n == 0 {
		return
	}
	debt := r.debt(now)
	if n > 0 {
		debt += r.span(n)
	} else {
		debt -= r.span(-n)
	}
	r.fullAt = now.Add(min(max(debt, 0), maxDebt))
}

// Idle reports whether the bucket is full at now, so that the Rate may be forgotten and made anew without a difference.
func (r *Rate) Idle(now time.Time) bool { return r.perMinute <= 0 || r.debt(now) == 0 }

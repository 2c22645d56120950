package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"carpool/internal/policy"
	"carpool/internal/quota"
)

// Opening is what is known of an exchange at its admission.
type Opening struct {
	// Entry holds the identity: ID (required), StartedAt (zero: now), User, Team, KeyID, KeyName, Endpoint, Stream,
	// ModelAsked. Further fields are kept for the case of a crash.
	Entry Entry

	Daily, Monthly int64          // limits in tokens, policy.Unlimited for none
	Location       *time.Location // time zone of the windows; nil is UTC
	Tokens         int64          // to reserve, as the quota counts; 0 is never refused
	// InputEstimate is the request's input in tokens. If the process dies before the settlement, the next Open settles
	// the exchange with this input, no output and the mark Estimated.
	InputEstimate int64
	Formula       policy.Formula // makes quota tokens of the usage at settlement
}

// Denied says which quota refused a request. Where both did, a refusal that lasts wins over a temporary one, then the
// window that resets last.
type Denied struct {
	Window                       quota.Window
	Limit, Used, Reserved, Asked int64
	ResetsAt                     time.Time // UTC
	// Temporary means that the request fits into what is settled: only requests in flight hold the rest, of which they
	// usually need a part, so that another try in seconds may succeed.
	Temporary bool
}

// Error implements error.
func (d *Denied) Error() string {
	return fmt.Sprintf("%s quota exceeded: %d tokens asked, %d used and %d reserved of %d, resets at %s",
		d.Window, d.Asked, d.Used, d.Reserved, d.Limit, d.ResetsAt.Format(time.RFC3339))
}

// reservation is what an exchange holds.
type reservation struct {
	tokens         int64
	daily, monthly quota.Period
	accounts       [2]*account // daily, monthly; nil for an exchange that crashed
}

// Exchange is an admitted request that waits for its settlement. It holds what both its records need.
type Exchange struct {
	ledger     *Ledger
	entry      Entry // as it was opened
	formula    policy.Formula
	opening    opening
	settlement settlement
	ticket     ticket // of one after the other

	once sync.Once
	err  error
}

// Reserve admits a request: it takes Tokens from both windows or from none, and returns once that is committed. The
// error is *Denied, ErrUnavailable, or that of ctx, and then nothing is held. When ctx ends while the commit is already
// under way, the exchange is admitted all the same. Every exchange returned must be settled.
func (l *Ledger) Reserve(ctx context.Context, o Opening) (*Exchange, error) {
	if o.Entry.ID == "" {
		return nil, errors.New("cannot open an exchange without an id")
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot open an exchange: %w", err)
	}
	now := l.now()
	if o.Entry.StartedAt.IsZero() {
		o.Entry.StartedAt = now
	}
	// Stored times have microseconds; an entry should not change by being stored.
	o.Entry.StartedAt = o.Entry.StartedAt.UTC().Truncate(time.Microsecond)
	o.Entry.Node = l.node
	x := &Exchange{ledger: l, entry: o.Entry, formula: o.Formula}
	if err := l.hold(x, &o, now); err != nil {
		return nil, err
	}
	if err := l.note(ctx, x, &o); err != nil {
		l.mu.Lock()
		x.settlement.release()
		l.mu.Unlock()
		return nil, fmt.Errorf("cannot open an exchange: %w", err)
	}
	return x, nil
}

// note has the opening written.
func (l *Ledger) note(ctx context.Context, x *Exchange, o *Opening) error {
	e, r := &x.entry, &x.settlement.reservation
	if len(e.Usage) > 0 && !json.Valid(e.Usage) {
		return errors.New("its usage is not JSON")
	}
	estimate := quota.Clamp(o.InputEstimate)
	crashed := *e
	crashed.InputTokens = estimate
	frame := l.writer.frames.get()
	var err error
	if frame.b, err = openingFrame(frame.b[:0], &leftover{
		id: e.ID, user: e.User, daily: r.daily, monthly: r.monthly,
		reserved: r.tokens, estimate: estimate, charge: charge(o.Formula, &crashed),
	}, e); err != nil {
		return err
	}
	x.opening = opening{id: e.ID, frame: frame}
	x.ticket.op = &x.opening
	return l.writer.write(ctx, &x.ticket)
}

// hold decides, and reserves in memory.
func (l *Ledger) hold(x *Exchange, o *Opening, now time.Time) error {
	user, asked := o.Entry.User, quota.Clamp(o.Tokens)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.books.at(now, o.Location)
	day := l.books.account(user, quota.Daily, p.daily)
	month := l.books.account(user, quota.Monthly, p.monthly)
	day.Limit, month.Limit = o.Daily, o.Monthly
	x.settlement.reservation = reservation{asked, p.daily, p.monthly, [2]*account{day, month}}
	refused := quota.Reserve(asked, &day.Account, &month.Account)
	if refused == nil {
		return nil
	}
	l.gauges.denied()
	var denied *Denied
	for _, i := range refused {
		w, a := quota.Windows()[i], x.settlement.accounts[i]
		d := &Denied{
			Window: w, Limit: a.Limit, Used: a.Used, Reserved: a.Reserved, Asked: asked,
			ResetsAt: a.ends.UTC(), Temporary: a.FitsSettled(asked),
		}
		if denied == nil || denied.Temporary && !d.Temporary || denied.Temporary == d.Temporary && d.ResetsAt.After(denied.ResetsAt) {
			denied = d
		}
	}
	return denied
}

// release gives the reservation back; the Ledger's lock is held.
func (r *reservation) release() {
	for _, a := range r.accounts {
		if a != nil {
			a.Release(r.tokens)
		}
	}
}

// Entry returns the opening's entry, to be completed for Settle.
func (x *Exchange) Entry() Entry { return x.entry }

// Settle ends the exchange with its final entry and returns once that is committed. Its identity fields are those of the
// Opening whatever final says; Node, Seq and QuotaTokens are set here. It waits for no context, because what was spent is
// spent even when nobody listens any more.
//
// On ErrUnavailable the entry is kept in memory and written as soon as the ledger can write again; until then the
// reservation is held. A second call does nothing and returns what the first did.
func (x *Exchange) Settle(final Entry) error {
	x.once.Do(func() {
		if err := x.settle(&final); err != nil {
			x.err = fmt.Errorf("cannot settle exchange %s: %w", x.entry.ID, err)
		}
	})
	return x.err
}

func (x *Exchange) settle(final *Entry) error {
	o := &x.entry
	final.Node, final.Seq, final.ID, final.StartedAt = o.Node, 0, o.ID, o.StartedAt
	final.User, final.Team, final.KeyID, final.KeyName = o.User, o.Team, o.KeyID, o.KeyName
	final.Endpoint, final.Stream, final.ModelAsked = o.Endpoint, o.Stream, o.ModelAsked
	if len(final.Usage) > 0 && !json.Valid(final.Usage) {
		final.Usage = nil // would make the whole entry unreadable
	}
	final.QuotaTokens = charge(x.formula, final)
	s := &x.settlement
	s.entry, s.frame = final, x.ledger.writer.frames.get()
	frame, body, err := settlementFrame(s.frame.b[:0], &s.reservation, s.entry)
	if err != nil {
		return err
	}
	s.frame.b, s.body = frame, frame[body:]
	x.ticket = ticket{op: s, wake: x.ticket.wake}
	return x.ledger.writer.write(context.Background(), &x.ticket)
}

// charge returns what an exchange costs its quota. Counting tokens is free.
func charge(f policy.Formula, e *Entry) int64 {
	if e.Endpoint == EndpointCountTokens {
		return 0
	}
	write := quota.Clamp(quota.Clamp(e.CacheWrite5mTokens) + quota.Clamp(e.CacheWrite1hTokens))
	n := f.Tokens(quota.Clamp(e.InputTokens), quota.Clamp(e.OutputTokens), quota.Clamp(e.CacheReadTokens), write)
	if n < 0 { // absurd weights overflowed
		n = quota.MaxTokens
	}
	return quota.Clamp(n)
}

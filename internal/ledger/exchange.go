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
	// InputEstimate is the request's input in tokens. If the process dies before a checkpoint or the settlement, the next
	// Open settles the exchange with this input, no output and the mark Estimated.
	InputEstimate int64
	Formula       policy.Formula // makes quota tokens of the usage at settlement

	Claims []Claim // on budgets; they are reserved together with the quota
}

// Denied says which quota or budget refused a request. Where several did, a refusal that lasts wins over a temporary one,
// then the window that resets last.
type Denied struct {
	Window                       quota.Window   // of a quota
	Budget                       *policy.Budget // nil: it is a quota
	Subject                      string         // whose part of the budget, as a policy.Scope is written
	Limit, Used, Reserved, Asked int64          // tokens, or in the budget's unit
	ResetsAt                     time.Time      // UTC
	// Temporary means that the request fits into what is settled: only requests in flight hold the rest, of which they
	// usually need a part, so that another try in seconds may succeed.
	Temporary bool
}

// Error implements error.
func (d *Denied) Error() string {
	if b := d.Budget; b != nil {
		amount := func(n int64) string { return policy.FormatAmount(n, b.Unit) }
		return fmt.Sprintf("budget %s of %s exceeded: %s asked, %s used and %s reserved of %s, resets at %s",
			b.Name, d.Subject, amount(d.Asked), amount(d.Used), amount(d.Reserved), amount(d.Limit), d.ResetsAt.Format(time.RFC3339))
	}
	return fmt.Sprintf("%s quota exceeded: %d tokens asked, %d used and %d reserved of %d, resets at %s",
		d.Window, d.Asked, d.Used, d.Reserved, d.Limit, d.ResetsAt.Format(time.RFC3339))
}

// or returns which of two refusals, each of which may be nil, says more.
func (d *Denied) or(other *Denied) *Denied {
	if d == nil || other != nil && (d.Temporary && !other.Temporary || d.Temporary == other.Temporary && other.ResetsAt.After(d.ResetsAt)) {
		return other
	}
	return d
}

// reservation is what an exchange holds.
type reservation struct {
	tokens         int64
	daily, monthly quota.Period
	accounts       [2]*account // daily, monthly; nil for an exchange that crashed
	charges        []charge    // to budgets
}

// Exchange is an admitted request that waits for its settlement. It holds what both its records need.
type Exchange struct {
	ledger     *Ledger
	entry      Entry // as it was opened
	formula    policy.Formula
	fullest    Fill
	limited    bool // fullest is of something
	opening    opening
	settlement settlement
	ticket     ticket // of one after the other

	once sync.Once
	err  error
}

// Reserve admits a request: it takes Tokens from both windows and its Claims from all budgets, or nothing from any, and
// returns once that is committed. The error is *Denied, ErrUnavailable, or that of ctx, and then nothing is held. When
// ctx ends while the commit is already under way, the exchange is admitted all the same. Every exchange returned must be
// settled.
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
	e := &x.entry
	if len(e.Usage) > 0 && !json.Valid(e.Usage) {
		return errors.New("its usage is not JSON")
	}
	crashed := *e
	crashed.InputTokens = o.InputEstimate
	frame, err := x.ifCrashed(&crashed)
	if err != nil {
		return err
	}
	x.opening.id, x.opening.frame = e.ID, frame
	x.ticket.op = &x.opening
	return l.writer.write(ctx, &x.ticket)
}

// ifCrashed makes the record by which the next Open settles the exchange with e, if there is no later one.
func (x *Exchange) ifCrashed(e *Entry) (*buffer, error) {
	r, frames := &x.settlement.reservation, &x.ledger.writer.frames
	frame := frames.get()
	b, err := openingFrame(frame.b[:0], &leftover{
		id: e.ID, user: e.User, daily: r.daily, monthly: r.monthly,
		reserved: r.tokens, estimate: quota.Clamp(e.InputTokens), charge: quotaTokens(x.formula, e), charges: r.charges,
	}, e)
	if err != nil {
		frames.put(frame)
		return nil, err
	}
	frame.b = b
	return frame, nil
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
	x.settlement.reservation = reservation{tokens: asked, daily: p.daily, monthly: p.monthly, accounts: [2]*account{day, month}}
	denied := l.refusal(x.settlement.accounts, asked)
	for i := range o.Claims {
		denied = denied.or(l.books.pot(o.Claims[i].Account).consider(&o.Claims[i], now))
	}
	if denied != nil {
		l.gauges.denied(denied)
		return denied
	}
	for _, a := range x.settlement.accounts {
		if !a.Unlimited() {
			x.fill(Fill{Share: share(a.Used, a.Limit), ResetsAt: a.ends.UTC()})
		}
	}
	quota.Reserve(asked, &day.Account, &month.Account)
	if len(o.Claims) > 0 {
		l.holdBudgets(x, o.Claims, now)
	}
	return nil
}

// refusal returns why tokens do not fit into the windows of a quota, or nil.
func (l *Ledger) refusal(windows [2]*account, asked int64) (denied *Denied) {
	for i, a := range windows {
		if a.Fits(asked) {
			continue
		}
		denied = denied.or(&Denied{
			Window: quota.Windows()[i], Limit: a.Limit, Used: a.Used, Reserved: a.Reserved, Asked: asked,
			ResetsAt: a.ends.UTC(), Temporary: a.FitsSettled(asked),
		})
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
	for i := range r.charges {
		if h := r.charges[i].held; h != nil {
			h.slot.Release(h.amount)
		}
	}
}

// Entry returns the opening's entry, to be completed for Settle.
func (x *Exchange) Entry() Entry { return x.entry }

// Checkpoint notes what the exchange has cost so far: if the process dies before the settlement, the next Open settles it
// with this entry in place of what the Opening said. Its identity fields and QuotaTokens are set as by Settle, and the mark
// Estimated at the Open. A later call counts instead of the one before.
//
// It waits for nothing and makes no write of its own: the note goes out with the next write for any exchange, or 100 ms
// later when there is none, and never when the exchange settles before. A journal that cannot be written gets it only when
// it goes on in a new segment. It must not run at the same time as Settle; after it, it does nothing.
func (x *Exchange) Checkpoint(known Entry) {
	if x.settlement.entry != nil {
		return
	}
	x.identify(&known)
	if frame, err := x.ifCrashed(&known); err == nil { // as the opening's, it has a year that can be encoded
		x.ledger.writer.note(&x.opening, frame)
	}
}

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
	x.identify(final)
	x.ledger.writer.unnote(&x.opening)
	s := &x.settlement
	for i := range s.charges {
		s.charges[i].amount = Spent(s.charges[i].unit(), final)
	}
	s.entry, s.frame = final, x.ledger.writer.frames.get()
	frame, body, err := settlementFrame(s.frame.b[:0], &s.reservation, s.entry)
	if err != nil {
		return err
	}
	s.frame.b, s.body = frame, frame[body:]
	x.ticket = ticket{op: s, wake: x.ticket.wake}
	return x.ledger.writer.write(context.Background(), &x.ticket)
}

// identify sets in an entry what the opening or the ledger has the say in.
func (x *Exchange) identify(e *Entry) {
	o := &x.entry
	e.Node, e.Seq, e.ID, e.StartedAt = o.Node, 0, o.ID, o.StartedAt
	e.User, e.Team, e.KeyID, e.KeyName = o.User, o.Team, o.KeyID, o.KeyName
	e.Endpoint, e.Stream, e.ModelAsked = o.Endpoint, o.Stream, o.ModelAsked
	if len(e.Usage) > 0 && !json.Valid(e.Usage) {
		e.Usage = nil // would make the whole entry unreadable
	}
	e.QuotaTokens = quotaTokens(x.formula, e)
}

// quotaTokens returns what an exchange costs its quota. Counting tokens is free.
func quotaTokens(f policy.Formula, e *Entry) int64 {
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

package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/price"
	"carpool/internal/quota"
)

// Claim is what a request reserves of a budget, in the budget's unit: the most that it can use, or what it will probably use.
type Claim struct {
	policy.Account
	Amount int64
}

// Spent returns what an entry costs a budget: micro-dollars, or its tokens of all classes. Counting tokens is free.
func Spent(unit policy.Unit, e *Entry) int64 {
	if e.Endpoint == EndpointCountTokens {
		return 0
	}
	if unit == policy.Dollars {
		return min(max(e.Cost, 0), price.MaxCost)
	}
	var sum int64
	for _, n := range [...]int64{e.InputTokens, e.OutputTokens, e.CacheReadTokens, e.CacheWrite5mTokens, e.CacheWrite1hTokens} {
		sum += quota.Clamp(n)
	}
	return sum
}

// slotKey names a counter of the table budget_counters.
type slotKey struct{ budget, subject, series, label string }

// charge is an exchange's part in a budget: first what it reserved, then what it used.
type charge struct {
	slotKey
	ends   time.Time
	amount int64

	held  *held  // nil for an exchange of a process that died
	start string // of what appendCharges writes, if it is known
}

// held is where a charge is in memory.
type held struct {
	pot    *pot
	slot   *quota.Slot
	amount int64
}

// pot is what was spent of a budget by one subject, in memory.
type pot struct {
	quota.Pot
	budget *policy.Budget // as the last request knew it; nil: none came yet
	last   charge         // of the last request
}

// rollingGrace is how long a slot that a rolling window has left is kept in memory: a clock that is set back can bring it in
// again. There are sixty to a window, and every request sums them up.
const rollingGrace = 2 * time.Hour

type potKey struct{ budget, subject, series string }

func keyOf(a policy.Account) potKey { return potKey{a.Name, a.Subject, a.Series} }

// pot returns a subject's pot, and makes it when there is none.
func (b *books) pot(a policy.Account) *pot {
	key := keyOf(a)
	p := b.pots[key]
	if p == nil {
		p = &pot{}
		b.pots[key] = p
	}
	p.budget = a.Budget
	return p
}

// consider returns why a claim does not fit, or nil. A fair budget of which something is left admits what is expected to
// cost more than all of it: otherwise nothing would ever be admitted.
func (p *pot) consider(c *Claim, now time.Time) *Denied {
	if c.Soft {
		return nil
	}
	limit, asked := c.Limit(), c.asked()
	used, reserved := p.Sum(c.Span, now)
	if quota.Room(limit, used, reserved, asked) {
		return nil
	}
	return &Denied{
		Budget: c.Budget, Subject: c.Subject, Limit: limit, Used: used, Reserved: reserved, Asked: asked,
		ResetsAt: p.ResetsAt(c.Span, now, quota.Add(used, max(asked, 1))-limit).UTC(), Temporary: quota.Room(limit, used, 0, asked),
	}
}

// asked is what a claim reserves. Less than nothing is a sum that has overflowed: more than all.
func (c *Claim) asked() int64 {
	n := c.Amount
	if n < 0 {
		n = math.MaxInt64
	}
	switch {
	case c.Soft: // refuses nothing, whatever is asked for, and the sum of what is held must stay one
		return min(n, quota.MaxTokens)
	case !c.Strict:
		return min(n, c.Limit())
	}
	return n
}

// take reserves a claim, which fits.
func (p *pot) take(c *Claim, now time.Time) charge {
	at := p.Now(c.Span, now)
	if p.last.label != at.Label || !p.last.ends.Equal(at.End) {
		if c.Span.Rolling {
			p.Forget(now.Add(-rollingGrace))
		}
		p.last = charge{slotKey: slotKey{c.Name, c.Subject, c.Series, at.Label}, ends: at.End}
		p.last.start = string(p.last.appendStart(nil))
	}
	next := p.last
	next.amount = c.asked()
	next.held = &held{p, p.Open(at.Label, at.End), next.amount}
	next.held.slot.Reserve(next.amount)
	return next
}

// BudgetUse is how much of a budget is used.
type BudgetUse struct {
	policy.Account
	Used, Reserved int64
	ResetsAt       time.Time // UTC; quota.Never when it does not
}

// Share is the used part of the amount.
func (u *BudgetUse) Share() float64 {
	return share(u.Used, u.Amount)
}

func share(used, limit int64) float64 {
	if limit <= 0 {
		return 1
	}
	return float64(used) / float64(limit)
}

func (p *pot) use(a policy.Account, now time.Time) BudgetUse {
	used, reserved := p.Sum(a.Span, now)
	return BudgetUse{a, used, reserved, p.ResetsAt(a.Span, now, 1).UTC()}
}

// holdBudgets reserves claims, which fit. The Ledger's lock is held.
func (l *Ledger) holdBudgets(x *Exchange, claims []Claim, now time.Time) {
	charges := make([]charge, len(claims))
	for i := range claims {
		p := l.books.pot(claims[i].Account)
		use := p.use(claims[i].Account, now)
		x.fill(Fill{use.Share(), use.Threshold(use.Used) > 0, use.ResetsAt})
		charges[i] = p.take(&claims[i], now)
	}
	x.settlement.charges = charges
}

// Fill is how full a budget or a window of a quota is.
type Fill struct {
	Share    float64   // the used part of it
	Warn     bool      // it has reached a threshold of the operator's
	ResetsAt time.Time // UTC; quota.Never when it does not
}

// fill takes in how full one of the exchange's limits is.
func (x *Exchange) fill(f Fill) {
	if !x.limited || f.Share > x.fullest.Share {
		x.fullest, x.limited = f, true
	}
}

// Fullest returns how full that budget or window of the quota was of which the largest part was used when the exchange was admitted. limited
// says whether it has any.
func (x *Exchange) Fullest() (f Fill, limited bool) { return x.fullest, x.limited }

// Budget returns the use of a budget by all subjects that the books know; one that is nobody's yet has its scope.
func (l *Ledger) Budget(b *policy.Budget) []BudgetUse {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !b.PerMember {
		a := policy.Account{Budget: b, Subject: b.Scope.String()}
		p := l.books.pots[keyOf(a)]
		if p == nil {
			p = &pot{}
		}
		return []BudgetUse{p.use(a, now)}
	}
	var uses []BudgetUse
	for key, p := range l.books.pots {
		if key.budget == b.Name && key.series == b.Series && strings.HasPrefix(key.subject, policy.ScopeUser+"/") {
			uses = append(uses, p.use(policy.Account{Budget: b, Subject: key.subject}, now))
		}
	}
	return uses
}

// spend replaces what is reserved by what was used, and returns what became of thresholds. The Ledger's lock is held.
func (c *charge) spend(now time.Time) *BudgetUse {
	h := c.held
	if h == nil {
		return nil
	}
	b := h.pot.budget
	of := func() int64 {
		if b.Span.Rolling {
			used, _ := h.pot.Sum(b.Span, now)
			return used
		}
		return h.slot.Used
	}
	before := of()
	h.slot.Settle(h.amount, c.amount)
	after := of()
	if b.Threshold(after) <= b.Threshold(before) {
		return nil
	}
	return &BudgetUse{Account: policy.Account{Budget: b, Subject: c.subject}, Used: after, ResetsAt: c.ends.UTC()}
}

// warn says once per window that a budget has reached a threshold.
func (l *Ledger) warn(u *BudgetUse) {
	l.gauges.warnings.WithLabelValues(u.Name).Inc()
	args := []any{
		slog.String("budget", u.Name), slog.String("of", u.Subject), slog.Int("percent", u.Threshold(u.Used)),
		slog.String("used", policy.FormatAmount(u.Used, u.Unit)), slog.String("amount", policy.FormatAmount(u.Amount, u.Unit)),
	}
	if u.ResetsAt.Before(quota.Never()) {
		args = append(args, slog.Time("resetsAt", u.ResetsAt))
	}
	l.log.Warn("a budget is used up to a threshold", args...)
}

// noCharges is how charges are stored when there are none.
const noCharges = "[]"

// appendCharges appends charges as they are stored.
func appendCharges(b []byte, charges []charge) []byte {
	b = append(b, '[')
	for i := range charges {
		c := &charges[i]
		if i > 0 {
			b = append(b, ',')
		}
		if c.start != "" {
			b = append(b, c.start...)
		} else {
			b = c.appendStart(b)
		}
		b = append(strconv.AppendInt(b, c.amount, 10), ']')
	}
	return append(b, ']')
}

// appendStart appends a charge as it is stored, up to its amount.
func (c *charge) appendStart(b []byte) []byte {
	w := body{append(b, '[')}
	for _, text := range [...]string{c.budget, c.subject, c.series, c.label} {
		w.quote(text)
		w.b = append(w.b, ',')
	}
	return append(strconv.AppendInt(w.b, c.ends.Unix(), 10), ',')
}

func readCharges(text string) ([]charge, error) {
	if text == noCharges {
		return nil, nil
	}
	var rows [][6]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&rows); err != nil {
		return nil, fmt.Errorf("cannot decode charges: %w", err)
	}
	charges := make([]charge, len(rows))
	for i, row := range rows {
		c := &charges[i]
		for j, to := range [...]*string{&c.budget, &c.subject, &c.series, &c.label} {
			*to, _ = row[j].(string)
		}
		ends, _ := row[4].(json.Number)
		amount, _ := row[5].(json.Number)
		at, err := ends.Int64()
		if err == nil {
			c.amount, err = amount.Int64()
		}
		if err != nil || c.budget == "" || c.label == "" {
			return nil, fmt.Errorf("cannot decode charges: %w", errRecord)
		}
		c.ends = time.Unix(at, 0)
	}
	return charges, nil
}

// unit is what a charge is counted in.
func (c *charge) unit() policy.Unit {
	unit, _, _ := strings.Cut(c.series, " ")
	return policy.Unit(unit)
}

// loadBudgets reads the counters of slots that are not long over.
func (l *Ledger) loadBudgets(ctx context.Context) error {
	const query = `SELECT budget, subject, series, label, ends_at, used FROM budget_counters WHERE ends_at > ?`
	rows, err := l.file.read.QueryContext(ctx, query, l.now().Add(-grace).Unix())
	if err != nil {
		return fmt.Errorf("cannot read the budgets' counters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key potKey
		var label string
		var ends, used int64
		if err := rows.Scan(&key.budget, &key.subject, &key.series, &label, &ends, &used); err != nil {
			return fmt.Errorf("cannot read the budgets' counters: %w", err)
		}
		p := l.books.pots[key]
		if p == nil {
			p = &pot{}
			l.books.pots[key] = p
		}
		p.Open(label, time.Unix(ends, 0)).Used = used
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("cannot read the budgets' counters: %w", err)
	}
	return nil
}

// BudgetUsage is Budget as control wants it.
func (l *Ledger) BudgetUsage(b *policy.Budget) []fleet.BudgetUsage {
	uses := l.Budget(b)
	usage := make([]fleet.BudgetUsage, len(uses))
	for i, u := range uses {
		usage[i] = fleet.BudgetUsage{Subject: u.Subject, Used: u.Used, Reserved: u.Reserved, ResetsAt: u.ResetsAt}
	}
	return usage
}

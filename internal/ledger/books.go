package ledger

import (
	"context"
	"fmt"
	"time"

	"carpool/internal/quota"
)

// grace is how long the account of a past window is kept in memory: a clock that is set back, or a time zone that is
// changed, can make the window current again.
const grace = 26 * time.Hour

// books are the accounts in memory; the Ledger's lock guards them. Used changes only after a commit, by whoever leads the
// writer or, while that waits, by the mover, and in the order of the commits, so that memory and file never disagree for
// longer than a moment.
type books struct {
	accounts map[accountKey]*account
	pots     map[potKey]*pot // of budgets
	current  periods
	swept    time.Time
}

type accountKey struct {
	user   string
	window quota.Window
	label  string
}

// account is one window of one user. Its Limit is that of the latest request.
type account struct {
	quota.Account
	ends time.Time
}

// periods are the windows at a moment in a time zone.
type periods struct {
	zone           *time.Location
	daily, monthly quota.Period
}

func newBooks() books {
	return books{accounts: make(map[accountKey]*account), pots: make(map[potKey]*pot)}
}

// at returns the windows that now lies in, and now and then drops the accounts of windows that are long over.
func (b *books) at(now time.Time, loc *time.Location) periods {
	if loc == nil {
		loc = time.UTC
	}
	if c := b.current; c.zone == loc && c.daily.Contains(now) && c.monthly.Contains(now) {
		return c
	}
	b.current = periods{loc, quota.Daily.Period(now, loc), quota.Monthly.Period(now, loc)}
	if now.Sub(b.swept).Abs() < time.Hour {
		return b.current
	}
	b.swept = now
	for key, a := range b.accounts {
		if a.Reserved == 0 && now.Sub(a.ends) > grace {
			delete(b.accounts, key)
		}
	}
	for key, p := range b.pots {
		if !p.Forget(now.Add(-grace)) {
			delete(b.pots, key)
		}
	}
	return b.current
}

// account returns a user's account of a window, and opens it when the user has none.
func (b *books) account(user string, w quota.Window, p quota.Period) *account {
	key := accountKey{user, w, p.Label}
	a := b.accounts[key]
	if a == nil {
		a = &account{}
		b.accounts[key] = a
	}
	a.ends = p.End
	return a
}

// reset sets accounts of a window to nothing used; no users means all.
func (b *books) reset(users []string, w quota.Window, p quota.Period) {
	for _, user := range users {
		if a := b.accounts[accountKey{user, w, p.Label}]; a != nil {
			a.Used = 0
		}
	}
	if len(users) > 0 {
		return
	}
	for key, a := range b.accounts {
		if key.window == w && key.label == p.Label {
			a.Used = 0
		}
	}
}

// load reads the counters of windows that are not long over.
func (l *Ledger) load(ctx context.Context) error {
	const query = `SELECT user_name, period, label, ends_at, used FROM counters WHERE ends_at > ?`
	rows, err := l.file.read.QueryContext(ctx, query, l.now().Add(-grace).Unix())
	if err != nil {
		return fmt.Errorf("cannot read the counters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key accountKey
		var ends, used int64
		if err := rows.Scan(&key.user, &key.window, &key.label, &ends, &used); err != nil {
			return fmt.Errorf("cannot read the counters: %w", err)
		}
		l.books.accounts[key] = &account{Account: quota.Account{Used: used}, ends: time.Unix(ends, 0)}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("cannot read the counters: %w", err)
	}
	return l.loadBudgets(ctx)
}

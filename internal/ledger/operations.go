package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"carpool/internal/quota"
)

// opening is an admitted exchange, for the journal.
type opening struct {
	id    string
	frame *buffer
	newer atomic.Pointer[buffer] // what a checkpoint puts in its place; whoever takes it out of here has it
}

func (*opening) apply(*transaction) error { return nil } // openings are no matter of the database
func (*opening) committed(*Ledger)        {}

// settlement is an exchange that ended, first for the journal and then for the database.
type settlement struct {
	reservation
	entry *Entry
	frame *buffer // its record, see number
	body  []byte  // the entry as it is stored, a part of the record
	seq   int64   // 0: the next one, unless the exchange is booked already

	undated bool // when it began is a guess
}

func (s *settlement) apply(tx *transaction) error {
	e, seq := s.entry, s.seq
	switch {
	case seq == 0:
		if _, err := tx.exec(tx.stmt.deleteOpening, e.ID); err != nil {
			return err
		}
		first, last := e.StartedAt.UnixMicro(), e.StartedAt.UnixMicro()
		if s.undated {
			first, last = math.MinInt64, math.MaxInt64
		}
		var exists bool
		if err := tx.stmt.entryExists.QueryRowContext(context.Background(), e.ID, first, last).Scan(&exists); err != nil || exists {
			return err
		}
		seq = tx.lastSeq + 1
	case seq <= tx.lastSeq:
		// A commit can report a failure and have happened all the same; then this is the second attempt.
		return nil
	case seq > tx.lastSeq+1:
		return fmt.Errorf("it has number %d and the database ends at %d", seq, tx.lastSeq)
	}
	if err := tx.insert(seq, s); err != nil {
		return err
	}
	tx.lastSeq = seq
	tx.charge(e.User, quota.Daily, s.daily, e.QuotaTokens)
	tx.charge(e.User, quota.Monthly, s.monthly, e.QuotaTokens)
	for i := range s.charges {
		tx.spend(&s.charges[i])
	}
	tx.touch(e.KeyID, e.StartedAt)
	return nil
}

func (*settlement) committed(*Ledger) {}

// charge replaces the reservation by what was used; the Ledger's lock is held. It returns the budgets that reached a
// threshold by it.
func (s *settlement) charge(now time.Time) (reached []*BudgetUse) {
	for _, a := range s.accounts {
		if a != nil {
			a.Settle(s.tokens, s.entry.QuotaTokens)
		}
	}
	for i := range s.charges {
		if use := s.charges[i].spend(now); use != nil {
			reached = append(reached, use)
		}
	}
	return reached
}

// ResetQuota sets the current windows of users (none: all) to nothing used; no windows means all windows. A request in
// flight keeps its reservation and is charged when it settles. The error is ErrUnavailable or that of ctx.
func (l *Ledger) ResetQuota(ctx context.Context, users []string, windows []quota.Window, loc *time.Location) error {
	if len(windows) == 0 {
		windows = quota.Windows()
	}
	now := l.now()
	r := &reset{users: users}
	for _, w := range windows {
		if !w.Valid() {
			return fmt.Errorf("cannot reset quotas: there is no window %q", w)
		}
		r.windows = append(r.windows, w)
		r.periods = append(r.periods, w.Period(now, loc))
	}
	if err := l.writer.do(ctx, r); err != nil {
		return fmt.Errorf("cannot reset quotas: %w", err)
	}
	return nil
}

type reset struct {
	users   []string
	windows []quota.Window
	periods []quota.Period
}

func (r *reset) apply(tx *transaction) error {
	return tx.recount(func() error { return r.waive(tx) })
}

func (r *reset) waive(tx *transaction) error {
	for i, w := range r.windows {
		label := r.periods[i].Label
		for _, user := range r.users {
			if _, err := tx.exec(tx.stmt.resetUser, string(w), label, user); err != nil {
				return err
			}
		}
		if len(r.users) > 0 {
			continue
		}
		if _, err := tx.exec(tx.stmt.resetAll, string(w), label); err != nil {
			return err
		}
	}
	return nil
}

func (r *reset) committed(l *Ledger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range r.windows {
		l.books.reset(r.users, w, r.periods[i])
	}
}

// Acknowledge notes that control has everything up to seq. A number below Acknowledged changes nothing; one above LastSeq
// is an error.
func (l *Ledger) Acknowledge(ctx context.Context, seq int64) error {
	if seq <= l.Acknowledged() {
		return nil
	}
	if err := l.mover.do(ctx, &acknowledgement{seq}); err != nil {
		return fmt.Errorf("cannot note the acknowledgement of entry %d: %w", seq, err)
	}
	return nil
}

// Resume makes the ledger go on from control's mark, up to which control has entries of this node. It is called before the
// first exchange. As a rule they are entries of this file, and the last process died before it noted that control got them:
// they are acknowledged. When the file ends before the mark, or exchanges were settled as crashed under such numbers since
// control was last asked, control may have others by them, see SkipTo.
func (l *Ledger) Resume(ctx context.Context, mark int64) error {
	if err := l.mover.do(ctx, &resumption{mark}); err != nil {
		return fmt.Errorf("cannot go on from control's mark %d: %w", mark, err)
	}
	return l.SkipTo(ctx, mark)
}

type resumption struct{ mark int64 }

func (r *resumption) apply(tx *transaction) error {
	if r.mark > tx.lastSeq || tx.doubtful > 0 && r.mark >= tx.doubtful {
		return nil
	}
	if err := (&acknowledgement{r.mark}).apply(tx); err != nil {
		return err
	}
	return tx.doubt(0)
}

func (r *resumption) committed(l *Ledger) { l.mover.recent.acknowledged(l.Acknowledged()) }

// SkipTo makes the ledger go on after seq, up to which control has entries of this node already: more than this ledger
// knows of when its file was lost or restored from a backup. Once it has returned, no entry is ever written with seq or a
// number below it. Entries that are not acknowledged and have such a number get a new one at the end, because control may
// know another exchange by the old one; those that it does have it recognizes by their ids. Everything up to seq counts as
// acknowledged. A number not above Acknowledged changes nothing.
//
// It is forced to the disk. After an error it may have happened or not: call it again, or close the ledger.
func (l *Ledger) SkipTo(ctx context.Context, seq int64) error {
	if seq <= l.Acknowledged() {
		return nil
	}
	s := &skip{seq: seq, recent: &l.mover.recent, now: l.now}
	if err := errors.Join(l.writer.do(ctx, s), s.failed); err != nil {
		return fmt.Errorf("cannot go on after entry %d: %w", seq, err)
	}
	return nil
}

// skip needs no place of its own in the file: the last number is at least the acknowledged one.
type skip struct {
	seq    int64
	recent *recent
	now    func() time.Time
	failed error
}

func (s *skip) apply(tx *transaction) error {
	if s.seq <= tx.acknowledged {
		return nil
	}
	s.recent.clear()
	// All unacknowledged entries up to seq, without gaps, move behind what is there.
	end := max(tx.lastSeq, s.seq)
	before := tx.acknowledged
	moved, err := tx.exec(tx.stmt.renumber, end-before, before, s.seq)
	if err != nil {
		return err
	}
	if _, err := tx.exec(tx.stmt.acknowledge, s.seq); err != nil {
		return err
	}
	if _, err := tx.conn.ExecContext(context.Background(), `INSERT INTO skipped (first, last, at) VALUES (?, ?, ?)`,
		before+1, s.seq, s.now().UnixMicro()); err != nil {
		return err
	}
	tx.acknowledged, tx.lastSeq = s.seq, end+moved
	if err := tx.doubt(0); err != nil {
		return err
	}
	if err := tx.relink(before); err != nil {
		return err
	}
	return tx.sign()
}

// committed runs while the writer waits. What it writes next has a number that makes no sense without the transaction,
// so that the transaction must not be lost with the power.
func (s *skip) committed(l *Ledger) {
	l.writer.seq = l.mover.tx.lastSeq
	l.lastSeq.Store(l.mover.tx.lastSeq)
	s.failed = l.mover.tx.checkpoint()
	l.mover.exportSigned()
	l.announce()
}

type acknowledgement struct{ seq int64 }

func (a *acknowledgement) apply(tx *transaction) error {
	if a.seq > tx.lastSeq {
		return fmt.Errorf("the ledger ends at entry %d; was its file replaced by an older copy?", tx.lastSeq)
	}
	if a.seq <= tx.acknowledged {
		return nil
	}
	if _, err := tx.exec(tx.stmt.acknowledge, a.seq); err != nil {
		return err
	}
	tx.acknowledged = a.seq
	return nil
}

func (a *acknowledgement) committed(l *Ledger) { l.mover.recent.acknowledged(a.seq) }

const pruneStep = 2000 // entries deleted in one transaction, so that requests need not wait long

// Prune forgets acknowledged entries that started before olderThan, up to the first, by number, that did not, and counters
// of windows that ended before it and have no entries any more. It returns the number of entries deleted, also beside an
// error.
func (l *Ledger) Prune(ctx context.Context, olderThan time.Time) (int64, error) {
	var total int64
	for {
		p := &pruning{olderThan: olderThan}
		if err := l.mover.do(ctx, p); err != nil {
			return total, fmt.Errorf("cannot prune the ledger: %w", err)
		}
		total += p.deleted
		if p.deleted < pruneStep {
			return total, nil
		}
	}
}

type pruning struct {
	olderThan time.Time
	deleted   int64
}

func (p *pruning) apply(tx *transaction) error {
	return tx.recount(func() error { return p.remove(tx) })
}

func (p *pruning) remove(tx *transaction) error {
	last, err := p.count(tx)
	if err != nil {
		return err
	}
	if p.deleted > 0 {
		if _, err := tx.conn.ExecContext(context.Background(), `UPDATE chain SET passed = ?1, hash = (SELECT hash FROM entries WHERE seq = ?1)
			WHERE passed < ?1`, last); err != nil {
			return err
		}
		if _, err := tx.exec(tx.stmt.prune, last); err != nil {
			return err
		}
	}
	for _, stmt := range []*sql.Stmt{tx.stmt.pruneCounters, tx.stmt.pruneBudgets} {
		if _, err := tx.exec(stmt, p.olderThan.Unix()); err != nil {
			return err
		}
	}
	return nil
}

// count looks up what goes, from the oldest number on up to the first entry that stays, so that what is left is a chain.
// It notes in the counters what they will have no entries of any more, and returns the last number that goes.
func (p *pruning) count(tx *transaction) (last int64, err error) {
	rows, err := tx.conn.QueryContext(context.Background(),
		`SELECT seq, started_at, user_name, day, month, quota_tokens, charges FROM entries WHERE seq <= ? ORDER BY seq LIMIT ?`, tx.acknowledged, pruneStep)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	gone, spent := make(map[accountKey]int64), make(map[slotKey]int64)
	for rows.Next() {
		var seq, started, tokens int64
		var user, day, month, text string
		if err := rows.Scan(&seq, &started, &user, &day, &month, &tokens, &text); err != nil {
			return 0, err
		}
		if started >= p.olderThan.UnixMicro() {
			break
		}
		last = seq
		p.deleted++
		charges, err := readCharges(text)
		if err != nil {
			return 0, err
		}
		for i := range charges {
			spent[charges[i].slotKey] = quota.Add(spent[charges[i].slotKey], charges[i].amount)
		}
		if tokens != 0 {
			for _, key := range [...]accountKey{{user, quota.Daily, day}, {user, quota.Monthly, month}} {
				gone[key] = quota.Add(gone[key], tokens)
			}
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	for key, tokens := range gone {
		if _, err := tx.conn.ExecContext(context.Background(), `UPDATE counters SET pruned = min(pruned + ?, `+most+`) WHERE user_name = ? AND period = ? AND label = ?`,
			tokens, key.user, string(key.window), key.label); err != nil {
			return 0, err
		}
	}
	for key, amount := range spent {
		if _, err := tx.conn.ExecContext(context.Background(), `UPDATE budget_counters SET pruned = min(pruned + ?, `+most+`)
			WHERE budget = ? AND subject = ? AND series = ? AND label = ?`, amount, key.budget, key.subject, key.series, key.label); err != nil {
			return 0, err
		}
	}
	return last, nil
}

func (p *pruning) committed(l *Ledger) {
	if p.deleted > 0 {
		l.mover.exportSigned()
	}
}

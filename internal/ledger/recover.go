package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/quota"
)

// recovery reads the journal that a dead process left behind: it books the settlements that the file does not have yet,
// under the numbers they had, then settles as crashed what is still open. It runs before the goroutines and before the
// counters are loaded. Nothing in it hurts when it is cut short and done again.
type recovery struct {
	l       *Ledger
	ctx     context.Context //nolint:containedctx // lives as long as the call of recover
	numbers []int64

	last    int64 // number of the last settlement, in the file or in pending
	pending []*settlement
	open    map[string]*leftover
	order   []string
	aside   []int64 // damaged segments
	booked  int
	closed  int // openings settled as crashed
}

// recover brings the file up to date. It returns the number for the next segment.
func (l *Ledger) recover(ctx context.Context) (next int64, err error) {
	r := &recovery{l: l, ctx: ctx, last: l.mover.tx.lastSeq, open: make(map[string]*leftover)}
	if r.numbers, next, err = segments(l.file.path); err != nil {
		return 0, err
	}
	for i, n := range r.numbers {
		if err := r.segment(n, i == len(r.numbers)-1); err != nil {
			return 0, fmt.Errorf("cannot use its journal %s: %w", segmentPath(l.file.path, n), err)
		}
	}
	for _, step := range []func() error{r.book, r.carry, r.drop, r.settle} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	if r.booked > 0 {
		l.log.InfoContext(ctx, "booked what the last process had only noted in its journal", "entries", r.booked)
	}
	if r.closed > 0 {
		l.log.WarnContext(ctx, "the last process ended without settling all requests; what they cost is an estimate", "requests", r.closed)
	}
	return next, nil
}

func (r *recovery) segment(number int64, newest bool) error {
	data, err := os.ReadFile(segmentPath(r.l.file.path, number))
	if err != nil {
		return err
	}
	return r.read(number, data, newest)
}

// read takes in what a segment's file holds. newest is its last: only that one may end within a record.
func (r *recovery) read(number int64, data []byte, newest bool) error {
	s, err := readSegment(data)
	if errors.Is(err, errCut) && newest && !resumes(data) {
		return nil // the process died as it made the segment; nothing had been written to it
	}
	if _, newer := errors.AsType[*versionError](err); newer {
		return err
	}
	if err != nil {
		r.damaged(number, 0, len(data), err)
		return nil
	}
	if s.name != r.l.name {
		return errors.New("it belongs to another ledger; was the file replaced? " +
			"Put the file back that the journal belongs to, or move the journal away to go on without what it holds")
	}
	at, gap := s.at, r.gap(s.last+1)
	if gap == nil {
		at, err = s.read(r.record)
	}
	if g, ok := errors.AsType[*gapError](errors.Join(gap, err)); ok {
		if len(r.aside) == 0 {
			return g
		}
		r.damaged(number, at, len(data), g)
		return nil
	}
	if errors.Is(err, errCut) && newest && !resumes(data[at:][1:]) {
		r.l.log.InfoContext(r.ctx, "cut off the record that the last process was writing when it died", "bytes", len(data)-at)
		return nil
	}
	if isDamage(err) {
		r.damaged(number, at, len(data), err)
		return nil
	}
	return err
}

func isDamage(err error) bool {
	return errors.Is(err, errCut) || errors.Is(err, errBroken) || errors.Is(err, errRecord)
}

// gapError means that entries are missing between the file and the journal.
type gapError struct{ have, next int64 }

func (e *gapError) Error() string {
	return fmt.Sprintf("it goes on at entry %d and the file ends at entry %d; was the file replaced by an older copy? "+
		"Put the newer file back, or move the journal away to go on without what it holds", e.next, e.have)
}

func (r *recovery) gap(next int64) error {
	if next > r.last+1 {
		return &gapError{r.last, next}
	}
	return nil
}

// damaged notes that a segment is to be kept for a person to look at.
func (r *recovery) damaged(number int64, at, size int, err error) {
	r.aside = append(r.aside, number)
	path := segmentPath(r.l.file.path, number)
	r.l.log.ErrorContext(r.ctx, "the journal is damaged; what follows the damage is not in the books and is kept aside",
		slog.String("segment", path), slog.String("kept", path+damagedSuffix),
		slog.Int("at", at), slog.Int("bytes", size-at), slog.String("error", err.Error()))
}

// record takes a record in.
func (r *recovery) record(body []byte) error {
	switch body[0] {
	case kindOpening, kindBudgetOpening:
		o, err := readOpening(body)
		if err != nil {
			return err
		}
		if r.open[o.id] == nil {
			r.order = append(r.order, o.id)
		}
		r.open[o.id] = o
		return nil
	case kindSettlement, kindBudgetSettlement:
		s, err := readSettlement(body, r.l.node)
		if err != nil {
			return err
		}
		if err := r.gap(s.seq); err != nil {
			return err
		}
		delete(r.open, s.entry.ID)
		if s.seq <= r.last {
			return nil
		}
		r.last = s.seq
		if r.pending = append(r.pending, s); len(r.pending) == moveEntries {
			return r.book()
		}
		return nil
	}
	return errRecord
}

// book writes the settlements read so far.
func (r *recovery) book() error {
	if len(r.pending) == 0 {
		return nil
	}
	if err := r.l.mover.book(r.pending); err != nil {
		return fmt.Errorf("cannot book what the journal holds: %w", err)
	}
	r.booked += len(r.pending)
	r.pending = r.pending[:0]
	return nil
}

// carry writes what is open in the journal into the table openings, so that the file has everything that the journal has.
func (r *recovery) carry() error {
	var left []*leftover
	for _, id := range r.order {
		if o := r.open[id]; o != nil {
			left = append(left, o)
			delete(r.open, id) // a second opening under the same id stands in order twice
		}
	}
	if err := r.l.mover.carry(left); err != nil {
		return fmt.Errorf("cannot note what a crash left open: %w", err)
	}
	return nil
}

// drop removes the journal. Damaged segments go first and newest first: if it is cut short, what remains reads the same.
func (r *recovery) drop() error {
	if len(r.numbers) == 0 {
		return nil
	}
	if err := r.l.mover.tx.checkpoint(); err != nil {
		return err
	}
	path := r.l.file.path
	slices.Reverse(r.aside)
	for _, n := range r.aside {
		if err := os.Rename(segmentPath(path, n), segmentPath(path, n)+damagedSuffix); err != nil {
			return fmt.Errorf("cannot set a damaged journal aside: %w", err)
		}
	}
	return removeSegments(path, r.numbers)
}

// settle settles as crashed what the table openings holds. A ledger that was closed, a copy, and a ledger of a Carpool
// without a journal have it there too.
func (r *recovery) settle() error {
	for {
		rows, err := r.l.leftovers(r.ctx)
		if err != nil {
			return fmt.Errorf("cannot read what a crash left open: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		if err := r.l.mover.doubt(); err != nil {
			return fmt.Errorf("cannot note that control may know others by the numbers of what a crash left open: %w", err)
		}
		left := make([]*settlement, len(rows))
		for i, o := range rows {
			if left[i], err = r.l.crashed(r.ctx, o); err != nil {
				return err
			}
		}
		if err := r.l.mover.book(left); err != nil {
			return fmt.Errorf("cannot settle what a crash left open: %w", err)
		}
		r.closed += len(rows)
	}
}

// crashed makes a settlement of an opening whose process died.
func (l *Ledger) crashed(ctx context.Context, o *leftover) (*settlement, error) {
	e, err := decode(o.body, l.node, 0)
	undated := err != nil
	if undated {
		// The body is ours, so only a damaged file brings us here; the columns still say what must be accounted for.
		l.log.WarnContext(ctx, "an opening is damaged", "id", o.id, "error", err)
		e = Entry{ID: o.id, Node: l.node, User: o.user, StartedAt: l.now().UTC().Truncate(time.Microsecond), Endpoint: EndpointMessages}
	}
	e.Outcome, e.Estimated = fleet.OutcomeCrashed, true
	if e.Status == 0 { // no checkpoint: the answer had not begun
		e.FirstByte = -1
	}
	e.InputTokens, e.QuotaTokens = o.estimate, o.charge
	body, err := appendEntry(nil, &e)
	if err != nil {
		return nil, err
	}
	for i := range o.charges {
		o.charges[i].amount = Spent(o.charges[i].unit(), &e)
	}
	return &settlement{reservation: reservation{daily: o.daily, monthly: o.monthly, charges: o.charges}, entry: &e, body: body, undated: undated}, nil
}

// leftovers reads some rows of the table openings.
func (l *Ledger) leftovers(ctx context.Context) ([]*leftover, error) {
	const query = `SELECT id, user_name, day, day_ends, month, month_ends, reserved, input, quota_tokens, body, charges FROM openings ORDER BY id LIMIT ?`
	rows, err := l.file.read.QueryContext(ctx, query, moveEntries)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var left []*leftover
	for rows.Next() {
		var o leftover
		var day, month, charges string
		var dayEnds, monthEnds int64
		if err := rows.Scan(&o.id, &o.user, &day, &dayEnds, &month, &monthEnds, &o.reserved, &o.estimate, &o.charge, &o.body, &charges); err != nil {
			return nil, err
		}
		if o.charges, err = readCharges(charges); err != nil {
			return nil, err
		}
		o.daily = quota.Period{Label: day, End: time.Unix(dayEnds, 0)}
		o.monthly = quota.Period{Label: month, End: time.Unix(monthEnds, 0)}
		left = append(left, &o)
	}
	return left, rows.Err()
}

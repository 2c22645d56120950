package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"carpool/internal/fleet"
)

// Ingested says what became of a batch.
type Ingested struct {
	Added      int   // entries that were new
	Contiguous int64 // the node's mark: up to it there is nothing to wait for
	Gone       int64 // sequence numbers below the mark that, as the batch says, nobody has
}

// Ingest stores the entries of a node's batch, ignoring those it has.
func (s *Store) Ingest(ctx context.Context, batch fleet.UsageBatch) (taken Ingested, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) (err error) {
		fresh, err := tx.unknown(ctx, batch.Entries)
		if err != nil {
			return err
		}
		if taken.Added, err = tx.insert(ctx, s.inserts, fresh); err != nil {
			return err
		}
		taken.Contiguous, taken.Gone, err = tx.advance(ctx, batch)
		return err
	})
	if err != nil {
		return Ingested{}, fmt.Errorf("cannot store the entries of node %s: %w", batch.Node, err)
	}
	return taken, nil
}

// inserts are the statements that add entries, prepared once, by the number of entries they add, largest first. A
// statement has a price of its own.
type inserts []insert

type insert struct {
	rows      int
	statement *sql.Stmt
}

func prepareInserts(ctx context.Context, db *sql.DB) (all inserts, err error) {
	row := "(" + marks(len(entryFields(new(fleet.Entry)))) + ")"
	for _, rows := range []int{64, 8, 1} {
		//nolint:sqlclosecheck,gosec // close does it; only constants are joined
		statement, err := db.PrepareContext(ctx, `INSERT INTO entries (`+entryColumns+`) VALUES `+
			strings.Repeat(row+", ", rows-1)+row+` ON CONFLICT (node, seq) DO NOTHING`)
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		all = append(all, insert{rows, statement})
	}
	return all, nil
}

func (all inserts) close() error {
	var wrong []error
	for _, i := range all {
		wrong = append(wrong, i.statement.Close())
	}
	return errors.Join(wrong...)
}

// marks returns n placeholders.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// insert stores entries, those with a number that is known excepted.
func (t *Tx) insert(ctx context.Context, statements inserts, entries []*fleet.Entry) (added int, err error) {
	used := map[string]time.Time{}
	for _, e := range entries {
		if used[e.KeyID].Before(e.StartedAt) {
			used[e.KeyID] = e.StartedAt
		}
	}
	var args []any
	for _, i := range statements {
		statement := t.tx.StmtContext(ctx, i.statement) //nolint:sqlclosecheck // it ends with the transaction
		for ; len(entries) >= i.rows; entries = entries[i.rows:] {
			args = args[:0]
			for _, e := range entries[:i.rows] {
				if args, err = appendValues(args, entryFields(e)); err != nil {
					return 0, fmt.Errorf("entry %d: %w", e.Seq, err)
				}
			}
			result, err := statement.ExecContext(ctx, args...)
			if err != nil {
				return 0, fmt.Errorf("entries %d to %d: %w", entries[0].Seq, entries[i.rows-1].Seq, err)
			}
			n, err := result.RowsAffected()
			if err != nil {
				return 0, err
			}
			added += int(n)
		}
	}
	return added, t.TouchKeys(ctx, used)
}

// identity is what names an exchange under whatever number.
type identity struct {
	startedAt int64 // microseconds
	id        string
}

func identify(e *fleet.Entry) identity { return identity{e.StartedAt.UnixMicro(), e.ID} }

// unknown returns the entries whose exchanges are not in the books. A node that was restored from a backup delivers
// exchanges again under other numbers, as it remembers them or as crashed ones; what was booked first stays, also when
// it was rolled up. They are looked up by their start, which is part of their identity and has an index, so that ids need none.
func (t *Tx) unknown(ctx context.Context, entries []fleet.Entry) ([]*fleet.Entry, error) {
	newest, err := collect(ctx, t.tx, func(n *int64) []any { return []any{n} }, `SELECT started_at FROM entries ORDER BY started_at DESC LIMIT 1`)
	if err != nil {
		return nil, err
	}
	var starts []any
	for i := range entries {
		// What began after everything in the books cannot be there: that spares most of a batch the look.
		if at := entries[i].StartedAt.UnixMicro(); len(newest) == 1 && at <= newest[0] {
			starts = append(starts, at)
		}
	}
	identities := make([]identity, len(entries))
	for i := range entries {
		identities[i] = identify(&entries[i])
	}
	known, err := removedOf(ctx, t.tx, identities)
	if err != nil {
		return nil, err
	}
	for chunk := range slices.Chunk(starts, 500) {
		booked, err := collect(ctx, t.tx, func(i *identity) []any { return []any{&i.startedAt, &i.id} },
			`SELECT started_at, id FROM entries WHERE started_at IN (`+marks(len(chunk))+`)`, chunk...)
		if err != nil {
			return nil, err
		}
		for _, i := range booked {
			known[i] = true
		}
	}
	fresh := make([]*fleet.Entry, 0, len(entries))
	for i, who := range identities {
		if !known[who] {
			known[who] = true
			fresh = append(fresh, &entries[i])
		}
	}
	return fresh, nil
}

// advance moves the node's contiguous mark over what has arrived, in this batch or before, and over what the batch says is
// gone. It returns the mark and how many numbers were given up.
func (t *Tx) advance(ctx context.Context, batch fleet.UsageBatch) (mark, gone int64, err error) {
	number := func(n *int64) []any { return []any{n} }
	marks, err := collect(ctx, t.tx, number, `SELECT contiguous FROM nodes WHERE name = ?`, batch.Node)
	if err != nil {
		return 0, 0, err
	}
	if len(marks) == 1 {
		mark = marks[0]
	}
	before := mark
	seqs := make([]int64, 0, len(batch.Entries))
	for i := range batch.Entries { // also what is known by its id and has no row under the number it has here
		seqs = append(seqs, batch.Entries[i].Seq)
	}
	slices.Sort(seqs)
	for len(seqs) > 0 && seqs[0] <= mark+1 {
		mark = max(mark, seqs[0])
		seqs = seqs[1:]
	}
	stored, err := collect(ctx, t.tx, number, `SELECT seq FROM entries WHERE node = ? AND seq > ?`, batch.Node, mark)
	if err != nil {
		return 0, 0, err
	}
	seqs = append(seqs, stored...)
	slices.Sort(seqs)
	for _, seq := range seqs {
		if hole := seq - mark - 1; hole > 0 {
			if batch.From > mark+1 || batch.To < seq-1 {
				break
			}
			gone += hole
		}
		mark = max(mark, seq)
	}
	if batch.From <= mark+1 && batch.To > mark {
		gone, mark = gone+batch.To-mark, batch.To
	}
	if mark == before && len(marks) == 1 {
		return mark, gone, nil
	}
	return mark, gone, t.exec(ctx, "move the mark", `INSERT INTO nodes (name, contiguous) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET contiguous = excluded.contiguous`, batch.Node, mark)
}

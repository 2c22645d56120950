package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"time"

	"carpool/internal/fleet"
)

// Books is one moment of the entries in a database, read without changing it, also beside a server.
type Books struct {
	path string
	db   *sql.DB
	tx   *sql.Tx
}

// OpenBooks opens the database at path for reading. Close what it returns.
func OpenBooks(ctx context.Context, path string) (_ *Books, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("cannot read the database: %w", err)
	}
	b := &Books{path: path}
	if b.db, err = sql.Open("sqlite", dsn(path, "mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)")); err != nil {
		return nil, fmt.Errorf("cannot read the database %s: %w", path, err)
	}
	if b.tx, err = b.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read the database %s: %w", path, err), b.db.Close())
	}
	return b, nil
}

// Close ends the reading.
func (b *Books) Close() error { return errors.Join(b.tx.Rollback(), b.db.Close()) }

// Damage returns what SQLite finds wrong with the database, nothing when it is whole.
func (b *Books) Damage(ctx context.Context) ([]string, error) {
	return b.check(ctx, "PRAGMA integrity_check")
}

// QuickDamage is Damage without a look at whether the indexes say what the tables do, as far as it gets in a time.
func (b *Books) QuickDamage(ctx context.Context, patience time.Duration) ([]string, error) {
	hurry, stop := context.WithTimeout(ctx, patience)
	defer stop()
	lines, err := b.check(hurry, "PRAGMA quick_check")
	if hurry.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return lines, err
}

func (b *Books) check(ctx context.Context, pragma string) ([]string, error) {
	lines, err := collect(ctx, b.tx, func(line *string) []any { return []any{line} }, pragma)
	if damaged(err) {
		lines, err = append(lines, err.Error()), nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot check the database %s: %w", b.path, err)
	}
	var wrong []string
	for _, text := range lines { // of several lines, of which some only begin a part
		for line := range strings.SplitSeq(text, "\n") {
			if line != "" && line != "ok" && !strings.HasPrefix(line, "***") {
				wrong = append(wrong, line)
			}
		}
	}
	return wrong, nil
}

// Entries returns a node's entries by ascending number.
func (b *Books) Entries(ctx context.Context, node string) iter.Seq2[fleet.Entry, error] {
	return func(yield func(fleet.Entry, error) bool) {
		fail := func(err error) { yield(fleet.Entry{}, fmt.Errorf("cannot read control's entries: %w", err)) }
		rows, err := b.tx.QueryContext(ctx, `SELECT `+entryColumns+` FROM entries WHERE node = ? ORDER BY seq`, node)
		if err != nil {
			fail(err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var e fleet.Entry
			if err := rows.Scan(entryFields(&e)...); err != nil {
				fail(err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			fail(err)
		}
	}
}

// Contiguous returns the number up to which there is nothing of a node to wait for.
func (b *Books) Contiguous(ctx context.Context, node string) (mark int64, err error) {
	if err := b.tx.QueryRowContext(ctx, `SELECT coalesce(max(contiguous), 0) FROM nodes WHERE name = ?`, node).Scan(&mark); err != nil {
		return 0, fmt.Errorf("cannot read the mark of node %s: %w", node, err)
	}
	return mark, nil
}

// LastSeq returns the number of the last entry of a node that is known, 0 when none is.
func (b *Books) LastSeq(ctx context.Context, node string) (last int64, err error) {
	if err := b.tx.QueryRowContext(ctx, `SELECT max(
		(SELECT coalesce(max(contiguous), 0) FROM nodes WHERE name = ?), (SELECT coalesce(max(seq), 0) FROM entries WHERE node = ?))`, node, node).Scan(&last); err != nil {
		return 0, fmt.Errorf("cannot read up to where there are entries of node %s: %w", node, err)
	}
	return last, nil
}

// Has reports whether there is an exchange under whatever number, or was before it was rolled up.
func (b *Books) Has(ctx context.Context, e *fleet.Entry) (has bool, err error) {
	who := identify(e)
	if err := b.tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM entries WHERE started_at = ? AND id = ?)`, who.startedAt, who.id).Scan(&has); err != nil {
		return false, fmt.Errorf("cannot look up exchange %s: %w", e.ID, err)
	}
	if has {
		return true, nil
	}
	removed, err := removedOf(ctx, b.tx, []identity{who})
	if err != nil {
		return false, fmt.Errorf("cannot look up exchange %s: %w", e.ID, err)
	}
	return removed[who], nil
}

// Drift is how much more there is in the roll-ups than in the entries that were removed.
type Drift struct{ Requests, Tokens, Cost int64 }

// RollupDrift compares the roll-ups with what is noted of the entries that they are made of.
func (b *Books) RollupDrift(ctx context.Context) (d Drift, err error) {
	schema, err := b.schema(ctx)
	if err != nil {
		return Drift{}, err
	}
	if len(schema.Pending) > 0 {
		return Drift{}, fmt.Errorf("the schema of control's database is version %d, from before this Carpool (%d); start the server once, which brings it up to date",
			schema.Have, schema.Known)
	}
	//nolint:gosec // only constants are joined
	row := b.tx.QueryRowContext(ctx, `SELECT r.requests - g.entries, r.tokens - g.tokens, r.cost - g.cost FROM
		(SELECT `+sumOf("e.requests")+` AS requests, `+sumOf(allTokens)+` AS tokens, `+sumOf("e.cost_micro_usd")+` AS cost FROM rollups AS e) AS r,
		(SELECT `+sumOf("entries")+` AS entries, `+sumOf("tokens")+` AS tokens, `+sumOf("cost_micro_usd")+` AS cost FROM removals) AS g`)
	if err := row.Scan(&d.Requests, &d.Tokens, &d.Cost); err != nil {
		return Drift{}, fmt.Errorf("cannot compare the roll-ups: %w", err)
	}
	return d, nil
}

package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
)

// counted is what all counters together say that is in no entry: what was used before resets, and what entries that were
// pruned had counted. It changes only with a reset and with pruning, and is signed with the head. Sums wrap around.
type counted struct {
	Waived, Pruned int64 // of quotas
	Spent          int64 // pruned of budgets
}

func (c counted) plus(o counted) counted {
	return counted{c.Waived + o.Waived, c.Pruned + o.Pruned, c.Spent + o.Spent}
}

func (c counted) minus(o counted) counted {
	return counted{c.Waived - o.Waived, c.Pruned - o.Pruned, c.Spent - o.Spent}
}

// readCounted adds up what the counters say.
func readCounted(ctx context.Context, q querier) (sum counted, err error) {
	rows, err := q.QueryContext(ctx, `SELECT waived, pruned, 0 FROM counters WHERE waived <> 0 OR pruned <> 0
		UNION ALL SELECT 0, 0, pruned FROM budget_counters WHERE pruned <> 0`)
	if err != nil {
		return counted{}, fmt.Errorf("cannot add up the counters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c counted
		if err := rows.Scan(&c.Waived, &c.Pruned, &c.Spent); err != nil {
			return counted{}, fmt.Errorf("cannot add up the counters: %w", err)
		}
		sum = sum.plus(c)
	}
	return sum, rows.Err()
}

// recount makes a change of the counters that is in no entry, and signs it.
func (tx *transaction) recount(change func() error) error {
	ctx := context.Background()
	before, err := readCounted(ctx, tx.conn)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	after, err := readCounted(ctx, tx.conn)
	if err != nil {
		return err
	}
	tx.recounted = after.minus(before)
	return tx.sign()
}

// signedCounted returns what the next head says of the counters: what the last one does and what this transaction changed.
// So a change by another hand never gets signed. Without a head of this key that says it there is nothing but the counters to go by.
func (tx *transaction) signedCounted(ctx context.Context) (counted, error) {
	var text string
	if err := tx.conn.QueryRowContext(ctx, `SELECT signed FROM chain`).Scan(&text); err != nil {
		return counted{}, fmt.Errorf("cannot read the signed head: %w", err)
	}
	own, _ := tx.chain.key.Public().(ed25519.PublicKey)
	if h, err := readHead(text); err == nil && h.Counted != nil && bytes.Equal(h.Key, own) {
		return h.Counted.plus(tx.recounted), nil
	}
	return readCounted(ctx, tx.conn)
}

// countedVersion is SQLite's user_version of a database of which a head says what the counters do: from then on one that does
// not is an old one.
const countedVersion = 1

func readCountedVersion(ctx context.Context, q querier) (version int64, err error) {
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("cannot read whether the counters are signed: %w", err)
	}
	return version, nil
}

// noteCounted notes that heads say from now on what the counters do.
func (tx *transaction) noteCounted(ctx context.Context) error {
	version, err := readCountedVersion(ctx, tx.conn)
	if err != nil || version >= countedVersion {
		return err
	}
	if _, err := tx.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", countedVersion)); err != nil {
		return fmt.Errorf("cannot note that the counters are signed: %w", err)
	}
	return nil
}

package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	smallLedger = 32 << 20        // bytes of a database that is verified as a whole before it is opened
	newest      = 20_000          // entries of a larger one
	startCheck  = 5 * time.Second // for SQLite to look through a larger one
)

// VerifyStart looks for damage in the ledger in the file path before it is opened, in a bounded time. A small one is
// verified as Verify does, against itself; of a large one SQLite's quick check runs as far as it gets in some seconds,
// and the chain of its newest entries is followed. Of what is signed it looks only whether it can be the newest, because
// the opening signs anew; the rest is left to Verify: a backup that was restored ends before it. Nothing is found in a ledger that there is not yet, and one that the opening will upgrade is an error. It
// changes nothing.
func VerifyStart(ctx context.Context, path string) (*Verified, error) {
	return verifyStart(ctx, path, smallLedger, newest)
}

func verifyStart(ctx context.Context, path string, small, newest int64) (*Verified, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return &Verified{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot verify the ledger: %w", err)
	}
	v := newVerification(ctx, path, Audit{})
	return v.verified(func(v *verification) error { //nolint:contextcheck // v has it
		return v.run(func() error {
			if err := v.schema(); err != nil {
				return err
			}
			if info.Size() <= small {
				return v.small()
			}
			return v.large(newest)
		})
	})
}

// small verifies everything that needs nothing but the database.
func (v *verification) small() error {
	if err := v.integrity(); err != nil || len(v.Findings) > 0 {
		return err
	}
	if err := v.begin(); err != nil {
		return err
	}
	v.at = v.before
	if _, err := v.entries(nil); err != nil {
		return err
	}
	return errors.Join(v.end(nil), v.counters(), v.budgets(), v.newestHead())
}

func (v *verification) large(newest int64) error {
	if err := v.quickly(); err != nil || len(v.Findings) > 0 {
		return err
	}
	if err := v.begin(); err != nil {
		return err
	}
	if err := v.tx.QueryRowContext(v.ctx, `SELECT coalesce(max(seq), 0) - ? FROM entries`, newest).Scan(&v.last); err != nil {
		return err
	}
	v.at = v.before
	if v.last > v.passed {
		var hash []byte
		if err := v.tx.QueryRowContext(v.ctx, `SELECT seq, hash FROM entries WHERE seq <= ? ORDER BY seq DESC LIMIT 1`, v.last).Scan(&v.last, &hash); err != nil {
			return err
		}
		if err := v.at.scan(hash); err != nil {
			return &contentError{err}
		}
	} else {
		v.last = 0
	}
	if _, err := v.entries(nil); err != nil {
		return err
	}
	return errors.Join(v.end(nil), v.newestHead())
}

// quickly has SQLite look through the database for some seconds. What it did not get to, a later verification does.
func (v *verification) quickly() error {
	ctx, stop := context.WithTimeout(v.ctx, startCheck)
	defer stop()
	wrong, err := integrity(ctx, v.tx, "PRAGMA quick_check")
	v.damaged(wrong)
	if ctx.Err() != nil && v.ctx.Err() == nil {
		return nil
	}
	return err
}

package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
)

// Backup writes a consistent copy of the ledger into the file path, which must not exist or be empty, while the ledger is
// in use. It holds everything that was settled before, and the exchanges that are open. The copy can take the place of the
// ledger's file, when its journal is moved away too.
func (l *Ledger) Backup(ctx context.Context, path string) error {
	if err := l.backup(ctx, path); err != nil {
		return fmt.Errorf("cannot copy the ledger to %s: %w", path, err)
	}
	return nil
}

func (l *Ledger) backup(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	// First what is open, then the rest: what is settled in between is in the copy twice, and a settlement wins.
	s := &snapshot{writer: l.writer}
	if err := l.writer.do(ctx, s); err != nil {
		return err
	}
	// A connection of its own: the mover's is busy, and those of the read pool may write nothing, a copy neither.
	db, err := sql.Open("sqlite", dsn(l.file.path))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", path)
	if err := errors.Join(explain(err), db.Close()); err != nil {
		return err
	}
	return addOpenings(ctx, path, s.open)
}

// snapshot takes down what is open at a moment at which everything settled is in the database.
type snapshot struct {
	writer *writer
	open   []*leftover
}

func (s *snapshot) apply(tx *transaction) (err error) {
	if s.open, err = s.writer.leftovers(); err != nil {
		return err
	}
	return tx.sign()
}

func (*snapshot) committed(*Ledger) {}

// addOpenings puts openings into a copy, which then stands alone: no -wal file beside it.
func addOpenings(ctx context.Context, path string, open []*leftover) (err error) {
	if len(open) == 0 {
		return nil
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: urlPath(path)}).String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(explain(err), db.Close()) }()
	change, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = change.Rollback() }() // after the commit it does nothing
	for _, o := range open {
		if _, err := change.ExecContext(ctx, insertOpening, o.columns()...); err != nil {
			return err
		}
	}
	return change.Commit()
}

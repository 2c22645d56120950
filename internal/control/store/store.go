package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is one database. It is safe for concurrent use; writers take turns.
type Store struct {
	db      *sql.DB
	write   sync.Mutex
	inserts inserts
}

// Every connection of the pool gets these. FULL makes a commit survive a power loss: a change of policy is rare and must
// not be forgotten, and entries come in batches, so that one flush to disk serves many.
const pragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=wal_autocheckpoint(4000)&_txlock=immediate"

// dsn names the database at path, which may be relative, with what its connections are to be.
func dsn(path, query string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query
}

// Open opens the SQLite database at path, makes it (readable by its owner only) when it does not exist, and brings its
// schema up to date.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator's own path
	if err != nil {
		return nil, fmt.Errorf("cannot open the database: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("cannot open the database: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, pragmas))
	if err != nil {
		return nil, fmt.Errorf("cannot open the database %s: %w", path, err)
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot use the database %s: %w", path, advise(err)), db.Close())
	}
	s := &Store{db: db}
	if s.inserts, err = prepareInserts(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot use the database %s: %w", path, err), db.Close())
	}
	return s, nil
}

// advise says what to do about a file that SQLite cannot read.
func advise(err error) error {
	if damaged(err) {
		return fmt.Errorf("the file is damaged or no database; restore a backup with carpool db restore: %w", err)
	}
	return err
}

// damaged reports whether an error of SQLite tells of what is in the file.
func damaged(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "not a database") || strings.Contains(err.Error(), "malformed"))
}

// Close closes the database.
func (s *Store) Close() error {
	return errors.Join(s.inserts.close(), s.db.Close())
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("cannot read the migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return fmt.Errorf("cannot prepare the migrations: %w", err)
	}
	current, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("cannot read its schema version: %w", err)
	}
	var newest int64
	for _, source := range provider.ListSources() {
		newest = max(newest, source.Version)
	}
	if current > newest {
		return fmt.Errorf("it was written by a newer version of carpool (schema %d, this one knows %d)", current, newest)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("cannot bring its schema up to date: %w", err)
	}
	return nil
}

// Tx is a transaction that may write.
type Tx struct{ tx *sql.Tx }

// Write runs change in one transaction: all of it is stored when change returns nil, none of it otherwise. It is not
// given up when ctx ends, so that the caller always knows what the database holds.
func (s *Store) Write(ctx context.Context, change func(context.Context, *Tx) error) (err error) {
	ctx = context.WithoutCancel(ctx)
	s.write.Lock()
	defer s.write.Unlock()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("cannot begin a transaction: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing, before it the first error counts
	if err := change(ctx, &Tx{tx}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("cannot commit: %w", err)
	}
	return nil
}

// exec runs a statement and says what it was for when it fails.
func (t *Tx) exec(ctx context.Context, what, statement string, args ...any) error {
	if _, err := t.tx.ExecContext(ctx, statement, args...); err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// collect runs a query and scans each row into a T through the destinations that fields names.
func collect[T any](ctx context.Context, q querier, fields func(*T) []any, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what counts
	all := []T{}
	for rows.Next() {
		var one T
		if err := rows.Scan(fields(&one)...); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

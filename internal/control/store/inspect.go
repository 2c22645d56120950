package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Summary is what a database says of itself.
type Summary struct {
	Schema int64    // version of its schema
	Known  int64    // the version that this Carpool writes
	Damage []string // what SQLite finds wrong with it
}

// Inspect reads the database at path, whatever its schema, without changing it.
func Inspect(ctx context.Context, path string) (s Summary, err error) {
	b, err := OpenBooks(ctx, path)
	if err != nil {
		return Summary{}, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if s.Damage, err = b.Damage(ctx); err != nil || len(s.Damage) > 0 {
		return s, err
	}
	if err := b.tx.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&s.Schema); err != nil {
		return Summary{}, fmt.Errorf("cannot read the schema version of %s: %w", path, advise(err))
	}
	steps, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return Summary{}, fmt.Errorf("cannot read the migrations: %w", err)
	}
	number, _, _ := strings.Cut(steps[len(steps)-1].Name(), "_")
	if s.Known, err = strconv.ParseInt(number, 10, 64); err != nil {
		return Summary{}, fmt.Errorf("cannot read the migrations: %w", err)
	}
	return s, nil
}

// Copy writes a consistent copy of the database at path into the file into, which must not exist or be empty. The schema
// stays as it is.
func Copy(ctx context.Context, path, into string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("cannot copy the database: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+pragmas)
	if err != nil {
		return fmt.Errorf("cannot copy the database %s: %w", path, err)
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", into)
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("cannot copy the database %s: %w", path, advise(err))
	}
	return nil
}

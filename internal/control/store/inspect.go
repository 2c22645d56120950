package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Summary is what a database says of itself.
type Summary struct {
	Schema    Schema
	Damage    []string // what SQLite finds wrong with it
	SealCheck string   // see State
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
	if s.Schema, err = b.schema(ctx); err != nil || s.Schema.Have > s.Schema.Known {
		return s, err
	}
	err = b.tx.QueryRowContext(ctx, "SELECT seal_check FROM policy WHERE id = 1").Scan(&s.SealCheck)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("cannot read which master key the database was sealed with: %w", advise(err))
	}
	return s, nil
}

// Schema is where a database stands.
type Schema struct {
	Have, Known int64    // its version, and the one that this Carpool writes
	Pending     []string // migrations between them
}

// ReadSchema reads where the database at path stands, without changing it and at once.
func ReadSchema(ctx context.Context, path string) (s Schema, err error) {
	b, err := OpenBooks(ctx, path)
	if err != nil {
		return Schema{}, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return b.schema(ctx)
}

func (b *Books) schema(ctx context.Context) (s Schema, err error) {
	if err := b.tx.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&s.Have); err != nil {
		return Schema{}, fmt.Errorf("cannot read the schema of the database %s: %w", b.path, advise(err))
	}
	steps, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return Schema{}, fmt.Errorf("cannot read the migrations: %w", err)
	}
	for _, step := range steps {
		number, _, _ := strings.Cut(step.Name(), "_")
		if s.Known, err = strconv.ParseInt(number, 10, 64); err != nil {
			return Schema{}, fmt.Errorf("cannot read the migrations: %w", err)
		}
		if s.Known > s.Have {
			s.Pending = append(s.Pending, strings.TrimSuffix(step.Name(), ".sql"))
		}
	}
	return s, nil
}

// Copy writes a consistent copy of the database at path into the file into, which must not exist or be empty. The schema
// stays as it is.
func Copy(ctx context.Context, path, into string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("cannot copy the database: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, pragmas))
	if err != nil {
		return fmt.Errorf("cannot copy the database %s: %w", path, err)
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", into)
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("cannot copy the database %s: %w", path, advise(err))
	}
	return nil
}

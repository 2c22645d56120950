package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Summary is what a ledger's file says of itself.
type Summary struct {
	Schema  Schema
	Entries int64    // settled ones; of a ledger in use, those that left its journal
	Damage  []string // what SQLite finds wrong with it
}

// Inspect reads the ledger in the file name, whatever its schema, without changing it.
func Inspect(ctx context.Context, name string) (s Summary, err error) {
	fail := func(err error) (Summary, error) {
		return Summary{}, fmt.Errorf("cannot read the ledger %s: %w", name, explain(err))
	}
	if _, err := os.Stat(name); err != nil {
		return fail(err)
	}
	db, err := sql.Open("sqlite", readOnly(name))
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var id int64
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return fail(err)
	}
	if id != applicationID {
		return fail(errors.New("it is a database of another program"))
	}
	if s.Damage, err = integrity(ctx, db, "PRAGMA integrity_check"); err != nil {
		return fail(err)
	}
	if len(s.Damage) > 0 {
		return s, nil // what a damaged file says is worth nothing
	}
	if s.Schema, err = readSchema(ctx, db); err != nil {
		return fail(err)
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM entries").Scan(&s.Entries); err != nil {
		return fail(err)
	}
	return s, nil
}

// Schema is where a database stands.
type Schema struct {
	Have, Known int64    // its version, and the one that this Carpool writes
	Pending     []string // migrations between them
}

// ReadSchema reads where the ledger in the file name stands, without changing it and at once.
func ReadSchema(ctx context.Context, name string) (s Schema, err error) {
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return Schema{}, fmt.Errorf("there is no ledger %s; if there was one, restore a backup with carpool db restore: %w", name, err)
	}
	db, err := sql.Open("sqlite", readOnly(name))
	if err == nil {
		s, err = readSchema(ctx, db)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		return Schema{}, fmt.Errorf("cannot read the schema of the ledger %s: %w", name, explain(err))
	}
	return s, nil
}

func readSchema(ctx context.Context, q querier) (s Schema, err error) {
	if err := q.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&s.Have); err != nil {
		return Schema{}, err
	}
	steps, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return Schema{}, err
	}
	for _, step := range steps {
		number, _, _ := strings.Cut(step.Name(), "_")
		if s.Known, err = strconv.ParseInt(number, 10, 64); err != nil {
			return Schema{}, err
		}
		if s.Known > s.Have {
			s.Pending = append(s.Pending, strings.TrimSuffix(step.Name(), ".sql"))
		}
	}
	return s, nil
}

func readOnly(name string) string {
	return (&url.URL{Scheme: "file", Path: urlPath(name), RawQuery: url.Values{
		"mode": {"ro"}, "_pragma": {"busy_timeout(" + strconv.Itoa(busyTimeout) + ")", "query_only(1)"},
	}.Encode()}).String()
}

// Migrate brings the schema of the ledger in the file path, which no process has open, up to date. Opening it does that
// too.
func Migrate(ctx context.Context, path string) error {
	f, err := openFile(ctx, path)
	if err == nil {
		err = f.close()
	}
	if err != nil {
		return fmt.Errorf("cannot bring the ledger %s up to date: %w", path, err)
	}
	return nil
}

// CopyClosed copies the ledger in the file path, which no process has open, as it is: its schema stays, and what a crash
// left is in copies of its journal beside the copy, for whoever opens that. The file into must not exist or be empty.
func CopyClosed(ctx context.Context, path, into string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot copy the ledger %s: %w", path, explain(err))
		}
	}()
	if _, err := os.Stat(path); err != nil {
		return err
	}
	f := &file{}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.claim(path); err != nil {
		return err
	}
	if f.write, err = sql.Open("sqlite", dsn(path)); err != nil {
		return err
	}
	if _, err := f.write.ExecContext(ctx, "VACUUM INTO ?", into); err != nil {
		return err
	}
	numbers, _, err := segments(path)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := copySegment(segmentPath(path, n), segmentPath(into, n)); err != nil {
			return err
		}
	}
	return nil
}

func copySegment(from, to string) (err error) {
	in, err := os.Open(from) //nolint:gosec // beside the ledger
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // beside the copy
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

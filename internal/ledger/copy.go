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
	"path"
	"strconv"
	"strings"
)

// Summary is what a ledger's file says of itself.
type Summary struct {
	Schema  int64    // version of its schema
	Known   int64    // the version that this Carpool writes
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
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: urlPath(name), RawQuery: url.Values{
		"mode": {"ro"}, "_pragma": {"busy_timeout(" + strconv.Itoa(busyTimeout) + ")", "query_only(1)"},
	}.Encode()}).String())
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
	if s.Damage, err = integrity(ctx, db); err != nil {
		return fail(err)
	}
	if len(s.Damage) > 0 {
		return s, nil // what a damaged file says is worth nothing
	}
	if err := db.QueryRowContext(ctx, "SELECT (SELECT max(version_id) FROM goose_db_version), (SELECT count(*) FROM entries)").Scan(&s.Schema, &s.Entries); err != nil {
		return fail(err)
	}
	if s.Known, err = knownSchema(); err != nil {
		return fail(err)
	}
	return s, nil
}

func knownSchema() (newest int64, err error) {
	steps, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, err
	}
	number, _, _ := strings.Cut(path.Base(steps[len(steps)-1]), "_")
	return strconv.ParseInt(number, 10, 64)
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

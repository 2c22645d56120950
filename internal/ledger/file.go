package ledger

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
	"strconv"
	"strings"
	"syscall"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	applicationID = 0x43504c47 // "CPLG", set by the first migration
	busyTimeout   = 5000       // milliseconds
	readers       = 4          // connections of the read pool
)

var errLocked = errors.New("another process has it open; stop that process or choose another file (storage.path)")

// file is the open database: one connection for the writer, a pool for readers, and the lock that keeps others out.
type file struct {
	path  string
	write *sql.DB // a single connection
	read  *sql.DB
	lock  *os.File
}

func openFile(ctx context.Context, path string) (_ *file, err error) {
	f := &file{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	f.path = path
	if err := f.claim(path); err != nil {
		return nil, err
	}
	if f.write, err = sql.Open("sqlite", dsn(path, "cache_size(-8000)", "wal_autocheckpoint(4000)")); err != nil {
		return nil, err
	}
	f.write.SetMaxOpenConns(1)
	if err := migrate(ctx, f.write); err != nil {
		return nil, explain(err)
	}
	if f.read, err = sql.Open("sqlite", dsn(path, "query_only(1)")); err != nil {
		return nil, err
	}
	f.read.SetMaxOpenConns(readers)
	f.read.SetMaxIdleConns(readers)
	return f, nil
}

// claim makes sure that path is a file this process may write and no other process uses.
func (f *file) claim(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot make its folder: %w", err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("it is a folder; name a file inside it (storage.path)")
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file; choose another (storage.path)")
	case info.Mode().Perm()&0o222 == 0:
		return errors.New("the file is read-only; make it writable for the server's user")
	}
	if f.lock, err = os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("cannot lock it: %w; the server's user must be able to write in its folder", err)
	}
	if err := tryLock(f.lock); err != nil {
		return err
	}
	// SQLite would create the file readable for everybody; its -wal and -shm files take over the mode set here.
	db, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("%w; make it writable for the server's user", err)
	}
	return db.Close()
}

func (f *file) close() error {
	var wrong []error
	for _, db := range []*sql.DB{f.read, f.write} {
		if db != nil {
			wrong = append(wrong, db.Close())
		}
	}
	if f.lock != nil {
		wrong = append(wrong, unlock(f.lock), f.lock.Close())
	}
	return errors.Join(wrong...)
}

// dsn puts the pragmas into the data source name, because a PRAGMA run on a pool reaches only one of its connections.
func dsn(path string, pragmas ...string) string {
	pragmas = append([]string{
		"busy_timeout(" + strconv.Itoa(busyTimeout) + ")",
		"journal_mode(WAL)",
		"synchronous(NORMAL)",
		"foreign_keys(1)",
	}, pragmas...)
	query := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	return (&url.URL{Scheme: "file", Path: urlPath(path), RawQuery: query.Encode()}).String()
}

// urlPath is a path as SQLite takes it in a URL: absolute, or its first folder would be a host.
func urlPath(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/…
	}
	return path
}

// migrate brings the schema up to date, and refuses files that are not a ledger or come from a newer Carpool.
func migrate(ctx context.Context, db *sql.DB) error {
	var id, tables int64
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if id != applicationID && tables > 0 {
		return errors.New("it is a database of another program; choose another file (storage.path), or restore a backup with carpool db restore if it was the ledger")
	}
	steps, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, steps, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	have, know, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > know {
		return fmt.Errorf("its schema is version %d and this Carpool knows up to %d; run the newer Carpool that wrote it; if there was none, restore a backup with carpool db restore", have, know)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("cannot bring its schema up to date: %w", err)
	}
	return nil
}

// explain adds what to do to the errors of SQLite that a person can do something about.
func explain(err error) error {
	switch code(err) {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("it is not an SQLite database; choose another file (storage.path), or restore a backup with carpool db restore if it was the ledger: %w", err)
	case sqlite3.SQLITE_ERROR:
		return fmt.Errorf("the file is not as Carpool made it; if it was damaged, restore a backup with carpool db restore: %w", err)
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("the file is damaged; restore a backup with carpool db restore: %w", err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("%w: %w", errLocked, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("the disk is full; make room: %w", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("the server's user must be able to write the file and its folder: %w", err)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk is full; make room: %w", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the file system is read-only; make it writable again, and see the system's log for why it is: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the server's user must be able to write the file and its folder: %w", err)
	case errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("the file may not grow further; raise the limit of the server's process (ulimit -f) or of the file system: %w", err)
	case errors.Is(err, syscall.EIO), code(err) == sqlite3.SQLITE_IOERR:
		return fmt.Errorf("the disk or its file system fails; see the system's log: %w", err)
	}
	return err
}

// code returns SQLite's primary result code, or 0 for other errors.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

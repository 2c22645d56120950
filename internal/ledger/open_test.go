package ledger_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"carpool/internal/ledger"
)

// raw opens a database behind the ledger's back.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t *testing.T, path, query string) {
	t.Helper()
	db := raw(t, path)
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		why  string
		make func(t *testing.T, path string) // path does not exist yet
		want []string
	}{
		{"a folder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, []string{"it is a folder", "storage.path"}},
		{"another kind of file", func(t *testing.T, path string) {
			write(t, path, bytes.Repeat([]byte("node: {name: edge}\n"), 100))
		}, []string{"not an SQLite database", "storage.path"}},
		{"another program's database", func(t *testing.T, path string) {
			execute(t, path, `CREATE TABLE bookmarks (url TEXT)`)
		}, []string{"another program", "storage.path"}},
		{"a read-only file", func(t *testing.T, path string) {
			shut(t, open(t, path, noon()))
			if err := os.Chmod(path, 0o400); err != nil {
				t.Fatal(err)
			}
		}, []string{"read-only", "writable"}},
		{"a newer schema", func(t *testing.T, path string) {
			shut(t, open(t, path, noon()))
			execute(t, path, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)
		}, []string{"schema is version 99", "newer Carpool"}},
		{"a damaged file", func(t *testing.T, path string) {
			l := open(t, path, noon())
			for i := range 50 {
				finish(t, reserve(t, l, ask(fmt.Sprint("e", i), 0, -1, -1)), 1)
			}
			shut(t, l)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 200; i < len(data); i++ {
				data[i] ^= 0xa5
			}
			write(t, path, data)
		}, []string{"damaged", "backup"}},
		{"a truncated file", func(t *testing.T, path string) {
			shut(t, open(t, path, noon()))
			if err := os.Truncate(path, 5000); err != nil {
				t.Fatal(err)
			}
		}, []string{"damaged", "backup"}},
		{"a file in use", func(t *testing.T, path string) { open(t, path, noon()) }, []string{"another process", "storage.path"}},
		{"a file another program has locked", func(t *testing.T, path string) {
			shut(t, open(t, path, noon()))
			db := raw(t, path+"?_pragma=locking_mode(EXCLUSIVE)&_txlock=exclusive")
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback() })
		}, []string{"another process", "storage.path"}},
		{"a folder that is a file", func(t *testing.T, path string) {
			write(t, filepath.Dir(path)+"/file", nil)
			if err := os.Symlink(filepath.Dir(path)+"/file/x", path); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a directory"}},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			path := file(t)
			c.make(t, path)
			l, err := ledger.Open(t.Context(), path, ledger.Options{Node: "n1"})
			if err == nil {
				_ = l.Close()
				t.Fatal("it was opened")
			}
			message := err.Error()
			for _, want := range append(c.want, "cannot open ledger "+path+": ") {
				if !strings.Contains(message, want) {
					t.Errorf("%q does not say %q", message, want)
				}
			}
			if strings.Contains(message, "\n") {
				t.Errorf("more than a line: %q", message)
			}
		})
	}
}

func TestOpenMakesPrivateFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "a b?c#d%20é", "ledger.db")
	l := open(t, path, noon())
	finish(t, reserve(t, l, ask("e1", 0, -1, -1)), 1)
	for name, want := range map[string]os.FileMode{
		filepath.Dir(path): 0o700, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, path + ".lock": 0o600,
		path + ".journal.00000001": 0o600,
	} {
		info, err := os.Stat(name)
		if err != nil {
			t.Error(err)
		} else if runtime.GOOS != "windows" && info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), want)
		}
	}
}

func TestPragmas(t *testing.T) {
	path := file(t)
	shut(t, open(t, path, noon()))
	var mode string
	if err := raw(t, path).QueryRowContext(t.Context(), `PRAGMA journal_mode`).Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %s, %v", mode, err)
	}
}

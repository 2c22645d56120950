package ledger

import (
	"database/sql"
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/pressly/goose/v3"
)

// A ledger of a Carpool without a journal has its openings in the database.
func TestUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, steps, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `
		INSERT INTO entries VALUES (1, 'n1', 'e1', 'alice', 'messages', 'finished', 1, '2026-11-23', '2026-11', 7, 0, 0, 0, 0, 0, 7, '{"id":"e1","outcome":"finished"}');
		INSERT INTO counters VALUES ('alice', 'daily', '2026-11-23', 4102444800, 7, 0), ('alice', 'monthly', '2026-11', 4102444800, 7, 0);
		INSERT INTO openings VALUES ('e2', 'alice', '2026-11-23', 4102444800, '2026-11', 4102444800, 10, 5, 5, '{"id":"e2","user":"alice"}');
		UPDATE state SET acknowledged = 1`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for range 2 {
		l, err := Open(t.Context(), path, Options{Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := outcomes(t, l), []string{"e1 finished", "e2 crashed"}; !reflect.DeepEqual(got, want) || l.Acknowledged() != 1 || l.LastSeq() != 2 {
			t.Errorf("%v, acknowledged %d", got, l.Acknowledged())
		}
		names[l.name] = true
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(names) != 1 || names[""] {
		t.Errorf("the ledger's name changes: %v", names)
	}
}

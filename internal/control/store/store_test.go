package store_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carpool/internal/control/store"
)

func TestOpenAgainKeepsAndNewerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd name?#%", "control.db")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err = s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(tx.PutTeam(ctx, store.Team{Name: "lost", CreatedAt: time.Now()}), boom)
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	err = s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.PutTeam(ctx, store.Team{Name: "kept", CreatedAt: time.Now()})
	})
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	state, err := s.Load(t.Context())
	if err != nil || len(state.Teams) != 1 || state.Teams[0].Name != "kept" {
		t.Errorf("%+v %v", state, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "newer version of carpool") {
		t.Errorf("%v", err)
	}
}

func TestUnusableDatabases(t *testing.T) {
	folder := t.TempDir()
	garbage := filepath.Join(folder, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{garbage, folder, filepath.Join(garbage, "below", "a.db")} {
		if s, err := store.Open(t.Context(), path); err == nil {
			t.Errorf("%s opened: %v", path, s.Close())
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("not one line: %v", err)
		} else if path == garbage && (!strings.Contains(err.Error(), "carpool db restore") || !strings.Contains(err.Error(), garbage)) {
			t.Errorf("does not say what to do: %v", err)
		}
	}
	data, err := os.ReadFile(garbage)
	if err != nil || !strings.HasPrefix(string(data), "this is no database") {
		t.Error("the file was changed")
	}
}

package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carpool/internal/config"
	"carpool/internal/ledger"
	"carpool/internal/policy"
)

func TestBackups(t *testing.T) {
	dir := t.TempDir()
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, now: time.Now}
	cfg, err := config.Load(config.Options{DataDir: dir, Overrides: []config.Override{
		{Key: "server.port", Value: "0", Source: "test"}, {Key: "metrics.listen", Value: "off", Source: "test"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.startStandalone(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // looked at below where it matters
	if _, err := s.control.Apply(t.Context(), policy.Resources{Users: []policy.UserSpec{{Name: "alice"}}}, false); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range keptBackups + 2 {
		if err := s.backUpOnce(t.Context(), start.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"control", "node"} {
		copies, err := filepath.Glob(filepath.Join(dir, "backups", name+"*"))
		if err != nil || len(copies) != keptBackups {
			t.Errorf("%d copies of %s: %v", len(copies), name, copies)
		}
	}
	// A copy is a whole ledger.
	copies, _ := filepath.Glob(filepath.Join(dir, "backups", "node-*.db"))
	l, err := ledger.Open(t.Context(), copies[0], ledger.Options{Node: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheNextBackupIsDueByTheNewestCopy(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		copies []string
		want   time.Duration
	}{
		{nil, 0},
		{[]string{"node-20261123T110000.000Z.db", "control-last.db", "control.unfinished"}, 0},
		{[]string{"control-20261121T120000.000Z.db"}, 0},
		{[]string{"control-20261121T120000.000Z.db", "control-20261123T110000.000Z.db"}, 23 * time.Hour},
		{[]string{"control-20261123T120000.000Z.db"}, 24 * time.Hour},
		{[]string{"control-20271123T120000.000Z.db"}, 24 * time.Hour},
	} {
		folder := t.TempDir()
		for _, name := range c.copies {
			if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := untilBackup(folder, 24*time.Hour, now); got != c.want {
			t.Errorf("%v: due in %v, want %v", c.copies, got, c.want)
		}
	}
}

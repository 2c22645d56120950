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
)

// A part of the data folder that is missing is said to be missing, and nothing is made in its place.
func TestAFolderThatWasInUseMustBeWhole(t *testing.T) {
	for _, tt := range []struct{ lost, says string }{
		{"master.key", "master.key is missing"},
		{"control.db", "control.db is missing or empty"},
		{"node.db", "node.db is missing or empty although its signed head"},
	} {
		dir := t.TempDir()
		a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, now: time.Now}
		cfg, err := config.Load(config.Options{DataDir: dir, Overrides: []config.Override{
			{Key: "server.port", Value: "0", Source: "test"}, {Key: "metrics.listen", Value: "off", Source: "test"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		begin := func() error {
			s, err := a.startStandalone(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			return s.Close()
		}
		if err := begin(); err != nil {
			t.Fatal(err)
		}
		lost := filepath.Join(dir, tt.lost)
		if err := os.Remove(lost); err != nil {
			t.Fatal(err)
		}
		if err := begin(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("without %s: %v", tt.lost, err)
		}
		if _, err := os.Stat(lost); err == nil {
			t.Errorf("a new %s was made", tt.lost)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for text, want := range map[string]string{"/a/b-c.d": "/a/b-c.d", "/a b": "'/a b'", "": "''", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		if got := shellQuote(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

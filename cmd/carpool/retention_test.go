package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"carpool/internal/config"
	"carpool/internal/control"
	"carpool/internal/policy"
)

// Entries that control has rolled up are no drift while the ledger still has them, and are not booked again by a node that
// was restored from a backup.
func TestVerifyKnowsWhatWasRolledUp(t *testing.T) {
	s := newSite(t)
	r := s.start()
	r.spend("a", "b")
	open := r.begin("c")
	older := r.copy("node")
	r.end(open)
	r.stop()
	s.rollUp(s.now.AddDate(0, 0, 3))
	cfg, err := config.Load(config.Options{DataDir: s.folder, Overrides: []config.Override{{Key: "node.name", Value: "local", Source: "test"}}})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, findings ...string) {
		t.Helper()
		v, err := verifyBooks(t.Context(), cfg, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, f := range v.Findings {
			got = append(got, f.Check+": "+f.What)
		}
		if strings.Join(got, "\n") != strings.Join(findings, "\n") || v.Entries != 3 {
			t.Errorf("%s: %d entries, %q; want %q", when, v.Entries, got, findings)
		}
	}
	expect("rolled up")

	s.restore("node", older) // c is open in it, and settled as crashed
	r = s.start()
	r.stop()
	s.expect()
	expect("restored")

	db, err := sql.Open("sqlite", s.path("control"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing is left to be written
	if _, err := db.ExecContext(t.Context(), `UPDATE rollups SET cost_micro_usd = cost_micro_usd + 1000000`); err != nil {
		t.Fatal(err)
	}
	expect("dearer", "rollups: control's roll-ups have +0 requests, +0 tokens and +1000000 micro-dollars against the entries that they are made of")
}

// rollUp has control roll up all that it has.
func (s *site) rollUp(now time.Time) {
	s.t.Helper()
	master, err := control.LoadMasterKey(filepath.Join(s.folder, "master.key"), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := control.Open(s.t.Context(), control.Options{
		StorePath: s.path("control"), MasterKey: master, Settings: policy.Settings{TimeZone: "UTC", Formula: policy.DefaultFormula()},
		Now: func() time.Time { return now }, Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Version: "test",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.t.Context())
	var forgetting sync.WaitGroup
	forgetting.Go(func() { c.Forget(ctx, time.Hour) })
	for len(booked(s.t, s.path("control"))) > 0 {
		runtime.Gosched()
	}
	stop()
	forgetting.Wait()
	if err := c.Close(); err != nil {
		s.t.Error(err)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/config"
	"carpool/internal/control"
	"carpool/internal/ledger"
)

const (
	startCheck  = 5 * time.Second  // for a look at control's database before it is opened
	firstVerify = 10 * time.Minute // after the start, so that a server that is often restarted verifies its books, too
	verifyShare = 4                // of the time, one part is for verifying
)

// checkAtStart refuses databases that are damaged, as far as that can be seen in some seconds, or returns what is wrong with
// them where the server is to serve nevertheless. Of one that cannot be read at all its opening tells.
func checkAtStart(ctx context.Context, cfg *config.Config) (findings []ledger.Finding, err error) {
	if v, err := ledger.VerifyStart(ctx, cfg.Storage.Path); err == nil {
		findings = v.Findings
	}
	if damage, err := controlDamage(ctx, cfg); err == nil {
		findings = append(findings, damage...)
	}
	if len(findings) == 0 || cfg.Storage.OnDamage == "warn" {
		return findings, nil
	}
	first, others := findings[0], ""
	if n := len(findings) - 1; n > 0 {
		others = fmt.Sprintf(" (and %d more, see carpool db verify)", n)
	}
	return nil, fmt.Errorf("the books in %s are damaged, and nothing is served from them: %s: %s%s; restore the last backup with 'carpool db restore FILE --data %s', "+
		"or set storage.onDamage to warn to serve nevertheless", cfg.DataDir, first.Check, first.What, others, shellQuote(cfg.DataDir))
}

// filled reports whether there is anything in a file.
func filled(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

// controlDamage looks through control's database, and whether the ledger that it has entries of is there.
func controlDamage(ctx context.Context, cfg *config.Config) (findings []ledger.Finding, err error) {
	path := cfg.Control.Store.Path
	if !filled(path) {
		return lostLedger(ctx, cfg, nil)
	}
	books, err := control.OpenBooks(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, books.Close()) }()
	lines, err := books.QuickDamage(ctx, startCheck)
	if err != nil {
		return nil, err
	}
	readable := books
	if len(lines) > 0 {
		readable = nil
	}
	lost, err := lostLedger(ctx, cfg, readable)
	return append(lost, ofControl(path, lines)...), err
}

// lostLedger tells of a ledger whose file is missing or empty although there was one: its signed head is there, or control,
// if it can be asked, has entries of it. A server that makes it anew forgets what quotas and budgets have used.
func lostLedger(ctx context.Context, cfg *config.Config, books *control.Books) ([]ledger.Finding, error) {
	path := cfg.Storage.Path
	if filled(path) {
		return nil, nil
	}
	var trace string
	if head := ledger.HeadPath(path); filled(head) {
		trace = "its signed head " + head + " is there"
	} else if books != nil {
		last, err := books.LastSeq(ctx, cfg.Node.Name)
		if err != nil {
			return nil, err
		}
		if last > 0 {
			trace = fmt.Sprintf("%s has entries of it, up to %d", cfg.Control.Store.Path, last)
		}
	}
	if trace == "" {
		return nil, nil
	}
	return []ledger.Finding{{
		Check: "integrity",
		What:  fmt.Sprintf("the ledger %s is missing or empty although %s: in a new one nothing is used of quotas and budgets", path, trace),
		Do:    restoreBackup,
	}}, nil
}

// ofControl makes a finding of what SQLite says of control's database.
func ofControl(path string, lines []string) []ledger.Finding {
	if len(lines) == 0 {
		return nil
	}
	what := "control's database " + path + " is damaged: " + lines[0]
	if n := len(lines) - 1; n > 0 {
		what += fmt.Sprintf(" (and %d more of these)", n)
	}
	return []ledger.Finding{{Check: "integrity", What: what, Do: restoreBackup}}
}

// watchBooks verifies the books while the server runs, now and then and without haste.
type watchBooks struct {
	cfg      *config.Config
	log      *slog.Logger
	warn     func(problem string) // what health checks are to say; "" for nothing
	at       prometheus.Gauge
	findings prometheus.Gauge
	failures prometheus.Counter
}

func newWatchBooks(cfg *config.Config, log *slog.Logger, registry prometheus.Registerer, warn func(string)) *watchBooks {
	w := &watchBooks{
		cfg: cfg, log: log, warn: warn,
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carpool_ledger_verify_timestamp_seconds", Help: "When the last verification of the books ended; 0 before the first one.",
		}),
		findings: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carpool_ledger_verify_findings", Help: "What the last verification of the books, or before one the look at the start, found to be wrong.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carpool_ledger_verify_failures_total", Help: "Verifications of the books that could not be carried out.",
		}),
	}
	registry.MustRegister(w.at, w.findings, w.failures)
	return w
}

// run verifies at each interval until ctx ends.
func (w *watchBooks) run(ctx context.Context, now func() time.Time) {
	interval := w.cfg.Storage.VerifyInterval
	timer := time.NewTimer(min(interval, firstVerify))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := w.once(ctx, now); err != nil && ctx.Err() == nil {
			w.failures.Inc()
			w.log.ErrorContext(ctx, "cannot verify the books", slog.String("error", err.Error()))
		}
		timer.Reset(interval)
	}
}

func (w *watchBooks) once(ctx context.Context, now func() time.Time) error {
	begun := now()
	v, err := verifyBooks(ctx, w.cfg, "", unhurried())
	if err != nil {
		return err
	}
	w.at.Set(float64(now().UnixMilli()) / 1000)
	w.tell(ctx, v.Findings)
	if len(v.Findings) == 0 {
		w.log.InfoContext(ctx, "the books are verified", slog.Int64("entries", v.Entries), slog.Int64("counters", v.Counters), slog.Int64("tookMs", now().Sub(begun).Milliseconds()))
	}
	return nil
}

// tell says what is wrong with the books, until it is called again.
func (w *watchBooks) tell(ctx context.Context, findings []ledger.Finding) {
	w.findings.Set(float64(len(findings)))
	if len(findings) == 0 {
		w.warn("")
		return
	}
	var names []string
	for _, f := range findings {
		if !slices.Contains(names, f.Check) {
			names = append(names, f.Check)
		}
	}
	w.warn("the books are not as they should be (" + strings.Join(names, ", ") + "); see the log and carpool db verify")
	for _, f := range findings {
		w.log.ErrorContext(ctx, "the books are not as they should be", slog.String("check", f.Check), slog.String("what", f.What), slog.String("do", f.Do))
	}
}

// unhurried returns a pause that leaves most of the time to others.
func unhurried() func(context.Context) error {
	since := time.Now()
	return func(ctx context.Context) error {
		timer := time.NewTimer(time.Since(since) * (verifyShare - 1))
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
		since = time.Now()
		return nil
	}
}

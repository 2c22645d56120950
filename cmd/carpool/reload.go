package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/config"
)

const (
	settleTime    = 200 * time.Millisecond // after the last sign of a change, before files are read: editors write in several steps
	longestSettle = 2 * time.Second        // after the first sign
)

// reloader keeps a running server in step with its configuration, its resources and its certificate: on SIGHUP, and when
// one of the files changes. What is wrong in any of them leaves all of the old in force. One goroutine does it all.
type reloader struct {
	app     *app
	server  *standalone
	level   *slog.LevelVar
	load    func() (*config.Config, error)
	running *config.Config // as at the start: what it says of addresses and paths holds until the end
	current *config.Config // as last read
	watcher *fsnotify.Watcher
	folders []string // watched
	names   []string // of the files in them that matter
	seen    [sha256.Size]byte
	results *prometheus.CounterVec
	last    prometheus.Gauge
}

// keepUp starts a reloader and returns what ends it. seen is the fingerprint of the files as the server was started with
// them, so that a change during the start is noticed.
func (a *app) keepUp(ctx context.Context, s *standalone, level *slog.LevelVar, hangups <-chan os.Signal, seen [sha256.Size]byte, load func() (*config.Config, error)) (stop func()) {
	r := &reloader{
		app: a, server: s, level: level, load: load, running: s.cfg, current: s.cfg, seen: seen,
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_config_reloads_total", Help: "Attempts to read the configuration again, by result.",
		}, []string{"result"}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carpool_config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was read.",
		}),
	}
	s.registry.MustRegister(r.results, r.last)
	for _, result := range []string{"success", "failure"} {
		r.results.WithLabelValues(result)
	}
	r.last.Set(float64(a.now().UnixMilli()) / 1000)
	r.startWatching()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.run(ctx, hangups)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// startWatching makes do with SIGHUP where the system cannot tell of changes.
func (r *reloader) startWatching() {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.server.log.Warn("changes of the configuration are not noticed; send SIGHUP after one", slog.String("error", err.Error()))
		return
	}
	r.watcher = watcher
	r.watch()
}

// watch follows the files of the current configuration, through their folders: editors replace a file by renaming another
// one, and Kubernetes replaces the folder ..data to which the files are links.
func (r *reloader) watch() {
	if r.watcher == nil {
		return
	}
	var folders []string
	r.names = []string{"..data"}
	for _, file := range filesOf(r.current) {
		paths := []string{file}
		if real, err := filepath.EvalSymlinks(file); err == nil && real != file {
			paths = append(paths, real)
		}
		for _, path := range paths {
			folders, r.names = append(folders, filepath.Dir(path)), append(r.names, filepath.Base(path))
		}
	}
	slices.Sort(folders)
	folders = slices.Compact(folders)
	for _, old := range r.folders {
		if !slices.Contains(folders, old) {
			_ = r.watcher.Remove(old) // it may be gone
		}
	}
	for _, folder := range folders {
		// Adding a watched one again does nothing, unless it is another folder of the same name by now.
		if err := r.watcher.Add(folder); err != nil {
			r.server.log.Warn("changes in a folder are not noticed; send SIGHUP after one", slog.String("folder", folder), slog.String("error", err.Error()))
		}
	}
	r.folders = folders
}

// filesOf are the absolute paths of the files that make up a configuration.
func filesOf(cfg *config.Config) []string {
	var files []string
	for _, name := range []string{cfg.File(), cfg.Resources, cfg.Server.TLS.CertFile, cfg.Server.TLS.KeyFile} {
		if path, err := filepath.Abs(name); err == nil && name != "" {
			files = append(files, path)
		}
	}
	return files
}

// fingerprint tells whether the content of any file is another one.
func fingerprint(files []string) (sum [sha256.Size]byte) {
	all := sha256.New()
	for _, file := range files {
		data, err := os.ReadFile(file)
		fmt.Fprintf(all, "%s\x00%t\x00%x", file, err == nil, sha256.Sum256(data))
	}
	return [sha256.Size]byte(all.Sum(nil))
}

func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) {
	var (
		events <-chan fsnotify.Event
		faults <-chan error
		first  time.Time // sign of the change that is settling; zero: none
	)
	if r.watcher != nil {
		defer func() { _ = r.watcher.Close() }()
		events, faults = r.watcher.Events, r.watcher.Errors
	}
	settle := time.NewTimer(settleTime)
	defer settle.Stop()
	sign := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		settle.Reset(min(settleTime, longestSettle-now.Sub(first)))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			r.seen = fingerprint(filesOf(r.current))
			r.reload(ctx)
		case event := <-events:
			if slices.Contains(r.names, filepath.Base(event.Name)) {
				sign()
			}
		case err := <-faults:
			r.server.log.Warn("a change may have been missed", slog.String("error", err.Error()))
			sign()
		case <-settle.C:
			first = time.Time{}
			if now := fingerprint(filesOf(r.current)); now != r.seen {
				r.seen = now
				r.reload(ctx)
			}
		}
	}
}

// reload makes one attempt and says how it went.
func (r *reloader) reload(ctx context.Context) {
	log := r.server.log
	next, err := r.load()
	if err == nil {
		err = r.bringInForce(ctx, next)
	}
	if err != nil {
		r.results.WithLabelValues("failure").Inc()
		log.Error("the configuration in force stays", slog.String("error", strings.ReplaceAll(err.Error(), "\n", "; ")))
		return
	}
	for _, key := range changedKeys(r.current, next) {
		if !r.changesLive(key, next) {
			log.Warn("a changed setting needs a restart", slog.String("setting", key))
		}
	}
	files := filesOf(r.current)
	r.current = next
	r.watch()
	if now := filesOf(next); !slices.Equal(files, now) {
		r.seen = fingerprint(now)
	}
	r.results.WithLabelValues("success").Inc()
	r.last.Set(float64(r.app.now().UnixMilli()) / 1000)
	log.Info("configuration read again")
}

// bringInForce checks everything before it changes anything.
func (r *reloader) bringInForce(ctx context.Context, next *config.Config) error {
	s := r.server
	if next.Empty() && !r.current.Empty() { // somebody is about to write it, mostly
		return fmt.Errorf("%s is empty", next.File())
	}
	pair, err := s.certificate.next(next.Server.TLS)
	if err != nil {
		return err
	}
	if err := r.app.applyConfigured(ctx, s.control, next, true); err != nil {
		return err
	}
	if err := s.control.UpdateSettings(ctx, settings(next), defaultQuota(next)); err != nil {
		return fmt.Errorf("cannot change settings: %w", err)
	}
	if err := r.app.applyConfigured(ctx, s.control, next, false); err != nil {
		return errors.Join(err, s.control.UpdateSettings(ctx, settings(r.current), defaultQuota(r.current)))
	}
	// Nothing from here on can fail.
	s.warnOfPrices(ctx)
	if pair != nil {
		s.certificate.current.Store(pair)
	}
	_ = r.level.UnmarshalText([]byte(next.Log.Level)) // one of four words, which the configuration has checked
	s.front.TrustProxies(next.Server.TrustedNetworks())
	s.node.SetBodyLimits(s.capacity.bodies(next.Server))
	s.developers.SetDrain(drainOf(next))
	s.developers.SetMaxConnections(s.capacity.connections(next.Server))
	return nil
}

// changesLive says whether a setting has been brought in force, or is what it was at the start.
func (r *reloader) changesLive(key string, next *config.Config) bool {
	switch key {
	case "log.level", "timeZone", "organization", "resources", "server.drainDelay", "server.drainTimeout", "server.maxBodyBytes",
		"server.maxBodyMemory", "server.maxConnections", "server.readBodyTimeout", "server.trustedProxies":
		return true
	case "server.tls.certFile", "server.tls.keyFile":
		return next.Server.TLS.Enabled() == r.running.Server.TLS.Enabled()
	}
	return strings.HasPrefix(key, "claudeCode.") || strings.HasPrefix(key, "prices.") || !slices.Contains(changedKeys(r.running, next), key)
}

// changedKeys are the paths of the settings in which two configurations differ, in the order of the documentation.
func changedKeys(a, b *config.Config) []string {
	return differences("", reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
}

func differences(path string, a, b reflect.Value) []string {
	if a.Kind() != reflect.Struct {
		if reflect.DeepEqual(a.Interface(), b.Interface()) {
			return nil
		}
		return []string{strings.TrimPrefix(path, ".")}
	}
	var keys []string
	for i := range a.NumField() {
		if key := a.Type().Field(i).Tag.Get("key"); key != "" {
			keys = append(keys, differences(path+"."+key, a.Field(i), b.Field(i))...)
		}
	}
	return keys
}

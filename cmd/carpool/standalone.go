package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // calendar windows need zones on machines that have none installed

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"carpool/internal/config"
	"carpool/internal/control"
	"carpool/internal/ledger"
	"carpool/internal/node"
	"carpool/internal/policy"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// systemPrompt is the system block of Claude Code, ensured for its clients that bring none.
const systemPrompt = "You are Claude Code, Anthropic's official CLI for Claude."

// standalone is control and node in one process.
type standalone struct {
	cfg         *config.Config
	log         *slog.Logger
	registry    *prometheus.Registry
	control     *control.Control
	ledger      *ledger.Ledger
	node        *node.Node
	front       *web.Front
	developers  *web.Server   // drained first
	servers     []*web.Server // all others
	certificate *certificate  // of server.tls; nil: plain HTTP
	capacity    capacity
	damage      []ledger.Finding // what the look at the start found, with storage.onDamage: warn
	port        int
	address     string // base URL for developers on this machine
	reachable   bool   // from other machines, too
	metrics     string // URL of the metrics; "" when off
	closers     []func() error
}

// errFolderInUse is the beginning of what lockFolder says when a server has a data folder.
var errFolderInUse = errors.New("another server uses the data folder")

// startStandalone opens the data folder and everything in it, and listens. Close what it returns.
func (a *app) startStandalone(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *standalone, err error) {
	s := &standalone{cfg: cfg, log: log, registry: prometheus.NewRegistry(), capacity: machineCapacity()}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w; choose another with --data", err)
	}
	unlock, err := lockFolder(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	s.closeLater(unlock)
	listener, err := listen(ctx, cfg.Server.Address(), "--listen or server.port")
	if err != nil {
		return nil, err
	}
	s.closeLater(listener.Close)
	key := masterKey(cfg)
	if err := checkWhole(cfg, key); err != nil {
		return nil, err
	}
	if err := a.backUpBeforeUpgrade(ctx, cfg, log); err != nil {
		return nil, err
	}
	if s.damage, err = checkAtStart(ctx, cfg); err != nil {
		return nil, err
	}
	master, err := control.LoadMasterKey(key, rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx, a, master); err != nil {
		return nil, err
	}
	if err := pruneUpgrades(cfg); err != nil {
		log.WarnContext(ctx, "old backups stay", slog.String("error", err.Error()))
	}
	return s, s.listenAll(ctx, a, listener)
}

// checkWhole refuses a data folder that was in use and of which a part is missing: what would be made anew in its place is
// either useless beside the rest or looks like a server that has lost everything.
func checkWhole(cfg *config.Config, key string) error {
	store, books := filled(cfg.Control.Store.Path), filled(cfg.Storage.Path)
	switch hasKey := filled(key); {
	case store && !hasKey:
		return fmt.Errorf("%s is missing, without which %s cannot be read; put your copy of it back (or move %s away to start anew)", key, cfg.Control.Store.Path, cfg.Control.Store.Path)
	case hasKey && books && !store:
		return fmt.Errorf("%s is missing or empty although this data folder was in use; restore a backup of it (or move %s and %s away to start anew)",
			cfg.Control.Store.Path, cfg.Storage.Path, ledger.HeadPath(cfg.Storage.Path))
	}
	return nil
}

// open opens control, applies the configured resources, and starts the node on it.
func (s *standalone) open(ctx context.Context, a *app, master control.MasterKey) (err error) {
	cfg := s.cfg
	s.control, err = control.Open(ctx, control.Options{
		StorePath: cfg.Control.Store.Path, MasterKey: master, Settings: settings(cfg), DefaultQuota: defaultQuota(cfg),
		BootstrapToken: policy.NewSecret(cfg.Admin.Token.Reveal()), Now: a.now, Random: rand.Reader, Log: s.log,
		Version: readBuildInfo().Version, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.closeLater(s.control.Close)
	if err := a.applyConfigured(ctx, s.control, cfg, false); err != nil {
		return err
	}
	s.warnOfPrices(ctx)
	signer, err := ledger.LoadKey(nodeKey(cfg), rand.Reader)
	if err != nil {
		return err
	}
	s.ledger, err = ledger.Open(ctx, cfg.Storage.Path, ledger.Options{Node: cfg.Node.Name, Now: a.now, Log: s.log, Registerer: s.registry, Key: signer, SyncInterval: &cfg.Ledger.SyncInterval})
	if err != nil {
		return err
	}
	s.closeLater(s.ledger.Close)
	s.node, err = node.New(ctx, node.Options{
		Name: cfg.Node.Name, Version: readBuildInfo().Version, Link: s.control.Link(cfg.Node.Name), Ledger: s.ledger, Hasher: master.Hasher(),
		Client: wire.ClientOptions{
			HeaderTimeout: cfg.Server.RequestTimeout, DialTimeout: 10 * time.Second, IdleTimeout: 90 * time.Second, IdlePerUpstream: 256,
		},
		Bodies: s.capacity.bodies(cfg.Server), MaxRequests: int64(s.capacity.requests(cfg.Server)), Log: s.log, Registerer: s.registry, Now: a.now,
		Retention: cfg.Storage.Retention,
	})
	if err != nil {
		return err
	}
	s.follow(ctx, a.now)
	return nil
}

// follow keeps the node in touch with control, rolls up what is old, makes backups and verifies the books, until Close, which lets the node ship what the ledger
// still holds.
func (s *standalone) follow(ctx context.Context, now func() time.Time) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var loops sync.WaitGroup
	loops.Go(func() { s.node.Run(ctx) })
	if retention := s.cfg.Control.Store.Retention; retention > 0 {
		loops.Go(func() { s.control.Forget(ctx, retention) })
	}
	if s.cfg.Storage.BackupInterval > 0 {
		loops.Go(func() { s.backUp(ctx, now) })
	}
	watch := newWatchBooks(s.cfg, s.log, s.registry, s.node.Warn)
	watch.tell(ctx, s.damage)
	if s.cfg.Storage.VerifyInterval > 0 {
		loops.Go(func() { watch.run(ctx, now) })
	}
	s.closeLater(func() error {
		stop()
		loops.Wait()
		return nil
	})
}

// listenAll makes the servers: developers, administration over the network and over the socket, metrics.
func (s *standalone) listenAll(ctx context.Context, a *app, main net.Listener) error {
	cfg := s.cfg
	counts := web.NewMetrics(s.registry)
	s.front = web.NewFront(s.log, counts, a.now)
	s.front.TrustProxies(cfg.Server.TrustedNetworks())
	admin, metrics := s.front.Around("/admin", s.control.Handler()), promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})
	mounts := map[string]http.Handler{}
	if cfg.Admin.Listen == "" {
		mounts["/admin/"] = admin
	}
	if cfg.Metrics.OnMain() {
		mounts["/metrics"] = metrics
	}
	if cfg.Server.TLS.Enabled() {
		pair, err := loadCertificate(cfg.Server.TLS)
		if err != nil {
			return err
		}
		s.certificate = &certificate{}
		s.certificate.current.Store(pair)
	}
	s.address, s.reachable = baseURL(cfg, main.Addr())
	if tcp, ok := main.Addr().(*net.TCPAddr); ok {
		s.port = tcp.Port
	}
	serve := s.front.Serve(s.node.Handle)
	options := s.serverOptions("developers", main, mount(mounts, wire.NewHandler(serve, wire.HandlerOptions{WriteTimeout: cfg.Server.WriteTimeout})))
	options.Plain, options.NotPlain = serve, func(path string) bool { return mounted(mounts, path) != nil }
	options.TLS, options.Drain, options.MaxConnections = s.certificate.config(), drainOf(cfg), s.capacity.connections(cfg.Server)
	options.SlowClient = counts.SlowClient(options.Name)
	s.developers = web.NewServer(ctx, options)
	if options.MaxConnections < cfg.Server.MaxConnections && cfg.Given("server.maxConnections") {
		s.log.Warn("fewer connections than server.maxConnections are possible with the limit of open files",
			slog.Int("maxConnections", options.MaxConnections), slog.Int("openFiles", s.capacity.files))
	}

	socket, err := control.ListenSocket(ctx, socketPath(cfg))
	if err != nil {
		return err
	}
	s.closeLater(socket.Close)
	withdraw, err := publishAddress(cfg, s.address)
	if err != nil {
		return err
	}
	s.closeLater(withdraw)
	s.serve(ctx, s.serverOptions("administration socket", socket, mount(
		map[string]http.Handler{copyPath: http.HandlerFunc(s.serveCopy)}, s.front.Around("/admin", s.control.SocketHandler()))))
	if cfg.Admin.Listen != "" {
		l, err := listen(ctx, cfg.Admin.Listen, "admin.listen")
		if err != nil {
			return err
		}
		s.closeLater(l.Close)
		options := s.serverOptions("administration", l, admin)
		options.TLS = s.certificate.config()
		s.serve(ctx, options)
	}
	return s.listenMetrics(ctx, main.Addr(), metrics)
}

// listenMetrics serves metrics on their own port. The default port may be taken by another Carpool on this machine; that
// is no reason not to serve developers.
func (s *standalone) listenMetrics(ctx context.Context, main net.Addr, handler http.Handler) error {
	address := s.cfg.Metrics.Listen
	switch {
	case s.cfg.Metrics.Off():
		return nil
	case s.cfg.Metrics.OnMain():
		s.metrics = s.address + "/metrics"
		return nil
	}
	l, err := listen(ctx, address, "metrics.listen")
	if err != nil && !s.cfg.Given("metrics.listen") {
		s.log.Warn("the default address for metrics is taken; taking a free port", slog.String("address", address))
		l, err = listen(ctx, "127.0.0.1:0", "metrics.listen")
	}
	if err != nil {
		return err
	}
	s.closeLater(l.Close)
	s.metrics = "http://" + l.Addr().String() + "/metrics"
	s.serve(ctx, s.serverOptions("metrics", l, mount(map[string]http.Handler{"/metrics": handler}, http.NotFoundHandler())))
	return nil
}

// serverOptions are those that all servers share. Other connections than developers' are few.
func (s *standalone) serverOptions(name string, l net.Listener, handler http.Handler) web.ServerOptions {
	const few, moment = 128, 5 * time.Second
	c := s.cfg.Server
	return web.ServerOptions{
		Name: name, Listener: l, Handler: handler, ReadHeaderTimeout: c.ReadHeaderTimeout, IdleTimeout: c.IdleTimeout, WriteTimeout: c.WriteTimeout,
		MaxConnections: few, Drain: web.Drain{Timeout: moment}, Log: s.log,
	}
}

func (s *standalone) serve(ctx context.Context, o web.ServerOptions) {
	s.servers = append(s.servers, web.NewServer(ctx, o))
}

func drainOf(cfg *config.Config) web.Drain {
	return web.Drain{Delay: cfg.Server.DrainDelay, Timeout: cfg.Server.DrainTimeout}
}

// mount sends requests under a path (with a trailing slash) or at it to its handler, and everything else to rest.
func mount(mounts map[string]http.Handler, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler := mounted(mounts, r.URL.Path); handler != nil {
			handler.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

func mounted(mounts map[string]http.Handler, path string) http.Handler {
	for at, handler := range mounts {
		if path == at || (strings.HasSuffix(at, "/") && strings.HasPrefix(path, at)) {
			return handler
		}
	}
	return nil
}

// Run serves until ctx ends, then drains the developers' server and after it the others, by which the drain can be watched.
func (s *standalone) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(ctx, s.node.Drain)
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	failures := make(chan error, len(s.servers))
	var serving sync.WaitGroup
	for _, server := range s.servers {
		serving.Go(func() {
			if err := server.Run(rest); err != nil {
				failures <- err
				stop()
			}
		})
	}
	err := s.developers.Run(ctx)
	stopRest()
	serving.Wait()
	close(failures)
	for failure := range failures {
		err = errors.Join(err, failure)
	}
	return err
}

func (s *standalone) closeLater(f func() error) { s.closers = append(s.closers, f) }

// Close closes what was opened, last first.
func (s *standalone) Close() error {
	var wrong []error
	for _, closer := range slices.Backward(s.closers) {
		if err := closer(); err != nil && !errors.Is(err, net.ErrClosed) {
			wrong = append(wrong, err)
		}
	}
	s.closers = nil
	return errors.Join(wrong...)
}

// applyConfigured applies the configured resources file, or with dryRun says what would keep it from being applied.
func (a *app) applyConfigured(ctx context.Context, c *control.Control, cfg *config.Config, dryRun bool) error {
	if cfg.Resources == "" {
		return nil
	}
	resources, err := a.readResources([]string{cfg.Resources})
	if err != nil {
		return fmt.Errorf("resources: %w", err)
	}
	plan, err := c.Apply(ctx, resources.Resources, true)
	if err != nil {
		return fmt.Errorf("resources: %w", resources.at(err))
	}
	if err := needsText(resources.Keys, plan); err != nil {
		return fmt.Errorf("resources: %w", resources.at(err))
	}
	if dryRun {
		return nil
	}
	if _, err := c.Apply(ctx, resources.Resources, false); err != nil {
		return fmt.Errorf("resources: %w", resources.at(err))
	}
	return nil
}

// needsText refuses keys that would have to be generated: a server has nobody to show them to but its log.
func needsText(keys []policy.KeySpec, plan control.ApplyResult) error {
	for _, k := range keys {
		if k.Key == "" && slices.Contains(plan.Changes, control.ApplyChange{Kind: "key", Name: k.Name, Action: "created"}) {
			return fmt.Errorf("key %q does not exist yet and has no text: give it one as key, or make it with 'carpool key add %s --user %s', which shows it", k.Name, k.Name, k.User)
		}
	}
	return nil
}

// warnOfPrices says which of the configured prices are for no upstream.
func (s *standalone) warnOfPrices(ctx context.Context) {
	for _, name := range s.control.StrayPrices() {
		s.log.WarnContext(ctx, "the configured prices name an upstream that does not exist", slog.String("upstream", name))
	}
}

func settings(cfg *config.Config) policy.Settings {
	f := cfg.ClaudeCode.QuotaFormula
	s := policy.Settings{
		Organization: cfg.Organization, TimeZone: cfg.TimeZone, QuotaMessage: cfg.ClaudeCode.QuotaMessage,
		DefaultHeaders: cfg.ClaudeCode.DefaultHeaders, Prices: cfg.Prices.Overlay(),
		Client: policy.ClientPolicy{
			Disabled: !cfg.ClaudeCode.Enabled, Require: cfg.ClaudeCode.RequireClient,
			MinVersion: cfg.ClaudeCode.MinVersion, SupportedVersions: cfg.ClaudeCode.SupportedVersions,
		},
		DefaultLimits: policy.LimitsSpec(cfg.ClaudeCode.DefaultLimits),
		Limits:        policy.LimitsSpec(cfg.ClaudeCode.OrganizationLimits),
		Formula: policy.Formula{
			Input: f.Input.Thousandths(), Output: f.Output.Thousandths(),
			CacheRead: f.CacheRead.Thousandths(), CacheWrite: f.CacheWrite.Thousandths(),
		},
	}
	if cfg.ClaudeCode.SystemPrompt == "ensure" {
		s.SystemPrompt = systemPrompt
	}
	return s
}

func defaultQuota(cfg *config.Config) policy.Quota {
	orUnlimited := func(n *int64) int64 {
		if n == nil {
			return policy.Unlimited
		}
		return *n
	}
	q := cfg.ClaudeCode.DefaultQuota
	return policy.Quota{Daily: orUnlimited(q.Daily), Monthly: orUnlimited(q.Monthly)}
}

func listen(ctx context.Context, address, setting string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", listenError(address, err), setting)
	}
	return l, nil
}

// baseURL is the address that a developer on this machine uses; reachable says whether other machines can, too.
func baseURL(cfg *config.Config, addr net.Addr) (address string, reachable bool) {
	scheme := "http"
	if cfg.Server.TLS.Enabled() {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(addr.String())
	ip := net.ParseIP(host)
	reachable = ip == nil || !ip.IsLoopback()
	if ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port), reachable
}

// newLog makes the server's own log. Its level can be changed later.
func (a *app) newLog(c config.Log, level *slog.LevelVar, terminal bool) (*slog.Logger, io.Closer, error) {
	out, closer, err := a.logOutput(c)
	if err != nil {
		return nil, nil, err
	}
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, nil, fmt.Errorf("cannot use log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || (c.Format == "auto" && terminal) {
		return slog.New(slog.NewTextHandler(out, options)), closer, nil
	}
	return slog.New(slog.NewJSONHandler(out, options)), closer, nil
}

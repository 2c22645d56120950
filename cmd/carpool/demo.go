package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/config"
	"carpool/internal/policy"
	"carpool/internal/sim"
	"carpool/internal/web"
)

const demoUser = "demo"

func newDemoCommand(a *app) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Try everything on this machine with a simulated Anthropic API",
		Long: `Try everything on this machine: a simulated Anthropic API, a server, and a user with a key.
Nothing leaves the machine and nothing costs money.

Two lines on standard output, printed when everything is ready, are what a developer sets:
ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN. Everything else goes to standard error. The data
is kept in a temporary folder and deleted at the end, unless --data names a folder.`,
		Example: `  carpool demo
  carpool demo --listen 127.0.0.1:0 --data ./demo-data`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.demo(cmd.Context(), address)
		},
	}
	cmd.Flags().StringVar(&address, "listen", "127.0.0.1:8080", "`ADDR` (host:port) to listen on; port 0 takes a free one")
	return cmd
}

func (a *app) demo(ctx context.Context, address string) (err error) {
	if a.configFile != "" {
		return usagef("carpool demo takes no --config; use carpool serve --config %s", a.configFile)
	}
	if a.dataDir == "" {
		folder, err := os.MkdirTemp("", "carpool-demo-")
		if err != nil {
			return fmt.Errorf("cannot make a temporary folder: %w", err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		a.dataDir = folder
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // a closed terminal ends it as Ctrl-C does
	defer stop()
	a.env = nil // the demo is the same whatever the environment configures
	cfg, err := a.loadServerConfig(address,
		config.Override{Key: "metrics.listen", Value: "main", Source: "demo"},
		config.Override{Key: "server.drainTimeout", Value: "2s", Source: "demo"},
		config.Override{Key: "claudeCode.requireClient", Value: "off", Source: "demo"}, // whatever somebody tries it with
		config.Override{Key: "log.format", Value: "text", Source: "demo"})
	if err != nil {
		return err
	}
	log, _, err := a.newLog(cfg.Log, new(slog.LevelVar), true)
	if err != nil {
		return err
	}
	simulator, credential, err := startSimulator(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, simulator.stop()) }()
	s, err := a.startStandalone(ctx, cfg, log)
	if err != nil {
		return err
	}
	key, err := a.applyDemo(ctx, s, simulator.address, credential)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	fmt.Fprintf(a.stdout, "export ANTHROPIC_BASE_URL=%s\nexport ANTHROPIC_AUTH_TOKEN=%s\n", s.address, key)
	a.note(`
Ready. Paste the two lines above into another terminal and run: claude
What it used:  carpool usage --data %s
Metrics:       %s
Simulator:     %s (see 'carpool sim --help' for what a prompt can make it do)
Ctrl-C ends the demo.`, shellQuote(s.cfg.DataDir), s.metrics, simulator.address)
	return errors.Join(s.Run(ctx), s.Close())
}

// applyDemo declares the simulator as upstream, and a user with a key. The key is kept in the data folder, so that a demo
// with --data has the same one each time.
func (a *app) applyDemo(ctx context.Context, s *standalone, simulator, credential string) (key string, err error) {
	file := filepath.Join(s.cfg.DataDir, "demo.key")
	stored, err := os.ReadFile(file) //nolint:gosec // our own folder
	key = strings.TrimSpace(string(stored))
	if errors.Is(err, os.ErrNotExist) {
		if key, _, err = policy.GenerateKey(policy.KeyPrefix, rand.Reader); err == nil {
			err = os.WriteFile(file, []byte(key+"\n"), 0o600)
		}
	}
	if err != nil {
		return "", fmt.Errorf("cannot keep the demo's key: %w", err)
	}
	daily, monthly := int64(2_000_000), int64(40_000_000)
	_, err = s.control.Apply(ctx, policy.Resources{
		Upstreams: []policy.UpstreamSpec{{Name: "simulator", BaseURL: simulator, APIKey: credential}},
		Routes:    []policy.RouteSpec{{Name: "default", Models: []string{"*"}, Upstreams: []string{"simulator"}}},
		Users:     []policy.UserSpec{{Name: demoUser, Team: "demo", Quota: &policy.QuotaSpec{Daily: &daily, Monthly: &monthly}}},
		Keys:      []policy.KeySpec{{Name: "demo-key", User: demoUser, Key: key}},
	}, false)
	return key, err
}

// simulator is a simulated API on a port of its own.
type simulator struct {
	address string
	stop    func() error
}

func startSimulator(ctx context.Context, log *slog.Logger) (*simulator, string, error) {
	credential := "sk-ant-sim-" + rand.Text()
	handler, err := sim.New(sim.Options{Credentials: []sim.Credential{{Name: "demo", Key: credential}}})
	if err != nil {
		return nil, "", err
	}
	l, err := listen(ctx, "127.0.0.1:0", "--listen")
	if err != nil {
		return nil, "", err
	}
	server := web.NewServer(ctx, web.ServerOptions{
		Name: "simulator", Listener: l, Handler: http.Handler(handler),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, Drain: web.Drain{Timeout: time.Second}, Log: log,
	})
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- server.Run(serving) }()
	return &simulator{address: "http://" + l.Addr().String(), stop: func() error {
		stop()
		return <-ended
	}}, credential, nil
}

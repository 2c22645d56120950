package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"gopkg.in/natefinch/lumberjack.v2"

	"carpool/internal/config"
)

func newServeCommand(a *app) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve developers and administration on this machine",
		Long: `Serve developers and administration on this machine, with everything kept in one data folder.
Without a configuration file the defaults apply: http://127.0.0.1:8080, data in ./carpool-data.

The configuration, its resources and the TLS files are read again when they change, and on
SIGHUP; what is wrong leaves the old in force. SIGTERM and Ctrl-C stop taking requests, let
running ones finish, and end; a second one ends at once.`,
		Example: `  carpool serve
  carpool serve --data /var/lib/carpool --listen 0.0.0.0:8080
  carpool serve --config /etc/carpool/carpool.yaml`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadServerConfig(address)
			if err != nil {
				return err
			}
			return a.serve(cmd.Context(), cfg, func() (*config.Config, error) { return a.loadServerConfig(address) })
		},
	}
	cmd.Flags().StringVar(&address, "listen", "", "`ADDR` (host:port) to listen on instead of the configured one; port 0 takes a free one")
	return cmd
}

func (a *app) loadServerConfig(address string, further ...config.Override) (*config.Config, error) {
	overrides := further
	if address != "" {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, usagef("the flag --listen does not take %q: an address is host:port, such as 127.0.0.1:8080", address)
		}
		if host == "" {
			host = "0.0.0.0"
		}
		overrides = append(overrides,
			config.Override{Key: "server.host", Value: host, Source: "--listen"},
			config.Override{Key: "server.port", Value: port, Source: "--listen"})
	}
	options := a.configOptions()
	options.Overrides, options.CheckFiles = overrides, true
	return config.Load(options)
}

func (a *app) serve(ctx context.Context, cfg *config.Config, reload func() (*config.Config, error)) error {
	hangups := make(chan os.Signal, 1) // from the beginning: without a taker the signal would end the process
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	seen := fingerprint(filesOf(cfg))
	level := new(slog.LevelVar)
	log, closer, err := a.newLog(cfg.Log, level, a.interactive)
	if err != nil {
		return err
	}
	defer func() { _ = closer.Close() }()
	for _, w := range cfg.Warnings() {
		log.Warn("configuration", slog.String("warning", w))
	}
	gogc, _ := a.getenv("GOGC")
	defer collectPatiently(gogc)()
	s, err := a.startStandalone(ctx, cfg, log)
	if err != nil {
		return err
	}
	if err := a.welcome(ctx, s); err != nil {
		return errors.Join(err, s.Close())
	}
	stop := a.keepUp(ctx, s, level, hangups, seen, reload)
	log.Info("serving", slog.String("address", s.address), slog.String("data", cfg.DataDir), slog.String("metrics", s.metrics), slog.String("version", readBuildInfo().Version))
	err = s.Run(ctx)
	stop()
	if err = errors.Join(err, s.Close()); err == nil {
		log.Info("stopped")
	}
	return err
}

// welcome says what is still missing before a developer can be served.
func (a *app) welcome(ctx context.Context, s *standalone) error {
	status, err := s.control.Status(ctx)
	if err != nil {
		return err
	}
	where := a.whereFlags()
	var steps []string
	if status.Upstreams == 0 {
		steps = append(steps, "carpool upstream add main --api-key-env ANTHROPIC_API_KEY"+where)
	}
	if status.Routes == 0 {
		steps = append(steps, "carpool route add default --upstream main"+where)
	}
	if status.Users == 0 {
		steps = append(steps, "carpool user add alice"+where)
	}
	if status.Keys == 0 {
		steps = append(steps, "carpool key add alice-laptop --user alice"+where)
	}
	if len(steps) == 0 {
		return nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Carpool is running at %s. Before the first developer can use it:\n\n", s.address)
	for _, step := range steps {
		text.WriteString("  " + step + "\n")
	}
	fmt.Fprintf(&text, "\nThe developer then sets\n\n  export ANTHROPIC_BASE_URL=%s\n  export ANTHROPIC_AUTH_TOKEN=cpk_…   (what 'carpool key add' printed)\n", s.address)
	if !s.reachable {
		fmt.Fprintf(&text, "\nOnly this machine can reach it; --listen 0.0.0.0:%d opens it to others (give server.tls certificates then).\n", s.port)
	}
	a.note("%s", text.String())
	return nil
}

// whereFlags are the flags by which a command finds this server.
func (a *app) whereFlags() string {
	var flags strings.Builder
	for _, flag := range []struct{ name, path string }{{"--config", a.configFile}, {"--data", a.dataDir}} {
		if flag.path == "" {
			continue
		}
		if whole, err := filepath.Abs(flag.path); err == nil { // the next terminal may be elsewhere
			flag.path = whole
		}
		flags.WriteString(" " + flag.name + " " + shellQuote(flag.path))
	}
	return flags.String()
}

// shellQuote makes text one word of a shell.
func shellQuote(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@%+="
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

func (a *app) logOutput(c config.Log) (io.Writer, io.Closer, error) {
	if c.File == "" {
		return a.stderr, nopCloser{}, nil
	}
	file := &lumberjack.Logger{Filename: c.File, MaxSize: c.MaxSizeMB, MaxBackups: c.MaxFiles}
	if _, err := file.Write(nil); err != nil {
		return nil, nil, fmt.Errorf("cannot write log.file %s: %w", c.File, err)
	}
	return file, file, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/sim"
)

func newSimCommand(a *app) *cobra.Command {
	var listen string
	var keys []string
	var directives bool
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Serve a simulated Anthropic API, for trials and tests",
		Long: `Serve a simulated Anthropic API. Answers are made up, or dictated by a directive in the prompt ([[sim …]]; see
--directives); nothing leaves this machine. What it received is shown under /__sim/ without a credential, so bind it to
loopback. Standard output holds its address once it serves.`,
		Example: `  carpool sim --listen 127.0.0.1:8089 --credential sk-ant-one --credential sk-ant-two
  carpool upstream add sim --base-url http://127.0.0.1:8089 --api-key-stdin <<< sk-ant-one`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if directives {
				return a.print(sim.Usage)
			}
			credentials := make([]sim.Credential, len(keys))
			for i, key := range keys {
				if key == "" {
					return usagef("the flag --credential needs a KEY")
				}
				credentials[i].Key = key
			}
			return a.serveSim(cmd.Context(), listen, credentials)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8089", "`ADDRESS` to listen on; port 0 takes any free one")
	cmd.Flags().StringArrayVar(&keys, "credential", nil, "API `KEY` that it accepts; may be repeated (default "+sim.DefaultKey+")")
	cmd.Flags().BoolVar(&directives, "directives", false, "print how a prompt dictates the answer, and exit")
	return cmd
}

// serveSim serves until ctx ends. Streams that still run then are cut after a moment.
func (a *app) serveSim(ctx context.Context, address string, credentials []sim.Credential) error {
	const grace = time.Second
	handler, err := sim.New(sim.Options{Credentials: credentials, Now: a.now})
	if err != nil {
		return fmt.Errorf("cannot start the simulator: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return listenError(address, err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if err := a.print("http://" + listener.Addr().String() + "\n"); err != nil {
		return errors.Join(err, server.Close(), ignoreClosed(<-served))
	}
	a.note("The simulator serves. Stop it with Ctrl-C.")
	select {
	case err := <-served:
		return fmt.Errorf("the simulator ended: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if server.Shutdown(end) != nil {
		err = server.Close()
	}
	return errors.Join(err, ignoreClosed(<-served))
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

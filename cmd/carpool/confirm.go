package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// yesFlag adds --yes.
func yesFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().BoolP("yes", "y", false, "do not ask for confirmation")
}

// confirm asks a person before something is lost. Without a terminal there is nobody to ask, and --yes must say it: a
// script that was cut or fed a wrong variable loses nothing.
func (a *app) confirm(cmd *cobra.Command, yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	if !a.interactive {
		return usagef("there is no terminal to ask on; say --yes to %s without being asked", cmd.Name())
	}
	fmt.Fprintf(a.stderr, format+" [y/N] ", args...)
	answer, err := interruptible(cmd.Context(), func() (string, error) {
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		if errors.Is(err, io.EOF) { // the end of input is a no
			fmt.Fprintln(a.stderr)
			err = nil
		}
		return line, err
	})
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was changed")
}

// interruptible waits for f or for the end of ctx. Reading standard input cannot be called off otherwise; what f still
// does then ends with the process.
func interruptible[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
}

// Command carpool is a self-hosted gateway for Claude Code: the server, its administration and its simulator in one binary.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
)

func main() { os.Exit(start()) }

// start wires the process into run. A first interrupt ends ctx; a second one ends the process, because the handler is
// taken away as soon as ctx is over.
func start() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Environ(), now: time.Now,
		width:       terminalWidth(os.Stdout),
		interactive: isatty.IsTerminal(os.Stdin.Fd()) && isatty.IsTerminal(os.Stderr.Fd()),
		shown:       isatty.IsTerminal(os.Stdout.Fd()),
	})
}

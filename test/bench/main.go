//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == reverseProxy {
		fatal(serveReverseProxy(os.Args[2], os.Args[3]))
	}
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	fatal(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	_, err = bench(ctx, o, os.Stdout, os.Stderr)
	stop()
	fatal(err)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options say what to measure.
type options struct {
	scenarios, targets []string
	rounds             int
	carpools           []program
	out                string // file of raw results; "": none
	quick              bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	scenarios := f.String("scenarios", "S1,S2,S3,S4,S5", "what to measure")
	targets := f.String("targets", strings.Join([]string{direct, reverseProxy, nginx, haproxy, carpool}, ","), "whom to measure; "+carpool+" is every one given by -carpool")
	f.IntVar(&o.rounds, "rounds", 3, "how often, up to 100 times")
	f.StringVar(&o.out, "out", "", "file to write raw results to, one JSON object a line")
	f.BoolVar(&o.quick, "quick", false, "small loads in short windows: shows that it works, measures nothing")
	f.Func("carpool", "`NAME=PATH` of a Carpool, program or source tree; may be given more than once (default carpool=.)", func(s string) error {
		name, path, ok := strings.Cut(s, "=")
		switch {
		case !ok || path == "" || name != filepath.Base(name):
			return errors.New("want NAME=PATH")
		case slices.ContainsFunc(o.carpools, func(p program) bool { return p.name == name }):
			return fmt.Errorf("there are two named %s", name)
		}
		o.carpools = append(o.carpools, program{name, path})
		return nil
	})
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.rounds < 1 || o.rounds > 100 {
		return o, fmt.Errorf("-rounds %d: want 1 to 100", o.rounds)
	}
	if len(o.carpools) == 0 {
		o.carpools = []program{{carpool, "."}}
	}
	o.scenarios, o.targets = strings.Split(*scenarios, ","), strings.Split(*targets, ",")
	return o, nil
}

// bench measures, writes the table to stdout and its progress to stderr, and returns the results. It fails if any request was
// not answered as it should have been.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) ([]result, error) {
	files, err := raiseFiles()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "carpool-bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	loads, err := choose(o.scenarios, o.quick, files)
	if err != nil {
		return nil, err
	}
	targets, err := targetsOf(ctx, o.targets, o.carpools, dir)
	if err != nil {
		return nil, err
	}
	record := json.NewEncoder(io.Discard)
	if o.out != "" {
		f, err := os.Create(o.out)
		if err != nil {
			return nil, fmt.Errorf("cannot write results: %w", err)
		}
		defer f.Close()
		record = json.NewEncoder(f)
	}
	up, err := startUpstream()
	if err != nil {
		return nil, err
	}
	defer up.close()

	results, err := measureAll(ctx, loads, o.rounds, targets, up, files, func(l *load, r *result) error {
		fmt.Fprintln(stderr, l.line(r))
		return record.Encode(r)
	})
	if len(results) > 0 { // what was measured is shown, whatever came then
		report(stdout, loads, targets, results)
	}
	if err != nil {
		return results, err
	}
	var failed int64
	for i := range results {
		failed += results[i].Errors
	}
	if failed > 0 {
		return results, fmt.Errorf("%d errors", failed)
	}
	return results, nil
}

// measureAll lets the targets take turns, round by round of each load, and tells each result at once.
func measureAll(ctx context.Context, loads []load, rounds int, targets []target, up *upstream, files int, tell func(*load, *result) error) ([]result, error) {
	var results []result
	for i := range loads {
		l := &loads[i]
		exchanges := makeTraffic(l)
		up.serve(exchanges, l.every)
		for round := range rounds {
			for j := range targets {
				t := &targets[j]
				if !l.concerns(t) {
					continue
				}
				r, err := measureOne(ctx, l, exchanges, t, up.address(), files)
				if err != nil {
					return results, fmt.Errorf("%s: %w", l.name, err)
				}
				r.Round = round + 1
				results = append(results, r)
				if err := tell(l, &r); err != nil {
					return results, fmt.Errorf("cannot write results: %w", err)
				}
			}
		}
	}
	return results, nil
}

// measureOne starts a target, sends it a load and stops it.
func measureOne(ctx context.Context, l *load, exchanges []*exchange, t *target, upstream string, files int) (res result, err error) {
	x, err := t.start(ctx, upstream, files)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, x.stop()) }()
	res = result{Load: l.name, Target: t.name, At: time.Now().UTC(), MemoryStart: x.memory()}
	peak := x.watchMemory()
	r := newRun(l, exchanges, x.address, x.cpu)
	begin, end := r.do(ctx)
	res.MemoryPeak = peak()
	if err := ctx.Err(); err != nil {
		return res, fmt.Errorf("interrupted: %w", err)
	}
	res.Sent = r.sent.Load()
	if t.carpool {
		if res.Booked, err = x.settled(ctx, res.Sent); err != nil {
			return res, fmt.Errorf("%s: cannot ask for the entries: %w", t.name, err)
		}
		if res.Booked != res.Sent {
			r.fail(fmt.Sprintf("the ledger has %d entries of %d requests", res.Booked, res.Sent))
		}
	}
	res.fill(r, begin, end)
	return res, nil
}

// raiseFiles lets this process and those it starts have as many open files as they may, and returns how many.
func raiseFiles() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot raise the limit of open files: %w", err)
	}
	return int(min(limit.Max, 1<<20)), nil
}

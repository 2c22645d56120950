// Testcount runs go test and counts: its last line is "N passed, N failed", alone on the line.
//
// Usage: testcount ARGUMENTS [-- ARGUMENTS]…, each group being the arguments of one `go test`. The groups run one after
// another, all of them even if one fails. Every test and subtest counts once; a package that fails without a failing test (it
// does not build, it times out, it crashes) counts as one failure. Output is shown of what failed only. The exit status is 1
// when anything failed and when no test ran at all.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if !run(ctx, os.Args[1:], os.Stdout, os.Stderr) {
		stop()
		os.Exit(1)
	}
}

// run runs the groups and reports whether every test passed and there was at least one.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) bool {
	total := newTally(stdout)
	for _, group := range split(args) {
		if err := goTest(ctx, group, total, stderr); err != nil {
			fmt.Fprintln(stderr, "testcount:", err)
			if total.failed == 0 {
				total.failed++
			}
		}
	}
	if total.passed+total.failed == 0 {
		fmt.Fprintln(stderr, "testcount: no test ran")
	}
	fmt.Fprintln(stdout, total)
	return total.failed == 0 && total.passed > 0
}

// split cuts the arguments at each "--".
func split(args []string) [][]string {
	var groups [][]string
	for {
		i := slices.Index(args, "--")
		if i < 0 {
			return append(groups, args)
		}
		groups, args = append(groups, args[:i]), args[i+1:]
	}
}

// goTest runs one go test. An error means that it failed in a way its events did not show.
func goTest(ctx context.Context, args []string, total *tally, stderr io.Writer) error {
	before := total.failed
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...) //nolint:gosec // running go test with the caller's arguments is the purpose
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("cannot read from go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot run go test: %w", err)
	}
	readErr := total.read(out)
	waitErr := cmd.Wait()
	if readErr != nil {
		return readErr
	}
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) && total.failed > before {
		return nil // counted already
	}
	if waitErr != nil {
		return fmt.Errorf("go test: %w", waitErr)
	}
	return nil
}

// event is what `go test -json` writes, one a line (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// tally counts test events and shows the output of what failed.
type tally struct {
	out                     io.Writer
	passed, failed, skipped int

	output map[string][]string // by package and test
	counts map[string]*[2]int  // passed and failed by package
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, output: map[string][]string{}, counts: map[string]*[2]int{}}
}

// String is the closing line.
func (t *tally) String() string {
	s := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", t.skipped)
	}
	return s
}

// read counts the events of one go test run. Lines that are no events are shown as they are.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				t.add(e)
			} else {
				_, _ = t.out.Write(line)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read from go test: %w", err)
		}
	}
}

func (t *tally) add(e event) {
	key := e.Package + " " + e.Test
	pkg := t.counts[e.Package]
	if pkg == nil {
		pkg = new([2]int)
		t.counts[e.Package] = pkg
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "output":
		if strings.HasPrefix(e.Output, "=== ") { // RUN, PAUSE, CONT, NAME
			return
		}
		t.output[key] = append(t.output[key], e.Output)
	case "pass", "skip":
		if e.Test == "" {
			if pkg[0]+pkg[1] > 0 {
				fmt.Fprintf(t.out, "ok   %s (%d tests, %.1f s)\n", e.Package, pkg[0]+pkg[1], e.Elapsed)
			}
		} else if e.Action == "skip" {
			t.skipped++
			t.show(key)
		} else {
			t.passed++
			pkg[0]++
		}
		delete(t.output, key)
	case "fail":
		if e.Test == "" {
			if pkg[1] == 0 {
				t.failed++
			}
			t.showPackage(e.Package)
			fmt.Fprintf(t.out, "FAIL %s (%.1f s)\n", e.Package, e.Elapsed)
			return
		}
		t.failed++
		pkg[1]++
		t.show(key)
		delete(t.output, key)
	}
}

func (t *tally) show(key string) {
	for _, s := range t.output[key] {
		fmt.Fprint(t.out, s)
	}
}

// showPackage shows what a failed package printed outside of its tests, and the output of tests that never ended.
func (t *tally) showPackage(pkg string) {
	var keys []string
	for key := range t.output {
		if len(key) > len(pkg) && key[:len(pkg)+1] == pkg+" " {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		t.show(key)
		delete(t.output, key)
	}
}

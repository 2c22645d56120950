package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience with the parts of a test. A healthy machine needs a fraction of each.
const (
	startPatience = 20 * time.Second
	stopPatience  = 20 * time.Second
	callPatience  = 30 * time.Second
)

// The program under test; TestMain builds it. With E2E_RACE the first one has the race detector, which multiplies memory, and
// the second is for the tests that measure it.
var binary, lean string

func TestMain(m *testing.M) {
	os.Exit(withBinary(m.Run))
}

// inNamespace names the variable with which a test runs itself again in a namespace. It holds the program's path.
const inNamespace = "E2E_IN_NAMESPACE"

func withBinary(f func() int) int {
	if binary = os.Getenv(inNamespace); binary != "" {
		return f()
	}
	dir, err := os.MkdirTemp("", "carpool-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	lean = filepath.Join(dir, "carpool")
	err = build(lean, "CGO_ENABLED=0")
	if binary = lean; err == nil && os.Getenv("E2E_RACE") != "" { // a race makes the server end with a status other than 0
		binary = filepath.Join(dir, "race", "carpool")
		err = build(binary, "CGO_ENABLED=1", "-race")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return f()
}

func build(into, env string, flags ...string) error {
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"build", "-o", into}, append(flags, "carpool/cmd/carpool")...)...)
	cmd.Env = append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build carpool: %w\n%s", err, out)
	}
	return nil
}

// repository is the root of the working tree.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// plainEnv is an environment without any setting of the machine that could change what a program does, other than those of the
// race detector.
func plainEnv(home string, more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8", "TZ=UTC", "GORACE=" + os.Getenv("GORACE")}, more...)
}

// process is a program that runs until the test ends.
type process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	stdout *output
	stderr *output
	ended  chan struct{} // closed after err is set
	err    error
	stop   sync.Once
	clean  func() bool // whether it ended well; nil: with status 0
}

// start runs a program in its own process group. When the test ends it is interrupted, and the test fails if it does not
// end by itself with status 0.
func start(t testing.TB, dir string, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{
		t: t, name: filepath.Base(name) + " " + strings.Join(args, " "), cmd: exec.Command(name, args...),
		stdout: newOutput(), stderr: newOutput(), ended: make(chan struct{}),
	}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("cannot start %s: %v", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.interrupt()
		if t.Failed() {
			t.Logf("standard error of %s:\n%s", p.name, tail(p.stderr.String(), 8000))
		}
	})
	return p
}

// signal sends a signal to the whole process group.
func (p *process) signal(s syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, s) // it may have ended already, which wait tells
}

// interrupt ends the process as Ctrl-C does and fails the test unless it ends cleanly.
func (p *process) interrupt() { p.t.Helper(); p.end(syscall.SIGINT) }

// terminate ends the process as a service manager does.
func (p *process) terminate() { p.t.Helper(); p.end(syscall.SIGTERM) }

// wait is for a process that has been told to end already.
func (p *process) wait() { p.t.Helper(); p.end(0) }

func (p *process) end(s syscall.Signal) {
	p.t.Helper()
	p.stop.Do(func() {
		if s != 0 {
			p.signal(s)
		}
		select {
		case <-p.ended:
			if p.clean == nil && p.err != nil || p.clean != nil && !p.clean() {
				p.t.Errorf("%s ended with %v after %v", p.name, p.err, s)
			}
		case <-time.After(stopPatience):
			p.signal(syscall.SIGKILL)
			<-p.ended
			p.t.Errorf("%s did not end within %v after %v", p.name, stopPatience, s)
		}
	})
}

// kill ends the process as a power cut does.
func (p *process) kill() {
	p.stop.Do(func() {
		p.signal(syscall.SIGKILL)
		<-p.ended
	})
}

// line waits for a line of an output for which match returns true, and returns what match made of it. It fails the test when
// the process ends first.
func (p *process) line(out *output, what string, match func(string) (string, bool)) string {
	p.t.Helper()
	deadline := time.After(startPatience)
	for from := 0; ; {
		text, changed := out.after()
		for {
			i := strings.IndexByte(text[from:], '\n')
			if i < 0 {
				break
			}
			found, ok := match(strings.TrimRight(text[from:from+i], "\r"))
			from += i + 1
			if ok {
				return found
			}
		}
		select {
		case <-changed:
		case <-p.ended:
			if text, _ := out.after(); strings.Contains(text[from:], "\n") {
				continue
			}
			p.stop.Do(func() {})
			p.t.Fatalf("%s ended (%v) without %s\n%s%s", p.name, p.err, what, p.stdout.String(), p.stderr.String())
		case <-deadline:
			p.t.Fatalf("%s: no %s within %v\n%s%s", p.name, what, startPatience, p.stdout.String(), p.stderr.String())
		}
	}
}

// output collects what a process writes and tells who waits.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

func (o *output) after() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

func (o *output) String() string { text, _ := o.after(); return text }

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// result is what a program left behind.
type result struct {
	stdout, stderr string
	code           int
	elapsed        time.Duration
}

// runProgram runs a program to its end, at most for limit; then it and its children are killed and the test fails.
func runProgram(t testing.TB, limit time.Duration, dir string, env []string, stdin io.Reader, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, env, stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begun := time.Now()
	err := cmd.Run()
	r := result{stdout: stdout.String(), stderr: stderr.String(), elapsed: time.Since(begun)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s did not end within %v\n%s\n%s", name, limit, tail(r.stdout, 4000), tail(r.stderr, 4000))
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("cannot run %s: %v", name, err)
	}
	return r
}

// eventually waits until the condition holds; it asks 20 times a second.
func eventually(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// nonEmptyLines splits an output.
func nonEmptyLines(s string) []string {
	var lines []string
	scan := bufio.NewScanner(strings.NewReader(s))
	for scan.Scan() {
		if scan.Text() != "" {
			lines = append(lines, scan.Text())
		}
	}
	return lines
}

// mustJSON encodes a value of the test itself.
func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

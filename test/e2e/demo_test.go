package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemo: standard output is what `eval` takes and nothing else, and what it names works.
func TestDemo(t *testing.T) {
	t.Parallel()
	g := startDemo(t)
	r := g.messages(prompt(script("hello")))
	if r.status != http.StatusOK || !strings.Contains(string(r.body), "hello") {
		t.Errorf("status %d\n%s", r.status, r.body)
	}
	if n := len(g.settled(1).Rows); n != 1 {
		t.Errorf("%d entries in the books, want 1", n)
	}
	g.proc.interrupt()
	lines := strings.Split(g.proc.stdout.String(), "\n")
	if len(lines) != 3 || lines[0] != "export ANTHROPIC_BASE_URL="+g.url || lines[1] != "export ANTHROPIC_AUTH_TOKEN="+g.key || lines[2] != "" {
		t.Errorf("standard output: %q", lines)
	}
	if said := g.proc.stderr.String(); !strings.Contains(said, "claude") {
		t.Errorf("standard error does not say how to go on:\n%s", said)
	}
}

// TestDemoKeepsItsData: with --data the demo is the same one the next time.
func TestDemoKeepsItsData(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	g := demoIn(t, data)
	if r := g.messages(prompt(script("hello"))); r.status != http.StatusOK {
		t.Fatalf("status %d\n%s", r.status, r.body)
	}
	g.proc.terminate()
	g = demoIn(t, data)
	if r := g.messages(prompt(script("hello"))); r.status != http.StatusOK {
		t.Fatalf("after the restart: status %d\n%s", r.status, r.body)
	}
	if n := len(g.settled(2).Rows); n != 2 {
		t.Errorf("%d entries in the books, want 2", n)
	}
}

// TestDemoStartsQuickly: ready within a second of the start on an idle machine; the limit leaves room for a busy one.
func TestDemoStartsQuickly(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	startDemo(t)
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("ready after %v", d)
	}
}

// TestCleanClone: the repository's own files are all that `go run ./cmd/carpool demo` needs.
func TestCleanClone(t *testing.T) {
	t.Parallel()
	clone := t.TempDir()
	copyTree(t, repository(t), clone)
	home := t.TempDir()
	env := plainEnv(home, "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GONOSUMDB", "GONOSUMCHECK", "GOSUMDB", "GOTOOLCHAIN"} {
		value, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		if v := strings.TrimSpace(string(value)); v != "" {
			env = append(env, name+"="+v)
		}
	}
	// The build comes first, because its time says nothing about the demo's.
	if r := runProgram(t, 5*time.Minute, clone, env, nil, "go", "build", "-o", os.DevNull, "./cmd/carpool"); r.code != 0 {
		t.Fatalf("go build: %s", r.stderr)
	}
	p := start(t, clone, append(env, "TMPDIR="+home), "go", "run", "./cmd/carpool", "demo", "--listen", "127.0.0.1:0")
	// An interrupted `go run` fails whatever its program does; it says so if the program failed.
	p.clean = func() bool { return !strings.Contains(p.stderr.String(), "exit status") }
	g := readyDemo(t, p, "")
	if r := g.messages(prompt(script("hello"))); r.status != http.StatusOK {
		t.Errorf("status %d\n%s", r.status, r.body)
	}
	p.interrupt()
	if left, err := filepath.Glob(filepath.Join(home, "carpool-demo-*")); err != nil || len(left) > 0 {
		t.Errorf("the demo left %q behind, %v", left, err)
	}
}

// copyTree copies what a commit of everything would hold: tracked and new files, without the ignored ones.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	list, err := exec.CommandContext(ctx, "git", "-C", from, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		in, err := os.Open(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue // deleted and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(to, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(out, in)
		in.Close()
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTerminatedWhileServing: a stop lets a running stream end.
func TestTerminatedWhileServing(t *testing.T) {
	t.Parallel()
	g := startDemo(t)
	body := prompt(script(map[string]any{"events": 20, "every_ms": 50, "text": "slow but complete"}))
	body["stream"] = true
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/v1/messages", strings.NewReader(mustJSON(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", g.key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Anthropic-Version", "2023-06-01")
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	g.proc.signal(syscall.SIGTERM)
	got, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(got), "message_stop") {
		t.Errorf("the stream ended with %v after\n%s", err, tail(string(got), 300))
	}
	g.proc.wait()
}

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// smallDisk is a tmpfs of a test's own.
type smallDisk struct {
	t   *testing.T
	dir string
}

const smallDiskSize = "24m"

// onSmallDisk runs a test in a process with a mount namespace of its own, in which it may have a small disk. Root can do
// that, and whoever may make user namespaces.
func onSmallDisk(t *testing.T, test func(*smallDisk)) {
	t.Helper()
	t.Parallel()
	if os.Getenv(inNamespace) != "" {
		d := &smallDisk{t, t.TempDir()}
		if err := syscall.Mount("carpool", d.dir, "tmpfs", 0, "mode=0700,size="+smallDiskSize); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(d.dir, 0); err != nil {
				t.Error(err)
			}
		})
		test(d)
		return
	}
	mounts := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	users := *mounts
	users.Cloneflags = syscall.CLONE_NEWUSER
	users.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	users.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	var refusals []error
	for _, attributes := range []*syscall.SysProcAttr{mounts, &users} {
		var out bytes.Buffer
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), inNamespace+"="+binary)
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, attributes
		if err := cmd.Start(); err != nil {
			refusals = append(refusals, err)
			continue
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
			t.Errorf("%v\n%s", err, out.String())
		}
		return
	}
	t.Fatalf("this test needs a mount namespace, as root or in a user namespace, and neither is allowed here: %v", errors.Join(refusals...))
}

// remount changes the disk's flags.
func (d *smallDisk) remount(flags uintptr) {
	d.t.Helper()
	if err := syscall.Mount("carpool", d.dir, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
		d.t.Fatal(err)
	}
}

// fill takes all the room that is left.
func (d *smallDisk) fill() {
	d.t.Helper()
	file, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatal(err)
	}
}

func (d *smallDisk) empty() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil {
		d.t.Fatal(err)
	}
}

// growth lets a process write beyond a file's first limit bytes, or not: then the system refuses what is beyond.
func (p *process) growth(limit uint64) {
	p.t.Helper()
	set := syscall.Rlimit{Cur: limit, Max: noLimit}
	if _, _, no := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(p.cmd.Process.Pid), syscall.RLIMIT_FSIZE, uintptr(unsafe.Pointer(&set)), 0, 0, 0); no != 0 {
		p.t.Fatal(no)
	}
}

const noLimit = ^uint64(0)

// askers are developers who go on asking whatever they are told.
type askers struct {
	served, refused atomic.Int64
	stop            chan struct{}
	workers         sync.WaitGroup

	mu    sync.Mutex
	first response // that was refused
}

const (
	askersAtOnce = 6
	heldStreams  = 10
)

func startAskers(t *testing.T, g *gateway) *askers {
	l := &askers{stop: make(chan struct{})}
	for range askersAtOnce {
		l.workers.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-l.stop:
					return
				case <-pace.C:
				}
				switch r := postMessages(t, g.url, g.header(), []byte(mustJSON(prompt("hello")))); r.status {
				case http.StatusOK:
					l.served.Add(1)
				case http.StatusServiceUnavailable:
					l.mu.Lock()
					if l.refused.Add(1) == 1 {
						l.first = r
					}
					l.mu.Unlock()
				default:
					t.Errorf("status %d: %s (%v)", r.status, r.body, r.err)
				}
			}
		})
	}
	return l
}

// more waits until a counter has grown by n.
func more(t *testing.T, what string, n int64, of *atomic.Int64) {
	t.Helper()
	want := of.Load() + n
	eventually(t, callPatience, fmt.Sprintf("%d more requests are %s", n, what), func() bool { return of.Load() >= want })
}

func (l *askers) end() {
	close(l.stop)
	l.workers.Wait()
}

// TestDiskFull: while nothing can be written new requests are told so, streams that run are served to their end, and
// their entries wait. When it can, all goes on by itself, and nothing is lost or doubled.
func TestDiskFull(t *testing.T) {
	onSmallDisk(t, func(d *smallDisk) {
		refuseBooks(t, d.dir, func(*gateway) { d.fill() }, func(*gateway) { d.empty() }, "the disk is full; make room")
	})
}

// TestWritesRefused is the same with a server that may write no file any more: Linux makes no file system read-only under
// a process that writes in it, but a failing one does.
func TestWritesRefused(t *testing.T) {
	t.Parallel()
	refuseBooks(t, t.TempDir(), func(g *gateway) { g.proc.growth(1) }, func(g *gateway) { g.proc.growth(noLimit) }, "the file may not grow further")
}

func refuseBooks(t *testing.T, dir string, refuse, allow func(*gateway), logged string) {
	sim := startSim(t)
	g := configured(t, dir, sim.url, "drainTimeout: 5s")
	streams := 0
	for range 2 {
		l := startAskers(t, g)
		more(t, "served", 20, &l.served)
		var running sync.WaitGroup
		for range heldStreams {
			streams++
			body := prompt(script(object{"text": "An answer.", "events": 12, "cut": "stall", "at_event": 5, "hold": "running"}) + fmt.Sprint(streams))
			body["stream"] = true
			running.Go(func() {
				r := postMessages(t, g.url, g.header(), []byte(mustJSON(body)))
				if r.status != http.StatusOK || r.err != nil || !strings.Contains(string(r.body), "message_stop") || strings.Contains(string(r.body), "event: error") {
					t.Errorf("a running stream ended with %d, %v: %s", r.status, r.err, r.body)
				}
			})
		}
		waitSim(t, sim, fmt.Sprintf("held=%d", heldStreams), callPatience)

		refuse(g)
		more(t, "refused", 20, &l.refused)
		if r := call(t, http.MethodGet, g.url+"/ready", nil, nil); r.status != http.StatusServiceUnavailable {
			t.Errorf("/ready says %d", r.status)
		}
		if r := call(t, http.MethodPost, sim.url+"/__sim/release?name=running", nil, nil); r.status != http.StatusOK {
			t.Fatalf("release: status %d", r.status)
		}
		running.Wait()
		if n := g.metric("carpool_ledger_waiting_entries"); n < 1 || n > heldStreams+askersAtOnce {
			t.Errorf("%v entries wait, want 1 to %d", n, heldStreams+askersAtOnce)
		}
		more(t, "refused", 20, &l.refused)

		allow(g)
		more(t, "served", 20, &l.served)
		l.end()
		if kind, message := apiError(t, l.first); kind != "api_error" || !strings.Contains(message, "cannot write its books, so the request was not sent") || l.first.header.Get("Retry-After") != "5" ||
			strings.Contains(message, dir) {
			t.Errorf("refused with %s: %s %v", kind, message, l.first.header)
		}
		if r := call(t, http.MethodGet, g.url+"/ready", nil, nil); r.status != http.StatusOK {
			t.Errorf("/ready says %d", r.status)
		}
		g.logged("what is wrong and what to do", func(_ string, line map[string]any) bool {
			file, _ := line["file"].(string)
			why, _ := line["error"].(string)
			return strings.HasPrefix(file, g.data) && strings.Contains(why, logged)
		})
	}

	sent := sim.requests(0)
	answered := map[string]bool{}
	for _, r := range sent {
		answered[r.RequestID] = true
	}
	var books struct {
		Rows []struct{ UpstreamRequestID, Outcome string }
	}
	eventually(t, callPatience, "the books hold what was sent", func() bool {
		g.decode(&books, "usage", "--limit", "10000")
		return len(books.Rows) >= len(sent)
	})
	for _, e := range books.Rows {
		if !answered[e.UpstreamRequestID] || e.Outcome != "finished" {
			t.Errorf("an entry without its own request: %+v", e)
		}
		delete(answered, e.UpstreamRequestID)
	}
	if len(answered) > 0 || len(books.Rows) != len(sent) {
		t.Errorf("%d requests were sent and %d entries are in the books; lost: %v", len(sent), len(books.Rows), answered)
	}
	whole := func(when string) {
		t.Helper()
		var v verified
		g.decode(&v, "db", "verify")
		if v.Entries != int64(len(sent)) || v.Open != 0 || len(v.Findings) > 0 {
			t.Errorf("%s: %+v", when, v)
		}
	}
	whole("running")
	g.proc.terminate()
	whole("stopped")
}

// TestReadOnlyData: a server whose data cannot be written does not start, and says why; it starts when they can be, and
// nothing is missing.
func TestReadOnlyData(t *testing.T) {
	onSmallDisk(t, func(d *smallDisk) {
		readOnlyData(t, d)
	})
}

func readOnlyData(t *testing.T, disk *smallDisk) {
	sim := startSim(t)
	g := configured(t, disk.dir, sim.url, "drainTimeout: 5s")
	g.spend(100)
	g.settled(1)
	g.proc.terminate()
	disk.remount(syscall.MS_RDONLY)
	r := runProgram(t, callPatience, disk.dir, plainEnv(disk.dir, "E2E_UPSTREAM_KEY="+simKey), nil, binary, "serve", "--config", "carpool.yml")
	if r.code != 1 || !strings.Contains(r.stderr, "read-only file system") || strings.Contains(r.stderr, "panic") {
		t.Errorf("exit status %d: %s", r.code, r.stderr)
	}
	disk.remount(0)
	g = configured(t, disk.dir, sim.url, "drainTimeout: 5s")
	g.spend(100)
	g.settled(2)
	var v verified
	if g.decode(&v, "db", "verify"); v.Entries != 2 || len(v.Findings) > 0 {
		t.Errorf("%+v", v)
	}
}

package control_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plant is a running control with its admin API on a Unix socket and on TCP.
type plant struct {
	*control.Control
	folder string
	socket *control.Client // trusted
	url    string          // of the TCP listener
}

const bootstrapToken = "cpa_bootstrap_token_of_the_tests"

func options(t testing.TB, folder string) control.Options {
	t.Helper()
	key, err := control.LoadMasterKey(filepath.Join(folder, "master.key"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return control.Options{
		StorePath: filepath.Join(folder, "control.db"), MasterKey: key,
		Settings:       policy.Settings{TimeZone: "Europe/Berlin", Formula: policy.DefaultFormula()},
		DefaultQuota:   policy.Quota{Daily: 1000, Monthly: policy.Unlimited},
		BootstrapToken: policy.NewSecret(bootstrapToken),
		Now:            time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Version: "test",
	}
}

func open(t testing.TB, folder string, change ...func(*control.Options)) *plant {
	t.Helper()
	o := options(t, folder)
	for _, each := range change {
		each(&o)
	}
	c, err := control.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{Control: c, folder: folder}
	path := filepath.Join(folder, "carpool.sock")
	listener, err := control.ListenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: c.SocketHandler(), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	tcp := httptest.NewServer(c.Handler())
	p.url = tcp.URL
	p.socket = client(t, control.ClientOptions{Socket: path})
	t.Cleanup(func() {
		p.socket.Close()
		tcp.Close()
		_ = server.Close()
		serving.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func client(t testing.TB, o control.ClientOptions) *control.Client {
	t.Helper()
	c, err := control.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (p *plant) tcp(t testing.TB, token string) *control.Client {
	t.Helper()
	return client(t, control.ClientOptions{URL: p.url, Token: token})
}

// standIn is a node that applies every document and answers every command, as a data plane would.
type standIn struct {
	link fleet.Link

	mu      sync.Mutex
	applied *policy.Document
	usage   fleet.QuotaUsage
	spent   fleet.BudgetsUsage
	active  map[string]time.Time
	health  fleet.UpstreamHealth
	resets  []fleet.QuotaArgs
	settled []fleet.Entry // shipped by a flush
	refuse  bool          // says that documents do not compile
	fails   string        // answers commands with this error
}

func (p *plant) startNode(t testing.TB, name string) *standIn {
	t.Helper()
	n := &standIn{link: p.Link(name), usage: fleet.QuotaUsage{}, active: map[string]time.Time{}}
	ctx, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { n.follow(ctx) })
	loops.Go(func() { n.obey(ctx, name) })
	t.Cleanup(func() { stop(); loops.Wait() })
	for !control.Ready(p.Control, name) {
		runtime.Gosched()
	}
	return n
}

func (n *standIn) follow(ctx context.Context) {
	var have int64
	for {
		doc, err := n.link.Snapshot(ctx, have)
		if err != nil {
			return
		}
		have = doc.Version
		beat := fleet.Heartbeat{Protocol: fleet.Protocol, Time: time.Now(), Applied: doc.Version}
		n.mu.Lock()
		if n.refuse {
			beat.Applied, beat.Refused, beat.Problem = n.applied.Version, doc.Version, "refused by the test"
		} else {
			n.applied = doc
		}
		n.mu.Unlock()
		_ = n.link.Heartbeat(ctx, beat)
	}
}

func (n *standIn) obey(ctx context.Context, name string) {
	for {
		command, err := n.link.Command(ctx)
		if err != nil {
			return
		}
		var answer any
		n.mu.Lock()
		switch command.Kind {
		case fleet.CommandFlush:
			_, _ = n.link.Ship(ctx, fleet.UsageBatch{Node: name, Entries: n.settled})
		case fleet.CommandQuotaUsage:
			answer = n.usage
		case fleet.CommandQuotaReset:
			var args fleet.QuotaArgs
			_ = json.Unmarshal(command.Args, &args)
			n.resets = append(n.resets, args)
		case fleet.CommandBudgetUsage:
			answer = n.spent
		case fleet.CommandKeyActivity:
			answer = n.active
		case fleet.CommandUpstreamHealth:
			answer = n.health
		}
		fails := n.fails
		n.mu.Unlock()
		result, _ := json.Marshal(answer)
		_ = n.link.Answer(ctx, fleet.CommandResult{ID: command.ID, Error: fails, Result: result})
	}
}

// snapshot compiles the document that the node has.
func (n *standIn) snapshot(t testing.TB) *policy.Snapshot {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	s, err := policy.Compile(n.applied)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must[T any](t testing.TB) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func golden(t testing.TB, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s differs; look at the difference and run the test with -update\ngot:\n%.2000s", path, got)
	}
}

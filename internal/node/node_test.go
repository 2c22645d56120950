package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"carpool/internal/fleet"
	"carpool/internal/gateway"
	"carpool/internal/ledger"
	"carpool/internal/node"
	"carpool/internal/policy"
	"carpool/internal/web"
	"carpool/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// control is the other end of the link, as a test plays it.
type control struct {
	documents chan *policy.Document
	commands  chan fleet.Command
	answers   chan fleet.CommandResult

	mu       sync.Mutex
	beats    []fleet.Heartbeat
	entries  []fleet.Entry
	refusals int // how many deliveries fail yet
}

func newControl() *control {
	return &control{documents: make(chan *policy.Document, 1), commands: make(chan fleet.Command), answers: make(chan fleet.CommandResult, 1)}
}

func (c *control) Snapshot(ctx context.Context, _ int64) (*policy.Document, error) {
	select {
	case doc := <-c.documents:
		return doc, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *control) Ship(_ context.Context, batch fleet.UsageBatch) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusals > 0 && len(batch.Entries) > 0 {
		c.refusals--
		return 0, errors.New("not now")
	}
	c.entries = append(c.entries, batch.Entries...)
	if len(c.entries) == 0 {
		return 0, nil
	}
	return c.entries[len(c.entries)-1].Seq, nil
}

func (c *control) Command(ctx context.Context) (fleet.Command, error) {
	select {
	case command := <-c.commands:
		return command, nil
	case <-ctx.Done():
		return fleet.Command{}, ctx.Err()
	}
}

func (c *control) Answer(_ context.Context, result fleet.CommandResult) error {
	c.answers <- result
	return nil
}

func (c *control) Heartbeat(_ context.Context, beat fleet.Heartbeat) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beats = append(c.beats, beat)
	return nil
}

func (c *control) last() fleet.Heartbeat {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beats[len(c.beats)-1]
}

func (c *control) shipped() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

const key = "a-key-of-more-than-twenty-characters"

func document(version int64, upstream string) *policy.Document {
	return &policy.Document{
		Version:   version,
		Settings:  policy.Settings{Organization: "example", TimeZone: "UTC", Formula: policy.DefaultFormula()},
		Upstreams: []policy.Upstream{{Name: "main", Provider: policy.ProviderAnthropic, BaseURL: upstream, Weight: 1}},
		Routes:    []policy.RouteSpec{{Name: "all", Upstreams: []string{"main"}}},
		Users:     []policy.User{{Name: "alice", Quota: policy.Quota{Daily: 1000, Monthly: policy.Unlimited}}},
		Keys:      []policy.Key{{ID: "k", Name: "laptop", User: "alice", Hash: policy.NewHasher(nil).Hash(key)}},
		Budgets:   []policy.BudgetSpec{{Name: "alice-day", Scope: "user/alice", Amount: "1000 tokens", Window: "day"}},
	}
}

// start runs a node with a policy; what it returns serves requests.
func start(t *testing.T, c *control) (n *node.Node, serve func(method, path, body string) *httptest.ResponseRecorder, l *ledger.Ledger) {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"type":"message","usage":{"input_tokens":10,"output_tokens":5}}`)
	}))
	t.Cleanup(up.Close)
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "node.db"), ledger.Options{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c.documents <- document(1, up.URL)
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	n, err = node.New(t.Context(), node.Options{
		Name: "n1", Version: "test", Link: c, Ledger: l, Hasher: policy.NewHasher(nil), Log: log, Registerer: registry, Now: time.Now,
		Client: wire.ClientOptions{DialTimeout: time.Second, IdleTimeout: time.Second, IdlePerUpstream: 4},
		Bodies: gateway.BodyLimits{Size: 1 << 20, Timeout: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	handler := wire.Handler(web.NewFront(log, web.NewMetrics(registry), time.Now).Serve(n.Handle))
	return n, func(method, path, body string) *httptest.ResponseRecorder {
		request := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		request.Header.Set("X-Api-Key", key)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		return answer
	}, l
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

const message = `{"model":"claude-opus-5-5","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`

func TestADocumentThatDoesNotCompileLeavesTheOldInForce(t *testing.T) {
	c := newControl()
	_, serve, _ := start(t, c)
	broken := document(2, "http://127.0.0.1:1")
	broken.Routes[0].Upstreams = []string{"missing"}
	c.documents <- broken
	waitFor(t, "the refusal", func() bool { return c.last().Refused == 2 })
	if beat := c.last(); beat.Applied != 1 || !strings.Contains(beat.Problem, "missing") {
		t.Errorf("heartbeat %+v", beat)
	}
	if got := serve("POST", "/v1/messages", message); got.Code != 200 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	next := document(3, "http://127.0.0.1:1")
	next.Keys = nil
	c.documents <- next
	waitFor(t, "the next version", func() bool { return c.last().Applied == 3 && c.last().Refused == 0 })
	if got := serve("POST", "/v1/messages", message); got.Code != 401 {
		t.Errorf("a key that is gone: %d %s", got.Code, got.Body)
	}
}

func TestUsageIsShippedUntilItIsAcknowledged(t *testing.T) {
	c := newControl()
	c.refusals = 1
	_, serve, l := start(t, c)
	for range 3 {
		if got := serve("POST", "/v1/messages", message); got.Code != 200 {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
	}
	// A question about usage does not wait for the next delivery.
	c.commands <- fleet.Command{ID: "1", Kind: fleet.CommandFlush}
	first := <-c.answers
	if first.Error == "" && c.shipped() != 3 {
		t.Errorf("after a flush %d entries are shipped", c.shipped())
	}
	waitFor(t, "three entries", func() bool { return c.shipped() == 3 && l.Acknowledged() == 3 })
	for i, e := range c.entries {
		if e.Seq != int64(i+1) || e.User != "alice" || e.InputTokens != 10 {
			t.Errorf("entry %+v", e)
		}
	}
}

func TestCommands(t *testing.T) {
	c := newControl()
	_, serve, _ := start(t, c)
	if got := serve("POST", "/v1/messages", message); got.Code != 200 {
		t.Fatalf("%d %s", got.Code, got.Body)
	}
	ask := func(kind fleet.CommandKind, args any) fleet.CommandResult {
		t.Helper()
		encoded, err := json.Marshal(args)
		if err != nil {
			t.Fatal(err)
		}
		c.commands <- fleet.Command{ID: string(kind), Kind: kind, Args: encoded}
		result := <-c.answers
		if result.ID != string(kind) {
			t.Fatalf("answer %+v to %s", result, kind)
		}
		return result
	}
	usage := func() fleet.WindowUsage {
		t.Helper()
		var all fleet.QuotaUsage
		if err := json.Unmarshal(ask(fleet.CommandQuotaUsage, fleet.QuotaArgs{Users: []string{"alice", "nobody"}}).Result, &all); err != nil || len(all) != 1 {
			t.Fatalf("%v %v", all, err)
		}
		return all["alice"].Daily
	}
	if u := usage(); u.Limit != 1000 || u.Used != 15 || u.Remaining != 985 {
		t.Errorf("usage %+v", u)
	}
	if r := ask(fleet.CommandQuotaReset, fleet.QuotaArgs{Users: []string{"alice"}, Windows: []string{"daily"}}); r.Error != "" {
		t.Error(r.Error)
	}
	if u := usage(); u.Used != 0 {
		t.Errorf("after a reset %+v", u)
	}
	if r := ask(fleet.CommandBudgetUsage, fleet.BudgetArgs{Budgets: []string{"alice-day", "none"}}); !strings.HasPrefix(string(r.Result), `{"alice-day":[{"subject":"user/alice","used":15,"reserved":0,"resetsAt":"`) {
		t.Errorf("budgets %s %s", r.Result, r.Error)
	}
	if r := ask(fleet.CommandKeyActivity, nil); !strings.Contains(string(r.Result), `"k":`) {
		t.Errorf("activity %s %s", r.Result, r.Error)
	}
	if r := ask(fleet.CommandUpstreamHealth, nil); string(r.Result) != "{}" {
		t.Errorf("all upstreams are asked, and yet: %s %s", r.Result, r.Error)
	}
	if r := ask("dance", nil); !strings.Contains(r.Error, "dance") {
		t.Errorf("an unknown command: %+v", r)
	}
}

func TestHealth(t *testing.T) {
	c := newControl()
	n, serve, l := start(t, c)
	look := func(path string) (code int, status string) {
		t.Helper()
		got := serve("GET", path, "")
		var body struct {
			Status, Service, Timestamp, Version string
			Uptime                              int64
			NodeID                              string `json:"node_id"`
			Connected                           bool
		}
		if err := json.Unmarshal(got.Body.Bytes(), &body); err != nil || body.Service != "carpool" || body.NodeID != "n1" || !body.Connected {
			t.Fatalf("%s: %d %s", path, got.Code, got.Body)
		}
		if _, err := time.Parse(time.RFC3339, body.Timestamp); err != nil {
			t.Error(err)
		}
		return got.Code, body.Status
	}
	expect := func(path string, code int, status string) {
		t.Helper()
		if c, s := look(path); c != code || s != status {
			t.Errorf("%s: %d %s, want %d %s", path, c, s, code, status)
		}
	}
	for _, path := range []string{"/health", "/live", "/ready"} {
		expect(path, 200, "healthy")
	}
	n.Drain()
	expect("/ready", 503, "draining")
	expect("/health", 503, "draining")
	expect("/live", 200, "draining")
	_ = l.Close()
	expect("/ready", 503, "unhealthy")
	expect("/live", 200, "unhealthy")
}

package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"carpool/internal/gateway"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/upstream"
	"carpool/internal/web"
	"carpool/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	aliceKey   = "alice-key-of-twenty-characters"
	bobKey     = "bob-key-of-twenty-characters--"
	credential = "sk-upstream-credential"
)

// rig is a gateway on a real socket, with a real ledger and an upstream that a test scripts.
type rig struct {
	t        testing.TB
	url      string
	upstream *recorder
	ledger   *ledger.Ledger
	registry *prometheus.Registry
	snapshot atomic.Pointer[policy.Snapshot]
	hasher   policy.Hasher
	logs     *syncBuffer
	document *policy.Document
	stop     func() // ends what is served, as a drain does when its time is over
}

// received is a request as the upstream saw it.
type received struct {
	method, uri string
	header      http.Header
	body        []byte
	gone        <-chan struct{} // closed when the gateway drops the request
}

// recorder is the upstream: it remembers what came and answers as the test says.
type recorder struct {
	mu     sync.Mutex
	seen   []received
	answer http.HandlerFunc
}

func (u *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	u.seen = append(u.seen, received{r.Method, r.RequestURI, r.Header.Clone(), body, r.Context().Done()})
	u.mu.Unlock()
	u.answer(w, r)
}

func (u *recorder) last(t testing.TB) received {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) == 0 {
		t.Fatal("the upstream received nothing")
	}
	return u.seen[len(u.seen)-1]
}

func (u *recorder) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = nil
}

func (u *recorder) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newRig starts a gateway whose upstream answers with answer. edit may change the policy before it is compiled.
func newRig(t testing.TB, answer http.HandlerFunc, edit func(*policy.Document)) *rig {
	t.Helper()
	return newRigWith(t, answer, edit, 0)
}

// newRigWith is newRig with an interval of pings; 0 is the usual one.
func newRigWith(t testing.TB, answer http.HandlerFunc, edit func(*policy.Document), pings time.Duration) *rig {
	t.Helper()
	return newRigAt(t, answer, edit, pings, time.Now)
}

// newRigAt is newRigWith with a clock. It believes 10.0.0.0/8 and this machine about the client's address.
func newRigAt(t testing.TB, answer http.HandlerFunc, edit func(*policy.Document), pings time.Duration, now func() time.Time) *rig {
	t.Helper()
	r := &rig{t: t, upstream: &recorder{answer: answer}, registry: prometheus.NewRegistry(), hasher: policy.NewHasher([]byte("pepper")), logs: &syncBuffer{}}
	up := httptest.NewServer(r.upstream)
	t.Cleanup(up.Close)
	doc := &policy.Document{
		Version: 1,
		Settings: policy.Settings{
			Organization: "example", TimeZone: "UTC", Formula: policy.DefaultFormula(), QuotaMessage: "Ask ops@example.com.",
			SystemPrompt: "You are Claude Code.", DefaultHeaders: map[string]string{"anthropic-version": "2023-06-01", "x-app": "cli"},
		},
		Upstreams: []policy.Upstream{{Name: "main", Provider: policy.ProviderAnthropic, BaseURL: up.URL, Credential: policy.NewSecret(credential), Weight: 1}},
		Routes:    []policy.RouteSpec{{Name: "default", Upstreams: []string{"main"}}},
		Users: []policy.User{
			{Name: "alice", Team: "platform", Quota: policy.Quota{Daily: policy.Unlimited, Monthly: policy.Unlimited}},
			{Name: "bob", Quota: policy.Quota{Daily: policy.Unlimited, Monthly: policy.Unlimited}},
		},
		Keys: []policy.Key{
			{ID: "a1", Name: "alice-laptop", User: "alice", Hash: r.hasher.Hash(aliceKey)},
			{ID: "b1", Name: "bob-laptop", User: "bob", Hash: r.hasher.Hash(bobKey)},
		},
	}
	if edit != nil {
		edit(doc)
	}
	r.document = doc
	r.change(func(*policy.Document) {})
	var err error
	log := slog.New(slog.NewTextHandler(r.logs, nil))
	r.ledger, err = ledger.Open(t.Context(), filepath.Join(t.TempDir(), "node.db"), ledger.Options{Node: "n1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.ledger.Close() })
	pool := upstream.NewPool(upstream.Options{
		// A busy machine needs seconds for hundreds of connections; no test waits for these to pass.
		Client: wire.NewClient(wire.ClientOptions{HeaderTimeout: time.Minute, DialTimeout: time.Minute, IdleTimeout: time.Second, IdlePerUpstream: 64}),
		Log:    log, Registerer: r.registry, Now: time.Now, Random: func(int) int { return 0 },
	})
	t.Cleanup(pool.Close)
	g := gateway.New(gateway.Options{
		Snapshot: &r.snapshot, Hasher: r.hasher, Ledger: r.ledger, Pool: pool, Log: log, Registerer: r.registry, Now: now,
		Bodies: gateway.BodyLimits{Size: 1 << 20, Timeout: 5 * time.Second}, PingInterval: pings,
	})
	front := web.NewFront(log, web.NewMetrics(r.registry), now)
	front.TrustProxies([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")})
	stopping, stop := context.WithCancelCause(context.WithoutCancel(t.Context()))
	r.stop = func() { stop(web.ErrStopping) }
	server := httptest.NewServer(wire.Handler(front.Serve(func(ctx context.Context, w wire.Writer, q *web.Request) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(stopping, func() { cancel(context.Cause(stopping)) })()
		return g.Handle(ctx, w, q)
	})))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// change puts a changed policy in force.
func (r *rig) change(edit func(*policy.Document)) {
	r.t.Helper()
	next := *r.document
	next.Version++
	next.Teams, next.Users, next.Keys = slices.Clone(next.Teams), slices.Clone(next.Users), slices.Clone(next.Keys)
	edit(&next)
	snapshot, err := policy.Compile(&next)
	if err != nil {
		r.t.Fatal(err)
	}
	r.document = &next
	r.snapshot.Store(snapshot)
}

// request makes a request of Alice's with headers given as "Name: value".
func (r *rig) request(method, path, body string, headers ...string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", aliceKey)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if value == "" {
			req.Header.Del(name)
			continue
		}
		req.Header.Set(name, value)
	}
	return req
}

// answer is a whole answer as the client saw it.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // the body broke off
}

func (r *rig) do(req *http.Request) answer {
	r.t.Helper()
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

func (r *rig) post(body string, headers ...string) answer {
	r.t.Helper()
	return r.do(r.request("POST", "/v1/messages?beta=true", body, headers...))
}

// entries waits until the ledger has n entries and returns them, oldest first.
func (r *rig) entries(n int) []ledger.Entry {
	r.t.Helper()
	var list []ledger.Entry
	waitFor(r.t, "entries in the ledger", func() bool {
		var err error
		if list, err = r.ledger.Outbox(context.Background(), 0, 10_000); err != nil {
			r.t.Fatal(err)
		}
		return len(list) >= n
	})
	if len(list) != n {
		r.t.Fatalf("the ledger has %d entries, want %d: %+v", len(list), n, list)
	}
	return list
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

const plainRequest = `{"model":"claude-opus-5-5","max_tokens":100,"messages":[{"role":"user","content":"hello"}]}`

const streamRequest = `{"model":"claude-opus-5-5","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hello"}]}`

const plainAnswer = `{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":12,"output_tokens":5,"cache_read_input_tokens":7,"cache_creation_input_tokens":3}}`

// streamEvents is a whole stream, cut into pieces at event boundaries.
var streamEvents = []string{
	"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_2\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-opus-5-5\",\"content\":[],\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n",
	"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"Write\",\"input\":{}}}\n\n",
	"event: ping\ndata: {\"type\": \"ping\"}\n\n",
	"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n\n",
	"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
	"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":9}}\n\n",
	"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
}

func answerPlain(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", "req_upstream")
	_, _ = io.WriteString(w, plainAnswer)
}

func answerStream(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, p := range pieces {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an upstream whose next answers a test scripts.
type fake struct {
	name   string
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
}

func (f *fake) set(h http.HandlerFunc) { f.answer.Store(&h) }

// lab is a pool with scripted upstreams and a clock.
type lab struct {
	t     *testing.T
	pool  *Pool
	clock atomic.Int64 // seconds
	fakes map[string]*fake
	ups   []*policy.Upstream
}

func (l *lab) now() time.Time          { return time.Unix(1_800_000_000+l.clock.Load(), 0) }
func (l *lab) advance(d time.Duration) { l.clock.Add(int64(d / time.Second)) }

func newLab(t *testing.T, names ...string) *lab {
	t.Helper()
	l := &lab{t: t, fakes: map[string]*fake{}}
	for i, name := range names {
		f := &fake{name: name}
		f.set(success)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			f.asked.Add(1)
			(*f.answer.Load())(w, r)
		}))
		t.Cleanup(server.Close)
		l.fakes[name] = f
		l.ups = append(l.ups, &policy.Upstream{
			Name: name, Provider: policy.ProviderAnthropic, BaseURL: server.URL, Credential: policy.NewSecret("sk-" + name), Weight: 1, Priority: i,
		})
	}
	l.pool = NewPool(Options{
		Client: wire.NewClient(wire.ClientOptions{HeaderTimeout: 300 * time.Millisecond, DialTimeout: time.Second, IdleTimeout: time.Second, IdlePerUpstream: 8}),
		Log:    slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Now: l.now, Random: func(n int) int { return n / 2 },
	})
	t.Cleanup(l.pool.Close)
	return l
}

func exchangeOf(t testing.TB, session string) *Exchange {
	t.Helper()
	body := []byte(`{"model":"claude-opus-5-5","max_tokens":10,"stream":true,"messages":[{"role":"user","content":"x"}]}`)
	peek, err := anthropic.Peek(body)
	if err != nil {
		t.Fatal(err)
	}
	return &Exchange{Path: "/v1/messages", Body: wire.NewBody(body, nil), Peek: peek, Model: peek.Model, User: "alice", Session: session}
}

// do sends an exchange and returns what became of it, the answer read to its end.
func (l *lab) do(session string) (r Result, body string) {
	l.t.Helper()
	r, err := l.pool.Do(l.t.Context(), policy.Target{Route: "default", Upstreams: l.ups}, exchangeOf(l.t, session))
	if err != nil {
		l.t.Fatal(err)
	}
	if r.Answer != nil {
		data, _ := io.ReadAll(r.Answer.Response.Body)
		_ = r.Answer.Response.Body.Close()
		return r, string(data)
	}
	return r, string(r.Failure.Body)
}

func (l *lab) served(by, session string) Result {
	l.t.Helper()
	r, _ := l.do(session)
	if r.Answer == nil || r.Upstream != by {
		l.t.Fatalf("served by %q, want %q: %+v", r.Upstream, by, r.Failure)
	}
	return r
}

func (l *lab) asked(name string) int64 { return l.fakes[name].asked.Load() }

const events = "event: message_start\ndata: {}\n\nevent: message_stop\ndata: {}\n\n"

func success(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, events)
}

// status answers an error in the API's format; headers are "Name: value".
func status(code int, kind string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"type":"error","error":{"type":%q,"message":"said by the upstream"}}`, kind)
	}
}

func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func page(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "<html>")
	}
}

func errorFirst(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":%q,\"message\":\"m\"}}\n\n", kind)
	}
}

func TestFailover(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	tests := []struct {
		name   string
		answer http.HandlerFunc
		moves  bool   // another upstream is asked
		alone  int    // what the client gets when there is no other
		own    bool   // in our words
		kind   string // error type then
	}{
		{"429", status(429, "rate_limit_error", "Retry-After: 7"), true, 429, false, "rate_limit_error"},
		{"529", status(529, "overloaded_error"), true, 529, false, "overloaded_error"},
		{"500", status(500, "api_error"), true, 500, false, "api_error"},
		{"502 page", page(502), true, 502, true, "api_error"},
		{"503", status(503, "api_error"), true, 503, false, "api_error"},
		{"504", status(504, "timeout_error"), true, 504, false, "timeout_error"},
		{"401", status(401, "authentication_error"), true, 502, true, "api_error"},
		{"403", status(403, "permission_error"), true, 502, true, "api_error"},
		{"402", status(402, "billing_error"), true, 402, false, "billing_error"},
		{"404 model", status(404, "not_found_error"), true, 404, false, "not_found_error"},
		{"501", status(501, "not_supported"), true, 501, false, "not_supported"},
		{"redirect", status(307, "x", "Location: /y"), true, 502, true, "api_error"},
		{"reset before the header", abort, true, 502, true, "api_error"},
		{"no header in time", hang, true, 504, true, "timeout_error"},
		{"empty stream", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/event-stream") }, true, 502, true, "api_error"},
		{"a page for an answer", page(200), true, 502, true, "api_error"},
		{"error event first", errorFirst("overloaded_error"), true, 529, false, "overloaded_error"},
		{"spend limit", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits. You will regain access on 2026-12-01."}}`)
		}, true, 429, true, "billing_error"},
		{"400", status(400, "invalid_request_error"), false, 400, false, "invalid_request_error"},
		{"413", status(413, "request_too_large"), false, 413, false, "request_too_large"},
		{"422", status(422, "invalid_request_error"), false, 422, false, "invalid_request_error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, "a", "b")
			l.fakes["a"].set(tt.answer)
			r, body := l.do("")
			if tt.moves {
				if r.Answer == nil || r.Upstream != "b" || r.Attempts != 2 || body != events {
					t.Errorf("two upstreams: %+v %q", r, body)
				}
			} else if r.Answer != nil || l.asked("b") != 0 {
				t.Errorf("a request at fault went to another upstream: %+v", r)
			}

			l = newLab(t, "a")
			l.fakes["a"].set(tt.answer)
			r, body = l.do("")
			if r.Failure == nil || r.Failure.Status != tt.alone || (r.Failure.Own != nil) != tt.own || r.Failure.Type != tt.kind {
				t.Fatalf("alone: %+v %q", r.Failure, body)
			}
			if !tt.own && !strings.Contains(body, tt.kind) {
				t.Errorf("the upstream's own words are lost: %q", body)
			}
			if tt.own && strings.Contains(r.Failure.Own.Message, "said by the upstream") {
				t.Errorf("the operator's trouble is shown: %s", r.Failure.Own.Message)
			}
		})
	}
}

func TestWhenAllFailTheMostUsefulAnswerIsShown(t *testing.T) {
	l := newLab(t, "a", "b", "c", "d")
	l.fakes["a"].set(status(500, "api_error"))
	l.fakes["b"].set(status(429, "rate_limit_error", "Retry-After: 9"))
	l.fakes["c"].set(abort)
	l.fakes["d"].set(status(401, "authentication_error"))
	r, body := l.do("")
	if r.Failure == nil || r.Failure.Status != 429 || r.Failure.Head.Get("Retry-After") != "9" || r.Attempts != 4 || !strings.Contains(body, "said by the upstream") {
		t.Errorf("%+v %s", r.Failure, body)
	}
}

// What the log says when several upstreams failed alike names them all, in the order in which they were asked.
func TestAlikeFailuresAreAllNamed(t *testing.T) {
	l := newLab(t, "a", "b")
	for _, f := range l.fakes {
		f.set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	}
	r, _ := l.do("")
	if r.Failure == nil || r.Failure.Own == nil || r.Failure.Status != 504 {
		t.Fatalf("%+v", r.Failure)
	}
	text := r.Failure.Own.Error()
	first, second := strings.Index(text, `upstream "a": `), strings.Index(text, `upstream "b": `)
	if first < 0 || second < first || strings.Contains(text, "cannot reach") || strings.Count(text, "did not answer in time: ") < 2 {
		t.Error(text)
	}
}

func TestRateLimitedUpstreamIsLeftAloneForAsLongAsItSays(t *testing.T) {
	l := newLab(t, "a", "b")
	l.fakes["a"].set(status(429, "rate_limit_error", "Retry-After: 20"))
	l.served("b", "")
	l.fakes["a"].set(success)
	l.advance(19 * time.Second)
	l.served("b", "")
	if n := l.asked("a"); n != 1 {
		t.Errorf("asked %d times within its retry-after", n)
	}
	l.advance(2 * time.Second)
	l.served("a", "")

	alone := newLab(t, "a")
	alone.fakes["a"].set(status(429, "rate_limit_error", "Retry-After: 20"))
	alone.do("")
	alone.advance(5 * time.Second)
	r, _ := alone.do("")
	if r.Failure == nil || r.Failure.Status != 429 || alone.asked("a") != 1 {
		t.Fatalf("%+v", r)
	}
	if e := r.Failure.Own; e == nil || e.Header[0].Value != "15" {
		t.Errorf("the remaining time is not told: %+v", e)
	}
}

// A time to come back is also a date, which counts against our clock.
func TestRetryAfterIsReadInEveryForm(t *testing.T) {
	now := time.Date(2026, 11, 6, 8, 49, 37, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"7": 7 * time.Second, "1e9": 24 * time.Hour,
		"Fri, 06 Nov 2026 08:50:00 GMT": 23 * time.Second, "Friday, 06-Nov-26 08:50:00 GMT": 23 * time.Second, "Fri Nov  6 08:50:00 2026": 23 * time.Second,
		"Fri, 06 Nov 2026 08:00:00 GMT": 0, "Sat, 06 Nov 2027 08:00:00 GMT": 24 * time.Hour, "soon": 0,
	} {
		if got := retryAfter(wire.Head{{Name: "Retry-After", Value: text}}, now); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestRefusedCredentialIsSetAsideUntilItChanges(t *testing.T) {
	l := newLab(t, "a", "b")
	l.fakes["a"].set(status(401, "authentication_error"))
	for range 5 {
		l.served("b", "")
	}
	if n := l.asked("a"); n != 1 {
		t.Errorf("asked %d times with a refused credential", n)
	}
	l.fakes["a"].set(success)
	renewed := *l.ups[0]
	renewed.Credential = policy.NewSecret("sk-new")
	l.ups[0] = &renewed
	l.served("a", "")
}

// One request that the account may not make is no reason to set the upstream aside for everybody.
func TestAForbiddenRequestConcernsItselfUnlessTheyAllAre(t *testing.T) {
	l := newLab(t, "a", "b")
	l.served("a", "")
	l.fakes["a"].set(status(403, "permission_error"))
	l.served("b", "")
	l.fakes["a"].set(success)
	l.served("a", "")
	l.fakes["a"].set(status(403, "permission_error"))
	for range 10 {
		l.served("b", "")
	}
	if n := l.asked("a"); n != 3+refusedCredential {
		t.Errorf("asked %d times, want %d", n, 3+refusedCredential)
	}
}

func TestSporadicErrorsDoNotSetASingleUpstreamAside(t *testing.T) {
	l := newLab(t, "a")
	for range 20 {
		l.fakes["a"].set(status(529, "overloaded_error"))
		if r, _ := l.do(""); r.Failure == nil || r.Failure.Status != 529 {
			t.Fatalf("%+v", r)
		}
		l.fakes["a"].set(success)
		l.served("a", "") // the client's next try finds it at work again at once
		l.advance(time.Second)
	}
}

func TestCircuitOpensAfterRepeatedFailuresAndHeals(t *testing.T) {
	l := newLab(t, "a", "b")
	l.fakes["a"].set(abort)
	for range 10 {
		l.served("b", "")
	}
	if n := l.asked("a"); n != breakConnects {
		t.Errorf("an unreachable upstream was asked %d times, want %d", n, breakConnects)
	}
	l.fakes["a"].set(success)
	l.advance(10 * time.Second)
	l.served("a", "")
	l.served("a", "")
}

// A herd that comes when an upstream recovers must not trample it: one request goes first.
func TestHalfOpenUnderAHerd(t *testing.T) {
	l := newLab(t, "a")
	l.fakes["a"].set(status(529, "overloaded_error"))
	l.do("")
	l.advance(time.Minute)
	var mu sync.Mutex
	inside, most, recovered := 0, 0, false
	release := make(chan struct{})
	l.fakes["a"].set(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		inside++
		if !recovered {
			most = max(most, inside)
		}
		mu.Unlock()
		<-release
		mu.Lock()
		inside--
		recovered = true
		mu.Unlock()
		success(w, r)
	})
	const herd = 500
	var refused, ok atomic.Int64
	var clients sync.WaitGroup
	for range herd {
		clients.Go(func() {
			r, err := l.pool.Do(t.Context(), policy.Target{Route: "default", Upstreams: l.ups}, exchangeOf(t, ""))
			switch {
			case err != nil:
				t.Error(err)
			case r.Answer != nil:
				_ = r.Answer.Response.Body.Close()
				ok.Add(1)
			default:
				if r.Failure.Status != 529 {
					t.Errorf("refused with %d", r.Failure.Status)
				}
				if refused.Add(1) == herd-1 {
					close(release)
				}
			}
		})
	}
	clients.Wait()
	if most != 1 || ok.Load() != 1 || refused.Load() != herd-1 {
		t.Errorf("%d at once at the recovering upstream, %d served, %d refused", most, ok.Load(), refused.Load())
	}
	l.served("a", "")
}

func TestSessionsStayWhereTheirCacheIs(t *testing.T) {
	l := newLab(t, "a", "b")
	l.ups[1].Priority = 0
	turn := 0
	l.pool.random = func(n int) int { turn++; return turn * 7919 % n } // anything but always the same
	by := map[string]string{}
	for i := range 20 {
		s := fmt.Sprint("session-", i)
		r, _ := l.do(s)
		by[s] = r.Upstream
	}
	for range 3 {
		for s, name := range by {
			if r := l.served(name, s); r.MovedFrom != "" {
				t.Errorf("%s says that it moved", s)
			}
		}
	}
	l.fakes["a"].set(status(429, "rate_limit_error", "Retry-After: 30"))
	for s, name := range by {
		r := l.served("b", s)
		if (name == "a") != (r.MovedFrom == "a") {
			t.Errorf("%s was at %s, moved from %q", s, name, r.MovedFrom)
		}
	}
	l.fakes["a"].set(success)
	l.advance(time.Minute)
	for s := range by {
		l.served("b", s) // its cache is there now
	}
}

func TestSessionsAreKnownAfterARestart(t *testing.T) {
	l := newLab(t, "a", "b")
	l.pool.Bind("default", "s", "b", l.now().Add(-10*time.Minute))
	l.served("b", "s")
	l.pool.Bind("default", "old", "b", l.now().Add(-2*time.Hour))
	l.served("a", "old")
}

func TestAMovedSessionPrefersItsOrganisation(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	for i, org := range []string{"one", "two", "one"} {
		l.ups[i].Priority = 0
		l.fakes[l.ups[i].Name].set(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Anthropic-Organization-Id", org)
			success(w, r)
		})
		l.pool.Bind("default", l.ups[i].Name, l.ups[i].Name, l.now())
		l.served(l.ups[i].Name, l.ups[i].Name)
	}
	l.fakes["a"].set(status(429, "rate_limit_error", "Retry-After: 30"))
	l.served("c", "a")
}

func TestWeightsAndHeadroomSteer(t *testing.T) {
	l := newLab(t, "a", "b")
	l.ups[0].Weight, l.ups[0].Priority, l.ups[1].Priority = 3, 0, 0
	turn := 0
	l.pool.random = func(n int) int { turn++; return turn * 7919 % n }
	count := func() (a, b int64) {
		a0, b0 := l.asked("a"), l.asked("b")
		for range 400 {
			l.do("")
		}
		return l.asked("a") - a0, l.asked("b") - b0
	}
	if a, b := count(); a < 270 || a > 330 {
		t.Errorf("weights 3 to 1: %d to %d", a, b)
	}
	l.fakes["a"].set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Anthropic-Ratelimit-Requests-Limit", "100")
		w.Header().Set("Anthropic-Ratelimit-Requests-Remaining", "1")
		w.Header().Set("Anthropic-Ratelimit-Requests-Reset", l.now().Add(time.Minute).Format(time.RFC3339))
		success(w, r)
	})
	if a, b := count(); a > 100 {
		t.Errorf("an upstream that is nearly exhausted is still preferred: %d to %d", a, b)
	}
}

func TestCapOnRequestsInFlight(t *testing.T) {
	l := newLab(t, "a", "b")
	l.ups[0].MaxInFlight = 2
	l.pool.Bind("default", "at a", "a", l.now())
	release, inside := make(chan struct{}), make(chan struct{}, 8)
	l.fakes["a"].set(func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-release
		success(w, r)
	})
	var held sync.WaitGroup
	for range 2 {
		held.Go(func() { l.do("") })
		<-inside
	}
	l.served("b", "") // at once: another one has a place
	// Those whose cache is there wait for a place; when one is free it is theirs.
	waited := make(chan Result, 1)
	go func() { r, _ := l.do("at a"); waited <- r }()
	h := l.pool.health(l.ups[0])
	for {
		h.inFlight.mu.Lock()
		n := h.inFlight.waiting
		h.inFlight.mu.Unlock()
		if n == 1 {
			break
		}
	}
	close(release)
	if r := <-waited; r.Upstream != "a" {
		t.Errorf("waited for a place at %q", r.Upstream)
	}
	held.Wait()
	if h.inFlight.held != 0 {
		t.Errorf("%d places are still held", h.inFlight.held)
	}
}

func TestClientThatLeavesDoesNotHarmTheUpstream(t *testing.T) {
	l := newLab(t, "a")
	l.fakes["a"].set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for range 20 {
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := l.pool.Do(ctx, policy.Target{Route: "default", Upstreams: l.ups}, exchangeOf(t, ""))
			done <- err
		}()
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
	}
	l.fakes["a"].set(success)
	l.served("a", "")
	if r, _, _ := l.pool.health(l.ups[0]).state("claude-opus-5-5", l.now()); r != ready {
		t.Error("clients that left opened the circuit")
	}
}

// A request that cannot be sent says nothing of the upstream, and is never a reason to leave one alone.
func TestWhatCannotBeSentSaysNothingOfTheUpstream(t *testing.T) {
	l := newLab(t, "first", "second")
	for range 2 * breakConnects {
		x := exchangeOf(t, "s")
		x.Query = "beta= true"
		var shown *anthropic.Error
		if r, err := l.pool.Do(t.Context(), policy.Target{Route: "default", Upstreams: l.ups}, x); !errors.As(err, &shown) || shown.Status != 500 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	l.served("first", "s")
}

package upstream

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"carpool/internal/policy"
	"carpool/internal/wire"
)

const opus = "claude-opus-5-5"

// gate is a handler that says when it was entered and goes on to the answer when it is opened.
func gate(answer http.HandlerFunc) (h http.HandlerFunc, entered <-chan struct{}, open func()) {
	in, hold := make(chan struct{}, 16), make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		<-hold
		answer(w, r)
	}, in, func() { close(hold) }
}

// background sends an exchange and closes the channel when it is over.
func (l *lab) background(session string) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); l.do(session) }()
	return done
}

func (l *lab) count() Result {
	l.t.Helper()
	x := exchangeOf(l.t, "s")
	x.Path = "/v1/messages/count_tokens"
	r, err := l.pool.Do(l.t.Context(), policy.Target{Route: "default", Upstreams: l.ups}, x)
	if err != nil {
		l.t.Fatal(err)
	}
	if r.Answer != nil {
		_, _ = io.Copy(io.Discard, r.Answer.Response.Body)
		_ = r.Answer.Response.Body.Close()
	}
	return r
}

// TestCountingTokensSaysLittleAboutMessages: many upstreams do not offer it, and it has limits of its own.
func TestCountingTokensSaysLittleAboutMessages(t *testing.T) {
	for _, code := range []int{404, 429, 500, 501, 529} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			l := newLab(t, "a")
			l.fakes["a"].set(status(code, "error", "Retry-After: 60"))
			for range 12 {
				if r := l.count(); r.Failure == nil || r.Failure.Status != code {
					t.Fatalf("counting: %+v", r)
				}
			}
			if r, _, why := l.pool.health(l.ups[0]).state(opus, l.now()); r != ready {
				t.Errorf("messages are kept away: %v after %s", r, why)
			}
		})
	}
	t.Run("credential", func(t *testing.T) {
		l := newLab(t, "a")
		l.fakes["a"].set(status(401, "authentication_error"))
		l.count()
		if r, _, _ := l.pool.health(l.ups[0]).state(opus, l.now()); r != closed {
			t.Errorf("a refused credential is refused for messages, too: %v", r)
		}
	})
	t.Run("success", func(t *testing.T) {
		l := newLab(t, "a", "b")
		l.pool.Bind("default", "s", "a", l.now())
		l.fakes["a"].set(status(402, "billing_error"))
		l.do("")
		l.fakes["a"].set(success)
		l.advance(time.Hour)
		l.count()
		if r, _, _ := l.pool.health(l.ups[0]).state(opus, l.now()); r != probing {
			t.Errorf("what is free shows that the account has paid: %v", r)
		}
		l.fakes["a"].set(status(404, "not_found_error"))
		if r := l.count(); r.Upstream != "b" || r.MovedFrom != "" {
			t.Errorf("counted at %q, moved from %q", r.Upstream, r.MovedFrom)
		}
		l.fakes["a"].set(success)
		l.served("a", "s")
	})
}

// TestAnUpstreamThatRecoversDuringTheSearchIsAsked: when the last one fails, those passed over at first may be usable again.
func TestAnUpstreamThatRecoversDuringTheSearchIsAsked(t *testing.T) {
	for name, recover := range map[string]func(l *lab){
		"its time is over": func(l *lab) { l.advance(20 * time.Second) },
		"it is well again": func(l *lab) {
			l.advance(time.Second)
			l.pool.health(l.ups[0]).succeeded(opus, turn{start: l.now()}, l.now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "a", "b")
			l.fakes["a"].set(status(529, "overloaded_error"))
			l.served("b", "")
			l.fakes["a"].set(success)
			l.fakes["b"].set(func(w http.ResponseWriter, r *http.Request) {
				recover(l)
				status(500, "api_error")(w, r)
			})
			l.served("a", "")
		})
	}
}

func TestNoUpstreams(t *testing.T) {
	l := newLab(t)
	if r, _ := l.do(""); r.Failure == nil || !strings.Contains(r.Failure.Own.Message, "switched off") {
		t.Errorf("%+v", r.Failure)
	}
}

// TestAnOlderSuccessDoesNotEndACooldown: a stream that was under way before the limit was reached says nothing of it.
func TestAnOlderSuccessDoesNotEndACooldown(t *testing.T) {
	l := newLab(t, "a")
	h, entered, open := gate(success)
	l.fakes["a"].set(h)
	old := l.background("old")
	<-entered
	l.advance(time.Second)
	l.fakes["a"].set(status(429, "rate_limit_error", "Retry-After: 60"))
	l.do("")
	open()
	<-old
	l.do("")
	if n := l.asked("a"); n != 2 {
		t.Errorf("asked %d times: its retry-after is forgotten", n)
	}
	l.fakes["a"].set(success)
	l.advance(61 * time.Second)
	l.served("a", "")
	if r, _, _ := l.pool.health(l.ups[0]).state(opus, l.now()); r != ready {
		t.Errorf("after the probe's success: %v", r)
	}
}

func TestClaims(t *testing.T) {
	var h health
	now := time.Unix(1000, 0)
	h.report("m", turn{start: now}, &outcome{cause: causeOverloaded}, now, 0.5)
	later := now.Add(time.Minute)
	first := h.claim("m", later, false)
	if first == nil || h.claim("m", later, false) != nil {
		t.Fatal("not exactly one goes first")
	}
	h.release("m", nil) // of a request that was under way before
	if h.claim("m", later.Add(probeTime-1), false) != nil {
		t.Error("a claim was ended by one who does not hold it")
	}
	later = later.Add(probeTime)
	if r, _, _ := h.state("m", later); r != probing {
		t.Errorf("a claim without an end: %v", r)
	}
	second := h.claim("m", later, false)
	h.release("m", first)
	if second == nil || h.claim("m", later, false) != nil {
		t.Error("a claim that lapsed ended the next one")
	}
	h.release("m", second)
	if h.claim("m", later, false) == nil {
		t.Error("a claim that was given back is still held")
	}
}

func TestALesserTroubleDoesNotShortenAStrictCooldown(t *testing.T) {
	var h health
	now := time.Unix(1000, 0)
	h.report("m", turn{start: now}, &outcome{cause: causeRate, wait: time.Minute}, now, 0.5)
	h.report("m", turn{start: now}, &outcome{cause: causeOverloaded}, now, 0.5)
	if r, wait, _ := h.state("m", now); r != closed || wait != time.Minute {
		t.Errorf("%v for %s", r, wait)
	}
}

// TestAPanicKeepsNothing: a fault in the gateway itself must not take an upstream out of service.
func TestAPanicKeepsNothing(t *testing.T) {
	l := newLab(t, "a")
	l.ups[0].MaxInFlight = 1
	l.fakes["a"].set(status(529, "overloaded_error"))
	l.do("")
	l.fakes["a"].set(success)
	l.advance(time.Minute)
	well := l.pool.providers
	l.pool.providers = map[string]Provider{policy.ProviderAnthropic: faulty{}}
	func() {
		defer func() { _ = recover() }()
		l.do("")
	}()
	l.pool.providers = well
	l.served("a", "")
}

type faulty struct{}

func (faulty) Prepare(*policy.Upstream, *Exchange) (*wire.Outgoing, string, error) { panic("a fault") }

// TestASlowErrorIsJudgedByWhatCame: an error whose body never ends still has a status.
func TestASlowErrorIsJudgedByWhatCame(t *testing.T) {
	for start, want := range map[string]cause{"": causeRate, `{"type":"er`: causeRate} {
		synctest.Test(t, func(t *testing.T) {
			body, upstream := io.Pipe()
			go func() { _, _ = io.WriteString(upstream, start) }()
			s := &search{pool: &Pool{now: time.Now, errorTime: errorTime}}
			c := &candidate{upstream: &policy.Upstream{Name: "a"}}
			r := &wire.Response{Status: 429, Head: wire.Head{{Name: "Retry-After", Value: "7"}}, Body: body}
			began := time.Now()
			o, final, err := s.judge(t.Context(), c, r)
			if err != nil || final || o.cause != want || o.wait != 7*time.Second || o.failure.Own == nil || o.failure.Status != 429 {
				t.Errorf("%q: %+v, %v", start, o, err)
			}
			if took := time.Since(began); took != errorTime {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestASlowErrorEndsOverTheNetwork: closing a body from aside unblocks its reader.
func TestASlowErrorEndsOverTheNetwork(t *testing.T) {
	l := newLab(t, "a")
	gone := make(chan struct{})
	l.fakes["a"].set(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	l.pool.errorTime = 50 * time.Millisecond
	if r, _ := l.do(""); r.Failure == nil || r.Failure.Status != 500 {
		t.Errorf("%+v", r.Failure)
	}
	<-gone
}

// TestFullUpstreams: one that is full holds nobody up while another has a place, and is waited for when none has.
func TestFullUpstreams(t *testing.T) {
	l := newLab(t, "a", "b")
	l.ups[0].MaxInFlight, l.ups[1].MaxInFlight = 1, 1
	h, entered, open := gate(success)
	l.fakes["a"].set(h)
	first := l.background("one")
	<-entered
	began := time.Now()
	l.served("b", "")
	if took := time.Since(began); took > queueWait/2 {
		t.Errorf("waited %s for a place while another upstream had one", took)
	}
	hb, enteredB, openB := gate(success)
	l.fakes["b"].set(hb)
	second := l.background("two")
	<-enteredB
	third := l.background("three")
	queue := &l.pool.health(l.ups[0]).inFlight
	for waiting := 0; waiting == 0; {
		queue.mu.Lock()
		waiting = queue.waiting
		queue.mu.Unlock()
	}
	open()
	<-third
	openB()
	<-first
	<-second
	if n := l.asked("a"); n != 2 {
		t.Errorf("a was asked %d times", n)
	}
}

func TestCoolingIsToldAsItIs(t *testing.T) {
	l := newLab(t, "a", "b")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&coolingCollector{l.pool})
	check := func(want string) {
		t.Helper()
		if want != "" {
			want = "# HELP carpool_upstream_cooling 1 while an upstream, or a model of it, is left alone, by cause.\n# TYPE carpool_upstream_cooling gauge\n" + want
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "carpool_upstream_cooling"); err != nil {
			t.Error(err)
		}
	}
	check("")
	l.fakes["a"].set(status(529, "overloaded_error"))
	l.fakes["b"].set(status(401, "authentication_error"))
	l.do("")
	check(`carpool_upstream_cooling{cause="credential",upstream="b"} 1
carpool_upstream_cooling{cause="overloaded",upstream="a"} 1
`)
	want := []Cooling{{Upstream: "a", Model: opus, Cause: "overloaded", Left: 5 * time.Second}, {Upstream: "b", Cause: "credential", Left: time.Minute}}
	if got := l.pool.Cooling(); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	l.advance(20 * time.Second)
	check(`carpool_upstream_cooling{cause="credential",upstream="b"} 1` + "\n")
	other := *l.ups[1]
	other.Credential = policy.NewSecret("sk-another")
	l.pool.Retain([]*policy.Upstream{l.ups[0], l.ups[1]})
	check(`carpool_upstream_cooling{cause="credential",upstream="b"} 1` + "\n")
	l.pool.Retain([]*policy.Upstream{l.ups[0], &other}) // with another credential it begins afresh
	check("")
	l.pool.Retain(l.ups[:1])
	check("")
	l.fakes["b"].set(success)
	l.fakes["a"].set(abort)
	l.served("b", "") // what was known of it is forgotten
}

func TestRetain(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	for _, u := range l.ups {
		l.pool.health(u)
		l.pool.Models(t.Context(), u)
	}
	l.ups[1].Disabled = true
	l.pool.Retain(l.ups[:2])
	if len(l.pool.members) != 1 || len(l.pool.models) != 1 || l.pool.members["a"] == nil || l.pool.models["a"] == nil {
		t.Errorf("kept %v %v", l.pool.members, l.pool.models)
	}
}

func TestAChangedCredentialAsksForModelsAgain(t *testing.T) {
	l := newLab(t, "a")
	l.fakes["a"].set(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"data":[{"id":"of %s"}]}`, r.Header.Get("X-Api-Key"))
	})
	l.pool.Models(t.Context(), l.ups[0])
	renewed := *l.ups[0]
	renewed.Credential = policy.NewSecret("sk-new")
	if models, known := l.pool.Models(t.Context(), &renewed); !known || len(models) != 1 || models[0].ID != "of sk-new" {
		t.Errorf("%v %v", models, known)
	}
}

func TestManySessions(t *testing.T) {
	a := newAffinity()
	now := time.Unix(1e9, 0)
	a.swept = now
	for i := range affinityMost {
		a.bind("r", fmt.Sprint(i), "u", now)
	}
	a.bind("r", "last", "u", now)
	if n := len(a.sessions); n != affinityMost/10*9 || a.lookup("r", "last", now) != "u" {
		t.Errorf("%d sessions, the last at %q", n, a.lookup("r", "last", now))
	}
}

// TestBrokenStreams: an upstream that begins answers and cuts them all is no better than one that refuses.
func TestBrokenStreams(t *testing.T) {
	l := newLab(t, "a", "b")
	for range breakRequests {
		l.pool.Bind("default", "s", "a", l.now())
		l.served("a", "s")
		l.pool.Broke("default", "s", l.ups[1], opus)
		if l.pool.affinity.lookup("default", "s", l.now()) != "a" {
			t.Fatal("unbound by another upstream's failure")
		}
		l.pool.Broke("default", "s", l.ups[0], opus)
		if l.pool.affinity.lookup("default", "s", l.now()) != "" {
			t.Fatal("still bound")
		}
	}
	if r, _, why := l.pool.health(l.ups[0]).state(opus, l.now()); r != resting || why != causeBroken {
		t.Errorf("%v after %s", r, why)
	}
}

// TestTheLogQuotesNobody: an error's message may contain what the developer wrote.
func TestTheLogQuotesNobody(t *testing.T) {
	head := wire.Head{{Name: "Request-Id", Value: "req_1"}}
	body := []byte(`{"type":"error","error":{"type":"invalid_request_error","message":"messages.0: my secret You have reached your specified API usage limits"}}`)
	for _, code := range []int{302, 400, 401, 402, 404, 429, 500, 501, 529} {
		o, _ := failed("a", code, head, body, nil, time.Unix(0, 0))
		text := o.describe()
		if strings.Contains(text, "secret") || !strings.Contains(text, "invalid_request_error") || !strings.Contains(text, "req_1") {
			t.Errorf("%d: %s", code, text)
		}
	}
}

package gateway_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
)

// ifCrashedNow waits until the exchange that is open would satisfy a condition if the process died now, and returns the entry that it would have.
func (r *rig) ifCrashedNow(what string, holds func(ledger.Entry) bool) (e ledger.Entry) {
	r.t.Helper()
	folder, n := r.t.TempDir(), 0
	waitFor(r.t, what, func() bool {
		n++
		path := filepath.Join(folder, strconv.Itoa(n)+".db")
		if err := r.ledger.Backup(r.t.Context(), path); err != nil {
			r.t.Fatal(err)
		}
		l, err := ledger.Open(r.t.Context(), path, ledger.Options{Node: "n1"})
		if err != nil {
			r.t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // a copy
		entries, err := l.Outbox(r.t.Context(), 0, 10)
		if err != nil || len(entries) != 1 {
			r.t.Fatalf("%+v, %v", entries, err)
		}
		e = entries[0]
		if use := l.Budget(r.snapshot.Load().Budgets()[0]); use[0].Used != e.Cost {
			r.t.Errorf("the budget was charged %d, the entry says %d", use[0].Used, e.Cost)
		}
		return holds(e)
	})
	return e
}

// TestCheckpoint: what a stream has said that it costs is in the books before it ends, at the prices of whoever serves it.
func TestCheckpoint(t *testing.T) {
	const opus = "claude-opus-5"
	const request = `{"model":"claude-opus-5","max_tokens":1000000,"stream":true,"messages":[{"role":"user","content":"hello"}]}`
	for _, encoding := range []string{"", "gzip"} {
		t.Run("encoding "+encoding, func(t *testing.T) {
			more := make(chan struct{})
			r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.Header().Set("Request-Id", "req_upstream")
				out, flush := io.Writer(w), http.NewResponseController(w).Flush
				if encoding != "" {
					w.Header().Set("Content-Encoding", encoding)
					packer := gzip.NewWriter(w)
					out, flush = packer, func() error { _ = packer.Flush(); return http.NewResponseController(w).Flush() }
				}
				_, _ = io.WriteString(out, messageStart(opus, `{"input_tokens":3,"output_tokens":1,"cache_read_input_tokens":10000,"cache_creation_input_tokens":248,`+
					`"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100},"service_tier":"standard"}`))
				_ = flush()
				for range more {
					_, _ = io.WriteString(out, textDelta(5000))
					_ = flush()
				}
				_, _ = io.WriteString(out, messageDelta(`"end_turn"`, `{"output_tokens":2000}`)+messageStop)
				_ = flush()
			}, func(d *policy.Document) {
				d.Budgets = []policy.BudgetSpec{{Name: "day", Scope: "user/alice", Amount: "5 USD", Window: "day"}}
			})
			end := sync.OnceFunc(func() { close(more) })
			t.Cleanup(end) // also of a test that fails: the rig waits for its upstream
			answered := make(chan answer, 1)
			go func() { answered <- r.post(request, "Accept-Encoding: gzip") }()
			waitFor(t, "the request", func() bool { return r.upstream.count() == 1 })

			pieces := int64(0)
			next := func() {
				select {
				case more <- struct{}{}:
					pieces++
				default:
				}
			}
			e := r.ifCrashedNow("a checkpoint", func(e ledger.Entry) bool {
				if e.CacheReadTokens == 0 && encoding != "" { // what a decoder has read is seen when more comes
					next()
				}
				return e.CacheReadTokens > 0
			})
			if e.InputTokens != 3 || e.CacheReadTokens != 10_000 || e.CacheWrite5mTokens != 148 || e.CacheWrite1hTokens != 100 || e.OutputTokens == 0 ||
				!e.Estimated || e.Outcome != fleet.OutcomeCrashed || e.UpstreamRequestID != "req_upstream" || e.Upstream != "main" || e.ModelServed != opus ||
				e.MessageID != "msg_3" || e.Status != 200 || e.FirstByte < 0 || e.ServiceTier != "standard" || e.Unpriced {
				t.Errorf("%+v", e)
			}
			if want := 15 + 5000 + 925 + 1000 + e.OutputTokens*25; e.Cost != want {
				t.Errorf("cost %d, want %d", e.Cost, want)
			}
			said := e.OutputTokens
			e = r.ifCrashedNow("a note of what was generated since", func(e ledger.Entry) bool {
				next() // of what comes, at most as much is missing as was noted
				return e.OutputTokens > said
			})
			again, whole := e.PriceRequest()
			if got := r.snapshot.Load().Prices.Cost(e.StartedAt, again).Total; got != e.Cost || !whole || e.OutputTokens < 1250 || e.OutputTokens > 1250*pieces {
				t.Errorf("by what it says of its usage it costs %d: %+v", got, e)
			}

			end()
			if a := <-answered; a.status != 200 || a.err != nil {
				t.Errorf("%+v", a)
			}
			e = r.entries(1)[0]
			if e.Outcome != fleet.OutcomeFinished || e.Estimated || e.OutputTokens != 2000 || e.Cost != 15+5000+925+1000+2000*25 {
				t.Errorf("settled as %+v", e)
			}
		})
	}
}

// TestCheckpointOfAPromptThatWasNotReported: the prompt is what was estimated at the opening, and what was generated is there as well.
func TestCheckpointOfAPromptThatWasNotReported(t *testing.T) {
	leave := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		answerStream(messageStart("claude-opus-5", `{"output_tokens":1}`), textDelta(9000))(w, req)
		<-leave
	}, func(d *policy.Document) {
		d.Budgets = []policy.BudgetSpec{{Name: "day", Scope: "user/alice", Amount: "5 USD", Window: "day"}}
	})
	t.Cleanup(func() { close(leave) })
	resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/v1/messages", strings.Replace(streamRequest, "opus-5-5", "opus-5", 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it breaks off
	readUntil(t, resp.Body, "xxx\"}}\n\n")
	e := r.ifCrashedNow("what was generated", func(e ledger.Entry) bool { return e.OutputTokens > 1 })
	if e.InputTokens == 0 || e.OutputTokens != 100 || e.Cost != e.InputTokens*5+100*25 || e.Status != 200 || !e.Estimated { // 100 are its max_tokens
		t.Errorf("%+v", e)
	}
}

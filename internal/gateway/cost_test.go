package gateway_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/price"
)

// event is a server-sent event with this data.
func event(data string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(data, `{"type":"`), `"`)
	return "event: " + name + "\ndata: " + data + "\n\n"
}

func messageStart(model, usage string) string {
	return event(`{"type":"message_start","message":{"id":"msg_3","type":"message","role":"assistant","model":"` + model + `","content":[],"usage":` + usage + `}}`)
}

func textDelta(n int) string {
	return event(`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`) +
		event(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"`+strings.Repeat("x", n)+`"}}`)
}

func messageDelta(stop, usage string) string {
	return event(`{"type":"message_delta","delta":{"stop_reason":` + stop + `},"usage":` + usage + `}`)
}

const messageStop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

// breakOff answers with pieces and breaks the connection.
func breakOff(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answerStream(pieces...)(w, r)
		panic(http.ErrAbortHandler)
	}
}

// TestCosts prices what other gateways are known to get wrong. Claude Opus 5 costs 5, 6.25 (write, 5 minutes), 10 (1 hour), 0.50 (read) and 25 dollars.
func TestCosts(t *testing.T) {
	const opus = "claude-opus-5"
	const request = `{"model":"claude-opus-5","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hello"}]}`
	hourly := strings.Replace(request, `"hello"`, `[{"type":"text","text":"hello","cache_control":{"type":"ephemeral","ttl":"1h"}}]`, 1)
	for _, c := range []struct {
		why       string
		answer    http.HandlerFunc
		request   string
		want      int64
		savings   int64
		estimated bool
		outcome   fleet.Outcome
	}{
		{
			why: "reports of a stream are cumulative",
			answer: answerStream(
				messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(8),
				messageDelta("null", `{"output_tokens":10}`), messageDelta(`"end_turn"`, `{"input_tokens":1000,"output_tokens":25}`), messageStop,
			),
			want: 1000*5 + 25*25,
		},
		{
			why: "two final reports",
			answer: answerStream(
				messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(8),
				messageDelta(`"end_turn"`, `{"output_tokens":25}`), messageDelta(`"end_turn"`, `{"output_tokens":25}`), messageStop,
			),
			want: 1000*5 + 25*25,
		},
		{
			why: "two beginnings: the last one counts",
			answer: answerStream(
				messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(8),
				messageDelta(`"end_turn"`, `{"output_tokens":25}`), messageStop,
			),
			want: 1000*5 + 25*25,
		},
		{
			why: "cache writes by their lifetime, and reads",
			answer: answerStream(
				messageStart(opus, `{"input_tokens":3,"output_tokens":1,"cache_read_input_tokens":10000,"cache_creation_input_tokens":248,"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100}}`),
				textDelta(8), messageDelta(`"end_turn"`, `{"output_tokens":25,"cache_read_input_tokens":10000,"cache_creation_input_tokens":248}`), messageStop,
			),
			want: 15 + 5000 + 925 + 1000 + 625, savings: 10248*5 - (5000 + 925 + 1000),
		},
		{
			why:    "cut before anything was said",
			answer: breakOff("event: ping\ndata: {\"type\": \"ping\"}\n\n"),
			// 103 bytes at three bytes a token
			want: 35 * 5, estimated: true, outcome: fleet.OutcomeCut,
		},
		{
			why:    "cut in the middle",
			answer: breakOff(messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(301)),
			want:   1000*5 + 76*25, estimated: true, outcome: fleet.OutcomeCut,
		},
		{
			why:    "cut after more characters than tokens were asked for",
			answer: breakOff(messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(1000)),
			want:   1000*5 + 100*25, estimated: true, outcome: fleet.OutcomeCut,
		},
		{
			why: "a report that nobody can believe",
			answer: answerStream(
				messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(8),
				messageDelta(`"end_turn"`, `{"output_tokens":25,"iterations":[`+
					strings.TrimSuffix(strings.Repeat(`{"type":"message","input_tokens":9007199254740992,"output_tokens":9007199254740992},`, 64), ",")+`]}`), messageStop,
			),
			want: price.MaxCost, estimated: true,
		},
		{
			why:    "whole, and nothing stated", // 103 bytes at three bytes a token
			answer: answerStream(event(`{"type":"message_start","message":{"id":"msg_3","type":"message","model":"claude-opus-5"}}`), textDelta(301), messageDelta(`"end_turn"`, `{}`), messageStop),
			want:   35*5 + 76*25, estimated: true,
		},
		{
			why: "whole, and nothing stated, without a stream", request: strings.Replace(request, `"stream":true,`, "", 1), // 89 bytes
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"id":"msg_1","type":"message","model":"claude-opus-5","content":[{"type":"text","text":"`+strings.Repeat("x", 301)+`"}],"stop_reason":"end_turn"}`)
			},
			want: 30*5 + 76*25, estimated: true,
		},
		{
			why:    "whole, and only the prompt stated",
			answer: answerStream(messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(301), messageDelta(`"end_turn"`, `{}`), messageStop),
			want:   1000*5 + 76*25, estimated: true,
		},
		{
			why:    "zeros first and the truth at the end",
			answer: answerStream(messageStart(opus, `{"input_tokens":0,"output_tokens":0}`), textDelta(301), messageDelta(`"end_turn"`, `{"input_tokens":1000,"output_tokens":25}`), messageStop),
			want:   1000*5 + 25*25,
		},
		{
			why:    "zeros first, and cut before the truth",
			answer: breakOff(messageStart(opus, `{"input_tokens":0,"output_tokens":0}`), textDelta(301)),
			want:   35*5 + 76*25, estimated: true, outcome: fleet.OutcomeCut,
		},
		{
			why: "cache writes that nobody divides, of a request that asks for an hour", request: hourly,
			answer: answerStream(messageStart(opus, `{"input_tokens":3,"output_tokens":1,"cache_creation_input_tokens":200}`), textDelta(8),
				messageDelta(`"end_turn"`, `{"output_tokens":25,"cache_creation_input_tokens":248}`), messageStop),
			want: 15 + 248*10 + 625, savings: 248*5 - 2480,
		},
		{
			why: "what a divided count has grown by, of a request that asks for an hour", request: hourly,
			answer: answerStream(
				messageStart(opus, `{"input_tokens":3,"output_tokens":1,"cache_creation_input_tokens":200,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":200}}`),
				textDelta(8), messageDelta(`"end_turn"`, `{"output_tokens":25,"cache_creation_input_tokens":248}`), messageStop),
			want: 15 + 2000 + 300 + 625, savings: 248*5 - 2300,
		},
		{
			why: "sampling runs whose writes nobody divides, of a request that asks for an hour", request: hourly,
			answer: answerStream(messageStart(opus, `{"input_tokens":3,"output_tokens":1,"cache_creation_input_tokens":200}`), textDelta(8),
				messageDelta(`"end_turn"`, `{"output_tokens":25,"iterations":[{"type":"message","input_tokens":3,"output_tokens":20,"cache_creation_input_tokens":200},`+
					`{"type":"message","output_tokens":5,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":100}}]}`), messageStop),
			want: 15 + 2000 + 625 + 625, savings: 300*5 - 2625,
		},
		{
			why: "an error in the middle",
			answer: answerStream(
				messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(400), event(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`),
			),
			want: 1000*5 + 100*25, estimated: true, outcome: fleet.OutcomeUpstreamError,
		},
		{
			why:    "cut after the last report",
			answer: breakOff(messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(8), messageDelta(`"end_turn"`, `{"output_tokens":25}`)),
			want:   1000*5 + 25*25,
		},
		{
			why: "sampling runs at their own models' prices",
			answer: answerStream(
				messageStart(opus, `{"input_tokens":412,"output_tokens":1}`), textDelta(8),
				messageDelta(`"end_turn"`, `{"input_tokens":1760,"output_tokens":531,"iterations":[{"type":"message","input_tokens":412,"output_tokens":89},`+
					`{"type":"advisor_message","model":"claude-sonnet-5","input_tokens":823,"output_tokens":1612},{"type":"message","input_tokens":1348,"output_tokens":442}]}`), messageStop,
			),
			want: 1760*5 + 531*25 + 823*2 + 1612*10,
		},
		{
			why:    "refused before any output",
			answer: answerStream(messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), messageDelta(`"refusal"`, `{"output_tokens":0}`), messageStop),
			want:   0,
		},
		{why: "an error of the upstream", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"type":"error","error":{"type":"invalid_request_error","message":"no"}}`)
		}, outcome: fleet.OutcomeUpstreamError},
		{why: "an answer that is no stream", request: strings.Replace(request, `"stream":true,`, "", 1), answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, strings.ReplaceAll(plainAnswer, "claude-opus-5-5", opus))
		}, want: 207, savings: 28}, // 60 + 125 + 3.5 + 18.75, and 28 less than 22 × 5 + 125
		{why: "a compressed stream", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Content-Encoding", "gzip")
			packer := gzip.NewWriter(w)
			for _, piece := range []string{messageStart(opus, `{"input_tokens":1000,"output_tokens":1}`), textDelta(8), messageDelta(`"end_turn"`, `{"output_tokens":25}`), messageStop} {
				_, _ = io.WriteString(packer, piece)
				_ = packer.Flush()
				_ = http.NewResponseController(w).Flush()
			}
			_ = packer.Close()
		}, want: 1000*5 + 25*25},
	} {
		t.Run(c.why, func(t *testing.T) {
			r := newRig(t, c.answer, nil)
			if c.request == "" {
				c.request = request
			}
			r.post(c.request, "Accept-Encoding: gzip")
			if c.outcome == "" {
				c.outcome = fleet.OutcomeFinished
			}
			e := r.entries(1)[0]
			if e.Cost != c.want || e.CacheSavings != c.savings || e.Estimated != c.estimated || e.Unpriced || e.Outcome != c.outcome || e.Provider != "anthropic" {
				t.Errorf("cost %d, want %d; saved %d, want %d; estimated %v; %+v", e.Cost, c.want, e.CacheSavings, c.savings, e.Estimated, e)
			}
			again, whole := e.PriceRequest()
			if got := r.snapshot.Load().Prices.Cost(e.StartedAt, again).Total; got != e.Cost || !whole {
				t.Errorf("the entry says that it costs %d, and by what it says of its usage it is %d", e.Cost, got)
			}
			if c.want > 0 && (!strings.HasPrefix(e.PriceRule, "claude-opus-5 since 2026-07-24") || e.PriceVersion != r.snapshot.Load().Prices.Version()) {
				t.Errorf("priced by %q of %q", e.PriceRule, e.PriceVersion)
			}
			if got := r.metric("carpool_cost_microdollars_total"); got != float64(e.Cost) {
				t.Errorf("the metric says %v, the entry %d", got, e.Cost)
			}
			waitFor(t, "the log to say what it cost", func() bool { return strings.Contains(r.logs.String(), fmt.Sprintf("costMicroUsd=%d", c.want)) })
		})
	}
}

// TestCostOfAClientThatLeaves: it has an entry, which is never free. What is cached of its prompt is taken to be read from the cache.
func TestCostOfAClientThatLeaves(t *testing.T) {
	cached := `{"model":"claude-opus-5","max_tokens":100,"stream":true,"system":[{"type":"text","text":"` + strings.Repeat("s", 3000) +
		`","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"` + strings.Repeat("h", 300) + `"}]}`
	for _, c := range []struct {
		why    string
		pieces []string // that the upstream sends before it waits
		want   func(e *ledger.Entry) int64
	}{
		{"before the header", nil, func(e *ledger.Entry) int64 { return (e.InputTokens*10*5 + e.CacheReadTokens*5 + 5) / 10 }},
		{"before the first token", []string{messageStart("claude-opus-5", `{"input_tokens":100,"output_tokens":1,"cache_read_input_tokens":1000}`)}, func(*ledger.Entry) int64 { return 500 + 500 + 25 }},
		{"after some", []string{messageStart("claude-opus-5", `{"input_tokens":100,"output_tokens":1}`), textDelta(41)}, func(*ledger.Entry) int64 { return 500 + 11*25 }},
	} {
		t.Run(c.why, func(t *testing.T) {
			there := make(chan struct{}, 1)
			r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
				if len(c.pieces) > 0 {
					answerStream(c.pieces...)(w, req)
				}
				there <- struct{}{}
				<-req.Context().Done()
			}, nil)
			ctx, leave := context.WithCancel(t.Context())
			req := r.request("POST", "/v1/messages", cached).WithContext(ctx)
			go func() {
				<-there
				if len(c.pieces) == 0 {
					leave()
				}
			}()
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := transport.RoundTrip(req)
			if err == nil {
				readUntil(t, resp.Body, c.pieces[len(c.pieces)-1])
				leave()
				_ = resp.Body.Close()
			}
			leave()
			e := r.entries(1)[0]
			if want := c.want(&e); e.Cost != want || e.Cost == 0 || !e.Estimated || e.Outcome != fleet.OutcomeCanceled || e.CacheReadTokens == 0 && len(c.pieces) < 2 {
				t.Errorf("cost %d, want %d: %+v", e.Cost, want, e)
			}
		})
	}
}

// TestCostOfADrainThatEnds: the upstream has the prompt of a request that waits for its first byte, and charges for it.
func TestCostOfADrainThatEnds(t *testing.T) {
	for _, c := range []struct {
		path string
		want int64 // 89 bytes at three bytes a token
	}{{"/v1/messages", 30 * 5}, {"/v1/messages/count_tokens", 0}} {
		there := make(chan struct{}, 1)
		r := newRig(t, func(_ http.ResponseWriter, req *http.Request) {
			there <- struct{}{}
			<-req.Context().Done()
		}, nil)
		go func() {
			<-there
			r.stop()
		}()
		a := r.do(r.request("POST", c.path, `{"model":"claude-opus-5","max_tokens":100,"messages":[{"role":"user","content":"hello"}]}`))
		e := r.entries(1)[0]
		if a.status != 503 || e.Cost != c.want || e.Estimated != (c.want > 0) || e.Outcome != fleet.OutcomeFailed || e.Status != 503 || e.Attempts != 1 {
			t.Errorf("%s: answered %d; %+v", c.path, a.status, e)
		}
	}
}

// TestUnreportedIsCounted: whole answers that do not say what they used are told of, by their upstream; those that were cut are not.
func TestUnreportedIsCounted(t *testing.T) {
	start := event(`{"type":"message_start","message":{"id":"msg_3","type":"message","model":"claude-opus-5"}}`)
	for _, c := range []struct {
		answer http.HandlerFunc
		want   float64
	}{
		{answerStream(start, textDelta(8), messageDelta(`"end_turn"`, `{}`), messageStop), 1},
		{answerStream(start, textDelta(8), messageDelta(`"end_turn"`, `{"input_tokens":3,"output_tokens":4}`), messageStop), 0},
		{breakOff(start, textDelta(8)), 0},
	} {
		r := newRig(t, c.answer, nil)
		r.post(streamRequest)
		r.entries(1)
		if sum, _ := r.gather("carpool_unreported_exchanges_total"); sum != c.want {
			t.Errorf("%v were counted, want %v", sum, c.want)
		}
	}
}

// TestUnpricedIsNeverFree: a model that nobody knows has a cost and is told of.
func TestUnpricedIsNeverFree(t *testing.T) {
	served := new(atomic.Value)
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		answerStream(messageStart(served.Load().(string), `{"input_tokens":1000,"output_tokens":1}`), textDelta(8), messageDelta(`"end_turn"`, `{"output_tokens":100}`), messageStop)(w, req)
	}, nil)
	for range 40 {
		served.Store("unheard-of-" + strings.Repeat("i", r.upstream.count()+1))
		r.post(strings.Replace(streamRequest, "claude-opus-5-5", served.Load().(string), 1))
	}
	for _, e := range r.entries(40) {
		if e.Cost != 1000*5+100*25 || !e.Unpriced || !strings.Contains(e.PriceRule, "unknown model") {
			t.Fatalf("%+v", e)
		}
	}
	if sum, n := r.gather("carpool_unpriced_exchanges_total"); sum != 40 || n != 33 {
		t.Errorf("%v exchanges were counted, of %d models", sum, n)
	}
	r.change(func(d *policy.Document) {
		d.Settings.Prices = price.Overlay{Models: []price.Rates{{Model: served.Load().(string), Input: "1", Output: "2"}}}
	})
	r.post(strings.Replace(streamRequest, "claude-opus-5-5", served.Load().(string), 1))
	if e := r.entries(41)[40]; e.Cost != 1000+200 || e.Unpriced {
		t.Errorf("with a price: %+v", e)
	}
}

// TestPriceChangeInMidStream: an exchange has the prices of its beginning, whether a day begins or the operator changes them.
func TestPriceChangeInMidStream(t *testing.T) {
	clock := new(stopped)
	clock.nanos.Store(time.Date(2026, 10, 6, 23, 59, 59, 999_999_000, time.UTC).UnixNano())
	begun, goOn := make(chan struct{}), make(chan struct{})
	r := newRigAt(t, func(w http.ResponseWriter, req *http.Request) {
		answerStream(messageStart("claude-sonnet-5-5", `{"input_tokens":0,"output_tokens":0,"cache_read_input_tokens":10000}`))(w, req)
		begun <- struct{}{}
		<-goOn
		answerStream(textDelta(8), messageDelta(`"end_turn"`, `{"output_tokens":100}`), messageStop)(w, req)
	}, nil, 0, clock.now)
	request := strings.Replace(streamRequest, "claude-opus-5-5", "claude-sonnet-5-5", 1)
	for _, c := range []struct {
		why    string
		change func()
		want   int64
	}{
		{"a new day with lower rates", func() { clock.move(time.Microsecond) }, 2000 + 1000},
		{"higher rates of the operator's", func() {
			r.change(func(d *policy.Document) {
				d.Settings.Prices = price.Overlay{Models: []price.Rates{{Model: "claude-sonnet-5-5", Input: "10", Output: "100"}}}
			})
		}, 1000 + 1000},
		{"none", func() {}, 10_000 + 10_000},
	} {
		done := make(chan answer)
		go func() { done <- r.post(request) }()
		<-begun
		c.change()
		goOn <- struct{}{}
		<-done
		entries := r.entries(r.upstream.count())
		if e := entries[len(entries)-1]; e.Cost != c.want {
			t.Errorf("%s: %d, want %d: %s", c.why, e.Cost, c.want, e.PriceRule)
		}
	}
}

// TestEachExchangeIsChargedOnce: its end, its client's leaving and the upstream's breaking off come together.
func TestEachExchangeIsChargedOnce(t *testing.T) {
	const clients = 64
	r := newRig(t, breakOff(messageStart("claude-opus-5", `{"input_tokens":1000,"output_tokens":1}`), textDelta(8), messageDelta(`"end_turn"`, `{"output_tokens":25}`), messageStop), nil)
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := transport.RoundTrip(r.request("POST", "/v1/messages", streamRequest).WithContext(ctx))
			if err != nil {
				return
			}
			defer resp.Body.Close() //nolint:errcheck // left in the middle
			_, _ = io.CopyN(io.Discard, resp.Body, int64(i*20))
		})
	}
	group.Wait()
	sum := int64(0)
	for _, e := range r.entries(clients) {
		if sum += e.Cost; e.Cost > 1000*5+25*25 || e.Cost < 5000 && e.InputTokens == 1000 || e.Cost == 0 {
			t.Errorf("%+v", e)
		}
	}
	if got := r.metric("carpool_cost_microdollars_total"); got != float64(sum) {
		t.Errorf("%v were counted, %d are in the books", got, sum)
	}
}

// TestCountingTokensCostsNothing, whatever the upstream says of it.
func TestCountingTokensCostsNothing(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"input_tokens":2095,"usage":{"input_tokens":2095}}`)
	}, nil)
	r.do(r.request("POST", "/v1/messages/count_tokens", plainRequest))
	if e := r.entries(1)[0]; e.Cost != 0 || e.Unpriced || e.PriceRule != "" {
		t.Errorf("%+v", e)
	}
}

// metric is the sum of a metric's values.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	sum, _ := r.gather(name)
	return sum
}

// gather is the sum of a metric's values and how many there are.
func (r *rig) gather(name string) (sum float64, n int) {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
			n++
		}
	}
	return sum, n
}

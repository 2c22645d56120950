package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"carpool/internal/ledger"
	"carpool/internal/policy"
)

// scene is how the upstream plays one request: what it says before it waits, and what it says when it is told to go on.
type scene struct {
	start, rest string // a rest of "" breaks off
	arrived, on chan struct{}
	once        sync.Once // the gateway may try again what broke off before an answer
}

func (s *scene) play(w http.ResponseWriter, q *http.Request) {
	if s.start != "" {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, s.start)
		_ = http.NewResponseController(w).Flush()
	}
	s.once.Do(func() { close(s.arrived) })
	select {
	case <-s.on:
	case <-q.Context().Done():
	}
	if s.rest == "" {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, s.rest)
}

// anyPrompt draws a request's prompt, as members of its body, and says how many tokens an upstream may count for it at the worst: a token for
// each byte of what the model reads.
func anyPrompt(t *rapid.T) (members string, worst int64) {
	const added = 400 // by the API
	worst = added
	size := func() int { return rapid.SampledFrom([]int{1, 40, 516, 3000, 60_000}).Draw(t, "size") / 4 * 4 }
	data := func(n int) string { return strings.Repeat("QUJD", n/4) }
	fills := false
	var blocks []string
	for range rapid.IntRange(1, 3).Draw(t, "blocks") {
		n := size()
		source := `"source":{"type":"base64","media_type":"image/png","data":"` + data(n) + `"}`
		tokens, block := int64(n), ""
		switch rapid.SampledFrom([]string{"text", "image", "result", "address", "pdf", "written", "cited", "call", "redacted", "reference"}).Draw(t, "block") {
		case "text":
			block = `"type":"text","text":"` + data(n) + `"`
		case "image":
			tokens, block = 4784, `"type":"image",`+source
		case "result":
			tokens, block = 4784, `"type":"tool_result","tool_use_id":"a","content":[{"type":"image",`+source+`}]`
		case "address":
			tokens, block = 4784, `"type":"image","source":{"type":"url","url":"https://a"}`
		case "pdf":
			fills, block = true, `"type":"document",`+source
		case "written":
			block = `"type":"document","source":{"type":"text","data":"` + data(n) + `"}`
		case "cited":
			fills, block = true, `"type":"document","citations":{"enabled":true},"source":{"type":"text","data":"`+data(n)+`"}`
		case "call":
			block = `"type":"tool_use","id":"a","name":"b","input":{"data":"` + data(n) + `"}`
		case "redacted":
			block = `"type":"redacted_thinking","data":"` + data(n) + `"`
		case "reference":
			fills, block = true, `"type":"tool_reference","tool_name":"b"`
		}
		block += rapid.SampledFrom([]string{"", `,"cache_control":{"type":"ephemeral"}`}).Draw(t, "cache")
		worst += tokens
		blocks = append(blocks, "{"+block+"}")
	}
	if rapid.Bool().Draw(t, "tools") {
		n := size()
		worst += int64(n)
		members = `"tools":[{"name":"b","description":"` + data(n) + `","input_schema":{"type":"object"}}],`
	}
	if fills {
		worst = max(worst, 1_000_000)
	}
	return members + `"messages":[{"role":"user","content":[` + strings.Join(blocks, ",") + `]}]`, worst
}

// anyUsage draws the classes of a prompt.
func anyUsage(t *rapid.T, prompt int64, hour bool) string {
	var classes [4]int64 // input, read, written for five minutes and for an hour
	last := 2
	if hour {
		last = 3
	}
	classes[rapid.IntRange(0, last).Draw(t, "class")] = prompt - prompt/3
	classes[rapid.IntRange(0, last).Draw(t, "another class")] += prompt / 3
	return fmt.Sprintf(`{"output_tokens":1,"input_tokens":%d,"cache_read_input_tokens":%d,"cache_creation_input_tokens":%d,`+
		`"cache_creation":{"ephemeral_5m_input_tokens":%d,"ephemeral_1h_input_tokens":%d},"inference_geo":"us"}`,
		classes[0], classes[1], classes[2]+classes[3], classes[2], classes[3])
}

// TestStrictBudgetIsNeverPassed: what is settled in a strict budget never exceeds what was reserved, nor its amount, whatever requests consist
// of, whatever the upstream counts for them, and however they end.
func TestStrictBudgetIsNeverPassed(t *testing.T) {
	var now atomic.Pointer[scene]
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) { now.Load().play(w, q) }, nil)
	folder, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		all, leave := context.WithCancel(context.Background())
		defer leave() // a failure leaves nobody waiting
		amounts := rapid.SampledFrom([][]string{
			{"5000 tokens"}, {"150000 tokens"}, {"9000000 tokens"}, {"1 USD"}, {"100 USD"}, {"1000000 tokens", "5 USD"},
		}).Draw(t, "amounts")
		r.change(func(d *policy.Document) {
			name := fmt.Sprintf("u%d", n) // none that is known to break off
			d.Upstreams = append([]policy.Upstream(nil), d.Upstreams...)
			d.Upstreams[0].Name = name
			d.Routes = []policy.RouteSpec{{Name: "default", Upstreams: []string{name}}}
			d.Budgets = nil
			for i, amount := range amounts {
				d.Budgets = append(d.Budgets, policy.BudgetSpec{Name: fmt.Sprintf("b%d-%d", n, i), Scope: "user/alice", Amount: amount, Window: "lifetime", Mode: "strict"})
			}
		})
		none := make([]int64, len(amounts))
		budgets := r.snapshot.Load().Budgets()
		use := func(l *ledger.Ledger) (used, reserved []int64) {
			for _, b := range budgets {
				u := l.Budget(b)[0]
				used, reserved = append(used, u.Used), append(reserved, u.Reserved)
			}
			return used, reserved
		}
		within := func(what string, used, before, held []int64) {
			for i, b := range budgets {
				if used[i] > before[i]+held[i] || used[i] > b.Limit() {
					t.Fatalf("%s: %d used of %d, %d before and %d reserved", what, used[i], b.Limit(), before[i], held[i])
				}
			}
		}
		for range rapid.IntRange(1, 6).Draw(t, "requests") {
			prompt, worst := anyPrompt(t)
			most := rapid.SampledFrom([]int64{1, 10, 100, 4000, 1<<63 - 1}).Draw(t, "max_tokens")
			hour := rapid.Bool().Draw(t, "hour")
			body := fmt.Sprintf(`{"model":"claude-opus-5-5","stream":true,"max_tokens":%d,%s`, most, prompt)
			if hour {
				body += `,"cache_control":{"type":"ephemeral","ttl":"1h"}`
			}
			s := &scene{arrived: make(chan struct{}), on: make(chan struct{})}
			start := messageStart("claude-opus-5-5", anyUsage(t, worst, hour)) + textDelta(20_000)
			if rapid.Bool().Draw(t, "an answer has begun") {
				s.start, start = start, ""
			}
			end := rapid.SampledFrom([]string{"whole", "cut", "canceled", "crashed"}).Draw(t, "end")
			if end == "whole" {
				s.rest = start + messageDelta(`"max_tokens"`, fmt.Sprintf(`{"output_tokens":%d}`, most)) + messageStop
			}
			now.Store(s)
			before, _ := use(r.ledger)
			ctx, cancel := context.WithCancel(all)
			answered := make(chan answer, 1)
			go func() { answered <- r.do(r.request("POST", "/v1/messages", body+"}").WithContext(ctx)) }()
			select {
			case <-s.arrived:
			case a := <-answered:
				cancel()
				if used, held := use(r.ledger); a.status != 429 || !slices.Equal(used, before) || !slices.Equal(held, none) {
					t.Fatalf("refused with %d %s %v: %v used, %v before, %v reserved", a.status, a.body, a.err, used, before, held)
				}
				continue
			}
			_, held := use(r.ledger)
			switch end {
			case "crashed":
				path := filepath.Join(folder, "copy.db")
				if err := r.ledger.Backup(ctx, path); err != nil {
					t.Fatal(err)
				}
				l, err := ledger.Open(ctx, path, ledger.Options{Node: "n1"})
				if err != nil {
					t.Fatal(err)
				}
				used, left := use(l)
				_ = l.Close()
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				if within(end, used, before, held); !slices.Equal(left, none) || slices.Equal(used, before) {
					t.Fatalf("after a crash: %v used, %v before, %v reserved", used, before, left)
				}
				close(s.on)
			case "canceled":
				cancel()
			default:
				close(s.on)
			}
			<-answered
			cancel()
			waitFor(r.t, "the settlement", func() bool {
				_, left := use(r.ledger)
				return slices.Equal(left, none)
			})
			used, _ := use(r.ledger)
			within(end, used, before, held)
			if end == "whole" && slices.Equal(used, before) {
				t.Fatalf("nothing was settled")
			}
		}
	})
}

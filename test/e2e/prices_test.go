package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// priced is what the books say of an exchange's cost.
type priced struct {
	Outcome   string `json:"outcome"`
	Cost      int64  `json:"costMicroUsd"`
	Savings   int64  `json:"cacheSavingsMicroUsd"`
	Estimated bool   `json:"estimated"`
	Unpriced  bool   `json:"unpriced"`
	Rule      string `json:"priceRule"`
	Input     int64  `json:"inputTokens"`
}

// newest waits until the books hold n exchanges, and returns the newest.
func (g *gateway) newest(n int) priced {
	g.t.Helper()
	g.settled(n)
	var b struct{ Rows []priced }
	g.decode(&b, "usage", "--limit", "1")
	return b.Rows[0]
}

// repricing is the answer of `carpool usage reprice`.
type repricing struct {
	Totals struct {
		Requests   int64 `json:"requests"`
		Booked     int64 `json:"bookedMicroUsd"`
		Repriced   int64 `json:"repricedMicroUsd"`
		Difference int64 `json:"differenceMicroUsd"`
	} `json:"totals"`
}

// TestPrices: what a real server books of a real conversation with the simulator is to the micro-dollar what it costs, however it ends; it
// is the same when it is priced again from the books; and an operator's price is in force without a restart.
func TestPrices(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	// Claude Sonnet 4.5 costs 3, 3.75 (write, 5 minutes), 6 (1 hour), 0.30 (read) and 15 dollars.
	split := object{
		"input_tokens": 100, "output_tokens": 40, "cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 500,
		"cache_creation": object{"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 300},
	}
	const whole, saved = 300 + 600 + 3000 + 750 + 1800, 10_500*3 - (3000 + 750 + 1800)
	text := strings.Repeat("four", 30)
	want, sum := 0, int64(0)
	for _, c := range []struct {
		name string
		step object
		ask  func(map[string]any)
		want priced
	}{
		{"message", object{"text": text, "usage": split}, nil, priced{Outcome: "finished", Cost: whole, Savings: saved}},
		{"stream", object{"text": text, "usage": split, "events": 4}, stream, priced{Outcome: "finished", Cost: whole, Savings: saved}},
		{"compressed stream", object{"text": text, "usage": split, "encoding": "gzip"}, stream, priced{Outcome: "finished", Cost: whole, Savings: saved}},
		{"compressed message", object{"text": text, "usage": split, "encoding": "br"}, nil, priced{Outcome: "finished", Cost: whole, Savings: saved}},
		{
			"cut before the text",
			object{"text": text, "usage": split, "start_usage": object{"output_tokens": 2}, "cut": "abort", "at_event": 1},
			stream,
			priced{Outcome: "cut", Cost: whole - 600 + 2*15, Savings: saved, Estimated: true},
		},
		{
			"cut after the text",
			object{"text": text, "usage": split, "start_usage": object{"output_tokens": 2}, "cut": "reset", "at_event": -3},
			stream,
			priced{Outcome: "cut", Cost: whole - 600 + 30*15, Savings: saved, Estimated: true},
		},
		{"cut after the last report", object{"text": text, "usage": split, "cut": "abort", "at_event": -1}, stream, priced{Outcome: "finished", Cost: whole, Savings: saved}},
		{
			"an error in the middle",
			object{"text": text, "usage": split, "start_usage": object{"output_tokens": 2}, "cut": "error", "at_event": -3},
			stream,
			priced{Outcome: "upstream_error", Cost: whole - 600 + 30*15, Savings: saved, Estimated: true},
		},
		{"an error", object{"status": 400}, nil, priced{Outcome: "upstream_error"}},
		{"fast", object{"text": text, "usage": object{"input_tokens": 1000, "output_tokens": 10, "speed": "fast"}}, model("claude-opus-5"), priced{Outcome: "finished", Cost: 2 * (5000 + 250)}},
		{
			"an advisor", object{"text": text, "usage": object{"input_tokens": 100, "output_tokens": 10, "iterations": []any{
				object{"type": "message", "input_tokens": 100, "output_tokens": 10}, object{"type": "advisor_message", "model": "claude-opus-5", "input_tokens": 200, "output_tokens": 20},
			}}}, stream, priced{Outcome: "finished", Cost: 300 + 150 + 1000 + 500},
		},
	} {
		body := prompt(c.name + script(c.step))
		if c.ask != nil {
			c.ask(body)
		}
		header := maps.Clone(g.header())
		header.Set("Accept-Encoding", "gzip, br")
		call(t, http.MethodPost, g.url+"/v1/messages", header, []byte(mustJSON(body)))
		want++
		got := g.newest(want)
		sum += got.Cost
		if got.Rule, got.Input = "", 0; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if r := call(t, http.MethodPost, g.url+"/v1/messages/count_tokens", g.header(), []byte(mustJSON(prompt("count")))); r.status != http.StatusOK {
		t.Errorf("counting: %d %s", r.status, r.body)
	}
	var again repricing
	g.decode(&again, "usage", "reprice", "--since", "1h")
	if a := again.Totals; a.Requests != int64(want) || a.Booked != sum || a.Repriced != sum || a.Difference != 0 {
		t.Errorf("priced again from the books it is %+v, want %d requests for %d", a, want, sum)
	}
	if got := g.metric("carpool_cost_microdollars_total"); int64(got) != sum {
		t.Errorf("the metric says %v, the books %d", got, sum)
	}
	if log := g.proc.stderr.String(); !strings.Contains(log, fmt.Sprintf(`"costMicroUsd":%d`, whole)) {
		t.Error("the log does not say what a request cost")
	}

	g.repriced(dir)
	if r := g.messages(prompt(script(object{"text": text, "usage": object{"input_tokens": 100, "output_tokens": 10}}))); r.status != http.StatusOK {
		t.Fatalf("status %d", r.status)
	}
	if got := g.newest(want + 1); got.Cost != 100*4*9/10+10*20*9/10 || got.Rule != "configured claude-sonnet-4-5, upstream's multiplier ×0.9" {
		t.Errorf("with the operator's prices: %+v", got)
	}
}

func stream(body map[string]any) { body["stream"] = true }

func model(id string) func(map[string]any) {
	return func(body map[string]any) { body["model"] = id }
}

// repriced changes the prices of a running server, and waits until they are in force.
func (g *gateway) repriced(dir string) {
	g.t.Helper()
	path := filepath.Join(dir, "carpool.yml")
	config, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	write(g.t, path, string(config)+`prices:
  models: [{model: claude-sonnet-4-5, input: 4, output: 20}]
  discounts: [{upstream: main, multiplier: 0.9}, {upstream: elsewhere, multiplier: 0.5}]
`)
	g.proc.signal(syscall.SIGHUP)
	eventually(g.t, callPatience, "the new prices are in force", func() bool {
		log := g.proc.stderr.String()
		return strings.Contains(log, "configuration read again") && strings.Contains(log, `"upstream":"elsewhere"`)
	})
}

// TestACrashIsNotFree: a request that a killed server was serving is charged its prompt.
func TestACrashIsNotFree(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	body := mustJSON(prompt(script(object{"text": "never", "hold": "for ever"})))
	left := make(chan struct{})
	go func() {
		defer close(left)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/v1/messages", strings.NewReader(body))
		if err != nil {
			return
		}
		r.Header = g.header()
		if resp, err := (&http.Client{Timeout: time.Minute}).Do(r); err == nil {
			_ = resp.Body.Close()
		}
	}()
	waitSim(t, sim, "held=1", callPatience)
	g.proc.kill()
	<-left
	g = serveIn(t, dir, sim.url, -1)
	got := g.newest(1)
	if got.Outcome != "crashed" || !got.Estimated || got.Cost != got.Input*3 || got.Input != int64(len(body)+2)/3 || got.Rule != "claude-sonnet-4-5 since 2026-04-30" {
		t.Errorf("%+v of %d bytes", got, len(body))
	}
	var again repricing
	g.decode(&again, "usage", "reprice", "--since", "1h")
	if a := again.Totals; a.Booked != got.Cost || a.Difference != 0 {
		t.Errorf("priced again from the books it is %+v", a)
	}
}

package e2e

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// multibyte has characters of two, three and four bytes.
const multibyte = "Grüße, 漢字, 🚗 and ☂: every byte of this must arrive. "

// variants are the shapes an event stream may legally have, and some that it may not.
func variants() map[string]map[string]any {
	base := func(more map[string]any) map[string]any {
		step := map[string]any{"think": "Let me think: " + multibyte, "text": strings.Repeat(multibyte, 4), "events": 12}
		maps.Copy(step, more)
		return step
	}
	return map[string]map[string]any{
		"plain":            base(nil),
		"one byte a write": base(map[string]any{"write": 1}),
		"7 bytes a write":  base(map[string]any{"write": 7}),
		"split characters": base(map[string]any{"split_utf8": true}),
		"crlf":             base(map[string]any{"crlf": true}),
		"crlf, one byte":   base(map[string]any{"crlf": true, "write": 1}),
		"comments":         base(map[string]any{"comments": true}),
		"unknown events":   base(map[string]any{"unknown_events": true}),
		"a line of 1 MiB":  base(map[string]any{"long_line": 1 << 20}),
		"a line of 4 MiB":  base(map[string]any{"long_line": 4 << 20, "write": 4096}),
		"gzip":             base(map[string]any{"encoding": "gzip"}),
		"gzip, one byte":   base(map[string]any{"encoding": "gzip", "write": 1}),
		"everything odd": base(map[string]any{
			"crlf": true, "comments": true, "unknown_events": true, "long_line": 100_000, "split_utf8": true, "encoding": "gzip",
		}),
		"tools":       base(map[string]any{"tools": []any{tool("one"), tool("two")}}),
		"many events": base(map[string]any{"events": 3000}),
		"slow":        base(map[string]any{"every_ms": 20}),
		"refusal":     base(map[string]any{"stop": "refusal"}),
		"late header": base(map[string]any{"delay_ms": 300}),
	}
}

func tool(name string) map[string]any {
	return map[string]any{"tool": name, "input": map[string]any{"text": multibyte}}
}

// ask sends a Messages request whose answer step dictates, and returns the answer and what the simulator says it sent.
func ask(t *testing.T, g *gateway, sim *simulator, step map[string]any, stream bool) (response, received) {
	t.Helper()
	var seq int64
	if list := sim.requests(0); len(list) > 0 {
		seq = list[len(list)-1].Seq
	}
	body := prompt(script(step))
	body["max_tokens"], body["stream"] = 8192, stream
	body["tools"] = []any{
		map[string]any{"name": "one", "input_schema": map[string]any{"type": "object"}},
		map[string]any{"name": "two", "input_schema": map[string]any{"type": "object"}},
	}
	header := g.header()
	header.Set("Accept-Encoding", "gzip, deflate")
	r := call(t, http.MethodPost, g.url+"/v1/messages", header, []byte(mustJSON(body)))
	list := sim.finished(seq, 1)
	if len(list) != 1 {
		t.Fatalf("the upstream got %d requests", len(list))
	}
	return r, list[0]
}

// TestFidelityOfAnswers: every stream and every message comes back byte for byte, in any form and chunking, and is metered.
func TestFidelityOfAnswers(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	var metered []int64
	n := int64(1000)
	for _, name := range slices.Sorted(maps.Keys(variants())) {
		for mode, stream := range map[string]bool{"stream": true, "message": false} {
			t.Run(name+" "+mode, func(t *testing.T) {
				step := variants()[name]
				n++
				step["usage"] = map[string]any{"input_tokens": 17, "output_tokens": n}
				metered = append(metered, n)
				r, sent := ask(t, g, sim, step, stream)
				if r.status != http.StatusOK || r.err != nil {
					t.Fatalf("status %d, %v\n%s", r.status, r.err, tail(string(r.body), 500))
				}
				if int64(len(r.body)) != sent.ResponseBytes || sum(r.body) != sent.ResponseSHA256 {
					t.Errorf("received %d bytes %s, sent %d bytes %s", len(r.body), sum(r.body), sent.ResponseBytes, sent.ResponseSHA256)
				}
				kind := "application/json"
				if stream {
					kind = "text/event-stream"
				}
				if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, kind) {
					t.Errorf("content type %q", got)
				}
				if r.header.Get("Request-Id") == "" {
					t.Error("no request-id")
				}
				if r.header.Get("Content-Encoding") == "gzip" {
					checkGzip(t, r.body)
				} else if step["encoding"] == "gzip" {
					t.Error("the answer is not marked as compressed")
				}
			})
		}
	}
	checkMetered(t, g, metered)
}

func checkGzip(t *testing.T, body []byte) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		t.Error(err)
	}
}

// checkMetered wants one finished entry for each number of output tokens.
func checkMetered(t *testing.T, g *gateway, outputs []int64) {
	t.Helper()
	seen := map[int64]int{}
	for _, e := range g.settled(len(outputs)).Rows {
		seen[e.OutputTokens]++
		if e.Outcome != "finished" || e.InputTokens != 17 {
			t.Errorf("entry of %d output tokens: outcome %s, %d input tokens", e.OutputTokens, e.Outcome, e.InputTokens)
		}
	}
	for _, n := range outputs {
		if seen[n] != 1 {
			t.Errorf("%d entries of %d output tokens, want 1", seen[n], n)
		}
	}
}

// TestFidelityOfErrors: the CLI recovers from an error by its wording, so an upstream's error is not touched.
func TestFidelityOfErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		step      map[string]any
		unchanged bool
		header    map[string]string
	}{
		"prompt too long": {map[string]any{"status": 400, "message": "prompt is too long: 210000 tokens > 200000 maximum"}, true, nil},
		"unknown model":   {map[string]any{"status": 404, "message": "model: nope"}, true, nil},
		"too large":       {map[string]any{"status": 413}, true, nil},
		"throttled":       {map[string]any{"status": 429, "headers": map[string]string{"retry-after": "7"}}, true, map[string]string{"Retry-After": "7"}},
		"retry advice":    {map[string]any{"status": 500, "headers": map[string]string{"x-should-retry": "false"}}, true, map[string]string{"X-Should-Retry": "false"}},
		"overloaded":      {map[string]any{"status": 529}, true, nil},
		"html":            {map[string]any{"status": 502, "body": "html"}, false, nil},
		"empty":           {map[string]any{"status": 503, "body": "empty"}, false, nil},
	} {
		for mode, stream := range map[string]bool{"stream": true, "message": false} {
			t.Run(name+" "+mode, func(t *testing.T) {
				sim := startSim(t) // fresh ones: after some errors an upstream is left alone for a while
				g := startServe(t, sim.url, -1)
				r, sent := ask(t, g, sim, test.step, stream)
				if want := test.step["status"]; r.status != want || r.err != nil {
					t.Fatalf("status %d, %v, want %v", r.status, r.err, want)
				}
				if test.unchanged && sum(r.body) != sent.ResponseSHA256 {
					t.Errorf("the body changed: %s", r.body)
				}
				if !test.unchanged {
					if kind, _ := apiError(t, r); kind != "api_error" {
						t.Errorf("error type %s", kind)
					}
				}
				for field, want := range test.header {
					if got := r.header.Get(field); got != want {
						t.Errorf("header %s: %q, want %q", field, got, want)
					}
				}
			})
		}
	}
}

// TestBrokenStreams: a stream that was cut is never ended cleanly, because CLIs take a clean end for a complete answer.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	for name, test := range map[string]struct {
		step    map[string]any
		broken  bool
		same    bool // as many bytes as were sent
		outcome string
	}{
		"reset":                 {map[string]any{"cut": "reset", "at_event": 8}, true, false, "cut"},
		"without the last part": {map[string]any{"cut": "abort", "at_event": 8}, true, true, "cut"},
		"clean, too early":      {map[string]any{"cut": "clean", "at_event": 8}, true, true, "cut"},
		"clean after the start": {map[string]any{"cut": "clean", "at_event": 1}, true, true, "cut"},
		"amid an event":         {map[string]any{"cut": "abort", "at_byte": 700}, true, true, "cut"},
		"an error event":        {map[string]any{"cut": "error", "at_event": 8}, false, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(g.books().Rows)
			step := map[string]any{"text": strings.Repeat(multibyte, 4), "events": 12, "every_ms": 10}
			maps.Copy(step, test.step)
			r, sent := ask(t, g, sim, step, true)
			if r.status != http.StatusOK {
				t.Fatalf("status %d\n%s", r.status, r.body)
			}
			if (r.err != nil) != test.broken {
				t.Errorf("the answer ended with %v after %d bytes", r.err, len(r.body))
			}
			if test.same && sum(r.body) != sent.ResponseSHA256 {
				t.Errorf("received %d bytes, %d were sent", len(r.body), sent.ResponseBytes)
			}
			rows := g.settled(before + 1).Rows
			newest := slices.MaxFunc(rows, func(a, b entry) int { return a.StartedAt.Compare(b.StartedAt) })
			if test.outcome != "" && newest.Outcome != test.outcome {
				t.Errorf("outcome %s, want %s", newest.Outcome, test.outcome)
			}
		})
	}
}

//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The reverse proxy is this program once more, also when it is a test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == reverseProxy {
		main()
	}
	os.Exit(m.Run())
}

func TestHarness(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	out := filepath.Join(t.TempDir(), "results.jsonl")
	o, err := parse([]string{
		"-quick", "-rounds", "1", "-scenarios", "S1,S2", "-targets", "direct,reverseproxy,carpool", "-carpool", "carpool=../..", "-out", out,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var table, progress bytes.Buffer
	results, err := bench(t.Context(), o, &table, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	var order []string
	for _, r := range results {
		order = append(order, r.Load+" "+r.Target)
		if r.Sent == 0 || r.Errors != 0 {
			t.Errorf("%s %s: %d requests, %d errors: %s", r.Load, r.Target, r.Sent, r.Errors, r.Sample)
		}
		if r.Target == carpool && r.Booked != r.Sent {
			t.Errorf("%s: the ledger has %d entries of %d requests", r.Load, r.Booked, r.Sent)
		}
		if (r.MemoryPeak > 0) != (r.Target != direct) {
			t.Errorf("%s %s: %d bytes of memory", r.Load, r.Target, r.MemoryPeak)
		}
	}
	if got, want := strings.Join(order, ", "), "S1 direct, S1 reverseproxy, S1 carpool, S2 direct, S2 reverseproxy, S2 carpool"; got != want {
		t.Errorf("measured %s; want %s", got, want)
	}
	for _, want := range []string{
		"| Load | Measure | direct | reverseproxy | carpool |\n|---|---|---|---|---|\n",
		"| 1 KB request, answer of 1 KB in JSON, 32 connections | processor time per request, µs | – | ",
		"| 100 KB request, stream of 200 events without delay, 32 connections | ",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, table.String())
		}
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	if len(lines) != len(results) {
		t.Errorf("%d raw lines of %d results", len(lines), len(results))
	}
	for i, line := range lines {
		var r result
		if err := json.Unmarshal(line, &r); err != nil || r != results[i] {
			t.Errorf("raw line %d is %s, %v", i+1, line, err)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOpenAndSlow: a request for each appointed time, and one for each stream.
func TestOpenAndSlow(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-quick", "-rounds", "1", "-scenarios", "S3,S4", "-targets", "direct,reverseproxy"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	results, err := bench(t.Context(), o, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]int64{}
	for _, r := range results {
		sent[r.Load+" "+r.Target] = r.Sent
	}
	if want := map[string]int64{"S3 reverseproxy": 40, "S4 direct": 30, "S4 reverseproxy": 30}; !maps.Equal(sent, want) {
		t.Errorf("sent %v; want %v", sent, want)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"-rounds 0", "want 1 to 100"},
		{"-rounds 101", "want 1 to 100"},
		{"-carpool old", "want NAME=PATH"},
		{"-carpool a/b=.", "want NAME=PATH"},
		{"-carpool a=. -carpool a=..", "two named a"},
		{"S1", "unexpected argument"},
		{"-scenarios S1,S6", `no scenario "S6"`},
		{"-targets direct,traefik", `no target "traefik"`},
		{"-targets carpool -carpool a=/does/not/exist", "no such file"},
	} {
		o, err := parse(strings.Fields(c.args), io.Discard)
		if err == nil {
			_, err = bench(t.Context(), o, io.Discard, io.Discard)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", c.args, err, c.want)
		}
	}
}

// TestSpoiledAnswers: whatever a proxy does to an answer is an error.
func TestSpoiledAnswers(t *testing.T) {
	t.Parallel()
	for _, load := range []load{{name: "plain", body: 1 << 10, conns: 2}, {name: "stream", body: 30 << 10, events: 3, conns: 2}} {
		x := makeTraffic(&load)[0]
		other := makeTraffic(&load)[1]
		good := bytes.Join(x.writes, nil)
		last := x.writes[len(x.writes)-1]
		for _, c := range []struct {
			name   string
			answer []byte
			ok     bool
		}{
			{"as sent", good, true},
			{"a byte changed in the middle", flip(good, len(good)-len(last)/2), false},
			{"cut off", good[:len(good)-7], false},
			{"another client's", bytes.Join(other.writes, nil), false},
			{"an error", bytes.Replace(good, []byte("200 OK"), []byte("529 Overloaded"), 1), false},
			{"without its last event", bytes.Replace(good, last, []byte("0\r\n\r\n"), 1), false},
			{"nothing", nil, false},
		} {
			t.Run(load.name+", "+c.name, func(t *testing.T) {
				t.Parallel()
				err := callFake(t, x, c.answer)
				if (err == nil) != c.ok {
					t.Errorf("the answer gave %v", err)
				}
			})
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// callFake sends a request to a server that reads it and answers with the given bytes.
func callFake(t *testing.T, x *exchange, answer []byte) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	request := append(x.head(l.Addr().String()), x.request...)
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, len(request))); err == nil {
			_, _ = c.Write(answer)
		}
	}()
	c := &client{address: l.Addr().String()}
	defer c.close()
	_, err = c.call(t.Context(), x, request, patience)
	return err
}

// TestSpoiledRequests: whatever a proxy does to a request is an error.
func TestSpoiledRequests(t *testing.T) {
	t.Parallel()
	load := load{name: "stream", body: 30 << 10, events: 3, conns: 2}
	exchanges := makeTraffic(&load)
	up, err := startUpstream()
	if err != nil {
		t.Fatal(err)
	}
	defer up.close()
	up.serve(exchanges, 0)
	x := exchanges[0]
	head := x.head(up.address())
	for _, c := range []struct {
		name    string
		request []byte
		ok      bool
	}{
		{"as sent", append(bytes.Clone(head), x.request...), true},
		{"a byte changed", append(bytes.Clone(head), flip(x.request, 20_000)...), false},
		{"another client's body", append(bytes.Clone(head), exchanges[1].request...), false},
		{"without the session", append(bytes.Replace(head, []byte("X-Claude-Code-Session-Id"), []byte("X-Other"), 1), x.request...), false},
		{"another path", append(bytes.Replace(head, []byte("/v1/messages"), []byte("/v1/complete"), 1), x.request...), false},
	} {
		c1 := &client{address: up.address()}
		_, err := c1.call(t.Context(), x, c.request, patience)
		c1.close()
		if (err == nil) != c.ok {
			t.Errorf("%s: the answer gave %v", c.name, err)
		}
	}
}

// TestTraffic: requests and events are what Claude Code and the API would send, and of the size that the load says.
func TestTraffic(t *testing.T) {
	t.Parallel()
	for _, l := range []load{
		{body: 1 << 10, conns: 1}, {body: 30 << 10, conns: 40, events: 3}, {body: 100 << 10, conns: 32, events: 50}, {body: 5 << 20, conns: 4},
	} {
		exchanges := makeTraffic(&l)
		for _, x := range exchanges {
			var body struct {
				Stream   bool              `json:"stream"`
				Messages []json.RawMessage `json:"messages"`
				Metadata struct {
					UserID string `json:"user_id"`
				} `json:"metadata"`
			}
			if err := json.Unmarshal(x.request, &body); err != nil || len(x.request) != l.body {
				t.Fatalf("a body of %d bytes: %d, %v", l.body, len(x.request), err)
			}
			if body.Stream != (l.events > 0) || !strings.Contains(body.Metadata.UserID, x.session) || len(body.Messages) == 0 {
				t.Errorf("a body of %d bytes is not of its session: %+v", l.body, body.Metadata)
			}
		}
		x := exchanges[0]
		if l.events == 0 {
			if !json.Valid(x.answer) || len(x.answer) != 1<<10 {
				t.Errorf("an answer of %d bytes: %s", len(x.answer), x.answer)
			}
			continue
		}
		deltas := 0
		for event := range strings.SplitSeq(strings.TrimSuffix(string(x.answer), "\n\n"), "\n\n") {
			name, data, ok := strings.Cut(event, "\ndata: ")
			if !ok || !json.Valid([]byte(data)) {
				t.Errorf("event %q", event)
			}
			if name == "event: content_block_delta" {
				deltas++
				if len(event)+2 != x.event {
					t.Errorf("a delta of %d bytes instead of %d", len(event)+2, x.event)
				}
			}
		}
		if deltas != l.events {
			t.Errorf("%d deltas instead of %d", deltas, l.events)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	us := func(name string, round int, cpu, first float64) result {
		return result{Load: "S4", Target: name, Round: round, CPUPerRequest: cpu, FirstByteP50: first, Sent: 10, OthersPercent: 7}
	}
	l := load{name: "S4", title: "some load", measures: []measure{perRequest(), firstByte(50)}}
	var b strings.Builder
	report(&b, []load{l}, []target{{name: direct}, {name: reverseProxy}, {name: carpool}}, []result{
		us(direct, 1, 0, 500), us(reverseProxy, 1, 120, 900), us(carpool, 1, 300, 1000),
		us(direct, 2, 0, 700), us(reverseProxy, 2, 80, 1100), us(carpool, 2, 100, 1600),
		us(direct, 3, 0, 600), us(reverseProxy, 3, 100, 1000), us(carpool, 3, 150, 1200),
	})
	const want = `| Load | Measure | direct | reverseproxy | carpool |
|---|---|---|---|---|
| some load | processor time per request, µs | – | 100 | 150 (1.50) |
|  | first byte, median, ms | 0.600 | 1.00 (+0.40) | 1.20 (+0.60) |
| all | requests, errors | 30, 0 | 30, 0 | 30, 0 |
|  | processors busy with other work, % | 7 | 7 | 7 |
`
	if b.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", b.String(), want)
	}
}

// TestProcess: the processor time and the memory of a program that computes are seen, and it is stopped.
func TestProcess(t *testing.T) {
	t.Parallel()
	p, err := start(t.TempDir(), nil, "sh", "-c", "while :; do :; done & wait")
	if err != nil {
		t.Fatal(err)
	}
	err = p.ready(t.Context(), func() error {
		pids, err := group(p.cmd.Process.Pid)
		if err == nil && len(pids) < 2 {
			err = io.ErrNoProgress
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.memory() <= 0 {
		t.Error("no memory")
	}
	eventually(t, "the child has used processor time", func() bool { return p.cpu() > 0 })
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	eventually(t, "the child has ended, too", func() bool {
		_, err := group(p.cmd.Process.Pid)
		return err != nil
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	often := time.NewTicker(tick)
	defer often.Stop()
	for deadline := time.After(startPatience); !holds(); {
		select {
		case <-often.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", startPatience, what)
		}
	}
}

package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// leaving is a point at which a client goes away.
type leaving struct {
	name string
	// sent is how much of the request is sent before: of its head, then of its body; negative counts from the end of the body.
	head, body int
	step       map[string]any // what the simulator does; nil when the request never gets there
	plain      bool           // no stream
	events     int            // to be received before
	outcome    string         // of the entry; empty: there is none
	done       bool           // the upstream has answered in full by then
}

// all is more than there is of a head or a body.
const all = 1 << 30

func leavings() []leaving {
	stall := func(after int) map[string]any {
		return object{"text": "An answer.", "events": 12, "cut": "stall", "at_event": after, "hold": "stalled"}
	}
	held := object{"text": "An answer.", "hold": "held"}
	return []leaving{
		{name: "connected", head: 0},
		{name: "amid the request line", head: 10},
		{name: "amid the header", head: 100},
		{name: "after the header", head: all},
		{name: "after a byte of the body", head: all, body: 1},
		{name: "amid the body", head: all, body: 30_000},
		{name: "in the body's second half", head: all, body: 50_000},
		{name: "before the last byte of the body", head: all, body: -1},
		{name: "while the upstream thinks", head: all, body: all, step: held, outcome: "canceled"},
		{name: "while the upstream thinks about a message", head: all, body: all, step: held, plain: true, outcome: "canceled"},
		{name: "after the upstream's header", head: all, body: all, step: stall(0), outcome: "canceled"},
		{name: "after the first event", head: all, body: all, step: stall(1), events: 1, outcome: "canceled"},
		{name: "after the second event", head: all, body: all, step: stall(2), events: 2, outcome: "canceled"},
		{name: "after the third event", head: all, body: all, step: stall(3), events: 3, outcome: "canceled"},
		{name: "after some text", head: all, body: all, step: stall(7), events: 7, outcome: "canceled"},
		{name: "after most of the text", head: all, body: all, step: stall(11), events: 11, outcome: "canceled"},
		{name: "before the end of the text", head: all, body: all, step: stall(-3), events: 15, outcome: "canceled"},
		{name: "before the last event, all else being told", head: all, body: all, step: stall(-1), events: 17, outcome: "finished"},
		{name: "while events come", head: all, body: all, step: object{"events": 1000, "every_ms": 5}, events: 5, outcome: "canceled"},
		{name: "after the last event", head: all, body: all, step: object{"text": "An answer."}, events: 7, outcome: "finished", done: true},
	}
}

// TestClientLeavesAnywhere: wherever a client goes away, its upstream request is cancelled within a second, an exchange that was
// admitted has exactly one entry, and nothing stays behind.
func TestClientLeavesAnywhere(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	if r := g.messages(prompt("warm up")); r.status != http.StatusOK {
		t.Fatalf("status %d", r.status)
	}
	goroutines, descriptors := g.metric("go_goroutines"), g.descriptors(t)
	upstream, want := 1, map[string]string{"": "finished"} // outcome by the client's request id
	slowest := time.Duration(0)
	for _, l := range leavings() {
		for _, reset := range []bool{false, true} {
			how := "FIN"
			if reset {
				how = "RST"
			}
			t.Run(l.name+", "+how, func(t *testing.T) {
				c, id := dialRaw(t, g.url), strings.NewReplacer(" ", "-", ",", "").Replace(t.Name())
				c.send(t, g, l, id)
				if l.step != nil {
					upstream++
				}
				if l.outcome != "" {
					want[id] = l.outcome
				}
				if l.step != nil && l.events == 0 {
					waitSim(t, sim, "held=1", callPatience)
				}
				c.receive(t, l.events)
				begun := time.Now()
				c.leave(t, reset)
				if l.step == nil {
					return
				}
				waitSim(t, sim, fmt.Sprintf("finished=%d", upstream), callPatience)
				if took := time.Since(begun); !l.done {
					slowest = max(slowest, took)
					if took > time.Second {
						t.Errorf("cancelled after %v", took)
					}
				}
				list := sim.requests(0)
				if last := list[len(list)-1]; last.ClientGone == l.done {
					t.Errorf("the upstream's request: %+v", last)
				}
			})
		}
	}
	t.Logf("cancelled within %v at the latest", slowest.Round(time.Millisecond))

	eventually(t, callPatience, "goroutines and descriptors are as many as at the start", func() bool {
		return g.metric("go_goroutines") <= goroutines && g.descriptors(t) <= descriptors
	})
	var books struct {
		Rows []faultEntry `json:"rows"`
	}
	g.decode(&books, "usage", "--limit", "1000", "--endpoint", "all")
	got := map[string]string{}
	for _, e := range books.Rows {
		got[e.ClientRequestID] = e.Outcome
		if e.InputTokens <= 0 {
			t.Errorf("%s: %d input tokens", e.ClientRequestID, e.InputTokens)
		}
	}
	if !maps.Equal(got, want) || len(books.Rows) != len(want) {
		t.Errorf("%d entries: %v\nwant %d: %v", len(books.Rows), got, len(want), want)
	}
	if n := len(sim.requests(0)); n != upstream {
		t.Errorf("%d requests at the upstream, want %d", n, upstream)
	}
}

// descriptors counts the files and connections that the server has open.
func (g *gateway) descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.proc.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// waitSim waits until the simulator's counters have reached what query says.
func waitSim(t *testing.T, s *simulator, query string, patience time.Duration) {
	t.Helper()
	if r := call(t, http.MethodGet, fmt.Sprintf("%s/__sim/wait?%s&timeout_ms=%d", s.url, query, patience.Milliseconds()), nil, nil); r.status != http.StatusOK {
		t.Fatalf("not within %v: %s: %s", patience, query, r.body)
	}
}

// rawClient is a connection on which a test does as it likes.
type rawClient struct {
	conn *net.TCPConn
	in   *bufio.Reader
}

func dialRaw(t *testing.T, base string) *rawClient {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	c, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("%T", conn)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &rawClient{conn: c, in: bufio.NewReader(c)}
}

// send sends as much of a request as the client sends before it leaves.
func (c *rawClient) send(t *testing.T, g *gateway, l leaving, id string) {
	t.Helper()
	text := strings.Repeat("x", 60_000)
	if l.step != nil {
		text = script(l.step) + text
	}
	body := prompt(text)
	body["stream"], body["max_tokens"] = !l.plain, 8192
	content := mustJSON(body)
	head := fmt.Sprintf("POST /v1/messages HTTP/1.1\r\nHost: gateway\r\nX-Api-Key: %s\r\nUser-Agent: %s\r\nAnthropic-Version: 2023-06-01\r\n"+
		"X-Client-Request-Id: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", g.key, agent, id, len(content))
	n := l.body
	if n < 0 {
		n += len(content)
	}
	if _, err := c.conn.Write([]byte(head[:min(l.head, len(head))] + content[:min(n, len(content))])); err != nil {
		t.Fatal(err)
	}
}

// receive reads the answer until n events have come.
func (c *rawClient) receive(t *testing.T, n int) {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(callPatience)); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < n; {
		line, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d events: %v", got, err)
		}
		if strings.HasPrefix(line, "data: ") {
			got++
		}
	}
}

// leave closes the connection, with a reset if asked to.
func (c *rawClient) leave(t *testing.T, reset bool) {
	t.Helper()
	if reset {
		if err := c.conn.SetLinger(0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
}

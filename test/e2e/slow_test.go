package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// endless is an upstream that sends an endless stream to whoever asks for one, as fast as it is taken.
func endless(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetWriteBuffer(16 << 10) // what this machine's system would buffer at this end is no cost of the gateway's
	event := "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"" + strings.Repeat("x", 4000) + "\"}}\n\n"
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"+
		"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n")
	for {
		if _, err := io.WriteString(conn, event); err != nil {
			return
		}
	}
}

// goodTraffic posts one request after another on a few connections, until stop returns how long each took.
func goodTraffic(t *testing.T, g *gateway) (stop func() []time.Duration) {
	t.Helper()
	const clients = 4
	var over atomic.Bool
	var mu sync.Mutex
	var took []time.Duration
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	body := mustJSON(prompt("good"))
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond) // a load that leaves the machine time
			defer tick.Stop()
			for !over.Load() {
				begun := time.Now()
				if status, err := post(t.Context(), transport, g, body); err != nil || status != http.StatusOK {
					t.Errorf("good request: status %d, %v", status, err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
				<-tick.C
			}
		})
	}
	return func() []time.Duration {
		over.Store(true)
		running.Wait()
		transport.CloseIdleConnections()
		slices.Sort(took)
		return took
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(float64(len(sorted)-1)*q)]
}

// TestSlowClients: a thousand clients that send or take next to nothing are cut off, hold little, and disturb nobody.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const culprits = 1000
	upstream := startRawUpstream(t, answerPlainly)
	stuffer := startRawUpstream(t, endless)
	g := measured(t, upstream.url, "drainTimeout: 5s, readHeaderTimeout: 3s, readBodyTimeout: 3s, writeTimeout: 3s")
	g.must("upstream", "add", "stuffer", "--api-key", simKey, "--base-url", stuffer.url)
	g.must("route", "add", "endless", "--model", "endless", "--upstream", "stuffer")
	head := "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nUser-Agent: " + agent + "\r\nX-Api-Key: " + g.key + "\r\n"
	endlessly := mustJSON(map[string]any{"model": "endless", "max_tokens": 1, "stream": true, "messages": prompt("x")["messages"]})

	stop := goodTraffic(t, g)
	eventually(t, callPatience, "there is enough to compare with", func() bool { return g.metric(`carpool_exchanges_total{endpoint="messages",outcome="finished"}`) > 600 })
	usual := stop()
	for _, attack := range []struct {
		name, begin, drip string
		limit             int64 // growth of memory per culprit
	}{
		{"header", "POST /v1/messages HTTP/1.1\r\nHost: a\r\n", "X-A: b\r\n", 40 << 10},
		{"body", head + "Content-Length: 1000000\r\n\r\n{", " ", 80 << 10},
		{"answer", head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(endlessly), endlessly), "", 160 << 10},
	} {
		t.Run(attack.name, func(t *testing.T) {
			stop := goodTraffic(t, g)
			var cut atomic.Int64
			begun := time.Now()
			grown := g.peak(func() {
				var running sync.WaitGroup
				ramp := time.NewTicker(2 * time.Millisecond) // it is their slowness that is measured, not that they all begin at once
				defer ramp.Stop()
				for range culprits {
					<-ramp.C
					running.Go(func() {
						if slowClient(t, g, attack.begin, attack.drip) {
							cut.Add(1)
						}
					})
				}
				running.Wait()
			})
			took := stop()
			if cut.Load() != culprits {
				t.Errorf("%d of %d culprits were cut off", cut.Load(), culprits)
			}
			if grown > 32<<20+culprits*attack.limit {
				t.Errorf("memory grew by %d MB", grown>>20)
			}
			t.Logf("%d cut after %v; memory %+d MB; %d good requests: median %v (usual %v), 99th percentile %v (usual %v), ratio %.2f",
				cut.Load(), time.Since(begun).Round(100*time.Millisecond), grown>>20, len(took),
				quantile(took, .5).Round(10*time.Microsecond), quantile(usual, .5).Round(10*time.Microsecond),
				quantile(took, .99).Round(10*time.Microsecond), quantile(usual, .99).Round(10*time.Microsecond),
				float64(quantile(took, .99))/float64(max(quantile(usual, .99), 1)))
		})
	}
}

// slowClient sends the beginning of a request and then a drip a second, takes nothing, and reports whether it was cut off.
func slowClient(t *testing.T, g *gateway, begin, drip string) bool {
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Error(err)
		return false
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := io.WriteString(conn, begin); err != nil {
		return true
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < callPatience; {
		<-tick.C
		if drip == "" { // a byte that HTTP ignores shows whether anybody is there
			drip = "\r\n"
		}
		if _, err := io.WriteString(conn, drip); err != nil {
			return true
		}
		if begin[len(begin)-1] != '}' { // an answer or the end shows that it was cut
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			var one [1]byte
			if _, err := conn.Read(one[:]); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
				return true
			}
		}
	}
	return false
}

// TestConnectionsBeyondTheLimit: more connections than are allowed wait for their turn, idle ones make place, and all are served.
func TestConnectionsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	upstream := startRawUpstream(t, answerPlainly)
	g := configured(t, t.TempDir(), upstream.url, "drainTimeout: 5s, maxConnections: 20")
	body := mustJSON(prompt("x"))
	var served atomic.Int64
	var running sync.WaitGroup
	for range 200 {
		running.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			status, err := post(t.Context(), transport, g, body)
			if err != nil || status != http.StatusOK {
				t.Errorf("status %d, %v", status, err)
				return
			}
			served.Add(1)
		})
	}
	running.Wait()
	if served.Load() != 200 {
		t.Errorf("%d of 200 served", served.Load())
	}
}

// TestFewDescriptors: with few files to open the server takes fewer connections at once, and still serves all.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	upstream := startRawUpstream(t, answerPlainly)
	dir := t.TempDir()
	write(t, dir+"/resources.yml", resourcesFor(upstream.url, -1))
	write(t, dir+"/carpool.yml", configFor(dir, "drainTimeout: 5s"))
	p := start(t, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), "/bin/sh", "-c", `ulimit -n 128; exec "$0" serve --config carpool.yml`, binary)
	g := &gateway{t: t, proc: p, data: dir + "/data", key: newKey("alice"), url: p.line(p.stderr, "its address", serving)}
	body := mustJSON(prompt("x"))
	var running sync.WaitGroup
	for range 400 {
		running.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			if status, err := post(t.Context(), transport, g, body); err != nil || status != http.StatusOK {
				t.Errorf("status %d, %v", status, err)
			}
		})
	}
	running.Wait()
	if strings.Contains(p.stderr.String(), "too many open files") {
		t.Error("the server ran out of files")
	}
}

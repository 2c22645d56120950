package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// herdSize is how many clients come at the same time.
const herdSize = 500

// herd is many clients, each of which comes again and again until it is served.
type herd struct {
	refused atomic.Int64 // answers with 429 and 529
	blunt   atomic.Int64 // of them, those that do not say when to come back
	served  atomic.Int64
	over    sync.WaitGroup
}

// startHerd starts the clients. A refused one comes again after pause: sooner than it is told to.
func startHerd(t *testing.T, g *gateway, pause time.Duration) *herd {
	t.Helper()
	h := &herd{}
	ctx, cancel := context.WithTimeout(t.Context(), 2*callPatience)
	t.Cleanup(cancel)
	transport := &http.Transport{MaxIdleConnsPerHost: herdSize, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	body := []byte(mustJSON(prompt("all together now")))
	for range herdSize {
		h.over.Go(func() {
			again := time.NewTicker(pause)
			defer again.Stop()
			for {
				status, after, err := h.ask(ctx, transport, g, body)
				switch {
				case err != nil:
					t.Error(err)
					return
				case status == http.StatusOK:
					h.served.Add(1)
					return
				case status != http.StatusTooManyRequests && status != 529:
					t.Errorf("status %d", status)
					return
				}
				if after == "" {
					h.blunt.Add(1)
				} else if seconds, err := strconv.Atoi(after); err != nil || seconds < 1 || seconds > 60 {
					t.Errorf("%d with retry-after %q", status, after)
				}
				h.refused.Add(1)
				select {
				case <-again.C:
				case <-ctx.Done():
					t.Error("never served")
					return
				}
			}
		})
	}
	return h
}

func (h *herd) ask(ctx context.Context, transport http.RoundTripper, g *gateway, body []byte) (status int, after string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header = g.header()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", fmt.Errorf("client of the herd: %w", err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("Retry-After"), err
}

// TestHerdAtARecoveringUpstream: when an upstream that was left alone may be asked again, one request goes first, however many
// clients are waiting; after its success they all are served, and after its failure again one goes first.
func TestHerdAtARecoveringUpstream(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]object{
		"overloaded":   {"status": 529},
		"rate limited": {"status": 429, "headers": object{"retry-after": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := startSim(t)
			g := configured(t, t.TempDir(), sim.url, "drainTimeout: 5s")
			const credential = "credential-1"
			sim.setFaults(t, credential, fault)
			if r := g.messages(prompt("first")); r.status != fault["status"] {
				t.Fatalf("status %d", r.status)
			}

			failing := object{"hold": "probe", "times": 1}
			maps.Copy(failing, fault)
			sim.setFaults(t, credential, failing, object{"hold": "probe", "times": 1})
			h := startHerd(t, g, 300*time.Millisecond)
			for probe := 1; probe <= 2; probe++ {
				waitSim(t, sim, "held=1", callPatience)
				before := h.refused.Load()
				eventually(t, callPatience, "everybody else has been refused", func() bool { return h.refused.Load() >= before+herdSize })
				if n := len(sim.requests(0)); n != 1+probe || h.served.Load() != 0 {
					t.Errorf("%d requests reached the upstream, want %d; %d served", n, 1+probe, h.served.Load())
				}
				if r := call(t, http.MethodPost, sim.url+"/__sim/release?name=probe", nil, nil); r.status != http.StatusOK {
					t.Fatalf("release: status %d", r.status)
				}
			}
			h.over.Wait()
			if h.served.Load() != herdSize {
				t.Errorf("%d of %d served", h.served.Load(), herdSize)
			}
			if n := h.blunt.Load(); n > 1 { // the upstream's own words to the first of them
				t.Errorf("%d were refused without a retry-after", n)
			}
			if n := len(sim.requests(0)); n != 2+herdSize {
				t.Errorf("%d requests reached the upstream, want each once besides the two that failed: %d", n, 2+herdSize)
			}
		})
	}
}

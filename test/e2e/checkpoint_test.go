package e2e

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestCrashInMidStream: what a stream said at its beginning is charged although the server dies before its end.
func TestCrashInMidStream(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	body := prompt(script(map[string]any{
		"text": strings.Repeat("word ", 50), "events": 10, "cut": "stall", "at_event": 5, "stall_ms": 60_000,
		"start_usage": map[string]any{
			"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 248,
			"cache_creation": map[string]int{"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
		},
	}))
	body["stream"] = true
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/v1/messages", bytes.NewReader([]byte(mustJSON(body))))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = g.header()
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	eventually(t, callPatience, "the checkpoint is written, after the opening", func() bool {
		return g.metric("carpool_ledger_commit_operations_sum") == 2
	})
	g.proc.kill()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer ended well")
	}

	for range 2 { // the second start has nothing to settle
		g = serveIn(t, dir, sim.url, -1)
		g.settled(1)
		var b struct {
			Rows []struct {
				entry
				Cost              int64  `json:"costMicroUsd"`
				Estimated         bool   `json:"estimated"`
				UpstreamRequestID string `json:"upstreamRequestId"`
			} `json:"rows"`
		}
		g.decode(&b, "usage")
		if len(b.Rows) != 1 {
			t.Fatalf("%+v", b)
		}
		e := b.Rows[0]
		if e.Outcome != "crashed" || !e.Estimated || e.Status != http.StatusOK || e.InputTokens != 3 || e.CacheReadTokens != 10_000 ||
			e.CacheWrite5m != 148 || e.CacheWrite1h != 100 || e.OutputTokens < 1 || e.Upstream != "main" || e.UpstreamRequestID != sim.requests(0)[0].RequestID {
			t.Errorf("%+v", e)
		}
		if want := 9 + 3000 + 555 + 600 + 15*e.OutputTokens; e.Cost != want { // Claude Sonnet 4.5
			t.Errorf("cost %d, want %d", e.Cost, want)
		}
		var v verified
		if g.decode(&v, "db", "verify"); v.Entries != 1 || v.Priced != 1 || v.Open != 0 || len(v.Findings) > 0 {
			t.Errorf("%+v", v)
		}
		g.proc.terminate()
	}
}

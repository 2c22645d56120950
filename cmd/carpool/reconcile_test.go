package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/fleet"
	"carpool/internal/price"
	"carpool/internal/sim"
)

// provider is a simulated Anthropic API whose clock stands still between requests, with the books of who asks it.
type provider struct {
	*httptest.Server
	clock  atomic.Int64 // seconds
	prices *price.Table
}

func newProvider(t *testing.T, at time.Time) *provider {
	t.Helper()
	p := &provider{}
	p.clock.Store(at.Unix())
	simulator, err := sim.New(sim.Options{Now: func() time.Time { return time.Unix(p.clock.Load(), 0) }})
	if err != nil {
		t.Fatal(err)
	}
	if p.prices, err = price.New(price.Overlay{}); err != nil {
		t.Fatal(err)
	}
	p.Server = httptest.NewServer(simulator)
	t.Cleanup(p.Close)
	return p
}

// ask sends a request and books its answer as the gateway does.
func (p *provider) ask(t *testing.T, model, prompt string, stream bool) fleet.Entry {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"model": model, "max_tokens": 100, "stream": stream,
		"messages": []any{map[string]any{"role": "user", "content": []any{
			map[string]any{"type": "text", "text": prompt, "cache_control": map[string]any{"type": "ephemeral"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"X-Api-Key": {sim.DefaultKey}, "Anthropic-Version": {"2023-06-01"}, "Content-Type": {"application/json"}}
	at := time.Unix(p.clock.Load(), 0).UTC()
	resp, err := p.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	meter := anthropic.NewMeter(resp.Header.Get("Content-Type"))
	if _, err := io.Copy(meter, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	result := meter.Result()
	usage, _ := result.Settled(0)
	cost := p.prices.Cost(at, price.Request{Provider: price.Anthropic, Served: result.Model, Sent: model, Asked: model, Usage: usage})
	return fleet.Entry{
		StartedAt: at, Duration: 1000, Outcome: fleet.OutcomeFinished, Status: 200, User: "alice", KeyName: "k", Endpoint: "messages", Upstream: "main",
		Provider: "anthropic", ModelAsked: model, ModelSent: model, ModelServed: result.Model, SessionID: "s1",
		InputTokens: usage.Input, OutputTokens: usage.Output, CacheReadTokens: usage.CacheRead, CacheWrite5mTokens: usage.CacheWrite5m,
		CacheWrite1hTokens: usage.CacheWrite1h, WebSearches: usage.WebSearches,
		Cost: cost.Total, PriceVersion: p.prices.Version(), UpstreamRequestID: resp.Header.Get("Request-Id"),
	}
}

// carpool runs a command line against a data folder.
func carpool(t *testing.T, data string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &problems, now: time.Now, env: []string{"TEST_ADMIN_KEY=" + sim.DefaultAdminKey}}
	status = run(t.Context(), append(args, "--data", data), a)
	return status, out.String(), problems.String()
}

// serving returns a data folder and the server that runs on it until the test ends.
func serving(t *testing.T) (data string, _ *testServer) {
	t.Helper()
	data = t.TempDir()
	server, err := startServer(data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.stop(); err != nil {
			t.Error(err)
		}
	})
	return data, server
}

// What the books have is what the provider's report says, to the token and the micro-dollar, and what is changed shows.
func TestReconcile(t *testing.T) {
	data, server := serving(t)
	yesterday := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)
	p := newProvider(t, yesterday.Add(-2*time.Hour))
	var entries []fleet.Entry
	for i := range 40 { // over midnight
		p.clock.Add(7 * 60)
		model := []string{"claude-sonnet-4-5", "claude-haiku-4-5-20251001", "claude-opus-5-5"}[i%3]
		prompt := fmt.Sprintf("prompt %d %s", i%4, strings.Repeat("words ", 50))
		if i%5 == 0 {
			prompt = fmt.Sprintf(`[[sim {"text":"found","usage":{"server_tool_use":{"web_search_requests":%d}}}]] %d`, i%3+1, i)
		}
		entries = append(entries, p.ask(t, model, prompt, i%2 == 0))
	}
	if err := server.node.ship(context.Background(), entries); err != nil {
		t.Fatal(err)
	}

	api := []string{"reconcile", "--from", "API", "--api-url", p.URL, "--admin-key-env", "TEST_ADMIN_KEY", "--tolerance", "0"}
	status, out, problems := carpool(t, data, api...)
	if status != 0 || !strings.Contains(out, "Everything is within the tolerance.") || strings.Contains(out, "Other models") || strings.Count(out, " cost ") != 7 {
		t.Fatalf("%d\n%s%s", status, out, problems)
	}

	// More days than a page has.
	long := append([]string{"--since", "70d"}, api[1:]...)
	if status, again, problems := carpool(t, data, append([]string{"reconcile"}, long...)...); status != 0 || strings.Count(again, " cost ") != 7 {
		t.Errorf("%d\n%s%s", status, again, problems)
	}

	// The same from a file, as one would save the answers.
	var saved, costs bytes.Buffer
	for _, path := range []string{"usage_report/messages?group_by[]=model", "cost_report?group_by[]=description"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/v1/organizations/"+path+"&limit=31&starting_at="+
			yesterday.AddDate(0, 0, -1).Format(time.RFC3339)+"&ending_at="+yesterday.AddDate(0, 0, 1).Format(time.RFC3339), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"X-Api-Key": {sim.DefaultAdminKey}, "Anthropic-Version": {"2023-06-01"}}
		resp, err := p.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		costs.Reset() // it comes last
		if _, err := saved.ReadFrom(io.TeeReader(resp.Body, &costs)); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, saved.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, again, problems := carpool(t, data, "reconcile", "--from", file, "--tolerance", "0"); status != 0 || !strings.Contains(again, "within the tolerance.") {
		t.Errorf("%d\n%s%s", status, again, problems)
	}

	// The cost report alone has web searches by day.
	costFile := filepath.Join(t.TempDir(), "costs.json")
	if err := os.WriteFile(costFile, costs.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, again, problems := carpool(t, data, "reconcile", "--from", costFile, "--tolerance", "0"); status != 0 ||
		!strings.Contains(again, "(web search)") || strings.Contains(again, "tokens") {
		t.Errorf("%d\n%s%s", status, again, problems)
	}

	// One request that the provider does not know.
	stray := entries[3]
	stray.ID, stray.UpstreamRequestID = "stray", "req_stray"
	stray.Usage = json.RawMessage(`{"iterations":[{"type":"message","output_tokens":1},{"type":"advisor_message","model":"claude-opus-5-5","output_tokens":9}]}`)
	if err := server.node.ship(context.Background(), []fleet.Entry{stray}); err != nil {
		t.Fatal(err)
	}
	status, out, problems = carpool(t, data, api...)
	if status != 1 || !strings.Contains(problems, "drift: 1 of 6 lines beyond the tolerance of 0") || !strings.Contains(out, "Beyond the tolerance:") ||
		!strings.Contains(out, "Other models took part") || !strings.Contains(out, fmt.Sprintf("  %s claude-sonnet-4-5 in 1 request\n", stray.StartedAt.Format(time.DateOnly))) {
		t.Errorf("%d\n%s%s", status, out, problems)
	}
	status, out, _ = carpool(t, data, append(api, "--output", "json")...)
	var got drift
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != 1 || got.Within {
		t.Fatalf("%d %v %s", status, err, out)
	}
	for _, row := range got.Rows {
		want := int64(0)
		if !row.Within {
			want = stray.Cost
		}
		if off := row.Drift.MicroUSD - want; off > 10 || off < -10 { // the ledger rounds each request
			t.Errorf("%s %s drifts by %d micro-dollars, not %d", row.Day, row.Model, row.Drift.MicroUSD, want)
		}
	}
	if status, out, _ := carpool(t, data, append(api, "--tolerance", "50%")...); status != 0 {
		t.Errorf("%d\n%s", status, out)
	}

	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(sim.DefaultKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []struct {
		status int
		says   string
		args   []string
	}{
		{2, "give one of --from and --otel", []string{"reconcile"}},
		{2, "the report does not know users", append(api, "--user", "alice")},
		{2, "telemetry does not know workspaces", []string{"reconcile", "--otel", file, "--workspace", "w1"}},
		{1, "cannot ask the Admin API at http://127.0.0.1:1: dial tcp", append(api, "--api-url", "http://127.0.0.1:1")},
		{1, `there is no upstream "nope"`, append(api, "--upstream", "nope")},
		{1, `there is no upstream "nope"`, []string{"reconcile", "--from", file, "--upstream", "nope"}},
		{2, "--tolerance does not take", []string{"reconcile", "--from", "API", "--tolerance", "2"}},
		{1, "ANTHROPIC_ADMIN_KEY is not set", []string{"reconcile", "--from", "API"}},
		{1, "and nothing else", []string{"reconcile", "--from", "API", "--api-url", p.URL, "--admin-key-file", file}},
		{1, "it takes an Admin key", []string{"reconcile", "--from", "API", "--api-url", p.URL, "--admin-key-file", key}},
		{2, "no whole UTC day", append(api, "--since", "now")},
		{1, "not an answer of the Usage and Cost API", []string{"reconcile", "--from", "reconcile_test.go"}},
		{2, "are for --from API", []string{"reconcile", "--from", file, "--since", "7d"}},
	} {
		if status, out, problems := carpool(t, data, wrong.args...); status != wrong.status || !strings.Contains(problems, wrong.says) {
			t.Errorf("%v: %d\n%s%s", wrong.args, status, out, problems)
		}
	}
}

// telemetry writes events as Claude Code does, those of OTLP as its collector does.
func telemetry(entries []fleet.Entry, otlp bool) []byte {
	var out bytes.Buffer
	for i := range entries {
		e := &entries[i]
		attributes := map[string]string{
			"event.name": "api_request", "event.timestamp": e.StartedAt.Add(time.Second).Format(time.RFC3339Nano), "session.id": e.SessionID,
			"model": e.ModelServed, "request_id": e.UpstreamRequestID, "duration_ms": "1000",
			"input_tokens": decimal(e.InputTokens), "output_tokens": decimal(e.OutputTokens), "cache_read_tokens": decimal(e.CacheReadTokens),
			"cache_creation_tokens": decimal(e.CacheWrite5mTokens + e.CacheWrite1hTokens), "cost_usd": fmt.Sprint(float64(e.Cost) / 1e6),
		}
		var line any = attributes
		if otlp {
			pairs := []any{}
			for name, value := range attributes {
				if name != "event.name" {
					pairs = append(pairs, map[string]any{"key": name, "value": map[string]string{"stringValue": value}})
				}
			}
			record := map[string]any{"body": map[string]string{"stringValue": "claude_code.api_request"}, "attributes": pairs}
			line = map[string]any{"resourceLogs": []any{map[string]any{"scopeLogs": []any{map[string]any{"logRecords": []any{record}}}}}}
		}
		_ = json.NewEncoder(&out).Encode(line)
	}
	return out.Bytes()
}

// Requests that only one side has, and those about which the sides differ, are named by their ids.
func TestReconcileTelemetry(t *testing.T) {
	data, server := serving(t)
	p := newProvider(t, time.Now().Add(-time.Hour))
	var entries []fleet.Entry
	for i := range 6 {
		p.clock.Add(60)
		e := p.ask(t, "claude-sonnet-4-5", fmt.Sprint("prompt ", i), true)
		e.ID = fmt.Sprint("id-", i)
		entries = append(entries, e)
	}
	said := telemetry(entries[:5], false)
	unknown := entries[0]
	unknown.UpstreamRequestID = "req_unknown"
	said = append(said, telemetry([]fleet.Entry{unknown}, true)...)
	said = append(said, telemetry([]fleet.Entry{unknown, entries[0]}, true)...) // an exporter that did not hear of its success
	booked := append([]fleet.Entry(nil), entries...)
	booked[1].OutputTokens++
	booked[5].UpstreamRequestID = "" // never got an answer of the upstream with an id
	other := entries[2]
	other.ID, other.SessionID, other.UpstreamRequestID = "other", "without telemetry", "req_other"
	failed := entries[2]
	failed.ID, failed.Outcome, failed.UpstreamRequestID = "failed", fleet.OutcomeUpstreamError, "req_failed"
	if err := server.node.ship(context.Background(), append(booked, other, failed)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "telemetry.jsonl")
	write := func(content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(said)
	status, out, problems := carpool(t, data, "reconcile", "--otel", file, "--output", "json")
	var got matching
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v\n%s%s", err, out, problems)
	}
	kinds := map[string]string{}
	for _, d := range got.Differences {
		switch {
		case d.Ledger == nil:
			kinds[d.RequestID] = "telemetry"
		case d.Telemetry == nil:
			kinds[d.RequestID] = "ledger"
		default:
			kinds[d.RequestID] = strings.Join(d.Differs, ",")
		}
	}
	if status != 1 || got.Events != 6 || got.Matched != 5 || len(kinds) != 3 || kinds["req_unknown"] != "telemetry" || kinds["id-5"] != "ledger" ||
		kinds[entries[1].UpstreamRequestID] != "outputTokens" {
		t.Errorf("%d %+v\n%s", status, kinds, problems)
	}
	status, out, problems = carpool(t, data, "reconcile", "--otel", file)
	if status != 1 || !strings.Contains(out, "only in the telemetry") || !strings.Contains(problems, "do not agree about 3 requests") {
		t.Errorf("%d\n%s%s", status, out, problems)
	}

	for _, otlp := range []bool{false, true} {
		write(telemetry([]fleet.Entry{entries[0], entries[2], entries[3], entries[4]}, otlp))
		status, out, problems := carpool(t, data, "reconcile", "--otel", file, "--until", entries[4].StartedAt.Add(time.Second).Format(time.RFC3339), "--user", "alice")
		if status != 1 || !strings.Contains(out, "In both                4\n") || !strings.Contains(out, "Only in the ledger     1\n") {
			t.Errorf("%d\n%s%s", status, out, problems)
		}
	}
	for name, flag := range map[string]string{"user": "--user", "upstream": "--upstream"} {
		if status, out, problems := carpool(t, data, "reconcile", "--otel", file, flag, "nope"); status != 1 || out != "" ||
			!strings.Contains(problems, fmt.Sprintf("there is no %s %q", name, "nope")) {
			t.Errorf("%d %s%s", status, out, problems)
		}
	}
	write(nil)
	if status, _, problems := carpool(t, data, "reconcile", "--otel", file); status != 1 || !strings.Contains(problems, "no claude_code.api_request event") {
		t.Errorf("%d %s", status, problems)
	}
	write([]byte("no JSON\n"))
	if status, _, problems := carpool(t, data, "reconcile", "--otel", file); status != 1 || !strings.Contains(problems, "line 1 is not JSON") {
		t.Errorf("%d %s", status, problems)
	}
}

package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carpool/internal/config"
	"carpool/internal/policy"
)

// BenchmarkStandalone measures a small request through a whole server: reservation, settlement, shipping to control, log.
func BenchmarkStandalone(b *testing.B) {
	b.Run("plain-1KB", func(b *testing.B) { benchStandalone(b, 160, 0) })
	b.Run("stream-100KB-200events", func(b *testing.B) { benchStandalone(b, 17_000, 200) })
}

func benchStandalone(b *testing.B, words, events int) {
	b.Helper()
	const answer = `{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":12,"output_tokens":5}}`
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if events > 0 {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-opus-5-5\",\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\n")
			for range events {
				_, _ = io.WriteString(w, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"some words of an answer \"}}\n\n")
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = io.WriteString(w, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":200}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	b.Cleanup(up.Close)
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, now: time.Now}
	cfg, err := config.Load(config.Options{DataDir: b.TempDir(), Overrides: []config.Override{
		{Key: "server.port", Value: "0", Source: "test"}, {Key: "metrics.listen", Value: "off", Source: "test"},
	}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := a.startStandalone(b.Context(), cfg, slog.New(slog.NewJSONHandler(io.Discard, nil))) //nolint:sloglint // the making of a line is part of the cost
	if err != nil {
		b.Fatal(err)
	}
	const key = "benchmark-key-of-20-characters"
	if _, err := s.control.Apply(b.Context(), policy.Resources{
		Upstreams: []policy.UpstreamSpec{{Name: "main", BaseURL: up.URL, APIKey: "sk-x"}},
		Routes:    []policy.RouteSpec{{Name: "all", Upstreams: []string{"main"}}},
		Users:     []policy.UserSpec{{Name: "alice"}},
		Keys:      []policy.KeySpec{{Name: "alice", User: "alice", Key: key}},
	}, false); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	body := `{"model":"claude-opus-5-5","max_tokens":100,"messages":[{"role":"user","content":"` + strings.Repeat("hello ", words) + `"}]}`
	if events > 0 {
		body = strings.Replace(body, "{", `{"stream":true,`, 1)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	b.ReportAllocs()
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(ctx, "POST", s.address+"/v1/messages", strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set("X-Api-Key", key)
			req.Header.Set("User-Agent", "claude-cli/2.1.330 (external, cli)")
			resp, err := transport.RoundTrip(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != 200 {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.StopTimer()
}

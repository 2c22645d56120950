package wire_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"carpool/internal/wire"
)

// cliHead is as large as the head of a Claude Code request.
func cliHead() wire.Head {
	var h wire.Head
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access", "Anthropic-Version", "Connection", "Content-Length", "Content-Type",
		"User-Agent", "X-Api-Key", "X-App", "X-Claude-Code-Session-Id", "X-Stainless-Arch", "X-Stainless-Lang", "X-Stainless-Os", "X-Stainless-Package-Version",
		"X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version", "X-Stainless-Timeout",
	} {
		h.Add(name, "a value of common length")
	}
	return h
}

func BenchmarkHead(b *testing.B) {
	h := cliHead()
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = h.Get("x-stainless-timeout")
		}
	})
	b.Run("Set", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Set("x-stainless-timeout", "a value of common length")
		}
	})
	b.Run("Filter", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = h.Filter(func(f wire.Field) bool { return !strings.EqualFold(f.Name, "x-api-key") })
		}
	})
	b.Run("ConnectionNames", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = h.ConnectionNames()
		}
	})
}

func BenchmarkBodyReader(b *testing.B) {
	body := wire.NewBody(make([]byte, 100_000), nil)
	buffer := make([]byte, 16<<10)
	b.SetBytes(100_000)
	b.ReportAllocs()
	for b.Loop() {
		r := body.Reader()
		for {
			if _, err := r.Read(buffer); err != nil {
				break
			}
		}
		_ = r.Close()
	}
}

// BenchmarkRelay sends 1 KB of JSON through a hop and back: the hop made of this package's two adaptors, the hop of
// net/http's ReverseProxy, and no hop at all. The time covers the client and the server at the ends as well.
func BenchmarkRelay(b *testing.B) {
	payload := bytes.Repeat([]byte(`{"a":123}`), 114)
	upstream, _ := serve(b, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(payload)
	}))
	target, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("direct", func(b *testing.B) { roundTrips(b, upstream, payload) })
	b.Run("wire", func(b *testing.B) {
		client := newClient(b)
		base, _ := serve(b, "HTTP/1.1", wire.Handler(relay(client, target)))
		roundTrips(b, base, payload)
	})
	b.Run("ReverseProxy", func(b *testing.B) {
		transport := &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute, DisableCompression: true}
		b.Cleanup(transport.CloseIdleConnections)
		base, _ := serve(b, "HTTP/1.1", &httputil.ReverseProxy{Transport: transport, BufferPool: &buffers{}, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
		roundTrips(b, base, payload)
	})
}

// buffers lends buffers to both hops.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// relay is the least that a hop does: read the body, send it on, copy the answer.
func relay(client *wire.Client, target *url.URL) wire.HandlerFunc {
	lent := &buffers{}
	return func(ctx context.Context, w wire.Writer, r *wire.Request) {
		content := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, content); err != nil {
			return
		}
		drop := func(f wire.Field) bool { return f.Name != "Content-Length" }
		out := &wire.Outgoing{Method: r.Method, URL: target, Head: r.Head.Filter(drop), Body: wire.NewBody(content, nil)}
		answer, _, err := client.Do(ctx, out)
		if err != nil {
			return
		}
		defer answer.Body.Close()
		out.Body.Release()
		if w.Begin(answer.Status, answer.Head) == nil {
			buffer := lent.Get()
			defer lent.Put(buffer)
			_, _ = io.CopyBuffer(w, answer.Body, buffer)
		}
	}
}

func roundTrips(b *testing.B, base string, payload []byte) {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	head := http.Header{}
	for _, f := range cliHead() {
		if f.Name != "Connection" && f.Name != "Content-Length" {
			head.Set(f.Name, f.Value)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		req, err := http.NewRequestWithContext(b.Context(), "POST", base+"/v1/messages", bytes.NewReader(payload))
		if err != nil {
			b.Fatal(err)
		}
		req.Header = head.Clone()
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if int(n) != len(payload) || err != nil || resp.StatusCode != 200 {
			b.Fatal(n, err, resp.Status)
		}
	}
}

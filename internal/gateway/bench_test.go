package gateway_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// BenchmarkMessages measures a whole request over sockets, through Carpool and through the plainest reverse proxy that
// the standard library makes. The ratio of the two in one run is the figure to quote.
func BenchmarkMessages(b *testing.B) {
	events := strings.Repeat("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"some words of an answer \"}}\n\n", 1)
	pieces := append([]string{streamEvents[0]}, strings.Split(strings.TrimSuffix(strings.Repeat(events+"\x00", 200), "\x00"), "\x00")...)
	pieces = append(pieces, streamEvents[5], streamEvents[6])
	large := strings.Replace(streamRequest, "hello", strings.Repeat("hello world ", 8_500), 1)
	for _, load := range []struct {
		name, body string
		answer     http.HandlerFunc
	}{
		{"plain-1KB", strings.Replace(plainRequest, "hello", strings.Repeat("hello ", 160), 1), answerPlain},
		{"stream-100KB-200events", large, answerStream(pieces...)},
	} {
		r := newRig(b, load.answer, nil)
		up := httptest.NewServer(r.upstream)
		b.Cleanup(up.Close)
		target, err := url.Parse(up.URL)
		if err != nil {
			b.Fatal(err)
		}
		proxy := httptest.NewServer(&httputil.ReverseProxy{
			Rewrite:       func(p *httputil.ProxyRequest) { p.SetURL(target) },
			FlushInterval: -1,
		})
		b.Cleanup(proxy.Close)
		for _, way := range []struct{ name, url string }{{"reverseproxy", proxy.URL}, {"carpool", r.url}} {
			b.Run(load.name+"/"+way.name, func(b *testing.B) { hammer(b, r, way.url, load.body) })
		}
	}
}

func hammer(b *testing.B, r *rig, address, body string) {
	b.ReportAllocs()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), "POST", address+"/v1/messages", bytes.NewReader([]byte(body)))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set("X-Api-Key", aliceKey)
			resp, err := transport.RoundTrip(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != 200 {
				b.Errorf("status %d: %v", resp.StatusCode, err)
				return
			}
		}
	})
	r.upstream.forget()
}

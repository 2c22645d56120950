package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestParallelRequestsOnAQuota: of 200 requests that arrive together and exceed the quota, exactly those that fit are admitted.
func TestParallelRequestsOnAQuota(t *testing.T) {
	t.Parallel()
	const requests, fit, answerTokens = 200, 37, 64
	sim := startSim(t)
	body := []byte(mustJSON(prompt(script(map[string]any{
		"hold": "all", "text": "done", "usage": map[string]int64{"input_tokens": 1, "output_tokens": answerTokens},
	}))))
	// A request reserves its prompt at three bytes a token, and max_tokens for its answer (docs/quotas.md).
	reservation := int64(len(body)+2)/3 + answerTokens
	g := startServe(t, sim.url, fit*reservation+reservation/2)

	var mu sync.Mutex
	count := map[int]int{}
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			r := g.raw(t, body)
			mu.Lock()
			defer mu.Unlock()
			count[r.status]++
			if r.status == http.StatusTooManyRequests && (r.header.Get("Retry-After") == "" || len(r.header.Get("Retry-After")) > 2) {
				t.Errorf("refused with retry-after %q, want a few seconds", r.header.Get("Retry-After"))
			}
		})
	}
	eventually(t, callPatience, "all others have been refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return count[http.StatusTooManyRequests] >= requests-fit
	})
	eventually(t, callPatience, "the admitted ones wait at the upstream", func() bool { return len(sim.requests(0)) >= fit })
	if n := len(sim.requests(0)); n != fit {
		t.Errorf("%d requests reached the upstream, want %d", n, fit)
	}
	if r := call(t, http.MethodGet, fmt.Sprintf("%s/__sim/wait?held=%d&timeout_ms=20000", sim.url, fit), nil, nil); r.status != http.StatusOK {
		t.Errorf("not all are held: %s", r.body)
	}
	if r := call(t, http.MethodPost, sim.url+"/__sim/release?name=all", nil, nil); r.status != http.StatusOK {
		t.Errorf("release: status %d", r.status)
	}
	all.Wait()
	if count[http.StatusOK] != fit || count[http.StatusTooManyRequests] != requests-fit {
		t.Errorf("answers by status: %v, want %d admitted", count, fit)
	}
	if used := g.account().Quota.Daily.Used; used != fit*(1+answerTokens) {
		t.Errorf("used %d tokens, want what the admitted ones really used: %d", used, fit*(1+answerTokens))
	}
}

// raw posts a body to /v1/messages as it is.
func (g *gateway) raw(t testing.TB, body []byte) response {
	t.Helper()
	return call(t, http.MethodPost, g.url+"/v1/messages", g.header(), body)
}

// TestClientGoesAway: its upstream request is cancelled, and the books say so.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	body := prompt(script(map[string]any{"events": 1000, "every_ms": 50}))
	body["stream"] = true
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/messages", strings.NewReader(mustJSON(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = g.header()
	resp, err := client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 300)); err != nil {
		t.Fatal(err)
	}
	leave()
	if got := sim.finished(0, 1); !got[0].ClientGone {
		t.Errorf("the upstream's answer was not cancelled: %+v", got[0])
	}
	e := g.settled(1).Rows[0]
	if e.Outcome != "canceled" || e.InputTokens+e.CacheWrite5m+e.CacheReadTokens <= 0 || e.ResponseBytes <= 0 {
		t.Errorf("entry: outcome %s, %d input tokens, %d bytes", e.Outcome, e.InputTokens, e.ResponseBytes)
	}
}

// TestNothingSecretIsKept: neither the key nor the upstream's credential nor a word of the conversation is in the data folder
// or in the log.
func TestNothingSecretIsKept(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	const word = "confidential-prompt-word"
	body := prompt(word + " " + script(map[string]any{"text": "confidential-answer-word", "tool": "one", "input": map[string]any{"secret": "confidential-input"}}))
	body["tools"] = []any{map[string]any{"name": "one", "input_schema": map[string]any{"type": "object"}}}
	if r := g.messages(body); r.status != http.StatusOK {
		t.Fatalf("status %d\n%s", r.status, r.body)
	}
	if r := g.messages(prompt(word + script(map[string]any{"status": 400, "message": "confidential-error-word"}))); r.status != http.StatusBadRequest {
		t.Fatalf("status %d", r.status)
	}
	if r := g.raw(t, []byte(`{"model": "`+word+`", "model": 1, "messages": "`+word)); r.status != http.StatusBadRequest {
		t.Fatalf("status %d\n%s", r.status, r.body)
	}
	g.settled(2)
	g.proc.terminate()

	kept := map[string]string{"the log": g.proc.stderr.String(), "standard output": g.proc.stdout.String()}
	err := filepath.WalkDir(g.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		kept[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) < 4 {
		t.Errorf("only %d places searched", len(kept))
	}
	for place, content := range kept {
		for _, secret := range []string{g.key, simKey, "confidential"} {
			if strings.Contains(content, secret) {
				t.Errorf("%s holds %q", place, secret)
			}
		}
	}
}

// TestTLS: with a certificate the server speaks HTTPS, HTTP/1.1 as the CLI wants it and HTTP/2 to whoever offers it.
func TestTLS(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	roots := certificate(t, dir)
	g := serveIn(t, dir, sim.url, -1)
	g.proc.terminate()
	// The second start has the same resources, and TLS besides.
	config, err := os.ReadFile(filepath.Join(dir, "carpool.yml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "carpool.yml"), strings.Replace(string(config), "drainTimeout: 5s",
		"drainTimeout: 5s, tls: {certFile: cert.pem, keyFile: key.pem}", 1))
	p := start(t, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), binary, "serve", "--config", "carpool.yml")
	g = &gateway{t: t, proc: p, data: g.data, key: g.key, url: p.line(p.stderr, "its address", serving)}

	for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(proto, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2}
			defer transport.CloseIdleConnections()
			body := prompt(script(map[string]any{"text": multibyte, "events": 12}))
			body["stream"] = true
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/v1/messages", strings.NewReader(mustJSON(body)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = g.header()
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			list := sim.requests(0)
			if err != nil || resp.Proto != proto || sum(got) != list[len(list)-1].ResponseSHA256 {
				t.Errorf("%s, status %d, %d bytes, %v", resp.Proto, resp.StatusCode, len(got), err)
			}
		})
	}
}

// certificate writes cert.pem and key.pem for 127.0.0.1, and returns what trusts them.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, filepath.Join(dir, "cert.pem"), string(cert))
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// TestPathsOfTheDataPlane: what a CLI may ask for beside messages, also under a doubled prefix, and the rest.
func TestPathsOfTheDataPlane(t *testing.T) {
	t.Parallel()
	g := startDemo(t)
	if u, err := url.Parse(g.url); err != nil || u.Path != "" {
		t.Fatalf("base URL %s", g.url)
	}
	count := mustJSON(map[string]any{"model": "claude-sonnet-4-5", "messages": prompt("count me")["messages"]})
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/messages?beta=true", mustJSON(prompt("x")), 200},
		{"POST", "/v1/v1/messages?beta=true", mustJSON(prompt("x")), 200},
		{"POST", "/v1/messages/count_tokens?beta=true", count, 200},
		{"POST", "/v1/v1/messages/count_tokens", count, 200},
		{"GET", "/v1/models?limit=1000", "", 200},
		{"GET", "/v1/v1/models", "", 200},
		{"HEAD", "/", "", 200},
		{"HEAD", "/api/hello", "", 200},
		{"GET", "/live", "", 200},
		{"GET", "/ready", "", 200},
		{"POST", "/v1/nothing", "{}", 404},
		{"GET", "/v1/messages", "", 405},
	} {
		t.Run(fmt.Sprintf("%s %s", test.method, test.path), func(t *testing.T) {
			r := call(t, test.method, g.url+test.path, g.header(), []byte(test.body))
			if r.status != test.status {
				t.Fatalf("status %d, want %d\n%s", r.status, test.status, r.body)
			}
			if r.status >= 400 {
				apiError(t, r)
			}
		})
	}
	// Product telemetry comes without a credential and is swallowed.
	if r := call(t, "POST", g.url+"/api/event_logging/batch", http.Header{"Content-Type": {"application/json"}}, []byte(`{"events":[]}`)); r.status >= 300 {
		t.Errorf("telemetry: status %d", r.status)
	}
}

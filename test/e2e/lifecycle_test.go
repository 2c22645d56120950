package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// configured starts `carpool serve` on dir with further settings of the section server; alice's daily quota is not limited.
func configured(t testing.TB, dir, upstream, server string, more ...string) *gateway {
	t.Helper()
	return running(t, binary, dir, upstream, server, more...)
}

// measured is configured for tests that look at the server's memory.
func measured(t testing.TB, upstream, server string) *gateway {
	t.Helper()
	return running(t, lean, t.TempDir(), upstream, server)
}

func running(t testing.TB, program, dir, upstream, server string, more ...string) *gateway {
	t.Helper()
	write(t, filepath.Join(dir, "resources.yml"), resourcesFor(upstream, -1))
	write(t, filepath.Join(dir, "carpool.yml"), configFor(dir, server, more...))
	p := start(t, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), program, "serve", "--config", "carpool.yml")
	return &gateway{
		t: t, proc: p, data: filepath.Join(dir, "data"), key: newKey("alice"),
		url: p.line(p.stderr, "its address", serving),
	}
}

func resourcesFor(upstream string, daily int) string {
	return fmt.Sprintf(`upstreams:
  - {name: main, provider: anthropic, baseUrl: %q, apiKeyEnv: E2E_UPSTREAM_KEY}
routes:
  - {name: default, models: ["*"], upstreams: [main]}
users:
  - {name: alice, team: platform, quota: {daily: %d, monthly: -1}, limits: {inFlight: 100000}}
keys:
  - {name: alice-laptop, user: alice, key: %s, limits: {inFlight: 0}}
`, upstream, daily, newKey("alice"))
}

func configFor(dir, server string, more ...string) string {
	return fmt.Sprintf("server: {host: 127.0.0.1, port: 0, %s}\nmetrics: {listen: main}\nlog: {format: json}\ndataDir: %q\nresources: resources.yml\n%s\n",
		server, filepath.Join(dir, "data"), strings.Join(more, "\n"))
}

// metric returns the value of a series, as it stands in the exposition; -1 when there is none.
func (g *gateway) metric(series string) float64 {
	g.t.Helper()
	r := call(g.t, http.MethodGet, g.url+"/metrics", nil, nil)
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(r.body)
	if m == nil {
		return -1
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

const (
	reloadSuccess = `carpool_config_reloads_total{result="success"}`
	reloadFailure = `carpool_config_reloads_total{result="failure"}`
)

func (g *gateway) reaches(series string, want float64) {
	g.t.Helper()
	eventually(g.t, callPatience, fmt.Sprintf("%s is %v", series, want), func() bool { return g.metric(series) >= want })
}

// logged waits for a line of the log.
func (g *gateway) logged(what string, match func(msg string, line map[string]any) bool) {
	g.t.Helper()
	g.proc.line(g.proc.stderr, what, func(text string) (string, bool) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) != nil {
			return "", false
		}
		msg, _ := line["msg"].(string)
		return text, match(msg, line)
	})
}

// TestReload: a change of a file is noticed without a signal, in whatever way it is made; what is wrong changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := configured(t, dir, sim.url, "drainTimeout: 5s")
	config, resources := filepath.Join(dir, "carpool.yml"), filepath.Join(dir, "resources.yml")
	if r := g.messages(prompt("before")); r.status != http.StatusOK {
		t.Fatalf("status %d\n%s", r.status, r.body)
	}

	write(t, resources, resourcesFor(sim.url, 1)) // as with `cat >`
	g.reaches(reloadSuccess, 1)
	if r := g.messages(prompt("refused")); r.status != http.StatusTooManyRequests {
		t.Errorf("with a spent quota: status %d\n%s", r.status, r.body)
	}
	good := g.metric("carpool_config_last_reload_success_timestamp_seconds")

	write(t, resources, "users:\n  - {name: alice, quota: {daily: many}}\n")
	g.reaches(reloadFailure, 1)
	write(t, config, "server: {prot: 1}\n")
	g.reaches(reloadFailure, 2)
	if r := g.messages(prompt("refused")); r.status != http.StatusTooManyRequests {
		t.Errorf("with a wrong configuration: status %d\n%s", r.status, r.body)
	}
	if at := g.metric("carpool_config_last_reload_success_timestamp_seconds"); at != good {
		t.Errorf("the time of the last success went from %v to %v", good, at)
	}
	g.logged("a complaint that names the wrong key", func(msg string, line map[string]any) bool {
		return msg == "the configuration in force stays" && strings.Contains(fmt.Sprint(line["error"]), "prot")
	})

	write(t, resources, resourcesFor(sim.url, -1))
	write(t, config+".new", configFor(dir, "drainTimeout: 6s, port: 1, idleTimeout: 1s", "log: {format: json, level: debug}"))
	// The doubled keys are wrong; then an editor's way: another file takes the place.
	if err := os.Rename(config+".new", config); err != nil {
		t.Fatal(err)
	}
	g.reaches(reloadFailure, 3)
	fixed := strings.Replace(configFor(dir, "drainTimeout: 6s, idleTimeout: 1s"), "{format: json}", "{format: json, level: debug}", 1)
	write(t, config+".new", fixed)
	if err := os.Rename(config+".new", config); err != nil {
		t.Fatal(err)
	}
	g.reaches(reloadSuccess, 2)
	if r := g.messages(prompt("after")); r.status != http.StatusOK {
		t.Errorf("with the quota raised: status %d\n%s", r.status, r.body)
	}
	g.logged("that a setting needs a restart", func(msg string, line map[string]any) bool {
		return msg == "a changed setting needs a restart" && line["setting"] == "server.idleTimeout"
	})
	call(t, http.MethodGet, g.url+"/live", nil, nil)
	g.logged("a line of level debug", func(_ string, line map[string]any) bool { return line["level"] == "DEBUG" && line["path"] == "/live" })
	if strings.Contains(g.proc.stderr.String(), `"setting":"server.drainTimeout"`) {
		t.Error("a setting that changes live is said to need a restart")
	}
	write(t, config, "# about to be written\n")
	g.reaches(reloadFailure, 4)
	write(t, config, fixed)
	write(t, resources, resourcesFor(sim.url, -1)+"  - {name: textless, user: alice}\n")
	g.reaches(reloadFailure, 5)
	g.logged("that a key has no text", func(_ string, line map[string]any) bool {
		return strings.Contains(fmt.Sprint(line["error"]), `key "textless"`)
	})
	if strings.Contains(g.proc.stderr.String(), "cpk_") {
		t.Error("the log shows a key")
	}
	write(t, resources, resourcesFor(sim.url, -1))
	g.reaches(reloadSuccess, 3)
	before := g.metric(reloadSuccess)
	g.proc.signal(syscall.SIGHUP) // without any change
	g.reaches(reloadSuccess, before+1)
}

// TestReloadThroughLinks: Kubernetes mounts a configuration as links through a folder that it replaces.
func TestReloadThroughLinks(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	link := func(version string) {
		t.Helper()
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(version string, daily int) {
		t.Helper()
		write(t, filepath.Join(dir, version, "resources.yml"), resourcesFor(sim.url, daily))
		write(t, filepath.Join(dir, version, "carpool.yml"), configFor(dir, "drainTimeout: 5s"))
		link(version)
	}
	publish("..v1", -1)
	for _, name := range []string{"resources.yml", "carpool.yml"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), binary, "serve", "--config", "carpool.yml")
	g := &gateway{t: t, proc: p, data: filepath.Join(dir, "data"), key: newKey("alice"), url: p.line(p.stderr, "its address", serving)}
	for i, daily := range []int{0, -1, 0} {
		publish(fmt.Sprintf("..v%d", i+2), daily)
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..v%d", i+1))); err != nil {
			t.Fatal(err)
		}
		g.reaches(reloadSuccess, float64(i+1))
		want := http.StatusOK
		if daily == 0 {
			want = http.StatusTooManyRequests
		}
		if r := g.messages(prompt("x")); r.status != want {
			t.Errorf("version %d: status %d, want %d", i+2, r.status, want)
		}
	}
}

// TestReloadOfCertificate: a new certificate is served to new connections; a broken one is not.
func TestReloadOfCertificate(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	first := certificate(t, dir)
	g := configured(t, dir, sim.url, "drainTimeout: 5s, tls: {certFile: cert.pem, keyFile: key.pem}", "admin: {listen: '127.0.0.1:0'}")
	address := strings.TrimPrefix(g.url, "https://")
	trusts := func(roots *x509.CertPool) error {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := trusts(first); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n")
	g.logged("a complaint", func(msg string, line map[string]any) bool {
		return msg == "the configuration in force stays" && strings.Contains(fmt.Sprint(line["error"]), "certificate")
	})
	if err := trusts(first); err != nil {
		t.Errorf("a broken certificate took the place of the good one: %v", err)
	}
	second := certificate(t, dir)
	eventually(t, callPatience, "the new certificate is served", func() bool { return trusts(second) == nil })
	if trusts(first) == nil {
		t.Error("the old certificate is still served")
	}
}

// TestReloadsUnderLoad: 500 reloads, every second one invalid, and no request fails.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	const reloads, clients = 500, 8
	sim, dir := startSim(t), t.TempDir()
	g := configured(t, dir, sim.url, "drainTimeout: 5s")
	ctx, stop := context.WithCancel(t.Context())
	var served atomic.Int64
	var load sync.WaitGroup
	http1 := &http.Transport{MaxIdleConnsPerHost: clients}
	defer http1.CloseIdleConnections()
	for range clients {
		load.Go(func() {
			for ctx.Err() == nil {
				if status, err := post(context.WithoutCancel(ctx), http1, g, mustJSON(prompt("x"))); err != nil || status != http.StatusOK {
					t.Errorf("status %d, %v", status, err)
					return
				}
				served.Add(1)
			}
		})
	}
	config := filepath.Join(dir, "carpool.yml")
	done := func() float64 { return g.metric(reloadSuccess) + g.metric(reloadFailure) }
	begun := time.Now()
	for i := range reloads {
		before := done()
		text := configFor(dir, fmt.Sprintf("drainTimeout: %dms", 5000+i), "organization: org-"+strconv.Itoa(i))
		if i%2 == 1 {
			text = text[:len(text)/2] // half-written
			text += "\nserver: ["
		}
		write(t, config, text)
		g.proc.signal(syscall.SIGHUP)
		deadline := time.Now().Add(callPatience)
		for done() <= before {
			if time.Now().After(deadline) {
				t.Fatalf("reload %d is not done", i)
			}
		}
	}
	took := time.Since(begun)
	stop()
	load.Wait()
	success, failure := g.metric(reloadSuccess), g.metric(reloadFailure)
	if success < reloads/2 || failure < reloads/2 {
		t.Errorf("%v reloads succeeded and %v failed, want %d each", success, failure, reloads/2)
	}
	t.Logf("%v + %v reloads in %v, %d requests served, none failed", success, failure, took.Round(time.Millisecond), served.Load())
}

// post sends a Messages request and reads its answer.
func post(ctx context.Context, transport http.RoundTripper, g *gateway, body string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/messages", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header = g.header()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// slowStream is the body of a request whose answer comes in events, every so often.
func slowStream(events, everyMS int) string {
	body := prompt(script(map[string]any{"text": strings.Repeat("word ", events), "events": events, "every_ms": everyMS}))
	body["stream"] = true
	return mustJSON(body)
}

// openStreams opens n streams and returns when the first bytes of all of them are there. end waits for all and returns how
// many came to their end, and how many were cut.
func openStreams(t *testing.T, g *gateway, n int, body string) (end func() (whole, cut int)) {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: -1}
	begun, ended := make(chan error, n), make(chan bool, n)
	for range n {
		go func() {
			r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, g.url+"/v1/messages", strings.NewReader(body))
			if err != nil {
				begun <- err
				return
			}
			r.Header = g.header()
			resp, err := transport.RoundTrip(r)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
			if err != nil {
				begun <- err
				return
			}
			defer resp.Body.Close()
			in := bufio.NewReader(resp.Body)
			_, err = in.Peek(1)
			begun <- err
			all, err := io.ReadAll(in)
			ended <- err == nil && strings.Contains(string(all), "message_stop")
		}()
	}
	for range n {
		if err := <-begun; err != nil {
			t.Fatal(err)
		}
	}
	return func() (whole, cut int) {
		for range n {
			if <-ended {
				whole++
			} else {
				cut++
			}
		}
		return whole, cut
	}
}

// TestDrainFinishesStreams: of 500 streams that are open at SIGTERM none is cut within the grace time.
func TestDrainFinishesStreams(t *testing.T) {
	t.Parallel()
	const streams = 500
	sim := startSim(t)
	g := configured(t, t.TempDir(), sim.url, "drainTimeout: 15s")
	end := openStreams(t, g, streams, slowStream(20, 250))
	told := time.Now()
	g.proc.signal(syscall.SIGTERM)
	eventually(t, callPatience, "new connections are refused", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	whole, cut := end()
	took := time.Since(told)
	g.proc.wait() // and status 0
	if whole != streams {
		t.Errorf("%d streams came to their end, %d were cut", whole, cut)
	}
	t.Logf("%d streams finished within %v of SIGTERM, the process ended %v after it", whole, took.Round(time.Millisecond), time.Since(told).Round(time.Millisecond))
}

// TestDrainCutsStreams: a stream that outlives the grace time is cut so that nobody takes it for complete, and has its entry.
func TestDrainCutsStreams(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := configured(t, dir, sim.url, "drainTimeout: 500ms")
	end := openStreams(t, g, 3, slowStream(600, 100))
	g.proc.terminate()
	if whole, cut := end(); cut != 3 {
		t.Errorf("%d streams were cut, %d look complete", cut, whole)
	}
	p := start(t, dir, plainEnv(dir, "E2E_UPSTREAM_KEY="+simKey), binary, "serve", "--config", "carpool.yml")
	g = &gateway{t: t, proc: p, data: g.data, key: g.key, url: p.line(p.stderr, "its address", serving)}
	for _, e := range g.settled(3).Rows {
		if e.Outcome != "cut" || e.InputTokens+e.CacheWrite5m+e.CacheReadTokens <= 0 {
			t.Errorf("outcome %s, %d input tokens", e.Outcome, e.InputTokens)
		}
	}
}

// TestDrainDelay: at first only the probes fail, so that a load balancer can look away in time.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := configured(t, t.TempDir(), sim.url, "drainTimeout: 5s, drainDelay: 2s")
	kept := &http.Transport{}
	defer kept.CloseIdleConnections()
	get := func(path string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := kept.RoundTrip(r)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return resp, err
	}
	if resp, err := get("/ready"); err != nil || resp.StatusCode != http.StatusOK || resp.Close {
		t.Fatalf("%v, %v", resp, err)
	}
	told := time.Now()
	g.proc.signal(syscall.SIGTERM)
	eventually(t, time.Second, "/ready fails and says that the connection ends", func() bool {
		resp, err := get("/ready")
		return err == nil && resp.StatusCode == http.StatusServiceUnavailable && resp.Close
	})
	for path, want := range map[string]int{"/health": 503, "/ready": 503, "/live": 200} {
		if resp, err := get(path); err != nil || resp.StatusCode != want || !resp.Close {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
	if r := g.messages(prompt("still served")); r.status != http.StatusOK {
		t.Errorf("status %d\n%s", r.status, r.body)
	}
	eventually(t, callPatience, "new connections are refused", func() bool {
		_, err := get("/live")
		return err != nil
	})
	if d := time.Since(told); d < 2*time.Second {
		t.Errorf("the door was closed after %v", d)
	}
	g.proc.wait()
}

// TestSecondSignal: who is in a hurry does not have to wait for the drain.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := configured(t, t.TempDir(), sim.url, "drainTimeout: 60s")
	end := openStreams(t, g, 1, slowStream(600, 100))
	g.proc.clean = func() bool { return g.proc.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM }
	g.proc.signal(syscall.SIGTERM)
	eventually(t, callPatience, "the drain has begun", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	g.proc.terminate()
	if _, cut := end(); cut != 1 {
		t.Error("the stream looks complete")
	}
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// program is a Carpool to measure.
type program struct{ name, path string }

// build compiles the program if its path is a source tree.
func (p program) build(ctx context.Context, dir string) (program, error) {
	path, err := filepath.Abs(p.path)
	if err != nil {
		return p, fmt.Errorf("carpool %s: %w", p.name, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return p, fmt.Errorf("carpool %s: %w", p.name, err)
	}
	if !info.IsDir() {
		return program{p.name, path}, nil
	}
	built := filepath.Join(dir, "carpool-"+p.name)
	cmd := exec.CommandContext(ctx, "go", "build", "-C", path, "-o", built, "./cmd/carpool")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("cannot build carpool from %s: %w\n%s", path, err, out)
	}
	return program{p.name, built}, nil
}

// command configures a Carpool with everything on that a request can pass, and limits that none can reach.
func (p program) command(at place) ([]string, error) {
	_, port, err := net.SplitHostPort(at.listen)
	if err != nil {
		return nil, fmt.Errorf("cannot configure carpool: %w", err)
	}
	const limits = "{requestsPerMinute: 1000000000, tokensPerMinute: 1000000000, inFlight: 1000000000}"
	if _, err := at.write("resources.yml", fmt.Sprintf(`
teams: [{name: platform, limits: %[1]s}]
upstreams: [{name: main, baseUrl: "http://%[2]s", apiKeyEnv: BENCH_UPSTREAM_KEY}]
routes: [{name: default, models: ["*"], upstreams: [main]}]
users: [{name: alice, team: platform, quota: {daily: 1000000000000000, monthly: 1000000000000000}, limits: %[1]s}]
keys: [{name: laptop, user: alice, key: %[3]s, limits: %[1]s}]
%[4]s`, limits, at.upstream, key, p.budgets())); err != nil {
		return nil, err
	}
	path, err := at.write("carpool.yml", fmt.Sprintf(`
server: {host: 127.0.0.1, port: %s, maxConnections: %d, drainTimeout: 2s}
dataDir: data
resources: resources.yml
metrics: {listen: main}
log: {file: carpool.log, format: json}
claudeCode: {requireClient: warn, minVersion: 1.0.0, quotaFormula: {input: 1, output: 1, cacheRead: 0.1, cacheWrite: 1.25}}
`, port, at.connections()))
	return []string{p.path, "serve", "--config", path}, err
}

// budgets are budgets of every kind that none can reach. A Carpool from before there were any has none.
func (p program) budgets() string {
	if help, err := exec.Command(p.path, "--help").Output(); err != nil || !bytes.Contains(help, []byte("  budget ")) {
		return ""
	}
	return `budgets:
  - {name: everybody, scope: organization, amount: 1000000000 USD, window: month}
  - {name: platform, scope: team/platform, amount: 1000000000 USD, window: day, rolling: true}
  - {name: alice, scope: user/alice, amount: 1000000000 USD, window: day, mode: strict}
  - {name: laptop, scope: key/laptop, amount: 1000000000000 tokens, window: lifetime}
`
}

// booked is how many entries Carpool's ledger has.
func (x *proxy) booked(ctx context.Context) (int64, error) {
	var usage struct {
		Totals struct {
			Requests int64 `json:"requests"`
		} `json:"totals"`
	}
	err := x.get(ctx, "/v1/usage", &usage)
	return usage.Totals.Requests, err
}

// settled waits until the ledger has as many entries as requests were sent, and returns how many it has.
func (x *proxy) settled(ctx context.Context, sent int64) (int64, error) {
	for deadline := time.Now().Add(5 * time.Second); ; pause(ctx, 50*time.Millisecond) {
		n, err := x.booked(ctx)
		if err != nil || n == sent || time.Now().After(deadline) {
			return n, err
		}
	}
}

// get asks Carpool something.
func (x *proxy) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.address+path, nil)
	if err != nil {
		return fmt.Errorf("cannot ask for %s: %w", path, err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("cannot ask for %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	return nil
}

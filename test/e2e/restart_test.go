package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// account is the answer of GET /v1/user.
type account struct {
	Quota struct {
		Daily, Monthly window
	} `json:"quota"`
}

type window struct {
	Limit     *int64    `json:"limit"`
	Used      int64     `json:"used"`
	Remaining *int64    `json:"remaining"`
	ResetsAt  time.Time `json:"resets_at"`
}

func (g *gateway) account() account {
	g.t.Helper()
	var a account
	getJSON(g.t, g.url+"/v1/user", http.Header{"X-Api-Key": {g.key}}, &a)
	return a
}

// TestRestart: users, keys, counters and entries survive a stop and a crash, and a quota spent before is still spent.
func TestRestart(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*process){
		"terminated": (*process).terminate,
		"killed":     (*process).kill,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, dir := startSim(t), t.TempDir()
			g := serveIn(t, dir, sim.url, 2000)

			var made struct {
				Key string `json:"key"`
			}
			g.must("user", "add", "bob", "--daily", "1000")
			g.decode(&made, "key", "add", "bob-laptop", "--user", "bob")
			if !strings.HasPrefix(made.Key, "cpk_") {
				t.Fatalf("the new key is %q", made.Key)
			}
			g.spend(1500)
			bob := *g
			bob.key = made.Key
			bob.spend(1100)
			before, bobBefore, books := g.account(), bob.account(), g.settled(2)
			if before.Quota.Daily.Used < 1500 || bobBefore.Quota.Daily.Used < 1100 {
				t.Fatalf("used before the restart: alice %d, bob %d", before.Quota.Daily.Used, bobBefore.Quota.Daily.Used)
			}

			stop(g.proc)
			g = serveIn(t, dir, sim.url, 2000)
			bob.url, bob.proc = g.url, g.proc

			if after := g.account(); after.Quota.Daily.Used != before.Quota.Daily.Used || after.Quota.Monthly.Used != before.Quota.Monthly.Used {
				t.Errorf("alice had used %+v, after the restart %+v", before.Quota, after.Quota)
			}
			if again := g.books(); fmt.Sprint(again) != fmt.Sprint(books) {
				t.Errorf("the books changed\nbefore: %+v\nafter:  %+v", books, again)
			}
			if r := bob.messages(prompt("more")); r.status != http.StatusTooManyRequests {
				t.Errorf("bob's spent quota: status %d\n%s", r.status, r.body)
			}
			g.spend(400)
			if used := g.account().Quota.Daily.Used; used < before.Quota.Daily.Used+400 {
				t.Errorf("alice has used %d, want %d more than %d", used, 400, before.Quota.Daily.Used)
			}

			g.must("quota", "reset", "bob")
			if r := bob.messages(prompt("more")); r.status != http.StatusOK {
				t.Errorf("after the reset: status %d\n%s", r.status, r.body)
			}
		})
	}
}

// TestPortInUse: the second server on a port says so in one line and leaves the first alone.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	address := taken.Addr().String()
	_, number, _ := net.SplitHostPort(address)
	dir := t.TempDir()
	write(t, dir+"/carpool.yml", "server: {host: 127.0.0.1, port: "+number+"}\nmetrics: {listen: main}\ndataDir: data\n")
	for _, args := range [][]string{
		{"demo", "--listen", address, "--data", dir + "/demo"},
		{"serve", "--config", dir + "/carpool.yml"},
		{"sim", "--listen", address},
	} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			r := runProgram(t, callPatience, dir, plainEnv(dir), nil, binary, args...)
			var said []string
			for _, line := range nonEmptyLines(r.stderr) {
				if strings.HasPrefix(line, "carpool: ") {
					said = append(said, line)
				}
			}
			told := len(said) == 1 && strings.Contains(said[0], address) &&
				(strings.Contains(said[0], "in use") || strings.Contains(said[0], "uses this port"))
			if r.code == 0 || !told {
				t.Errorf("exit status %d, standard error:\n%s", r.code, r.stderr)
			}
			if r.stdout != "" {
				t.Errorf("standard output: %s", r.stdout)
			}
		})
	}
}

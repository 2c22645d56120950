package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// budgetState is the answer of `carpool budget show --output json`.
type budgetState struct {
	State []struct {
		Used      int64 `json:"used"`
		Reserved  int64 `json:"reserved"`
		Remaining int64 `json:"remaining"`
	} `json:"state"`
}

// TestStrictBudgetUnderAHerd: of 200 requests at once exactly those are admitted for which there is room. Then the server is killed
// with requests in flight: nothing stays reserved, and the budget has used what the books say.
func TestStrictBudgetUnderAHerd(t *testing.T) {
	t.Parallel()
	const requests, room = 200, 13
	sim, dir := startSim(t), t.TempDir()
	g := configured(t, dir, sim.url, "drainTimeout: 5s", "claudeCode: {systemPrompt: 'off'}")
	body := []byte(mustJSON(prompt(script(object{"hold": "budget"}))))
	most := int64(len(body)) + 1024 + 64
	amount := room*most + most/2
	g.must("budget", "add", "alice-day", "--scope", "user/alice", "--amount", fmt.Sprintf("%d tokens", amount), "--window", "month", "--mode", "strict", "--message", "Ask Carol.")

	var mu sync.Mutex
	var served, busy int
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			r := g.raw(t, body)
			mu.Lock()
			defer mu.Unlock()
			switch r.status {
			case http.StatusOK:
				served++
			case http.StatusTooManyRequests:
				busy++
			default:
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	eventually(t, callPatience, "all others have been refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return busy >= requests-room
	})
	waitSim(t, sim, fmt.Sprintf("held=%d", room), callPatience)
	release := func() {
		t.Helper()
		if r := call(t, http.MethodPost, sim.url+"/__sim/release?name=budget", nil, nil); r.status != http.StatusOK {
			t.Fatalf("release: status %d", r.status)
		}
	}
	release()
	all.Wait()
	if served != room {
		t.Errorf("%d were served, want %d", served, room)
	}
	b := g.settled(room)
	spent := func(b books) int64 { return b.Totals.InputTokens + b.Totals.OutputTokens + b.Totals.CacheReadTokens }
	state := func(g *gateway) (s budgetState) {
		t.Helper()
		g.decode(&s, "budget", "show", "alice-day")
		return s
	}
	if s := state(g).State[0]; s.Used != spent(b) || s.Used > amount || s.Reserved != 0 || s.Remaining != amount-s.Used {
		t.Errorf("%+v, and the books say %d of %d", s, spent(b), amount)
	}

	const flying = 3
	address, header := g.url, g.header()
	for range flying {
		all.Go(func() { postMessages(t, address, header, body) }) // breaks off
	}
	waitSim(t, sim, fmt.Sprintf("held=%d", flying), callPatience)
	if s := state(g).State[0]; s.Reserved != flying*most {
		t.Errorf("%d requests hold %d, want %d", flying, s.Reserved, flying*most)
	}
	g.proc.kill()
	all.Wait()
	release()
	g = configured(t, dir, sim.url, "drainTimeout: 5s", "claudeCode: {systemPrompt: 'off'}")
	b = g.settled(room + flying)
	if s := state(g).State[0]; s.Used != spent(b) || s.Reserved != 0 {
		t.Errorf("after a crash %+v, and the books say %d", s, spent(b))
	}

	g.must("budget", "set", "alice-day", "--amount", "1 tokens")
	r := g.raw(t, body)
	kind, message := apiErrorOf(r)
	if r.status != http.StatusTooManyRequests || kind != "billing_error" || !strings.Contains(message, "budget alice-day of user/alice") || !strings.HasSuffix(message, "Ask Carol.") {
		t.Errorf("%d %s: %s", r.status, kind, message)
	}
}

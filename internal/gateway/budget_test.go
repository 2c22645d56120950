package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
)

func withBudgets(specs ...policy.BudgetSpec) func(*policy.Document) {
	return func(d *policy.Document) { d.Budgets = specs }
}

func aliceHas(amount, window, mode string) policy.BudgetSpec {
	return policy.BudgetSpec{Name: "alice-" + window, Scope: "user/alice", Amount: amount, Window: window, Mode: mode}
}

// used is what the books say of a budget.
func (r *rig) used(name string) (used, reserved int64) {
	r.t.Helper()
	for _, b := range r.snapshot.Load().Budgets() {
		if b.Name == name {
			use := r.ledger.Budget(b)[0]
			return use.Used, use.Reserved
		}
	}
	r.t.Fatalf("there is no budget %s", name)
	return 0, 0
}

// herd sends requests at once to a server whose upstream answers when all others are refused. It returns how many were admitted.
func herd(t *testing.T, requests, room int, budget policy.BudgetSpec) (*rig, int) {
	t.Helper()
	var admitted, refused atomic.Int64
	release := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		select {
		case <-release:
		case <-time.After(10 * time.Second): // not as many are refused as should be
		}
		answerPlain(w, q)
	}, withBudgets(budget))
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			switch a := r.post(plainRequest); a.status {
			case 200:
				admitted.Add(1)
			case 429:
				if n := refused.Add(1); n == int64(requests-room) {
					close(release)
				}
			default:
				t.Errorf("%d %s %v", a.status, a.body, a.err)
			}
		})
	}
	all.Wait()
	return r, int(admitted.Load())
}

// mostTokens is what plainRequest reserves of a strict budget of tokens.
func mostTokens() int64 {
	peek, err := anthropic.Peek([]byte(plainRequest))
	if err != nil {
		panic(err)
	}
	return peek.Measure([]byte(plainRequest)).Prompt + int64(len("You are Claude Code.")) + 100
}

// TestStrictBudgetAdmitsExactlyWhatFits: 200 requests at once on a real server.
func TestStrictBudgetAdmitsExactlyWhatFits(t *testing.T) {
	const room = 23
	budget := aliceHas(fmt.Sprintf("%d tokens", room*mostTokens()+mostTokens()-1), "day", "strict")
	r, admitted := herd(t, 200, room, budget)
	if admitted != room {
		t.Errorf("%d admitted, want %d", admitted, room)
	}
	r.entries(room)
	if used, reserved := r.used("alice-day"); used != room*27 || reserved != 0 {
		t.Errorf("%d used, %d reserved", used, reserved)
	}
}

// However much a request asks for, it does not come out as less than nothing.
func TestStrictBudgetRefusesWhateverIsTooMuch(t *testing.T) {
	for _, amount := range []string{"5000 tokens", "50 USD"} {
		r := newRig(t, answerPlain, withBudgets(aliceHas(amount, "day", "strict")))
		for _, n := range []string{"100000000", "9223372036854775000", "9223372036854775807"} {
			a := r.post(strings.Replace(plainRequest, `"max_tokens":100`, `"max_tokens":`+n, 1))
			if used, reserved := r.used("alice-day"); a.status != 429 || !strings.Contains(a.body, "more than all of it") || used != 0 || reserved != 0 {
				t.Errorf("max_tokens %s of %s: %d %s; %d used, %d reserved", n, amount, a.status, a.body, used, reserved)
			}
		}
		if a := r.post(plainRequest); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

// A strict budget of dollars reserves a token for each byte and all of max_tokens, at the dearest upstream's price.
func TestStrictBudgetInDollars(t *testing.T) {
	for _, room := range []int{1, 7} {
		// claude-opus-5-5 is 4 $ and 20 $ a million; a byte may be written to the cache for 1.25 times that. The US costs a tenth more.
		most := ((mostTokens()-100)*5*11 + 100*20*11 + 9) / 10
		r, admitted := herd(t, 40, room, aliceHas(policy.FormatAmount(int64(room)*most, policy.Dollars), "week", "strict"))
		if admitted != room {
			t.Errorf("%d admitted, want %d", admitted, room)
		}
		var cost int64
		for _, e := range r.entries(room) {
			cost += e.Cost
		}
		if used, reserved := r.used("alice-week"); reserved != 0 || used != cost || used == 0 || used > int64(room)*most {
			t.Errorf("%d used, %d reserved; the entries cost %d of %d", used, reserved, cost, int64(room)*most)
		}
	}
}

// TestFairBudgetKeepsItsBound: what is used beyond the amount is at most what the requests in flight used beyond their reservations.
func TestFairBudgetKeepsItsBound(t *testing.T) {
	answerOf := func(tokens int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, strings.Replace(plainAnswer, `"output_tokens":5`, `"output_tokens":`+strconv.Itoa(tokens), 1))
		}
	}
	r := newRig(t, answerOf(78), withBudgets(aliceHas("2000 tokens", "day", "")))
	if a := r.post(plainRequest); a.status != 200 { // 100 tokens in all
		t.Fatalf("%d %s", a.status, a.body)
	}
	// Answers become ten times as long as the habits let expect, and all that are admitted run at the same time.
	var running, refused atomic.Int64
	release := make(chan struct{})
	r.upstream.answer = func(w http.ResponseWriter, q *http.Request) {
		running.Add(1)
		<-release
		answerOf(978)(w, q)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if a := r.post(plainRequest); a.status == 429 {
				refused.Add(1)
			}
		})
	}
	waitFor(t, "each to run or to be refused", func() bool { return running.Load()+refused.Load() == 100 })
	n := running.Load()
	used, reserved := r.used("alice-day")
	if used != 100 || used+reserved > 2000 || n < 2 || refused.Load() == 0 {
		t.Errorf("%d run with %d used and %d reserved", n, used, reserved)
	}
	close(release)
	all.Wait()
	beyond := 1000*n - reserved // what they used and had not reserved
	if used, left := r.used("alice-day"); used != 100+1000*n || left != 0 || used > 2000+beyond {
		t.Errorf("%d used by %d requests, %d reserved; at most %d", used, n, left, 2000+beyond)
	}
	if a := r.post(plainRequest); a.status != 429 {
		t.Errorf("admitted over the amount: %d", a.status)
	}
}

// A fair budget learns what requests use: eight of them fit where by their size only one would.
func TestFairBudgetLearns(t *testing.T) {
	var running atomic.Int64
	release := make(chan struct{})
	slow := func(w http.ResponseWriter, q *http.Request) {
		if running.Add(1) > 3 {
			<-release
		}
		answerPlain(w, q)
	}
	r := newRig(t, slow, withBudgets(aliceHas("400 tokens", "day", "fair")))
	for range 3 {
		if a := r.post(plainRequest); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if a := r.post(plainRequest); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	waitFor(t, "eight requests at once", func() bool { return running.Load() == 11 })
	close(release)
	all.Wait()
}

// One long answer to a short prompt says nothing of the next prompt, and what it says of the next answer is forgotten when it refuses.
func TestFairBudgetForgivesALongAnswer(t *testing.T) {
	tokens := "64000"
	ask := func(max string, words int) string {
		return strings.NewReplacer(`"max_tokens":100`, `"max_tokens":`+max, "hello", strings.Repeat("hello ", words)).Replace(plainRequest)
	}
	for _, amount := range []string{"100000 tokens", "1.5 USD"} {
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, strings.Replace(plainAnswer, `"output_tokens":5`, `"output_tokens":`+tokens, 1))
		}, withBudgets(aliceHas(amount, "day", "")))
		tokens = "64000"
		if a := r.post(ask("128000", 1)); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		tokens = "5"
		if a := r.post(ask("4000", 8000)); a.status != 200 { // 48 KB, 16 000 tokens
			t.Errorf("%s: after a long answer no large prompt fits: %d %s", amount, a.status, a.body)
		}
		r.entries(2)
		tries := 1
		for r.post(ask("128000", 1)).status != 200 && tries < 20 {
			tries++
		}
		if tries == 1 || tries > 15 {
			t.Errorf("%s: after a long answer the next is admitted at the %dth attempt", amount, tries)
		}
	}
}

// No answer is longer than max_tokens and no prompt has more tokens than bytes, whatever a user's requests used before.
func TestFairBudgetExpectsNothingImpossible(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.NewReplacer(`"output_tokens":5`, `"output_tokens":100000`, `"input_tokens":12`, `"input_tokens":900000`).Replace(plainAnswer))
	}, withBudgets(aliceHas("1010000 tokens", "day", "")))
	if a := r.post(strings.Replace(plainRequest, `"max_tokens":100`, `"max_tokens":128000`, 1)); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := r.post(plainRequest); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestDenialByABudget(t *testing.T) {
	spec := aliceHas("30 tokens", "day", "")
	spec.Message = "Ask Carol."
	r := newRig(t, answerPlain, withBudgets(spec))
	first := r.post(plainRequest)
	for name, want := range map[string]string{
		"status": "allowed", "representative-claim": "overage", "overage-status": "allowed", "overage-utilization": "0.00",
		"overage-surpassed-threshold": "",
	} {
		if got := first.header.Get("anthropic-ratelimit-unified-" + name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	midnight := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	reset := strconv.FormatInt(midnight.Unix(), 10)
	if got := first.header.Get("anthropic-ratelimit-unified-reset"); got != reset {
		t.Errorf("resets at %s, want %s", got, reset)
	}
	a := r.post(plainRequest)
	want := `"type":"billing_error","message":"spend limit reached (budget alice-day of user/alice, day: 27 tokens of 30 tokens used, 3 tokens left; ` +
		`this request needs up to 27 tokens; resets ` + midnight.Format("2006-01-02 15:04") + ` UTC) Ask Carol."`
	if a.status != 429 || !strings.Contains(a.body, want) {
		t.Errorf("%d %s\nwant %s", a.status, a.body, want)
	}
	var unified []string
	for name := range a.header {
		if rest, ok := strings.CutPrefix(strings.ToLower(name), "anthropic-ratelimit-unified-"); ok {
			unified = append(unified, rest)
		}
	}
	if len(unified) != 7 {
		t.Errorf("%v", unified)
	}
	for name, want := range map[string]string{
		"x-should-retry": "false", "anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": reset,
		"anthropic-ratelimit-unified-overage-reset": reset, "anthropic-ratelimit-unified-overage-utilization": "1",
		"anthropic-ratelimit-unified-overage-surpassed-threshold": "1", "anthropic-ratelimit-unified-overage-period": "daily",
		"anthropic-ratelimit-unified-overage-disabled-reason": "org_spend_cap_reached",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	if left := int(time.Until(midnight).Seconds()); err != nil || wait < left || wait > left+10 {
		t.Errorf("retry-after %q, and midnight is in %d seconds", a.header.Get("Retry-After"), left)
	}
	if a := r.do(r.request("POST", "/v1/messages/count_tokens", plainRequest)); a.status != 200 {
		t.Errorf("counting tokens: %d %s", a.status, a.body)
	}
	if a := r.post(plainRequest, "X-Api-Key: "+bobKey); a.status != 200 || a.header.Get("anthropic-ratelimit-unified-status") != "" {
		t.Errorf("bob has no budget: %d %v", a.status, a.header)
	}
	const ratio = "# HELP carpool_budget_used_ratio Used part of a budget in its current window, of the first 500 budgets.\n" +
		"# TYPE carpool_budget_used_ratio gauge\ncarpool_budget_used_ratio{budget=\"alice-day\"} 0.9\n"
	if err := testutil.GatherAndCompare(r.registry, strings.NewReader(ratio), "carpool_budget_used_ratio"); err != nil {
		t.Error(err)
	}
}

func TestDenialsThatNoResetEnds(t *testing.T) {
	team := policy.BudgetSpec{Name: "pool", Scope: "team/platform", Amount: "20 tokens", Window: "lifetime", Mode: "strict"}
	r := newRig(t, answerPlain, withBudgets(team))
	a := r.post(plainRequest)
	for _, want := range []string{"budget pool of team/platform, lifetime: 0 tokens of 20 tokens used, 20 tokens left; this request can cost", "more than all of it; does not reset) Ask ops@example.com."} {
		if a.status != 429 || !strings.Contains(a.body, want) {
			t.Errorf("%d %s\nwant %s", a.status, a.body, want)
		}
	}
	if a.header.Get("Retry-After") != "" || a.header.Get("anthropic-ratelimit-unified-reset") != "" ||
		a.header.Get("anthropic-ratelimit-unified-overage-scope") != "group_pool" || a.header.Get("anthropic-ratelimit-unified-overage-period") != "monthly" {
		t.Errorf("%v", a.header)
	}
}

func TestWarnings(t *testing.T) {
	soft := aliceHas("20 tokens", "month", "")
	soft.Soft = true
	r := newRig(t, answerPlain, withBudgets(aliceHas("33 tokens", "day", ""), soft))
	r.post(plainRequest)
	r.change(func(d *policy.Document) { d.Budgets[0].Amount = "1000 tokens" })
	a := r.post(plainRequest) // the soft one is passed, and told of: it is the fullest
	for name, want := range map[string]string{"status": "allowed_warning", "overage-utilization": "0.99", "overage-surpassed-threshold": "0.95"} {
		if got := a.header.Get("anthropic-ratelimit-unified-" + name); a.status != 200 || got != want {
			t.Errorf("%d, %s: %q, want %q", a.status, name, got, want)
		}
	}
	if n := strings.Count(r.logs.String(), "a budget is used up to a threshold"); n != 2 {
		t.Errorf("%d warnings are logged:\n%s", n, r.logs.String())
	}
}

// TestFullestLimitIsToldOf: of the windows of the quota and the budgets it is the one of which most is used, and nothing without any.
func TestFullestLimitIsToldOf(t *testing.T) {
	const used = 17 // of the quota by a plain request; of a budget 27
	now := time.Now().UTC()
	midnight := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, time.UTC)
	month := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		why            string
		daily, monthly int64
		budget         string
		status, share  string
		resets         time.Time
	}{
		{"no limit", policy.Unlimited, policy.Unlimited, "", "", "", time.Time{}},
		{"a day's quota", used * 50, policy.Unlimited, "", "allowed", "0.02", midnight},
		{"a month's quota", policy.Unlimited, used * 50, "", "allowed", "0.02", month},
		{"the fuller of both", used * 50, used * 20, "", "allowed", "0.05", month},
		{"a budget that is fuller", used * 50, used * 20, "270 tokens", "allowed", "0.10", midnight},
		{"a budget that is not", used * 50, used * 20, "2700 tokens", "allowed", "0.05", month},
	} {
		t.Run(c.why, func(t *testing.T) {
			r := newRig(t, answerPlain, func(d *policy.Document) {
				d.Users[0].Quota = policy.Quota{Daily: c.daily, Monthly: c.monthly}
				if c.budget != "" {
					d.Budgets = []policy.BudgetSpec{aliceHas(c.budget, "day", "")}
				}
			})
			r.post(plainRequest)
			a, resets := r.post(plainRequest), ""
			if !c.resets.IsZero() {
				resets = strconv.FormatInt(c.resets.Unix(), 10)
			}
			for name, want := range map[string]string{"status": c.status, "overage-status": c.status, "overage-utilization": c.share, "reset": resets, "overage-reset": resets} {
				if got := a.header.Get("anthropic-ratelimit-unified-" + name); a.status != 200 || got != want {
					t.Errorf("%d, %s: %q, want %q", a.status, name, got, want)
				}
			}
			if a := r.do(r.request("POST", "/v1/messages/count_tokens", plainRequest)); a.status != 200 || a.header.Get("anthropic-ratelimit-unified-status") != "" {
				t.Errorf("counting tokens: %d %v", a.status, a.header)
			}
		})
	}
}

// Nobody can say what a request costs at most whose model the server runs as often as it likes.
func TestStrictBudgetRefusesWhatHasNoBound(t *testing.T) {
	r := newRig(t, answerPlain, withBudgets(aliceHas("1000 USD", "day", "strict")))
	body := strings.Replace(plainRequest, `"messages"`, `"tools":[{"type":"web_search_20250305","name":"web_search","max_uses":1}],"messages"`, 1)
	a := r.post(body)
	if a.status != 403 || !strings.Contains(a.body, "Budget alice-day is strict") || !strings.Contains(a.body, "web_search_20250305") || !strings.Contains(a.body, "Ask ops@example.com.") {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.change(func(d *policy.Document) { d.Budgets[0].Mode = "fair" })
	if a := r.post(body); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// What only warns refuses nothing, whatever its mode is.
func TestSoftBudgetThatIsStrict(t *testing.T) {
	soft := aliceHas("20 tokens", "day", "strict")
	soft.Soft = true
	r := newRig(t, answerPlain, withBudgets(soft))
	for _, tools := range []string{"", `"tools":[{"type":"web_search_20250305","name":"web_search"}],`} {
		for range 2 {
			if a := r.post(strings.Replace(plainRequest, `"messages"`, tools+`"messages"`, 1)); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
	}
	if n := strings.Count(r.logs.String(), "a budget is used up to a threshold"); n != 1 {
		t.Errorf("%d warnings are logged:\n%s", n, r.logs.String())
	}
}

func TestLimitsOfTheOrganisation(t *testing.T) {
	r := newRig(t, answerPlain, func(d *policy.Document) { d.Settings.Limits.RequestsPerMinute = 1 })
	if a := r.post(plainRequest); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := r.post(plainRequest, "X-Api-Key: "+bobKey); a.status != 429 || !strings.Contains(a.body, "The limit of organization example is 1 request a minute.") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

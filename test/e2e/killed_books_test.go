package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tokens are counts by the classes that have prices of their own.
type tokens struct{ input, output, cacheRead, write5m, write1h int64 }

func (a tokens) sum() int64 { return a.input + a.output + a.cacheRead + a.write5m + a.write1h }

func (a tokens) add(b tokens) tokens {
	return tokens{a.input + b.input, a.output + b.output, a.cacheRead + b.cacheRead, a.write5m + b.write5m, a.write1h + b.write1h}
}

func (a tokens) less(b tokens) tokens {
	return tokens{a.input - b.input, a.output - b.output, a.cacheRead - b.cacheRead, a.write5m - b.write5m, a.write1h - b.write1h}
}

func (a tokens) prompt() tokens { a.output = 0; return a }

// off is by how many tokens two counts differ.
func (a tokens) off(b tokens) int64 {
	d := a.less(b)
	return max(d.input, -d.input) + max(d.output, -d.output) + max(d.cacheRead, -d.cacheRead) + max(d.write5m, -d.write5m) + max(d.write1h, -d.write1h)
}

// cost is what they cost in micro-dollars, by the published prices of the three models of the load (docs/prices.md).
func (a tokens) cost(model string) int64 {
	input := map[string]int64{"claude-haiku-4-5": 1, "claude-sonnet-4-5": 3, "claude-opus-5": 5}[model] // micro-dollars a token
	hundredths := input * (100*a.input + 500*a.output + 10*a.cacheRead + 125*a.write5m + 200*a.write1h)
	return (hundredths + 50) / 100
}

// answered is what the simulator says of a request.
type answered struct {
	received
	Usage *struct {
		Input     int64 `json:"input_tokens"`
		Output    int64 `json:"output_tokens"`
		CacheRead int64 `json:"cache_read_input_tokens"`
		Creation  struct {
			FiveMinutes int64 `json:"ephemeral_5m_input_tokens"`
			OneHour     int64 `json:"ephemeral_1h_input_tokens"`
		} `json:"cache_creation"`
	} `json:"usage"`
}

func (a *answered) tokens() tokens {
	if a.Usage == nil {
		return tokens{}
	}
	return tokens{a.Usage.Input, a.Usage.Output, a.Usage.CacheRead, a.Usage.Creation.FiveMinutes, a.Usage.Creation.OneHour}
}

// booked is an entry with all that must be right in it.
type booked struct {
	entry
	Seq             int64  `json:"seq"`
	Team            string `json:"team"`
	ClientRequestID string `json:"clientRequestId"`
	Estimated       bool   `json:"estimated"`
	Unpriced        bool   `json:"unpriced"`
	Cost            int64  `json:"costMicroUsd"`
}

func (b *booked) tokens() tokens {
	return tokens{b.InputTokens, b.OutputTokens, b.CacheReadTokens, b.CacheWrite5m, b.CacheWrite1h}
}

// reconciliation holds what the three sides say of the requests: the clients, the simulator and the books. A request has the id
// that its client gave it on all of them.
type reconciliation struct {
	t        *testing.T
	sim      *simulator
	last     int64 // number of the simulator's request that was read last
	sent     map[string]*request
	upstream map[string][]answered
	entries  map[int64]booked // by number
	byID     map[string][]int64
	told     int // of what does not agree
}

func newReconciliation(t *testing.T, sim *simulator) *reconciliation {
	return &reconciliation{t: t, sim: sim, sent: map[string]*request{}, upstream: map[string][]answered{}, entries: map[int64]booked{}, byID: map[string][]int64{}}
}

// wrong tells what does not agree. What comes after the first dozen is more of the same.
func (r *reconciliation) wrong(format string, args ...any) {
	const most = 12
	if r.told++; r.told <= most {
		r.t.Errorf(format, args...)
	} else {
		r.t.Fail()
	}
}

func (r *reconciliation) asked(sent map[string]*request) {
	maps.Copy(r.sent, sent)
}

// receive waits until the simulator has nothing to do, and reads what it has been asked.
func (r *reconciliation) receive() {
	r.t.Helper()
	eventually(r.t, callPatience, "the simulator's requests have ended", func() bool {
		var c struct {
			InFlight int64 `json:"in_flight"`
		}
		getJSON(r.t, r.sim.url+"/__sim/counters", nil, &c)
		return c.InFlight == 0
	})
	var list struct{ Requests []answered }
	getJSON(r.t, fmt.Sprintf("%s/__sim/requests?since=%d", r.sim.url, r.last), nil, &list)
	for _, a := range list.Requests {
		if r.last++; a.Seq != r.last {
			r.t.Fatalf("the simulator has forgotten its request %d", r.last)
		}
		id := strings.Join(a.Header["X-Client-Request-Id"], ",")
		r.upstream[id] = append(r.upstream[id], a)
	}
}

// book takes entries in, which may be known: then they must be the same.
func (r *reconciliation) book(list []booked) {
	for _, b := range list {
		known, again := r.entries[b.Seq]
		switch {
		case !again:
			r.entries[b.Seq] = b
			r.byID[b.ClientRequestID] = append(r.byID[b.ClientRequestID], b.Seq)
		case mustJSON(known) != mustJSON(b):
			r.wrong("entry %d was %+v and is %+v", b.Seq, known, b)
		}
	}
}

// quota is what a user's entries since then count against the quota.
func (r *reconciliation) quota(user string, since time.Time) (sum int64) {
	for _, b := range r.entries {
		if b.User == user && !b.StartedAt.Before(since) {
			sum += b.QuotaTokens
		}
	}
	return sum
}

// spent is what entries count against a part of a budget.
func (r *reconciliation) spent(subject, unit string) (sum int64) {
	for _, b := range r.entries {
		if !slices.Contains([]string{"organization", "team/" + b.Team, "user/" + b.User, "key/" + b.KeyName}, subject) {
			continue
		}
		if sum += b.Cost; unit == "tokens" {
			sum += b.tokens().sum() - b.Cost
		}
	}
	return sum
}

// judgement is the result.
type judgement struct {
	sent, received, entries int
	complete                int // answers that a client saw to the end

	finished, crashed, cut, refused int // entries, by how the exchange ended
	denied                          int // by a budget
	unsent                          int // admitted, and killed before the upstream got it

	lost, doubled int
	drift         int64 // tokens of exchanges that are not estimated
	driftCost     int64 // of all, from what their tokens cost

	byKill, byOthers estimates // of exchanges that were cut short
}

// estimates are what is booked of exchanges of which not all was reported, and what the simulator says that they used.
type estimates struct {
	entries                int
	booked, actual         tokens
	bookedCost, actualCost int64
}

// judge compares everything.
func (r *reconciliation) judge() (j judgement) {
	j.sent, j.entries = len(r.sent), len(r.entries)
	exchanges := map[string]bool{}
	for _, b := range r.entries {
		exchanges[b.ID] = true
		if r.sent[b.ClientRequestID] == nil {
			r.wrong("nobody sent %+v", b)
		}
	}
	if n := len(r.entries) - len(exchanges); n > 0 {
		r.wrong("%d entries have the id of another", n)
		j.doubled += n
	}
	for id, list := range r.upstream {
		if j.received += len(list); r.sent[id] == nil {
			r.wrong("the simulator got %q, which nobody sent", id)
		}
	}
	for id, q := range r.sent {
		r.exchange(&j, id, q)
	}
	return j
}

// exchange compares what the three sides say of one request.
func (r *reconciliation) exchange(j *judgement, id string, q *request) {
	up, seqs := r.upstream[id], r.byID[id]
	if q.complete {
		j.complete++
	}
	if q.status == http.StatusTooManyRequests && q.user == "dave" {
		j.denied++
		if len(seqs)+len(up) > 0 {
			r.wrong("%s was denied, and has %d entries and %d upstream requests", id, len(seqs), len(up))
		}
		return
	}
	if q.status != 0 && q.status != http.StatusOK && q.refusal != "invalid_request_error" {
		r.wrong("%s (%s) was answered with %d %s", id, q.kind, q.status, q.refusal)
	}
	if len(seqs) > 1 || len(up) > 1 {
		j.doubled++
		r.wrong("%s (%s) has %d entries and %d upstream requests", id, q.kind, len(seqs), len(up))
		return
	}
	if len(seqs) == 0 {
		if len(up) > 0 || q.complete {
			j.lost++
			r.wrong("%s (%s) has no entry, and the simulator says %+v", id, q.kind, up)
		}
		return
	}
	b := r.entries[seqs[0]]
	var actual tokens
	switch {
	case len(up) == 1:
		actual = up[0].tokens()
	case q.complete || !slices.Contains([]string{"crashed", "canceled"}, b.Outcome):
		r.wrong("%s (%s) never reached the simulator, and its entry is %+v", id, q.kind, b)
	default:
		j.unsent++
	}
	r.outcome(j, id, q, &b, actual)
}

// outcome compares an entry with what the client saw, and with what the simulator says that it used.
func (r *reconciliation) outcome(j *judgement, id string, q *request, b *booked, actual tokens) {
	switch b.Outcome {
	case "finished":
		j.finished++
	case "crashed":
		j.crashed++
	case "cut", "canceled":
		j.cut++
	case "upstream_error":
		j.refused++
	default:
		r.wrong("%s (%s) is booked as %+v", id, q.kind, b)
	}
	if q.complete && b.Outcome != "finished" {
		j.lost++
		r.wrong("%s (%s) was seen to its end, and is booked as %+v", id, q.kind, b)
	}
	if b.Outcome == "crashed" && !b.Estimated || b.Outcome == "finished" && b.Estimated || b.Unpriced || b.User != q.user || b.ModelAsked != q.model {
		r.wrong("%s (%s of %s for %s) is booked as %+v", id, q.kind, q.user, q.model, b)
	}
	ours := b.tokens()
	if off := b.Cost - ours.cost(q.model); off != 0 {
		j.driftCost += max(off, -off)
		r.wrong("%s (%s) costs %d micro-dollars more than its tokens: %+v", id, q.kind, off, b)
	}
	if b.Estimated {
		e := &j.byOthers
		if b.Outcome == "crashed" {
			e = &j.byKill
		} else if b.Stream && ours.prompt() != actual.prompt() { // these streams break off after their begin, which says it
			r.wrong("%s (%s) had a prompt of %+v, and is booked as %+v", id, q.kind, actual, b)
		}
		e.entries++
		e.booked, e.actual = e.booked.add(ours), e.actual.add(actual)
		e.bookedCost, e.actualCost = e.bookedCost+b.Cost, e.actualCost+actual.cost(q.model)
		return
	}
	if ours != actual {
		j.drift += ours.off(actual)
		j.driftCost += max(b.Cost-actual.cost(q.model), actual.cost(q.model)-b.Cost)
		r.wrong("%s (%s) used %+v, and is booked as %+v", id, q.kind, actual, b)
	}
}

// reported lets the command line compare the books with the simulator's report of usage and costs, and returns by what they differ.
func (r *reconciliation) reported(g *gateway) (drift tokens) {
	r.t.Helper()
	key := filepath.Join(r.t.TempDir(), "admin.key")
	write(r.t, key, "sk-ant-admin01-sim\n")
	now := time.Now().UTC()
	var report struct {
		Rows []struct {
			Drift struct {
				Input     int64 `json:"inputTokens"`
				Output    int64 `json:"outputTokens"`
				CacheRead int64 `json:"cacheReadTokens"`
				Write5m   int64 `json:"cacheWrite5mTokens"`
				Write1h   int64 `json:"cacheWrite1hTokens"`
			}
		}
	}
	g.decode(&report, "reconcile", "--from", "API", "--api-url", r.sim.url, "--admin-key-file", key, "--tolerance", "100%",
		"--since", now.AddDate(0, 0, -1).Format(time.DateOnly), "--until", now.AddDate(0, 0, 2).Format(time.DateOnly))
	for _, row := range report.Rows {
		d := row.Drift
		drift = drift.add(tokens{d.Input, d.Output, d.CacheRead, d.Write5m, d.Write1h})
	}
	return drift
}

// estimated is by what the estimates differ from what the simulator says.
func (j judgement) estimated() tokens {
	return j.byKill.booked.less(j.byKill.actual).add(j.byOthers.booked.less(j.byOthers.actual))
}

func (j judgement) String() string {
	return fmt.Sprintf("%d sent, %d at the upstream, %d entries: %d finished, %d crashed, %d cut or left, %d refused; %d denied, %d unsent; lost %d, doubled %d, drift %d tokens, %d micro-dollars",
		j.sent, j.received, j.entries, j.finished, j.crashed, j.cut, j.refused, j.denied, j.unsent, j.lost, j.doubled, j.drift, j.driftCost)
}

// table is the result in full.
func (j judgement) table() string {
	var text strings.Builder
	for _, line := range []struct {
		name  string
		value any
	}{
		{"requests sent", j.sent},
		{"  refused for want of budget", j.denied},
		{"  received by the upstream", j.received},
		{"  seen complete by their clients", j.complete},
		{"entries", j.entries},
		{"  finished", j.finished},
		{"  cut by a kill", j.crashed},
		{"    of them never sent", j.unsent},
		{"  cut by the upstream or left by the client", j.cut},
		{"  refused by the upstream", j.refused},
		{"lost", j.lost},
		{"doubled", j.doubled},
		{"drift, tokens", j.drift},
		{"drift, micro-dollars", j.driftCost},
	} {
		fmt.Fprintf(&text, "%-45s %12v\n", line.name, line.value)
	}
	for _, of := range []struct {
		name string
		estimates
	}{{"cut by a kill", j.byKill}, {"cut by the upstream or left by the client", j.byOthers}} {
		fmt.Fprintf(&text, "estimates, %s: %d\n  booked:   %d tokens of prompts, %d of answers, %d micro-dollars\n  upstream: %d tokens of prompts, %d of answers, %d micro-dollars\n",
			of.name, of.entries, of.booked.prompt().sum(), of.booked.output, of.bookedCost, of.actual.prompt().sum(), of.actual.output, of.actualCost)
	}
	return text.String()
}

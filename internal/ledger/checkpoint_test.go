package ledger

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// seen is what an answer said at its beginning.
func seen() Entry {
	return Entry{
		ID: "not this one", Status: 200, FirstByte: 120, ModelSent: "claude-opus-5", ModelServed: "claude-opus-5", Upstream: "second",
		Provider: "anthropic", Attempts: 2, UpstreamRequestID: "req_1", InputTokens: 3, OutputTokens: 1, CacheReadTokens: 10_000,
		CacheWrite5mTokens: 148, CacheWrite1hTokens: 100, Cost: 6965, Usage: []byte(`{"input_tokens":3,"output_tokens":1}`),
	}
}

// allowance is alice's budget.
func allowance(t *testing.T) *policy.Budget {
	t.Helper()
	s, err := policy.Compile(&policy.Document{Budgets: []policy.BudgetSpec{{Name: "day", Scope: "user/alice", Amount: "5 USD", Window: "day"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s.Budgets()[0]
}

// opened opens an exchange with a budget, which a crash would charge for 7 tokens of input.
func opened(t *testing.T, l *Ledger, id string) *Exchange {
	t.Helper()
	o := testOpening(id, 10)
	o.InputEstimate, o.Entry.InputTokens, o.Entry.Upstream, o.Entry.Cost = 7, 7, "first", 35
	o.Claims = []Claim{{Account: policy.Account{Budget: allowance(t), Subject: "user/alice"}, Amount: 40}}
	x, err := l.Reserve(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// crashedEntry recovers the files of a ledger as they are now, twice, and returns the only entry that is crashed.
func crashedEntry(t *testing.T, l *Ledger) Entry {
	t.Helper()
	path := copyFiles(t, l.file.path)
	var found []Entry
	for range 2 { // the second time there is nothing to recover
		again := tunedLedger(t, path, tuning{})
		entries, err := again.Outbox(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		found = nil
		for _, e := range entries {
			if e.Outcome == fleet.OutcomeCrashed {
				found = append(found, e)
			}
		}
		if len(found) != 1 {
			t.Fatalf("%+v", entries)
		}
		if u := state(again); u.Reserved != 0 {
			t.Errorf("%+v", u)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := Verify(t.Context(), path, Audit{}); err != nil || len(v.Findings) > 0 {
		t.Errorf("%+v %v", v, err)
	}
	return found[0]
}

// asSeen fails unless an entry that crashed is what the checkpoint said.
func asSeen(t *testing.T, e Entry) {
	t.Helper()
	want := seen()
	want.ID, want.Node, want.Seq, want.StartedAt, want.Outcome, want.Estimated = "e1", "n1", e.Seq, e.StartedAt, fleet.OutcomeCrashed, true
	want.User, want.KeyID, want.Endpoint, want.QuotaTokens = "alice", "k1", EndpointMessages, 3+1 // the usual formula
	if !reflect.DeepEqual(e, want) {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
}

// onDisk opens a ledger whose writes are counted, and moves nothing by itself.
func onDisk(t *testing.T, tune tuning) (*Ledger, *disk) {
	t.Helper()
	d := &disk{}
	tune.create = d.create
	return tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tune), d
}

func TestCheckpointGoesOutWithTheNextWrite(t *testing.T) {
	l, d := onDisk(t, still())
	x := opened(t, l, "e1")
	before := d.writes.Load()
	early := seen()
	early.OutputTokens = 0
	x.Checkpoint(early) // the last one counts
	x.Checkpoint(seen())
	opened(t, l, "e2")
	exchange(t, l, "e3", 1)
	if n := d.writes.Load() - before; n != 3 {
		t.Errorf("%d writes for two openings and a settlement", n)
	}
	path := copyFiles(t, l.file.path)
	again := tunedLedger(t, path, tuning{})
	entries, err := again.Outbox(t.Context(), 0, 10)
	if err != nil || len(entries) != 3 || entries[0].ID != "e3" {
		t.Fatalf("%+v, %v", entries, err)
	}
	asSeen(t, entries[1])
	e := entries[2]
	if e.InputTokens != 7 || e.Upstream != "first" || e.Cost != 35 || e.FirstByte != -1 || e.CacheReadTokens != 0 {
		t.Errorf("without a checkpoint: %+v", e)
	}
	used := entries[0].QuotaTokens + entries[1].QuotaTokens + entries[2].QuotaTokens
	if u := state(again); u.Used != used || u.Reserved != 0 {
		t.Errorf("%+v, the entries say %d", u, used)
	}
	if use := again.Budget(allowance(t)); use[0].Used != 6965+35 || use[0].Reserved != 0 {
		t.Errorf("%+v", use)
	}
}

func TestCheckpointGetsThereByItself(t *testing.T) {
	l, d := onDisk(t, still())
	x := opened(t, l, "e1")
	before := d.writes.Load()
	x.Checkpoint(seen())
	for d.writes.Load() == before {
		runtime.Gosched()
	}
	if err := l.writer.do(t.Context(), nothing{}); err != nil { // whoever wrote it is done
		t.Fatal(err)
	}
	asSeen(t, crashedEntry(t, l))
	if err := x.Settle(Entry{Outcome: OutcomeFinished, InputTokens: 3}); err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(t, crash(t, l)), []string{"e1 finished"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if u := state(l); u.Used != 3 || u.Reserved != 0 || inFlight(t, l) != 0 {
		t.Errorf("%+v", u)
	}
}

func TestCheckpointOfWhatHasSettledIsNotWritten(t *testing.T) {
	l, _ := onDisk(t, still())
	x := opened(t, l, "e1")
	x.Checkpoint(seen())
	if err := x.Settle(Entry{Outcome: OutcomeFinished, InputTokens: 3}); err != nil {
		t.Fatal(err)
	}
	x.Checkpoint(seen())
	exchange(t, l, "e2", 1)
	var kinds []byte
	data, err := os.ReadFile(journalOf(t, l.file.path))
	if err != nil {
		t.Fatal(err)
	}
	at := frames(t, data)
	for i := range len(at) - 1 {
		body, _, err := unframe(data[at[i]:])
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, body[0])
	}
	if want := []byte{kindBudgetOpening, kindBudgetSettlement, kindOpening, kindSettlement}; !reflect.DeepEqual(kinds, want) {
		t.Errorf("records %v", kinds)
	}
	if inFlight(t, l) != 0 {
		t.Error("the exchange is open again")
	}
}

func TestCheckpointIsCarriedIntoTheNextSegmentAndTheFile(t *testing.T) {
	l, _ := onDisk(t, tuning{segment: 3000})
	x := opened(t, l, "e1")
	x.Checkpoint(seen())
	first := l.writer.journal.number
	for i := range 20 {
		exchange(t, l, "other"+strconv.Itoa(i), 1)
	}
	if err := l.mover.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if numbers, _, err := segments(l.file.path); err != nil || numbers[0] == first {
		t.Fatalf("the segments are %v: %v", numbers, err)
	}
	asSeen(t, crashedEntry(t, l))
	later := seen()
	later.InputTokens = 5
	x.Checkpoint(later)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if e := crashedEntry(t, l); e.InputTokens != 5 || e.CacheReadTokens != 10_000 {
		t.Errorf("%+v", e)
	}
}

// A journal that cannot be written costs a checkpoint nothing but time, and nothing else anything.
func TestCheckpointOnAFullDisk(t *testing.T) {
	l, d := onDisk(t, still())
	x := opened(t, l, "e1")
	d.full.Store(true)
	before := d.writes.Load()
	x.Checkpoint(seen())
	for d.writes.Load() == before || l.Ready() == nil {
		runtime.Gosched()
	}
	if e := crashedEntry(t, l); e.InputTokens != 7 {
		t.Errorf("%+v", e)
	}
	d.full.Store(false)
	exchange(t, l, "e2", 1)
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	asSeen(t, crashedEntry(t, l))
}

func TestCheckpointsFromEverywhere(t *testing.T) {
	l, _ := onDisk(t, tuning{segment: 6000})
	var group sync.WaitGroup
	for user := range 8 {
		group.Go(func() {
			for i := range 100 {
				x, err := l.Reserve(t.Context(), testOpening(strconv.Itoa(user)+"/"+strconv.Itoa(i), 10))
				if err != nil {
					t.Error(err)
					return
				}
				for range i % 3 {
					x.Checkpoint(seen())
					runtime.Gosched()
				}
				if err := x.Settle(Entry{Outcome: OutcomeFinished, InputTokens: 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if u := state(l); u.Used != 800 || u.Reserved != 0 || inFlight(t, l) != 0 || booked(t, l) != 800 {
		t.Errorf("%+v", u)
	}
}

// A checkpoint takes the memory of one that was written or dropped before.
func TestCheckpointAllocations(t *testing.T) {
	l, _ := onDisk(t, still())
	x, e := opened(t, l, "e1"), seen()
	var before, after runtime.MemStats
	least := uint64(1 << 60)
	for range 100 { // the race detector has pools forget now and then what they hold
		runtime.ReadMemStats(&before)
		x.Checkpoint(e)
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	if least != 0 {
		t.Errorf("%d allocations", least)
	}
}

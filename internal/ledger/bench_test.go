package ledger_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
)

// spendUsual makes an exchange of Claude Code by one of many users.
func spendUsual(b *testing.B, l *ledger.Ledger, user int) {
	o := ask(rand(), 1000, policy.Unlimited, policy.Unlimited)
	if user > 0 {
		o.Entry.User, o.Entry.KeyID = fmt.Sprintf("user%03d@example.com", user), fmt.Sprintf("0192f0c1d2e3-%03d", user)
	}
	o.Entry.SessionID, o.Entry.Client, o.Entry.ClientVersion = "5f0c3c1e-7a52-4f0e-9a38-000000000000", "claude-cli", "2.1.330"
	x, err := l.Reserve(context.Background(), o)
	if err != nil {
		b.Error(err)
		return
	}
	e := x.Entry()
	e.Outcome, e.Status, e.FirstByte, e.Duration, e.InputTokens, e.OutputTokens = fleet.OutcomeFinished, 200, 812, 2345, 500, 300
	e.ModelServed, e.ModelSent, e.Route, e.Upstream, e.Attempts = e.ModelAsked, e.ModelAsked, "default", "anthropic-main", 1
	e.MessageID, e.StopReason, e.UpstreamRequestID = "msg_01XFDUDYJgAACzvnptvVoYEL", "tool_use", "req_011CSHoEeqs5C35K2UUqR7Fy"
	e.Usage = []byte(`{"input_tokens":500,"output_tokens":300,"cache_read_input_tokens":0}`)
	e.Tools = []fleet.ToolCount{{Name: "Bash", Count: 1}}
	if err := x.Settle(e); err != nil {
		b.Error(err)
	}
}

// benchmark measures exchanges, with everything that they cost away from the request too.
func benchmark(b *testing.B, parallel int) {
	l, err := ledger.Open(b.Context(), file(b), ledger.Options{Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	one := func() { spendUsual(b, l, 0) }
	b.ReportAllocs()
	spent := processorTime(b)
	if parallel == 1 {
		for b.Loop() {
			one()
		}
	} else {
		var group sync.WaitGroup
		work := make(chan struct{}, parallel)
		for range parallel {
			group.Go(func() {
				for range work {
					one()
				}
			})
		}
		for b.Loop() {
			work <- struct{}{}
		}
		close(work)
		group.Wait()
	}
	b.StopTimer()
	if err := l.Close(); err != nil { // which moves what is not moved yet
		b.Fatal(err)
	}
	b.ReportMetric(float64(processorTime(b)-spent)/float64(b.N), "cpu-ns/op")
}

func BenchmarkExchange(b *testing.B)            { benchmark(b, 1) }
func BenchmarkExchange64Parallel(b *testing.B)  { benchmark(b, 64) }
func BenchmarkExchange512Parallel(b *testing.B) { benchmark(b, 512) }

// benchmarkJournal measures what requests wait for: reservations and settlements, and none of what becomes of them.
func benchmarkJournal(b *testing.B, parallel int, o ledger.Options) {
	const round = 4000 // the database takes them in between
	o.Node = "n1"
	l, err := ledger.Open(b.Context(), file(b), o)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var spent time.Duration
	for b.Loop() {
		before := processorTime(b)
		var group sync.WaitGroup
		for user := range parallel {
			group.Go(func() {
				for range round / parallel {
					spendUsual(b, l, user)
				}
			})
		}
		group.Wait()
		spent += processorTime(b) - before
		b.StopTimer()
		if _, err := l.Outbox(b.Context(), l.LastSeq(), 1); err != nil {
			b.Fatal(err)
		}
		if err := l.Acknowledge(b.Context(), l.LastSeq()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*(round/parallel*parallel)), "cpu-ns/exchange")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

func resting() (o ledger.Options) {
	o.Rest()
	return o
}

// unsynced leaves it to the system when anything gets to stable storage, for comparison.
func unsynced() (o ledger.Options) {
	o.RestUnsynced()
	return o
}

// atOnce has everything on stable storage before anybody goes on.
func atOnce() ledger.Options {
	o := resting()
	o.SyncInterval = new(time.Duration)
	return o
}

func BenchmarkJournal(b *testing.B)                   { benchmarkJournal(b, 1, resting()) }
func BenchmarkJournal8Parallel(b *testing.B)          { benchmarkJournal(b, 8, resting()) }
func BenchmarkJournal64Parallel(b *testing.B)         { benchmarkJournal(b, 64, resting()) }
func BenchmarkJournalUnsynced(b *testing.B)           { benchmarkJournal(b, 1, unsynced()) }
func BenchmarkJournalUnsynced64Parallel(b *testing.B) { benchmarkJournal(b, 64, unsynced()) }
func BenchmarkJournalAtOnce(b *testing.B)             { benchmarkJournal(b, 1, atOnce()) }
func BenchmarkJournalAtOnce64Parallel(b *testing.B)   { benchmarkJournal(b, 64, atOnce()) }

// BenchmarkCheckpoint measures what a stream's request pays for one, which the next write takes along.
func BenchmarkCheckpoint(b *testing.B) {
	l, err := ledger.Open(b.Context(), file(b), ledger.Options{Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	x, err := l.Reserve(b.Context(), ask(rand(), 1000, policy.Unlimited, policy.Unlimited))
	if err != nil {
		b.Fatal(err)
	}
	e := x.Entry()
	e.Status, e.Upstream, e.ModelServed, e.InputTokens, e.CacheReadTokens = 200, "anthropic-main", e.ModelAsked, 3, 10_000
	e.Usage = []byte(`{"input_tokens":3,"output_tokens":1,"cache_read_input_tokens":10000}`)
	b.ReportAllocs()
	for b.Loop() {
		x.Checkpoint(e)
	}
	b.StopTimer()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchmarkMove measures what becomes of settlements away from the request: the way into the database and to control's door.
func benchmarkMove(b *testing.B, users int) {
	const size = 2000
	o := ledger.Options{Node: "n1"}
	o.Rest()
	l, err := ledger.Open(b.Context(), file(b), o)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var spent time.Duration
	for b.Loop() {
		b.StopTimer()
		after := l.LastSeq()
		for i := range size {
			spendUsual(b, l, i*7919%users)
		}
		before := processorTime(b)
		b.StartTimer()
		entries, err := l.Outbox(b.Context(), after, size)
		if err != nil || len(entries) != size {
			b.Fatal(len(entries), err)
		}
		if err := l.Acknowledge(b.Context(), entries[size-1].Seq); err != nil {
			b.Fatal(err)
		}
		spent += processorTime(b) - before
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*size), "cpu-ns/entry")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkMove(b *testing.B)         { benchmarkMove(b, 1) }
func BenchmarkMove200Users(b *testing.B) { benchmarkMove(b, 200) }

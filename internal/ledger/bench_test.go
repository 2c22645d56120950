package ledger_test

import (
	"context"
	"sync"
	"testing"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
)

// benchmark measures exchanges, with everything that they cost away from the request too.
func benchmark(b *testing.B, parallel int) {
	l, err := ledger.Open(b.Context(), file(b), ledger.Options{Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	one := func() {
		x, err := l.Reserve(context.Background(), ask(rand(), 1000, policy.Unlimited, policy.Unlimited))
		if err != nil {
			b.Error(err)
			return
		}
		e := x.Entry()
		e.Outcome, e.Status, e.InputTokens, e.OutputTokens = fleet.OutcomeFinished, 200, 500, 300
		e.Usage = []byte(`{"input_tokens":500,"output_tokens":300,"cache_read_input_tokens":0}`)
		e.Tools = []fleet.ToolCount{{Name: "Bash", Count: 1}}
		if err := x.Settle(e); err != nil {
			b.Error(err)
		}
	}
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

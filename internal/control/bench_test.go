package control_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"carpool/internal/fleet"
)

// usual is an exchange of Claude Code as the ledger has it, one of many users with some sessions each.
func usual(seq int64, at time.Time) fleet.Entry {
	who := fmt.Sprintf("user%03d", seq*7919%200)
	return fleet.Entry{
		Node: "n1", Seq: seq, ID: uuid.Must(uuid.NewV7()).String(), StartedAt: at, FirstByte: 812, Duration: 2345,
		Outcome: fleet.OutcomeFinished, Status: 200, User: who + "@example.com", Team: "platform", KeyID: "0192f0c1d2e3" + who, KeyName: who + "-laptop",
		Endpoint: "messages", ModelAsked: "claude-opus-5-5", ModelSent: "claude-opus-5-5", ModelServed: "claude-opus-5-5", Route: "default",
		Upstream: "anthropic-main", Attempts: 1, MessageID: "msg_01XFDUDYJgAACzvnptvVoYEL", StopReason: "tool_use",
		InputTokens: 12, OutputTokens: 340, CacheReadTokens: 48_123, CacheWrite5mTokens: 2048, ServiceTier: "standard", QuotaTokens: 9213,
		Usage: []byte(`{"input_tokens":12,"cache_creation_input_tokens":2048,"cache_read_input_tokens":48123,` +
			`"cache_creation":{"ephemeral_5m_input_tokens":2048,"ephemeral_1h_input_tokens":0},"output_tokens":340,"service_tier":"standard"}`),
		SessionID:    fmt.Sprintf("5f0c3c1e-7a52-4f0e-9a38-%012d", seq*7919%600),
		RequestClass: "main", Client: "claude-cli", ClientVersion: "2.1.330",
		ClientRequestID: uuid.NewString(), UpstreamRequestID: "req_011CSHoEeqs5C35K2UUqR7Fy",
		Tools: []fleet.ToolCount{{Name: "Bash", Count: 1}, {Name: "Read", Count: 2}}, FileOperations: 2, RequestBytes: 187_233, ResponseBytes: 4210,
	}
}

// BenchmarkShip measures how a batch gets into the books, the flush to the disk included.
func BenchmarkShip(b *testing.B) {
	const size = 500
	p := open(b, b.TempDir())
	link := p.Link("n1")
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	var seq int64
	batch := func() fleet.UsageBatch {
		batch := fleet.UsageBatch{Node: "n1", Entries: make([]fleet.Entry, size)}
		for i := range batch.Entries {
			seq++
			at = at.Add(487 * time.Microsecond)
			batch.Entries[i] = usual(seq, at)
		}
		return batch
	}
	b.ReportAllocs()
	var spent time.Duration
	for b.Loop() {
		b.StopTimer()
		next := batch()
		before := processorTime(b)
		b.StartTimer()
		if mark, err := link.Ship(b.Context(), next); err != nil || mark != seq {
			b.Fatal(mark, err)
		}
		spent += processorTime(b) - before
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*size), "cpu-ns/entry")
}

package control_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

func TestSnapshotWaitsAndWakes(t *testing.T) {
	p := open(t, t.TempDir())
	link := p.Link("n1")
	first := must[*policy.Document](t)(link.Snapshot(t.Context(), 0))
	if first.Version != 1 || first.Settings.TimeZone != "Europe/Berlin" {
		t.Errorf("%+v", first)
	}
	var woken sync.WaitGroup
	got := make([]*policy.Document, 3)
	for i := range got {
		woken.Go(func() { got[i], _ = link.Snapshot(t.Context(), first.Version) })
	}
	// The change waits for the node, which says by heartbeat that it has it.
	var changed sync.WaitGroup
	changed.Go(func() { must[control.Team](t)(p.socket.CreateTeam(t.Context(), policy.TeamSpec{Name: "x"})) })
	woken.Wait()
	for _, doc := range got {
		if doc == nil || doc.Version != first.Version+1 {
			t.Fatalf("%+v", doc)
		}
	}
	must[any](t)(nil, link.Heartbeat(t.Context(), fleet.Heartbeat{Applied: got[0].Version}))
	changed.Wait()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := link.Snapshot(ctx, got[0].Version); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := link.Command(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestANodeAheadOfTheStoreGetsANewerPolicy(t *testing.T) {
	p := open(t, t.TempDir())
	doc := must[*policy.Document](t)(p.Link("n1").Snapshot(t.Context(), 41))
	if doc.Version != 42 {
		t.Errorf("version %d", doc.Version)
	}
}

func TestAChangeDoesNotWaitForWhoCannotApplyIt(t *testing.T) {
	p := open(t, t.TempDir())
	n := p.startNode(t, "n1")
	must[control.Team](t)(p.socket.CreateTeam(t.Context(), policy.TeamSpec{Name: "a"}))
	n.mu.Lock()
	n.refuse = true
	n.mu.Unlock()
	begin := time.Now()
	must[control.Team](t)(p.socket.CreateTeam(t.Context(), policy.TeamSpec{Name: "b"}))
	if took := time.Since(begin); took > 1900*time.Millisecond {
		t.Errorf("waited %v for a node that refused", took)
	}
	s := must[control.Status](t)(p.socket.Status(t.Context()))
	if s.Nodes[0].Refused != s.PolicyVersion || s.Nodes[0].Problem == "" || !s.Nodes[0].Connected {
		t.Errorf("%+v", s.Nodes)
	}

	// A node that never answers holds a change up, but not for long and not for nothing.
	ctx, gone := context.WithCancel(t.Context())
	var silent sync.WaitGroup
	silent.Go(func() { _, _ = p.Link("silent").Command(ctx) })
	t.Cleanup(func() { gone(); silent.Wait() })
	for !connected(t, p, "silent") {
		continue
	}
	begin = time.Now()
	must[control.Team](t)(p.socket.CreateTeam(t.Context(), policy.TeamSpec{Name: "c"}))
	if took := time.Since(begin); took < time.Second || took > 10*time.Second {
		t.Errorf("waited %v", took)
	}
	gone()
	silent.Wait()
	if connected(t, p, "silent") {
		t.Error("a node that stopped waiting is not connected")
	}
}

func connected(t *testing.T, p *plant, name string) bool {
	t.Helper()
	for _, n := range must[control.Status](t)(p.socket.Status(t.Context())).Nodes {
		if n.Name == name {
			return n.Connected
		}
	}
	return false
}

func TestANodeThatFailsIsNamed(t *testing.T) {
	p := open(t, t.TempDir())
	n := p.startNode(t, "n1")
	must[control.User](t)(p.socket.CreateUser(t.Context(), policy.UserSpec{Name: "alice"}))
	n.mu.Lock()
	n.fails = "the disk is full"
	n.mu.Unlock()
	_, err := p.socket.ResetQuota(t.Context(), "alice", "all")
	status(t, err, http.StatusServiceUnavailable, "node n1: the disk is full")
	_, err = p.socket.Quotas(t.Context())
	status(t, err, http.StatusServiceUnavailable, "node n1: the disk is full")
	// What the nodes only add to is answered without them.
	must[[]control.Key](t)(p.socket.Keys(t.Context(), ""))
	must[control.Usage](t)(p.socket.Usage(t.Context(), control.UsageQuery{}))
	if user := must[control.User](t)(p.socket.User(t.Context(), "alice", true)); user.Usage != nil {
		t.Errorf("%+v", user.Usage)
	}
	for _, row := range must[[]control.AuditRow](t)(p.socket.Audit(t.Context(), 0)) {
		if row.Kind == "quota" {
			t.Errorf("the audit log tells of a reset that failed: %+v", row)
		}
	}
	if err := n.link.Answer(t.Context(), fleet.CommandResult{ID: "nobody asked"}); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsWaiting(t *testing.T) {
	c := must[*control.Control](t)(control.Open(t.Context(), options(t, t.TempDir())))
	link := c.Link("n1")
	var waiting sync.WaitGroup
	errs := make([]error, 2)
	waiting.Go(func() { _, errs[0] = link.Snapshot(t.Context(), 1) })
	waiting.Go(func() { _, errs[1] = link.Command(t.Context()) })
	must[any](t)(nil, c.Close())
	waiting.Wait()
	if errs[0] == nil || errs[1] == nil {
		t.Errorf("%v", errs)
	}
	must[any](t)(nil, c.Close())
}

func entry(node string, seq int64, change ...func(*fleet.Entry)) fleet.Entry {
	e := fleet.Entry{
		Node: node, Seq: seq, ID: "id", StartedAt: time.Date(2026, 11, 20, 12, 0, 0, 123456000, time.UTC).Add(time.Duration(seq) * time.Second),
		FirstByte: 100, Duration: 400, Outcome: fleet.OutcomeFinished, Status: 200, User: "alice", Team: "platform",
		KeyID: "k1", KeyName: "alice-laptop", Endpoint: "messages", Stream: true, ModelAsked: "fast", ModelSent: "claude-a", ModelServed: "claude-a-1",
		Route: "default", Upstream: "main", Attempts: 1, InputTokens: 10, OutputTokens: 20, CacheReadTokens: 30, CacheWrite5mTokens: 4,
		CacheWrite1hTokens: 5, ThinkingTokens: 6, WebSearches: 1, QuotaTokens: 30, Usage: []byte(`{"input_tokens":10}`),
		SessionID: "s1", Client: "claude-cli", ClientVersion: "2.1.0", Tools: []fleet.ToolCount{{Name: "Bash", Count: 2}, {Name: "Read", Count: 1}},
		FileOperations: 1, RequestBytes: 1000, ResponseBytes: 2000,
	}
	for _, each := range change {
		each(&e)
	}
	return e
}

func ship(t *testing.T, link fleet.Link, seqs ...int64) int64 {
	t.Helper()
	batch := fleet.UsageBatch{Node: "n1"}
	for _, seq := range seqs {
		batch.Entries = append(batch.Entries, entry("n1", seq))
	}
	return must[int64](t)(link.Ship(t.Context(), batch))
}

func TestShip(t *testing.T) {
	p := open(t, t.TempDir())
	link := p.Link("n1")
	steps := []struct {
		seqs      []int64
		want, all int64
	}{
		{nil, 0, 0},
		{[]int64{1, 2, 3}, 3, 3},
		{[]int64{1, 2, 3}, 3, 3},    // again
		{[]int64{2, 3, 4, 5}, 5, 5}, // partly again
		{[]int64{8, 9}, 5, 7},       // a gap
		{[]int64{12}, 5, 8},
		{[]int64{6, 7}, 9, 10}, // closed
		{[]int64{11, 10}, 12, 12},
		{[]int64{1}, 12, 12},
	}
	for _, step := range steps {
		if got := ship(t, link, step.seqs...); got != step.want {
			t.Errorf("shipping %v acknowledges %d, want %d", step.seqs, got, step.want)
		}
		if s := must[control.Status](t)(p.socket.Status(t.Context())); s.Entries != step.all {
			t.Errorf("after %v there are %d entries, want %d", step.seqs, s.Entries, step.all)
		}
	}
	spoiled := entry("n1", 13, func(e *fleet.Entry) { e.Usage = []byte(`{"input_tokens":`); e.ModelAsked = "\xff\x00" })
	if got := must[int64](t)(link.Ship(t.Context(), fleet.UsageBatch{Node: "n1", Entries: []fleet.Entry{spoiled}})); got != 13 {
		t.Errorf("an entry with a broken usage report holds up the others: %d", got)
	}
	for _, wrong := range []fleet.UsageBatch{
		{Node: "n2"}, {Node: "n1", Entries: []fleet.Entry{entry("n2", 13)}}, {Node: "n1", Entries: []fleet.Entry{entry("n1", 0)}},
	} {
		if _, err := link.Ship(t.Context(), wrong); err == nil {
			t.Errorf("%+v was taken", wrong)
		}
	}
	if usage := must[control.Usage](t)(p.socket.Usage(t.Context(), control.UsageQuery{})); usage.Totals.Requests != 13 || usage.Totals.InputTokens != 130 {
		t.Errorf("%+v", usage.Totals)
	}
}

func TestShipConcurrently(t *testing.T) {
	p := open(t, t.TempDir())
	link := p.Link("n1")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for first := int64(1); first <= 100; first += 10 {
				batch := fleet.UsageBatch{Node: "n1"}
				for seq := first; seq < first+10; seq++ {
					batch.Entries = append(batch.Entries, entry("n1", seq))
				}
				if _, err := link.Ship(t.Context(), batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	totals := must[control.Usage](t)(p.socket.Usage(t.Context(), control.UsageQuery{})).Totals
	if totals.Requests != 100 || ship(t, link) != 100 {
		t.Errorf("%+v", totals)
	}
	report := must[control.Report](t)(p.socket.Report(t.Context(), control.ReportQuery{}))
	if report.TopTools[0] != (control.ReportCount{Name: "Bash", Count: 200}) {
		t.Errorf("%+v", report.TopTools)
	}
}

func TestShipGivesUpWhatIsGone(t *testing.T) {
	p := open(t, t.TempDir())
	link := p.Link("n1")
	for _, step := range []struct {
		from, to  int64
		seqs      []int64
		want, all int64
	}{
		{1, 0, nil, -1, 0},
		{0, 4, nil, -1, 0},
		{1, 4, []int64{3}, 4, 1},             // before and after it
		{6, 8, []int64{9}, 4, 2},             // the stretch is not what comes next
		{3, 8, []int64{7}, 9, 3},             // what came before counts
		{10, 11, []int64{12, 13, 15}, 13, 6}, // not beyond the stretch
		{1, 5, nil, 13, 6},
		{14, 20, nil, 20, 6},
	} {
		batch := fleet.UsageBatch{Node: "n1", From: step.from, To: step.to}
		for _, seq := range step.seqs {
			batch.Entries = append(batch.Entries, entry("n1", seq))
		}
		got, err := link.Ship(t.Context(), batch)
		if (err != nil) != (step.want < 0) || err == nil && got != step.want {
			t.Errorf("%d to %d with %v acknowledges %d, %v, want %d", step.from, step.to, step.seqs, got, err, step.want)
		}
		if s := must[control.Status](t)(p.socket.Status(t.Context())); s.Entries != step.all {
			t.Errorf("%d to %d with %v: there are %d entries, want %d", step.from, step.to, step.seqs, s.Entries, step.all)
		}
	}
}

func TestAnExchangeIsBookedOnceUnderWhateverNumber(t *testing.T) {
	p := open(t, t.TempDir())
	link := p.Link("n1")
	ship(t, link, 1, 2)
	again := entry("n1", 2, func(e *fleet.Entry) { e.Seq, e.Outcome = 3, fleet.OutcomeCrashed })
	other := entry("n1", 2, func(e *fleet.Entry) { e.Seq, e.ID = 4, "another that began at the same moment" })
	batch := fleet.UsageBatch{Node: "n1", Entries: []fleet.Entry{again, other}}
	if got := must[int64](t)(link.Ship(t.Context(), batch)); got != 4 {
		t.Errorf("acknowledges %d", got)
	}
	if s := must[control.Status](t)(p.socket.Status(t.Context())); s.Entries != 3 {
		t.Errorf("%d entries", s.Entries)
	}
}

package ledger_test

import (
	"path/filepath"
	"testing"
	"time"

	"carpool/internal/ledger"
)

func TestSessionsTellWhereConversationsWereServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	l, err := ledger.Open(t.Context(), path, ledger.Options{Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only read from here on
	now := time.Now()
	for i, e := range []ledger.Entry{
		{SessionID: "s", Upstream: "a", Route: "r", Outcome: ledger.OutcomeFinished},
		{SessionID: "s", Upstream: "b", Route: "r", Outcome: ledger.OutcomeFinished},
		{SessionID: "s", Upstream: "c", Route: "r", Outcome: ledger.OutcomeFailed},
		{Upstream: "d", Route: "r", Outcome: ledger.OutcomeFinished},
	} {
		e.ID, e.StartedAt, e.User, e.Endpoint = string(rune('1'+i)), now, "alice", ledger.EndpointMessages
		x, err := l.Reserve(t.Context(), ledger.Opening{Entry: e, Daily: -1, Monthly: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Settle(e); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	note := func(s ledger.Session) { seen = append(seen, s.Route+" "+s.Session+" "+s.Upstream) }
	if err := l.Sessions(t.Context(), now.Add(-time.Hour), note); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen[0] != "r s a" || seen[1] != "r s b" {
		t.Errorf("sessions %q", seen)
	}
	if err := l.Sessions(t.Context(), now.Add(time.Hour), note); err != nil || len(seen) != 2 {
		t.Errorf("sessions of the future: %q %v", seen, err)
	}
}

package control_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
)

// agentEntry is a request as Claude Code sends it: sub-agents say their id, nested ones also their parent's.
func agentEntry(seq int64, session, agent, parent string, cost int64, change ...func(*fleet.Entry)) fleet.Entry {
	return entry("n1", seq, append([]func(*fleet.Entry){func(e *fleet.Entry) {
		e.SessionID, e.AgentID, e.ParentAgentID, e.Cost, e.PriceVersion = session, agent, parent, cost, "v1"
	}}, change...)...)
}

func outline(tree []control.SessionAgent) string {
	var text strings.Builder
	for _, a := range tree {
		fmt.Fprintf(&text, "%s%s %d/%d $%d/%d; ", strings.Repeat(">", a.Depth), a.ID, a.Requests, a.TreeRequests, a.CostMicroUSD, a.TreeMicroUSD)
	}
	return strings.TrimSuffix(text.String(), "; ")
}

func TestSessionTree(t *testing.T) {
	everyway(t, func(t *testing.T, _ *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		const id = "5f0c3c1e-7a52-4f0e-9a38-000000000001"
		haiku := func(e *fleet.Entry) { e.ModelServed = "claude-haiku" }
		n.mu.Lock()
		n.settled = []fleet.Entry{
			agentEntry(1, id, "", "", 100),
			agentEntry(2, id, "", "", 1, haiku),
			agentEntry(3, id, "explore", "", 20),
			agentEntry(4, id, "plan", "", 7),
			agentEntry(5, id, "nested", "explore", 5, func(e *fleet.Entry) { e.Duration = 9000 }),
			agentEntry(6, id, "explore", "", 30, haiku),
			agentEntry(7, id, "orphan", "never-seen", 2),
			agentEntry(8, id, "hen", "egg", 3), // made up by a client
			agentEntry(9, id, "egg", "hen", 4),
			agentEntry(10, id, "", "", 1, func(e *fleet.Entry) { e.Endpoint = "count_tokens" }),
			agentEntry(11, "5f0c3c1e-7a52-4f0e-9a38-000000000002", "", "", 1, func(e *fleet.Entry) { e.User = "bob" }), // another session
			agentEntry(12, "5f0c3c1f", "", "", 1),
			agentEntry(13, "5f0c3c1fa", "", "", 1),
			agentEntry(14, "", "", "", 1),
		}
		n.mu.Unlock()

		got := must[control.SessionDetail](t)(c.Session(ctx, id))
		want := " 2/9 $101/172; >explore 2/3 $50/55; >>nested 1/1 $5/5; >plan 1/1 $7/7; >orphan 1/1 $2/2; >hen 1/2 $3/7; >>egg 1/1 $4/4"
		if text := outline(got.Tree); text != want {
			t.Errorf("tree:\n%s\nwant\n%s", text, want)
		}
		if got.ID != id || got.User != "alice" || got.Users != 1 || got.Agents != 6 || got.Requests != 9 || got.CostMicroUSD != 172 ||
			got.DurationMs != 13_000 || got.Tree[0].Agents != 6 || got.Tree[1].Agents != 1 {
			t.Errorf("%+v", got.Session)
		}
		main := got.Tree[0]
		if len(main.Models) != 2 || main.Models[0].Model != "claude-a-1" || main.Models[0].CostMicroUSD != 100 || main.Models[1].Model != "claude-haiku" {
			t.Errorf("%+v", main.Models)
		}
		if nested := got.Tree[2]; nested.Parent != "explore" || nested.DurationMs != 9000 || nested.InputTokens != 10 || nested.CacheReadTokens != 30 {
			t.Errorf("%+v", nested)
		}

		// The beginning of an id is enough when it fits one session, and a whole id always is.
		for prefix, want := range map[string]string{"5f0c3c1e-7a52-4f0e-9a38-000000000002": "", "5f0c3c1e-7a52-4f0e-9a38-00000000000": "several", "5f0c3c1f": "", "5f0c3c1fa": "", "6": "no session", "%": "no session", "_": "no session"} {
			switch detail, err := c.Session(ctx, prefix); want {
			case "several":
				status(t, err, http.StatusConflict, "several sessions begin with")
			case "no session":
				status(t, err, http.StatusNotFound, "there is no session")
			default:
				if err != nil || detail.ID != prefix {
					t.Errorf("%s: %v %v", prefix, detail.ID, err)
				}
			}
		}

		ids := func(q control.SessionQuery) string {
			text := ""
			for _, s := range must[control.Sessions](t)(c.Sessions(ctx, q)).Items {
				text += fmt.Sprintf("%s=%d ", s.ID[max(0, len(s.ID)-4):], s.Requests)
			}
			return text
		}
		for _, list := range []struct {
			query control.SessionQuery
			want  string
		}{
			{control.SessionQuery{}, "c1fa=1 3c1f=1 0002=1 0001=9 "},
			{control.SessionQuery{Limit: 2}, "c1fa=1 3c1f=1 "},
			{control.SessionQuery{User: "bob"}, "0002=1 "},
			{control.SessionQuery{Until: "2026-11-20T12:00:05Z"}, "0001=4 "},
			{control.SessionQuery{Team: "nobody"}, ""},
		} {
			if got := ids(list.query); got != list.want {
				t.Errorf("%+v: %q, want %q", list.query, got, list.want)
			}
		}

		agents := ""
		for _, row := range must[control.Usage](t)(c.Usage(ctx, control.UsageQuery{GroupBy: "agent", Session: id})).Rows {
			agents += fmt.Sprintf("%s<%s=%d ", row.Group.Group, row.Group.Parent, row.Group.Requests)
		}
		if agents != "<=2 explore<=2 egg<hen=1 hen<egg=1 nested<explore=1 orphan<never-seen=1 plan<=1 " {
			t.Errorf("by agent: %s", agents)
		}
	})
}

// What clients say of parents is shown without following it as deep or as long as they like.
func TestSessionMadeUpChains(t *testing.T) {
	const long = 150
	p := open(t, t.TempDir())
	batch := fleet.UsageBatch{Node: "n1"}
	ship := func(session, agent, parent string) {
		batch.Entries = append(batch.Entries, agentEntry(int64(len(batch.Entries)+1), session, agent, parent, 1))
	}
	for i := range long {
		ship("chain", fmt.Sprint("a", i), fmt.Sprint("a", i-1))
		ship("backwards", fmt.Sprint("a", long-i), fmt.Sprint("a", long-i-1))
		ship("circle", fmt.Sprint("a", i), fmt.Sprint("a", (i+1)%long))
	}
	ship("itself", "a", "a")
	must[int64](t)(p.Link("n1").Ship(t.Context(), batch))
	for session, want := range map[string]int64{"chain": long, "backwards": long, "circle": long, "itself": 1} {
		got := must[control.SessionDetail](t)(p.socket.Session(t.Context(), session))
		seen, deepest := map[string]bool{}, 0
		for _, a := range got.Tree {
			seen[a.ID], deepest = true, max(deepest, a.Depth)
		}
		if main := got.Tree[0]; main.Agents != want || main.TreeRequests != want || main.TreeMicroUSD != want || int64(len(seen)) != want+1 || deepest > 64 {
			t.Errorf("%s: %d agents, %d requests, $%d, %d different, %d deep", session, main.Agents, main.TreeRequests, main.TreeMicroUSD, len(seen), deepest)
		}
	}
}

// All exchanges come page by page, each once, also those of several nodes at the same moment and with the same number.
func TestEntriesPages(t *testing.T) {
	p := open(t, t.TempDir())
	ctx := t.Context()
	moment := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	want := map[string]bool{}
	for _, node := range []string{"n1", "n2", "n.3"} {
		batch := fleet.UsageBatch{Node: node}
		for seq := int64(1); seq <= 1500; seq++ {
			e := entry(node, seq, func(e *fleet.Entry) {
				e.ID = fmt.Sprintf("%s-%d", node, seq)
				e.StartedAt = moment.Add(time.Duration(seq/100) * time.Second)
			})
			want[e.ID] = true
			batch.Entries = append(batch.Entries, e)
		}
		must[int64](t)(p.Link(node).Ship(ctx, batch))
	}
	last := moment.Add(time.Hour)
	for e, err := range p.socket.Entries(ctx, control.UsageQuery{User: "alice"}) {
		if err != nil {
			t.Fatal(err)
		}
		if !want[e.ID] || e.StartedAt.After(last) {
			t.Fatalf("%s comes twice or out of order", e.ID)
		}
		delete(want, e.ID)
		last = e.StartedAt
	}
	if len(want) > 0 {
		t.Errorf("%d are missing", len(want))
	}
	for e, err := range p.socket.Entries(ctx, control.UsageQuery{User: "bob"}) {
		t.Errorf("%+v %v", e, err)
	}
	header := http.Header{"Authorization": {"Bearer " + bootstrapToken}}
	for _, query := range []string{"after=x", "after=1.2", "after=1.x.n", "limit=10001", "limit=0"} {
		if status, body := p.raw(t, http.MethodGet, "/admin/v1/entries?"+query, header, ""); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	if status, body := p.raw(t, http.MethodGet, "/admin/v1/usage?limit=10001", header, ""); status != http.StatusUnprocessableEntity || !strings.Contains(string(body), "/admin/v1/entries") {
		t.Errorf("%d %s", status, body)
	}
}

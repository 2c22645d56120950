package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
)

const defaultSessions = 50

type sessionsInput struct {
	Range
	Limit int `query:"limit" minimum:"1" maximum:"10000" doc:"Sessions; default 50"`
}

func (a *api) addSessions() {
	operation(a, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: "/admin/v1/sessions",
		Summary: "Sessions of Claude Code, those used last first", Tags: []string{"usage"},
	}, func(ctx context.Context, in *sessionsInput) (List[Session], error) {
		sessions, err := a.c.sessions(ctx, in)
		return List[Session]{Items: sessions}, err
	})
	operation(a, huma.Operation{
		OperationID: "get-session", Method: http.MethodGet, Path: "/admin/v1/sessions/{name}",
		Summary: "What a session and its agents used, by the session's id or an unambiguous beginning of it", Tags: []string{"usage"},
		Errors: []int{http.StatusConflict},
	}, func(ctx context.Context, in *byName) (SessionDetail, error) { return a.c.session(ctx, in.Name) })
}

func (c *Control) sessions(ctx context.Context, in *sessionsInput) ([]Session, error) {
	f, err := c.filter(&in.Range)
	if err != nil {
		return nil, err
	}
	f.Endpoint = endpointMessages
	c.flush(ctx)
	found, err := c.store.Sessions(ctx, f, cmp.Or(in.Limit, defaultSessions))
	if err != nil {
		return nil, err
	}
	sessions := make([]Session, len(found))
	for i := range found {
		sessions[i] = sessionOf(&found[i])
	}
	return sessions, nil
}

func sessionOf(s *store.Session) Session {
	return Session{
		ID: s.Group, User: s.User, Users: s.Users, Agents: s.Agents, UsageTotals: totalsOf(s.Sum),
		FirstAt: s.FirstAt, LastAt: s.LastAt, EndAt: s.EndAt, DurationMs: s.EndAt.Sub(s.FirstAt).Milliseconds(),
	}
}

// ambiguous is how many of the sessions that a prefix fits are named.
const ambiguous = 5

func (c *Control) session(ctx context.Context, prefix string) (SessionDetail, error) {
	c.flush(ctx)
	ids, err := c.store.SessionIDs(ctx, prefix, ambiguous)
	switch {
	case err != nil:
		return SessionDetail{}, err
	case len(ids) == 0 || prefix == "":
		return SessionDetail{}, notFound("session", prefix)
	case len(ids) > 1 && ids[0] != prefix: // sorted: what is itself a prefix of others comes first
		return SessionDetail{}, refuse(http.StatusConflict, "several sessions begin with %q: %s", prefix, strings.Join(ids, ", "))
	}
	f := store.Filter{Session: ids[0], Endpoint: endpointMessages}
	found, err := c.store.Sessions(ctx, f, 1)
	if err != nil {
		return SessionDetail{}, err
	}
	if len(found) == 0 { // it only counted tokens
		return SessionDetail{}, notFound("session", prefix)
	}
	sums, err := c.store.Sums(ctx, f, store.ByTree)
	if err != nil {
		return SessionDetail{}, err
	}
	return SessionDetail{Session: sessionOf(&found[0]), Tree: agentTree(sums)}, nil
}

// agent is an agent of a session while its tree is built.
type agent struct {
	id, parent string
	sum        store.Sum
	models     []SessionModel
	children   []*agent
	placed     bool
}

// agentTree orders sums ByTree as a tree. Clients say who spawned whom and may say anything: an agent that would not hang
// below the main agent hangs directly below it.
func agentTree(sums []store.Sum) []SessionAgent {
	agents := map[string]*agent{"": {}}
	for _, s := range sums {
		parts := strings.SplitN(s.Group, store.Separator, 3)
		a := agents[parts[0]]
		if a == nil {
			a = &agent{id: parts[0]}
			agents[a.id] = a
		}
		if a.id != "" && (a.parent == "" || s.FirstAt.Before(a.sum.FirstAt)) {
			a.parent = cmp.Or(parts[1], a.parent)
		}
		a.sum.Add(s)
		a.models = append(a.models, SessionModel{parts[2], totalsOf(s)})
	}
	var spawned []*agent
	for _, a := range agents {
		if a.id != "" {
			spawned = append(spawned, a)
		}
	}
	slices.SortFunc(spawned, func(a, b *agent) int {
		return cmp.Or(a.sum.FirstAt.Compare(b.sum.FirstAt), cmp.Compare(a.id, b.id))
	})
	for _, a := range spawned {
		if parent := agents[a.parent]; parent != nil {
			parent.children = append(parent.children, a)
		} else { // it made no request of its own
			agents[""].children = append(agents[""].children, a)
		}
	}
	var tree []SessionAgent
	tree = agents[""].appendTo(tree, 0)
	for _, a := range spawned { // what is left goes round in circles
		if !a.placed {
			below := len(tree)
			tree = a.appendTo(tree, 1)
			main := &tree[0]
			main.Agents += int64(len(tree) - below)
			main.TreeRequests += tree[below].TreeRequests
			main.TreeMicroUSD += tree[below].TreeMicroUSD
		}
	}
	return tree
}

// appendTo appends the agent and those below it, each once.
func (a *agent) appendTo(tree []SessionAgent, depth int) []SessionAgent {
	a.placed = true
	slices.SortFunc(a.models, func(a, b SessionModel) int {
		return cmp.Or(cmp.Compare(b.CostMicroUSD, a.CostMicroUSD), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Model, b.Model))
	})
	at := len(tree)
	tree = append(tree, SessionAgent{
		ID: a.id, Parent: a.parent, Depth: depth, UsageTotals: totalsOf(a.sum), Models: a.models,
		FirstAt: a.sum.FirstAt, LastAt: a.sum.LastAt, EndAt: a.sum.EndAt, DurationMs: a.sum.EndAt.Sub(a.sum.FirstAt).Milliseconds(),
		TreeRequests: a.sum.Requests, TreeMicroUSD: a.sum.Cost,
	})
	if tree[at].Models == nil {
		tree[at].Models = []SessionModel{}
	}
	for _, child := range a.children {
		if child.placed {
			continue
		}
		first := len(tree)
		tree = child.appendTo(tree, depth+1)
		tree[at].Agents += int64(len(tree) - first)
		tree[at].TreeRequests += tree[first].TreeRequests
		tree[at].TreeMicroUSD += tree[first].TreeMicroUSD
	}
	return tree
}

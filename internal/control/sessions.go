package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
	"carpool/internal/policy"
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
	}, func(ctx context.Context, in *sessionsInput) (Sessions, error) { return a.c.sessions(ctx, in) })
	operation(a, huma.Operation{
		OperationID: "get-session", Method: http.MethodGet, Path: "/admin/v1/sessions/{name}",
		Summary: "What a session and its agents used, by the session's id or an unambiguous beginning of it", Tags: []string{"usage"},
		Errors: []int{http.StatusConflict},
	}, func(ctx context.Context, in *byName) (SessionDetail, error) { return a.c.session(ctx, in.Name) })
}

func (c *Control) sessions(ctx context.Context, in *sessionsInput) (answer Sessions, err error) {
	f, err := c.filter(&in.Range)
	if err != nil {
		return Sessions{}, err
	}
	f.Endpoint = policy.EndpointMessages
	c.flush(ctx)
	found, err := c.store.Sessions(ctx, f, cmp.Or(in.Limit, defaultSessions))
	if err != nil {
		return Sessions{}, err
	}
	answer.Items = make([]Session, len(found))
	for i := range found {
		answer.Items[i] = sessionOf(&found[i])
	}
	answer.KeptFrom, err = c.keptFrom(ctx, f.Since)
	return answer, err
}

func sessionOf(s *store.Session) Session {
	return Session{
		ID: s.Groups[0], User: s.User, Users: s.Users, Agents: s.Agents, UsageTotals: totalsOf(s.Sum),
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
		return SessionDetail{}, c.noSession(ctx, prefix)
	case len(ids) > 1 && ids[0] != prefix: // sorted: what is itself a prefix of others comes first
		return SessionDetail{}, refuse(http.StatusConflict, "several sessions begin with %q: %s", prefix, strings.Join(ids, ", "))
	}
	f := store.Filter{Session: ids[0], Endpoint: policy.EndpointMessages}
	found, err := c.store.Sessions(ctx, f, 1)
	if err != nil {
		return SessionDetail{}, err
	}
	if len(found) == 0 { // it only counted tokens
		return SessionDetail{}, c.noSession(ctx, prefix)
	}
	sums, err := c.store.Sums(ctx, f, store.ByAgent, store.ByParent, store.ByModel)
	if err != nil {
		return SessionDetail{}, err
	}
	return SessionDetail{Session: sessionOf(&found[0]), Tree: agentTree(sums)}, nil
}

// noSession says that a session is not known, and where those begin that can be.
func (c *Control) noSession(ctx context.Context, prefix string) error {
	kept, err := c.keptFrom(ctx, time.Time{})
	switch {
	case err != nil:
		return err
	case kept == nil:
		return notFound("session", prefix)
	}
	return refuse(http.StatusNotFound, "there is no session %q among the requests that are kept one by one, from %s on", prefix, kept.Format(time.RFC3339))
}

// agent is an agent of a session while its tree is built.
type agent struct {
	id, parent string
	sum        store.Sum
	models     []SessionModel
	children   []*agent
	placed     bool
}

// deepest is how far below the main agent an agent hangs. No honest session nears it; a made-up chain must not be as deep as it is long.
const deepest = 64

// agentTree orders sums by agent, parent and model as a tree. Clients say who spawned whom and may say anything: an agent that would not hang
// below the main agent, or too far below it, hangs directly below it.
func agentTree(sums []store.Sum) []SessionAgent {
	agents := map[string]*agent{"": {}}
	for _, s := range sums {
		id, parent, model := s.Groups[0], s.Groups[1], s.Groups[2]
		a := agents[id]
		if a == nil {
			a = &agent{id: id}
			agents[a.id] = a
		}
		if a.id != "" && (a.parent == "" || s.FirstAt.Before(a.sum.FirstAt)) {
			a.parent = cmp.Or(parent, a.parent)
		}
		a.sum.Add(s)
		a.models = append(a.models, SessionModel{model, totalsOf(s)})
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
	for _, a := range spawned { // what is left goes round in circles or is too deep
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

// appendTo appends the agent and those below it down to the deepest, each once.
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
		if child.placed || depth == deepest {
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

package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
)

type auditInput struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Rows"`
}

func (a *api) addStatus() {
	operation(a, huma.Operation{
		OperationID: "get-status", Method: http.MethodGet, Path: "/admin/v1/status", Summary: "How control and its nodes are", Tags: []string{"status"},
	}, func(ctx context.Context, _ *struct{}) (Status, error) { return a.c.Status(ctx) })
	operation(a, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/admin/v1/audit", Summary: "Recent changes, newest first", Tags: []string{"status"},
	}, func(ctx context.Context, in *auditInput) (List[AuditRow], error) {
		rows, err := a.c.store.Audit(ctx, in.Limit)
		list := List[AuditRow]{Items: []AuditRow{}}
		for _, r := range rows {
			list.Items = append(list.Items, AuditRow{
				ID: r.ID, Time: r.At, Actor: r.Actor, Action: r.Action, Kind: r.Kind, Name: r.Name, Detail: r.Detail, Version: r.Version,
			})
		}
		return list, err
	})
}

// Status says how control and its nodes are.
func (c *Control) Status(ctx context.Context) (Status, error) {
	entries, err := c.store.Count(ctx)
	if err != nil {
		return Status{}, err
	}
	state := c.state()
	status := Status{
		Version: c.options.Version, PolicyVersion: state.Version, Organization: state.Settings.Organization,
		TimeZone: state.Settings.TimeZone, StartedAt: c.started, Nodes: []NodeStatus{}, Entries: entries,
		Users: int64(len(state.Users)), Keys: int64(len(state.Keys)),
		Upstreams: int64(len(state.Upstreams)), Routes: int64(len(state.Routes)),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		status.Nodes = append(status.Nodes, NodeStatus{
			Name: n.name, Connected: c.connected(n), Applied: n.beat.Applied, Refused: n.beat.Refused, Problem: n.beat.Problem,
			LastHeartbeat: maybe(n.beatAt), Outbox: n.beat.Outbox, InFlight: n.beat.InFlight,
		})
	}
	slices.SortFunc(status.Nodes, func(a, b NodeStatus) int { return cmp.Compare(a.Name, b.Name) })
	return status, nil
}

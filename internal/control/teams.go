package control

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
	"carpool/internal/policy"
)

func (a *api) addTeams() {
	const tag, path = "teams", "/admin/v1/teams"
	operation(a, huma.Operation{
		OperationID: "list-teams", Method: http.MethodGet, Path: path, Summary: "All teams", Tags: []string{tag},
	}, func(context.Context, *struct{}) (List[Team], error) {
		list, state := List[Team]{Items: []Team{}}, a.c.state()
		for _, t := range state.Teams {
			list.Items = append(list.Items, teamOf(state, t))
		}
		return list, nil
	})
	operation(a, huma.Operation{
		OperationID: "create-team", Method: http.MethodPost, Path: path, Summary: "Make a team", Tags: []string{tag},
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *withBody[policy.TeamSpec]) (Team, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Teams, in.Body.Name) != nil {
				return exists("team", in.Body.Name)
			}
			_, err := e.applyTeam(ctx, in.Body)
			return err
		})
		if err != nil {
			return Team{}, err
		}
		return showNoun(a.c, "team", in.Body.Name, a.c.state().Teams, teamOf)
	})
	operation(a, huma.Operation{
		OperationID: "get-team", Method: http.MethodGet, Path: path + "/{name}", Summary: "One team", Tags: []string{tag},
	}, func(_ context.Context, in *byName) (Team, error) {
		return showNoun(a.c, "team", in.Name, a.c.state().Teams, teamOf)
	})
	operation(a, huma.Operation{
		OperationID: "update-team", Method: http.MethodPatch, Path: path + "/{name}", Summary: "Change a team", Tags: []string{tag},
	}, func(ctx context.Context, in *byNameWithBody[TeamPatch]) (Team, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.patchTeam(ctx, in.Name, in.Body) })
		if err != nil {
			return Team{}, err
		}
		return showNoun(a.c, "team", in.Name, a.c.state().Teams, teamOf)
	})
	removal(a, huma.Operation{
		OperationID: "delete-team", Method: http.MethodDelete, Path: path + "/{name}", Summary: "Remove a team without users", Tags: []string{tag},
	}, func(ctx context.Context, in *byName) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.deleteTeam(ctx, in.Name) })
		return err
	})
}

func teamOf(state *store.State, t store.Team) Team {
	team := Team{Name: t.Name, Limits: t.Limits, CreatedAt: t.CreatedAt}
	for _, u := range state.Users {
		if u.Team == t.Name {
			team.Users++
		}
	}
	return team
}

// showNoun finds a stored noun and presents it.
func showNoun[S named, T any](c *Control, kind, name string, list []S, present func(*store.State, S) T) (shown T, err error) {
	noun := find(list, name)
	if noun == nil {
		return shown, notFound(kind, name)
	}
	return present(c.state(), *noun), nil
}

// applyTeam makes the team or changes it to what spec says; what spec leaves out stays.
func (e *edit) applyTeam(ctx context.Context, spec policy.TeamSpec) (action string, err error) {
	if err := spec.Validate(); err != nil {
		return "", invalid(err)
	}
	team := store.Team{Name: spec.Name, CreatedAt: e.at}
	old := find(e.state.Teams, spec.Name)
	if old != nil {
		team = *old
	}
	var d diff
	setLimits(&d, &team.Limits, spec.Limits)
	return e.putTeam(ctx, team, old == nil, d)
}

func (e *edit) patchTeam(ctx context.Context, name string, patch TeamPatch) error {
	old := find(e.state.Teams, name)
	if old == nil {
		return notFound("team", name)
	}
	team := *old
	var d diff
	patchLimits(&d, &team.Limits, patch.Limits)
	if err := (policy.TeamSpec{Name: name, Limits: &team.Limits}).Validate(); err != nil {
		return invalid(err)
	}
	_, err := e.putTeam(ctx, team, false, d)
	return err
}

// putTeam stores a team that is new or differs.
func (e *edit) putTeam(ctx context.Context, team store.Team, isNew bool, d diff) (action string, err error) {
	action = ActionUpdated
	switch {
	case isNew:
		action = ActionCreated
	case d.none():
		return ActionUnchanged, nil
	}
	e.state.Teams = put(e.state.Teams, team)
	e.note(action, "team", team.Name, d.String())
	return action, e.tx.PutTeam(ctx, team)
}

func (e *edit) deleteTeam(ctx context.Context, name string) error {
	if find(e.state.Teams, name) == nil {
		return notFound("team", name)
	}
	var users, routes []string
	for _, u := range e.state.Users {
		if u.Team == name {
			users = append(users, u.Name)
		}
	}
	if len(users) > 0 {
		return refuse(http.StatusConflict, "team %q still has users: %s", name, some(users))
	}
	for _, r := range e.state.Routes {
		if slices.Contains(r.Teams, name) {
			routes = append(routes, r.Name)
		}
	}
	if len(routes) > 0 {
		return refuse(http.StatusConflict, "team %q is named by routes: %s", name, some(routes))
	}
	if err := e.checkNoBudgets(policy.Scope{Kind: policy.ScopeTeam, Name: name}); err != nil {
		return err
	}
	e.state.Teams = drop(e.state.Teams, name)
	e.note(actionDeleted, "team", name, "")
	return e.tx.DeleteTeam(ctx, name)
}

// What the audit log says besides the actions of Apply.
const (
	actionDeleted = "deleted"
	actionRotated = "rotated"
	actionReset   = "reset"
)

// some prints the first few names.
func some(names []string) string {
	const few = 5
	if len(names) > few {
		return strings.Join(names[:few], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

package control

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
	"carpool/internal/policy"
)

type usersInput struct {
	Usage bool `query:"usage" doc:"With the state of the quota windows"`
}

type userInput struct {
	Name  string `path:"name" maxLength:"200"`
	Usage bool   `query:"usage" doc:"With the state of the quota windows"`
}

func (a *api) addUsers() {
	const tag, path = "users", "/admin/v1/users"
	operation(a, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: path, Summary: "All users", Tags: []string{tag},
	}, func(ctx context.Context, in *usersInput) (List[User], error) {
		list, state := List[User]{Items: []User{}}, a.c.state()
		for _, u := range state.Users {
			list.Items = append(list.Items, userOf(state, u))
		}
		return list, a.c.addUsage(ctx, in.Usage, list.Items)
	})
	operation(a, huma.Operation{
		OperationID: "create-user", Method: http.MethodPost, Path: path, Summary: "Make a user", Tags: []string{tag},
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *withBody[policy.UserSpec]) (User, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Users, in.Body.Name) != nil {
				return exists("user", in.Body.Name)
			}
			_, err := e.applyUser(ctx, in.Body)
			return err
		})
		if err != nil {
			return User{}, err
		}
		return showNoun(a.c, "user", in.Body.Name, a.c.state().Users, userOf)
	})
	operation(a, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: path + "/{name}", Summary: "One user", Tags: []string{tag},
	}, func(ctx context.Context, in *userInput) (User, error) {
		user, err := showNoun(a.c, "user", in.Name, a.c.state().Users, userOf)
		if err != nil {
			return User{}, err
		}
		one := []User{user}
		err = a.c.addUsage(ctx, in.Usage, one)
		return one[0], err
	})
	operation(a, huma.Operation{
		OperationID: "update-user", Method: http.MethodPatch, Path: path + "/{name}", Summary: "Change a user", Tags: []string{tag},
	}, func(ctx context.Context, in *byNameWithBody[UserPatch]) (User, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.patchUser(ctx, in.Name, in.Body) })
		if err != nil {
			return User{}, err
		}
		return showNoun(a.c, "user", in.Name, a.c.state().Users, userOf)
	})
	removal(a, huma.Operation{
		OperationID: "delete-user", Method: http.MethodDelete, Path: path + "/{name}", Tags: []string{tag},
		Summary: "Remove a user and its keys; what it used stays in the books, but not in the quota of a new user of this name",
	}, func(ctx context.Context, in *byName) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.deleteUser(ctx, in.Name) })
		if err == nil {
			a.c.forgetQuota(context.WithoutCancel(ctx), in.Name)
		}
		return err
	})
}

func userOf(state *store.State, u store.User) User {
	user := User{
		Name: u.Name, Team: u.Team, Disabled: u.Disabled, Quota: quotaInForce(state, u),
		OwnQuota: policy.QuotaSpec{Daily: u.Daily, Monthly: u.Monthly}, Limits: u.Limits, CreatedAt: u.CreatedAt,
	}
	for _, k := range state.Keys {
		if k.User == u.Name {
			user.Keys++
		}
	}
	return user
}

// applyUser makes the user or changes it to what spec says; what spec leaves out stays, and it never enables a user who
// was disabled by hand.
func (e *edit) applyUser(ctx context.Context, spec policy.UserSpec) (action string, err error) {
	if err := spec.Validate(); err != nil {
		return "", invalid(err)
	}
	user := store.User{Name: spec.Name, CreatedAt: e.at}
	old := find(e.state.Users, spec.Name)
	if old != nil {
		user = *old
	}
	var d diff
	if spec.Team != "" {
		set(&d, "team", &user.Team, spec.Team)
	}
	if spec.Disabled {
		set(&d, "disabled", &user.Disabled, true)
	}
	if spec.Quota != nil {
		if spec.Quota.Daily != nil {
			set(&d, "quota.daily", &user.Daily, spec.Quota.Daily)
		}
		if spec.Quota.Monthly != nil {
			set(&d, "quota.monthly", &user.Monthly, spec.Quota.Monthly)
		}
	}
	setLimits(&d, &user.Limits, spec.Limits)
	return e.putUser(ctx, user, old == nil, d)
}

func (e *edit) patchUser(ctx context.Context, name string, patch UserPatch) error {
	old := find(e.state.Users, name)
	if old == nil {
		return notFound("user", name)
	}
	user := *old
	var d diff
	if patch.Team != nil {
		if err := (policy.UserSpec{Name: name, Team: *patch.Team}).Validate(); err != nil {
			return invalid(err)
		}
		set(&d, "team", &user.Team, *patch.Team)
	}
	if patch.Disabled != nil {
		set(&d, "disabled", &user.Disabled, *patch.Disabled)
	}
	if patch.Quota != nil {
		if daily, changes := patch.Quota.Daily.Get(); changes {
			set(&d, "quota.daily", &user.Daily, daily)
		}
		if monthly, changes := patch.Quota.Monthly.Get(); changes {
			set(&d, "quota.monthly", &user.Monthly, monthly)
		}
	}
	patchLimits(&d, &user.Limits, patch.Limits)
	spec := policy.UserSpec{Name: name, Quota: &policy.QuotaSpec{Daily: user.Daily, Monthly: user.Monthly}, Limits: &user.Limits}
	if err := spec.Validate(); err != nil {
		return invalid(err)
	}
	_, err := e.putUser(ctx, user, false, d)
	return err
}

// putUser stores a user that is new or differs, after its team.
func (e *edit) putUser(ctx context.Context, user store.User, isNew bool, d diff) (action string, err error) {
	action = ActionUpdated
	switch {
	case isNew:
		action = ActionCreated
	case d.none():
		return ActionUnchanged, nil
	}
	if user.Team != "" {
		if _, err := e.applyTeam(ctx, policy.TeamSpec{Name: user.Team}); err != nil {
			return "", err
		}
	}
	e.state.Users = put(e.state.Users, user)
	e.note(action, "user", user.Name, d.String())
	return action, e.tx.PutUser(ctx, user)
}

func (e *edit) deleteUser(ctx context.Context, name string) error {
	if find(e.state.Users, name) == nil {
		return notFound("user", name)
	}
	var routes, keys []string
	for _, r := range e.state.Routes {
		if slices.Contains(r.Users, name) {
			routes = append(routes, r.Name)
		}
	}
	if len(routes) > 0 {
		return refuse(http.StatusConflict, "user %q is named by routes: %s", name, some(routes))
	}
	if err := e.checkNoBudgets(policy.Scope{Kind: policy.ScopeUser, Name: name}); err != nil {
		return err
	}
	for _, k := range e.state.Keys {
		if k.User == name {
			keys = append(keys, k.Name)
		}
	}
	for _, key := range keys {
		if err := e.deleteKey(ctx, key); err != nil {
			return err
		}
	}
	e.state.Users = drop(e.state.Users, name)
	e.note(actionDeleted, "user", name, "")
	return e.tx.DeleteUser(ctx, name)
}

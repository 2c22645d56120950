package control

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/anthropic"
	"carpool/internal/control/store"
	"carpool/internal/policy"
)

func routeOf(_ *store.State, r policy.RouteSpec) policy.RouteSpec { return r }

func (a *api) addRoutes() {
	const tag, path = "routes", "/admin/v1/routes"
	operation(a, huma.Operation{
		OperationID: "list-routes", Method: http.MethodGet, Path: path, Summary: "All routes", Tags: []string{tag},
	}, func(context.Context, *struct{}) (List[policy.RouteSpec], error) {
		return List[policy.RouteSpec]{Items: a.c.state().Routes}, nil
	})
	operation(a, huma.Operation{
		OperationID: "create-route", Method: http.MethodPost, Path: path, Summary: "Make a route", Tags: []string{tag},
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *withBody[policy.RouteSpec]) (policy.RouteSpec, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Routes, in.Body.Name) != nil {
				return exists("route", in.Body.Name)
			}
			_, err := e.applyRoute(ctx, in.Body)
			return err
		})
		if err != nil {
			return policy.RouteSpec{}, err
		}
		return showNoun(a.c, "route", in.Body.Name, a.c.state().Routes, routeOf)
	})
	operation(a, huma.Operation{
		OperationID: "get-route", Method: http.MethodGet, Path: path + "/{name}", Summary: "One route", Tags: []string{tag},
	}, func(_ context.Context, in *byName) (policy.RouteSpec, error) {
		return showNoun(a.c, "route", in.Name, a.c.state().Routes, routeOf)
	})
	operation(a, huma.Operation{
		OperationID: "update-route", Method: http.MethodPatch, Path: path + "/{name}", Summary: "Change a route", Tags: []string{tag},
	}, func(ctx context.Context, in *byNameWithBody[RoutePatch]) (policy.RouteSpec, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.patchRoute(ctx, in.Name, in.Body) })
		if err != nil {
			return policy.RouteSpec{}, err
		}
		return showNoun(a.c, "route", in.Name, a.c.state().Routes, routeOf)
	})
	removal(a, huma.Operation{
		OperationID: "delete-route", Method: http.MethodDelete, Path: path + "/{name}", Summary: "Remove a route", Tags: []string{tag},
	}, func(ctx context.Context, in *byName) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Routes, in.Name) == nil {
				return notFound("route", in.Name)
			}
			e.state.Routes = drop(e.state.Routes, in.Name)
			e.note(actionDeleted, "route", in.Name, "")
			return e.tx.DeleteRoute(ctx, in.Name)
		})
		return err
	})
}

// applyRoute makes the route or replaces it: a route is one statement, of which every part counts.
func (e *edit) applyRoute(ctx context.Context, spec policy.RouteSpec) (action string, err error) {
	if err := spec.Validate(); err != nil {
		return "", invalid(err)
	}
	action, route := ActionUpdated, policy.RouteSpec{Name: spec.Name}
	if old := find(e.state.Routes, spec.Name); old != nil {
		route = *old
	} else {
		action = ActionCreated
	}
	var d diff
	setList(&d, "models", &route.Models, spec.Models)
	setList(&d, "upstreams", &route.Upstreams, spec.Upstreams)
	setList(&d, "users", &route.Users, spec.Users)
	setList(&d, "teams", &route.Teams, spec.Teams)
	if action == ActionUpdated && d.none() {
		return ActionUnchanged, nil
	}
	e.state.Routes = put(e.state.Routes, route)
	e.note(action, "route", route.Name, d.String())
	return action, e.tx.PutRoute(ctx, route)
}

// setList is set for lists, of which absent and empty are the same.
func setList(d *diff, name string, field *[]string, to []string) {
	if len(*field)+len(to) > 0 {
		set(d, name, field, to)
	}
}

func (e *edit) patchRoute(ctx context.Context, name string, patch RoutePatch) error {
	old := find(e.state.Routes, name)
	if old == nil {
		return notFound("route", name)
	}
	route := *old
	for _, each := range []struct{ field, to *[]string }{
		{&route.Models, patch.Models}, {&route.Upstreams, patch.Upstreams}, {&route.Users, patch.Users}, {&route.Teams, patch.Teams},
	} {
		if each.to != nil {
			*each.field = *each.to
		}
	}
	_, err := e.applyRoute(ctx, route)
	return err
}

func (a *api) addAliases() {
	const tag, path = "aliases", "/admin/v1/aliases"
	operation(a, huma.Operation{
		OperationID: "list-aliases", Method: http.MethodGet, Path: path, Summary: "All model aliases", Tags: []string{tag},
	}, func(context.Context, *struct{}) (List[policy.AliasSpec], error) {
		return List[policy.AliasSpec]{Items: a.c.state().Aliases}, nil
	})
	operation(a, huma.Operation{
		OperationID: "set-alias", Method: http.MethodPut, Path: path + "/{name}", Summary: "Make or change a model alias", Tags: []string{tag},
	}, func(ctx context.Context, in *byNameWithBody[AliasTarget]) (policy.AliasSpec, error) {
		spec := policy.AliasSpec{Name: in.Name, Model: in.Body.Model}
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if _, err := e.applyAlias(ctx, spec); err != nil {
				return err
			}
			return e.checkAlias(spec)
		})
		return spec, err
	})
	removal(a, huma.Operation{
		OperationID: "delete-alias", Method: http.MethodDelete, Path: path + "/{name}", Summary: "Remove a model alias", Tags: []string{tag},
	}, func(ctx context.Context, in *byName) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Aliases, in.Name) == nil {
				return notFound("alias", in.Name)
			}
			e.state.Aliases = drop(e.state.Aliases, in.Name)
			e.note(actionDeleted, "alias", in.Name, "")
			return e.tx.DeleteAlias(ctx, in.Name)
		})
		return err
	})
}

// applyAlias makes or changes the alias. Two aliases that requests could not tell apart are refused.
func (e *edit) applyAlias(ctx context.Context, spec policy.AliasSpec) (action string, err error) {
	if err := spec.Validate(); err != nil {
		return "", invalid(err)
	}
	action, alias := ActionUpdated, policy.AliasSpec{Name: spec.Name}
	if old := find(e.state.Aliases, spec.Name); old != nil {
		alias = *old
	} else {
		action = ActionCreated
		for _, other := range e.state.Aliases {
			if anthropic.NormalizeModel(other.Name) == anthropic.NormalizeModel(spec.Name) {
				return "", refuse(http.StatusConflict, "alias %q: to requests it is the same as alias %q", spec.Name, other.Name)
			}
		}
	}
	var d diff
	set(&d, "model", &alias.Model, spec.Model)
	if action == ActionUpdated && d.none() {
		return ActionUnchanged, nil
	}
	e.state.Aliases = put(e.state.Aliases, alias)
	e.note(action, "alias", alias.Name, d.String())
	return action, e.tx.PutAlias(ctx, alias)
}

// checkAlias refuses chains of aliases, which requests do not follow: the alias must not stand for another one, and no
// other one for it. It is for after all changes, whose order does not matter then.
func (e *edit) checkAlias(spec policy.AliasSpec) error {
	for _, other := range e.state.Aliases {
		name, model := anthropic.NormalizeModel(other.Name), anthropic.NormalizeModel(other.Model)
		if name == anthropic.NormalizeModel(spec.Model) {
			return refuse(http.StatusUnprocessableEntity, "alias %q: %q is an alias itself; an alias stands for a model id", spec.Name, spec.Model)
		}
		if model == anthropic.NormalizeModel(spec.Name) {
			return refuse(http.StatusUnprocessableEntity, "alias %q: alias %q stands for this name, and an alias stands for a model id", spec.Name, other.Name)
		}
	}
	return nil
}

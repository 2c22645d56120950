package control

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/policy"
)

func (a *api) addApply() {
	operation(a, huma.Operation{
		OperationID: "apply", Method: http.MethodPost, Path: "/admin/v1/apply", Summary: "Make a set of resources so", Tags: []string{"apply"},
		Description: "All of it or nothing. Applying it twice changes nothing the second time; what it does not name is left " +
			"alone, also the fields of a user, key or upstream that it leaves out, and nothing disabled by hand is enabled. " +
			"A route and a budget are replaced as a whole.",
		MaxBodyBytes: maxApplyBody,
	}, func(ctx context.Context, in *withBody[asWritten[ApplyRequest]]) (ApplyResult, error) {
		return a.c.Apply(ctx, in.Body.value.Resources, in.Body.value.DryRun)
	})
}

// asWritten is a body without the schema's defaults filled in: what Apply's resources leave out must stay as it is.
type asWritten[T any] struct{ value T }

// UnmarshalJSON reads the value.
func (w *asWritten[T]) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &w.value) }

// Schema is that of the value.
func (w asWritten[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

// Apply makes the resources so, in one transaction. Credentials must be resolved (see policy.Resources.ResolveSecrets).
// The error of resources that are wrong says what is wrong in one line.
func (c *Control) Apply(ctx context.Context, r policy.Resources, dryRun bool) (ApplyResult, error) {
	if err := r.Validate(); err != nil {
		return ApplyResult{}, invalid(err)
	}
	var changes []ApplyChange
	version, err := c.change(ctx, func(ctx context.Context, e *edit) (err error) {
		if changes, err = e.apply(ctx, r); err != nil {
			return err
		}
		if dryRun {
			return errDryRun
		}
		return nil
	})
	if err != nil {
		return ApplyResult{}, err
	}
	if dryRun {
		for i := range changes {
			changes[i].Key = "" // it was never stored
		}
	}
	return ApplyResult{DryRun: dryRun, Version: version, Changes: changes}, nil
}

func (e *edit) apply(ctx context.Context, r policy.Resources) ([]ApplyChange, error) {
	changes := []ApplyChange{}
	done := func(kind, name, action, key string, err error) error {
		changes = append(changes, ApplyChange{Kind: kind, Name: name, Action: action, Key: key})
		return err
	}
	for _, spec := range r.Teams {
		action, err := e.applyTeam(ctx, spec)
		if err := done("team", spec.Name, action, "", err); err != nil {
			return nil, err
		}
	}
	for _, spec := range r.Upstreams {
		action, err := e.applyUpstream(ctx, spec)
		if err := done("upstream", spec.Name, action, "", err); err != nil {
			return nil, err
		}
	}
	for _, spec := range r.Aliases {
		action, err := e.applyAlias(ctx, spec)
		if err := done("alias", spec.Name, action, "", err); err != nil {
			return nil, err
		}
	}
	for _, spec := range r.Aliases {
		if err := e.checkAlias(spec); err != nil {
			return nil, err
		}
	}
	for _, spec := range r.Routes {
		action, err := e.applyRoute(ctx, spec)
		if err := done("route", spec.Name, action, "", err); err != nil {
			return nil, err
		}
	}
	for _, spec := range r.Users {
		action, err := e.applyUser(ctx, spec)
		if err := done("user", spec.Name, action, "", err); err != nil {
			return nil, err
		}
	}
	for _, spec := range r.Keys {
		action, key, err := e.applyKey(ctx, spec)
		if spec.Key != "" {
			key = "" // whoever wrote it has it
		}
		if err := done("key", spec.Name, action, key, err); err != nil {
			return nil, err
		}
	}
	for _, spec := range r.Budgets {
		action, err := e.applyBudget(ctx, spec)
		if err := done("budget", spec.Name, action, "", err); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

package control

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

func (a *api) addUpstreams() {
	const tag, path = "upstreams", "/admin/v1/upstreams"
	operation(a, huma.Operation{
		OperationID: "list-upstreams", Method: http.MethodGet, Path: path, Summary: "All upstreams", Tags: []string{tag},
	}, func(ctx context.Context, _ *struct{}) (List[Upstream], error) {
		list, state := List[Upstream]{Items: []Upstream{}}, a.c.state()
		for _, u := range state.Upstreams {
			list.Items = append(list.Items, a.c.upstreamOf(state, u))
		}
		a.c.addHealth(ctx, list.Items)
		return list, nil
	})
	operation(a, huma.Operation{
		OperationID: "create-upstream", Method: http.MethodPost, Path: path, Summary: "Make an upstream", Tags: []string{tag},
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *withBody[policy.UpstreamSpec]) (Upstream, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Upstreams, in.Body.Name) != nil {
				return exists("upstream", in.Body.Name)
			}
			_, err := e.applyUpstream(ctx, in.Body)
			return err
		})
		if err != nil {
			return Upstream{}, err
		}
		return showNoun(a.c, "upstream", in.Body.Name, a.c.state().Upstreams, a.c.upstreamOf)
	})
	operation(a, huma.Operation{
		OperationID: "get-upstream", Method: http.MethodGet, Path: path + "/{name}", Summary: "One upstream", Tags: []string{tag},
	}, func(ctx context.Context, in *byName) (Upstream, error) {
		upstream, err := showNoun(a.c, "upstream", in.Name, a.c.state().Upstreams, a.c.upstreamOf)
		if err != nil {
			return Upstream{}, err
		}
		one := []Upstream{upstream}
		a.c.addHealth(ctx, one)
		return one[0], nil
	})
	operation(a, huma.Operation{
		OperationID: "update-upstream", Method: http.MethodPatch, Path: path + "/{name}", Summary: "Change an upstream", Tags: []string{tag},
	}, func(ctx context.Context, in *byNameWithBody[UpstreamPatch]) (Upstream, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.patchUpstream(ctx, in.Name, in.Body) })
		if err != nil {
			return Upstream{}, err
		}
		return showNoun(a.c, "upstream", in.Name, a.c.state().Upstreams, a.c.upstreamOf)
	})
	removal(a, huma.Operation{
		OperationID: "delete-upstream", Method: http.MethodDelete, Path: path + "/{name}", Tags: []string{tag},
		Summary: "Remove an upstream that no route names",
	}, func(ctx context.Context, in *byName) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.deleteUpstream(ctx, in.Name) })
		return err
	})
}

// addHealth fills in how the connected nodes find the upstreams. What no node says stays absent.
func (c *Control) addHealth(ctx context.Context, upstreams []Upstream) {
	answers, _, err := c.askAll(ctx, flushWait, fleet.CommandUpstreamHealth, nil)
	if err != nil {
		c.options.Log.WarnContext(ctx, "a node did not say how upstreams are", slog.Any("error", err))
	}
	var said []fleet.UpstreamHealth
	for _, answer := range answers {
		var health fleet.UpstreamHealth
		if err := json.Unmarshal(answer, &health); err != nil {
			c.options.Log.WarnContext(ctx, "cannot understand how upstreams are", slog.Any("error", err))
			continue
		}
		said = append(said, health)
	}
	for i := range upstreams {
		u := &upstreams[i]
		if u.Disabled || len(said) == 0 {
			continue
		}
		u.Health = HealthReady
		for _, health := range said {
			u.Cooling = worstOf(u.Cooling, health[u.Name])
		}
		if len(u.Cooling) > 0 {
			u.Health = HealthCooling
		}
	}
}

// worstOf adds what another node says: of one thing that two say, the longer time counts.
func worstOf(all, more []fleet.Cooling) []fleet.Cooling {
	for _, c := range more {
		i := slices.IndexFunc(all, func(known fleet.Cooling) bool { return known.Cause == c.Cause && known.Model == c.Model })
		if i < 0 {
			all = append(all, c)
			continue
		}
		all[i].Seconds = max(all[i].Seconds, c.Seconds)
	}
	return all
}

func (c *Control) upstreamOf(_ *store.State, u store.Upstream) Upstream {
	credential, err := c.options.MasterKey.unseal(u.Name, u.Credential)
	if err != nil { // the policy would not have compiled
		c.options.Log.Error("cannot unseal a credential", slog.String("upstream", u.Name), slog.Any("error", err))
	}
	return Upstream{
		Name: u.Name, Provider: u.Provider, BaseURL: u.BaseURL, Auth: u.Auth, Credential: c.hint(credential),
		Weight: u.Weight, Priority: u.Priority, Disabled: u.Disabled, MaxInFlight: u.MaxInFlight, Models: u.Models,
		CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
	}
}

// hint tells credentials apart without giving them away: the last four characters of one of 20 or more, and a
// fingerprint.
func (c *Control) hint(credential policy.Secret) string {
	const shown, long = 4, 20
	text := credential.Reveal()
	end := "…"
	if len(text) >= long {
		end += text[len(text)-shown:]
	}
	return end + " (" + c.options.MasterKey.fingerprint(credential) + ")"
}

// baseURL is the form in which an address is stored: without a trailing slash, and without /v1, which belongs to the
// path of each request.
func baseURL(given string) string {
	return strings.TrimRight(strings.TrimSuffix(strings.TrimRight(given, "/"), "/v1"), "/")
}

// applyUpstream makes the upstream or changes it to what spec says; what spec leaves out stays, except the priority, for
// which 0 is a value, and it never enables an upstream that was disabled by hand.
func (e *edit) applyUpstream(ctx context.Context, spec policy.UpstreamSpec) (action string, err error) {
	if err := spec.Validate(); err != nil {
		return "", invalid(err)
	}
	if spec.APIKeyEnv+spec.APIKeyFile != "" {
		return "", refuse(http.StatusUnprocessableEntity,
			"upstream %q: apiKeyEnv and apiKeyFile belong in a resource file, where carpool apply reads them; send apiKey", spec.Name)
	}
	up := store.Upstream{
		Name: spec.Name, Provider: policy.ProviderAnthropic, BaseURL: policy.DefaultBaseURL, Auth: policy.AuthAPIKey,
		Weight: 1, CreatedAt: e.at, UpdatedAt: e.at,
	}
	old := find(e.state.Upstreams, spec.Name)
	if old != nil {
		up = *old
	} else if spec.APIKey == "" {
		return "", refuse(http.StatusUnprocessableEntity,
			"upstream %q: a credential is required: apiKey, or in a resource file apiKeyEnv or apiKeyFile", spec.Name)
	}
	var d diff
	set(&d, "provider", &up.Provider, cmp.Or(spec.Provider, up.Provider))
	set(&d, "baseUrl", &up.BaseURL, cmp.Or(baseURL(spec.BaseURL), up.BaseURL))
	set(&d, "auth", &up.Auth, cmp.Or(spec.Auth, up.Auth))
	set(&d, "weight", &up.Weight, cmp.Or(spec.Weight, up.Weight))
	set(&d, "priority", &up.Priority, spec.Priority)
	if spec.Disabled {
		set(&d, "disabled", &up.Disabled, true)
	}
	set(&d, "maxInFlight", &up.MaxInFlight, cmp.Or(spec.MaxInFlight, up.MaxInFlight))
	if spec.Models != nil {
		set(&d, "models", &up.Models, spec.Models)
	}
	if spec.APIKey != "" {
		if err := e.sealCredential(&up, spec.APIKey, &d); err != nil {
			return "", err
		}
	}
	return e.putUpstream(ctx, up, old == nil, d)
}

// sealCredential replaces the credential when it is another one.
func (e *edit) sealCredential(up *store.Upstream, credential string, d *diff) (err error) {
	if up.Credential != "" {
		before, err := e.c.options.MasterKey.unseal(up.Name, up.Credential)
		if err != nil {
			return err
		}
		if before.Reveal() == credential {
			return nil
		}
	}
	d.parts = append(d.parts, "credential: "+e.c.hint(policy.NewSecret(credential)))
	up.Credential, err = e.c.options.MasterKey.seal(up.Name, policy.NewSecret(credential), e.c.options.Random)
	return err
}

func (e *edit) patchUpstream(ctx context.Context, name string, patch UpstreamPatch) error {
	old := find(e.state.Upstreams, name)
	if old == nil {
		return notFound("upstream", name)
	}
	up := *old
	var d diff
	spec := policy.UpstreamSpec{Name: name}
	if patch.BaseURL != nil {
		spec.BaseURL = *patch.BaseURL
		set(&d, "baseUrl", &up.BaseURL, cmp.Or(baseURL(*patch.BaseURL), policy.DefaultBaseURL))
	}
	if patch.Auth != nil {
		spec.Auth = *patch.Auth
		set(&d, "auth", &up.Auth, *patch.Auth)
	}
	if patch.Weight != nil {
		set(&d, "weight", &up.Weight, *patch.Weight)
	}
	if patch.Priority != nil {
		set(&d, "priority", &up.Priority, *patch.Priority)
	}
	if patch.Disabled != nil {
		set(&d, "disabled", &up.Disabled, *patch.Disabled)
	}
	if patch.MaxInFlight != nil {
		spec.MaxInFlight = *patch.MaxInFlight
		set(&d, "maxInFlight", &up.MaxInFlight, *patch.MaxInFlight)
	}
	if patch.Models != nil && len(*patch.Models)+len(up.Models) > 0 {
		set(&d, "models", &up.Models, *patch.Models)
	}
	if patch.APIKey != nil {
		spec.APIKey = *patch.APIKey
	}
	if err := spec.Validate(); err != nil {
		return invalid(err)
	}
	if spec.APIKey != "" {
		if err := e.sealCredential(&up, spec.APIKey, &d); err != nil {
			return err
		}
	}
	_, err := e.putUpstream(ctx, up, false, d)
	return err
}

func (e *edit) putUpstream(ctx context.Context, up store.Upstream, isNew bool, d diff) (action string, err error) {
	action = ActionUpdated
	switch {
	case isNew:
		action = ActionCreated
	case d.none():
		return ActionUnchanged, nil
	}
	up.UpdatedAt = e.at
	e.state.Upstreams = put(e.state.Upstreams, up)
	e.note(action, "upstream", up.Name, d.String())
	return action, e.tx.PutUpstream(ctx, up)
}

func (e *edit) deleteUpstream(ctx context.Context, name string) error {
	if find(e.state.Upstreams, name) == nil {
		return notFound("upstream", name)
	}
	var routes []string
	for _, r := range e.state.Routes {
		if slices.Contains(r.Upstreams, name) {
			routes = append(routes, r.Name)
		}
	}
	if len(routes) > 0 {
		return refuse(http.StatusConflict, "upstream %q is named by routes: %s", name, some(routes))
	}
	e.state.Upstreams = drop(e.state.Upstreams, name)
	e.note(actionDeleted, "upstream", name, "")
	return e.tx.DeleteUpstream(ctx, name)
}

package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/control/store"
	"carpool/internal/policy"
	"carpool/internal/price"
)

// compile turns what is stored into what nodes get, and checks it as a whole: references that lead nowhere are an error
// of status 422 that names them all.
func (c *Control) compile(state *store.State) (*current, error) {
	document, err := c.document(state)
	if err != nil {
		return nil, err
	}
	snapshot, err := policy.Compile(document)
	if err = errors.Join(err, checkAudiences(state)); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	next := &current{state: state, document: document, snapshot: snapshot, tokens: map[policy.KeyHash]string{}}
	for _, t := range state.Tokens {
		hash, err := t.KeyHash()
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", t.Name, err)
		}
		next.tokens[hash] = t.Name
	}
	return next, nil
}

// checkAudiences reports routes and budgets for somebody who does not exist: such a route is a typing error that would leave
// somebody without a model, and such a budget one that would leave somebody without a bound.
func checkAudiences(state *store.State) error {
	var wrong []error
	for _, r := range state.Routes {
		for _, name := range r.Users {
			if find(state.Users, name) == nil {
				wrong = append(wrong, fmt.Errorf("route %q: there is no user %q", r.Name, name))
			}
		}
		for _, name := range r.Teams {
			if find(state.Teams, name) == nil {
				wrong = append(wrong, fmt.Errorf("route %q: there is no team %q", r.Name, name))
			}
		}
	}
	for _, b := range state.Budgets {
		scope, err := policy.ParseScope(b.Scope)
		if err != nil {
			continue // policy.Compile says so
		}
		found := true
		switch scope.Kind {
		case policy.ScopeTeam:
			found = find(state.Teams, scope.Name) != nil
		case policy.ScopeUser:
			found = find(state.Users, scope.Name) != nil
		case policy.ScopeKey:
			found = find(state.Keys, scope.Name) != nil
		}
		if !found {
			wrong = append(wrong, fmt.Errorf("budget %q: there is no %s %q", b.Name, scope.Kind, scope.Name))
		}
	}
	return errors.Join(wrong...)
}

func (c *Control) document(state *store.State) (*policy.Document, error) {
	doc := &policy.Document{
		Version: state.Version, Settings: state.Settings, Aliases: state.Aliases, Routes: state.Routes, Budgets: state.Budgets,
	}
	for _, u := range state.Upstreams {
		credential, err := c.options.MasterKey.unseal(u.Name, u.Credential)
		if err != nil {
			return nil, fmt.Errorf("cannot unseal the credential of upstream %q: %w", u.Name, err)
		}
		doc.Upstreams = append(doc.Upstreams, policy.Upstream{
			Name: u.Name, Provider: u.Provider, BaseURL: u.BaseURL, Credential: credential, Auth: u.Auth,
			Weight: u.Weight, Priority: u.Priority, Disabled: u.Disabled, MaxInFlight: u.MaxInFlight, Models: normalizeModels(u.Models),
		})
	}
	for _, t := range state.Teams {
		if t.Limits != (policy.LimitsSpec{}) {
			doc.Teams = append(doc.Teams, policy.Team{Name: t.Name, Limits: t.Limits})
		}
	}
	for _, u := range state.Users {
		doc.Users = append(doc.Users, policy.User{
			Name: u.Name, Team: u.Team, Disabled: u.Disabled, Quota: quotaInForce(state, u), Limits: u.Limits,
		})
	}
	keys := make(map[string]store.Key, len(state.Keys))
	for _, k := range state.Keys {
		keys[k.Name] = k
	}
	for _, s := range state.Secrets {
		hash, err := s.KeyHash()
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", s.Key, err)
		}
		k := keys[s.Key]
		doc.Keys = append(doc.Keys, policy.Key{
			ID: s.ID, Name: k.Name, User: k.User, Hash: hash, Disabled: k.Disabled, ExpiresAt: earliest(k.ExpiresAt, s.RetiresAt),
			Limits: ownLimits(k).Or(state.Settings.DefaultLimits), Scope: k.Scope,
		})
	}
	return doc, nil
}

func quotaInForce(state *store.State, u store.User) policy.Quota {
	quota := state.DefaultQuota
	if u.Daily != nil {
		quota.Daily = *u.Daily
	}
	if u.Monthly != nil {
		quota.Monthly = *u.Monthly
	}
	return quota
}

func normalizeModels(models map[string]string) map[string]string {
	if len(models) == 0 {
		return nil
	}
	normal := make(map[string]string, len(models))
	for asked, sent := range models {
		normal[anthropic.NormalizeModel(asked)] = sent
	}
	return normal
}

// earliest returns the earlier of two times of which each may be absent; zero when both are.
func earliest(a, b *time.Time) time.Time {
	switch {
	case a == nil && b == nil:
		return time.Time{}
	case a == nil || (b != nil && b.Before(*a)):
		return *b
	}
	return *a
}

// named is every noun of the policy.
type named interface {
	store.Team | store.User | store.Key | store.Upstream | store.Token | policy.RouteSpec | policy.AliasSpec | policy.BudgetSpec
}

func nameOf[T named](noun *T) string {
	switch n := any(noun).(type) {
	case *store.Team:
		return n.Name
	case *store.User:
		return n.Name
	case *store.Key:
		return n.Name
	case *store.Upstream:
		return n.Name
	case *store.Token:
		return n.Name
	case *policy.RouteSpec:
		return n.Name
	case *policy.AliasSpec:
		return n.Name
	case *policy.BudgetSpec:
		return n.Name
	}
	return ""
}

// find returns the noun of this name in a list, or nil.
func find[T named](list []T, name string) *T {
	for i := range list {
		if nameOf(&list[i]) == name {
			return &list[i]
		}
	}
	return nil
}

// put adds a noun to a list or replaces the one of its name.
func put[T named](list []T, noun T) []T {
	if old := find(list, nameOf(&noun)); old != nil {
		*old = noun
		return list
	}
	return append(list, noun)
}

// drop removes the noun of this name from a list.
func drop[T named](list []T, name string) []T {
	return slices.DeleteFunc(list, func(noun T) bool { return nameOf(&noun) == name })
}

// show prints a value for the audit log and for people.
func show(value any) string {
	switch v := value.(type) {
	case string:
		if v == "" {
			return "none"
		}
		return v
	case *int:
		if v == nil {
			return "default"
		}
		return fmt.Sprint(*v)
	case *int64:
		if v == nil {
			return "default"
		}
		return fmt.Sprint(*v)
	case *time.Time:
		if v == nil {
			return "never"
		}
		return v.UTC().Format(time.RFC3339)
	case []string:
		if len(v) == 0 {
			return "none"
		}
		return strings.Join(v, ",")
	case map[string]string:
		parts := []string{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, k+"="+v[k])
		}
		return show(parts)
	case price.Overlay:
		text, err := json.Marshal(v)
		if err != nil || string(text) == "{}" {
			return "as published"
		}
		return string(text)
	}
	return fmt.Sprintf("%+v", value)
}

func (d *diff) String() string { return strings.Join(d.parts, "; ") }

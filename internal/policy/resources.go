package policy

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"carpool/internal/anthropic"
	"carpool/internal/quota"
)

// Unlimited is the quota or limit that never runs out.
const Unlimited = quota.Unlimited

// Resources is a declarative set of nouns: the form of `carpool apply -f`, of the configuration key `resources`, and, one
// noun at a time, of the admin API. Applying it twice changes nothing the second time; what it does not name is left alone.
type Resources struct {
	Teams     []TeamSpec     `json:"teams,omitempty" yaml:"teams,omitempty"`
	Upstreams []UpstreamSpec `json:"upstreams,omitempty" yaml:"upstreams,omitempty"`
	Aliases   []AliasSpec    `json:"aliases,omitempty" yaml:"aliases,omitempty"`
	Routes    []RouteSpec    `json:"routes,omitempty" yaml:"routes,omitempty"`
	Users     []UserSpec     `json:"users,omitempty" yaml:"users,omitempty"`
	Keys      []KeySpec      `json:"keys,omitempty" yaml:"keys,omitempty"`
	Budgets   []BudgetSpec   `json:"budgets,omitempty" yaml:"budgets,omitempty"`
}

// TeamSpec describes a team. Its Limits are for all of its users together.
type TeamSpec struct {
	Name   string      `json:"name" yaml:"name" doc:"Unique name" example:"platform"`
	Limits *LimitsSpec `json:"limits,omitempty" yaml:"limits,omitempty" doc:"Rates of all its users together"`
}

// UpstreamSpec describes a provider endpoint with one credential.
type UpstreamSpec struct {
	Name        string            `json:"name" yaml:"name" doc:"Unique name" example:"main"`
	Provider    string            `json:"provider,omitempty" yaml:"provider,omitempty" doc:"Dialect of the endpoint" enum:"anthropic" default:"anthropic"`
	BaseURL     string            `json:"baseUrl,omitempty" yaml:"baseUrl,omitempty" doc:"Address without /v1" default:"https://api.anthropic.com"`
	APIKey      string            `json:"apiKey,omitempty" yaml:"apiKey,omitempty" doc:"The credential; never shown again"`
	APIKeyEnv   string            `json:"apiKeyEnv,omitempty" yaml:"apiKeyEnv,omitempty" doc:"In a resource file: environment variable that holds the credential"`
	APIKeyFile  string            `json:"apiKeyFile,omitempty" yaml:"apiKeyFile,omitempty" doc:"In a resource file: file that holds the credential"`
	Auth        string            `json:"auth,omitempty" yaml:"auth,omitempty" doc:"How the credential is sent" enum:"x-api-key,bearer" default:"x-api-key"`
	Weight      int               `json:"weight,omitempty" yaml:"weight,omitempty" doc:"Share of the requests among upstreams of the same priority" minimum:"1" default:"1"`
	Priority    int               `json:"priority,omitempty" yaml:"priority,omitempty" doc:"Lower is used first"`
	Disabled    bool              `json:"disabled,omitempty" yaml:"disabled,omitempty" doc:"Takes no requests"`
	MaxInFlight int               `json:"maxInFlight,omitempty" yaml:"maxInFlight,omitempty" doc:"Requests at the same time; more wait briefly or go elsewhere; 0: no cap" minimum:"0"`
	Models      map[string]string `json:"models,omitempty" yaml:"models,omitempty" doc:"Model ids that this upstream knows by another name: asked id to sent id"`
}

// RouteSpec says which upstreams serve which models for whom. Of several routes that fit, the one with the most specific
// model pattern is used, and among equals one that names the user or team.
type RouteSpec struct {
	Name      string   `json:"name" yaml:"name" doc:"Unique name" example:"default"`
	Models    []string `json:"models,omitempty" yaml:"models,omitempty" doc:"Model ids or patterns in which * stands for any text; default all"`
	Upstreams []string `json:"upstreams" yaml:"upstreams" doc:"Names of the upstreams that serve them"`
	Users     []string `json:"users,omitempty" yaml:"users,omitempty" doc:"Only for these users"`
	Teams     []string `json:"teams,omitempty" yaml:"teams,omitempty" doc:"Only for these teams"`
}

// AliasSpec gives a model a further name. An alias stands for a model, never for another alias: the name it stands for is
// not looked up a second time.
type AliasSpec struct {
	Name  string `json:"name" yaml:"name" doc:"What the client asks for" example:"fast"`
	Model string `json:"model" yaml:"model" doc:"The model id it stands for" example:"claude-haiku-4-5"`
}

// UserSpec describes a user. Of the quota, what is absent takes the configured default.
type UserSpec struct {
	Name     string      `json:"name" yaml:"name" doc:"Unique name" example:"alice"`
	Team     string      `json:"team,omitempty" yaml:"team,omitempty" doc:"Team; made when it does not exist"`
	Disabled bool        `json:"disabled,omitempty" yaml:"disabled,omitempty" doc:"All keys of the user are refused"`
	Quota    *QuotaSpec  `json:"quota,omitempty" yaml:"quota,omitempty" doc:"Tokens per day and month"`
	Limits   *LimitsSpec `json:"limits,omitempty" yaml:"limits,omitempty" doc:"Rates"`
}

// QuotaSpec is a user's tokens per calendar window. Nil is the default quota, Unlimited (-1) none, 0 nothing at all.
type QuotaSpec struct {
	Daily   *int64 `json:"daily,omitempty" yaml:"daily,omitempty" doc:"Tokens a calendar day; -1 unlimited" minimum:"-1"`
	Monthly *int64 `json:"monthly,omitempty" yaml:"monthly,omitempty" doc:"Tokens a calendar month; -1 unlimited" minimum:"-1"`
}

// KeySpec describes a developer's API key.
type KeySpec struct {
	Name      string         `json:"name" yaml:"name" doc:"Unique name" example:"alice-laptop"`
	User      string         `json:"user" yaml:"user" doc:"Owner"`
	Key       string         `json:"key,omitempty" yaml:"key,omitempty" doc:"A given key of 20 or more characters; generated when absent"`
	Disabled  bool           `json:"disabled,omitempty" yaml:"disabled,omitempty" doc:"The key is refused"`
	ExpiresAt *time.Time     `json:"expiresAt,omitempty" yaml:"expiresAt,omitempty" doc:"The key is refused from this time on"`
	Limits    *KeyLimitsSpec `json:"limits,omitempty" yaml:"limits,omitempty" doc:"Rates of this key, besides those of its user and team"`
	Scope     *ScopeSpec     `json:"scope,omitempty" yaml:"scope,omitempty" doc:"What the key may be used for"`
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

func checkName(kind, name string) error {
	if name == "" {
		return fmt.Errorf("%s: name is required", kind)
	}
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s %q: a name has 1 to 63 letters, digits, '.', '_', '@' or '-' and starts with a letter or digit", kind, name)
	}
	return nil
}

// Validate reports the first thing wrong with the team by itself.
func (t TeamSpec) Validate() error {
	if err := checkName("team", t.Name); err != nil {
		return err
	}
	return t.Limits.check("team", t.Name)
}

// Validate reports the first thing wrong with the upstream by itself.
func (u UpstreamSpec) Validate() error {
	if err := checkName("upstream", u.Name); err != nil {
		return err
	}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("upstream %q: "+format, append([]any{u.Name}, args...)...)
	}
	if u.Provider != "" && u.Provider != ProviderAnthropic {
		return fail("unknown provider %q; known: %s", u.Provider, ProviderAnthropic)
	}
	if u.Auth != "" && u.Auth != AuthAPIKey && u.Auth != AuthBearer {
		return fail("unknown auth %q; known: %s, %s", u.Auth, AuthAPIKey, AuthBearer)
	}
	if u.Weight < 0 {
		return fail("weight must be 1 or more")
	}
	if u.MaxInFlight < 0 {
		return fail("maxInFlight must not be negative; 0 is no cap")
	}
	if u.BaseURL != "" {
		base, err := url.Parse(u.BaseURL)
		if err != nil || base.Hostname() == "" || (base.Scheme != "http" && base.Scheme != "https") {
			return fail("baseUrl must be like https://api.anthropic.com")
		}
		if base.RawQuery != "" || base.Fragment != "" || base.User != nil {
			return fail("baseUrl must not have a query, a fragment or credentials")
		}
	}
	if strings.ContainsFunc(u.APIKey, unicode.IsControl) {
		return fail("apiKey holds a line break or another control character; only the key itself belongs there")
	}
	return nil
}

// Validate reports the first thing wrong with the route by itself.
func (r RouteSpec) Validate() error {
	if err := checkName("route", r.Name); err != nil {
		return err
	}
	if len(r.Upstreams) == 0 {
		return fmt.Errorf("route %q: upstreams is required: name at least one", r.Name)
	}
	for _, m := range r.Models {
		if strings.TrimSpace(m) == "" {
			return fmt.Errorf("route %q: a model pattern is empty; use \"*\" for all models", r.Name)
		}
	}
	return nil
}

// Validate reports the first thing wrong with the alias by itself.
func (a AliasSpec) Validate() error {
	if strings.TrimSpace(a.Name) == "" || strings.TrimSpace(a.Model) == "" {
		return fmt.Errorf("alias %q: name and model are required", a.Name)
	}
	if strings.Contains(a.Name+a.Model, "*") {
		return fmt.Errorf("alias %q: an alias stands for one model; patterns with * belong in a route", a.Name)
	}
	if anthropic.NormalizeModel(a.Name) == anthropic.NormalizeModel(a.Model) {
		return fmt.Errorf("alias %q: it stands for itself; an alias stands for the id of a model", a.Name)
	}
	if len(a.Name) > 200 || len(a.Model) > 200 {
		return fmt.Errorf("alias %q: a model id has at most 200 characters", a.Name)
	}
	return nil
}

// Validate reports the first thing wrong with the user by itself.
func (u UserSpec) Validate() error {
	if err := checkName("user", u.Name); err != nil {
		return err
	}
	if u.Team != "" {
		if err := checkName("team", u.Team); err != nil {
			return fmt.Errorf("user %q: %w", u.Name, err)
		}
	}
	if u.Quota != nil {
		for _, window := range []struct {
			name  string
			limit *int64
		}{{"daily", u.Quota.Daily}, {"monthly", u.Quota.Monthly}} {
			if window.limit != nil && *window.limit < Unlimited {
				return fmt.Errorf("user %q: quota.%s must be a number of tokens, or -1 for unlimited", u.Name, window.name)
			}
		}
	}
	return u.Limits.check("user", u.Name)
}

// Validate reports the first thing wrong with the key by itself.
func (k KeySpec) Validate() error {
	if err := checkName("key", k.Name); err != nil {
		return err
	}
	if k.User == "" {
		return fmt.Errorf("key %q: user is required", k.Name)
	}
	if err := k.Limits.check(k.Name); err != nil {
		return err
	}
	if err := k.Scope.Validate(); err != nil {
		return fmt.Errorf("key %q: %w", k.Name, err)
	}
	if k.Key == "" {
		return nil
	}
	if len(k.Key) < minGivenKey || len(k.Key) > 512 {
		return fmt.Errorf("key %q: a given key needs %d to 512 characters", k.Name, minGivenKey)
	}
	for _, c := range []byte(k.Key) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("key %q: a key has printable ASCII characters without spaces only", k.Name)
		}
	}
	return nil
}

// Validate reports the first noun that is wrong by itself, names that occur twice, and aliases of aliases.
func (r Resources) Validate() error {
	seen := map[string]bool{}
	check := func(kind, name string, err error) error {
		if err != nil {
			return err
		}
		if seen[kind+"/"+name] {
			return fmt.Errorf("%s %q is declared twice", kind, name)
		}
		seen[kind+"/"+name] = true
		return nil
	}
	for _, v := range r.Teams {
		if err := check("team", v.Name, v.Validate()); err != nil {
			return err
		}
	}
	for _, v := range r.Upstreams {
		if err := check("upstream", v.Name, v.Validate()); err != nil {
			return err
		}
	}
	for _, v := range r.Aliases {
		if err := check("alias", v.Name, v.Validate()); err != nil {
			return err
		}
		isModel := func(other AliasSpec) bool {
			return anthropic.NormalizeModel(other.Name) == anthropic.NormalizeModel(v.Model)
		}
		if slices.ContainsFunc(r.Aliases, isModel) {
			return fmt.Errorf("alias %q: %q is an alias itself; an alias stands for a model id", v.Name, v.Model)
		}
	}
	for _, v := range r.Routes {
		if err := check("route", v.Name, v.Validate()); err != nil {
			return err
		}
	}
	for _, v := range r.Users {
		if err := check("user", v.Name, v.Validate()); err != nil {
			return err
		}
	}
	for _, v := range r.Keys {
		if err := check("key", v.Name, v.Validate()); err != nil {
			return err
		}
	}
	for _, v := range r.Budgets {
		if err := check("budget", v.Name, v.Validate()); err != nil {
			return err
		}
	}
	return nil
}

// Reference is a name by which one resource refers to another.
type Reference struct {
	Of, OfName string   // the resource: its kind and name
	Kind, Name string   // what it refers to
	Declared   []string // what the same set declares of this kind
}

// Undeclared returns the references that lead out of the set. They are right where what they name exists already, and typing
// errors otherwise.
func (r Resources) Undeclared() []Reference {
	declared := map[string][]string{}
	add := func(kind, name string) {
		if name != "" && !slices.Contains(declared[kind], name) {
			declared[kind] = append(declared[kind], name)
		}
	}
	for _, t := range r.Teams {
		add("team", t.Name)
	}
	for _, u := range r.Upstreams {
		add("upstream", u.Name)
	}
	for _, u := range r.Users {
		add("user", u.Name)
		add("team", u.Team)
	}
	for _, k := range r.Keys {
		add("key", k.Name)
	}
	var outside []Reference
	check := func(of, ofName, kind string, names ...string) {
		for _, name := range names {
			if !slices.Contains(declared[kind], name) {
				outside = append(outside, Reference{of, ofName, kind, name, declared[kind]})
			}
		}
	}
	for _, route := range r.Routes {
		check("route", route.Name, "upstream", route.Upstreams...)
		check("route", route.Name, "user", route.Users...)
		check("route", route.Name, "team", route.Teams...)
	}
	for _, key := range r.Keys {
		check("key", key.Name, "user", key.User)
	}
	for _, b := range r.Budgets {
		if scope, err := ParseScope(b.Scope); err == nil && scope.Name != "" {
			check("budget", b.Name, scope.Kind, scope.Name)
		}
	}
	return outside
}

// ResolveSecrets replaces apiKeyEnv and apiKeyFile by the credential they name. It is done where the file is read, so
// that a name means the reader's environment.
func (r Resources) ResolveSecrets(getenv func(string) (string, bool), readFile func(string) ([]byte, error)) (Resources, error) {
	upstreams := make([]UpstreamSpec, len(r.Upstreams))
	for i, u := range r.Upstreams {
		named := 0
		for _, v := range []string{u.APIKey, u.APIKeyEnv, u.APIKeyFile} {
			if v != "" {
				named++
			}
		}
		if named > 1 {
			return r, fmt.Errorf("upstream %q: give one of apiKey, apiKeyEnv and apiKeyFile", u.Name)
		}
		switch {
		case u.APIKeyEnv != "":
			value, ok := getenv(u.APIKeyEnv)
			if !ok || value == "" {
				return r, fmt.Errorf("upstream %q: the environment variable %s (apiKeyEnv) is not set", u.Name, u.APIKeyEnv)
			}
			u.APIKey = strings.TrimSpace(value)
		case u.APIKeyFile != "":
			data, err := readFile(u.APIKeyFile)
			if err != nil {
				return r, fmt.Errorf("upstream %q: cannot read apiKeyFile: %w", u.Name, err)
			}
			if u.APIKey = strings.TrimSpace(string(data)); u.APIKey == "" {
				return r, fmt.Errorf("upstream %q: apiKeyFile %s is empty", u.Name, u.APIKeyFile)
			}
		}
		u.APIKeyEnv, u.APIKeyFile = "", ""
		upstreams[i] = u
	}
	r.Upstreams = upstreams
	return r, nil
}

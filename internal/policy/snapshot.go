package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

// Snapshot is a compiled Document. It is immutable and safe for concurrent use; a request pins one for its whole life.
type Snapshot struct {
	Version  int64
	Settings Settings
	Location *time.Location
	Prices   *price.Table // the published ones under those of the settings

	keys      map[KeyHash]Caller
	users     map[string]*User
	upstreams map[string]*Upstream
	aliases   map[string]string
	rules     []rule // most specific first
	budgets   []*Budget
}

// Caller is a key with its owner and, where that has anything to say, the owner's team.
type Caller struct {
	Key  *Key
	User *User
	Team *Team // nil: nothing is said of it

	// Organization is everybody, as one team; nil: nothing is said of it.
	Organization *Team

	// Budgets are all that a request of the caller must fit into.
	Budgets []Account

	scope *scope
}

// Target is where a model's requests may go.
type Target struct {
	Route     string
	Model     string      // what the alias stands for, or what was asked
	Upstreams []*Upstream // enabled ones, lowest priority number first
}

type rule struct {
	pattern   pattern
	route     *RouteSpec
	users     map[string]bool
	teams     map[string]bool
	upstreams []*Upstream
}

func (r *rule) admits(u *User) bool {
	return (r.users == nil && r.teams == nil) || r.users[u.Name] || (u.Team != "" && r.teams[u.Team])
}

// Compile checks a document as a whole and builds the look-ups, which refer to the document: it must not change afterwards.
// The error names every key whose user does not exist or whose hash another key has, and every upstream of a route that
// does not exist; users and teams of a route may be missing, it then admits fewer.
func Compile(doc *Document) (*Snapshot, error) {
	location, err := time.LoadLocation(doc.Settings.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known", doc.Settings.TimeZone)
	}
	prices, err := price.New(doc.Settings.Prices)
	if err != nil {
		return nil, fmt.Errorf("cannot use the prices: %w", err)
	}
	s := &Snapshot{
		Version: doc.Version, Settings: doc.Settings, Location: location, Prices: prices,
		keys: make(map[KeyHash]Caller, len(doc.Keys)), users: make(map[string]*User, len(doc.Users)),
		upstreams: map[string]*Upstream{}, aliases: map[string]string{},
	}
	for i := range doc.Upstreams {
		s.upstreams[doc.Upstreams[i].Name] = &doc.Upstreams[i]
	}
	for _, a := range doc.Aliases {
		s.aliases[anthropic.NormalizeModel(a.Name)] = a.Model
	}
	for i := range doc.Users {
		s.users[doc.Users[i].Name] = &doc.Users[i]
	}
	teams := make(map[string]*Team, len(doc.Teams))
	for i := range doc.Teams {
		teams[doc.Teams[i].Name] = &doc.Teams[i]
	}
	var everybody *Team
	if doc.Settings.Limits != (LimitsSpec{}) {
		everybody = &Team{Name: doc.Settings.Organization, Limits: doc.Settings.Limits}
	}
	wrong := s.compileBudgets(doc.Budgets)
	for i := range doc.Keys {
		key := &doc.Keys[i]
		user, ok := s.users[key.User]
		if !ok {
			wrong = append(wrong, fmt.Errorf("key %q: there is no user %q", key.Name, key.User))
			continue
		}
		if twin, ok := s.keys[key.Hash]; ok {
			wrong = append(wrong, fmt.Errorf("key %q is the same as key %q", key.Name, twin.Key.Name))
			continue
		}
		s.keys[key.Hash] = Caller{Key: key, User: user, Team: teams[user.Team], Organization: everybody, Budgets: s.budgetsOf(key, user), scope: s.compileScope(&key.Scope)}
	}
	for i := range doc.Routes {
		rules, err := s.compileRoute(&doc.Routes[i])
		wrong = append(wrong, err)
		s.rules = append(s.rules, rules...)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.rules, compareRules)
	return s, nil
}

func (s *Snapshot) compileRoute(r *RouteSpec) ([]rule, error) {
	base := rule{route: r, users: set(r.Users), teams: set(r.Teams)}
	var wrong []error
	for _, name := range r.Upstreams {
		u, ok := s.upstreams[name]
		if !ok {
			wrong = append(wrong, fmt.Errorf("route %q: there is no upstream %q", r.Name, name))
			continue
		}
		if !u.Disabled {
			base.upstreams = append(base.upstreams, u)
		}
	}
	slices.SortStableFunc(base.upstreams, func(a, b *Upstream) int { return cmp.Compare(a.Priority, b.Priority) })
	models := r.Models
	if len(models) == 0 {
		models = []string{"*"}
	}
	rules := make([]rule, 0, len(models))
	for _, m := range models {
		each := base
		each.pattern = pattern(anthropic.NormalizeModel(m))
		rules = append(rules, each)
	}
	return rules, errors.Join(wrong...)
}

func compareRules(a, b rule) int {
	return cmp.Or(
		-cmp.Compare(a.pattern.specificity(), b.pattern.specificity()),
		-cmp.Compare(a.audience(), b.audience()),
		cmp.Compare(a.route.Name, b.route.Name),
	)
}

func (r *rule) audience() int {
	switch {
	case r.users != nil:
		return 2
	case r.teams != nil:
		return 1
	}
	return 0
}

func set(names []string) map[string]bool {
	if len(names) == 0 {
		return nil
	}
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// Caller returns the key with this hash and its owner. Disabled and expired keys are found too.
func (s *Snapshot) Caller(hash KeyHash) (Caller, bool) {
	c, ok := s.keys[hash]
	return c, ok
}

// User returns the user of this name, or nil.
func (s *Snapshot) User(name string) *User { return s.users[name] }

// Users returns all users ordered by name.
func (s *Snapshot) Users() []*User {
	return slices.SortedFunc(maps.Values(s.users), func(a, b *User) int { return cmp.Compare(a.Name, b.Name) })
}

// Upstream returns the upstream of this name, or nil.
func (s *Snapshot) Upstream(name string) *Upstream { return s.upstreams[name] }

// StrayPrices returns the upstreams that the prices name and that do not exist (yet), in order.
func (s *Snapshot) StrayPrices() []string {
	return slices.DeleteFunc(s.Settings.Prices.Upstreams(), func(name string) bool { return s.upstreams[name] != nil })
}

// Upstreams returns all upstreams, disabled ones too, ordered by name.
func (s *Snapshot) Upstreams() []*Upstream {
	return slices.SortedFunc(maps.Values(s.upstreams), func(a, b *Upstream) int { return cmp.Compare(a.Name, b.Name) })
}

// Resolve returns where a caller's requests for a model go; ok is false when no route admits the user to the model, or the
// key's scope does not have it. A target without upstreams means that all of the route's upstreams are disabled. Of the
// caller only the user is necessary.
func (s *Snapshot) Resolve(c Caller, asked string) (t Target, ok bool) {
	model := asked
	if aliased, is := s.aliases[anthropic.NormalizeModel(asked)]; is {
		model = aliased
	}
	name := anthropic.NormalizeModel(model)
	if !c.scope.admitsModel(name) {
		return Target{}, false
	}
	for i := range s.rules {
		r := &s.rules[i]
		if r.admits(c.User) && r.pattern.matches(name) {
			return Target{Route: r.route.Name, Model: model, Upstreams: r.upstreams}, true
		}
	}
	return Target{}, false
}

// NamedModels returns the model ids a caller may use that the policy names outright: aliases and routes without a
// wildcard, ordered and without repetition.
func (s *Snapshot) NamedModels(c Caller) []string {
	var ids []string
	for alias := range s.aliases {
		ids = append(ids, alias)
	}
	for i := range s.rules {
		if p := s.rules[i].pattern; !p.wild() {
			ids = append(ids, string(p))
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return slices.DeleteFunc(ids, func(id string) bool { _, ok := s.Resolve(c, id); return !ok })
}

// PermittedModels returns what a caller may ask for, in the words of the policy: named models, and the patterns of the key's
// scope or, without one, of routes.
func (s *Snapshot) PermittedModels(c Caller) []string {
	ids := s.NamedModels(c)
	if c.Key != nil && len(c.Key.Scope.Models) > 0 {
		ids = append(ids, c.Key.Scope.Models...)
		slices.Sort(ids)
		return slices.Compact(ids)
	}
	for i := range s.rules {
		if r := &s.rules[i]; r.pattern.wild() && r.admits(c.User) && !slices.Contains(ids, string(r.pattern)) {
			ids = append(ids, string(r.pattern))
		}
	}
	return ids
}

// UpstreamModel returns the id to send to an upstream for a model: its own name for it, or the model unchanged without
// the client's [1m] notation.
func UpstreamModel(u *Upstream, model string) string {
	if id, ok := u.Models[anthropic.NormalizeModel(model)]; ok {
		return id
	}
	return withoutNotation(model)
}

// withoutNotation removes what Claude Code appends to a model id, in either case, to ask for the context of a million tokens.
func withoutNotation(id string) string {
	const notation = "[1m]"
	if end := len(id) - len(notation); end >= 0 && strings.EqualFold(id[end:], notation) {
		return id[:end]
	}
	return id
}

// pattern is a normalised model id in which * stands for any text.
type pattern string

func (p pattern) wild() bool { return strings.Contains(string(p), "*") }

// specificity orders patterns: one without a wildcard before all others, then by the number of literal characters.
func (p pattern) specificity() int {
	literal := len(p) - strings.Count(string(p), "*")
	if !p.wild() {
		literal += 1 << 20
	}
	return literal
}

func (p pattern) matches(name string) bool {
	literal, rest, wild := strings.Cut(string(p), "*")
	if !wild {
		return literal == name
	}
	name, ok := strings.CutPrefix(name, literal)
	for ok && wild {
		literal, rest, wild = strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(name, literal)
		}
		_, name, ok = strings.Cut(name, literal)
	}
	return false
}

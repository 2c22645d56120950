package control

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// Change is one field of a PATCH body that knows three states: absent (the zero Change; the field stays as it is), null
// (back to the default) and a value.
type Change[T any] struct {
	set   bool
	value *T
}

// To is the Change to a value.
func To[T any](value T) Change[T] { return Change[T]{set: true, value: &value} }

// ToDefault is the Change back to the default: null in JSON.
func ToDefault[T any]() Change[T] { return Change[T]{set: true} }

// IsZero reports whether the field stays as it is.
func (c Change[T]) IsZero() bool { return !c.set }

// Get returns whether the field changes, and to what; nil is the default.
func (c Change[T]) Get() (value *T, changes bool) { return c.value, c.set }

// MarshalJSON writes the value or null.
func (c Change[T]) MarshalJSON() ([]byte, error) { return json.Marshal(c.value) }

// UnmarshalJSON reads a value or null.
func (c *Change[T]) UnmarshalJSON(data []byte) error {
	c.set, c.value = true, nil
	return json.Unmarshal(data, &c.value)
}

// Schema describes the field in the OpenAPI document: the value's own schema, or null.
func (c Change[T]) Schema(r huma.Registry) *huma.Schema {
	s := *huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = true
	return &s
}

// List is the answer of every listing.
type List[T any] struct {
	Items []T `json:"items" nullable:"false" doc:"In the order of their names unless the operation says otherwise"`
}

// Team is a team.
type Team struct {
	Name      string            `json:"name" doc:"Unique name"`
	Users     int64             `json:"users" doc:"How many users belong to it"`
	Limits    policy.LimitsSpec `json:"limits" doc:"Rates of all its users together"`
	CreatedAt time.Time         `json:"createdAt"`
}

// TeamPatch changes a team; what is absent stays.
type TeamPatch struct {
	Limits *LimitsPatch `json:"limits,omitempty"`
}

// User is a user as the admin API shows it.
type User struct {
	Name      string            `json:"name" doc:"Unique name"`
	Team      string            `json:"team,omitempty"`
	Disabled  bool              `json:"disabled" doc:"All keys of the user are refused"`
	Quota     policy.Quota      `json:"quota" doc:"Tokens per calendar window in force; -1 unlimited"`
	OwnQuota  policy.QuotaSpec  `json:"ownQuota" doc:"The part of the quota that is set for this user; what is absent follows the default"`
	Limits    policy.LimitsSpec `json:"limits" doc:"Rates"`
	Keys      int64             `json:"keys" doc:"How many keys the user has"`
	CreatedAt time.Time         `json:"createdAt"`
	Usage     *fleet.UserQuota  `json:"usage,omitempty" doc:"State of the quota windows, when asked for and a node is connected"`
}

// UserPatch changes a user; what is absent stays.
type UserPatch struct {
	Team     *string      `json:"team,omitempty" doc:"Team, made when it does not exist; empty for none"`
	Disabled *bool        `json:"disabled,omitempty" doc:"All keys of the user are refused"`
	Quota    *QuotaPatch  `json:"quota,omitempty"`
	Limits   *LimitsPatch `json:"limits,omitempty"`
}

// QuotaPatch changes a user's quota. Null is the default quota, -1 unlimited.
type QuotaPatch struct {
	Daily   Change[int64] `json:"daily,omitzero" doc:"Tokens a calendar day; -1 unlimited, null the default"`
	Monthly Change[int64] `json:"monthly,omitzero" doc:"Tokens a calendar month; -1 unlimited, null the default"`
}

// LimitsPatch changes the rates of a user or team; 0 is unlimited.
type LimitsPatch struct {
	RequestsPerMinute *int   `json:"requestsPerMinute,omitempty" minimum:"0" maximum:"1000000000" doc:"Requests a minute; 0 unlimited"`
	TokensPerMinute   *int64 `json:"tokensPerMinute,omitempty" minimum:"0" maximum:"1000000000" doc:"Tokens a minute, weighed as in quotas; 0 unlimited"`
	InFlight          *int   `json:"inFlight,omitempty" minimum:"0" maximum:"1000000000" doc:"Requests at the same time; 0 unlimited"`
}

// KeyLimitsPatch changes the rates of a key. Null is the default, 0 unlimited.
type KeyLimitsPatch struct {
	RequestsPerMinute Change[int]   `json:"requestsPerMinute,omitzero" doc:"Requests a minute; 0 unlimited, null the default"`
	TokensPerMinute   Change[int64] `json:"tokensPerMinute,omitzero" doc:"Tokens a minute, weighed as in quotas; 0 unlimited, null the default"`
	InFlight          Change[int]   `json:"inFlight,omitzero" doc:"Requests at the same time; 0 unlimited, null the default"`
}

// ScopePatch changes what a key may be used for; a list replaces the whole list, and an empty one ends the condition.
type ScopePatch struct {
	Models    *[]string `json:"models,omitempty" doc:"Only these model ids or patterns in which * stands for any text"`
	Endpoints *[]string `json:"endpoints,omitempty" enum:"messages,count_tokens,models,account" doc:"Only these: messages, count_tokens, models, account"`
	Addresses *[]string `json:"addresses,omitempty" doc:"Only from these client addresses or networks, such as 192.0.2.7 or 10.0.0.0/8"`
}

// Key is a developer's API key without the key.
type Key struct {
	ID         string               `json:"id" doc:"Public id: the part of a generated key that may be shown and logged"`
	Name       string               `json:"name" doc:"Unique name"`
	User       string               `json:"user" doc:"Owner"`
	Disabled   bool                 `json:"disabled" doc:"The key is refused"`
	Expired    bool                 `json:"expired" doc:"The key is refused because of its age"`
	Limits     policy.LimitsSpec    `json:"limits" doc:"Rates of this key in force, besides those of its user and team; 0 or absent: unlimited"`
	OwnLimits  policy.KeyLimitsSpec `json:"ownLimits" doc:"The part of the limits that is set for this key; what is absent follows the default"`
	Scope      policy.ScopeSpec     `json:"scope" doc:"What the key may be used for; a list that is absent does not narrow"`
	CreatedAt  time.Time            `json:"createdAt"`
	ExpiresAt  *time.Time           `json:"expiresAt,omitempty" doc:"The key is refused from this time on; absent: never"`
	LastUsedAt *time.Time           `json:"lastUsedAt,omitempty"`
	GraceUntil *time.Time           `json:"graceUntil,omitempty" doc:"After a rotation: until when the secret before it works too"`
}

// NewKey is a key just made. This is the only answer that ever holds its secret.
type NewKey struct {
	Key
	Secret string `json:"key" doc:"The key itself; shown this once"`
}

// KeyPatch changes a key; what is absent stays.
type KeyPatch struct {
	Disabled  *bool             `json:"disabled,omitempty" doc:"The key is refused"`
	ExpiresAt Change[time.Time] `json:"expiresAt,omitzero" doc:"The key is refused from this time on; null: never"`
	Limits    *KeyLimitsPatch   `json:"limits,omitempty"`
	Scope     *ScopePatch       `json:"scope,omitempty"`
}

// KeyRotation asks for a new secret.
type KeyRotation struct {
	GraceSeconds int64 `json:"graceSeconds,omitempty" minimum:"0" maximum:"2592000" doc:"How long the old secret goes on working; 0: it stops at once"`
}

// Upstream is an upstream without its credential.
type Upstream struct {
	Name        string            `json:"name" doc:"Unique name"`
	Provider    string            `json:"provider"`
	BaseURL     string            `json:"baseUrl"`
	Auth        string            `json:"auth" doc:"How the credential is sent"`
	Credential  string            `json:"credential" doc:"A hint that tells credentials apart: the last characters of a long one, and in brackets a fingerprint that only this server can make"`
	Weight      int               `json:"weight"`
	Priority    int               `json:"priority" doc:"Lower is used first"`
	Disabled    bool              `json:"disabled"`
	MaxInFlight int               `json:"maxInFlight" doc:"Requests at the same time; 0: no cap"`
	Models      map[string]string `json:"models,omitempty" doc:"Model ids that this upstream knows by another name: asked id to sent id"`
	CreatedAt   time.Time         `json:"createdAt"`
	UpdatedAt   time.Time         `json:"updatedAt"`
	Health      string            `json:"health,omitempty" enum:"ready,cooling" doc:"Whether the connected nodes ask it as usual; absent when none said, and of one that is disabled"`
	Cooling     []fleet.Cooling   `json:"cooling,omitempty" doc:"Why it, or a model of it, is left alone, and for how many seconds still"`
}

// How an upstream is.
const (
	HealthReady   = "ready"
	HealthCooling = "cooling"
)

// UpstreamPatch changes an upstream; what is absent stays.
type UpstreamPatch struct {
	BaseURL     *string            `json:"baseUrl,omitempty" doc:"Address without /v1"`
	APIKey      *string            `json:"apiKey,omitempty" minLength:"1" doc:"The credential; never shown again"`
	Auth        *string            `json:"auth,omitempty" enum:"x-api-key,bearer" doc:"How the credential is sent"`
	Weight      *int               `json:"weight,omitempty" minimum:"1" doc:"Share of the requests among upstreams of the same priority"`
	Priority    *int               `json:"priority,omitempty" doc:"Lower is used first"`
	Disabled    *bool              `json:"disabled,omitempty" doc:"Takes no requests"`
	MaxInFlight *int               `json:"maxInFlight,omitempty" minimum:"0" doc:"Requests at the same time; more wait briefly or go elsewhere; 0: no cap"`
	Models      *map[string]string `json:"models,omitempty" doc:"Replaces the whole map"`
}

// RoutePatch changes a route; what is absent stays, and a list replaces the whole list.
type RoutePatch struct {
	Models    *[]string `json:"models,omitempty" doc:"Model ids or patterns in which * stands for any text; empty: all"`
	Upstreams *[]string `json:"upstreams,omitempty" minItems:"1" doc:"Names of the upstreams that serve them"`
	Users     *[]string `json:"users,omitempty" doc:"Only for these users; empty: no such condition"`
	Teams     *[]string `json:"teams,omitempty" doc:"Only for these teams; empty: no such condition"`
}

// AliasTarget is the body of setting an alias.
type AliasTarget struct {
	Model string `json:"model" minLength:"1" maxLength:"200" doc:"The model id it stands for"`
}

// Token is an administrator's token without the token.
type Token struct {
	Name       string     `json:"name" doc:"Unique name; the actor in the audit log"`
	ID         string     `json:"id" doc:"Public id: the part of the token that may be shown and logged"`
	CreatedAt  time.Time  `json:"createdAt"`
	CreatedBy  string     `json:"createdBy"`
	LastUsedAt *time.Time `json:"lastUsedAt,omitempty"`
}

// TokenSpec asks for a token.
type TokenSpec struct {
	Name string `json:"name" doc:"Unique name" example:"ci"`
}

// NewToken is a token just made. This is the only answer that ever holds its secret.
type NewToken struct {
	Token
	Secret string `json:"token" doc:"The token itself; shown this once"`
}

// QuotaState is a user with the state of its quota windows, summed over the connected nodes.
type QuotaState struct {
	User string `json:"user"`
	fleet.UserQuota
}

// QuotaWindow asks to reset one window or both.
type QuotaWindow struct {
	Window string `json:"window,omitempty" enum:"daily,monthly,all" default:"all" doc:"Which window"`
}

// QuotaReset asks to reset the windows of one user or of all.
type QuotaReset struct {
	User   givenName `json:"user,omitzero" doc:"All users when absent; never empty"`
	Window string    `json:"window,omitempty" enum:"daily,monthly,all" default:"all" doc:"Which window"`
}

// givenName is a name that may be absent. It knows null and the empty name, which mean nobody, from absence, which means
// everybody.
type givenName struct {
	given bool
	name  string
}

// MarshalJSON writes the name.
func (g givenName) MarshalJSON() ([]byte, error) { return json.Marshal(g.name) }

// UnmarshalJSON reads a name; null is an empty one.
func (g *givenName) UnmarshalJSON(data []byte) error {
	g.given = true
	return json.Unmarshal(data, &g.name)
}

// Schema describes the field in the OpenAPI document.
func (g givenName) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString} // that it is not empty is said better by whoever reads it
}

// QuotaResetResult says what was reset.
type QuotaResetResult struct {
	Reset   []string `json:"reset" nullable:"false" doc:"Names of the users whose windows have nothing used now"`
	Windows []string `json:"windows" nullable:"false" doc:"daily, monthly"`
}

// Budget is a budget with what is used of it.
type Budget struct {
	policy.BudgetSpec
	State []BudgetState `json:"state,omitempty" doc:"What is used in the current window: one part, or with perMember one for each who has used any; absent when no node is connected"`
}

// BudgetState is what is used of one part of a budget. Amounts are micro-dollars (a millionth of a dollar) or tokens.
type BudgetState struct {
	Subject   string     `json:"subject" doc:"Whose part it is: organization, team/NAME, user/NAME or key/NAME"`
	Unit      string     `json:"unit" enum:"USD,tokens" doc:"Unit of the budget; of USD the amounts here are millionths"`
	Amount    int64      `json:"amount"`
	Used      int64      `json:"used" doc:"Settled"`
	Reserved  int64      `json:"reserved" doc:"Held by requests in flight"`
	Remaining int64      `json:"remaining" doc:"What can still be reserved, with the overdraft"`
	ResetsAt  *time.Time `json:"resetsAt,omitempty" doc:"When the window ends, or a rolling one begins to free what was used; absent: never, or nothing is used of a rolling one"`
}

// BudgetPatch changes a budget; what is absent stays.
type BudgetPatch struct {
	Scope     *string `json:"scope,omitempty" doc:"Whose it is: organization, team/NAME, user/NAME or key/NAME"`
	Amount    *string `json:"amount,omitempty" doc:"How much: a number of USD or tokens" example:"5 USD"`
	Window    *string `json:"window,omitempty" doc:"For what time: hour, day, week, month, lifetime, or a number of days as in 14 days"`
	Mode      *string `json:"mode,omitempty" enum:"strict,fair" doc:"What a request reserves"`
	TimeZone  *string `json:"timeZone,omitempty" doc:"IANA name of the zone of the calendar; empty the configured one"`
	Rolling   *bool   `json:"rolling,omitempty" doc:"The window is the time of that length that ends now"`
	WarnAt    *[]int  `json:"warnAt,omitempty" doc:"Percentages of the amount at which is warned; empty the default"`
	Soft      *bool   `json:"soft,omitempty" doc:"Only warns, and refuses nothing"`
	Overdraft *string `json:"overdraft,omitempty" doc:"How much more than the amount is admitted; empty nothing"`
	PerMember *bool   `json:"perMember,omitempty" doc:"Of a team: each of its users has the amount"`
	Message   *string `json:"message,omitempty" maxLength:"500" doc:"Text at the end of refusals; empty the configured one"`
}

// ApplyRequest is a declarative set of resources.
type ApplyRequest struct {
	policy.Resources
	DryRun bool `json:"dryRun,omitempty" doc:"Only say what would change"`
}

// What Apply did, or would do, with a resource.
const (
	ActionCreated   = "created"
	ActionUpdated   = "updated"
	ActionUnchanged = "unchanged"
)

// ApplyResult says what was done with each resource, in the order teams, upstreams, aliases, routes, users, keys, budgets.
type ApplyResult struct {
	DryRun  bool          `json:"dryRun" doc:"Nothing was changed"`
	Version int64         `json:"version" doc:"Version of the policy afterwards"`
	Changes []ApplyChange `json:"changes" nullable:"false"`
}

// ApplyChange is what was done with one resource.
type ApplyChange struct {
	Kind   string `json:"kind" enum:"team,upstream,alias,route,user,key,budget"`
	Name   string `json:"name"`
	Action string `json:"action" enum:"created,updated,unchanged"`
	Key    string `json:"key,omitempty" doc:"A generated key; shown this once"`
}

// Status is how control and its nodes are.
type Status struct {
	Version       string       `json:"version" doc:"Of the program"`
	PolicyVersion int64        `json:"policyVersion" doc:"Grows with each change"`
	Organization  string       `json:"organization,omitempty"`
	TimeZone      string       `json:"timeZone"`
	StartedAt     time.Time    `json:"startedAt"`
	Nodes         []NodeStatus `json:"nodes" nullable:"false"`
	Entries       int64        `json:"entries" doc:"Exchanges in the books"`
	Users         int64        `json:"users"`
	Keys          int64        `json:"keys"`
	Upstreams     int64        `json:"upstreams"`
	Routes        int64        `json:"routes"`
}

// NodeStatus is a node as its last heartbeat described it.
type NodeStatus struct {
	Name          string     `json:"name"`
	Connected     bool       `json:"connected"`
	Applied       int64      `json:"applied" doc:"Policy version in force"`
	Refused       int64      `json:"refused,omitempty" doc:"Newer policy version that the node could not use"`
	Problem       string     `json:"problem,omitempty" doc:"Why it could not"`
	LastHeartbeat *time.Time `json:"lastHeartbeat,omitempty"`
	Outbox        int64      `json:"outbox" doc:"Entries not yet delivered"`
	InFlight      int64      `json:"inFlight" doc:"Requests being served"`
}

// AuditRow is one change that somebody made. It never holds a secret.
type AuditRow struct {
	ID      int64     `json:"id"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor" doc:"socket, config, bootstrap or the name of a token"`
	Action  string    `json:"action" doc:"created, updated, deleted, rotated, reset …"`
	Kind    string    `json:"kind"`
	Name    string    `json:"name,omitempty"`
	Detail  string    `json:"detail,omitempty" doc:"Which fields, and their values where they are not secret"`
	Version int64     `json:"version" doc:"Policy version after the change"`
}

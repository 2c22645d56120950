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
	return &huma.Schema{Type: huma.TypeString, MinLength: new(1)}
}

// QuotaResetResult says what was reset.
type QuotaResetResult struct {
	Reset   []string `json:"reset" nullable:"false" doc:"Names of the users whose windows have nothing used now"`
	Windows []string `json:"windows" nullable:"false" doc:"daily, monthly"`
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

// ApplyResult says what was done with each resource, in the order teams, upstreams, aliases, routes, users, keys.
type ApplyResult struct {
	DryRun  bool          `json:"dryRun" doc:"Nothing was changed"`
	Version int64         `json:"version" doc:"Version of the policy afterwards"`
	Changes []ApplyChange `json:"changes" nullable:"false"`
}

// ApplyChange is what was done with one resource.
type ApplyChange struct {
	Kind   string `json:"kind" enum:"team,upstream,alias,route,user,key"`
	Name   string `json:"name"`
	Action string `json:"action" enum:"created,updated,unchanged"`
	Key    string `json:"key,omitempty" doc:"A generated key; shown this once"`
}

// UsageQuery selects entries of the ledger. Zero fields select everything, except Endpoint, whose default is messages.
type UsageQuery struct {
	Since    string // RFC 3339 time, date in the configured zone (its start), or an age like 24h or 7d
	Until    string // the same forms; a date means its start; exclusive
	User     string
	Team     string
	Key      string // name or public id
	Model    string // asked, sent or served
	Session  string
	Endpoint string // messages, count_tokens or all
	GroupBy  string // user, team, key, model, upstream, session, agent, version, day or hour; "" or none: the entries themselves
	Limit    int    // rows, 0 for the default
}

// Usage is the answer to a UsageQuery.
type Usage struct {
	From    *time.Time  `json:"from,omitempty" doc:"Start of the range; absent: from the first entry on"`
	To      *time.Time  `json:"to,omitempty" doc:"End of the range, exclusive; absent: until now"`
	GroupBy string      `json:"groupBy" doc:"What a row stands for: none is one exchange"`
	Totals  UsageTotals `json:"totals" doc:"Over everything selected, whatever the limit"`
	Rows    []UsageRow  `json:"rows" nullable:"false" doc:"Groups, largest first (days and hours in their order), or exchanges, newest first"`
}

// UsageTotals sums exchanges.
type UsageTotals struct {
	Requests           int64   `json:"requests"`
	Errors             int64   `json:"errors" doc:"Exchanges that went wrong: upstream errors, failed, cut, crashed; not those that the client cancelled"`
	InputTokens        int64   `json:"inputTokens"`
	OutputTokens       int64   `json:"outputTokens"`
	CacheReadTokens    int64   `json:"cacheReadTokens"`
	CacheWriteTokens   int64   `json:"cacheWriteTokens" doc:"Both lifetimes together"`
	CacheWrite5mTokens int64   `json:"cacheWrite5mTokens"`
	CacheWrite1hTokens int64   `json:"cacheWrite1hTokens"`
	ThinkingTokens     int64   `json:"thinkingTokens" doc:"Part of the output tokens"`
	QuotaTokens        int64   `json:"quotaTokens" doc:"What the quota formula made of them"`
	WebSearches        int64   `json:"webSearches"`
	FileOperations     int64   `json:"fileOperations"`
	RequestBytes       int64   `json:"requestBytes"`
	ResponseBytes      int64   `json:"responseBytes"`
	AverageDurationMs  float64 `json:"averageDurationMs" doc:"Over exchanges with an answer"`
	AverageFirstByteMs float64 `json:"averageFirstByteMs" doc:"Over exchanges with an answer"`

	CostMicroUSD         int64 `json:"costMicroUsd" doc:"Millionths of a US dollar"`
	CacheSavingsMicroUSD int64 `json:"cacheSavingsMicroUsd" doc:"How much more it would have cost if nothing were cached; negative when writing cost more than reading saved"`
	Unpriced             int64 `json:"unpriced" doc:"Exchanges some of which has no price: the cost follows a rule for that, or is 0 for those from before there were prices"`
	Estimated            int64 `json:"estimated" doc:"Exchanges that ended before their usage was complete"`
}

// UsageGroup is one row of a grouped answer.
type UsageGroup struct {
	Group  string `json:"group" doc:"The user, model, day … the row stands for; empty where the entries say none"`
	Parent string `json:"parent,omitempty" doc:"Of an agent: the one that spawned it; absent: the main agent"`
	UsageTotals
	FirstAt time.Time `json:"firstAt" doc:"Start of the first exchange"`
	LastAt  time.Time `json:"lastAt" doc:"Start of the last exchange"`
}

// EntriesPage is a part of the exchanges that a UsageQuery selects, newest first.
type EntriesPage struct {
	Entries []fleet.Entry `json:"entries" nullable:"false"`
	Next    string        `json:"next,omitempty" doc:"Where the next page begins, for the parameter after; absent on the last one"`
}

// UsageRow is a group or an exchange: exactly one field is set, and that one is the JSON.
type UsageRow struct {
	Group *UsageGroup
	Entry *fleet.Entry
}

// MarshalJSON writes whichever field is set.
func (r UsageRow) MarshalJSON() ([]byte, error) {
	if r.Group != nil {
		return json.Marshal(r.Group)
	}
	return json.Marshal(r.Entry)
}

// UnmarshalJSON reads a row with a group as Group, any other as Entry.
func (r *UsageRow) UnmarshalJSON(data []byte) error {
	var probe struct {
		Group *string `json:"group"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return err
	}
	if probe.Group != nil {
		r.Group, r.Entry = new(UsageGroup), nil
		return json.Unmarshal(data, r.Group)
	}
	r.Group, r.Entry = nil, new(fleet.Entry)
	return json.Unmarshal(data, r.Entry)
}

// Schema describes the row in the OpenAPI document.
func (r UsageRow) Schema(reg huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{
		reg.Schema(reflect.TypeFor[UsageGroup](), true, "UsageGroup"),
		reg.Schema(reflect.TypeFor[fleet.Entry](), true, "Entry"),
	}}
}

// SessionQuery selects sessions; the forms are those of UsageQuery.
type SessionQuery struct {
	Since string
	Until string
	User  string
	Team  string
	Limit int // 0 for the default
}

// Session is a session of Claude Code: what the exchanges with its id add up to.
type Session struct {
	ID         string    `json:"id"`
	User       string    `json:"user"`
	Users      int64     `json:"users" doc:"How many; more than one has used the same id"`
	Agents     int64     `json:"agents" doc:"Sub-agents that said their id; Claude Code does from 2.1 on"`
	FirstAt    time.Time `json:"firstAt" doc:"Start of the first exchange"`
	LastAt     time.Time `json:"lastAt" doc:"Start of the last exchange"`
	EndAt      time.Time `json:"endAt" doc:"When the last of them ended"`
	DurationMs int64     `json:"durationMs" doc:"From firstAt to endAt"`
	UsageTotals
}

// SessionDetail is a session with the tree of its agents.
type SessionDetail struct {
	Session
	Tree []SessionAgent `json:"tree" nullable:"false" doc:"The main agent and below each agent those that it spawned, in the order in which they began; depth says how far below"`
}

// SessionAgent is an agent of a session.
type SessionAgent struct {
	ID           string         `json:"id" doc:"Empty: the main agent"`
	Parent       string         `json:"parent" doc:"The agent that spawned it; empty: the main agent"`
	Depth        int            `json:"depth" doc:"0: the main agent"`
	Agents       int64          `json:"agents" doc:"How many agents are below it"`
	TreeRequests int64          `json:"treeRequests" doc:"Exchanges of it and those below"`
	TreeMicroUSD int64          `json:"treeCostMicroUsd" doc:"Cost of it and those below"`
	Models       []SessionModel `json:"models" nullable:"false" doc:"What it used, by model, the dearest first"`
	FirstAt      time.Time      `json:"firstAt" doc:"Start of the first exchange"`
	LastAt       time.Time      `json:"lastAt" doc:"Start of the last exchange"`
	EndAt        time.Time      `json:"endAt" doc:"When the last of them ended"`
	DurationMs   int64          `json:"durationMs" doc:"From firstAt to endAt"`
	UsageTotals
}

// SessionModel is what an agent used of a model.
type SessionModel struct {
	Model string `json:"model"`
	UsageTotals
}

// ReportQuery selects what a report is about; the forms are those of UsageQuery.
type ReportQuery struct {
	Since string
	Until string
	User  string
	Team  string
}

// Report is the Claude Code report over the message exchanges of a time range.
type Report struct {
	From                *time.Time       `json:"from,omitempty" doc:"Start of the range; absent: from the first entry on"`
	To                  *time.Time       `json:"to,omitempty" doc:"End of the range, exclusive; absent: until now"`
	TotalRequests       int64            `json:"totalRequests"`
	SuccessRate         float64          `json:"successRate" doc:"Share of exchanges that did not go wrong, 0 to 1; 0 when there are none"`
	AverageResponseTime float64          `json:"averageResponseTime" doc:"Milliseconds from the request to the end of the answer, over exchanges with one"`
	AverageFirstByte    float64          `json:"averageFirstByte" doc:"Milliseconds from the request to the first byte of the answer, over the same"`
	FileOperations      int64            `json:"fileOperations" doc:"Tool calls that read or write files"`
	TopTools            []ReportCount    `json:"topTools" nullable:"false" doc:"Tools that answers called, most often first"`
	VersionDistribution []ReportVersion  `json:"versionDistribution" nullable:"false" doc:"Client versions, most requests first"`
	TokenUsage          ReportTokens     `json:"tokenUsage"`
	Models              []ReportModel    `json:"models" nullable:"false" doc:"Models, most requests first"`
	Outcomes            map[string]int64 `json:"outcomes" nullable:"false" doc:"Exchanges by how they ended"`
	ActiveUsers         int64            `json:"activeUsers"`
	Sessions            int64            `json:"sessions"`
	Cost                ReportCost       `json:"cost"`
}

// ReportCost is what the exchanges cost, and what caching did about it.
type ReportCost struct {
	MicroUSD             int64   `json:"microUsd" doc:"Millionths of a US dollar"`
	CacheSavingsMicroUSD int64   `json:"cacheSavingsMicroUsd" doc:"How much more it would have cost if nothing were cached; negative when writing cost more than reading saved"`
	CacheReadShare       float64 `json:"cacheReadShare" doc:"Cache reads among the tokens of prompts, 0 to 1"`
	Unpriced             int64   `json:"unpriced" doc:"Exchanges some of which has no price: the cost follows a rule for that, or is 0 for those from before there were prices"`
	Estimated            int64   `json:"estimated" doc:"Exchanges that ended before their usage was complete"`
}

// ReportCount is a name with how often it occurs.
type ReportCount struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// ReportVersion is a client version with its requests.
type ReportVersion struct {
	Version string  `json:"version" doc:"Empty where the client names none"`
	Count   int64   `json:"count"`
	Share   float64 `json:"share" doc:"0 to 1"`
}

// ReportModel is a model with its requests and tokens.
type ReportModel struct {
	Model  string `json:"model"`
	Count  int64  `json:"count"`
	Input  int64  `json:"input"`
	Output int64  `json:"output"`

	CostMicroUSD int64 `json:"costMicroUsd" doc:"Millionths of a US dollar"`
}

// ReportTokens are tokens by class.
type ReportTokens struct {
	Input        int64 `json:"input"`
	Output       int64 `json:"output"`
	CacheRead    int64 `json:"cacheRead"`
	CacheWrite   int64 `json:"cacheWrite" doc:"Both lifetimes together"`
	CacheWrite5m int64 `json:"cacheWrite5m"`
	CacheWrite1h int64 `json:"cacheWrite1h"`
	Thinking     int64 `json:"thinking" doc:"Part of output"`
	Quota        int64 `json:"quota" doc:"What the quota formula made of them"`
	Total        int64 `json:"total" doc:"Input, output and cache tokens together"`
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

package policy

import (
	"time"

	"carpool/internal/price"
)

// What an upstream can be.
const (
	ProviderAnthropic = "anthropic"

	AuthAPIKey = "x-api-key"
	AuthBearer = "bearer"

	DefaultBaseURL = "https://api.anthropic.com"
)

// Document is everything a node needs to serve, as control stores it: all defaults filled in, keys as hashes.
type Document struct {
	Version   int64 // grows with each change
	Settings  Settings
	Upstreams []Upstream
	Aliases   []AliasSpec
	Routes    []RouteSpec
	Teams     []Team // those with something to say of them
	Users     []User
	Keys      []Key
	Budgets   []BudgetSpec
}

// Settings are the organisation-wide parts of a policy.
type Settings struct {
	Organization   string
	TimeZone       string // IANA name; calendar windows of quotas
	Formula        Formula
	QuotaMessage   string            // operator's text appended to quota denials: whom to ask
	SystemPrompt   string            // text ensured for Claude Code clients that bring no system prompt; "" is off
	DefaultHeaders map[string]string // added to Claude Code requests where absent
	DefaultLimits  LimitsSpec        // of each key that has none of its own
	Limits         LimitsSpec        // of the whole organisation
	Client         ClientPolicy      // which programs are served
	Prices         price.Overlay     // what the operator pays, over the published prices
}

// Formula weighs token classes, in thousandths, into the tokens that count against a quota.
type Formula struct {
	Input, Output, CacheRead, CacheWrite int64
}

// DefaultFormula counts input and output and leaves cache tokens free.
func DefaultFormula() Formula { return Formula{Input: 1000, Output: 1000} }

// Tokens returns the weighted count, rounded up.
func (f Formula) Tokens(input, output, cacheRead, cacheWrite int64) int64 {
	return (f.Input*input + f.Output*output + f.CacheRead*cacheRead + f.CacheWrite*cacheWrite + 999) / 1000
}

// Upstream is a provider endpoint with one credential.
type Upstream struct {
	Name        string
	Provider    string
	BaseURL     string // without a trailing slash
	Credential  Secret
	Auth        string
	Weight      int
	Priority    int // lower first
	Disabled    bool
	Models      map[string]string // normalised asked id -> sent id
	MaxInFlight int               // requests at the same time; 0: no cap
}

// Team is users who share Limits.
type Team struct {
	Name   string
	Limits LimitsSpec
}

// User is who spends.
type User struct {
	Name     string
	Team     string
	Disabled bool
	Quota    Quota
	Limits   LimitsSpec
}

// Quota is tokens per calendar window; Unlimited (-1) where there is none.
type Quota struct {
	Daily   int64 `json:"daily"`
	Monthly int64 `json:"monthly"`
}

// Key is a developer's API key without the key.
type Key struct {
	ID        string // public id
	Name      string
	User      string
	Hash      KeyHash
	Disabled  bool
	ExpiresAt time.Time  // zero: never
	Limits    LimitsSpec // in force, with defaults
	Scope     ScopeSpec
}

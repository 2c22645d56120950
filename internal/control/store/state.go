package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"carpool/internal/policy"
)

// State is the whole policy of record.
type State struct {
	Version      int64 // 0 when nothing was ever stored
	Settings     policy.Settings
	DefaultQuota policy.Quota
	SealCheck    string // a known text sealed with the master key
	Teams        []Team
	Users        []User
	Keys         []Key
	Secrets      []Secret
	Upstreams    []Upstream
	Routes       []policy.RouteSpec
	Aliases      []policy.AliasSpec
	Budgets      []policy.BudgetSpec
	Tokens       []Token
}

// Team is a team.
type Team struct {
	Name      string
	Limits    policy.LimitsSpec
	CreatedAt time.Time
}

// User is a user; a nil quota follows the default.
type User struct {
	Name      string
	Team      string // "" for none
	Disabled  bool
	Daily     *int64
	Monthly   *int64
	Limits    policy.LimitsSpec
	CreatedAt time.Time
}

// Key is a key without its secrets.
type Key struct {
	Name      string
	User      string
	Disabled  bool
	ExpiresAt *time.Time
	Limits    policy.LimitsSpec
	Scope     policy.ScopeSpec
	CreatedAt time.Time
}

// Secret is the keyed hash of a key's secret.
type Secret struct {
	ID         string
	Key        string // name
	Hash       string // hexadecimal
	CreatedAt  time.Time
	RetiresAt  *time.Time // nil for the one in force
	LastUsedAt *time.Time
}

// KeyHash returns the hash as the policy wants it.
func (s Secret) KeyHash() (policy.KeyHash, error) { return parseHash(s.Hash) }

// Upstream is an upstream with its credential sealed.
type Upstream struct {
	Name        string
	Provider    string
	BaseURL     string
	Auth        string
	Credential  string // sealed
	Weight      int
	Priority    int
	Disabled    bool
	MaxInFlight int
	Models      map[string]string
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Token is an administrator's token as a keyed hash.
type Token struct {
	Name       string
	ID         string
	Hash       string // hexadecimal
	CreatedAt  time.Time
	CreatedBy  string
	LastUsedAt *time.Time
}

// KeyHash returns the hash in the form in which tokens are looked up.
func (t Token) KeyHash() (policy.KeyHash, error) { return parseHash(t.Hash) }

func parseHash(text string) (hash policy.KeyHash, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(hash) {
		return hash, fmt.Errorf("the database holds a damaged hash")
	}
	return policy.KeyHash(raw), nil
}

func teamFields(t *Team) []any {
	return []any{&t.Name, &t.Limits.RequestsPerMinute, &t.Limits.TokensPerMinute, &t.Limits.InFlight, instant{&t.CreatedAt}}
}

func userFields(u *User) []any {
	return []any{
		&u.Name,
		optional{&u.Team},
		&u.Disabled, &u.Daily, &u.Monthly,
		&u.Limits.RequestsPerMinute, &u.Limits.TokensPerMinute, &u.Limits.InFlight,
		instant{&u.CreatedAt},
	}
}

func keyFields(k *Key) []any {
	return []any{
		&k.Name, &k.User, &k.Disabled,
		maybeInstant{&k.ExpiresAt},
		&k.Limits.RequestsPerMinute, &k.Limits.TokensPerMinute, &k.Limits.InFlight,
		encoded[policy.ScopeSpec]{&k.Scope},
		instant{&k.CreatedAt},
	}
}

func secretFields(s *Secret) []any {
	return []any{&s.ID, &s.Key, &s.Hash, instant{&s.CreatedAt}, maybeInstant{&s.RetiresAt}, maybeInstant{&s.LastUsedAt}}
}

func upstreamFields(u *Upstream) []any {
	return []any{
		&u.Name, &u.Provider, &u.BaseURL, &u.Auth, &u.Credential, &u.Weight, &u.Priority, &u.Disabled,
		&u.MaxInFlight,
		encoded[map[string]string]{&u.Models},
		instant{&u.CreatedAt},
		instant{&u.UpdatedAt},
	}
}

func routeFields(r *policy.RouteSpec) []any {
	return []any{&r.Name, encoded[policy.RouteSpec]{r}}
}

func budgetFields(b *policy.BudgetSpec) []any {
	return []any{&b.Name, encoded[policy.BudgetSpec]{b}}
}

func aliasFields(a *policy.AliasSpec) []any { return []any{&a.Name, &a.Model} }

func tokenFields(t *Token) []any {
	return []any{&t.Name, &t.ID, &t.Hash, instant{&t.CreatedAt}, &t.CreatedBy, maybeInstant{&t.LastUsedAt}}
}

// Load reads the whole policy.
func (s *Store) Load(ctx context.Context) (state *State, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) (err error) {
		state, err = tx.Load(ctx)
		return err
	})
	return state, err
}

// Load reads the whole policy as the transaction sees it.
func (t *Tx) Load(ctx context.Context) (*State, error) {
	heads, err := collect(ctx, t.tx, func(s *State) []any {
		return []any{&s.Version, encoded[policy.Settings]{&s.Settings}, encoded[policy.Quota]{&s.DefaultQuota}, &s.SealCheck}
	}, `SELECT version, settings, default_quota, seal_check FROM policy WHERE id = 1`)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	state := &State{}
	if len(heads) == 1 {
		state = &heads[0]
	}
	for _, read := range []func() error{
		func() (err error) {
			state.Teams, err = collect(ctx, t.tx, teamFields, `SELECT name, requests_per_minute, tokens_per_minute, in_flight,
				created_at FROM teams ORDER BY name`)
			return err
		},
		func() (err error) {
			state.Users, err = collect(ctx, t.tx, userFields, `SELECT name, team, disabled, quota_daily, quota_monthly,
				requests_per_minute, tokens_per_minute, in_flight, created_at FROM users ORDER BY name`)
			return err
		},
		func() (err error) {
			state.Keys, err = collect(ctx, t.tx, keyFields, `SELECT name, user_name, disabled, expires_at,
				requests_per_minute, tokens_per_minute, in_flight, scope, created_at FROM api_keys ORDER BY name`)
			return err
		},
		func() (err error) {
			state.Secrets, err = collect(ctx, t.tx, secretFields, `SELECT id, key_name, hash, created_at, retires_at,
				last_used_at FROM key_secrets ORDER BY key_name, created_at, id`)
			return err
		},
		func() (err error) {
			state.Upstreams, err = collect(ctx, t.tx, upstreamFields, `SELECT name, provider, base_url, auth, credential,
				weight, priority, disabled, max_in_flight, models, created_at, updated_at FROM upstreams ORDER BY name`)
			return err
		},
		func() (err error) {
			state.Routes, err = collect(ctx, t.tx, routeFields, `SELECT name, spec FROM routes ORDER BY name`)
			return err
		},
		func() (err error) {
			state.Aliases, err = collect(ctx, t.tx, aliasFields, `SELECT name, model FROM aliases ORDER BY name`)
			return err
		},
		func() (err error) {
			state.Budgets, err = collect(ctx, t.tx, budgetFields, `SELECT name, spec FROM budgets ORDER BY name`)
			return err
		},
		func() (err error) {
			state.Tokens, err = collect(ctx, t.tx, tokenFields, `SELECT name, id, hash, created_at, created_by, last_used_at
				FROM tokens ORDER BY name`)
			return err
		},
	} {
		if err := read(); err != nil {
			return nil, fmt.Errorf("cannot read the policy: %w", err)
		}
	}
	return state, nil
}

// PutPolicy stores the version, the settings, the default quota and the seal check of state.
func (t *Tx) PutPolicy(ctx context.Context, s *State) error {
	return t.exec(ctx, "store the policy", `INSERT INTO policy (id, version, settings, default_quota, seal_check)
		VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET version = excluded.version, settings = excluded.settings,
		default_quota = excluded.default_quota, seal_check = excluded.seal_check`,
		s.Version, encoded[policy.Settings]{&s.Settings}, encoded[policy.Quota]{&s.DefaultQuota}, s.SealCheck)
}

// PutTeam stores a team, replacing one of the same name.
func (t *Tx) PutTeam(ctx context.Context, team Team) error {
	return t.exec(ctx, "store the team", `INSERT INTO teams (name, requests_per_minute, tokens_per_minute, in_flight, created_at)
		VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET requests_per_minute = excluded.requests_per_minute,
		tokens_per_minute = excluded.tokens_per_minute, in_flight = excluded.in_flight`, teamFields(&team)...)
}

// DeleteTeam removes a team.
func (t *Tx) DeleteTeam(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the team", `DELETE FROM teams WHERE name = ?`, name)
}

// PutUser stores a user, replacing one of the same name.
func (t *Tx) PutUser(ctx context.Context, u User) error {
	return t.exec(ctx, "store the user", `INSERT INTO users (name, team, disabled, quota_daily, quota_monthly,
		requests_per_minute, tokens_per_minute, in_flight, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
		team = excluded.team, disabled = excluded.disabled, quota_daily = excluded.quota_daily,
		quota_monthly = excluded.quota_monthly, requests_per_minute = excluded.requests_per_minute,
		tokens_per_minute = excluded.tokens_per_minute, in_flight = excluded.in_flight`, userFields(&u)...)
}

// DeleteUser removes a user and its keys.
func (t *Tx) DeleteUser(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the user", `DELETE FROM users WHERE name = ?`, name)
}

// PutKey stores a key, replacing one of the same name.
func (t *Tx) PutKey(ctx context.Context, k Key) error {
	return t.exec(ctx, "store the key", `INSERT INTO api_keys (name, user_name, disabled, expires_at, requests_per_minute,
		tokens_per_minute, in_flight, scope, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET user_name = excluded.user_name,
		disabled = excluded.disabled, expires_at = excluded.expires_at,
		requests_per_minute = excluded.requests_per_minute, tokens_per_minute = excluded.tokens_per_minute,
		in_flight = excluded.in_flight, scope = excluded.scope`, keyFields(&k)...)
}

// DeleteKey removes a key and its secrets.
func (t *Tx) DeleteKey(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the key", `DELETE FROM api_keys WHERE name = ?`, name)
}

// PutSecret stores a new secret of a key.
func (t *Tx) PutSecret(ctx context.Context, s Secret) error {
	return t.exec(ctx, "store the key's secret", `INSERT INTO key_secrets (id, key_name, hash, created_at, retires_at,
		last_used_at) VALUES (?, ?, ?, ?, ?, ?)`, secretFields(&s)...)
}

// RetireSecrets ends the secrets of a key: those in force at the given time, or at once (they are removed) when it is
// nil. Secrets retired earlier are removed in any case.
func (t *Tx) RetireSecrets(ctx context.Context, key string, at *time.Time) error {
	if at == nil {
		return t.exec(ctx, "retire the key's secret", `DELETE FROM key_secrets WHERE key_name = ?`, key)
	}
	if err := t.exec(ctx, "retire the key's secret", `DELETE FROM key_secrets WHERE key_name = ? AND retires_at IS NOT NULL`, key); err != nil {
		return err
	}
	return t.exec(ctx, "retire the key's secret", `UPDATE key_secrets SET retires_at = ? WHERE key_name = ?`, instant{at}, key)
}

// PutUpstream stores an upstream, replacing one of the same name.
func (t *Tx) PutUpstream(ctx context.Context, u Upstream) error {
	return t.exec(ctx, "store the upstream", `INSERT INTO upstreams (name, provider, base_url, auth, credential, weight,
		priority, disabled, max_in_flight, models, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET provider = excluded.provider, base_url = excluded.base_url, auth = excluded.auth,
		credential = excluded.credential, weight = excluded.weight, priority = excluded.priority,
		disabled = excluded.disabled, max_in_flight = excluded.max_in_flight, models = excluded.models, updated_at = excluded.updated_at`, upstreamFields(&u)...)
}

// DeleteUpstream removes an upstream.
func (t *Tx) DeleteUpstream(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the upstream", `DELETE FROM upstreams WHERE name = ?`, name)
}

// PutRoute stores a route, replacing one of the same name.
func (t *Tx) PutRoute(ctx context.Context, r policy.RouteSpec) error {
	return t.exec(ctx, "store the route", `INSERT INTO routes (name, spec) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET spec = excluded.spec`, routeFields(&r)...)
}

// DeleteRoute removes a route.
func (t *Tx) DeleteRoute(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the route", `DELETE FROM routes WHERE name = ?`, name)
}

// PutAlias stores a model alias, replacing one of the same name.
func (t *Tx) PutAlias(ctx context.Context, a policy.AliasSpec) error {
	return t.exec(ctx, "store the alias", `INSERT INTO aliases (name, model) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET model = excluded.model`, aliasFields(&a)...)
}

// DeleteAlias removes a model alias.
func (t *Tx) DeleteAlias(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the alias", `DELETE FROM aliases WHERE name = ?`, name)
}

// PutBudget stores a budget, replacing one of the same name.
func (t *Tx) PutBudget(ctx context.Context, b policy.BudgetSpec) error {
	return t.exec(ctx, "store the budget", `INSERT INTO budgets (name, spec) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET spec = excluded.spec`, budgetFields(&b)...)
}

// DeleteBudget removes a budget.
func (t *Tx) DeleteBudget(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the budget", `DELETE FROM budgets WHERE name = ?`, name)
}

// PutToken stores a new administrator's token.
func (t *Tx) PutToken(ctx context.Context, token Token) error {
	return t.exec(ctx, "store the token", `INSERT INTO tokens (name, id, hash, created_at, created_by, last_used_at)
		VALUES (?, ?, ?, ?, ?, ?)`, tokenFields(&token)...)
}

// TouchToken notes when a token was used.
func (t *Tx) TouchToken(ctx context.Context, name string, at time.Time) error {
	return t.exec(ctx, "note the use of the token", `UPDATE tokens SET last_used_at = ? WHERE name = ?`, instant{&at}, name)
}

// DeleteToken removes an administrator's token.
func (t *Tx) DeleteToken(ctx context.Context, name string) error {
	return t.exec(ctx, "remove the token", `DELETE FROM tokens WHERE name = ?`, name)
}

// TouchKeys notes when secrets, by id, were last used. Ids that are not known and times before the one known are ignored.
func (t *Tx) TouchKeys(ctx context.Context, used map[string]time.Time) (err error) {
	if len(used) == 0 {
		return nil
	}
	statement, err := t.tx.PrepareContext(ctx, `UPDATE key_secrets SET last_used_at = ?
		WHERE id = ? AND (last_used_at IS NULL OR last_used_at < ?)`)
	if err != nil {
		return fmt.Errorf("cannot note the use of keys: %w", err)
	}
	defer statement.Close() //nolint:errcheck // it ends with the transaction
	for id, at := range used {
		micros := at.UnixMicro()
		if _, err := statement.ExecContext(ctx, micros, id, micros); err != nil {
			return fmt.Errorf("cannot note the use of the key: %w", err)
		}
	}
	return nil
}

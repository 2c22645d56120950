package gateway

import (
	"context"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/quota"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// recentExchanges is how many of a user's exchanges /v1/usage shows.
const recentExchanges = 20

// The answers of /v1/user and /v1/usage. Their names are in snake case, as everything else that lives under /v1.
type (
	accountUser struct {
		UserID       string       `json:"user_id"`
		Team         string       `json:"team,omitempty"`
		Organization string       `json:"organization"`
		Status       string       `json:"status"`
		Key          accountKey   `json:"key"`
		Quota        accountQuota `json:"quota"`
	}
	accountKey struct {
		ID        string     `json:"id"`
		Name      string     `json:"name"`
		ExpiresAt *time.Time `json:"expires_at"`
	}
	accountQuota struct {
		Daily   accountWindow `json:"daily"`
		Monthly accountWindow `json:"monthly"`
	}
	accountWindow struct {
		Limit     *int64    `json:"limit"` // null: unlimited
		Used      int64     `json:"used"`
		Remaining *int64    `json:"remaining"`
		ResetsAt  time.Time `json:"resets_at"`
	}
	accountUsage struct {
		UserID string          `json:"user_id"`
		Quota  accountQuota    `json:"quota"`
		Totals accountTotals   `json:"totals"`
		Today  accountTotals   `json:"today"`
		Month  accountTotals   `json:"month"`
		Recent []accountRecent `json:"recent"`
	}
	accountTotals struct {
		Requests   int64 `json:"requests"`
		Errors     int64 `json:"errors"`
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
		CacheRead  int64 `json:"cache_read_input_tokens"`
		CacheWrite int64 `json:"cache_creation_input_tokens"`
		Quota      int64 `json:"quota_tokens"`
		Cost       int64 `json:"cost_micro_usd"`
		Savings    int64 `json:"cache_savings_micro_usd"`
	}
	accountRecent struct {
		ID         string    `json:"id"`
		StartedAt  time.Time `json:"started_at"`
		Model      string    `json:"model"`
		Status     int       `json:"status"`
		Outcome    string    `json:"outcome"`
		Stream     bool      `json:"stream"`
		DurationMs int64     `json:"duration_ms"`
		Input      int64     `json:"input_tokens"`
		Output     int64     `json:"output_tokens"`
		CacheRead  int64     `json:"cache_read_input_tokens"`
		CacheWrite int64     `json:"cache_creation_input_tokens"`
		Cost       int64     `json:"cost_micro_usd"`
	}
)

func (g *Gateway) showUser(w wire.Writer, r *web.Request) error {
	caller, snapshot, err := g.authenticate(r)
	if err != nil {
		return err
	}
	answer := accountUser{
		UserID: caller.User.Name, Team: caller.User.Team, Organization: snapshot.Settings.Organization, Status: "active",
		Key: accountKey{ID: caller.Key.ID, Name: caller.Key.Name}, Quota: g.quotaOf(caller.User, snapshot),
	}
	if !caller.Key.ExpiresAt.IsZero() {
		answer.Key.ExpiresAt = &caller.Key.ExpiresAt
	}
	return writeJSON(w, r, answer)
}

func (g *Gateway) showUsage(ctx context.Context, w wire.Writer, r *web.Request) error {
	caller, snapshot, err := g.authenticate(r)
	if err != nil {
		return err
	}
	now, user := g.now(), caller.User.Name
	answer := accountUsage{UserID: user, Quota: g.quotaOf(caller.User, snapshot), Recent: []accountRecent{}}
	day, _ := quota.Daily.Bounds(now, snapshot.Location)
	month, _ := quota.Monthly.Bounds(now, snapshot.Location)
	for _, sum := range []struct {
		into  *accountTotals
		since time.Time
	}{{&answer.Totals, time.Time{}}, {&answer.Today, day}, {&answer.Month, month}} {
		if *sum.into, err = g.totals(ctx, user, sum.since); err != nil {
			return err
		}
	}
	recent, err := g.ledger.Recent(ctx, user, recentExchanges)
	if err != nil {
		return anthropic.ErrInternal(err)
	}
	for _, e := range recent {
		answer.Recent = append(answer.Recent, accountRecent{
			ID: e.ID, StartedAt: e.StartedAt, Model: e.ModelAsked, Status: e.Status, Outcome: string(e.Outcome), Stream: e.Stream,
			DurationMs: e.Duration, Input: e.InputTokens, Output: e.OutputTokens, CacheRead: e.CacheReadTokens,
			CacheWrite: e.CacheWrite5mTokens + e.CacheWrite1hTokens, Cost: e.Cost,
		})
	}
	return writeJSON(w, r, answer)
}

func (g *Gateway) totals(ctx context.Context, user string, since time.Time) (accountTotals, error) {
	t, err := g.ledger.Totals(ctx, ledger.Filter{User: user, Since: since})
	if err != nil {
		return accountTotals{}, anthropic.ErrInternal(err)
	}
	return accountTotals{
		Requests: t.Requests, Errors: t.Errors, Input: t.InputTokens, Output: t.OutputTokens, CacheRead: t.CacheReadTokens,
		CacheWrite: t.CacheWrite5mTokens + t.CacheWrite1hTokens, Quota: t.QuotaTokens,
		Cost: t.Cost, Savings: t.CacheSavings,
	}, nil
}

func (g *Gateway) quotaOf(u *policy.User, s *policy.Snapshot) accountQuota {
	state := g.ledger.QuotaState(u.Name, u.Quota.Daily, u.Quota.Monthly, s.Location)
	window := func(limit, used, remaining int64, resets time.Time) accountWindow {
		w := accountWindow{Used: used, ResetsAt: resets}
		if limit != policy.Unlimited {
			w.Limit, w.Remaining = &limit, &remaining
		}
		return w
	}
	d, m := state.Daily, state.Monthly
	return accountQuota{
		Daily:   window(d.Limit, d.Used, d.Remaining, d.ResetsAt),
		Monthly: window(m.Limit, m.Used, m.Remaining, m.ResetsAt),
	}
}

package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"carpool/internal/fleet"
)

const entryColumns = `node, seq, id, started_at, first_byte_ms, duration_ms, outcome, status, error_type,
	user_name, team, key_id, key_name, endpoint, stream,
	model_asked, model_sent, model_served, route, upstream, attempts, moved_from, message_id, stop_reason,
	input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, thinking_tokens,
	web_searches, service_tier, inference_geo, speed, usage_reported, estimated, quota_tokens,
	session_id, agent_id, parent_agent_id, request_class, client, client_version, client_request_id, upstream_request_id,
	tools, file_operations, request_bytes, response_bytes,
	provider, location, uncharged, cost_micro_usd, cache_savings_micro_usd, unpriced, price_rule, price_version`

// entryFields lists the fields in the order of entryColumns.
func entryFields(e *fleet.Entry) []any {
	return []any{
		&e.Node, &e.Seq, &e.ID,
		instant{&e.StartedAt},
		&e.FirstByte, &e.Duration, (*string)(&e.Outcome), &e.Status, &e.ErrorType,
		&e.User, &e.Team, &e.KeyID, &e.KeyName, &e.Endpoint, &e.Stream,
		&e.ModelAsked, &e.ModelSent, &e.ModelServed, &e.Route, &e.Upstream, &e.Attempts, &e.MovedFrom, &e.MessageID, &e.StopReason,
		&e.InputTokens, &e.OutputTokens, &e.CacheReadTokens, &e.CacheWrite5mTokens, &e.CacheWrite1hTokens, &e.ThinkingTokens,
		&e.WebSearches, &e.ServiceTier, &e.InferenceGeo, &e.Speed,
		reported{&e.Usage},
		&e.Estimated, &e.QuotaTokens,
		&e.SessionID, &e.AgentID, &e.ParentAgentID, &e.RequestClass, &e.Client, &e.ClientVersion, &e.ClientRequestID, &e.UpstreamRequestID,
		encoded[[]fleet.ToolCount]{&e.Tools},
		&e.FileOperations, &e.RequestBytes, &e.ResponseBytes,
		&e.Provider, &e.Location, &e.Uncharged, &e.Cost, &e.CacheSavings, &e.Unpriced, &e.PriceRule, &e.PriceVersion,
	}
}

// Count returns how many entries there are and were before they were rolled up.
func (s *Store) Count(ctx context.Context) (n int64, err error) {
	if err := s.db.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM entries) + (SELECT CAST(COALESCE(SUM(entries), 0) AS BIGINT) FROM removals)`).Scan(&n); err != nil {
		return 0, fmt.Errorf("cannot count the entries: %w", err)
	}
	return n, nil
}

// Filter selects entries; zero fields select everything. Of what was rolled up it selects the hours that begin in its time.
type Filter struct {
	Since, Until time.Time // Until is exclusive
	User, Team   string
	Key          string // name or public id
	Model        string // asked, sent or served
	Session      string
	Endpoint     string
	Upstream     string
	Provider     string // also those from before there were providers
	Charged      bool   // not those that were declined before any output
	Runs         bool   // whose report has sampling runs; roll-ups have no reports
}

func (f Filter) where() (string, []any) {
	clauses, args := []string{"1 = 1"}, []any{}
	add := func(set bool, clause string, values ...any) {
		if set {
			clauses, args = append(clauses, clause), append(args, values...)
		}
	}
	add(!f.Since.IsZero(), "e.started_at >= ?", instant{&f.Since})
	add(!f.Until.IsZero(), "e.started_at < ?", instant{&f.Until})
	add(f.User != "", "e.user_name = ?", f.User)
	add(f.Team != "", "e.team = ?", f.Team)
	add(f.Key != "", "(e.key_name = ? OR e.key_id = ?)", f.Key, f.Key)
	add(f.Model != "", "(e.model_asked = ? OR e.model_sent = ? OR e.model_served = ?)", f.Model, f.Model, f.Model)
	add(f.Session != "", "e.session_id = ?", f.Session)
	add(f.Endpoint != "", "e.endpoint = ?", f.Endpoint)
	add(f.Upstream != "", "e.upstream = ?", f.Upstream)
	add(f.Provider != "", "e.provider IN (?, '')", f.Provider)
	add(f.Charged, "NOT e.uncharged")
	add(f.Runs, `e.usage_reported LIKE '%"iterations"%'`)
	where := " WHERE " + strings.Join(clauses, " AND ")
	if f.User != "" || f.Session != "" {
		where += byTime
	}
	return where, args
}

// rolled reports whether roll-ups can answer, which do not know sessions and reports.
func (f Filter) rolled() bool { return f.Session == "" && !f.Runs }

// byTime leads a planner to the index by time, which has users and sessions too: everything began after this.
const byTime = " AND e.started_at >= -9223372036854775808"

// Position is a place in the order of Entries.
type Position struct {
	StartedAt time.Time
	Seq       int64
	Node      string
}

// After is the place behind an entry.
func After(e *fleet.Entry) Position { return Position{e.StartedAt, e.Seq, e.Node} }

// Entries returns the newest entries, newest first, or those that follow a position.
func (s *Store) Entries(ctx context.Context, f Filter, after Position, limit int) ([]fleet.Entry, error) {
	where, args := f.where()
	if at := &after.StartedAt; !at.IsZero() {
		where += ` AND e.started_at <= ? AND (e.started_at < ? OR e.seq < ? OR (e.seq = ? AND e.node < ?))`
		args = append(args, instant{at}, instant{at}, after.Seq, after.Seq, after.Node)
	}
	entries, err := collect(ctx, s.db, entryFields, `SELECT `+entryColumns+` FROM entries AS e`+where+byTime+
		` ORDER BY e.started_at DESC, e.seq DESC, e.node DESC LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("cannot read the entries: %w", err)
	}
	return entries, nil
}

// Tools returns how often answers called each tool, most often first.
func (s *Store) Tools(ctx context.Context, f Filter, limit int) ([]fleet.ToolCount, error) {
	type calls struct {
		tools []fleet.ToolCount
		times int64
	}
	where, args := f.where()
	// Answers that call the same tools are many, and fewer than all.
	rows, err := collect(ctx, s.db, func(c *calls) []any { return []any{encoded[[]fleet.ToolCount]{&c.tools}, &c.times} },
		`SELECT e.tools, COUNT(*) FROM entries AS e`+where+` AND e.tools <> '' GROUP BY e.tools`, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot count the tools: %w", err)
	}
	sums := map[string]int64{}
	for _, row := range rows {
		for _, tool := range row.tools {
			sums[tool.Name] += tool.Count * row.times
		}
	}
	counts := make([]fleet.ToolCount, 0, len(sums))
	for name, count := range sums {
		counts = append(counts, fleet.ToolCount{Name: name, Count: count})
	}
	slices.SortFunc(counts, func(a, b fleet.ToolCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return counts[:min(limit, len(counts))], nil
}

// Distinct returns how many users and sessions the entries name; users also of those that were rolled up.
func (s *Store) Distinct(ctx context.Context, f Filter) (users, sessions int64, err error) {
	where, args := f.where()
	query := `SELECT e.user_name FROM entries AS e` + where
	all := args
	if f.rolled() {
		query, all = query+` UNION SELECT e.user_name FROM rollups AS e`+where, append(slices.Clip(args), args...)
	}
	//nolint:gosec // where holds marks, not values
	row := s.db.QueryRowContext(ctx, `SELECT (SELECT COUNT(DISTINCT u.user_name) FROM (`+query+`) AS u),
		(SELECT COUNT(DISTINCT NULLIF(e.session_id, '')) FROM entries AS e`+where+`)`, append(slices.Clip(all), args...)...)
	if err := row.Scan(&users, &sessions); err != nil {
		return 0, 0, fmt.Errorf("cannot count users and sessions: %w", err)
	}
	return users, sessions, nil
}

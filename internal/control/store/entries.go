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

// Count returns how many entries there are.
func (s *Store) Count(ctx context.Context) (n int64, err error) {
	if err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM entries`).Scan(&n); err != nil {
		return 0, fmt.Errorf("cannot count the entries: %w", err)
	}
	return n, nil
}

// Filter selects entries; zero fields select everything.
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
	where := " WHERE " + strings.Join(clauses, " AND ")
	if f.User != "" || f.Session != "" {
		where += byTime
	}
	return where, args
}

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

// Sum is what a group of entries adds up to.
type Sum struct {
	Group                                                      string
	FirstAt, LastAt                                            time.Time // starts of the first and last entry
	EndAt                                                      time.Time // the last end
	Requests, Errors                                           int64
	Input, Output, CacheRead, CacheWrite5m, CacheWrite1h       int64
	Thinking, Quota, WebSearches, FileOperations               int64
	Cost, CacheSavings                                         int64 // micro-dollars
	Unpriced, Estimated                                        int64 // entries; Unpriced are also those from before there were prices
	RequestBytes, ResponseBytes, Duration, FirstByte, Answered int64 // Duration and FirstByte over the Answered entries
}

// Add adds another sum, whatever its group.
func (s *Sum) Add(o Sum) {
	if s.Requests == 0 || (o.Requests > 0 && o.FirstAt.Before(s.FirstAt)) {
		s.FirstAt = o.FirstAt
	}
	if o.LastAt.After(s.LastAt) {
		s.LastAt = o.LastAt
	}
	if o.EndAt.After(s.EndAt) {
		s.EndAt = o.EndAt
	}
	ours, theirs := s.numbers(), o.numbers()
	for i := range ours {
		*ours[i].(*int64) += *theirs[i].(*int64) //nolint:forcetypeassert // numbers holds nothing else
	}
}

// Parts returns version, model and outcome of a sum ByReport. Only the model is what a client can make up.
func (s *Sum) Parts() [3]string {
	version, rest, _ := strings.Cut(s.Group, Separator)
	at := max(0, strings.LastIndex(rest, Separator))
	return [3]string{version, rest[:at], strings.TrimPrefix(rest[at:], Separator)}
}

// numbers lists the fields in the order of sumColumns.
func (s *Sum) numbers() []any {
	return []any{
		&s.Requests, &s.Errors, &s.Input, &s.Output, &s.CacheRead, &s.CacheWrite5m, &s.CacheWrite1h,
		&s.Thinking, &s.Quota, &s.WebSearches, &s.FileOperations,
		&s.RequestBytes, &s.ResponseBytes, &s.Duration, &s.FirstByte, &s.Answered,
		&s.Cost, &s.CacheSavings, &s.Unpriced, &s.Estimated,
	}
}

func sumFields(s *Sum) []any {
	return append([]any{&s.Group, instant{&s.FirstAt}, instant{&s.LastAt}, instant{&s.EndAt}}, s.numbers()...)
}

const allTokens = "e.input_tokens + e.output_tokens + e.cache_read_tokens + e.cache_write_5m_tokens + e.cache_write_1h_tokens"

// sumColumns are cast because PostgreSQL's SUM of BIGINT is NUMERIC.
func sumColumns() string {
	sums := []string{"COUNT(*)"}
	for _, of := range []string{
		"CASE WHEN e.outcome IN ('finished', 'canceled') THEN 0 ELSE 1 END",
		"e.input_tokens", "e.output_tokens", "e.cache_read_tokens", "e.cache_write_5m_tokens", "e.cache_write_1h_tokens",
		"e.thinking_tokens", "e.quota_tokens", "e.web_searches", "e.file_operations",
		"e.request_bytes", "e.response_bytes",
		"CASE WHEN e.first_byte_ms >= 0 THEN e.duration_ms ELSE 0 END",
		"CASE WHEN e.first_byte_ms >= 0 THEN e.first_byte_ms ELSE 0 END",
		"CASE WHEN e.first_byte_ms >= 0 THEN 1 ELSE 0 END",
		"e.cost_micro_usd", "e.cache_savings_micro_usd",
		"CASE WHEN e.unpriced OR (e.price_version = '' AND " + allTokens + " > 0) THEN 1 ELSE 0 END",
		"CASE WHEN e.estimated THEN 1 ELSE 0 END",
	} {
		sums = append(sums, "CAST(COALESCE(SUM("+of+"), 0) AS BIGINT)")
	}
	return "COALESCE(MIN(e.started_at), 0), COALESCE(MAX(e.started_at), 0), " +
		"COALESCE(MAX(e.started_at + e.duration_ms * 1000), 0), " + strings.Join(sums, ", ")
}

// Dimension is what entries can be grouped by.
type Dimension string

// Separator stands between the parts of a group of several dimensions.
const Separator = "\x1f"

// version is the version of Claude Code; of another client it is its name, since its versions are no Claude Code's.
const version = "CASE WHEN e.client IN ('claude-cli', 'claude-code', '') THEN e.client_version ELSE e.client END"

// The dimensions. ByReport is version, model and outcome in one pass,
// ByTree agent, parent and model, ByBill the UTC day as microseconds and model. ByQuarter is the quarter hour of the start as
// microseconds: every time zone's hours and days are made of whole ones.
const (
	ByNothing  Dimension = "''"
	ByUser     Dimension = "e.user_name || ''" // not by index: that reads the rows in random order
	ByTeam     Dimension = "e.team"
	ByKey      Dimension = "e.key_name"
	ByModel    Dimension = "COALESCE(NULLIF(e.model_served, ''), NULLIF(e.model_sent, ''), e.model_asked)"
	ByUpstream Dimension = "e.upstream"
	BySession  Dimension = "e.session_id || ''"
	ByAgent    Dimension = "e.agent_id || '" + Separator + "' || e.parent_agent_id"
	ByVersion  Dimension = version
	ByTree     Dimension = "e.agent_id || '" + Separator + "' || e.parent_agent_id || '" + Separator + "' || " + ByModel
	ByReport   Dimension = version + " || '" + Separator + "' || " + ByModel + " || '" + Separator + "' || e.outcome"
	ByBill     Dimension = "CAST(e.started_at - e.started_at % 86400000000 AS TEXT) || '" + Separator + "' || " + ByModel
	ByQuarter  Dimension = "CAST(e.started_at - e.started_at % 900000000 AS TEXT)"
)

// Sums returns what entries add up to by a dimension, groups with the most tokens first. By nothing it is one sum, also
// when there are no entries.
func (s *Store) Sums(ctx context.Context, f Filter, by Dimension) ([]Sum, error) {
	where, args := f.where()
	query := `SELECT ` + string(by) + ` AS grp, ` + sumColumns() + ` FROM entries AS e` + where
	if by != ByNothing {
		query += ` GROUP BY grp ORDER BY SUM(` + allTokens + `) DESC, COUNT(*) DESC, grp`
	}
	sums, err := collect(ctx, s.db, sumFields, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot sum the entries: %w", err)
	}
	return sums, nil
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

// Distinct returns how many users and sessions the entries name.
func (s *Store) Distinct(ctx context.Context, f Filter) (users, sessions int64, err error) {
	where, args := f.where()
	//nolint:gosec // where holds marks, not values
	row := s.db.QueryRowContext(ctx, `SELECT COUNT(DISTINCT e.user_name), COUNT(DISTINCT NULLIF(e.session_id, ''))
		FROM entries AS e`+where, args...)
	if err := row.Scan(&users, &sessions); err != nil {
		return 0, 0, fmt.Errorf("cannot count users and sessions: %w", err)
	}
	return users, sessions, nil
}

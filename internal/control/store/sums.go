package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sum is what a group of entries adds up to.
type Sum struct {
	Groups                                                     []string  // by each of the dimensions
	FirstAt, LastAt                                            time.Time // starts of the first and last entry
	EndAt                                                      time.Time // the last end
	Requests, Errors                                           int64
	Input, Output, CacheRead, CacheWrite5m, CacheWrite1h       int64
	Thinking, Quota, WebSearches, FileOperations               int64
	Cost, CacheSavings                                         int64 // micro-dollars
	Unpriced, Estimated                                        int64 // entries; Unpriced are also those from before there were prices
	RequestBytes, ResponseBytes, Duration, FirstByte, Answered int64 // Duration and FirstByte over the Answered entries
}

// Add adds another sum, whatever its groups.
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
		n := ours[i].(*int64)             //nolint:forcetypeassert // numbers holds nothing else
		*n = add(*n, *theirs[i].(*int64)) //nolint:forcetypeassert // the same
	}
}

// maxSum is where sums stop, on either side of 0: two of them never overflow, in whatever database.
const maxSum = 4_000_000_000_000_000_000

// add sums two numbers, which may be beyond maxSum.
func add(a, b int64) int64 {
	return min(max(clamp(a)+clamp(b), -maxSum), maxSum)
}

func clamp(n int64) int64 { return min(max(n, -maxSum), maxSum) }

// clamped is clamp in SQL.
func clamped(n string) string {
	return fmt.Sprintf("CASE WHEN %[1]s > %[2]d THEN %[2]d WHEN %[1]s < -%[2]d THEN -%[2]d ELSE CAST(%[1]s AS BIGINT) END", n, int64(maxSum))
}

// sumOf adds an expression up over a group, to maxSum at most. SQLite gives up on a sum of whole numbers that overflows; as floating point
// it is exact up to 2⁵³, which is nine billion dollars. In PostgreSQL it is exact.
func sumOf(of string) string { return clamped("COALESCE(SUM(1.0 * (" + of + ")), 0)") }

// Prompt are the tokens of all classes of input.
func (s *Sum) Prompt() int64 {
	return add(s.Input, add(s.CacheRead, add(s.CacheWrite5m, s.CacheWrite1h)))
}

// Tokens are those of all classes.
func (s *Sum) Tokens() int64 { return add(s.Prompt(), s.Output) }

// numbers lists the fields in the order of measures.
func (s *Sum) numbers() []any {
	return []any{
		&s.Requests, &s.Errors, &s.Input, &s.Output, &s.CacheRead, &s.CacheWrite5m, &s.CacheWrite1h,
		&s.Thinking, &s.Quota, &s.WebSearches, &s.FileOperations,
		&s.RequestBytes, &s.ResponseBytes, &s.Duration, &s.FirstByte, &s.Answered,
		&s.Cost, &s.CacheSavings, &s.Unpriced, &s.Estimated,
	}
}

// fields lists the fields in the order of sumColumns.
func (s *Sum) fields() []any {
	return append([]any{instant{&s.FirstAt}, instant{&s.LastAt}, instant{&s.EndAt}}, s.numbers()...)
}

// grouped lists places for n groups before the fields.
func (s *Sum) grouped(n int) []any {
	s.Groups = make([]string, n)
	fields := []any{}
	for i := range s.Groups {
		fields = append(fields, &s.Groups[i])
	}
	return append(fields, s.fields()...)
}

const allTokens = "1.0 * e.input_tokens + e.output_tokens + e.cache_read_tokens + e.cache_write_5m_tokens + e.cache_write_1h_tokens"

// measure is something that is summed: the column of a roll-up that has the sum, and what it is the sum of over entries.
type measure struct{ column, of string }

func measures() []measure {
	return []measure{
		{"requests", "1"},
		{"errors", "CASE WHEN e.outcome IN ('finished', 'canceled') THEN 0 ELSE 1 END"},
		{"input_tokens", "e.input_tokens"},
		{"output_tokens", "e.output_tokens"},
		{"cache_read_tokens", "e.cache_read_tokens"},
		{"cache_write_5m_tokens", "e.cache_write_5m_tokens"},
		{"cache_write_1h_tokens", "e.cache_write_1h_tokens"},
		{"thinking_tokens", "e.thinking_tokens"},
		{"quota_tokens", "e.quota_tokens"},
		{"web_searches", "e.web_searches"},
		{"file_operations", "e.file_operations"},
		{"request_bytes", "e.request_bytes"},
		{"response_bytes", "e.response_bytes"},
		{"answered_duration_ms", "CASE WHEN e.first_byte_ms >= 0 THEN e.duration_ms ELSE 0 END"},
		{"answered_first_byte_ms", "CASE WHEN e.first_byte_ms >= 0 THEN e.first_byte_ms ELSE 0 END"},
		{"answered", "CASE WHEN e.first_byte_ms >= 0 THEN 1 ELSE 0 END"},
		{"cost_micro_usd", "e.cost_micro_usd"},
		{"cache_savings_micro_usd", "e.cache_savings_micro_usd"},
		{"unpriced", "CASE WHEN e.unpriced OR (e.price_version = '' AND " + allTokens + " > 0) THEN 1 ELSE 0 END"},
		{"estimated", "CASE WHEN e.estimated THEN 1 ELSE 0 END"},
	}
}

// sumColumns are what a Sum has but for its groups, over entries or roll-ups called e.
func sumColumns(rolled bool) string {
	columns := []string{"MIN(e.started_at) AS first_at", "MAX(e.started_at) AS last_at", "MAX(e.started_at + e.duration_ms * 1000) AS end_at"}
	if rolled {
		columns = []string{"MIN(e.first_at) AS first_at", "MAX(e.last_at) AS last_at", "MAX(e.end_at) AS end_at"}
	}
	for _, m := range measures() {
		of := m.of
		if rolled {
			of = "e." + m.column
		}
		columns = append(columns, sumOf(of)+" AS "+m.column)
	}
	return strings.Join(columns, ", ")
}

// Dimension is what entries can be grouped by.
type Dimension string

// The dimensions. ByDay is the UTC day and ByQuarter the quarter hour of the start, as microseconds: every time zone's hours and days are
// made of whole quarter hours. The version is that of Claude Code; of another client it is its name, since its versions are no Claude Code's.
const (
	ByUser     Dimension = "e.user_name || ''" // not by index: that reads the rows in random order
	ByTeam     Dimension = "e.team"
	ByKey      Dimension = "e.key_name"
	ByModel    Dimension = "COALESCE(NULLIF(e.model_served, ''), NULLIF(e.model_sent, ''), e.model_asked)"
	ByUpstream Dimension = "e.upstream"
	BySession  Dimension = "e.session_id || ''"
	ByAgent    Dimension = "e.agent_id"
	ByParent   Dimension = "e.parent_agent_id"
	ByVersion  Dimension = "CASE WHEN e.client IN ('claude-cli', 'claude-code', '') THEN e.client_version ELSE e.client END"
	ByOutcome  Dimension = "e.outcome"
	ByDay      Dimension = "CAST(e.started_at - e.started_at % 86400000000 AS TEXT)"
	ByQuarter  Dimension = "CAST(e.started_at - e.started_at % 900000000 AS TEXT)"
)

// column returns the dimension over entries or roll-ups, which do not know sessions, and of agents only whether they are main ones.
func (d Dimension) column(rolled bool) string {
	if rolled && (d == BySession || d == ByParent) {
		return "''"
	}
	return string(d)
}

// part selects sums of entries or roll-ups by dimensions, which are called g0, g1 and so on.
func part(table string, rolled bool, by []Dimension, where string) string {
	columns, groups := []string{}, names(len(by))
	for i, d := range by {
		columns = append(columns, d.column(rolled)+" AS "+groups[i])
	}
	query := "SELECT " + strings.Join(append(columns, sumColumns(rolled)), ", ") + " FROM " + table + " AS e" + where
	if len(by) > 0 {
		query += " GROUP BY " + strings.Join(groups, ", ")
	}
	return query
}

func names(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = "g" + strconv.Itoa(i)
	}
	return names
}

// Sums returns what entries add up to by dimensions, also those that were rolled up, groups with the most tokens first. By no dimension it
// is one sum, also when there are no entries.
func (s *Store) Sums(ctx context.Context, f Filter, by ...Dimension) ([]Sum, error) {
	where, args := f.where()
	parts, all := part("entries", false, by, where), args
	// In one statement, which sees an entry before or after it is rolled up, and never both or neither.
	if f.rolled() {
		parts, all = parts+" UNION ALL "+part("rollups", true, by, where), append(slices.Clip(args), args...)
	}
	columns := append(names(len(by)), "COALESCE(MIN(e.first_at), 0)", "COALESCE(MAX(e.last_at), 0)", "COALESCE(MAX(e.end_at), 0)")
	for _, m := range measures() {
		columns = append(columns, sumOf("e."+m.column))
	}
	query := "SELECT " + strings.Join(columns, ", ") + " FROM (" + parts + ") AS e"
	if len(by) > 0 {
		groups := strings.Join(names(len(by)), ", ")
		query += " GROUP BY " + groups + " ORDER BY " + sumOf(allTokens) + " DESC, SUM(e.requests) DESC, " + groups
	}
	sums, err := collect(ctx, s.db, func(s *Sum) []any { return s.grouped(len(by)) }, query, all...)
	if err != nil {
		return nil, fmt.Errorf("cannot sum the entries: %w", err)
	}
	return sums, nil
}

package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"carpool/internal/fleet"
)

// Filter chooses entries for Totals. Zero fields do not filter.
type Filter struct {
	User         string
	Since, Until time.Time // Since <= StartedAt < Until
}

// Totals are sums over exchanges. Exchanges that only counted tokens are left out.
type Totals struct {
	Requests           int64 `json:"requests"`
	Errors             int64 `json:"errors"` // neither finished nor canceled by the client
	InputTokens        int64 `json:"inputTokens"`
	OutputTokens       int64 `json:"outputTokens"`
	CacheReadTokens    int64 `json:"cacheReadTokens"`
	CacheWrite5mTokens int64 `json:"cacheWrite5mTokens"`
	CacheWrite1hTokens int64 `json:"cacheWrite1hTokens"`
	ThinkingTokens     int64 `json:"thinkingTokens"` // part of OutputTokens
	QuotaTokens        int64 `json:"quotaTokens"`
	Cost               int64 `json:"costMicroUsd"` // micro-dollars, as is what follows
	CacheSavings       int64 `json:"cacheSavingsMicroUsd"`
}

// Totals sums up the entries that the filter chooses. Sums are exact up to 2⁵³, which is nine billion dollars, and never fail.
func (l *Ledger) Totals(ctx context.Context, f Filter) (Totals, error) {
	query := `SELECT count(*), coalesce(sum(outcome NOT IN (?, ?)), 0), cast(total(input) AS INTEGER), cast(total(output) AS INTEGER),
		cast(total(cache_read) AS INTEGER), cast(total(cache_write_5m) AS INTEGER), cast(total(cache_write_1h) AS INTEGER),
		cast(total(thinking) AS INTEGER), cast(total(quota_tokens) AS INTEGER),
		cast(total(body ->> 'costMicroUsd') AS INTEGER), cast(total(body ->> 'cacheSavingsMicroUsd') AS INTEGER)
		FROM entries WHERE endpoint = ?`
	args := []any{string(fleet.OutcomeFinished), string(fleet.OutcomeCanceled), EndpointMessages}
	if f.User != "" {
		query += ` AND user_name = ?`
		args = append(args, f.User)
	}
	if !f.Since.IsZero() {
		query += ` AND started_at >= ?`
		args = append(args, f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		query += ` AND started_at < ?`
		args = append(args, f.Until.UnixMicro())
	}
	var t Totals
	if err := l.upToDate(ctx); err != nil {
		return Totals{}, fmt.Errorf("cannot sum up the ledger: %w", err)
	}
	err := l.file.read.QueryRowContext(ctx, query, args...).Scan(&t.Requests, &t.Errors, &t.InputTokens, &t.OutputTokens,
		&t.CacheReadTokens, &t.CacheWrite5mTokens, &t.CacheWrite1hTokens, &t.ThinkingTokens, &t.QuotaTokens, &t.Cost, &t.CacheSavings)
	if err != nil {
		return Totals{}, fmt.Errorf("cannot sum up the ledger: %w", err)
	}
	return t, nil
}

// Recent returns the entries that started last, newest first; user "" means everybody's.
func (l *Ledger) Recent(ctx context.Context, user string, limit int) ([]Entry, error) {
	query, args := `SELECT seq, node, body FROM entries ORDER BY started_at DESC, seq DESC LIMIT ?`, []any{max(limit, 0)}
	if user != "" {
		query = `SELECT seq, node, body FROM entries WHERE user_name = ? ORDER BY started_at DESC, seq DESC LIMIT ?`
		args = []any{user, max(limit, 0)}
	}
	if err := l.upToDate(ctx); err != nil {
		return nil, fmt.Errorf("cannot read the ledger: %w", err)
	}
	return l.entries(ctx, query, args...)
}

// upToDate waits until everything settled is in the database, where reads look. When it cannot be written, they see what
// it has. The error is that of ctx.
func (l *Ledger) upToDate(ctx context.Context) error {
	if err := l.mover.flush(ctx); err != nil {
		return ctx.Err()
	}
	return nil
}

// Outbox returns at most limit entries after afterSeq, by ascending sequence number. Those up to Acknowledged
// may have been pruned; after it the numbers are consecutive.
func (l *Ledger) Outbox(ctx context.Context, afterSeq int64, limit int) ([]Entry, error) {
	limit = max(limit, 0)
	if l.mover.moved.Load()-afterSeq < int64(limit) {
		if err := l.upToDate(ctx); err != nil {
			return nil, fmt.Errorf("cannot read the ledger: %w", err)
		}
	}
	if entries := l.mover.recent.after(afterSeq, limit); len(entries) > 0 {
		return entries, nil
	}
	if l.mover.moved.Load() <= afterSeq {
		return nil, nil
	}
	return l.entries(ctx, `SELECT seq, node, body FROM entries WHERE seq > ? ORDER BY seq LIMIT ?`, afterSeq, limit)
}

func (l *Ledger) entries(ctx context.Context, query string, args ...any) ([]Entry, error) {
	rows, err := l.file.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read the ledger: %w", err)
	}
	defer rows.Close()
	var entries []Entry
	for rows.Next() {
		var seq int64
		var node string
		var body sql.RawBytes
		if err := rows.Scan(&seq, &node, &body); err != nil {
			return nil, fmt.Errorf("cannot read the ledger: %w", err)
		}
		e, err := decode(body, node, seq)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the ledger: %w", err)
	}
	return entries, nil
}

// KeyActivity returns when each key was last used, by key id. A key appears with the settlement of its first request.
func (l *Ledger) KeyActivity(ctx context.Context) (map[string]time.Time, error) {
	if err := l.upToDate(ctx); err != nil {
		return nil, fmt.Errorf("cannot read key activity: %w", err)
	}
	rows, err := l.file.read.QueryContext(ctx, `SELECT key_id, last_used FROM keys`)
	if err != nil {
		return nil, fmt.Errorf("cannot read key activity: %w", err)
	}
	defer rows.Close()
	activity := make(map[string]time.Time)
	for rows.Next() {
		var key string
		var micros int64
		if err := rows.Scan(&key, &micros); err != nil {
			return nil, fmt.Errorf("cannot read key activity: %w", err)
		}
		activity[key] = time.UnixMicro(micros).UTC()
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read key activity: %w", err)
	}
	return activity, nil
}

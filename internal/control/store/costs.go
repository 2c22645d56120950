package store

import (
	"context"
	"fmt"
	"iter"

	"carpool/internal/fleet"
)

const costColumns = `started_at, endpoint, model_asked, model_sent, model_served, upstream, provider, location,
	input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, web_searches,
	service_tier, inference_geo, speed, usage_reported, estimated, uncharged, cost_micro_usd, unpriced`

// Costs gives what the costs of entries follow from, and the costs, in no order. The entries have nothing else, and are good until the next
// one. After an error there is no more.
func (s *Store) Costs(ctx context.Context, f Filter) iter.Seq2[*fleet.Entry, error] {
	return func(yield func(*fleet.Entry, error) bool) {
		where, args := f.where()
		rows, err := s.db.QueryContext(ctx, `SELECT `+costColumns+` FROM entries AS e`+where, args...) //nolint:gosec // where holds marks, not values
		if err != nil {
			yield(nil, fmt.Errorf("cannot read the costs: %w", err))
			return
		}
		defer rows.Close() //nolint:errcheck // rows.Err says what counts
		for rows.Next() {
			var e fleet.Entry
			err := rows.Scan(instant{&e.StartedAt}, &e.Endpoint, &e.ModelAsked, &e.ModelSent, &e.ModelServed, &e.Upstream, &e.Provider, &e.Location,
				&e.InputTokens, &e.OutputTokens, &e.CacheReadTokens, &e.CacheWrite5mTokens, &e.CacheWrite1hTokens, &e.WebSearches,
				&e.ServiceTier, &e.InferenceGeo, &e.Speed, reported{&e.Usage}, &e.Estimated, &e.Uncharged, &e.Cost, &e.Unpriced)
			if err != nil {
				yield(nil, fmt.Errorf("cannot read the costs: %w", err))
				return
			}
			if !yield(&e, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, fmt.Errorf("cannot read the costs: %w", err))
		}
	}
}

package control

import (
	"context"
	"log/slog"
	"time"

	"carpool/internal/quota"
)

const (
	forgetInterval = time.Hour
	forgetStep     = 1000                  // entries removed in one transaction, so that others need not wait long for theirs
	forgetPause    = 50 * time.Millisecond // between two of them
)

// Forget rolls up entries that are older than a retention, until ctx ends. Whole days in the configured time zone go.
func (c *Control) Forget(ctx context.Context, retention time.Duration) {
	for ctx.Err() == nil {
		gone, err := c.forget(ctx, retention)
		if err != nil && ctx.Err() == nil {
			c.options.Log.WarnContext(ctx, "cannot roll up old entries", slog.String("error", err.Error()))
		}
		if gone > 0 {
			c.options.Log.InfoContext(ctx, "old entries rolled up", slog.Int64("entries", gone))
		}
		pause(ctx, forgetInterval)
	}
}

// forget rolls up what there is to roll up now, and returns how many entries that removed, also beside an error.
func (c *Control) forget(ctx context.Context, retention time.Duration) (gone int64, err error) {
	before, _ := quota.Daily.Bounds(c.options.Now().Add(-retention), c.location())
	for ctx.Err() == nil {
		removed, err := c.store.RollUp(ctx, before, grain(c.location(), before), forgetStep)
		if err != nil {
			return gone, err
		}
		gone += removed
		if removed < forgetStep {
			return gone, nil
		}
		pause(ctx, forgetPause)
	}
	return gone, nil
}

// grain is how long the stretches of time are that roll-ups stand for: as long as hours and days in a zone, and in UTC, are still made of
// whole ones.
func grain(zone *time.Location, at time.Time) time.Duration {
	for month := range time.December {
		if _, offset := time.Date(at.Year(), month+1, 1, 0, 0, 0, 0, zone).Zone(); offset%3600 != 0 {
			return 15 * time.Minute
		}
	}
	return time.Hour
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// keptFrom returns since when there are entries and not only roll-ups, where a range that begins at since reaches behind that.
func (c *Control) keptFrom(ctx context.Context, since time.Time) (*time.Time, error) {
	cutoff, err := c.store.Cutoff(ctx)
	if err != nil || cutoff.IsZero() || !since.Before(cutoff) {
		return nil, err
	}
	return &cutoff, nil
}

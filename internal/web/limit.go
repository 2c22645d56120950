package web

import (
	"context"
	"sync/atomic"

	"carpool/internal/anthropic"
	"carpool/internal/wire"
)

// AtMost returns a Handler that serves up to most requests at once and tells the others at once that it is overloaded.
func AtMost(most int64, handle Handler) Handler {
	var running atomic.Int64
	return func(ctx context.Context, w wire.Writer, r *Request) error {
		defer running.Add(-1)
		if running.Add(1) > most {
			e := anthropic.ErrOverloaded(2)
			e.Message = "Overloaded: this gateway serves as many requests as it can; try again in a moment."
			return e
		}
		return handle(ctx, w, r)
	}
}

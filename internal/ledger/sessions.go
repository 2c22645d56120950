package ledger

import (
	"context"
	"fmt"
	"time"
)

// Session is where a conversation was last served.
type Session struct {
	Route, Session, Upstream string
	At                       time.Time
}

// Sessions calls found for every exchange since a time that an upstream served for a known session, oldest first.
func (l *Ledger) Sessions(ctx context.Context, since time.Time, found func(Session)) error {
	if err := l.upToDate(ctx); err != nil {
		return fmt.Errorf("cannot read the sessions: %w", err)
	}
	rows, err := l.file.read.QueryContext(ctx, `
		SELECT started_at, coalesce(body ->> 'route', ''), body ->> 'sessionId', body ->> 'upstream' FROM entries
		WHERE started_at > ? AND outcome = 'finished' AND body ->> 'sessionId' IS NOT NULL AND body ->> 'upstream' IS NOT NULL
		ORDER BY seq`, since.UnixMicro())
	if err != nil {
		return fmt.Errorf("cannot read the sessions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s Session
		var at int64
		if err := rows.Scan(&at, &s.Route, &s.Session, &s.Upstream); err != nil {
			return fmt.Errorf("cannot read the sessions: %w", err)
		}
		s.At = time.UnixMicro(at)
		found(s)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("cannot read the sessions: %w", err)
	}
	return nil
}

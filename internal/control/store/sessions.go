package store

import (
	"context"
	"fmt"
	"unicode/utf8"
)

// Session is what the entries of a session of Claude Code add up to; its id is the sum's group.
type Session struct {
	Sum
	User          string // the first by name
	Users, Agents int64  // how many the entries name
}

// Sessions returns the sessions that the entries name, those used last first.
func (s *Store) Sessions(ctx context.Context, f Filter, limit int) ([]Session, error) {
	where, args := f.where()
	sessions, err := collect(ctx, s.db, func(n *Session) []any { return append(n.grouped(1), &n.User, &n.Users, &n.Agents) },
		`SELECT `+string(BySession)+` AS grp, `+sumColumns(false)+`, MIN(e.user_name), COUNT(DISTINCT e.user_name), COUNT(DISTINCT NULLIF(e.agent_id, ''))
		FROM entries AS e`+where+` AND e.session_id <> '' GROUP BY grp ORDER BY MAX(e.started_at) DESC, grp LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("cannot list the sessions: %w", err)
	}
	return sessions, nil
}

// SessionIDs returns at most limit ids of sessions that begin with a prefix.
func (s *Store) SessionIDs(ctx context.Context, prefix string, limit int) ([]string, error) {
	ids, err := collect(ctx, s.db, func(id *string) []any { return []any{id} },
		`SELECT DISTINCT e.session_id FROM entries AS e WHERE substr(e.session_id, 1, ?) = ?`+byTime+` ORDER BY 1 LIMIT ?`,
		utf8.RuneCountInString(prefix), prefix, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot look up the session: %w", err)
	}
	return ids, nil
}

package store

import (
	"context"
	"fmt"
	"time"
)

// Audit is one change that somebody made.
type Audit struct {
	ID      int64
	At      time.Time
	Actor   string
	Action  string
	Kind    string
	Name    string
	Detail  string
	Version int64
}

func auditFields(a *Audit) []any {
	return []any{&a.ID, instant{&a.At}, &a.Actor, &a.Action, &a.Kind, &a.Name, &a.Detail, &a.Version}
}

// PutAudit appends to the audit log; the id is given here.
func (t *Tx) PutAudit(ctx context.Context, a Audit) error {
	return t.exec(ctx, "write the audit log", `INSERT INTO audit (id, at, actor, action, kind, name, detail, version)
		SELECT COALESCE(MAX(id), 0) + 1, ?, ?, ?, ?, ?, ?, ? FROM audit`, auditFields(&a)[1:]...)
}

// Audit returns the newest rows of the audit log, newest first.
func (s *Store) Audit(ctx context.Context, limit int) ([]Audit, error) {
	rows, err := collect(ctx, s.db, auditFields, `SELECT id, at, actor, action, kind, name, detail, version
		FROM audit ORDER BY id DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot read the audit log: %w", err)
	}
	return rows, nil
}

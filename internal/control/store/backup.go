package store

import (
	"context"
	"fmt"
)

// Backup writes a consistent copy of the database into the file path, which must not exist or be empty, while it is in use.
func (s *Store) Backup(ctx context.Context, path string) error {
	if _, err := s.db.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		return fmt.Errorf("cannot copy the database to %s: %w", path, err)
	}
	return nil
}

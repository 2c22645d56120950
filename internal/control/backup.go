package control

import "context"

// Backup writes a consistent copy of control's database into the file path, which must not exist or be empty. The copy
// holds credentials encrypted with the master key, without which it cannot be used.
func (c *Control) Backup(ctx context.Context, path string) error { return c.store.Backup(ctx, path) }

package control

import (
	"context"

	"carpool/internal/control/store"
)

// Backup writes a consistent copy of control's database into the file path, which must not exist or be empty. The copy
// holds credentials encrypted with the master key, without which it cannot be used.
func (c *Control) Backup(ctx context.Context, path string) error { return c.store.Backup(ctx, path) }

// Summary is what a database of control says of itself.
type Summary = store.Summary

// Inspect reads control's database at path, whatever its schema, without changing it.
func Inspect(ctx context.Context, path string) (Summary, error) { return store.Inspect(ctx, path) }

// Fits reports whether the key is the one that a database of control was sealed with. One without any policy fits all.
func (m MasterKey) Fits(s Summary) bool {
	if s.SealCheck == "" {
		return true
	}
	_, err := m.unseal(sealCheckName, s.SealCheck)
	return err == nil
}

// CopyClosed copies control's database at path, which no server uses, as it is, into a file like that of Backup.
func CopyClosed(ctx context.Context, path, into string) error { return store.Copy(ctx, path, into) }

// Schema is where a database of control stands.
type Schema = store.Schema

// ReadSchema reads where control's database at path stands, without changing it and at once.
func ReadSchema(ctx context.Context, path string) (Schema, error) { return store.ReadSchema(ctx, path) }

// Migrate brings the schema of control's database at path, which no server uses, up to date. Opening it does that too.
func Migrate(ctx context.Context, path string) error {
	s, err := store.Open(ctx, path)
	if err != nil {
		return err
	}
	return s.Close()
}

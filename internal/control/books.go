package control

import (
	"context"

	"carpool/internal/control/store"
)

// Books is one moment of the entries that control has, see OpenBooks.
type Books = store.Books

// Drift is how far the roll-ups are from what they are made of.
type Drift = store.Drift

// OpenBooks opens control's database at path to verify the books, without changing it and also beside a server. Nothing
// in it that is encrypted is read. Close what it returns.
func OpenBooks(ctx context.Context, path string) (*Books, error) { return store.OpenBooks(ctx, path) }

//go:build !linux

package ledger

import "os"

// syncData forces a file to stable storage.
func syncData(f *os.File) error { return f.Sync() }

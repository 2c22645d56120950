package ledger

import "time"

// Hurry makes a ledger move and rotate all the time, so that there is always something to be killed at.
func (o *Options) Hurry() { o.tune = tuning{segment: 6000, every: 2 * time.Millisecond, entries: 8} }

// Rest makes a ledger move only when it is asked for.
func (o *Options) Rest() { o.tune = tuning{every: time.Hour, entries: 1 << 20} }

// RestUnsynced does, and forces no segment to stable storage.
func (o *Options) RestUnsynced() {
	o.Rest()
	o.tune.create = func(path string) (segmentFile, error) {
		f, err := createSegment(path)
		return unsyncedFile{f}, err
	}
}

type unsyncedFile struct{ segmentFile }

func (unsyncedFile) Sync() error { return nil }

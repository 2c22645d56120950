package ledger

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// segmentFile is what the journal needs of an open file.
type segmentFile interface {
	WriteAt(p []byte, at int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// createSegment makes a segment. One under its number can only be what an attempt that failed has left.
func createSegment(path string) (segmentFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // beside the ledger's file
	if err != nil {
		return nil, err
	}
	return dataFile{f}, nil
}

// dataFile is a file of whose metadata only the size is forced to stable storage.
type dataFile struct{ *os.File }

func (f dataFile) Sync() error { return syncData(f.File) }

// journal is the segment that is being written. It belongs to the writer's leader; what a timer forces to stable storage
// meanwhile is under mu.
type journal struct {
	path     string // of the database
	name     string // of the ledger
	create   func(path string) (segmentFile, error)
	interval time.Duration // after which what was written is forced to stable storage; 0 is at once
	failed   func(error)   // is told why lost was set

	number int64
	size   int64 // end of the last whole record
	torn   bool  // something may stand after size that must be cut off first

	mu    sync.Mutex
	file  segmentFile
	dirty atomic.Bool           // something was written since the last sync began
	timed atomic.Bool           // expire is going to be called, or runs
	lost  atomic.Pointer[error] // why the segment cannot be relied upon; see sync
}

// append writes frames with one call, all or none. After an error the segment ends where it did before, or is cut to
// there before anything else is written.
func (j *journal) append(frames []byte) error {
	if lost := j.lost.Load(); lost != nil && j.interval == 0 {
		return *lost
	}
	if err := j.mend(); err != nil {
		return err
	}
	_, err := j.file.WriteAt(frames, j.size)
	if err != nil {
		err = fmt.Errorf("cannot write the journal: %w", err)
	} else {
		err = j.written()
	}
	if err != nil {
		j.torn = true
		_ = j.mend() // if it fails, the next append tries again
		return err
	}
	j.size += int64(len(frames))
	return nil
}

// written sees to it that what was written gets to stable storage in time.
func (j *journal) written() error {
	j.dirty.Store(true)
	if j.interval == 0 {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.sync()
	}
	j.schedule()
	return nil
}

func (j *journal) schedule() {
	if j.lost.Load() == nil && j.timed.CompareAndSwap(false, true) {
		time.AfterFunc(j.interval, j.expire)
	}
}

// expire forces to stable storage what was written in the interval. The leader goes on writing meanwhile.
func (j *journal) expire() {
	j.mu.Lock()
	_ = j.sync() // failed was told
	j.mu.Unlock()
	j.timed.Store(false)
	if j.dirty.Load() {
		j.schedule()
	}
}

// sync forces what was written to stable storage; mu is held. After an error nobody knows what of the segment is there,
// and another attempt could succeed without it, because a system may forget what it could not write. So the segment is
// lost: it has to be left for a new one, see writer.leave.
func (j *journal) sync() error {
	if lost := j.lost.Load(); lost != nil {
		return *lost
	}
	if j.file == nil || !j.dirty.Swap(false) {
		return nil
	}
	if err := j.file.Sync(); err != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, explain(fmt.Errorf("cannot force the journal to stable storage: %w", err)))
		j.lost.Store(&err)
		j.failed(err)
		return err
	}
	return nil
}

func (j *journal) mend() error {
	if !j.torn {
		return nil
	}
	if err := j.file.Truncate(j.size); err != nil {
		return fmt.Errorf("cannot cut a broken record off the journal: %w", err)
	}
	j.torn = false
	return nil
}

// rotate goes on in a new segment, which begins with the openings that are still open. After an error the old segment
// stays in use. The old one is on stable storage before the new one is made: what follows a gap could not be booked.
func (j *journal) rotate(last int64, openings map[string]*buffer) error {
	if err := j.mend(); err != nil { // only a journal's last segment may end within a record
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost.Load() == nil {
		if err := j.sync(); err != nil {
			return err
		}
	}
	b := segmentHead(j.name, last)
	for _, frame := range openings {
		b = append(b, frame.b...)
	}
	path := segmentPath(j.path, j.number+1)
	file, err := j.create(path)
	if err != nil {
		return fmt.Errorf("cannot make a segment of the journal: %w", err)
	}
	if _, err = file.WriteAt(b, 0); err == nil {
		err = file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot begin a segment of the journal: %w", err), file.Close(), os.Remove(path))
	}
	syncFolder(j.path)
	old := j.file
	j.file, j.number, j.size = file, j.number+1, int64(len(b))
	j.dirty.Store(false)
	j.lost.Store(nil)
	if old != nil {
		_ = old.Close() // everything in it was written
	}
	return nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := errors.Join(j.sync(), j.file.Close())
	j.file = nil
	return err
}

package ledger

import (
	"errors"
	"fmt"
	"os"
)

// segmentFile is what the journal needs of an open file.
type segmentFile interface {
	WriteAt(p []byte, at int64) (int, error)
	Truncate(size int64) error
	Close() error
}

// createSegment makes a segment. One under its number can only be what an attempt that failed has left.
func createSegment(path string) (segmentFile, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // beside the ledger's file
}

// journal is the segment that is being written. It belongs to the writer's leader.
type journal struct {
	path   string // of the database
	name   string // of the ledger
	create func(path string) (segmentFile, error)

	file   segmentFile
	number int64
	size   int64 // end of the last whole record
	torn   bool  // something may stand after size that must be cut off first
}

// append writes frames with one call, all or none. After an error the segment ends where it did before, or is cut to
// there before anything else is written.
func (j *journal) append(frames []byte) error {
	if err := j.mend(); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(frames, j.size); err != nil {
		j.torn = true
		_ = j.mend() // if it fails, the next append tries again
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	j.size += int64(len(frames))
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
// stays in use.
func (j *journal) rotate(last int64, openings map[string]*buffer) error {
	if err := j.mend(); err != nil { // only a journal's last segment may end within a record
		return err
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
	if _, err := file.WriteAt(b, 0); err != nil {
		return errors.Join(fmt.Errorf("cannot begin a segment of the journal: %w", err), file.Close(), os.Remove(path))
	}
	old := j.file
	j.file, j.number, j.size = file, j.number+1, int64(len(b))
	if old != nil {
		_ = old.Close() // everything in it was written
	}
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A segment is one file of the journal: PATH.journal.NUMBER, numbers ascending. It starts with a preamble that every
// format version keeps (magic, version, CRC-32C of both, four bytes each) and a frame of kindSegment, and it is written
// once from its beginning to its end.
const (
	segmentMagic   = "CPLJ"
	segmentVersion = 2 // 1 had no budgets
	preambleSize   = 12

	journalSuffix = ".journal."
	damagedSuffix = ".damaged" // of segments set aside
)

var errPreamble = errors.New("its beginning is damaged")

func segmentPath(path string, number int64) string {
	return path + journalSuffix + fmt.Sprintf("%08d", number)
}

// segments lists the numbers of a ledger's segments, ascending, and the first number that none has or had.
func segments(path string) (numbers []int64, next int64, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, 0, fmt.Errorf("cannot look for its journal: %w", err)
	}
	prefix := filepath.Base(path) + journalSuffix
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		digits, aside := strings.CutSuffix(rest, damagedSuffix)
		n, err := strconv.ParseInt(digits, 10, 64)
		if !ok || err != nil || n < 1 {
			continue
		}
		next = max(next, n)
		if aside {
			continue
		}
		if !e.Type().IsRegular() {
			return nil, 0, fmt.Errorf("%s%s is not a regular file; move it away", prefix, rest)
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers, next + 1, nil
}

// segmentHead renders the beginning of a segment. name is the ledger's, last the sequence number before the segment.
func segmentHead(name string, last int64) []byte {
	b := append([]byte(segmentMagic), segmentVersion, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	frame := append(make([]byte, frameHead), kindSegment)
	frame = binary.AppendVarint(appendText(frame, name), last)
	seal(frame)
	return append(b, frame...)
}

// segment is what a segment's file holds.
type segment struct {
	name    string // of its ledger
	last    int64  // the sequence number before it
	records []byte // its frames
	at      int    // where they begin in the file
}

// readSegment reads a segment's beginning. The errors are errCut, errPreamble, and one that tells of a newer version.
func readSegment(data []byte) (*segment, error) {
	if len(data) < preambleSize {
		return nil, errCut
	}
	sum := crc32.Checksum(data[:preambleSize-4], crc32.MakeTable(crc32.Castagnoli))
	if string(data[:4]) != segmentMagic || binary.LittleEndian.Uint32(data[preambleSize-4:]) != sum {
		return nil, errPreamble
	}
	if v := binary.LittleEndian.Uint32(data[4:]); v < 1 || v > segmentVersion {
		return nil, &versionError{v}
	}
	body, size, err := unframe(data[preambleSize:])
	if errors.Is(err, errCut) {
		return nil, errCut
	}
	if err != nil || body[0] != kindSegment {
		return nil, errPreamble
	}
	f := fields{rest: body[1:]}
	s := &segment{name: f.text(), last: f.number(), records: data[preambleSize+size:], at: preambleSize + size}
	if f.bad || s.last < 0 {
		return nil, errPreamble
	}
	return s, nil
}

// versionError is the refusal of a segment in another format.
type versionError struct{ version uint32 }

func (e *versionError) Error() string {
	return fmt.Sprintf("its format is version %d and this Carpool knows up to version %d; run the newer Carpool that wrote it", e.version, segmentVersion)
}

// read hands the segment's records to visit one after the other. The error is that of the first frame that cannot be
// read, or of visit; at is the place in the file.
func (s *segment) read(visit func(body []byte) error) (at int, err error) {
	for rest := s.records; len(rest) > 0; {
		at = s.at + len(s.records) - len(rest)
		body, size, err := unframe(rest)
		if err == nil {
			err = visit(body)
		}
		if err != nil {
			return at, err
		}
		rest = rest[size:]
	}
	return s.at + len(s.records), nil
}

// syncFile writes a file of the ledger through to the disk.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // beside the ledger's file
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncFolder makes the coming and going of files in the folder of path last. Not every system can; then it is left to it.
func syncFolder(path string) {
	if folder, err := os.Open(filepath.Dir(path)); err == nil {
		_ = folder.Sync()
		_ = folder.Close()
	}
}

// removeSegments deletes segments, in the order given: while a segment exists, so do those after it.
func removeSegments(path string, numbers []int64) error {
	for _, n := range numbers {
		if err := os.Remove(segmentPath(path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove a segment of the journal that is booked: %w", err)
		}
	}
	if len(numbers) > 0 {
		syncFolder(path)
	}
	return nil
}

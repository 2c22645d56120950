package ledger

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"sync"
	"time"

	"carpool/internal/quota"
)

// A frame is a record of the journal: the length of its body and the CRC-32C of length and body, four bytes each, little
// endian, and the body, whose first byte is its kind. Texts stand after their length, numbers as varints.
const (
	frameHead = 8
	maxBody   = 64 << 20 // a longer one is damage

	kindSegment    = 1 // starts a segment: the ledger's name, the last sequence number before it
	kindOpening    = 2
	kindSettlement = 3 // sequence number (eight bytes, so that it can be filled in last), windows, entry as JSON

	// The same of an exchange with budgets: its charges stand as text before the entry.
	kindBudgetOpening    = 4
	kindBudgetSettlement = 5

	seqAt = frameHead + 1 // of a settlement's frame
)

var (
	errCut    = errors.New("it ends within a record")
	errBroken = errors.New("a record's checksum is wrong")
	errRecord = errors.New("a record makes no sense")
)

// buffer holds a frame. It is lent by buffers, and given back when nobody reads the frame any more.
type buffer struct{ b []byte }

// buffers lends buffers for frames.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, 1<<10)}
}

// put takes a buffer back. nil is none.
func (p *buffers) put(b *buffer) {
	const usual = 8 << 10
	if b != nil && cap(b.b) <= usual {
		p.pool.Put(b)
	}
}

// seal completes the head of a frame whose body is final.
func seal(frame []byte) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-frameHead)) //nolint:gosec // far below 4 GiB
	binary.LittleEndian.PutUint32(frame[4:], checksum(frame))
}

func checksum(frame []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(frame[:4], table), table, frame[frameHead:])
}

// unframe returns the body of the first frame in data and the frame's size. The error is errCut when data ends within
// the frame, errBroken when the frame is damaged.
func unframe(data []byte) (body []byte, size int, err error) {
	if len(data) < frameHead {
		return nil, 0, errCut
	}
	length := binary.LittleEndian.Uint32(data)
	if length == 0 || length > maxBody {
		return nil, 0, errBroken
	}
	size = frameHead + int(length)
	if size > len(data) {
		return nil, 0, errCut
	}
	if checksum(data[:size]) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, 0, errBroken
	}
	return data[frameHead:size], size, nil
}

// resumes reports whether a whole frame stands anywhere in data: what a write that was cut short never leaves.
func resumes(data []byte) bool {
	for i := range data {
		if _, _, err := unframe(data[i:]); err == nil {
			return true
		}
	}
	return false
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendPeriod(b []byte, p quota.Period) []byte {
	return binary.AppendVarint(appendText(b, p.Label), p.End.Unix())
}

// fields reads a body's fields one after the other. After a bad one all are zero, and bad is set.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) text() string {
	n, size := binary.Uvarint(f.rest)
	if size <= 0 || n > uint64(len(f.rest)-size) {
		f.fail()
		return ""
	}
	s := string(f.rest[size : size+int(n)]) //nolint:gosec // n is at most len(rest)
	f.rest = f.rest[size+int(n):]           //nolint:gosec // the same
	return s
}

func (f *fields) number() int64 {
	n, size := binary.Varint(f.rest)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

func (f *fields) fixed() int64 {
	if len(f.rest) < 8 {
		f.fail()
		return 0
	}
	n := binary.LittleEndian.Uint64(f.rest)
	f.rest = f.rest[8:]
	if n > math.MaxInt64 {
		f.fail()
		return 0
	}
	return int64(n)
}

func (f *fields) period() quota.Period {
	label := f.text()
	return quota.Period{Label: label, End: time.Unix(f.number(), 0)}
}

func frameCharges(b []byte, charges []charge) []byte {
	if len(charges) == 0 {
		return b
	}
	at := len(b)
	b = appendCharges(b, charges)
	var length [binary.MaxVarintLen64]byte
	return slices.Insert(b, at, length[:binary.PutUvarint(length[:], uint64(len(b)-at))]...)
}

func (f *fields) charges() []charge {
	charges, err := readCharges(f.text())
	if err != nil {
		f.fail()
	}
	return charges
}

func (f *fields) fail() { f.rest, f.bad = nil, true }

// leftover is an opening as it is found after a crash, in the journal or in the table openings.
type leftover struct {
	id, user                   string
	daily, monthly             quota.Period
	reserved, estimate, charge int64
	charges                    []charge
	body                       []byte // the entry as JSON
}

// openingFrame appends the frame of an opening to b, which is empty.
func openingFrame(b []byte, o *leftover, e *Entry) ([]byte, error) {
	b = append(b, make([]byte, frameHead)...)
	b = append(b, kindOpening)
	if len(o.charges) > 0 {
		b[frameHead] = kindBudgetOpening
	}
	b = appendText(b, o.id)
	b = appendText(b, o.user)
	b = appendPeriod(b, o.daily)
	b = appendPeriod(b, o.monthly)
	b = binary.AppendVarint(b, o.reserved)
	b = binary.AppendVarint(b, o.estimate)
	b = binary.AppendVarint(b, o.charge)
	b = frameCharges(b, o.charges)
	b, err := appendEntry(b, e)
	if err != nil {
		return nil, err
	}
	seal(b)
	return b, nil
}

func readOpening(body []byte) (*leftover, error) {
	f := fields{rest: body[1:]}
	o := &leftover{
		id: f.text(), user: f.text(), daily: f.period(), monthly: f.period(),
		reserved: f.number(), estimate: f.number(), charge: f.number(),
	}
	if body[0] == kindBudgetOpening {
		o.charges = f.charges()
	}
	if o.body = f.rest; f.bad || o.id == "" {
		return nil, errRecord
	}
	return o, nil
}

// settlementFrame appends the frame of a settlement but for its sequence number to b, which is empty. The entry's JSON
// begins at body.
func settlementFrame(b []byte, r *reservation, e *Entry) (frame []byte, body int, err error) {
	b = append(b, make([]byte, seqAt+8)...)
	b[frameHead] = kindSettlement
	b = appendPeriod(b, r.daily)
	b = appendPeriod(b, r.monthly)
	if len(r.charges) > 0 {
		b[frameHead] = kindBudgetSettlement
		b = frameCharges(b, r.charges)
	}
	body = len(b)
	b, err = appendEntry(b, e)
	return b, body, err
}

// number fills in the sequence number that a settlement's frame lacks, and seals it.
func (s *settlement) number(seq int64) {
	s.seq = seq
	binary.LittleEndian.PutUint64(s.frame.b[seqAt:], uint64(seq)) //nolint:gosec // never negative
	seal(s.frame.b)
}

// readSettlement is the way back. The settlement has no reservation to release.
func readSettlement(body []byte, node string) (*settlement, error) {
	f := fields{rest: body[1:]}
	s := &settlement{seq: f.fixed()}
	s.daily, s.monthly = f.period(), f.period()
	if body[0] == kindBudgetSettlement {
		s.charges = f.charges()
	}
	if f.bad || s.seq == 0 {
		return nil, errRecord
	}
	entry, err := decode(f.rest, node, 0)
	if err != nil {
		return nil, errRecord
	}
	s.entry, s.body = &entry, f.rest
	return s, nil
}

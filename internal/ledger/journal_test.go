package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// crash opens a copy of a ledger's files as they are at this moment.

func crash(t *testing.T, l *Ledger) *Ledger {
	t.Helper()
	return tunedLedger(t, copyFiles(t, l.file.path), tuning{})
}

// copyFiles copies a ledger's files. The ledger must be at rest.

func copyFiles(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "ledger.db")
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		suffix := strings.TrimPrefix(f, path)
		if suffix == ".lock" || suffix == "-shm" {
			continue
		}
		data, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(to+suffix, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// still is a tuning under which nothing is moved unless asked for.

func still() tuning { return tuning{every: time.Hour, entries: 1 << 20} }

// exchange opens an exchange of 10 tokens and settles it with input.

func exchange(t *testing.T, l *Ledger, id string, input int64) {
	t.Helper()
	x, err := l.Reserve(t.Context(), testOpening(id, 10))
	if err == nil {
		err = x.Settle(Entry{InputTokens: input, Outcome: OutcomeFinished})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// journalOf returns the path of the only segment.

func journalOf(t *testing.T, path string) string {
	t.Helper()
	numbers, _, err := segments(path)
	if err != nil || len(numbers) != 1 {
		t.Fatalf("segments %v, %v", numbers, err)
	}
	return segmentPath(path, numbers[0])
}

// outcomes lists what is booked, in order: id and outcome.

func outcomes(t *testing.T, l *Ledger) (all []string) {
	t.Helper()
	entries, err := l.Outbox(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if e.Seq != int64(i+1) {
			t.Errorf("entry %d has number %d", i+1, e.Seq)
		}
		all = append(all, e.ID+" "+string(e.Outcome))
	}
	return all
}

func damagedFiles(t *testing.T, path string) []string {
	t.Helper()
	files, err := filepath.Glob(path + "*" + damagedSuffix)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// frames returns where each record of a segment begins, and the segment's end.

func frames(t *testing.T, data []byte) (at []int) {
	t.Helper()
	s, err := readSegment(data)
	if err != nil {
		t.Fatal(err)
	}
	for rest := s.records; len(rest) > 0; {
		at = append(at, len(data)-len(rest))
		_, size, err := unframe(rest)
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[size:]
	}
	return append(at, len(data))
}

// sample has three exchanges in its journal, of which the last is open, and none in its database.

func sample(t *testing.T) (path string, data []byte) {
	t.Helper()
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), still())
	exchange(t, l, "e1", 7)
	exchange(t, l, "e2", 8)
	if _, err := l.Reserve(t.Context(), testOpening("e3", 9)); err != nil {
		t.Fatal(err)
	}
	path = copyFiles(t, l.file.path)
	data, err := os.ReadFile(journalOf(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

// sampleAt is what becomes of a sample of which so many whole records are left.

func sampleAt(records int) []string {
	return [][]string{
		nil,
		{"e1 crashed"},
		{"e1 finished"},
		{"e1 finished", "e2 crashed"},
		{"e1 finished", "e2 finished"},
		{"e1 finished", "e2 finished", "e3 crashed"},
	}[records]
}

// reopen puts a sample's journal in place, opens the ledger and returns what it holds and what it logged.

func reopen(t *testing.T, path string, journal []byte) (all []string, log string, err error) {
	t.Helper()
	path = copyFiles(t, path)
	if err := os.WriteFile(journalOf(t, path), journal, 0o600); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	l, err := Open(t.Context(), path, Options{Node: "n1", Log: slog.New(slog.NewTextHandler(&text, nil))})
	if err != nil {
		return nil, text.String(), err
	}
	all = outcomes(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	kept := damagedFiles(t, path)
	if len(kept) > 1 {
		t.Errorf("kept %v", kept)
	}
	if len(kept) == 0 {
		return all, text.String(), nil
	}
	if got, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(got, journal) {
		t.Errorf("what is kept aside is not what was there: %v", err)
	}
	return all, text.String(), errKept
}

var errKept = errors.New("kept aside")

// read takes a sample's journal in without a database, and returns what would be booked.

func read(t *testing.T, path string, whole, journal []byte) (all []string, log string, err error) {
	t.Helper()
	var text bytes.Buffer
	s, err := readSegment(whole)
	if err != nil {
		t.Fatal(err)
	}
	l := &Ledger{file: &file{path: path}, node: "n1", name: s.name, log: slog.New(slog.NewTextHandler(&text, nil))}
	r := &recovery{l: l, ctx: t.Context(), open: map[string]*leftover{}}
	if err := r.read(1, journal, true); err != nil {
		t.Fatal(err)
	}
	for i, s := range r.pending {
		if s.seq != int64(i+1) {
			t.Errorf("number %d stands at %d", s.seq, i)
		}
		all = append(all, s.entry.ID+" "+string(s.entry.Outcome))
	}
	for _, id := range r.order {
		if r.open[id] != nil {
			all = append(all, id+" crashed")
		}
	}
	if len(r.aside) > 0 {
		return all, text.String(), errKept
	}
	return all, text.String(), nil
}

// recordsBefore counts the records that end before a place.

func recordsBefore(at []int, place int) (n int) {
	for n < len(at)-1 && at[n+1] <= place {
		n++
	}
	return n
}

func TestTornTailIsCut(t *testing.T) {
	path, data := sample(t)
	at := frames(t, data)
	check := func(end int, take func(*testing.T, string, []byte) ([]string, string, error)) {
		t.Helper()
		records := recordsBefore(at, end)
		all, log, err := take(t, path, data[:end])
		if err != nil || !reflect.DeepEqual(all, sampleAt(records)) {
			t.Fatalf("cut at %d: %v, %v\n%s", end, all, err, log)
		}
		if torn := end > at[0] && end != at[records]; torn != strings.Contains(log, "cut off the record") {
			t.Fatalf("cut at %d: %s", end, log)
		}
	}
	for end := range len(data) + 1 {
		check(end, func(t *testing.T, path string, journal []byte) ([]string, string, error) {
			return read(t, path, data, journal)
		})
	}
	for _, end := range []int{0, 5, at[0], at[1] + 1, at[2], at[4] - 1, len(data) - 1} {
		check(end, reopen)
	}
}

func TestDamageStopsTheJournal(t *testing.T) {
	path, data := sample(t)
	at := frames(t, data)
	check := func(i int, bit byte, take func(*testing.T, string, []byte) ([]string, string, error)) {
		t.Helper()
		broken := bytes.Clone(data)
		broken[i] ^= bit
		records := recordsBefore(at, i)
		all, log, err := take(t, path, broken)
		if i >= at[4] && i < at[4]+4 && err == nil {
			// The length of the last record reaches past the end: not to be told from a torn one.
			if !strings.Contains(log, "cut off the record") {
				t.Fatalf("damage at %d: %s", i, log)
			}
			return
		}
		if !errors.Is(err, errKept) || !reflect.DeepEqual(all, sampleAt(records)) {
			t.Fatalf("damage at %d: %v, %v\n%s", i, all, err, log)
		}
		if !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "is damaged") {
			t.Fatalf("damage at %d: %s", i, log)
		}
	}
	for i := range data {
		for bit := range 8 {
			check(i, 1<<bit, func(t *testing.T, path string, journal []byte) ([]string, string, error) {
				return read(t, path, data, journal)
			})
		}
	}
	for _, i := range []int{0, 20, at[1] + 1, at[3] + 40, len(data) - 1} {
		check(i, 0x80, reopen)
	}
}

// A loss of power can leave a file that has its length and not its content.

func TestZerosAreDamage(t *testing.T) {
	path, data := sample(t)
	at := frames(t, data)
	clear(data[at[2]:])
	if all, log, err := reopen(t, path, data); !errors.Is(err, errKept) || !reflect.DeepEqual(all, sampleAt(2)) {
		t.Errorf("%v, %v\n%s", all, err, log)
	}
}

func TestDamageDoesNotLetLaterSegmentsIn(t *testing.T) {
	path, data := sample(t)
	at := frames(t, data)
	data[at[3]+20] ^= 1 // the settlement of e2
	first := journalOf(t, path)
	numbers, _, _ := segments(path)
	l, err := Open(t.Context(), copyFiles(t, path), Options{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	name := l.name
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := &settlement{entry: &Entry{ID: "e9", User: "alice"}, frame: &buffer{}}
	if s.frame.b, _, err = settlementFrame(nil, &s.reservation, s.entry); err != nil {
		t.Fatal(err)
	}
	s.number(3)
	second := append(segmentHead(name, 2), s.frame.b...)
	for file, content := range map[string][]byte{first: data, segmentPath(path, numbers[0]+1): second} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l = tunedLedger(t, path, tuning{})
	if got := outcomes(t, l); !reflect.DeepEqual(got, sampleAt(3)) {
		t.Errorf("%v", got)
	}
	if kept := damagedFiles(t, path); len(kept) != 2 {
		t.Errorf("kept %v", kept)
	}
	if n := l.writer.journal.number; n <= numbers[0]+1 {
		t.Errorf("segment %d is written over what is kept aside", n)
	}
}

func TestOpenRefusesJournals(t *testing.T) {
	refused := func(why string, change func(t *testing.T, path string), want ...string) {
		t.Run(why, func(t *testing.T) {
			path, _ := sample(t)
			change(t, path)
			before, err := os.ReadFile(journalOf(t, path))
			if err != nil {
				t.Fatal(err)
			}
			l, err := Open(t.Context(), path, Options{Node: "n1"})
			if err == nil {
				_ = l.Close()
				t.Fatal("it was opened")
			}
			for _, w := range append(want, "cannot open ledger "+path, journalOf(t, path)) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if after, err := os.ReadFile(journalOf(t, path)); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the journal was touched: %v", err)
			}
		})
	}
	rewrite := func(t *testing.T, path string, journal []byte) {
		t.Helper()
		if err := os.WriteFile(journalOf(t, path), journal, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused("a newer version", func(t *testing.T, path string) {
		rewrite(t, path, newerSegment())
	}, fmt.Sprint("version ", segmentVersion+1), "newer Carpool")
	refused("of another ledger", func(t *testing.T, path string) {
		rewrite(t, path, segmentHead("somebody else's", 0))
	}, "another ledger", "move the journal away")
	refused("an older copy of the file", func(t *testing.T, path string) {
		l, err := Open(t.Context(), copyFiles(t, path), Options{Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, path, segmentHead(l.name, 5))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}, "goes on at entry 6", "ends at entry 0", "older copy")
}

func newerSegment() []byte {
	b := segmentHead("x", 0)
	b[4] = segmentVersion + 1
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// A copy that is older than the journal is brought up to date by it, as long as nothing is missing in between.

// A journal that is older than the file changes nothing: neither its settlements nor its openings are booked again.

// Moments of death: after each step of what happens to an exchange, the files are opened as they are.

// When moving does not keep up, those who write wait; memory does not grow.

package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestJournalAheadOfACopy(t *testing.T) {
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), still())
	exchange(t, l, "e1", 7)
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := l.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	exchange(t, l, "e2", 8)
	if n := booked(t, l); n != 2 {
		t.Fatal(n)
	}
	exchange(t, l, "e3", 9)
	path := copyFiles(t, l.file.path)
	for _, file := range []string{path, path + "-wal"} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(copied, path); err != nil {
		t.Fatal(err)
	}
	again := tunedLedger(t, path, tuning{})
	if got, want := outcomes(t, again), []string{"e1 finished", "e2 finished", "e3 finished"}; !reflect.DeepEqual(got, want) || state(again).Used != 24 {
		t.Errorf("%v, %+v", got, state(again))
	}
}

func TestJournalBehindTheFile(t *testing.T) {
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), still())
	exchange(t, l, "e1", 7)
	x, err := l.Reserve(t.Context(), testOpening("e2", 10))
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(journalOf(t, l.file.path))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Settle(Entry{Outcome: OutcomeFinished, InputTokens: 1}); err != nil {
		t.Fatal(err)
	}
	exchange(t, l, "e3", 2)
	booked(t, l)
	path := copyFiles(t, l.file.path)
	if err := os.WriteFile(journalOf(t, path), old, 0o600); err != nil {
		t.Fatal(err)
	}
	again := tunedLedger(t, path, tuning{})
	if got, want := outcomes(t, again), []string{"e1 finished", "e2 finished", "e3 finished"}; !reflect.DeepEqual(got, want) || state(again).Used != 10 {
		t.Errorf("%v, %+v", got, state(again))
	}
}

func TestBackupHoldsWhatIsOpen(t *testing.T) {
	l := testLedger(t)
	exchange(t, l, "e1", 7)
	if _, err := l.Reserve(t.Context(), testOpening("e2", 10)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a b?c#d", "copy.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("a copy is one file: %v, %v", files, err)
	}
	if got, want := outcomes(t, tunedLedger(t, path, tuning{})), []string{"e1 finished", "e2 crashed"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestEveryMomentOfDeath(t *testing.T) {
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tuning{segment: 1, every: time.Hour, entries: 1 << 20})
	expect := func(when string, want ...string) {
		t.Helper()
		again := crash(t, l)
		if got := outcomes(t, again); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
		used := int64(0)
		for _, w := range want {
			used += map[bool]int64{true: 7, false: 10}[strings.HasSuffix(w, "finished")]
		}
		if u := state(again); u.Used != used || u.Reserved != 0 {
			t.Errorf("%s: %+v, want %d", when, u, used)
		}
		if _, err := os.Stat(segmentPath(again.file.path, again.writer.journal.number)); err != nil {
			t.Error(err)
		}
	}
	held := map[string]*Exchange{}
	open := func(id string) {
		t.Helper()
		x, err := l.Reserve(t.Context(), testOpening(id, 10))
		if err != nil {
			t.Fatal(err)
		}
		held[id] = x
	}
	settle := func(id string) {
		t.Helper()
		if err := held[id].Settle(Entry{InputTokens: 7, Outcome: OutcomeFinished}); err != nil {
			t.Fatal(err)
		}
	}
	open("e1") // every write rotates
	open("e2")
	expect("two open, carried over", "e1 crashed", "e2 crashed")
	settle("e2")
	expect("settled in another segment than opened", "e2 finished", "e1 crashed")
	before := copyFiles(t, l.file.path)
	booked(t, l)
	expect("moved", "e2 finished", "e1 crashed")
	// Between the commit and the deletion: the database of now and the segments of before.
	files, err := filepath.Glob(before + journalSuffix + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for drop := range len(files) {
		after := copyFiles(t, l.file.path)
		for _, f := range files[drop:] {
			data, err := os.ReadFile(f)
			if err == nil {
				err = os.WriteFile(after+strings.TrimPrefix(f, before), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		again := tunedLedger(t, after, tuning{})
		if got, want := outcomes(t, again), []string{"e2 finished", "e1 crashed"}; !reflect.DeepEqual(got, want) {
			t.Errorf("%d segments deleted: %q", drop, got)
		}
	}
	open("e3")
	settle("e1")
	settle("e3")
	expect("all settled", "e2 finished", "e1 finished", "e3 finished")
	booked(t, l)
	open("e4")
	settle("e4")
	expect("one ahead of the database", "e2 finished", "e1 finished", "e3 finished", "e4 finished")
	booked(t, l)
	if numbers, _, err := segments(l.file.path); err != nil || len(numbers) > 2 {
		t.Errorf("segments %v stay, %v", numbers, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if numbers, _, err := segments(l.file.path); err != nil || len(numbers) != 0 {
		t.Errorf("segments %v after Close, %v", numbers, err)
	}
}

func TestRotationFails(t *testing.T) {
	d := &disk{}
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), tuning{segment: 4000, create: d.create})
	d.refuse.Store(true)
	refused := 0
	for i := range 200 {
		x, err := l.Reserve(t.Context(), testOpening(fmt.Sprint("e", i), 10))
		if err != nil {
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "must be able to write") || l.Ready() == nil {
				t.Fatalf("%v, ready: %v", err, l.Ready())
			}
			refused++
			continue
		}
		if err := x.Settle(Entry{InputTokens: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if size := l.writer.journal.size; refused == 0 || size > 4000*(maxOverlong+1) {
		t.Errorf("%d refused, %d bytes", refused, size)
	}
	d.refuse.Store(false)
	exchange(t, l, "next", 1)
	if err := l.Ready(); err != nil || booked(t, l) != 201-refused {
		t.Errorf("%v, %d entries", err, booked(t, l))
	}
}

func TestOpenNeedsItsFolder(t *testing.T) {
	d := &disk{}
	d.refuse.Store(true)
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, err := Open(t.Context(), path, Options{tune: tuning{create: d.create}})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "its folder") {
		t.Errorf("got %v", err)
	}
	if err := os.Mkdir(path+".journal.00000007", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v", err)
	}
}

func TestTailIsBounded(t *testing.T) {
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), still())
	stop := newBarrier()
	var group sync.WaitGroup
	var next atomic.Int64
	group.Go(func() { _ = l.mover.do(t.Context(), stop) })
	<-stop.reached
	for range 64 {
		group.Go(func() {
			for range maxTail / 64 * 3 / 2 {
				x, err := l.Reserve(t.Context(), testOpening(fmt.Sprint("e", next.Add(1)), 0))
				if err == nil {
					err = x.Settle(Entry{})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	tail := func() int {
		l.mover.mu.Lock()
		defer l.mover.mu.Unlock()
		return len(l.mover.tail)
	}
	for tail() < maxTail {
		runtime.Gosched()
	}
	for range 1000 {
		if n := tail(); n > maxTail+maxBatch {
			t.Fatalf("%d entries in memory", n)
		}
		runtime.Gosched()
	}
	close(stop.open)
	group.Wait()
	if int64(booked(t, l)) != l.LastSeq() {
		t.Errorf("%d entries, last %d", booked(t, l), l.LastSeq())
	}
}

func TestReusedIDIsBookedAllTheSame(t *testing.T) {
	l := testLedger(t)
	exchange(t, l, "e1", 7)
	exchange(t, l, "e1", 8)
	exchange(t, l, "e2", 9)
	if n := booked(t, l); n != 3 || l.Ready() != nil || state(l).Used != 24 {
		t.Errorf("%d entries, %v, %+v", n, l.Ready(), state(l))
	}
}

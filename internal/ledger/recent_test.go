package ledger

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"time"
	"unsafe"
	"weak"

	"carpool/internal/fleet"
)

// remembered returns what memory has of the outbox, and the same from the database.
func remembered(t *testing.T, l *Ledger, after int64) (memory, database []Entry) {
	t.Helper()
	if err := l.mover.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	memory = l.mover.recent.after(after, 1<<20)
	database, err := l.entries(t.Context(), `SELECT seq, node, body FROM entries WHERE seq > ? ORDER BY seq`, after)
	if err != nil {
		t.Fatal(err)
	}
	return memory, database
}

// filled is an entry all of whose fields have a value, texts made by text.
func filled(t *testing.T, text func(name string) string) (e Entry) {
	t.Helper()
	for f, v := range reflect.ValueOf(&e).Elem().Fields() {
		switch v.Interface().(type) {
		case json.RawMessage:
			v.SetBytes([]byte(text(`{"a":1}`)))
		case []ToolCount:
			v.Set(reflect.ValueOf([]ToolCount{{Name: text("Bash"), Count: 1}, {Name: text("Read"), Count: 2}}))
		case time.Time:
			v.Set(reflect.ValueOf(time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC)))
		default:
			switch v.Kind() {
			case reflect.String:
				v.SetString(text(f.Name))
			case reflect.Bool:
				v.SetBool(true)
			case reflect.Int, reflect.Int64:
				v.SetInt(1000)
			default:
				t.Fatalf("%s is of a kind that this test does not know", f.Name)
			}
		}
	}
	e.Endpoint = EndpointMessages
	return e
}

func settleWhole(t *testing.T, l *Ledger, e Entry) {
	t.Helper()
	o := testOpening(e.ID, 10)
	o.Entry = e
	o.Entry.Usage = nil
	x, err := l.Reserve(t.Context(), o)
	if err == nil {
		err = x.Settle(e)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMemoryAgreesWithTheDatabase(t *testing.T) {
	l := testLedger(t)
	e := filled(t, func(name string) string { return name })
	settleWhole(t, l, e)
	e.ID, e.ErrorType, e.ModelAsked, e.Tools = "e2", "\xff\x00\"<&>\u2028", "日本", []ToolCount{{Name: "\xc3"}}
	settleWhole(t, l, e)
	settleWhole(t, l, Entry{ID: "e3", User: "alice", Endpoint: EndpointMessages, Usage: json.RawMessage{}, Tools: []fleet.ToolCount{}})
	e.ID, e.Usage = "e4", json.RawMessage(`{"a":`)
	settleWhole(t, l, e)
	memory, database := remembered(t, l, 0)
	if len(memory) != 4 || !reflect.DeepEqual(memory, database) {
		t.Errorf("memory has\n%+v\nthe database\n%+v", memory, database)
	}
	for f, v := range reflect.ValueOf(memory[0]).Fields() {
		if v.IsZero() {
			t.Errorf("%s is lost", f.Name)
		}
	}
}

// What an entry says are often a few bytes of a large head or body.
func TestMemoryDoesNotHoldRequests(t *testing.T) {
	l := testLedger(t)
	held := func() weak.Pointer[byte] {
		request := make([]byte, 1<<20)
		at := 0
		e := filled(t, func(name string) string {
			n := copy(request[at:], name)
			at += n
			return unsafe.String(&request[at-n], n)
		})
		e.User = "alice" // the books go by it
		settleWhole(t, l, e)
		return weak.Make(&request[0])
	}()
	if memory, _ := remembered(t, l, 0); len(memory) != 1 {
		t.Fatalf("%+v", memory)
	}
	runtime.GC()
	if held.Value() != nil {
		t.Error("the request stays in memory")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := testLedger(t)
	const total = maxRecent + 3000
	for i := range total {
		exchange(t, l, fmt.Sprint("e", i), 1)
	}
	memory, _ := remembered(t, l, total-1000)
	if n := l.mover.recent.length; len(memory) != 1000 || n > maxRecent {
		t.Errorf("%d of the last, %d in all", len(memory), n)
	}
	next := int64(1)
	for next <= total {
		entries, err := l.Outbox(t.Context(), next-1, 700)
		if err != nil || len(entries) == 0 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		for _, e := range entries {
			if e.Seq != next || e.ID != fmt.Sprint("e", next-1) {
				t.Fatalf("%d %s where %d should be", e.Seq, e.ID, next)
			}
			next++
		}
	}
	if err := l.Acknowledge(t.Context(), total-1); err != nil {
		t.Fatal(err)
	}
	if n := l.mover.recent.length; n != 1 {
		t.Errorf("%d in memory of which control has all but one", n)
	}
	large := make([]byte, maxRecentBytes/3)
	for i := range large {
		large[i] = 'x'
	}
	for i := range 4 {
		settleWhole(t, l, Entry{ID: fmt.Sprint("large", i), User: "alice", ErrorType: string(large)})
		if memory, database := remembered(t, l, total-1); len(database) != i+2 || i == 3 && len(memory) > 0 {
			t.Errorf("%d in memory, %d in the database", len(memory), len(database))
		}
	}
	if n := l.mover.recent.bytes; n > maxRecentBytes {
		t.Errorf("%d bytes", n)
	}
}

func TestMemoryAfterWritesThatFailed(t *testing.T) {
	l := tunedLedger(t, filepath.Join(t.TempDir(), "ledger.db"), still())
	exchange(t, l, "e1", 1)
	if memory, _ := remembered(t, l, 0); len(memory) != 1 {
		t.Fatal("nothing in memory")
	}
	fill(t, l, true)
	settleWhole(t, l, Entry{ID: "e2", User: "alice", ErrorType: string(make([]byte, 1<<20))})
	if err := l.mover.flush(t.Context()); err == nil {
		t.Fatal("a full database took it")
	}
	if got := l.mover.recent.after(0, 9); len(got) != 1 {
		t.Errorf("memory has %d entries, the database one", len(got))
	}
	// No operation gets past the settlement that cannot be moved, but a connection may be shared.
	if _, err := l.mover.tx.conn.ExecContext(t.Context(), "PRAGMA max_page_count = 1073741823"); err != nil {
		t.Fatal(err)
	}
	for l.mover.flush(t.Context()) != nil {
		runtime.Gosched()
	}
	exchange(t, l, "e3", 1)
	if memory, database := remembered(t, l, 0); len(memory) != 3 || !reflect.DeepEqual(memory, database) {
		t.Errorf("memory has %d entries, the database %d", len(memory), len(database))
	}
	if err := l.SkipTo(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if memory, database := remembered(t, l, 2); len(database) != 3 || len(memory) > 0 {
		t.Errorf("numbers changed: memory has %d entries, the database %d", len(memory), len(database))
	}
}

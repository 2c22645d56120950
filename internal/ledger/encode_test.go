package ledger

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"carpool/internal/fleet"
)

func TestEntryJSON(t *testing.T) {
	var e Entry
	v := reflect.ValueOf(&e).Elem()
	check := func(what string) {
		t.Helper()
		got, err := appendEntry([]byte("before"), &e)
		if err != nil {
			t.Fatal(err)
		}
		want := e
		want.Node, want.Seq = "", 0
		text, err := json.Marshal(&want)
		if err != nil {
			t.Fatal(err)
		}
		var back, standard fleet.Entry
		if err := errors.Join(json.Unmarshal(got[len("before"):], &back), json.Unmarshal(text, &standard)); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, got)
		}
		if !reflect.DeepEqual(back, standard) {
			t.Errorf("%s: got %+v, want %+v", what, back, standard)
		}
	}
	check("nothing")
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch f.Interface().(type) {
		case string:
			for _, s := range []string{"x", "\x00\x1f\"\\/<>&\u2028é\xff日本", ""} {
				f.SetString(s)
				check(name)
			}
			f.SetString(name)
		case fleet.Outcome:
			f.SetString("cut")
		case int, int64:
			for _, n := range []int64{-1, 1 << 62, int64(i) + 1} {
				f.SetInt(n)
				check(name)
			}
		case bool:
			f.SetBool(true)
		case time.Time:
			f.Set(reflect.ValueOf(time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC)))
		case json.RawMessage:
			f.SetBytes([]byte(`{"a":[1,null]}`))
		case []ToolCount:
			f.Set(reflect.ValueOf([]ToolCount{{Name: "Ba\"sh", Count: 1}, {Name: "Read", Count: 2}}))
		default:
			t.Fatalf("the field %s is of a kind that appendEntry does not know", name)
		}
		if check(name); f.IsZero() {
			t.Errorf("%s was not tried", name)
		}
	}
	e.StartedAt = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := appendEntry(nil, &e); err == nil {
		t.Error("encoded a year of five digits")
	}
}

func FuzzSegment(f *testing.F) {
	o, err := openingFrame(nil, &leftover{id: "e1", user: "alice"}, &Entry{ID: "e1"})
	if err != nil {
		f.Fatal(err)
	}
	s := &settlement{entry: &Entry{ID: "e1"}, frame: &buffer{}}
	if s.frame.b, _, err = settlementFrame(nil, &s.reservation, s.entry); err != nil {
		f.Fatal(err)
	}
	s.number(1)
	f.Add(append(append(segmentHead("x", 0), o...), s.frame.b...))
	f.Add([]byte(segmentMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &recovery{l: &Ledger{node: "n"}, open: map[string]*leftover{}}
		seg, err := readSegment(data)
		if err != nil {
			return
		}
		at, err := seg.read(r.record)
		if at < seg.at || at > len(data) || (err == nil) != (at == len(data)) {
			t.Errorf("stopped at %d of %d: %v", at, len(data), err)
		}
	})
}

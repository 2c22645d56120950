package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"carpool/internal/wire"
)

func sample() wire.Head {
	return wire.Head{{"x-api-key", "one"}, {"Accept", "application/json"}, {"X-API-KEY", "two"}, {"Connection", "keep-alive, X-Api-Key"}, {"connection", " ,close"}}
}

func TestHeadIgnoresCase(t *testing.T) {
	t.Parallel()
	h := sample()
	for _, name := range []string{"X-Api-Key", "x-api-key", "X-API-KEY"} {
		if h.Get(name) != "one" || !h.Has(name) {
			t.Errorf("%s: %q, %v", name, h.Get(name), h.Has(name))
		}
	}
	if h.Get("X-Api") != "" || h.Has("X-Api") || wire.Head(nil).Get("a") != "" || wire.Head(nil).Has("a") {
		t.Error("a field is found that is not there")
	}
	if got, want := h.ConnectionNames(), []string{"keep-alive", "x-api-key", "close"}; !slices.Equal(got, want) {
		t.Errorf("connection names %q, want %q", got, want)
	}
	if got := wire.Head(nil).ConnectionNames(); got != nil {
		t.Errorf("connection names of nothing: %q", got)
	}
}

func TestHeadSet(t *testing.T) {
	t.Parallel()
	h := sample()
	h.Set("X-Api-Key", "new")
	if got, want := fmt.Sprint(h), "[{x-api-key new} {Accept application/json} {Connection keep-alive, X-Api-Key} {connection  ,close}]"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	h = nil
	h.Set("A", "1")
	h.Add("a", "2")
	h.Add("B", "3")
	if got, want := fmt.Sprint(h), "[{A 1} {a 2} {B 3}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestHeadFilterLeavesTheOriginal(t *testing.T) {
	t.Parallel()
	h := sample()
	kept := h.Filter(func(f wire.Field) bool { return !strings.EqualFold(f.Name, "x-api-key") })
	kept.Set("Accept", "changed")
	kept.Add("More", "fields")
	if got, want := fmt.Sprint(h), fmt.Sprint(sample()); got != want {
		t.Errorf("the original became %s", got)
	}
	if len(kept) != 4 || kept.Has("X-Api-Key") {
		t.Errorf("kept %v", kept)
	}
}

func TestHeadSetMatchesItsDefinition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"a", "A", "b", "B", "c"})
		var h wire.Head
		for i, name := range rapid.SliceOf(names).Draw(t, "fields") {
			h.Add(name, fmt.Sprint(i))
		}
		before, name := slices.Clone(h), names.Draw(t, "set")
		h.Set(name, "new")
		var want wire.Head
		for _, f := range before {
			if !strings.EqualFold(f.Name, name) {
				want = append(want, f)
			} else if !want.Has(name) {
				want = append(want, wire.Field{Name: f.Name, Value: "new"})
			}
		}
		if !want.Has(name) {
			want = append(want, wire.Field{Name: name, Value: "new"})
		}
		if !slices.Equal(h, want) {
			t.Fatalf("%v.Set(%q) = %v, want %v", before, name, h, want)
		}
	})
}

func FuzzConnectionNames(f *testing.F) {
	f.Add("keep-alive, X-Api-Key")
	f.Add(",,  ,\t,")
	f.Fuzz(func(t *testing.T, value string) {
		for _, name := range (wire.Head{{"connection", value}}).ConnectionNames() {
			if name == "" || strings.Contains(name, ",") || name != strings.TrimSpace(name) {
				t.Errorf("%q names %q", value, name)
			}
		}
	})
}

func ExampleHead() {
	var h wire.Head
	h.Add("x-api-key", "the client's")
	h.Add("Accept", "text/event-stream")
	h.Set("X-Api-Key", "ours")
	fmt.Println(h, h.Get("ACCEPT"))
	// Output: [{x-api-key ours} {Accept text/event-stream}] text/event-stream
}

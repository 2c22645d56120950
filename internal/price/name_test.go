package price

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"carpool/internal/anthropic"
)

// patterns are the match patterns of the published table as regular expressions, which is what they are for other readers.
func patterns(t testing.TB) map[string][]*regexp.Regexp {
	t.Helper()
	var p published
	if err := json.Unmarshal(publishedJSON, &p); err != nil {
		t.Fatal(err)
	}
	all := map[string][]*regexp.Regexp{}
	for _, m := range p.Models {
		for _, pattern := range m.Match {
			all[m.ID] = append(all[m.ID], regexp.MustCompile(pattern))
		}
	}
	return all
}

// agree fails when the table finds another model for an id than the published patterns do.
func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, b *book, all map[string][]*regexp.Regexp, id string,
) {
	t.Helper()
	var want []string
	for model, list := range all {
		for _, re := range list {
			if re.MatchString(id) {
				want = append(want, model)
			}
		}
	}
	if len(want) > 1 {
		t.Fatalf("%q is a name of %q", id, want)
	}
	m, fast := b.find(id)
	switch {
	case m == nil && len(want) == 0:
	case m == nil && strings.ContainsFunc(id, func(c rune) bool { return c >= utf8.RuneSelf }): // they fold letters like ſ into ASCII
	case m == nil || len(want) == 0 || m.id != want[0]:
		t.Fatalf("%q: found %+v, the patterns say %q", id, m, want)
	case fast != strings.HasSuffix(strings.TrimSuffix(strings.ToLower(id), "[1m]"), "-fast"):
		t.Fatalf("%q: fast %v", id, fast)
	}
}

func TestNamesAreThoseOfThePatterns(t *testing.T) {
	table, err := New(Overlay{})
	if err != nil {
		t.Fatal(err)
	}
	all := patterns(t)
	bases := []string{"claude-opus", "opus-5", "claude-opus-5-6", "claude-sonnet-4-0", "claude-3-5-sonnet-v2", "claude-3-5-sonnet-v2-latest", "claude-haiku-4-5-latest", ""}
	for id := range all {
		bases = append(bases, id)
	}
	part := func(options ...string) *rapid.Generator[string] { return rapid.SampledFrom(options) }
	rapid.Check(t, func(t *rapid.T) {
		id := part("", "", "us.", "anthropic/", "a:b/c.", "x", "global.anthropic.", "-", "é/").Draw(t, "prefix") +
			rapid.SampledFrom(bases).Draw(t, "base")
		for range rapid.IntRange(0, 4).Draw(t, "endings") {
			id += part("-20251101", "@20251101", "-v1", "-v12:3", "-v", ":0", "-fast", "[1m]", "-latest", "-0", "-1", "0", "-2025110", "\n", " ").Draw(t, "ending")
		}
		if rapid.Bool().Draw(t, "upper") {
			id = strings.ToUpper(id)
		}
		agree(t, &table.list, all, id)
	})
}

// FuzzModelName: whatever a model is called, it is found exactly where the published patterns find it, and is never free.
func FuzzModelName(f *testing.F) {
	for _, id := range []string{
		"claude-opus-5", "us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-5-fast[1m]", "claude-3-5-sonnet-v2@20241022", "", "::::",
		"claude-opus-5\n", "K/claude-ſonnet-5", "CLAUDE-HAIKU-4-5", "claude-opus-5-123456789", strings.Repeat("/", 280) + "claude-opus-5",
	} {
		f.Add(id)
	}
	table, err := New(Overlay{Models: []Rates{
		{Model: "claude-opus-5-fast", Upstream: "u", Input: "1", Output: "2"}, {Model: "glm-4.6", Upstream: "u", Input: "1", Output: "2"},
	}})
	if err != nil {
		f.Fatal(err)
	}
	all := patterns(f)
	f.Fuzz(func(t *testing.T, id string) {
		id = id[:min(len(id), 300)] // longer ones do not get this far, and the patterns are slow on them
		agree(t, &table.list, all, id)
		for _, upstream := range []string{"", "u"} {
			r := Request{Upstream: upstream, Served: id, Usage: anthropic.Usage{Input: 1_000_000, Output: 1}}
			c := table.Cost(always().AddDate(60, 0, 0), r)
			if m, fast := table.find(upstream, id); c.Total <= 0 || m == nil && !c.Unpriced || m != nil && c.Unpriced && !fast {
				t.Errorf("%q: %+v", id, c)
			}
			if b := table.UpperBound(always().AddDate(60, 0, 0), r, Bound{Prompt: 1_000_000, Output: 1}); b < c.Total {
				t.Errorf("%q: bound %d of %+v", id, b, c)
			}
		}
	})
}

// TestKeys: a pattern that is not of the one form is an error, not a model that nobody finds.
func TestKeys(t *testing.T) {
	for body, want := range map[string]string{
		"claude-x":                    "claude-x",
		"claude-x(?:-0)?":             "claude-x claude-x-0",
		"claude-x(?:-v2)?(?:-late)?":  "claude-x claude-x-v2 claude-x-late claude-x-v2-late",
		"claude-x(?:-v2)?y":           "",
		"claude-(?:x|y)":              "",
		"claude-.*":                   "",
		"claude-x(?:-0":               "",
		"":                            "",
		"Claude-x":                    "",
		"claude-x(?:-v2)?z(?:-late)?": "",
	} {
		list, err := keys(patternHead + body + patternTail)
		if got := strings.Join(list, " "); got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", body, got, err)
		}
	}
	for _, pattern := range []string{"claude-x", patternHead + "claude-x", "claude-x" + patternTail} {
		if list, err := keys(pattern); err == nil {
			t.Errorf("%s: %q", pattern, list)
		}
	}
}

func TestGeneration(t *testing.T) {
	for id, want := range map[string]int{
		"claude-opus-5-5": 505, "claude-opus-5": 500, "claude-opus-4-1": 401, "claude-opus-4": 400, "claude-haiku-4-5-20251001": 405,
		"claude-opus-4-20250514": 400, "claude-3-5-haiku": 305, "claude-3-opus": 300, "claude-2": 200, "claude-opus-10-12": 1012,
		"claude": 0, "claude-": 0, "claude-opus": 0, "claude-opus-x": 0, "glm-4-6": 0, "": 0,
	} {
		if got := generation(id); got != want {
			t.Errorf("%q: %d, want %d", id, got, want)
		}
	}
}

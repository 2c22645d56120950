package policy_test

import (
	"fmt"
	"math"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/price"
)

func compile(t testing.TB, doc *policy.Document) *policy.Snapshot {
	t.Helper()
	s, err := policy.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func upstreams(names ...string) []policy.Upstream {
	out := make([]policy.Upstream, len(names))
	for i, name := range names {
		out[i] = policy.Upstream{Name: name, Provider: policy.ProviderAnthropic, BaseURL: "https://" + name + ".example.com", Weight: 1}
	}
	return out
}

func TestCompileRefusesWhatLeadsNowhere(t *testing.T) {
	t.Parallel()
	doc := &policy.Document{
		Upstreams: upstreams("main"),
		Users:     []policy.User{{Name: "alice"}},
		Keys: []policy.Key{
			{Name: "lost", User: "bob", Hash: policy.KeyHash{1}},
			{Name: "good", User: "alice", Hash: policy.KeyHash{2}},
			{Name: "twin", User: "alice", Hash: policy.KeyHash{2}},
		},
		Routes: []policy.RouteSpec{{Name: "first", Upstreams: []string{"main", "away"}}, {Name: "second", Upstreams: []string{"gone"}}},
	}
	s, err := policy.Compile(doc)
	if err == nil || s != nil {
		t.Fatalf("compiled: %v, %v", s, err)
	}
	for _, want := range []string{`key "lost": there is no user "bob"`, `route "first": there is no upstream "away"`, `route "second": there is no upstream "gone"`, `key "twin" is the same as key "good"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	for zone, good := range map[string]bool{"": true, "UTC": true, "Asia/Shanghai": true, "Mars/Olympus": false, "../etc/passwd": false} {
		s, err := policy.Compile(&policy.Document{Settings: policy.Settings{TimeZone: zone}})
		if (err == nil) != good || (s != nil) != good {
			t.Errorf("time zone %q: %v, %v", zone, s, err)
		}
		if good && zone != "" && s.Location.String() != zone {
			t.Errorf("time zone %q became %v", zone, s.Location)
		}
	}
}

// TestPrices: a snapshot has the published prices under those of its settings.
func TestPrices(t *testing.T) {
	usage := anthropic.Usage{Input: 1000}
	own := price.Overlay{Models: []price.Rates{{Model: "claude-opus-5", Upstream: "u", Input: "1", Output: "2"}}}
	for upstream, want := range map[string]int64{"u": 1000, "v": 5000} {
		s := compile(t, &policy.Document{Settings: policy.Settings{Prices: own}, Upstreams: upstreams("u", "v")})
		c := s.Prices.Cost(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), price.Request{Upstream: upstream, Sent: "claude-opus-5", Usage: usage})
		if c.Total != want {
			t.Errorf("on %s: %+v, want %d", upstream, c, want)
		}
	}
	own.Discounts = []price.Discount{{Upstream: "elsewhere", Multiplier: "0.5"}}
	if got := compile(t, &policy.Document{Settings: policy.Settings{Prices: own}, Upstreams: upstreams("u")}).StrayPrices(); !slices.Equal(got, []string{"elsewhere"}) {
		t.Errorf("prices for upstreams that do not exist: %q", got)
	}
	own.Models[0].Input = "-1"
	if _, err := policy.Compile(&policy.Document{Settings: policy.Settings{Prices: own}}); err == nil || !strings.Contains(err.Error(), "prices.models[0].input") {
		t.Errorf("a wrong price is in force: %v", err)
	}
}

func TestCompileOfNothingServesNobody(t *testing.T) {
	t.Parallel()
	s := compile(t, &policy.Document{Version: 7})
	if _, ok := s.Caller(policy.KeyHash{}); ok || s.User("") != nil || len(s.Users())+len(s.Upstreams()) != 0 || s.Version != 7 {
		t.Errorf("%+v", s)
	}
	if target, ok := s.Resolve(policy.Caller{User: &policy.User{Name: "alice"}}, "claude-opus-4-6"); ok {
		t.Errorf("resolved to %+v", target)
	}
}

func TestCallerIsFoundByHash(t *testing.T) {
	t.Parallel()
	s := compile(t, &policy.Document{
		Users: []policy.User{{Name: "zoe"}, {Name: "alice", Disabled: true}},
		Keys:  []policy.Key{{Name: "one", User: "zoe", Hash: policy.KeyHash{1}}, {Name: "off", User: "alice", Hash: policy.KeyHash{2}, Disabled: true}},
	})
	if c, ok := s.Caller(policy.KeyHash{1}); !ok || c.Key.Name != "one" || c.User != s.User("zoe") {
		t.Errorf("%+v, %v", c, ok)
	}
	if c, ok := s.Caller(policy.KeyHash{2}); !ok || !c.Key.Disabled || !c.User.Disabled {
		t.Errorf("a disabled key is not found: %+v, %v", c, ok)
	}
	if _, ok := s.Caller(policy.KeyHash{3}); ok {
		t.Error("an unknown hash is found")
	}
	if names := s.Users(); names[0].Name != "alice" || names[1].Name != "zoe" {
		t.Errorf("users are not ordered: %v, %v", names[0], names[1])
	}
}

// house is a policy in which each route serves from the upstream of its own name.
func house(t testing.TB, routes []policy.RouteSpec, aliases ...policy.AliasSpec) *policy.Snapshot {
	t.Helper()
	doc := &policy.Document{Aliases: aliases}
	for _, r := range routes {
		r.Upstreams = []string{r.Name}
		doc.Routes, doc.Upstreams = append(doc.Routes, r), append(doc.Upstreams, upstreams(r.Name)...)
	}
	return compile(t, doc)
}

func TestResolve(t *testing.T) {
	t.Parallel()
	routes := []policy.RouteSpec{
		{Name: "any"}, // no models: all
		{Name: "claude", Models: []string{"claude-*"}},
		{Name: "opus", Models: []string{"claude-opus-*"}},
		{Name: "opus-team", Models: []string{"Claude-Opus-*"}, Teams: []string{"platform"}},
		{Name: "opus-bob", Models: []string{"claude-opus-*"}, Users: []string{"bob"}},
		{Name: "exact", Models: []string{"claude-opus-4-6", "claude-haiku-4-5"}},
		{Name: "secret", Models: []string{"internal-model", "fast-one"}, Users: []string{"bob"}, Teams: []string{"research"}},
	}
	aliases := []policy.AliasSpec{
		{Name: "fast", Model: "claude-haiku-4-5"},
		{Name: "Quick[1m]", Model: "fast"},
		{Name: "claude-opus-4-1", Model: "claude-opus-4-6"},
		{Name: "self", Model: "self"},
		{Name: "hidden", Model: "internal-model"},
		{Name: "big", Model: "Claude-Haiku-4-5[1m]"},
	}
	s := house(t, routes, aliases...)
	alice := &policy.User{Name: "alice", Team: "platform"}
	bob := &policy.User{Name: "bob", Team: "research"}
	eve := &policy.User{Name: "eve"}
	cases := []struct {
		what         string
		user         *policy.User
		asked        string
		route, model string
	}{
		{"catch-all", eve, "gpt", "any", "gpt"},
		{"longer pattern", eve, "claude-sonnet-4-6", "claude", "claude-sonnet-4-6"},
		{"longest pattern", eve, "claude-opus-4-5", "opus", "claude-opus-4-5"},
		{"exact name before patterns, whoever they name", alice, "claude-opus-4-6", "exact", "claude-opus-4-6"},
		{"team before everybody", alice, "claude-opus-4-5", "opus-team", "claude-opus-4-5"},
		{"user before everybody", bob, "claude-opus-4-5", "opus-bob", "claude-opus-4-5"},
		{"case of what is asked", eve, "CLAUDE-Opus-4-6", "exact", "CLAUDE-Opus-4-6"},
		{"notation", eve, "claude-opus-4-6[1m]", "exact", "claude-opus-4-6[1m]"},
		{"notation in capitals", eve, "claude-opus-4-6[1M]", "exact", "claude-opus-4-6[1M]"},
		{"alias", eve, "fast", "exact", "claude-haiku-4-5"},
		{"alias with notation", eve, "FAST[1m]", "exact", "claude-haiku-4-5"},
		{"alias that brings notation", eve, "big", "exact", "Claude-Haiku-4-5[1m]"},
		{"alias of a real model", eve, "claude-opus-4-1", "exact", "claude-opus-4-6"},
		{"alias to an alias is looked up once", eve, "quick", "any", "fast"},
		{"alias to itself", eve, "self", "any", "self"},
		{"audience of what the alias stands for", bob, "hidden", "secret", "internal-model"},
		{"audience of others", eve, "hidden", "any", "internal-model"},
		{"empty name", eve, "", "any", ""},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			target, ok := s.Resolve(policy.Caller{User: c.user}, c.asked)
			if !ok || target.Route != c.route || target.Model != c.model {
				t.Fatalf("%s asks for %q: %+v, %v; want route %q, model %q", c.user.Name, c.asked, target, ok, c.route, c.model)
			}
			if len(target.Upstreams) != 1 || target.Upstreams[0].Name != c.route {
				t.Errorf("upstreams %v", target.Upstreams)
			}
		})
	}
}

func TestResolveKeepsOutOfOthersRoutes(t *testing.T) {
	t.Parallel()
	s := house(t, []policy.RouteSpec{
		{Name: "users", Models: []string{"for-users"}, Users: []string{"alice"}},
		{Name: "teams", Models: []string{"for-teams"}, Teams: []string{"platform"}},
		{Name: "both", Models: []string{"for-both"}, Users: []string{"alice"}, Teams: []string{"platform"}},
	})
	for user, want := range map[policy.User][]string{
		{Name: "alice"}:                   {"for-both", "for-users"},
		{Name: "bob", Team: "platform"}:   {"for-both", "for-teams"},
		{Name: "Alice", Team: "Platform"}: nil,
		{Name: "platform"}:                nil,
		{Name: "", Team: ""}:              nil,
	} {
		if got := s.NamedModels(policy.Caller{User: &user}); !slices.Equal(got, want) {
			t.Errorf("%+v may use %v, want %v", user, got, want)
		}
	}
}

func TestNamedModels(t *testing.T) {
	t.Parallel()
	s := house(t, []policy.RouteSpec{
		{Name: "a", Models: []string{"Claude-Opus-4-6", "claude-haiku-4-5[1m]", "claude-sonnet-*"}},
		{Name: "b", Models: []string{"claude-opus-4-6"}, Users: []string{"bob"}},
	}, policy.AliasSpec{Name: "Fast", Model: "claude-haiku-4-5"}, policy.AliasSpec{Name: "smart", Model: "claude-sonnet-4-6"}, policy.AliasSpec{Name: "dead", Model: "gpt"})
	want := []string{"claude-haiku-4-5", "claude-opus-4-6", "fast", "smart"}
	if got := s.NamedModels(policy.Caller{User: &policy.User{Name: "alice"}}); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTargetsUpstreams(t *testing.T) {
	t.Parallel()
	all := upstreams("late", "off", "soon", "also-soon")
	all[0].Priority, all[1].Disabled, all[2].Priority, all[3].Priority = 5, true, -1, -1
	s := compile(t, &policy.Document{Upstreams: all, Routes: []policy.RouteSpec{
		{Name: "some", Models: []string{"a"}, Upstreams: []string{"late", "off", "soon", "also-soon"}},
		{Name: "none", Models: []string{"b"}, Upstreams: []string{"off"}},
		{Name: "rest", Models: []string{"*"}, Upstreams: []string{"late"}},
	}})
	alice := &policy.User{Name: "alice"}
	target, _ := s.Resolve(policy.Caller{User: alice}, "a")
	var names []string
	for _, u := range target.Upstreams {
		names = append(names, u.Name)
	}
	if want := []string{"soon", "also-soon", "late"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	// A route whose upstreams are all disabled answers for its models; it does not fall to a less specific one.
	if target, ok := s.Resolve(policy.Caller{User: alice}, "b"); !ok || target.Route != "none" || len(target.Upstreams) != 0 {
		t.Errorf("%+v, %v", target, ok)
	}
	if list := s.Upstreams(); len(list) != 4 || list[0].Name != "also-soon" || !list[2].Disabled {
		t.Errorf("upstreams are not ordered, or disabled ones are missing: %+v", list)
	}
}

func TestUpstreamModel(t *testing.T) {
	t.Parallel()
	u := &policy.Upstream{Models: map[string]string{"claude-opus-4-6": "anthropic.opus[1m]", "fast": "claude-haiku-4-5"}}
	for model, want := range map[string]string{
		"claude-opus-4-6": "anthropic.opus[1m]", "Claude-Opus-4-6[1m]": "anthropic.opus[1m]", "FAST": "claude-haiku-4-5",
		"claude-sonnet-4-6": "claude-sonnet-4-6", "Claude-Sonnet-4-6[1m]": "Claude-Sonnet-4-6", "claude-sonnet-4-6[1M]": "claude-sonnet-4-6",
		"[1m]": "", "": "", "m]": "m]", "a[1m]b": "a[1m]b",
	} {
		if got := policy.UpstreamModel(u, model); got != want {
			t.Errorf("%q is sent as %q, want %q", model, got, want)
		}
		if got := policy.UpstreamModel(&policy.Upstream{}, want); !strings.Contains(want, "[1m]") && got != want {
			t.Errorf("%q is sent as %q", want, got)
		}
	}
}

// fits is the plain definition of a pattern: * stands for any text, everything else for itself.
func fits(pattern, name string) bool {
	switch {
	case pattern == "":
		return name == ""
	case pattern[0] == '*':
		return fits(pattern[1:], name) || (name != "" && fits(pattern, name[1:]))
	}
	return name != "" && pattern[0] == name[0] && fits(pattern[1:], name[1:])
}

func TestPatternsMatchTheirDefinition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{1,8}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[ab]{0,10}`).Draw(t, "name")
		s, err := policy.Compile(&policy.Document{Upstreams: upstreams("u"), Routes: []policy.RouteSpec{{Name: "r", Models: []string{pattern}, Upstreams: []string{"u"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, got := s.Resolve(policy.Caller{User: &policy.User{}}, name); got != fits(pattern, name) {
			t.Fatalf("%q fits %q: %v, want %v", name, pattern, got, !got)
		}
	})
}

// specificity is the order that RouteSpec promises: no wildcard first, then more literal characters, then the audience.
func specificity(pattern string, r policy.RouteSpec) int {
	literal := len(strings.ReplaceAll(pattern, "*", ""))
	if literal == len(pattern) {
		literal = 100
	}
	return literal*10 + 2*min(len(r.Users), 1) + 1*min(len(r.Teams), 1)
}

func TestResolveTakesTheMostSpecificRoute(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		user := &policy.User{Name: "u0", Team: "t0"}
		doc := &policy.Document{Upstreams: upstreams("u")}
		for i := range rapid.IntRange(0, 6).Draw(t, "routes") {
			r := policy.RouteSpec{Name: fmt.Sprint("r", i), Upstreams: []string{"u"}}
			r.Models = rapid.SliceOfN(rapid.StringMatching(`[ab]{0,3}\*?[ab]{0,3}`).Filter(func(s string) bool { return s != "" }), 1, 3).Draw(t, "models")
			switch rapid.IntRange(0, 4).Draw(t, "audience") {
			case 0:
				r.Users = []string{rapid.SampledFrom([]string{"u0", "u1"}).Draw(t, "user")}
			case 1:
				r.Teams = []string{rapid.SampledFrom([]string{"t0", "t1"}).Draw(t, "team")}
			}
			doc.Routes = append(doc.Routes, r)
		}
		name := rapid.StringMatching(`[ab]{1,4}`).Draw(t, "name")
		best := math.MinInt
		for _, r := range doc.Routes {
			if len(r.Users)+len(r.Teams) > 0 && !slices.Contains(r.Users, "u0") && !slices.Contains(r.Teams, "t0") {
				continue
			}
			for _, m := range r.Models {
				if fits(m, name) {
					best = max(best, specificity(m, r))
				}
			}
		}
		s, err := policy.Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		target, ok := s.Resolve(policy.Caller{User: user}, name)
		if ok != (best > math.MinInt) {
			t.Fatalf("%q: resolved %v, %+v", name, ok, target)
		}
		if !ok {
			return
		}
		i := slices.IndexFunc(doc.Routes, func(r policy.RouteSpec) bool { return r.Name == target.Route })
		if !slices.ContainsFunc(doc.Routes[i].Models, func(m string) bool { return fits(m, name) && specificity(m, doc.Routes[i]) == best }) {
			t.Fatalf("%q went to %+v; there is a more specific route in %+v", name, doc.Routes[i], doc.Routes)
		}
	})
}

func bigDocument(keys int) *policy.Document {
	doc := &policy.Document{Upstreams: upstreams("main"), Routes: []policy.RouteSpec{{Name: "default", Upstreams: []string{"main"}}}}
	for i := range keys {
		var hash policy.KeyHash
		big.NewInt(int64(i)*2654435761 + 1).FillBytes(hash[:])
		if i%2 == 0 {
			doc.Users = append(doc.Users, policy.User{Name: fmt.Sprint("user-", i), Team: "platform"})
		}
		doc.Keys = append(doc.Keys, policy.Key{ID: fmt.Sprint("id", i), Name: fmt.Sprint("key-", i), User: fmt.Sprint("user-", i-i%2), Hash: hash})
	}
	return doc
}

// BenchmarkCompile reports what a snapshot of 100 000 keys of 50 000 users costs beyond its document.
func BenchmarkCompile(b *testing.B) {
	const keys = 100_000
	doc := bigDocument(keys)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept, err := policy.Compile(doc)
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Compile(doc); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/keys, "heapB/key")
	runtime.KeepAlive(kept)
}

func BenchmarkCaller(b *testing.B) {
	doc := bigDocument(100_000)
	s := compile(b, doc)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := s.Caller(doc.Keys[i*7919%len(doc.Keys)].Hash); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	routes := []policy.RouteSpec{{Name: "default"}}
	for i := range 50 {
		routes = append(routes, policy.RouteSpec{Name: fmt.Sprint("r", i), Models: []string{fmt.Sprintf("claude-*-%d-*", i)}, Teams: []string{fmt.Sprint("t", i)}})
	}
	s := house(b, routes, policy.AliasSpec{Name: "fast", Model: "claude-haiku-4-5"})
	user := &policy.User{Name: "alice", Team: "t49"}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Resolve(policy.Caller{User: user}, "claude-opus-4-6"); !ok {
			b.Fatal("not resolved")
		}
	}
}

func ExampleCompile() {
	hasher := policy.NewHasher([]byte("the installation's secret"))
	snapshot, err := policy.Compile(&policy.Document{
		Upstreams: []policy.Upstream{{Name: "main", BaseURL: policy.DefaultBaseURL, Weight: 1}},
		Aliases:   []policy.AliasSpec{{Name: "fast", Model: "claude-haiku-4-5"}},
		Routes:    []policy.RouteSpec{{Name: "default", Models: []string{"claude-*"}, Upstreams: []string{"main"}}},
		Users:     []policy.User{{Name: "alice"}},
		Keys:      []policy.Key{{Name: "alice-laptop", User: "alice", Hash: hasher.Hash("a-key-of-twenty-characters")}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	caller, known := snapshot.Caller(hasher.Hash("a-key-of-twenty-characters"))
	target, ok := snapshot.Resolve(caller, "fast")
	fmt.Println(known, caller.Key.Name, ok, target.Route, target.Model, target.Upstreams[0].Name)
	// Output: true alice-laptop true default claude-haiku-4-5 main
}

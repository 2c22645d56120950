package policy_test

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"carpool/internal/policy"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	minus, less := int64(policy.Unlimited), int64(-2)
	zero := int64(0)
	cases := []struct {
		what string
		spec interface{ Validate() error }
		want []string // parts of the error; none: valid
	}{
		{"team", policy.TeamSpec{Name: "platform"}, nil},
		{"no name", policy.TeamSpec{}, []string{"team", "required"}},
		{"longest name", policy.TeamSpec{Name: long}, nil},
		{"name too long", policy.TeamSpec{Name: long + "a"}, []string{"1 to 63"}},
		{"name as address", policy.UserSpec{Name: "alice.b-c_d@example.com"}, nil},
		{"name with a space", policy.UserSpec{Name: "alice b"}, []string{`user "alice b"`}},
		{"name with a slash", policy.UserSpec{Name: "a/b"}, []string{"user"}},
		{"name that begins with a dot", policy.UserSpec{Name: ".."}, []string{"starts with"}},
		{"name with a line break", policy.UserSpec{Name: "alice\n"}, []string{"user"}},
		{"name beyond ASCII", policy.UserSpec{Name: "älice"}, []string{"user"}},

		{"least upstream", policy.UpstreamSpec{Name: "main"}, nil},
		{"full upstream", policy.UpstreamSpec{Name: "main", Provider: "anthropic", BaseURL: "https://api.example.com/path/", APIKey: "sk-ant-x", Auth: "bearer", Weight: 3, Priority: -1}, nil},
		{"plain address", policy.UpstreamSpec{Name: "main", BaseURL: "http://127.0.0.1:8080"}, nil},
		{"provider", policy.UpstreamSpec{Name: "main", Provider: "Anthropic"}, []string{`upstream "main"`, "provider", "anthropic"}},
		{"auth", policy.UpstreamSpec{Name: "main", Auth: "basic"}, []string{"auth", "x-api-key", "bearer"}},
		{"weight", policy.UpstreamSpec{Name: "main", Weight: -1}, []string{"weight"}},
		{"address without scheme", policy.UpstreamSpec{Name: "main", BaseURL: "api.anthropic.com"}, []string{"baseUrl"}},
		{"address of a file", policy.UpstreamSpec{Name: "main", BaseURL: "file:///etc/passwd"}, []string{"baseUrl"}},
		{"address without host", policy.UpstreamSpec{Name: "main", BaseURL: "https://:443"}, []string{"baseUrl"}},
		{"address with a bad port", policy.UpstreamSpec{Name: "main", BaseURL: "https://example.com:port"}, []string{"baseUrl"}},
		{"address with a query", policy.UpstreamSpec{Name: "main", BaseURL: "https://example.com?a=b"}, []string{"query"}},
		{"address with a fragment", policy.UpstreamSpec{Name: "main", BaseURL: "https://example.com#a"}, []string{"fragment"}},
		{"address with a password", policy.UpstreamSpec{Name: "main", BaseURL: "https://u:p@example.com"}, []string{"credentials"}},
		{"credential with a line break", policy.UpstreamSpec{Name: "main", APIKey: "sk-ant-x\n"}, []string{"apiKey", "line break"}},
		{"credential with a control character", policy.UpstreamSpec{Name: "main", APIKey: "sk\x7f"}, []string{"apiKey"}},

		{"route", policy.RouteSpec{Name: "default", Models: []string{"*"}, Upstreams: []string{"main"}}, nil},
		{"route for all models", policy.RouteSpec{Name: "default", Upstreams: []string{"main"}}, nil},
		{"route without upstream", policy.RouteSpec{Name: "default"}, []string{`route "default"`, "upstreams"}},
		{"route with an empty pattern", policy.RouteSpec{Name: "default", Models: []string{"a", " "}, Upstreams: []string{"main"}}, []string{"empty", `"*"`}},

		{"alias", policy.AliasSpec{Name: "fast", Model: "claude-haiku-4-5"}, nil},
		{"alias with notation", policy.AliasSpec{Name: "big", Model: "claude-opus-4-6[1m]"}, nil},
		{"alias without model", policy.AliasSpec{Name: "fast"}, []string{`alias "fast"`, "required"}},
		{"alias without name", policy.AliasSpec{Name: " ", Model: "m"}, []string{"required"}},
		{"alias too long", policy.AliasSpec{Name: strings.Repeat("a", 201), Model: "m"}, []string{"200"}},
		{"alias of a pattern", policy.AliasSpec{Name: "claude-*", Model: "m"}, []string{"route"}},
		{"alias to a pattern", policy.AliasSpec{Name: "fast", Model: "claude-*"}, []string{"route"}},

		{"user", policy.UserSpec{Name: "alice", Team: "platform", Quota: &policy.QuotaSpec{Daily: &zero, Monthly: &minus}, Limits: &policy.LimitsSpec{RequestsPerMinute: 1, InFlight: 1}}, nil},
		{"user of a bad team", policy.UserSpec{Name: "alice", Team: "a b"}, []string{`user "alice"`, `team "a b"`}},
		{"daily quota", policy.UserSpec{Name: "alice", Quota: &policy.QuotaSpec{Daily: &less, Monthly: &less}}, []string{"quota.daily", "-1"}},
		{"monthly quota", policy.UserSpec{Name: "alice", Quota: &policy.QuotaSpec{Monthly: &less}}, []string{"quota.monthly"}},
		{"requests per minute", policy.UserSpec{Name: "alice", Limits: &policy.LimitsSpec{RequestsPerMinute: -1}}, []string{"limits"}},
		{"requests in flight", policy.UserSpec{Name: "alice", Limits: &policy.LimitsSpec{InFlight: -1}}, []string{"limits"}},

		{"key to be generated", policy.KeySpec{Name: "laptop", User: "alice"}, nil},
		{"key without user", policy.KeySpec{Name: "laptop"}, []string{`key "laptop"`, "user"}},
		{"given key of 20 characters", policy.KeySpec{Name: "laptop", User: "alice", Key: strings.Repeat("k", 20)}, nil},
		{"given key of Carpool's prefix", policy.KeySpec{Name: "laptop", User: "alice", Key: "cpk_reproducible_set_up"}, nil},
		{"given key of 19 characters", policy.KeySpec{Name: "laptop", User: "alice", Key: strings.Repeat("k", 19)}, []string{"20"}},
		{"given key of 513 characters", policy.KeySpec{Name: "laptop", User: "alice", Key: strings.Repeat("k", 513)}, []string{"512"}},
		{"given key with a space", policy.KeySpec{Name: "laptop", User: "alice", Key: "twenty characters are"}, []string{"spaces"}},
		{"given key with a line break", policy.KeySpec{Name: "laptop", User: "alice", Key: strings.Repeat("k", 20) + "\n"}, []string{"printable"}},
		{"given key beyond ASCII", policy.KeySpec{Name: "laptop", User: "alice", Key: strings.Repeat("ü", 20)}, []string{"ASCII"}},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			err := c.spec.Validate()
			if (err == nil) != (c.want == nil) {
				t.Fatalf("%v", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
			if k, ok := c.spec.(policy.KeySpec); ok && err != nil && k.Key != "" && strings.Contains(err.Error(), k.Key) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}

func TestValidateFindsWhatIsDeclaredTwice(t *testing.T) {
	t.Parallel()
	alice, fast := policy.UserSpec{Name: "alice"}, policy.AliasSpec{Name: "fast", Model: "m"}
	key := policy.KeySpec{Name: "laptop", User: "alice"}
	main, all := policy.UpstreamSpec{Name: "main"}, policy.RouteSpec{Name: "default", Upstreams: []string{"main"}}
	team := policy.TeamSpec{Name: "platform"}
	for want, r := range map[string]policy.Resources{
		`team "platform"`:  {Teams: []policy.TeamSpec{team, team}},
		`upstream "main"`:  {Upstreams: []policy.UpstreamSpec{main, main}},
		`alias "fast"`:     {Aliases: []policy.AliasSpec{fast, fast}},
		`route "default"`:  {Routes: []policy.RouteSpec{all, all}},
		`user "alice"`:     {Users: []policy.UserSpec{alice, alice}},
		`key "laptop"`:     {Keys: []policy.KeySpec{key, key}},
		`user "not valid"`: {Users: []policy.UserSpec{{Name: "not valid"}}},
	} {
		if err := r.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want an error about %s, got %v", want, err)
		}
	}
	same := policy.Resources{
		Teams: []policy.TeamSpec{{Name: "x"}}, Upstreams: []policy.UpstreamSpec{{Name: "x"}}, Users: []policy.UserSpec{{Name: "x"}},
		Keys: []policy.KeySpec{{Name: "x", User: "x"}}, Aliases: []policy.AliasSpec{{Name: "x", Model: "y"}},
		Routes: []policy.RouteSpec{{Name: "x", Upstreams: []string{"x"}}},
	}
	if err := same.Validate(); err != nil {
		t.Errorf("nouns of different kinds may share a name: %v", err)
	}
	if err := (policy.Resources{}).Validate(); err != nil {
		t.Errorf("nothing at all is valid: %v", err)
	}
}

func TestResourcesFromYAML(t *testing.T) {
	t.Parallel()
	const file = `
upstreams:
  - {name: main, provider: anthropic, baseUrl: https://api.anthropic.com, apiKeyEnv: ANTHROPIC_API_KEY, weight: 1, priority: 0}
routes:
  - {name: default, models: ["*"], upstreams: [main]}
users:
  - {name: alice, team: platform, quota: {daily: 2000000, monthly: 40000000}, limits: {requestsPerMinute: 60, inFlight: 8}}
keys:
  - {name: alice-laptop, user: alice, key: cpk_any_text_of_20_characters}
`
	var r policy.Resources
	if err := yaml.UnmarshalWithOptions([]byte(file), &r, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if u := r.Users[0]; *u.Quota.Daily != 2_000_000 || *u.Quota.Monthly != 40_000_000 || u.Limits.RequestsPerMinute != 60 || u.Limits.InFlight != 8 || u.Team != "platform" {
		t.Errorf("%+v", u)
	}
	if r.Upstreams[0].APIKeyEnv != "ANTHROPIC_API_KEY" || r.Keys[0].Key != "cpk_any_text_of_20_characters" || r.Routes[0].Models[0] != "*" {
		t.Errorf("%+v", r)
	}
}

func TestResolveSecrets(t *testing.T) {
	t.Parallel()
	getenv := func(name string) (string, bool) {
		v, ok := map[string]string{"SET": " from-environment\n", "EMPTY": ""}[name]
		return v, ok
	}
	readFile := func(path string) ([]byte, error) {
		switch path {
		case "good":
			return []byte("from-file\r\n"), nil
		case "blank":
			return []byte(" \n"), nil
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	cases := []struct {
		in   policy.UpstreamSpec
		want string // credential, or part of the error after "!"
	}{
		{policy.UpstreamSpec{APIKey: "given"}, "given"},
		{policy.UpstreamSpec{}, ""},
		{policy.UpstreamSpec{APIKeyEnv: "SET"}, "from-environment"},
		{policy.UpstreamSpec{APIKeyFile: "good"}, "from-file"},
		{policy.UpstreamSpec{APIKeyEnv: "EMPTY"}, "!EMPTY (apiKeyEnv) is not set"},
		{policy.UpstreamSpec{APIKeyEnv: "UNSET"}, "!UNSET (apiKeyEnv) is not set"},
		{policy.UpstreamSpec{APIKeyFile: "blank"}, "!blank is empty"},
		{policy.UpstreamSpec{APIKeyFile: "missing"}, "!cannot read apiKeyFile"},
		{policy.UpstreamSpec{APIKey: "given-secret", APIKeyEnv: "SET"}, "!one of"},
		{policy.UpstreamSpec{APIKeyEnv: "SET", APIKeyFile: "good"}, "!one of"},
	}
	for _, c := range cases {
		c.in.Name = "main"
		in := policy.Resources{Upstreams: []policy.UpstreamSpec{c.in}, Users: []policy.UserSpec{{Name: "alice"}}}
		out, err := in.ResolveSecrets(getenv, readFile)
		if part, fails := strings.CutPrefix(c.want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), `upstream "main"`) {
				t.Errorf("%+v: error %v does not say %q", c.in, err, part)
			}
			if err != nil && strings.Contains(err.Error(), "given-secret") {
				t.Errorf("the error shows the credential: %v", err)
			}
			continue
		}
		want := policy.UpstreamSpec{Name: "main", APIKey: c.want}
		if err != nil || !reflect.DeepEqual(out.Upstreams[0], want) || len(out.Users) != 1 {
			t.Errorf("%+v: got %+v, %v", c.in, out, err)
		}
		if !reflect.DeepEqual(in.Upstreams[0], c.in) {
			t.Error("the argument was changed")
		}
	}
	_, err := policy.Resources{Upstreams: []policy.UpstreamSpec{{Name: "main", APIKeyFile: "missing"}}}.ResolveSecrets(getenv, readFile)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestFormula(t *testing.T) {
	t.Parallel()
	cases := []struct {
		f                                    policy.Formula
		input, output, cacheRead, cacheWrite int64
		want                                 int64
	}{
		{policy.DefaultFormula(), 10, 20, 1_000_000, 1_000_000, 30},
		{policy.DefaultFormula(), 0, 0, 0, 0, 0},
		{policy.Formula{CacheRead: 100}, 0, 0, 1, 0, 1},
		{policy.Formula{CacheRead: 100}, 0, 0, 10, 0, 1},
		{policy.Formula{CacheRead: 100}, 0, 0, 11, 0, 2},
		{policy.Formula{Input: 1000, Output: 5000, CacheRead: 100, CacheWrite: 1250}, 1, 1, 1, 1, 8},
		{policy.Formula{Input: 1_000_000}, 1 << 40, 0, 0, 0, 1000 << 40},
	}
	for _, c := range cases {
		if got := c.f.Tokens(c.input, c.output, c.cacheRead, c.cacheWrite); got != c.want {
			t.Errorf("%+v of %d, %d, %d, %d: %d, want %d", c.f, c.input, c.output, c.cacheRead, c.cacheWrite, got, c.want)
		}
	}
}

func ExampleResources_ResolveSecrets() {
	r := policy.Resources{Upstreams: []policy.UpstreamSpec{{Name: "main", APIKeyEnv: "ANTHROPIC_API_KEY"}}}
	environment := map[string]string{"ANTHROPIC_API_KEY": "sk-ant-example"}
	r, err := r.ResolveSecrets(func(name string) (string, bool) { v, ok := environment[name]; return v, ok }, nil)
	fmt.Println(r.Upstreams[0].APIKey, err)
	// Output: sk-ant-example <nil>
}

func TestUndeclared(t *testing.T) {
	t.Parallel()
	set := policy.Resources{
		Teams:     []policy.TeamSpec{{Name: "ops"}},
		Upstreams: []policy.UpstreamSpec{{Name: "main"}},
		Users:     []policy.UserSpec{{Name: "alice", Team: "platform"}},
		Routes:    []policy.RouteSpec{{Name: "r", Upstreams: []string{"main", "spare"}, Users: []string{"alice"}, Teams: []string{"ops", "platform", "sales"}}},
		Keys:      []policy.KeySpec{{Name: "k", User: "alice"}, {Name: "l", User: "bob"}},
	}
	var got []string
	for _, ref := range set.Undeclared() {
		got = append(got, fmt.Sprint(ref.Of, " ", ref.OfName, ": ", ref.Kind, " ", ref.Name, " of ", ref.Declared))
	}
	want := []string{"route r: upstream spare of [main]", "route r: team sales of [ops platform]", "key l: user bob of [alice]"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAliasesOfAliases(t *testing.T) {
	t.Parallel()
	set := policy.Resources{Aliases: []policy.AliasSpec{{Name: "fast", Model: "SMALL[1m]"}, {Name: "small", Model: "claude-haiku-4-5"}}}
	if err := set.Validate(); err == nil || !strings.Contains(err.Error(), `alias "fast": "SMALL[1m]" is an alias itself`) {
		t.Errorf("%v", err)
	}
	set.Aliases[0].Model = "claude-haiku-4-5"
	if err := set.Validate(); err != nil {
		t.Error(err)
	}
}

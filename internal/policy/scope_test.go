package policy_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"carpool/internal/policy"
)

// scoped is the caller of a key with this scope, in a policy with some routes and aliases.
func scoped(t *testing.T, scope policy.ScopeSpec) (*policy.Snapshot, policy.Caller) {
	t.Helper()
	s := compile(t, &policy.Document{
		Upstreams: upstreams("main"),
		Aliases:   []policy.AliasSpec{{Name: "fast", Model: "claude-haiku-4-5"}, {Name: "smart", Model: "claude-opus-4-6[1m]"}},
		Routes:    []policy.RouteSpec{{Name: "any", Upstreams: []string{"main"}}, {Name: "named", Models: []string{"claude-sonnet-4-6"}, Upstreams: []string{"main"}}},
		Teams:     []policy.Team{{Name: "platform", Limits: policy.LimitsSpec{InFlight: 3}}},
		Users:     []policy.User{{Name: "alice", Team: "platform"}, {Name: "bob", Team: "research"}},
		Keys: []policy.Key{
			{Name: "a", User: "alice", Hash: policy.KeyHash{1}, Scope: scope},
			{Name: "b", User: "bob", Hash: policy.KeyHash{2}},
		},
	})
	c, ok := s.Caller(policy.KeyHash{1})
	if !ok {
		t.Fatal("no caller")
	}
	return s, c
}

func TestScopeOfModels(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		models []string
		may    []string
		not    []string
		named  []string
	}{
		"all":         {nil, []string{"fast", "gpt", "claude-opus-4-6"}, nil, []string{"claude-sonnet-4-6", "fast", "smart"}},
		"pattern":     {[]string{"Claude-Haiku-*"}, []string{"claude-haiku-4-5", "CLAUDE-HAIKU-3[1m]", "fast"}, []string{"claude-opus-4-6", "smart", "haiku"}, []string{"fast"}},
		"exact":       {[]string{"claude-opus-4-6"}, []string{"claude-opus-4-6", "claude-opus-4-6[1M]", "smart"}, []string{"claude-opus-4", "fast"}, []string{"smart"}},
		"alias":       {[]string{"Fast"}, []string{"fast", "claude-haiku-4-5"}, []string{"smart", "fastest"}, []string{"fast"}},
		"two":         {[]string{"fast", "*sonnet*"}, []string{"fast", "claude-sonnet-4-6"}, []string{"claude-opus-4-6"}, []string{"claude-sonnet-4-6", "fast"}},
		"no such one": {[]string{"nothing"}, nil, []string{"claude-opus-4-6", ""}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, caller := scoped(t, policy.ScopeSpec{Models: c.models})
			for _, m := range c.may {
				if _, ok := s.Resolve(caller, m); !ok {
					t.Errorf("%q is refused", m)
				}
			}
			for _, m := range c.not {
				if target, ok := s.Resolve(caller, m); ok {
					t.Errorf("%q goes to %+v", m, target)
				}
			}
			if got := s.NamedModels(caller); !slices.Equal(got, c.named) {
				t.Errorf("named %v, want %v", got, c.named)
			}
			if other, _ := s.Caller(policy.KeyHash{2}); len(s.NamedModels(other)) != 3 {
				t.Error("another key is concerned")
			}
		})
	}
}

func TestScopeOfEndpointsAndAddresses(t *testing.T) {
	t.Parallel()
	_, c := scoped(t, policy.ScopeSpec{Endpoints: []string{policy.EndpointMessages, policy.EndpointModels}, Addresses: []string{"10.1.2.3/8", "192.0.2.7", "2001:db8::/32"}})
	for endpoint, want := range map[string]bool{"messages": true, "models": true, "count_tokens": false, "account": false, "": false} {
		if c.MayUse(endpoint) != want {
			t.Errorf("%q: %v", endpoint, !want)
		}
	}
	for address, want := range map[string]bool{
		"10.200.0.1": true, "::ffff:10.0.0.1": true, "192.0.2.7": true, "2001:db8:5::1": true, "2001:db8:5::1%eth0": true,
		"192.0.2.8": false, "11.0.0.1": false, "2001:db9::1": false, "::1": false,
	} {
		if c.MayComeFrom(netip.MustParseAddr(address)) != want {
			t.Errorf("%s: %v", address, !want)
		}
	}
	if c.MayComeFrom(netip.Addr{}) {
		t.Error("an unknown address is in the scope")
	}
	_, free := scoped(t, policy.ScopeSpec{})
	if !free.MayUse("account") || !free.MayComeFrom(netip.Addr{}) || !(policy.Caller{}).MayUse("messages") {
		t.Error("no scope narrows something")
	}
}

func TestCallerHasItsTeam(t *testing.T) {
	t.Parallel()
	s, alice := scoped(t, policy.ScopeSpec{})
	if alice.Team == nil || alice.Team.Limits.InFlight != 3 {
		t.Errorf("%+v", alice.Team)
	}
	if bob, _ := s.Caller(policy.KeyHash{2}); bob.Team != nil {
		t.Errorf("%+v", bob.Team)
	}
}

func TestLimitsAndScopesAreChecked(t *testing.T) {
	t.Parallel()
	key := func(edit func(*policy.KeySpec)) error {
		k := policy.KeySpec{Name: "ci", User: "alice", Limits: &policy.KeyLimitsSpec{}, Scope: &policy.ScopeSpec{}}
		edit(&k)
		return k.Validate()
	}
	for want, err := range map[string]error{
		`key "ci": limits must not be negative`:     key(func(k *policy.KeySpec) { k.Limits.TokensPerMinute = new(int64(-1)) }),
		`user "bob": limits must not be negative`:   policy.UserSpec{Name: "bob", Limits: &policy.LimitsSpec{InFlight: -1}}.Validate(),
		`team "t": limits must not be negative`:     policy.TeamSpec{Name: "t", Limits: &policy.LimitsSpec{RequestsPerMinute: -1}}.Validate(),
		`limits.tokensPerMinute must be at most`:    policy.TeamSpec{Name: "t", Limits: &policy.LimitsSpec{TokensPerMinute: 1 << 60}}.Validate(),
		`key "ci": scope.models: a model id or`:     key(func(k *policy.KeySpec) { k.Scope.Models = []string{" "} }),
		`unknown endpoint "chat"; known: messages`:  key(func(k *policy.KeySpec) { k.Scope.Endpoints = []string{"chat"} }),
		`scope.addresses: "10.0.0.0/40" is not an`:  key(func(k *policy.KeySpec) { k.Scope.Addresses = []string{"10.0.0.0/40"} }),
		`scope.addresses: "example.com" is not an`:  key(func(k *policy.KeySpec) { k.Scope.Addresses = []string{"10.0.0.1", "example.com"} }),
		`scope.addresses: "fe80::1%eth0" is not an`: key(func(k *policy.KeySpec) { k.Scope.Addresses = []string{"fe80::1%eth0"} }),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	fine := func(k *policy.KeySpec) {
		k.Limits.TokensPerMinute = new(int64(40_000))
		k.Scope = &policy.ScopeSpec{Models: []string{"*"}, Endpoints: []string{"account"}, Addresses: []string{"::1", "10.0.0.0/8"}}
	}
	if err := key(fine); err != nil {
		t.Error(err)
	}
}

func FuzzParseNetwork(f *testing.F) {
	f.Add("10.0.0.0/8")
	f.Add("::ffff:10.0.0.0/104")
	f.Add("fe80::1%a")
	f.Fuzz(func(t *testing.T, text string) {
		network, err := policy.ParseNetwork(text)
		if err != nil {
			return
		}
		if !network.IsValid() || !network.Contains(network.Addr()) || network != network.Masked() {
			t.Errorf("%q: %v", text, network)
		}
		if again, err := policy.ParseNetwork(network.String()); err != nil || again != network {
			t.Errorf("%q: %v is read as %v, %v", text, network, again, err)
		}
	})
}

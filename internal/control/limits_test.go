package control_test

import (
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// ownLimits are limits as a key has them, each of them its own.
func ownLimits(l policy.LimitsSpec) *policy.KeyLimitsSpec {
	return &policy.KeyLimitsSpec{RequestsPerMinute: &l.RequestsPerMinute, TokensPerMinute: &l.TokensPerMinute, InFlight: &l.InFlight}
}

// A key has the default limits where it has none of its own, and a limit of 0 is its own: none at all.
func TestDefaultLimitsOfKeys(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		o := options(t, p.folder)
		defaults := func(l policy.LimitsSpec) {
			t.Helper()
			o.Settings.DefaultLimits = l
			must[any](t)(nil, p.UpdateSettings(ctx, o.Settings, o.DefaultQuota))
		}
		defaults(policy.LimitsSpec{TokensPerMinute: 5, InFlight: 64})
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice"}))
		secrets := map[string]string{}
		for name, own := range map[string]*policy.KeyLimitsSpec{
			"none": nil, "empty": {}, "some": {InFlight: new(4)}, "unlimited": {TokensPerMinute: new(int64(0)), InFlight: new(0)},
		} {
			key := must[control.NewKey](t)(c.CreateKey(ctx, policy.KeySpec{Name: name, User: "alice", Limits: own}))
			secrets[name] = key.Secret
		}
		// check asserts what the API shows of a key, and what the node goes by.
		check := func(name string, want policy.LimitsSpec, own policy.KeyLimitsSpec) {
			t.Helper()
			key := must[control.Key](t)(c.Key(ctx, name))
			if key.Limits != want || !reflect.DeepEqual(key.OwnLimits, own) {
				t.Errorf("%s: %+v, of its own %+v", name, key.Limits, key.OwnLimits)
			}
			caller, _ := n.snapshot(t).Caller(options(t, p.folder).MasterKey.Hasher().Hash(secrets[name]))
			if caller.Key == nil || caller.Key.Limits != want || caller.User.Limits != (policy.LimitsSpec{}) {
				t.Errorf("%s: the node has %+v", name, caller)
			}
		}
		check("none", policy.LimitsSpec{TokensPerMinute: 5, InFlight: 64}, policy.KeyLimitsSpec{})
		check("empty", policy.LimitsSpec{TokensPerMinute: 5, InFlight: 64}, policy.KeyLimitsSpec{})
		check("some", policy.LimitsSpec{TokensPerMinute: 5, InFlight: 4}, policy.KeyLimitsSpec{InFlight: new(4)})
		check("unlimited", policy.LimitsSpec{}, policy.KeyLimitsSpec{TokensPerMinute: new(int64(0)), InFlight: new(0)})

		change := func(patch control.KeyLimitsPatch) {
			t.Helper()
			must[control.Key](t)(c.UpdateKey(ctx, "some", control.KeyPatch{Limits: &patch}))
		}
		change(control.KeyLimitsPatch{RequestsPerMinute: control.To(60)})
		check("some", policy.LimitsSpec{RequestsPerMinute: 60, TokensPerMinute: 5, InFlight: 4}, policy.KeyLimitsSpec{RequestsPerMinute: new(60), InFlight: new(4)})
		change(control.KeyLimitsPatch{InFlight: control.To(0)})
		check("some", policy.LimitsSpec{RequestsPerMinute: 60, TokensPerMinute: 5}, policy.KeyLimitsSpec{RequestsPerMinute: new(60), InFlight: new(0)})
		change(control.KeyLimitsPatch{InFlight: control.ToDefault[int](), RequestsPerMinute: control.ToDefault[int]()})
		check("some", policy.LimitsSpec{TokensPerMinute: 5, InFlight: 64}, policy.KeyLimitsSpec{})
		_, err := c.UpdateKey(ctx, "some", control.KeyPatch{Limits: &control.KeyLimitsPatch{InFlight: control.To(-1)}})
		status(t, err, http.StatusUnprocessableEntity, "limits must not be negative")

		defaults(policy.LimitsSpec{RequestsPerMinute: 7}) // in force at once
		check("none", policy.LimitsSpec{RequestsPerMinute: 7}, policy.KeyLimitsSpec{})
		check("unlimited", policy.LimitsSpec{RequestsPerMinute: 7}, policy.KeyLimitsSpec{TokensPerMinute: new(int64(0)), InFlight: new(0)})
	})
}

func TestLimitsOfKeysUsersAndTeams(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		limits := policy.LimitsSpec{RequestsPerMinute: 60, TokensPerMinute: 1_000_000, InFlight: 16}
		team := must[control.Team](t)(c.CreateTeam(ctx, policy.TeamSpec{Name: "platform", Limits: &limits}))
		user := must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice", Team: "platform", Limits: &limits}))
		key := must[control.NewKey](t)(c.CreateKey(ctx, policy.KeySpec{Name: "laptop", User: "alice", Limits: ownLimits(limits)}))
		if team.Limits != limits || user.Limits != limits || key.Limits != limits {
			t.Errorf("%+v, %+v, %+v", team.Limits, user.Limits, key.Limits)
		}
		inForce := func() (k, u, g policy.LimitsSpec) {
			t.Helper()
			caller, ok := n.snapshot(t).Caller(options(t, p.folder).MasterKey.Hasher().Hash(key.Secret))
			if !ok {
				t.Fatal("the node does not know the key")
			}
			if caller.Team != nil {
				g = caller.Team.Limits
			}
			return caller.Key.Limits, caller.User.Limits, g
		}
		if k, u, g := inForce(); k != limits || u != limits || g != limits {
			t.Errorf("the node has %+v, %+v, %+v", k, u, g)
		}

		patch := &control.LimitsPatch{TokensPerMinute: new(int64(7)), InFlight: new(0)}
		want := policy.LimitsSpec{RequestsPerMinute: 60, TokensPerMinute: 7}
		team = must[control.Team](t)(c.UpdateTeam(ctx, "platform", control.TeamPatch{Limits: patch}))
		user = must[control.User](t)(c.UpdateUser(ctx, "alice", control.UserPatch{Limits: patch}))
		changed := must[control.Key](t)(c.UpdateKey(ctx, "laptop", control.KeyPatch{Limits: &control.KeyLimitsPatch{TokensPerMinute: control.To[int64](7), InFlight: control.To(0)}}))
		if team.Limits != want || user.Limits != want || changed.Limits != want {
			t.Errorf("%+v, %+v, %+v", team.Limits, user.Limits, changed.Limits)
		}
		if k, u, g := inForce(); k != want || u != want || g != want {
			t.Errorf("the node has %+v, %+v, %+v", k, u, g)
		}
		if got := must[control.Team](t)(c.Team(ctx, "platform")); got.Limits != want || got.Users != 1 {
			t.Errorf("%+v", got)
		}

		_, err := c.UpdateTeam(ctx, "platform", control.TeamPatch{Limits: &control.LimitsPatch{InFlight: new(-1)}})
		status(t, err, http.StatusUnprocessableEntity, "inFlight")
		_, err = c.UpdateTeam(ctx, "none", control.TeamPatch{})
		status(t, err, http.StatusNotFound, `no team "none"`)
		_, err = c.CreateUser(ctx, policy.UserSpec{Name: "bob", Limits: &policy.LimitsSpec{TokensPerMinute: 1 << 40}})
		status(t, err, http.StatusUnprocessableEntity, "tokensPerMinute")
		if must[control.Team](t)(c.UpdateTeam(ctx, "platform", control.TeamPatch{Limits: &control.LimitsPatch{
			RequestsPerMinute: new(0), TokensPerMinute: new(int64(0)),
		}})).Limits != (policy.LimitsSpec{}) {
			t.Error("limits stay")
		}
		if _, _, g := inForce(); g != (policy.LimitsSpec{}) {
			t.Errorf("the node has %+v", g)
		}
	})
}

func TestScopesOfKeys(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice"}))
		scope := policy.ScopeSpec{Models: []string{"claude-haiku-*"}, Endpoints: []string{"messages"}, Addresses: []string{"10.0.0.0/8"}}
		key := must[control.NewKey](t)(c.CreateKey(ctx, policy.KeySpec{Name: "ci", User: "alice", Scope: &scope}))
		if !slices.Equal(key.Scope.Models, scope.Models) || key.Secret == "" {
			t.Errorf("%+v", key)
		}
		caller := func() policy.Caller {
			found, ok := n.snapshot(t).Caller(options(t, p.folder).MasterKey.Hasher().Hash(key.Secret))
			if !ok {
				t.Fatal("the node does not know the key")
			}
			return found
		}
		if c := caller(); c.MayUse("models") || !c.MayUse("messages") || c.MayComeFrom(netip.MustParseAddr("192.0.2.1")) {
			t.Errorf("the node has %+v", c.Key.Scope)
		}
		for says, patch := range map[string]control.ScopePatch{
			"endpoints":              {Endpoints: &[]string{"chat"}},
			`"10.0.0.0/99"`:          {Addresses: &[]string{"10.0.0.0/99"}},
			"a model id or pattern":  {Models: &[]string{""}},
			`"somewhere" is not an `: {Addresses: &[]string{"somewhere"}},
		} {
			_, err := c.UpdateKey(ctx, "ci", control.KeyPatch{Scope: &patch})
			status(t, err, http.StatusUnprocessableEntity, says)
		}
		changed := must[control.Key](t)(c.UpdateKey(ctx, "ci", control.KeyPatch{Scope: &control.ScopePatch{Endpoints: &[]string{}, Addresses: &[]string{"192.0.2.1"}}}))
		if len(changed.Scope.Models) != 1 || len(changed.Scope.Endpoints) != 0 || changed.Scope.Addresses[0] != "192.0.2.1" {
			t.Errorf("%+v", changed.Scope)
		}
		if c := caller(); !c.MayUse("models") || !c.MayComeFrom(netip.MustParseAddr("192.0.2.1")) {
			t.Errorf("the node has %+v", c.Key.Scope)
		}
	})
}

// What a file does not say stays; limits and scopes that it does say count as a whole.
func TestApplyLimitsAndScopes(t *testing.T) {
	p := open(t, t.TempDir())
	ctx := t.Context()
	written := func() policy.Resources {
		return policy.Resources{
			Teams:     []policy.TeamSpec{{Name: "platform", Limits: &policy.LimitsSpec{InFlight: 64}}},
			Upstreams: []policy.UpstreamSpec{{Name: "main", APIKey: credential, MaxInFlight: 20}},
			Users:     []policy.UserSpec{{Name: "alice", Team: "platform", Limits: &policy.LimitsSpec{TokensPerMinute: 9}}},
			Keys:      []policy.KeySpec{{Name: "ci", User: "alice", Limits: &policy.KeyLimitsSpec{InFlight: new(1)}, Scope: &policy.ScopeSpec{Models: []string{"a"}}}},
		}
	}
	const all = "team/platform:updated upstream/main:updated user/alice:updated key/ci:updated"
	must[control.ApplyResult](t)(p.socket.Apply(ctx, written(), false))
	again := must[control.ApplyResult](t)(p.socket.Apply(ctx, written(), false))
	if got := actions(again); got != "team/platform:unchanged upstream/main:unchanged user/alice:unchanged key/ci:unchanged" {
		t.Error(got)
	}
	silent := written()
	silent.Teams[0].Limits, silent.Upstreams[0].MaxInFlight, silent.Users[0].Limits = nil, 0, nil
	silent.Keys[0].Limits, silent.Keys[0].Scope = nil, nil
	if got := actions(must[control.ApplyResult](t)(p.socket.Apply(ctx, silent, false))); got != actions(again) {
		t.Error(got)
	}
	if up := must[control.Upstream](t)(p.socket.Upstream(ctx, "main")); up.MaxInFlight != 20 {
		t.Errorf("%+v", up)
	}
	other := written()
	other.Teams[0].Limits = &policy.LimitsSpec{RequestsPerMinute: 5}
	other.Upstreams[0].MaxInFlight = 21
	other.Users[0].Limits = &policy.LimitsSpec{}
	other.Keys[0].Scope = &policy.ScopeSpec{}
	if got := actions(must[control.ApplyResult](t)(p.socket.Apply(ctx, other, false))); got != all {
		t.Error(got)
	}
	team := must[control.Team](t)(p.socket.Team(ctx, "platform"))
	user := must[control.User](t)(p.socket.User(ctx, "alice", false))
	key := must[control.Key](t)(p.socket.Key(ctx, "ci"))
	if team.Limits != (policy.LimitsSpec{RequestsPerMinute: 5}) || user.Limits != (policy.LimitsSpec{}) || key.Limits.InFlight != 1 || !key.Scope.IsZero() {
		t.Errorf("%+v, %+v, %+v", team, user, key)
	}
}

// How an upstream is is what the nodes say; the worst of several counts, and nobody knows when none says anything.
func TestUpstreamsHealth(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		for _, name := range []string{"main", "off", "spare"} {
			must[control.Upstream](t)(c.CreateUpstream(ctx, policy.UpstreamSpec{Name: name, APIKey: credential, Disabled: name == "off"}))
		}
		other := p.startNode(t, "n2")
		says := func(n *standIn, health fleet.UpstreamHealth, fails string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.health, n.fails = health, fails
		}
		check := func(main, spare string, cooling ...fleet.Cooling) {
			t.Helper()
			list := must[[]control.Upstream](t)(c.Upstreams(ctx))
			if list[0].Health != main || list[1].Health != "" || list[2].Health != spare || !slices.Equal(list[0].Cooling, cooling) {
				t.Errorf("%+v", list)
			}
			if one := must[control.Upstream](t)(c.Upstream(ctx, "main")); one.Health != main || !slices.Equal(one.Cooling, cooling) {
				t.Errorf("%+v", one)
			}
		}
		check(control.HealthReady, control.HealthReady)
		rate, overloaded := fleet.Cooling{Cause: "rate", Seconds: 12}, fleet.Cooling{Cause: "overloaded", Model: "m", Seconds: 5}
		says(n, fleet.UpstreamHealth{"main": {rate}, "gone": {rate}}, "")
		check(control.HealthCooling, control.HealthReady, rate)
		says(other, fleet.UpstreamHealth{"main": {{Cause: "rate", Seconds: 40}, overloaded}}, "")
		check(control.HealthCooling, control.HealthReady, fleet.Cooling{Cause: "rate", Seconds: 40}, overloaded)
		says(other, nil, "this node does not know the command")
		check(control.HealthCooling, control.HealthReady, rate)
		says(n, nil, "nor does this one")
		check("", "")
	})
}

func TestUpstreamsMaxInFlight(t *testing.T) {
	everyway(t, func(t *testing.T, _ *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		up := must[control.Upstream](t)(c.CreateUpstream(ctx, policy.UpstreamSpec{Name: "main", APIKey: credential, MaxInFlight: 40}))
		if up.MaxInFlight != 40 || n.snapshot(t).Upstreams()[0].MaxInFlight != 40 {
			t.Errorf("%+v", up)
		}
		up = must[control.Upstream](t)(c.UpdateUpstream(ctx, "main", control.UpstreamPatch{MaxInFlight: new(0)}))
		if up.MaxInFlight != 0 || n.snapshot(t).Upstreams()[0].MaxInFlight != 0 {
			t.Errorf("%+v", up)
		}
		_, err := c.UpdateUpstream(ctx, "main", control.UpstreamPatch{MaxInFlight: new(-1)})
		status(t, err, http.StatusUnprocessableEntity, "maxInFlight")
	})
}

func TestClientPolicyReachesTheNode(t *testing.T) {
	p := open(t, t.TempDir())
	n := p.startNode(t, "n1")
	o := options(t, p.folder)
	o.Settings.Client = policy.ClientPolicy{Require: policy.RequireEnforce, MinVersion: "1.0.59", SupportedVersions: []string{"2.1.0"}}
	for range 2 { // the second time changes nothing
		must[any](t)(nil, p.UpdateSettings(t.Context(), o.Settings, o.DefaultQuota))
		got := n.snapshot(t)
		if c := got.Settings.Client; c.Require != policy.RequireEnforce || c.MinVersion != "1.0.59" || len(c.SupportedVersions) != 1 || got.Version != 2 {
			t.Errorf("version %d: %+v", got.Version, c)
		}
	}
}

func TestEntriesTellThatASessionMoved(t *testing.T) {
	p := open(t, t.TempDir())
	e := entry("n1", 1, func(e *fleet.Entry) { e.MovedFrom = "other" })
	must[int64](t)(p.Link("n1").Ship(t.Context(), fleet.UsageBatch{Node: "n1", Entries: []fleet.Entry{e}}))
	usage := must[control.Usage](t)(p.socket.Usage(t.Context(), control.UsageQuery{}))
	if len(usage.Rows) != 1 || usage.Rows[0].Entry.MovedFrom != "other" || usage.Rows[0].Entry.MessageID != e.MessageID || usage.Rows[0].Entry.Attempts != 1 {
		t.Errorf("%+v", usage.Rows)
	}
}

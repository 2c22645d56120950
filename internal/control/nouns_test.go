package control_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

const credential = "sk-test-0123456789-abcdefghij-WXYZ"

// status asserts an error answer of a status whose line contains a text.
func status(t testing.TB, err error, want int, text string) {
	t.Helper()
	api := &control.APIError{}
	ok := errors.As(err, &api)
	if !ok {
		t.Fatalf("want status %d, got error %v", want, err)
	}
	if api.Status != want || !strings.Contains(api.Error(), text) || strings.ContainsAny(api.Error(), "\n") {
		t.Errorf("want %d with %q, got %d: %s", want, text, api.Status, api.Error())
	}
}

// everyway runs a test over the Unix socket and over TCP with a token.
func everyway(t *testing.T, run func(*testing.T, *plant, *standIn, *control.Client)) {
	for _, way := range []string{"socket", "tcp"} {
		t.Run(way, func(t *testing.T) {
			p := open(t, t.TempDir())
			n := p.startNode(t, "n1")
			c := p.socket
			if way == "tcp" {
				token := must[control.NewToken](t)(p.socket.CreateToken(t.Context(), "tests"))
				c = p.tcp(t, token.Secret)
			}
			run(t, p, n, c)
		})
	}
}

func TestTeams(t *testing.T) {
	everyway(t, func(t *testing.T, _ *plant, _ *standIn, c *control.Client) {
		ctx := t.Context()
		made := must[control.Team](t)(c.CreateTeam(ctx, policy.TeamSpec{Name: "platform"}))
		if made.Name != "platform" || made.CreatedAt.IsZero() {
			t.Errorf("%+v", made)
		}
		_, err := c.CreateTeam(ctx, policy.TeamSpec{Name: "platform"})
		status(t, err, http.StatusConflict, `there is a team "platform" already`)
		_, err = c.CreateTeam(ctx, policy.TeamSpec{Name: "no spaces"})
		status(t, err, http.StatusUnprocessableEntity, "a name has")
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice", Team: "platform"}))
		teams := must[[]control.Team](t)(c.Teams(ctx))
		if len(teams) != 1 || teams[0].Users != 1 {
			t.Errorf("%+v", teams)
		}
		status(t, c.DeleteTeam(ctx, "platform"), http.StatusConflict, "still has users: alice")
		must[control.User](t)(c.UpdateUser(ctx, "alice", control.UserPatch{Team: new("")}))
		if err := c.DeleteTeam(ctx, "platform"); err != nil {
			t.Error(err)
		}
		status(t, c.DeleteTeam(ctx, "platform"), http.StatusNotFound, `there is no team "platform"`)
	})
}

func TestUsers(t *testing.T) {
	everyway(t, func(t *testing.T, _ *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		user := must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{
			Name: "alice", Team: "platform", Quota: &policy.QuotaSpec{Monthly: new(int64(5000))}, Limits: &policy.LimitsSpec{InFlight: 8},
		}))
		if user.Quota != (policy.Quota{Daily: 1000, Monthly: 5000}) || user.OwnQuota.Daily != nil || user.Limits.InFlight != 8 {
			t.Errorf("%+v", user)
		}
		// What the command returned is in force on the node.
		if u := n.snapshot(t).User("alice"); u == nil || u.Quota.Monthly != 5000 {
			t.Errorf("the node has %+v", u)
		}
		user = must[control.User](t)(c.UpdateUser(ctx, "alice", control.UserPatch{
			Disabled: new(true), Limits: &control.LimitsPatch{RequestsPerMinute: new(60)},
			Quota: &control.QuotaPatch{Daily: control.To[int64](policy.Unlimited), Monthly: control.ToDefault[int64]()},
		}))
		if !user.Disabled || user.Limits != (policy.LimitsSpec{RequestsPerMinute: 60, InFlight: 8}) ||
			user.Quota != (policy.Quota{Daily: -1, Monthly: -1}) || user.OwnQuota.Monthly != nil || *user.OwnQuota.Daily != -1 || user.Team != "platform" {
			t.Errorf("%+v", user)
		}
		user = must[control.User](t)(c.UpdateUser(ctx, "alice", control.UserPatch{Quota: &control.QuotaPatch{Daily: control.To[int64](0)}}))
		if user.Quota.Daily != 0 || !user.Disabled {
			t.Errorf("0 is a quota, absent fields stay: %+v", user)
		}
		_, err := c.UpdateUser(ctx, "alice", control.UserPatch{Quota: &control.QuotaPatch{Daily: control.To[int64](-2)}})
		status(t, err, http.StatusUnprocessableEntity, "quota.daily must be")
		_, err = c.UpdateUser(ctx, "bob", control.UserPatch{})
		if status(t, err, http.StatusNotFound, `no user "bob"`); !control.IsNotFound(err) || control.IsNotFound(nil) {
			t.Error(err)
		}
		_, err = c.User(ctx, "bob", false)
		status(t, err, http.StatusNotFound, `no user "bob"`)

		n.mu.Lock()
		n.usage["alice"] = fleet.UserQuota{Daily: fleet.WindowUsage{Used: 7}}
		n.mu.Unlock()
		if one := must[control.User](t)(c.User(ctx, "alice", true)); one.Usage == nil || one.Usage.Daily.Used != 7 {
			t.Errorf("%+v", one.Usage)
		}
		if all := must[[]control.User](t)(c.Users(ctx, false)); len(all) != 1 || all[0].Usage != nil {
			t.Errorf("%+v", all)
		}

		key := must[control.NewKey](t)(c.CreateKey(ctx, policy.KeySpec{Name: "alice-laptop", User: "alice"}))
		if all := must[[]control.User](t)(c.Users(ctx, true)); all[0].Keys != 1 || all[0].Usage == nil {
			t.Errorf("%+v", all)
		}
		must[any](t)(nil, c.DeleteUser(ctx, "alice"))
		_, err = c.Key(ctx, key.ID)
		status(t, err, http.StatusNotFound, "no key")
		if len(n.snapshot(t).Users()) != 0 {
			t.Error("the node still has the user")
		}
		status(t, c.DeleteUser(ctx, "alice"), http.StatusNotFound, "no user")
	})
}

func TestKeys(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		hasher := options(t, p.folder).MasterKey.Hasher()
		known := func(secret string) bool {
			caller, ok := n.snapshot(t).Caller(hasher.Hash(secret))
			return ok && !caller.Key.Disabled && (caller.Key.ExpiresAt.IsZero() || caller.Key.ExpiresAt.After(time.Now()))
		}
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice"}))
		_, err := c.CreateKey(ctx, policy.KeySpec{Name: "k", User: "bob"})
		status(t, err, http.StatusUnprocessableEntity, `there is no user "bob"`)
		_, err = c.CreateKey(ctx, policy.KeySpec{Name: "k", User: "alice", Key: "short"})
		status(t, err, http.StatusUnprocessableEntity, "20 to 512")
		_, err = c.CreateKey(ctx, policy.KeySpec{Name: "k", User: "alice", Key: "cpa_01234567890123456789"})
		status(t, err, http.StatusUnprocessableEntity, "administrator's token")

		first := must[control.NewKey](t)(c.CreateKey(ctx, policy.KeySpec{Name: "laptop", User: "alice"}))
		if policy.KeyID(first.Secret) != first.ID || !known(first.Secret) {
			t.Errorf("%+v", first)
		}
		given := must[control.NewKey](t)(c.CreateKey(ctx, policy.KeySpec{Name: "given", User: "alice", Key: "any-string-of-20-characters"}))
		if given.Secret != "any-string-of-20-characters" || len(given.ID) != 10 || !known(given.Secret) {
			t.Errorf("%+v", given)
		}
		_, err = c.CreateKey(ctx, policy.KeySpec{Name: "again", User: "alice", Key: given.Secret})
		status(t, err, http.StatusConflict, `belongs to key "given"`)
		_, err = c.CreateKey(ctx, policy.KeySpec{Name: "laptop", User: "alice"})
		status(t, err, http.StatusConflict, "already")

		used := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
		n.mu.Lock()
		n.active[first.ID], n.active["unknown"] = used, used
		n.mu.Unlock()
		byID := must[control.Key](t)(c.Key(ctx, first.ID))
		if byID.Name != "laptop" || byID.LastUsedAt == nil || !byID.LastUsedAt.Equal(used) {
			t.Errorf("%+v", byID)
		}

		second := must[control.NewKey](t)(c.RotateKey(ctx, "laptop", 0))
		if second.Secret == first.Secret || second.ID == first.ID || !known(second.Secret) || known(first.Secret) {
			t.Errorf("%+v", second)
		}
		third := must[control.NewKey](t)(c.RotateKey(ctx, second.ID, time.Hour))
		if !known(second.Secret) || !known(third.Secret) || third.GraceUntil == nil || third.Name != "laptop" {
			t.Errorf("%+v", third)
		}
		fourth := must[control.NewKey](t)(c.RotateKey(ctx, "laptop", time.Hour))
		if known(second.Secret) || !known(third.Secret) || !known(fourth.Secret) {
			t.Error("of two rotations with grace, only the last leaves a working secret")
		}

		past := time.Now().Add(-time.Hour)
		key := must[control.Key](t)(c.UpdateKey(ctx, "laptop", control.KeyPatch{ExpiresAt: control.To(past)}))
		if !key.Expired || known(fourth.Secret) || known(third.Secret) {
			t.Errorf("%+v", key)
		}
		key = must[control.Key](t)(c.UpdateKey(ctx, "laptop", control.KeyPatch{ExpiresAt: control.ToDefault[time.Time](), Disabled: new(true)}))
		if key.Expired || key.ExpiresAt != nil || !key.Disabled || known(fourth.Secret) {
			t.Errorf("%+v", key)
		}
		must[control.Key](t)(c.UpdateKey(ctx, "laptop", control.KeyPatch{Disabled: new(false)}))
		if !known(fourth.Secret) {
			t.Error("an enabled key works")
		}
		if keys := must[[]control.Key](t)(c.Keys(ctx, "alice")); len(keys) != 2 || keys[0].Name != "given" {
			t.Errorf("%+v", keys)
		}
		_, err = c.Keys(ctx, "bob")
		status(t, err, http.StatusNotFound, "no user")
		must[any](t)(nil, c.DeleteKey(ctx, fourth.ID))
		if known(fourth.Secret) || known(third.Secret) {
			t.Error("a removed key works")
		}
		status(t, c.DeleteKey(ctx, "laptop"), http.StatusNotFound, "no key")
	})
}

func TestUpstreamsRoutesAndAliases(t *testing.T) {
	everyway(t, func(t *testing.T, _ *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		_, err := c.CreateUpstream(ctx, policy.UpstreamSpec{Name: "main"})
		status(t, err, http.StatusUnprocessableEntity, "credential is required")
		_, err = c.CreateUpstream(ctx, policy.UpstreamSpec{Name: "main", APIKeyEnv: "HOME"})
		status(t, err, http.StatusUnprocessableEntity, "resource file")
		_, err = c.CreateUpstream(ctx, policy.UpstreamSpec{Name: "main", APIKey: credential, BaseURL: "ftp://example.com"})
		status(t, err, http.StatusUnprocessableEntity, "baseUrl")
		up := must[control.Upstream](t)(c.CreateUpstream(ctx, policy.UpstreamSpec{
			Name: "main", APIKey: credential, BaseURL: "https://api.example.com/v1/", Models: map[string]string{"Claude-X[1m]": "x-1"},
		}))
		if up.BaseURL != "https://api.example.com" || !strings.HasPrefix(up.Credential, "…WXYZ (") || up.Weight != 1 || up.Auth != policy.AuthAPIKey {
			t.Errorf("%+v", up)
		}
		_, err = c.CreateUpstream(ctx, policy.UpstreamSpec{Name: "main", APIKey: credential})
		status(t, err, http.StatusConflict, "already")

		_, err = c.CreateRoute(ctx, policy.RouteSpec{Name: "r", Upstreams: []string{"nowhere"}})
		status(t, err, http.StatusUnprocessableEntity, `there is no upstream "nowhere"`)
		_, err = c.CreateRoute(ctx, policy.RouteSpec{Name: "r", Upstreams: []string{"main"}, Users: []string{"nobody"}, Teams: []string{"none"}})
		status(t, err, http.StatusUnprocessableEntity, `there is no user "nobody"; route "r": there is no team "none"`)
		must[policy.RouteSpec](t)(c.CreateRoute(ctx, policy.RouteSpec{Name: "r", Upstreams: []string{"main"}}))
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice", Team: "platform"}))
		must[policy.AliasSpec](t)(c.SetAlias(ctx, "fast/and [small]", "claude-x"))
		_, err = c.SetAlias(ctx, "FAST/and [small]", "claude-x")
		status(t, err, http.StatusConflict, "the same as")

		s := n.snapshot(t)
		target, ok := s.Resolve(policy.Caller{User: s.User("alice")}, "fast/and [small]")
		if !ok || target.Upstreams[0].Credential.Reveal() != credential || policy.UpstreamModel(target.Upstreams[0], target.Model) != "x-1" {
			t.Errorf("%v %+v", ok, target)
		}

		status(t, c.DeleteUpstream(ctx, "main"), http.StatusConflict, "named by routes: r")
		route := must[policy.RouteSpec](t)(c.UpdateRoute(ctx, "r", control.RoutePatch{Models: &[]string{"claude-*"}, Users: &[]string{"alice"}, Teams: &[]string{"platform"}}))
		if len(route.Models) != 1 || len(route.Upstreams) != 1 {
			t.Errorf("%+v", route)
		}
		status(t, c.DeleteUser(ctx, "alice"), http.StatusConflict, "named by routes: r")
		must[control.User](t)(c.UpdateUser(ctx, "alice", control.UserPatch{Team: new("")}))
		status(t, c.DeleteTeam(ctx, "platform"), http.StatusConflict, "named by routes: r")
		if got := must[policy.RouteSpec](t)(c.Route(ctx, "r")); got.Users[0] != "alice" {
			t.Errorf("%+v", got)
		}

		up = must[control.Upstream](t)(c.UpdateUpstream(ctx, "main", control.UpstreamPatch{
			APIKey: new("another-credential-0123456789"), Weight: new(3), Priority: new(2), Disabled: new(true),
			Auth: new(policy.AuthBearer), BaseURL: new("http://127.0.0.1:1"), Models: &map[string]string{},
		}))
		if !strings.HasPrefix(up.Credential, "…6789 (") || up.Weight != 3 || up.Priority != 2 || !up.Disabled || up.Auth != policy.AuthBearer || len(up.Models) != 0 {
			t.Errorf("%+v", up)
		}
		if got := n.snapshot(t).Upstreams()[0]; got.Credential.Reveal() != "another-credential-0123456789" || got.BaseURL != "http://127.0.0.1:1" {
			t.Errorf("%+v", got)
		}
		if one := must[control.Upstream](t)(c.Upstream(ctx, "main")); !reflect.DeepEqual(one, up) {
			t.Errorf("%+v", one)
		}
		_, err = c.UpdateUpstream(ctx, "main", control.UpstreamPatch{APIKey: new("with a\nline break")})
		status(t, err, http.StatusUnprocessableEntity, "line break")
		_, err = c.UpdateUpstream(ctx, "main", control.UpstreamPatch{Weight: new(0)})
		status(t, err, http.StatusUnprocessableEntity, "weight")

		must[any](t)(nil, c.DeleteRoute(ctx, "r"))
		must[any](t)(nil, c.DeleteUpstream(ctx, "main"))
		must[any](t)(nil, c.DeleteAlias(ctx, "fast/and [small]"))
		for what, err := range map[string]error{
			"route": c.DeleteRoute(ctx, "r"), "upstream": c.DeleteUpstream(ctx, "main"), "alias": c.DeleteAlias(ctx, "fast/and [small]"),
		} {
			status(t, err, http.StatusNotFound, "no "+what)
		}
		if len(must[[]control.Upstream](t)(c.Upstreams(ctx)))+len(must[[]policy.RouteSpec](t)(c.Routes(ctx)))+len(must[[]policy.AliasSpec](t)(c.Aliases(ctx))) != 0 {
			t.Error("something is left")
		}
	})
}

func TestTokensAndAudit(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, _ *standIn, c *control.Client) {
		ctx := t.Context()
		token := must[control.NewToken](t)(c.CreateToken(ctx, "ci"))
		if !strings.HasPrefix(token.Secret, policy.TokenPrefix) || token.ID == "" || token.CreatedBy == "" {
			t.Errorf("%+v", token.Token)
		}
		for name, text := range map[string]string{"ci": "already", "socket": "audit log", "": "a name has", "a b": "a name has"} {
			if _, err := c.CreateToken(ctx, name); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("token %q: %v", name, err)
			}
		}
		ci := p.tcp(t, token.Secret)
		must[control.User](t)(ci.CreateUser(ctx, policy.UserSpec{Name: "alice"}))
		var mine control.Token
		for _, each := range must[[]control.Token](t)(c.Tokens(ctx)) {
			if each.Name == "ci" {
				mine = each
			}
		}
		if mine.LastUsedAt == nil {
			t.Errorf("%+v", mine)
		}
		rows := must[[]control.AuditRow](t)(c.Audit(ctx, 1))
		if len(rows) != 1 || rows[0].Actor != "ci" || rows[0].Kind != "user" || rows[0].Name != "alice" || rows[0].Action != control.ActionCreated {
			t.Errorf("%+v", rows)
		}
		must[any](t)(nil, c.DeleteToken(ctx, "ci"))
		_, err := ci.Status(ctx)
		status(t, err, http.StatusUnauthorized, "does not accept the token in CARPOOL_TOKEN")
		status(t, c.DeleteToken(ctx, "ci"), http.StatusNotFound, "no token")
		all := must[[]control.AuditRow](t)(c.Audit(ctx, 0))
		if all[len(all)-1].Actor != "config" || all[0].Action != "deleted" {
			t.Errorf("%+v", all)
		}
	})
}

// A new user of a removed one's name does not begin with what that one has used.
func TestARemovedUsersQuotaIsForgotten(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		resets := func() (users []string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, r := range n.resets {
				users = append(users, strings.Join(r.Users, ","))
			}
			return users
		}
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice"}))
		must[control.Upstream](t)(c.CreateUpstream(ctx, policy.UpstreamSpec{Name: "main", APIKey: credential}))
		must[policy.RouteSpec](t)(c.CreateRoute(ctx, policy.RouteSpec{Name: "r", Upstreams: []string{"main"}, Users: []string{"alice"}}))
		status(t, c.DeleteUser(ctx, "alice"), http.StatusConflict, "named by routes")
		if got := resets(); len(got) != 0 {
			t.Errorf("the quota of a user who stays was reset: %q", got)
		}
		must[any](t)(nil, c.DeleteRoute(ctx, "r"))
		must[any](t)(nil, c.DeleteUser(ctx, "alice"))
		if got := resets(); len(got) != 1 || got[0] != "alice" {
			t.Errorf("reset: %q, want that of alice", got)
		}
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "bob"}))
		n.mu.Lock()
		n.fails = "the disk is full"
		n.mu.Unlock()
		must[any](t)(nil, c.DeleteUser(ctx, "bob")) // the removal stands
		_, err := c.User(ctx, "bob", false)
		status(t, err, http.StatusNotFound, "no user")
	})
}

func TestQuotas(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		other := p.startNode(t, "n2")
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice", Quota: &policy.QuotaSpec{Daily: new(int64(100))}}))
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "bob"}))
		for _, each := range []*standIn{n, other} {
			each.mu.Lock()
			each.usage["alice"] = fleet.UserQuota{Daily: fleet.WindowUsage{Used: 20, Reserved: 5}, Monthly: fleet.WindowUsage{Used: 300}}
			each.mu.Unlock()
		}
		quota := must[control.QuotaState](t)(c.Quota(ctx, "alice"))
		if d := quota.Daily; d.Limit != 100 || d.Used != 40 || d.Reserved != 10 || d.Remaining != 50 {
			t.Errorf("%+v", d)
		}
		if m := quota.Monthly; m.Limit != -1 || m.Used != 600 || m.Remaining != -1 {
			t.Errorf("%+v", m)
		}
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		if at := quota.Monthly.ResetsAt.In(berlin); at.Day() != 1 || at.Hour() != 0 || !at.After(time.Now()) {
			t.Errorf("%v", at)
		}
		if all := must[[]control.QuotaState](t)(c.Quotas(ctx)); len(all) != 2 || all[1].User != "bob" || all[1].Daily.Remaining != 1000 {
			t.Errorf("%+v", all)
		}
		_, err = c.Quota(ctx, "carol")
		status(t, err, http.StatusNotFound, "no user")

		one := must[control.QuotaResetResult](t)(c.ResetQuota(ctx, "alice", "daily"))
		all := must[control.QuotaResetResult](t)(c.ResetQuotas(ctx, ""))
		if len(one.Reset) != 1 || len(one.Windows) != 1 || len(all.Reset) != 2 || len(all.Windows) != 2 {
			t.Errorf("%+v %+v", one, all)
		}
		for _, each := range []*standIn{n, other} {
			each.mu.Lock()
			if len(each.resets) != 2 || each.resets[0].Users[0] != "alice" || len(each.resets[1].Users) != 0 {
				t.Errorf("%+v", each.resets)
			}
			each.mu.Unlock()
		}
		_, err = c.ResetQuota(ctx, "carol", "")
		status(t, err, http.StatusNotFound, "no user")
		_, err = c.ResetQuota(ctx, "alice", "weekly")
		status(t, err, http.StatusUnprocessableEntity, "window")
	})
}

func TestResetQuotaAsInTheDocumentation(t *testing.T) {
	p := open(t, t.TempDir())
	p.startNode(t, "n1")
	must[control.User](t)(p.socket.CreateUser(t.Context(), policy.UserSpec{Name: "alice"}))
	// curl -d says that any body is a form.
	header := http.Header{"Authorization": {"Bearer " + bootstrapToken}, "Content-Type": {"application/x-www-form-urlencoded"}}
	for body, want := range map[string]int{"": 200, `{}`: 200, `{"user":"alice"}`: 200, `{"user":"bob"}`: 404, `{"usr":"bob"}`: 422, `{"user":1}`: 422, `{"user":""}`: 422, `{"user":null}`: 422, `null`: 422, `{"window":"daily"}`: 200, `{`: 400} {
		if got, answer := p.raw(t, http.MethodPost, "/admin/reset-quota", header, body); got != want {
			t.Errorf("%q: %d %s", body, got, answer)
		}
	}
	if _, answer := p.raw(t, http.MethodPost, "/admin/reset-quota", header, `{"user":""}`); !strings.Contains(string(answer), "leave the member out to reset every user") {
		t.Errorf("%s", answer)
	}
}

func TestQuotaWithoutNodes(t *testing.T) {
	p := open(t, t.TempDir())
	must[control.User](t)(p.socket.CreateUser(t.Context(), policy.UserSpec{Name: "alice"}))
	_, err := p.socket.Quota(t.Context(), "alice")
	status(t, err, http.StatusServiceUnavailable, "no node is connected")
	_, err = p.socket.ResetQuotas(t.Context(), "")
	status(t, err, http.StatusServiceUnavailable, "no node is connected")
	if user := must[control.User](t)(p.socket.User(t.Context(), "alice", true)); user.Usage != nil {
		t.Errorf("%+v", user)
	}
}

func TestAliasesStandForModels(t *testing.T) {
	p := open(t, t.TempDir())
	ctx := t.Context()
	must[policy.AliasSpec](t)(p.socket.SetAlias(ctx, "fast", "claude-haiku-4-5"))
	for name, model := range map[string]string{"loop": "loop", "Loop": "loop[1m]", "faster": "fast", "claude-haiku-4-5": "claude-haiku-5"} {
		_, err := p.socket.SetAlias(ctx, name, model)
		status(t, err, http.StatusUnprocessableEntity, "an alias stands for")
	}
	// Of several that are changed together, the order does not matter.
	must[control.ApplyResult](t)(p.socket.Apply(ctx, policy.Resources{Aliases: []policy.AliasSpec{
		{Name: "claude-haiku-4-5", Model: "claude-haiku-5"}, {Name: "fast", Model: "claude-haiku-6"},
	}}, false))
	_, err := p.socket.Apply(ctx, policy.Resources{Aliases: []policy.AliasSpec{{Name: "a", Model: "b"}, {Name: "b", Model: "c"}}}, false)
	status(t, err, http.StatusUnprocessableEntity, "is an alias itself")
}

func TestApplyKeepsKeysWithTheirUsers(t *testing.T) {
	p := open(t, t.TempDir())
	ctx := t.Context()
	key := func(user string) policy.Resources {
		return policy.Resources{
			Users: []policy.UserSpec{{Name: "n1"}, {Name: "n2"}}, Keys: []policy.KeySpec{{Name: "n1k", User: user}},
		}
	}
	must[control.ApplyResult](t)(p.socket.Apply(ctx, key("n1"), false))
	_, err := p.socket.Apply(ctx, key("n2"), false)
	status(t, err, http.StatusConflict, `key "n1k" belongs to "n1"; remove it first`)
	if k := must[control.Key](t)(p.socket.Key(ctx, "n1k")); k.User != "n1" {
		t.Errorf("%+v", k)
	}
}

func TestShortCredentialsCanBeToldApart(t *testing.T) {
	p := open(t, t.TempDir())
	seen := map[string]bool{}
	for _, name := range []string{"one", "two"} {
		up := must[control.Upstream](t)(p.socket.CreateUpstream(t.Context(), policy.UpstreamSpec{Name: name, APIKey: "short-" + name}))
		if seen[up.Credential] || strings.Contains(up.Credential, "one") || strings.Contains(up.Credential, "two") {
			t.Errorf("%q", up.Credential)
		}
		seen[up.Credential] = true
	}
}

func TestClientAgainstAnotherProgram(t *testing.T) {
	for code, want := range map[int]string{
		http.StatusNotFound: "does not look like a Carpool server", http.StatusUnauthorized: "does not look like a Carpool server",
		http.StatusBadGateway: "the server answered 502 Bad Gateway",
	} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "what?", code) }))
		c := must[*control.Client](t)(control.NewClient(control.ClientOptions{URL: other.URL, Token: "cpa_x"}))
		_, err := c.Status(t.Context())
		status(t, err, code, want)
		c.Close()
		other.Close()
	}
	for _, path := range []string{"/admin/v1", "/admin/v1/", "/v1", "/prefix/admin", "/admin/v1/users"} {
		if _, err := control.NewClient(control.ClientOptions{URL: "http://127.0.0.1:1" + path, Token: "cpa_x"}); err == nil || !strings.Contains(err.Error(), "leave it out") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := control.NewClient(control.ClientOptions{URL: "http://127.0.0.1:1/prefix/", Token: "cpa_x"}); err != nil {
		t.Error(err)
	}
}

package control_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/control/store"
	"carpool/internal/policy"
	"carpool/internal/price"
)

func resources() policy.Resources {
	return policy.Resources{
		Teams:     []policy.TeamSpec{{Name: "research"}},
		Upstreams: []policy.UpstreamSpec{{Name: "main", APIKey: credential, Models: map[string]string{"a": "b"}, Priority: 1}},
		Aliases:   []policy.AliasSpec{{Name: "fast", Model: "claude-haiku-4-5"}},
		Routes:    []policy.RouteSpec{{Name: "default", Models: []string{"*"}, Upstreams: []string{"main"}, Users: []string{"alice"}}},
		Users: []policy.UserSpec{{
			Name: "alice", Team: "platform", Quota: &policy.QuotaSpec{Daily: new(int64(2_000_000)), Monthly: new(int64(40_000_000))},
			Limits: &policy.LimitsSpec{RequestsPerMinute: 60, InFlight: 8},
		}},
		Keys: []policy.KeySpec{
			{Name: "generated", User: "alice", ExpiresAt: new(time.Date(2099, 1, 2, 3, 4, 5, 678901234, time.FixedZone("", 3600)))},
			{Name: "given", User: "alice", Key: "a-given-key-for-reproducible-set-ups"},
		},
	}
}

func actions(result control.ApplyResult) string {
	var words []string
	for _, c := range result.Changes {
		words = append(words, c.Kind+"/"+c.Name+":"+c.Action)
	}
	return strings.Join(words, " ")
}

func TestApplyIsIdempotent(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		const all = "team/research:%[1]s upstream/main:%[1]s alias/fast:%[1]s route/default:%[1]s user/alice:%[1]s key/generated:%[1]s key/given:%[1]s"
		dry := must[control.ApplyResult](t)(c.Apply(ctx, resources(), true))
		if got := actions(dry); got != fmt.Sprintf(all, "created") || dry.Changes[5].Key != "" || !dry.DryRun {
			t.Errorf("dry run: %s", got)
		}
		if s := must[control.Status](t)(c.Status(ctx)); s.Users != 0 || s.PolicyVersion != dry.Version {
			t.Errorf("a dry run changed something: %+v", s)
		}
		first := must[control.ApplyResult](t)(c.Apply(ctx, resources(), false))
		if got := actions(first); got != fmt.Sprintf(all, "created") {
			t.Errorf("first: %s", got)
		}
		if key := first.Changes[5].Key; policy.KeyID(key) == "" {
			t.Errorf("no key was generated: %q", key)
		}
		if first.Changes[6].Key != "" {
			t.Error("a given key is repeated")
		}
		before := len(must[[]control.AuditRow](t)(c.Audit(ctx, 0)))
		second := must[control.ApplyResult](t)(c.Apply(ctx, resources(), false))
		if got := actions(second); got != fmt.Sprintf(all, "unchanged") || second.Version != first.Version || second.Changes[5].Key != "" {
			t.Errorf("second: %s, version %d after %d", got, second.Version, first.Version)
		}
		if len(must[[]control.AuditRow](t)(c.Audit(ctx, 0))) != before {
			t.Error("nothing changed, and the audit log says something")
		}
		if got := n.snapshot(t); got.Version != first.Version || got.User("alice").Limits.InFlight != 8 {
			t.Errorf("the node has %+v", got)
		}

		// What was changed by hand and the file does not name stays.
		must[control.User](t)(c.UpdateUser(ctx, "alice", control.UserPatch{Disabled: new(true)}))
		must[control.Key](t)(c.UpdateKey(ctx, "given", control.KeyPatch{Disabled: new(true)}))
		must[control.Upstream](t)(c.UpdateUpstream(ctx, "main", control.UpstreamPatch{Disabled: new(true), Weight: new(9)}))
		third := must[control.ApplyResult](t)(c.Apply(ctx, resources(), false))
		if got := actions(third); got != fmt.Sprintf(all, "unchanged") {
			t.Errorf("third: %s", got)
		}

		changed := resources()
		changed.Users[0].Quota.Daily = new(int64(7))
		changed.Routes[0].Users = nil
		changed.Keys[1].Key = "another-given-key-0123456789"
		changed.Upstreams[0].APIKey = "another-credential-0123456789"
		fourth := must[control.ApplyResult](t)(c.Apply(ctx, changed, false))
		if got := actions(fourth); got != "team/research:unchanged upstream/main:updated alias/fast:unchanged route/default:updated user/alice:updated key/generated:unchanged key/given:updated" {
			t.Errorf("fourth: %s", got)
		}
		hasher := options(t, p.folder).MasterKey.Hasher()
		if _, ok := n.snapshot(t).Caller(hasher.Hash("a-given-key-for-reproducible-set-ups")); ok {
			t.Error("the replaced key works")
		}
	})
}

func TestApplyThatFailsLeavesNothing(t *testing.T) {
	p := open(t, t.TempDir())
	p.startNode(t, "n1")
	ctx := t.Context()
	before := must[control.Status](t)(p.socket.Status(ctx))
	for says, spoil := range map[string]func(*policy.Resources){
		`there is no upstream "none"`: func(r *policy.Resources) { r.Routes[0].Upstreams = []string{"none"} },
		`there is no user "none"`:     func(r *policy.Resources) { r.Keys[1].User = "none" },
		`there is no user "nobody"`:   func(r *policy.Resources) { r.Routes[0].Users = []string{"nobody"} },
		"declared twice":              func(r *policy.Resources) { r.Teams = append(r.Teams, r.Teams[0]) },
		"20 to 512 characters":        func(r *policy.Resources) { r.Keys[1].Key = "too-short" },
		"belongs to key":              func(r *policy.Resources) { r.Keys[0].Key = r.Keys[1].Key },
		"resource file":               func(r *policy.Resources) { r.Upstreams[0].APIKey, r.Upstreams[0].APIKeyEnv = "", "X" },
	} {
		r := resources()
		spoil(&r)
		if _, err := p.Control.Apply(ctx, r, false); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want %q, got %v", says, err)
		}
		_, err := p.socket.Apply(ctx, r, false)
		if api, ok := errors.AsType[*control.APIError](err); !ok || (api.Status != 422 && api.Status != 409) {
			t.Errorf("%s: %v", says, err)
		}
	}
	after := must[control.Status](t)(p.socket.Status(ctx))
	if after.PolicyVersion != before.PolicyVersion || after.Users+after.Keys+after.Upstreams+after.Routes != 0 ||
		len(must[[]control.Team](t)(p.socket.Teams(ctx))) != 0 {
		t.Errorf("%+v", after)
	}
}

func TestConcurrentChanges(t *testing.T) {
	p := open(t, t.TempDir())
	n := p.startNode(t, "n1")
	ctx := t.Context()
	before := must[control.Status](t)(p.socket.Status(ctx)).PolicyVersion
	const users = 20
	var group sync.WaitGroup
	errs := make([]error, 2*users)
	for i := range 2 * users {
		group.Go(func() { // each name twice: one of the two is refused
			_, errs[i] = p.socket.CreateUser(ctx, policy.UserSpec{Name: fmt.Sprintf("user-%d", i/2)})
		})
	}
	group.Wait()
	refused := 0
	for _, err := range errs {
		if api, ok := errors.AsType[*control.APIError](err); ok && api.Status == 409 {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	after := must[control.Status](t)(p.socket.Status(ctx))
	if refused != users || after.Users != users || after.PolicyVersion != before+users || len(n.snapshot(t).Users()) != users {
		t.Errorf("refused %d, %+v", refused, after)
	}
}

func TestRestartKeepsAll(t *testing.T) {
	folder := t.TempDir()
	var key string
	var version int64
	t.Run("before", func(t *testing.T) {
		p := open(t, folder)
		result := must[control.ApplyResult](t)(p.socket.Apply(t.Context(), resources(), false))
		key, version = result.Changes[5].Key, result.Version
	})
	t.Run("after", func(t *testing.T) {
		p := open(t, folder)
		n := p.startNode(t, "n1")
		s := must[control.Status](t)(p.socket.Status(t.Context()))
		if s.PolicyVersion != version || s.Keys != 2 || s.Upstreams != 1 {
			t.Errorf("%+v", s)
		}
		if got := must[control.ApplyResult](t)(p.socket.Apply(t.Context(), resources(), false)); strings.Contains(actions(got), "ed ") && strings.Contains(actions(got), "created") {
			t.Errorf("%s", actions(got))
		}
		must[control.Team](t)(p.socket.CreateTeam(t.Context(), policy.TeamSpec{Name: "x"}))
		hasher := options(t, folder).MasterKey.Hasher()
		if caller, ok := n.snapshot(t).Caller(hasher.Hash(key)); !ok || caller.User.Name != "alice" {
			t.Error("the key does not work any more")
		}
	})
	t.Run("with another master key", func(t *testing.T) {
		if err := os.Rename(filepath.Join(folder, "master.key"), filepath.Join(folder, "away")); err != nil {
			t.Fatal(err)
		}
		_, err := control.Open(t.Context(), options(t, folder))
		if err == nil || !strings.Contains(err.Error(), "was "+filepath.Join(folder, "master.key")+" replaced?") {
			t.Errorf("%v", err)
		}
	})
}

func TestSettingsRaiseTheVersionOnlyWhenTheyDiffer(t *testing.T) {
	p := open(t, t.TempDir())
	n := p.startNode(t, "n1")
	ctx := t.Context()
	version := func() int64 { return must[control.Status](t)(p.socket.Status(ctx)).PolicyVersion }
	before := version()
	o := options(t, p.folder)
	must[any](t)(nil, p.UpdateSettings(ctx, o.Settings, o.DefaultQuota))
	if version() != before {
		t.Error("nothing changed")
	}
	o.Settings.DefaultHeaders = map[string]string{"x-app": "cli"}
	must[any](t)(nil, p.UpdateSettings(ctx, o.Settings, policy.Quota{Daily: 5, Monthly: 6}))
	if version() != before+1 || n.snapshot(t).Settings.DefaultHeaders["x-app"] != "cli" {
		t.Error("the change is not in force")
	}
	if user := must[control.User](t)(p.socket.CreateUser(ctx, policy.UserSpec{Name: "alice"})); user.Quota.Daily != 5 {
		t.Errorf("%+v", user)
	}
	published := n.snapshot(t).Prices.Version()
	for range 2 {
		o.Settings.Prices = price.Overlay{Models: []price.Rates{{Model: "m", Input: "1", Output: "2"}}, Unknown: &price.Rates{Input: "3", Output: "4"}}
		must[any](t)(nil, p.UpdateSettings(ctx, o.Settings, o.DefaultQuota))
	}
	if version() != before+3 || n.snapshot(t).Prices.Version() == published {
		t.Error("the prices are not in force, or came in force twice")
	}
	o.Settings.TimeZone = "Moon/Crater"
	if err := p.UpdateSettings(ctx, o.Settings, o.DefaultQuota); err == nil || !strings.Contains(err.Error(), "Moon/Crater") {
		t.Errorf("%v", err)
	}
	if n.snapshot(t).Settings.TimeZone != "Europe/Berlin" {
		t.Error("a wrong setting is in force")
	}
}

func TestSecretsAppearNowhere(t *testing.T) {
	p := open(t, t.TempDir())
	p.startNode(t, "n1")
	ctx := t.Context()
	first := must[control.ApplyResult](t)(p.socket.Apply(ctx, resources(), false))
	token := must[control.NewToken](t)(p.socket.CreateToken(ctx, "ci"))
	rotated := must[control.NewKey](t)(p.socket.RotateKey(ctx, "given", time.Hour))
	must[control.Upstream](t)(p.socket.UpdateUpstream(ctx, "main", control.UpstreamPatch{APIKey: new("second-" + credential)}))
	secrets := []string{
		credential, first.Changes[5].Key, "a-given-key-for-reproducible-set-ups", token.Secret, rotated.Secret, bootstrapToken,
	}
	check := func(where string, data []byte) {
		for i, secret := range secrets {
			if strings.Contains(string(data), secret) {
				t.Errorf("%s holds secret %d", where, i)
			}
		}
	}
	header := map[string][]string{"Authorization": {"Bearer " + bootstrapToken}}
	for _, op := range p.operations(t) {
		if op.method == "GET" {
			for _, name := range []string{"alice", "main", "default", "given", "generated"} {
				path := strings.ReplaceAll(op.path, "alice", name)
				_, body := p.raw(t, op.method, path, header, "")
				check(op.method+" "+path, body)
			}
		}
	}
	check("openapi", p.document(t))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(p.folder, "*"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v %v", file, info.Mode(), err)
		}
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			check(file, data)
		}
	}
}

// TestStoredPricesDoNotKeepAServerFromStarting: those of the configuration count.
func TestStoredPricesDoNotKeepAServerFromStarting(t *testing.T) {
	folder := t.TempDir()
	c := must[*control.Control](t)(control.Open(t.Context(), options(t, folder)))
	must[any](t)(nil, c.Close())
	books := must[*store.Store](t)(store.Open(t.Context(), options(t, folder).StorePath))
	must[any](t)(nil, books.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		state, err := tx.Load(ctx)
		if err != nil {
			return err
		}
		state.Settings.Prices = price.Overlay{Models: []price.Rates{{Model: "m", Input: "-1", Output: "1"}}}
		return tx.PutPolicy(ctx, state)
	}))
	must[any](t)(nil, books.Close())
	c = must[*control.Control](t)(control.Open(t.Context(), options(t, folder)))
	must[any](t)(nil, c.Close())
}

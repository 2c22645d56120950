package control

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

type keysInput struct {
	User string `query:"user" doc:"Only the keys of this user"`
}

// byKey is the input of operations on one key.
type byKey struct {
	Name string `path:"name" maxLength:"200" doc:"Name or public id"`
}

// byKeyWithBody is the input of operations on one key that take a body.
type byKeyWithBody[T any] struct {
	Name string `path:"name" maxLength:"200" doc:"Name or public id"`
	Body T
}

func (a *api) addKeys() {
	const tag, path = "keys", "/admin/v1/keys"
	operation(a, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: path, Summary: "All keys", Tags: []string{tag},
	}, func(ctx context.Context, in *keysInput) (List[Key], error) {
		if in.User != "" && find(a.c.state().Users, in.User) == nil {
			return List[Key]{}, notFound("user", in.User)
		}
		state, err := a.c.withActivity(ctx)
		if err != nil {
			return List[Key]{}, err
		}
		list := List[Key]{Items: []Key{}}
		for _, k := range state.Keys {
			if in.User == "" || k.User == in.User {
				list.Items = append(list.Items, a.c.keyOf(state, k))
			}
		}
		return list, nil
	})
	operation(a, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: path, Summary: "Make a key", Tags: []string{tag},
		Description: "The answer holds the key itself. It cannot be had again.", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *withBody[policy.KeySpec]) (answer NewKey, err error) {
		_, err = a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Keys, in.Body.Name) != nil {
				return exists("key", in.Body.Name)
			}
			_, answer.Secret, err = e.applyKey(ctx, in.Body)
			return err
		})
		if err != nil {
			return NewKey{}, err
		}
		answer.Key, err = a.c.showKey(a.c.state(), in.Body.Name)
		return answer, err
	})
	a.addKey(path+"/{name}", tag)
}

func (a *api) addKey(path, tag string) {
	operation(a, huma.Operation{
		OperationID: "get-key", Method: http.MethodGet, Path: path, Summary: "One key", Tags: []string{tag},
	}, func(ctx context.Context, in *byKey) (Key, error) {
		state, err := a.c.withActivity(ctx)
		if err != nil {
			return Key{}, err
		}
		return a.c.showKey(state, in.Name)
	})
	operation(a, huma.Operation{
		OperationID: "update-key", Method: http.MethodPatch, Path: path, Summary: "Change a key", Tags: []string{tag},
	}, func(ctx context.Context, in *byKeyWithBody[KeyPatch]) (Key, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.patchKey(ctx, in.Name, in.Body) })
		if err != nil {
			return Key{}, err
		}
		return a.c.showKey(a.c.state(), in.Name)
	})
	operation(a, huma.Operation{
		OperationID: "rotate-key", Method: http.MethodPost, Path: path + "/rotate", Tags: []string{tag},
		Summary: "Give a key a new secret and public id", Description: "The answer holds the key itself. It cannot be had again.",
	}, func(ctx context.Context, in *byKeyWithBody[*KeyRotation]) (answer NewKey, err error) {
		var name string
		_, err = a.c.change(ctx, func(ctx context.Context, e *edit) error {
			var grace time.Duration
			if in.Body != nil {
				grace = time.Duration(in.Body.GraceSeconds) * time.Second
			}
			name, answer.Secret, err = e.rotateKey(ctx, in.Name, grace)
			return err
		})
		if err != nil {
			return NewKey{}, err
		}
		answer.Key, err = a.c.showKey(a.c.state(), name)
		return answer, err
	})
	removal(a, huma.Operation{
		OperationID: "delete-key", Method: http.MethodDelete, Path: path, Summary: "Remove a key", Tags: []string{tag},
	}, func(ctx context.Context, in *byKey) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error { return e.deleteKey(ctx, in.Name) })
		return err
	})
}

// withActivity returns the stored policy after the connected nodes said when keys were last used. A node that does not
// answer makes the times older, not the request fail.
func (c *Control) withActivity(ctx context.Context) (state *store.State, err error) {
	answers, _, err := c.askAll(ctx, flushWait, fleet.CommandKeyActivity, nil)
	if err != nil {
		c.options.Log.WarnContext(ctx, "a node did not say when keys were used", slog.Any("error", err))
	}
	used := map[string]time.Time{}
	for _, answer := range answers {
		var times map[string]time.Time
		if err := json.Unmarshal(answer, &times); err != nil {
			c.options.Log.WarnContext(ctx, "cannot understand when keys were used", slog.Any("error", err))
			continue
		}
		for id, at := range times {
			if used[id].Before(at) {
				used[id] = at
			}
		}
	}
	err = c.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.TouchKeys(ctx, used); err != nil {
			return err
		}
		state, err = tx.Load(ctx)
		return err
	})
	return state, err
}

// findKey returns the key of a name, or else of a public id, or nil.
func findKey(state *store.State, nameOrID string) *store.Key {
	if k := find(state.Keys, nameOrID); k != nil {
		return k
	}
	for _, s := range state.Secrets {
		if s.ID == nameOrID {
			return find(state.Keys, s.Key)
		}
	}
	return nil
}

func (c *Control) showKey(state *store.State, nameOrID string) (Key, error) {
	k := findKey(state, nameOrID)
	if k == nil {
		return Key{}, notFound("key", nameOrID)
	}
	return c.keyOf(state, *k), nil
}

func (c *Control) keyOf(state *store.State, k store.Key) Key {
	now := c.options.Now()
	key := Key{
		Name: k.Name, User: k.User, Disabled: k.Disabled, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt,
		Expired: k.ExpiresAt != nil && !k.ExpiresAt.After(now), Scope: k.Scope,
		Limits: ownLimits(k).Or(state.Settings.DefaultLimits), OwnLimits: ownLimits(k),
	}
	for _, s := range state.Secrets {
		switch {
		case s.Key != k.Name:
			continue
		case s.RetiresAt == nil:
			key.ID = s.ID
		case s.RetiresAt.After(now):
			key.GraceUntil = s.RetiresAt
		}
		if s.LastUsedAt != nil && (key.LastUsedAt == nil || key.LastUsedAt.Before(*s.LastUsedAt)) {
			key.LastUsedAt = s.LastUsedAt
		}
	}
	return key
}

// applyKey makes the key or changes it to what spec says; what spec leaves out stays, and it never enables a key that was
// disabled by hand. It returns the secret when there is a new one.
func (e *edit) applyKey(ctx context.Context, spec policy.KeySpec) (action, secret string, err error) {
	if err := spec.Validate(); err != nil {
		return "", "", invalid(err)
	}
	if strings.HasPrefix(spec.Key, policy.TokenPrefix) {
		return "", "", refuse(http.StatusUnprocessableEntity, "key %q: %s… is the form of an administrator's token", spec.Name, policy.TokenPrefix)
	}
	if find(e.state.Users, spec.User) == nil {
		return "", "", refuse(http.StatusUnprocessableEntity, "key %q: there is no user %q", spec.Name, spec.User)
	}
	key := store.Key{Name: spec.Name, User: spec.User, CreatedAt: e.at}
	old := find(e.state.Keys, spec.Name)
	if old != nil {
		key = *old
		if key.User != spec.User {
			return "", "", refuse(http.StatusConflict, "key %q belongs to %q; remove it first to make it one of %q", key.Name, key.User, spec.User)
		}
	}
	var d diff
	if spec.Disabled {
		set(&d, "disabled", &key.Disabled, true)
	}
	if spec.ExpiresAt != nil {
		set(&d, "expiresAt", &key.ExpiresAt, micro(spec.ExpiresAt))
	}
	limits := ownLimits(key)
	setKeyLimits(&d, &limits, spec.Limits)
	key.Limits = storedLimits(limits)
	setScope(&d, &key.Scope, spec.Scope)
	switch {
	case old == nil:
		if err := e.putKey(ctx, key); err != nil {
			return "", "", err
		}
		id, secret, err := e.newSecret(ctx, key.Name, spec.Key)
		if err != nil {
			return "", "", err
		}
		d.parts = append([]string{"id: " + id, "user: " + key.User}, d.parts...)
		e.note(ActionCreated, "key", key.Name, d.String())
		return ActionCreated, secret, nil
	case spec.Key != "" && !e.inForce(key.Name, spec.Key):
		if secret, err = e.replaceSecret(ctx, key.Name, spec.Key, 0, &d); err != nil {
			return "", "", err
		}
	case d.none():
		return ActionUnchanged, "", nil
	}
	e.note(ActionUpdated, "key", key.Name, d.String())
	return ActionUpdated, secret, e.putKey(ctx, key)
}

// micro cuts a time to what the store keeps, so that applying it again makes no difference.
func micro(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	cut := at.UTC().Truncate(time.Microsecond)
	return &cut
}

func (e *edit) putKey(ctx context.Context, key store.Key) error {
	e.state.Keys = put(e.state.Keys, key)
	return e.tx.PutKey(ctx, key)
}

// inForce reports whether a given key is the secret in force of the named key.
func (e *edit) inForce(name, given string) bool {
	hash := e.hash(given)
	return slices.ContainsFunc(e.state.Secrets, func(s store.Secret) bool {
		return s.Key == name && s.RetiresAt == nil && s.Hash == hash
	})
}

func (e *edit) hash(key string) string {
	hash := e.c.hasher.Hash(key)
	return hex.EncodeToString(hash[:])
}

// newSecret stores a given or generated secret of a key.
func (e *edit) newSecret(ctx context.Context, name, given string) (id, secret string, err error) {
	secret, id = given, policy.KeyID(given)
	switch {
	case given == "":
		secret, id, err = policy.GenerateKey(policy.KeyPrefix, e.c.options.Random)
	case id == "":
		id, err = policy.GenerateID(e.c.options.Random)
	}
	if err != nil {
		return "", "", err
	}
	stored := store.Secret{ID: id, Key: name, Hash: e.hash(secret), CreatedAt: e.at}
	for _, s := range e.state.Secrets {
		if s.Hash == stored.Hash || s.ID == id {
			return "", "", refuse(http.StatusConflict, "key %q: this very key belongs to key %q already", name, s.Key)
		}
	}
	if slices.ContainsFunc(e.state.Tokens, func(t store.Token) bool { return t.Hash == stored.Hash }) {
		return "", "", refuse(http.StatusConflict, "key %q: this is an administrator's token", name)
	}
	e.state.Secrets = append(e.state.Secrets, stored)
	return id, secret, e.tx.PutSecret(ctx, stored)
}

// replaceSecret ends the secrets of a key after grace and stores a given or generated one.
func (e *edit) replaceSecret(ctx context.Context, name, given string, grace time.Duration, d *diff) (secret string, err error) {
	var retires *time.Time
	if grace > 0 {
		at := e.at.Add(grace)
		retires = micro(&at)
	}
	if err := e.tx.RetireSecrets(ctx, name, retires); err != nil {
		return "", err
	}
	e.state.Secrets = slices.DeleteFunc(e.state.Secrets, func(s store.Secret) bool {
		return s.Key == name && (retires == nil || s.RetiresAt != nil)
	})
	for i := range e.state.Secrets {
		if s := &e.state.Secrets[i]; s.Key == name {
			s.RetiresAt = retires
		}
	}
	id, secret, err := e.newSecret(ctx, name, given)
	d.parts = append(d.parts, "new id: "+id)
	if retires != nil {
		d.parts = append(d.parts, "the one before works until "+show(retires))
	}
	return secret, err
}

func (e *edit) rotateKey(ctx context.Context, nameOrID string, grace time.Duration) (name, secret string, err error) {
	key := findKey(e.state, nameOrID)
	if key == nil {
		return "", "", notFound("key", nameOrID)
	}
	name = key.Name
	var d diff
	if secret, err = e.replaceSecret(ctx, name, "", grace, &d); err != nil {
		return "", "", err
	}
	e.note(actionRotated, "key", name, d.String())
	return name, secret, nil
}

func (e *edit) patchKey(ctx context.Context, nameOrID string, patch KeyPatch) error {
	old := findKey(e.state, nameOrID)
	if old == nil {
		return notFound("key", nameOrID)
	}
	key := *old
	var d diff
	if patch.Disabled != nil {
		set(&d, "disabled", &key.Disabled, *patch.Disabled)
	}
	if expires, changes := patch.ExpiresAt.Get(); changes {
		set(&d, "expiresAt", &key.ExpiresAt, micro(expires))
	}
	limits := ownLimits(key)
	patchKeyLimits(&d, &limits, patch.Limits)
	patchScope(&d, &key.Scope, patch.Scope)
	if err := (policy.KeySpec{Name: key.Name, User: key.User, Limits: &limits, Scope: &key.Scope}).Validate(); err != nil {
		return invalid(err)
	}
	key.Limits = storedLimits(limits)
	if d.none() {
		return nil
	}
	e.note(ActionUpdated, "key", key.Name, d.String())
	return e.putKey(ctx, key)
}

func (e *edit) deleteKey(ctx context.Context, nameOrID string) error {
	key := findKey(e.state, nameOrID)
	if key == nil {
		return notFound("key", nameOrID)
	}
	name := key.Name
	if err := e.checkNoBudgets(policy.Scope{Kind: policy.ScopeKey, Name: name}); err != nil {
		return err
	}
	e.state.Keys = drop(e.state.Keys, name)
	e.state.Secrets = slices.DeleteFunc(e.state.Secrets, func(s store.Secret) bool { return s.Key == name })
	e.note(actionDeleted, "key", name, "")
	return e.tx.DeleteKey(ctx, name)
}

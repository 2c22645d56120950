package control

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
	"carpool/internal/policy"
)

func (a *api) addTokens() {
	const tag, path = "tokens", "/admin/v1/tokens"
	operation(a, huma.Operation{
		OperationID: "list-tokens", Method: http.MethodGet, Path: path, Summary: "All administrators' tokens", Tags: []string{tag},
	}, func(ctx context.Context, _ *struct{}) (List[Token], error) {
		state, err := a.c.store.Load(ctx) // when they were last used is not in memory
		if err != nil {
			return List[Token]{}, err
		}
		list := List[Token]{Items: []Token{}}
		for _, t := range state.Tokens {
			list.Items = append(list.Items, tokenOf(state, t))
		}
		return list, nil
	})
	operation(a, huma.Operation{
		OperationID: "create-token", Method: http.MethodPost, Path: path, Summary: "Make an administrator's token", Tags: []string{tag},
		Description: "The answer holds the token itself. It cannot be had again.", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *withBody[TokenSpec]) (answer NewToken, err error) {
		_, err = a.c.change(ctx, func(ctx context.Context, e *edit) error {
			answer.Secret, err = e.createToken(ctx, in.Body.Name)
			return err
		})
		if err != nil {
			return NewToken{}, err
		}
		answer.Token, err = showNoun(a.c, "token", in.Body.Name, a.c.state().Tokens, tokenOf)
		return answer, err
	})
	removal(a, huma.Operation{
		OperationID: "delete-token", Method: http.MethodDelete, Path: path + "/{name}", Summary: "Remove an administrator's token", Tags: []string{tag},
	}, func(ctx context.Context, in *byName) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Tokens, in.Name) == nil {
				return notFound("token", in.Name)
			}
			e.quiet = true
			e.state.Tokens = drop(e.state.Tokens, in.Name)
			e.note(actionDeleted, "token", in.Name, "")
			return e.tx.DeleteToken(ctx, in.Name)
		})
		return err
	})
}

func tokenOf(_ *store.State, t store.Token) Token {
	return Token{Name: t.Name, ID: t.ID, CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy, LastUsedAt: t.LastUsedAt}
}

func (e *edit) createToken(ctx context.Context, name string) (secret string, err error) {
	if err := (policy.KeySpec{Name: name, User: "-"}).Validate(); err != nil {
		return "", refuse(http.StatusUnprocessableEntity,
			"token %q: a name has 1 to 63 letters, digits, '.', '_', '@' or '-' and starts with a letter or digit", name)
	}
	if slices.Contains([]string{"socket", "config", bootstrapName}, name) {
		return "", refuse(http.StatusUnprocessableEntity, "token %q: this name means something else in the audit log", name)
	}
	if find(e.state.Tokens, name) != nil {
		return "", exists("token", name)
	}
	secret, id, err := policy.GenerateKey(policy.TokenPrefix, e.c.options.Random)
	if err != nil {
		return "", err
	}
	hash := e.c.hasher.Hash(secret)
	token := store.Token{Name: name, ID: id, Hash: hex.EncodeToString(hash[:]), CreatedAt: e.at, CreatedBy: e.actor}
	e.quiet = true
	e.state.Tokens = put(e.state.Tokens, token)
	e.note(ActionCreated, "token", name, "id: "+id)
	return secret, e.tx.PutToken(ctx, token)
}

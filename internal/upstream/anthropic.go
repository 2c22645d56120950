package upstream

import (
	"errors"
	"fmt"
	"net/url"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/wire"
)

// anthropicProvider is the Anthropic API and everything that speaks its format.
type anthropicProvider struct{}

func (anthropicProvider) Prepare(u *policy.Upstream, x *Exchange) (*wire.Outgoing, string, error) {
	address, err := url.Parse(u.BaseURL + x.Path)
	if err != nil {
		return nil, "", fmt.Errorf("cannot build the address of upstream %q: %w", u.Name, err)
	}
	address.RawQuery = x.Query
	model := policy.UpstreamModel(u, x.Model)
	edits := anthropic.Edits{System: x.System}
	if model != x.Peek.Model {
		edits.Model = model
	}
	body := x.Body
	text, ok := body.Hold() // until the attempt has released it
	if !ok {
		return nil, "", errors.New("the body was released before it was sent")
	}
	if edits != (anthropic.Edits{}) {
		spliced := wire.NewBody(x.Peek.Splice(text, edits), nil)
		body.Release()
		body = spliced
	}
	head := requestHead(x.Head, x.Fill)
	addCredential(&head, u)
	return &wire.Outgoing{Method: "POST", URL: address, Head: head, Body: body}, model, nil
}

func addCredential(head *wire.Head, u *policy.Upstream) {
	if u.Auth == policy.AuthBearer {
		head.Add("Authorization", "Bearer "+u.Credential.Reveal())
		return
	}
	head.Add("X-Api-Key", u.Credential.Reveal())
}

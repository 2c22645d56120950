package upstream

import (
	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/wire"
)

// Exchange is what the gateway wants sent.
type Exchange struct {
	Path  string // canonical, such as /v1/messages
	Query string
	Head  wire.Head // as the client sent it
	Body  *wire.Body
	Peek  *anthropic.Request
	Model string // after aliases
	User  string // whose request it is: waiting is fair among users
	// Session names the conversation, which stays at its upstream; "" when unknown.
	Session string
	// Fill are fields to add where the client sent none of that name.
	Fill map[string]string
	// System is the text of a system block to add; "" adds none.
	System string
}

// Answer is an upstream's success. The caller closes Response.Body.
type Answer struct {
	Response  *wire.Response
	Upstream  *policy.Upstream
	ModelSent string
}

// Provider speaks the dialect of one kind of upstream.
type Provider interface {
	// Prepare makes the request that an exchange becomes at an upstream, and the model id it names.
	Prepare(u *policy.Upstream, x *Exchange) (out *wire.Outgoing, modelSent string, err error)
}

// providers lists every known dialect.
func providers() map[string]Provider {
	return map[string]Provider{policy.ProviderAnthropic: anthropicProvider{}}
}

package gateway

import (
	"strings"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// authenticate finds the one Carpool key among a request's credentials. The CLI sends two when both of its variables are
// set, often with a stranger's key in one of them. The error is also that of a known caller who may not do this, see permit.
func (g *Gateway) authenticate(r *web.Request) (policy.Caller, *policy.Snapshot, error) {
	snapshot := g.snapshot.Load()
	offered := credentials(r.Head)
	var caller policy.Caller
	for _, credential := range offered {
		found, ok := snapshot.Caller(g.hasher.Hash(credential))
		switch {
		case !ok || found.Key == caller.Key:
		case caller.Key != nil:
			return policy.Caller{}, nil, anthropic.ErrUnauthenticated("The request carries two different Carpool keys. Set only one of ANTHROPIC_AUTH_TOKEN and ANTHROPIC_API_KEY.")
		default:
			caller = found
		}
	}
	if caller.Key == nil {
		return policy.Caller{}, nil, unknownCredential(offered)
	}
	r.Note(logUser(caller)...)
	if err := checkStanding(caller, g.now()); err != nil {
		return policy.Caller{}, nil, err
	}
	return caller, snapshot, g.permit(r, caller, snapshot)
}

// credentials returns what a request offers to identify itself, without empty values and repetitions.
func credentials(head wire.Head) []string {
	var offered []string
	for _, f := range head {
		var value string
		switch {
		case strings.EqualFold(f.Name, "X-Api-Key"):
			value = strings.TrimSpace(f.Value)
		case strings.EqualFold(f.Name, "Authorization"):
			if scheme, token, ok := strings.Cut(strings.TrimSpace(f.Value), " "); ok && strings.EqualFold(scheme, "Bearer") {
				value = strings.TrimSpace(token)
			}
		}
		if value != "" {
			offered = append(offered, value)
		}
	}
	return offered
}

func unknownCredential(offered []string) error {
	if len(offered) == 0 {
		return anthropic.ErrUnauthenticated("The request carries no key. Set ANTHROPIC_AUTH_TOKEN to your Carpool key.")
	}
	for _, credential := range offered {
		if err := policy.CheckKey(credential); err != nil {
			return anthropic.ErrUnauthenticated("This Carpool key is damaged: its checksum does not fit. Copy it again into ANTHROPIC_AUTH_TOKEN.")
		}
	}
	return anthropic.ErrUnauthenticated("This Carpool gateway does not know the key. Set ANTHROPIC_AUTH_TOKEN to your Carpool key, or ask the operator for one.")
}

func checkStanding(c policy.Caller, now time.Time) error {
	switch {
	case c.Key.Disabled:
		return anthropic.ErrUnauthenticated("The Carpool key " + c.Key.Name + " is disabled. Ask the operator for a new one.")
	case !c.Key.ExpiresAt.IsZero() && !now.Before(c.Key.ExpiresAt):
		return anthropic.ErrUnauthenticated("The Carpool key " + c.Key.Name + " expired on " + c.Key.ExpiresAt.UTC().Format("2006-01-02 15:04") + " UTC. Ask the operator for a new one.")
	case c.User.Disabled:
		return anthropic.ErrPermission("The Carpool user " + c.User.Name + " is disabled. Ask the operator of this gateway.")
	}
	return nil
}

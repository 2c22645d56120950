package gateway

import (
	"log/slog"
	"net/netip"
	"strings"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/web"
)

// permit decides from a request's head alone whether the caller may make it: the key's scope, then the client policy.
// Which models the key may use is decided when the body has named one. With which program somebody looks at their own
// account is nobody's business: it never reaches an upstream.
func (g *Gateway) permit(r *web.Request, c policy.Caller, s *policy.Snapshot) error {
	endpoint := endpointOf(r.Route)
	switch {
	case !c.MayComeFrom(r.Remote.Addr()):
		g.metrics.denials.WithLabelValues("scope").Inc()
		return anthropic.ErrPermission("The Carpool key " + c.Key.Name + " may not be used from " + showAddress(r.Remote.Addr()) + ". Ask the operator of this gateway.")
	case !c.MayUse(endpoint):
		g.metrics.denials.WithLabelValues("scope").Inc()
		return anthropic.ErrPermission("The Carpool key " + c.Key.Name + " may not be used for " + r.Route + ". Ask the operator of this gateway.")
	case endpoint == policy.EndpointAccount:
		return nil
	}
	return g.judgeClient(r, s)
}

// endpointOf is what a scope calls a route.
func endpointOf(route string) string {
	switch route {
	case pathMessages:
		return policy.EndpointMessages
	case pathCountTokens:
		return policy.EndpointCountTokens
	case "/v1/models", "/v1/models/{id}":
		return policy.EndpointModels
	}
	return policy.EndpointAccount
}

func showAddress(a netip.Addr) string {
	if !a.IsValid() {
		return "an unknown address"
	}
	return a.Unmap().String()
}

// judgeClient applies the client policy.
func (g *Gateway) judgeClient(r *web.Request, s *policy.Snapshot) error {
	rules := &s.Settings.Client
	if !rules.Active() {
		return nil
	}
	agent := r.Head.Get("User-Agent")
	client := anthropic.ParseUserAgent(agent)
	against, refused := rules.Judge(client)
	switch {
	case against == "":
		return nil
	case !refused:
		g.metrics.clients.WithLabelValues(string(against), "warned").Inc()
		r.Note(slog.String("clientPolicy", string(against)), slog.String("agent", shortAgent(agent)))
		return nil
	}
	g.metrics.clients.WithLabelValues(string(against), "refused").Inc()
	r.Note(slog.String("agent", shortAgent(agent)))
	return anthropic.ErrPermission(objection(rules, against, client, agent))
}

// objection says what was seen, what is wanted and how to get it: the client shows it to a developer who can do that.
func objection(rules *policy.ClientPolicy, against policy.Objection, client anthropic.Client, agent string) string {
	install := " Install it with: npm install -g @anthropic-ai/claude-code@" + rules.Wanted()
	wanted := "Claude Code"
	switch {
	case len(rules.SupportedVersions) > 0:
		wanted += " in version " + alternatives(rules.SupportedVersions)
	case rules.MinVersion != "":
		wanted += " " + rules.MinVersion + " or later"
	}
	switch against {
	case policy.ObjectionDisabled:
		return "This gateway does not serve Claude Code at present. Ask its operator."
	case policy.ObjectionOldVersion, policy.ObjectionUnsupported:
		return "This gateway serves " + wanted + "; this is " + client.Version + "." + install
	case policy.ObjectionOtherClient:
	}
	seen := "a program without a User-Agent"
	if agent = shortAgent(agent); agent != "" {
		seen = agent
	}
	return "This gateway serves only " + wanted + "; this request came from " + seen + "." + install +
		" (Its operator serves other programs with claudeCode.requireClient: off.)"
}

// alternatives lists at most the last few of many.
func alternatives(list []string) string {
	const few = 5
	if len(list) > few {
		list = list[len(list)-few:]
	}
	if len(list) == 1 {
		return list[0]
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}

// shortAgent is the first words of a User-Agent as printable ASCII: it is shown and logged.
func shortAgent(agent string) string {
	const most = 60
	agent = strings.TrimSpace(agent)
	if len(agent) > most {
		agent = agent[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, agent)
}

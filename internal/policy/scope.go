package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"carpool/internal/anthropic"
)

// What a key may be used for: the endpoints of a ScopeSpec.
const (
	EndpointMessages    = "messages"
	EndpointCountTokens = "count_tokens"
	EndpointModels      = "models"
	EndpointAccount     = "account" // /v1/user and /v1/usage
)

// ScopeSpec narrows what a key may be used for. A list that is empty does not narrow.
type ScopeSpec struct {
	Models    []string `json:"models,omitempty" yaml:"models,omitempty" doc:"Only these model ids or patterns in which * stands for any text; an alias stands for its model"`
	Endpoints []string `json:"endpoints,omitempty" yaml:"endpoints,omitempty" doc:"Only these: messages, count_tokens, models, account" enum:"messages,count_tokens,models,account"`
	Addresses []string `json:"addresses,omitempty" yaml:"addresses,omitempty" doc:"Only from these client addresses or networks, such as 192.0.2.7 or 10.0.0.0/8"`
}

// IsZero reports whether the scope narrows nothing.
func (s ScopeSpec) IsZero() bool { return len(s.Models)+len(s.Endpoints)+len(s.Addresses) == 0 }

// Validate reports the first thing wrong with the scope; a nil one is well.
func (s *ScopeSpec) Validate() error {
	if s == nil {
		return nil
	}
	for _, m := range s.Models {
		if strings.TrimSpace(m) == "" || len(m) > 200 {
			return fmt.Errorf("scope.models: a model id or pattern has 1 to 200 characters")
		}
	}
	known := []string{EndpointMessages, EndpointCountTokens, EndpointModels, EndpointAccount}
	for _, e := range s.Endpoints {
		if !slices.Contains(known, e) {
			return fmt.Errorf("scope.endpoints: unknown endpoint %q; known: %s", e, strings.Join(known, ", "))
		}
	}
	for _, a := range s.Addresses {
		if _, err := ParseNetwork(a); err != nil {
			return fmt.Errorf("scope.addresses: %w", err)
		}
	}
	return nil
}

// ParseNetwork reads an address (192.0.2.7, 2001:db8::1) or a network (10.0.0.0/8). An IPv4 address in IPv6 form is the
// IPv4 address.
func ParseNetwork(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is not an address such as 192.0.2.7 or a network such as 10.0.0.0/8", text)
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// scope is a compiled ScopeSpec; nil narrows nothing.
type scope struct {
	models    []pattern
	endpoints []string
	addresses []netip.Prefix
}

// compileScope builds the scope of a key. What it does not understand it keeps out rather than lets through.
func (s *Snapshot) compileScope(spec *ScopeSpec) *scope {
	if spec.IsZero() {
		return nil
	}
	c := &scope{endpoints: spec.Endpoints}
	for _, m := range spec.Models {
		name := anthropic.NormalizeModel(m)
		if model, aliased := s.aliases[name]; aliased {
			name = anthropic.NormalizeModel(model)
		}
		c.models = append(c.models, pattern(name))
	}
	for _, a := range spec.Addresses {
		network, _ := ParseNetwork(a) // the zero network holds no address
		c.addresses = append(c.addresses, network)
	}
	return c
}

func (c *scope) admitsModel(name string) bool {
	return c == nil || len(c.models) == 0 || slices.ContainsFunc(c.models, func(p pattern) bool { return p.matches(name) })
}

// MayUse reports whether the key's scope has an endpoint, one of the Endpoint constants.
func (c Caller) MayUse(endpoint string) bool {
	return c.scope == nil || len(c.scope.endpoints) == 0 || slices.Contains(c.scope.endpoints, endpoint)
}

// MayComeFrom reports whether the key's scope has the client's address.
func (c Caller) MayComeFrom(address netip.Addr) bool {
	if c.scope == nil || len(c.scope.addresses) == 0 {
		return true
	}
	address = address.Unmap().WithZone("")
	return slices.ContainsFunc(c.scope.addresses, func(p netip.Prefix) bool { return p.Contains(address) })
}

package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

// limitFlags are the rates that keys, users and teams have in common.
type limitFlags struct {
	perMinute, inFlight countFlag
	tokens              tokensFlag
	defaults            bool // a key's: default is a value
}

func (f *limitFlags) register(cmd *cobra.Command) {
	further := ""
	if f.defaults {
		further = ", default is claudeCode.defaultLimits"
	}
	flags := cmd.Flags()
	flags.Var(&f.perMinute, "requests-per-minute", "requests a minute, a `NUMBER`; 0 is unlimited"+further)
	flags.Var(&f.tokens, "tokens-per-minute", "tokens a minute in `TOKENS`: 200000, 40k, 2M; 0 is unlimited"+further)
	flags.Var(&f.inFlight, "in-flight", "requests at the same time, a `NUMBER`; 0 is unlimited"+further)
}

// own checks the flags and returns what they say; nil is what no flag says, and default.
func (f *limitFlags) own() (own policy.KeyLimitsSpec, err error) {
	for _, flag := range []struct {
		name, text string
		isDefault  bool
		value      *int
	}{
		{"requests-per-minute", f.perMinute.text, f.perMinute.set && f.perMinute.value == nil, f.perMinute.value},
		{"tokens-per-minute", f.tokens.text, f.tokens.set && f.tokens.value == nil, nil},
		{"in-flight", f.inFlight.text, f.inFlight.set && f.inFlight.value == nil, f.inFlight.value},
	} {
		switch {
		case flag.isDefault && !f.defaults:
			return own, usagef("the flag --%s does not take %q: there is no default; 0 is unlimited", flag.name, flag.text)
		case flag.value != nil && *flag.value < 0:
			return own, usagef("the flag --%s must be 0 or more; 0 is unlimited", flag.name)
		}
	}
	own.RequestsPerMinute, own.InFlight = f.perMinute.value, f.inFlight.value
	if f.tokens.value != nil {
		own.TokensPerMinute = new(max(*f.tokens.value, 0)) // unlimited is -1 where 0 means something
	}
	return own, nil
}

// ownSpec returns a key's limits; nil when no flag says anything.
func (f *limitFlags) ownSpec() (*policy.KeyLimitsSpec, error) {
	own, err := f.own()
	if err != nil || own == (policy.KeyLimitsSpec{}) {
		return nil, err
	}
	return &own, nil
}

// ownPatch returns the change of a key's limits that the flags ask for; nil when none is given.
func (f *limitFlags) ownPatch() (*control.KeyLimitsPatch, error) {
	own, err := f.own()
	if err != nil || !f.perMinute.set && !f.tokens.set && !f.inFlight.set {
		return nil, err
	}
	return &control.KeyLimitsPatch{
		RequestsPerMinute: change(f.perMinute.set, own.RequestsPerMinute),
		TokensPerMinute:   change(f.tokens.set, own.TokensPerMinute),
		InFlight:          change(f.inFlight.set, own.InFlight),
	}, nil
}

// spec returns the limits of a user or team; nil when no flag says anything.
func (f *limitFlags) spec() (*policy.LimitsSpec, error) {
	own, err := f.ownSpec()
	if err != nil || own == nil {
		return nil, err
	}
	return new(own.Or(policy.LimitsSpec{})), nil
}

// patch returns the change of a user's or team's limits that the flags ask for; nil when none is given.
func (f *limitFlags) patch() (*control.LimitsPatch, error) {
	own, err := f.ownSpec()
	if err != nil || own == nil {
		return nil, err
	}
	return &control.LimitsPatch{RequestsPerMinute: own.RequestsPerMinute, TokensPerMinute: own.TokensPerMinute, InFlight: own.InFlight}, nil
}

// addLimits shows rates among other properties.
func addLimits(f *fields, l policy.LimitsSpec) {
	addLimitsInForce(f, l, policy.KeyLimitsSpec{RequestsPerMinute: &l.RequestsPerMinute, TokensPerMinute: &l.TokensPerMinute, InFlight: &l.InFlight})
}

// addLimitsInForce shows a key's rates, and which of them are not its own.
func addLimitsInForce(f *fields, l policy.LimitsSpec, own policy.KeyLimitsSpec) {
	show := func(name string, n int64, isOwn bool) {
		text := limit(n)
		if !isOwn {
			text += " (default)"
		}
		f.add(name, text)
	}
	show("Requests a minute", int64(l.RequestsPerMinute), own.RequestsPerMinute != nil)
	show("Tokens a minute", l.TokensPerMinute, own.TokensPerMinute != nil)
	show("Requests at once", int64(l.InFlight), own.InFlight != nil)
}

func limit(n int64) string {
	if n == 0 {
		return "unlimited"
	}
	return number(n)
}

// scopeFlags say what a key may be used for.
type scopeFlags struct {
	scope policy.ScopeSpec
}

func (f *scopeFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.scope.Models, "model", nil, "only these models, `PATTERN`s in which * stands for any text; may be repeated; all ends the condition")
	flags.StringSliceVar(&f.scope.Endpoints, "endpoint", nil, "only for this `PURPOSE`: messages, count_tokens, models, account; may be repeated; all ends the condition")
	flags.StringSliceVar(&f.scope.Addresses, "address", nil, "only from this `NETWORK`, such as 192.0.2.7 or 10.0.0.0/8; may be repeated; all ends the condition")
}

// complete puts empty lists in the place of the word all.
func (f *scopeFlags) complete() error {
	if err := errors.Join(all("model", &f.scope.Models), all("endpoint", &f.scope.Endpoints), all("address", &f.scope.Addresses)); err != nil {
		return err
	}
	if err := f.scope.Validate(); err != nil {
		return usagef("%s", err)
	}
	return nil
}

// everything is the word after a flag with a list that ends the condition. An empty value does not: it may be a variable
// that is not set.
const everything = "all"

// all empties a list that is the word alone.
func all(flag string, list *[]string) error {
	switch {
	case len(*list) == 1 && (*list)[0] == everything:
		*list = []string{}
	case slices.Contains(*list, everything):
		return usagef("the flag --%s takes %q only by itself", flag, everything)
	}
	return nil
}

func (f *scopeFlags) spec() (*policy.ScopeSpec, error) {
	if err := f.complete(); err != nil || f.scope.IsZero() {
		return nil, err
	}
	return &f.scope, nil
}

func (f *scopeFlags) patch(cmd *cobra.Command) (*control.ScopePatch, error) {
	if err := f.complete(); err != nil {
		return nil, err
	}
	var patch control.ScopePatch
	if cmd.Flags().Changed("model") {
		patch.Models = &f.scope.Models
	}
	if cmd.Flags().Changed("endpoint") {
		patch.Endpoints = &f.scope.Endpoints
	}
	if cmd.Flags().Changed("address") {
		patch.Addresses = &f.scope.Addresses
	}
	if patch == (control.ScopePatch{}) {
		return nil, nil //nolint:nilnil // nil is no change
	}
	return &patch, nil
}

// addScope shows what a key may be used for; what is not narrowed is not mentioned.
func addScope(f *fields, s policy.ScopeSpec) {
	for _, list := range []struct {
		name   string
		values []string
	}{{"Only models", s.Models}, {"Only for", s.Endpoints}, {"Only from", s.Addresses}} {
		if len(list.values) > 0 {
			f.add(list.name, strings.Join(list.values, ", "))
		}
	}
}

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
	perMinute int
	tokens    tokensFlag
	inFlight  int
}

func (f *limitFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&f.perMinute, "requests-per-minute", 0, "requests a minute, a `NUMBER`; 0 is unlimited")
	flags.Var(&f.tokens, "tokens-per-minute", "tokens a minute in `TOKENS`: 200000, 40k, 2M; 0 is unlimited")
	flags.IntVar(&f.inFlight, "in-flight", 0, "requests at the same time, a `NUMBER`; 0 is unlimited")
}

// spec checks the flags and returns what they say; nil when they say nothing.
func (f *limitFlags) spec() (*policy.LimitsSpec, error) {
	for _, flag := range []struct {
		name  string
		value int
	}{{"requests-per-minute", f.perMinute}, {"in-flight", f.inFlight}} {
		if flag.value < 0 {
			return nil, usagef("the flag --%s must be 0 or more; 0 is unlimited", flag.name)
		}
	}
	spec := policy.LimitsSpec{RequestsPerMinute: f.perMinute, InFlight: f.inFlight}
	if f.tokens.set {
		if f.tokens.value == nil {
			return nil, usagef("the flag --tokens-per-minute does not take %q: there is no default; 0 is unlimited", f.tokens.text)
		}
		spec.TokensPerMinute = max(*f.tokens.value, 0) // unlimited is -1 where 0 means something
	}
	if spec == (policy.LimitsSpec{}) {
		return nil, nil //nolint:nilnil // nil is no limits
	}
	return &spec, nil
}

// patch checks the flags and returns the change that the given ones ask for; nil when none is given.
func (f *limitFlags) patch(cmd *cobra.Command) (*control.LimitsPatch, error) {
	spec, err := f.spec()
	if err != nil {
		return nil, err
	}
	if spec == nil {
		spec = &policy.LimitsSpec{}
	}
	var patch control.LimitsPatch
	if cmd.Flags().Changed("requests-per-minute") {
		patch.RequestsPerMinute = &spec.RequestsPerMinute
	}
	if cmd.Flags().Changed("tokens-per-minute") {
		patch.TokensPerMinute = &spec.TokensPerMinute
	}
	if cmd.Flags().Changed("in-flight") {
		patch.InFlight = &spec.InFlight
	}
	if patch == (control.LimitsPatch{}) {
		return nil, nil //nolint:nilnil // nil is no change
	}
	return &patch, nil
}

// addLimits shows rates among other properties.
func addLimits(f *fields, l policy.LimitsSpec) {
	f.add("Requests a minute", limit(int64(l.RequestsPerMinute)))
	f.add("Tokens a minute", limit(l.TokensPerMinute))
	f.add("Requests at once", limit(int64(l.InFlight)))
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
	return errors.Join(all("model", &f.scope.Models), all("endpoint", &f.scope.Endpoints), all("address", &f.scope.Addresses))
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

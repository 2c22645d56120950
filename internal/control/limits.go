package control

import (
	"carpool/internal/control/store"
	"carpool/internal/policy"
)

// setLimits brings limits that are written out in force: each of them counts, also a 0.
func setLimits(d *diff, limits *policy.LimitsSpec, to *policy.LimitsSpec) {
	if to != nil {
		patchLimits(d, limits, &LimitsPatch{&to.RequestsPerMinute, &to.TokensPerMinute, &to.InFlight})
	}
}

func patchLimits(d *diff, limits *policy.LimitsSpec, patch *LimitsPatch) {
	if patch == nil {
		return
	}
	if patch.RequestsPerMinute != nil {
		set(d, "limits.requestsPerMinute", &limits.RequestsPerMinute, *patch.RequestsPerMinute)
	}
	if patch.TokensPerMinute != nil {
		set(d, "limits.tokensPerMinute", &limits.TokensPerMinute, *patch.TokensPerMinute)
	}
	if patch.InFlight != nil {
		set(d, "limits.inFlight", &limits.InFlight, *patch.InFlight)
	}
}

// unlimited is how the store knows a key's limit that is set to none, 0, from one that is not set.
const unlimited = policy.Unlimited

// ownLimits are the limits that are set for a key.
func ownLimits(k store.Key) (own policy.KeyLimitsSpec) {
	own.RequestsPerMinute, own.TokensPerMinute, own.InFlight = ownLimit(k.Limits.RequestsPerMinute), ownLimit(k.Limits.TokensPerMinute), ownLimit(k.Limits.InFlight)
	return own
}

func ownLimit[T int | int64](stored T) *T {
	switch stored {
	case 0:
		return nil
	case unlimited:
		return new(T)
	}
	return &stored
}

func storedLimit[T int | int64](own *T) T {
	switch {
	case own == nil:
		return 0
	case *own == 0:
		return unlimited
	}
	return *own
}

// storedLimits is how the store keeps limits that are set for a key.
func storedLimits(own policy.KeyLimitsSpec) (stored policy.LimitsSpec) {
	stored.RequestsPerMinute, stored.TokensPerMinute, stored.InFlight = storedLimit(own.RequestsPerMinute), storedLimit(own.TokensPerMinute), storedLimit(own.InFlight)
	return stored
}

// setKeyLimits brings limits that are written out in force: each of them counts, also one that is absent.
func setKeyLimits(d *diff, own *policy.KeyLimitsSpec, to *policy.KeyLimitsSpec) {
	if to != nil {
		patchKeyLimits(d, own, &KeyLimitsPatch{changeTo(to.RequestsPerMinute), changeTo(to.TokensPerMinute), changeTo(to.InFlight)})
	}
}

func changeTo[T any](value *T) Change[T] { return Change[T]{set: true, value: value} }

func patchKeyLimits(d *diff, own *policy.KeyLimitsSpec, patch *KeyLimitsPatch) {
	if patch == nil {
		return
	}
	if to, changes := patch.RequestsPerMinute.Get(); changes {
		set(d, "limits.requestsPerMinute", &own.RequestsPerMinute, to)
	}
	if to, changes := patch.TokensPerMinute.Get(); changes {
		set(d, "limits.tokensPerMinute", &own.TokensPerMinute, to)
	}
	if to, changes := patch.InFlight.Get(); changes {
		set(d, "limits.inFlight", &own.InFlight, to)
	}
}

// setScope brings a scope that is written out in force: each list counts, also an empty one.
func setScope(d *diff, scope *policy.ScopeSpec, to *policy.ScopeSpec) {
	if to != nil {
		patchScope(d, scope, &ScopePatch{&to.Models, &to.Endpoints, &to.Addresses})
	}
}

func patchScope(d *diff, scope *policy.ScopeSpec, patch *ScopePatch) {
	if patch == nil {
		return
	}
	if patch.Models != nil {
		setList(d, "scope.models", &scope.Models, *patch.Models)
	}
	if patch.Endpoints != nil {
		setList(d, "scope.endpoints", &scope.Endpoints, *patch.Endpoints)
	}
	if patch.Addresses != nil {
		setList(d, "scope.addresses", &scope.Addresses, *patch.Addresses)
	}
}

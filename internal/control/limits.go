package control

import "carpool/internal/policy"

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

package policy

import "fmt"

// LimitsSpec is a set of rates; 0 means none. The tokens are those that count against quotas, see Formula.
type LimitsSpec struct {
	RequestsPerMinute int   `json:"requestsPerMinute,omitempty" yaml:"requestsPerMinute,omitempty" doc:"Requests a minute; 0 unlimited" minimum:"0" maximum:"1000000000"`
	TokensPerMinute   int64 `json:"tokensPerMinute,omitempty" yaml:"tokensPerMinute,omitempty" doc:"Tokens a minute, weighed as in quotas; 0 unlimited" minimum:"0" maximum:"1000000000"`
	InFlight          int   `json:"inFlight,omitempty" yaml:"inFlight,omitempty" doc:"Requests at the same time; 0 unlimited" minimum:"0" maximum:"1000000000"`
}

// KeyLimitsSpec is the rates of a key. Nil is the configured default, 0 means none.
type KeyLimitsSpec struct {
	RequestsPerMinute *int   `json:"requestsPerMinute,omitempty" yaml:"requestsPerMinute,omitempty" doc:"Requests a minute; 0 unlimited, absent the default" minimum:"0" maximum:"1000000000"`
	TokensPerMinute   *int64 `json:"tokensPerMinute,omitempty" yaml:"tokensPerMinute,omitempty" doc:"Tokens a minute, weighed as in quotas; 0 unlimited, absent the default" minimum:"0" maximum:"1000000000"`
	InFlight          *int   `json:"inFlight,omitempty" yaml:"inFlight,omitempty" doc:"Requests at the same time; 0 unlimited, absent the default" minimum:"0" maximum:"1000000000"`
}

// MaxLimit is the largest limit that can be asked for; what is larger is no limit.
const MaxLimit = 1_000_000_000

// Or returns the limits in force: the key's own, and where it has none the default.
func (l KeyLimitsSpec) Or(defaults LimitsSpec) LimitsSpec {
	if l.RequestsPerMinute != nil {
		defaults.RequestsPerMinute = *l.RequestsPerMinute
	}
	if l.TokensPerMinute != nil {
		defaults.TokensPerMinute = *l.TokensPerMinute
	}
	if l.InFlight != nil {
		defaults.InFlight = *l.InFlight
	}
	return defaults
}

func (l *KeyLimitsSpec) check(name string) error {
	if l == nil {
		return nil
	}
	own := l.Or(LimitsSpec{})
	return own.check("key", name)
}

func (l *LimitsSpec) check(kind, name string) error {
	if l == nil {
		return nil
	}
	for _, limit := range []struct {
		field string
		value int64
	}{{"requestsPerMinute", int64(l.RequestsPerMinute)}, {"tokensPerMinute", l.TokensPerMinute}, {"inFlight", int64(l.InFlight)}} {
		switch {
		case limit.value < 0:
			return fmt.Errorf("%s %q: limits must not be negative; 0 is unlimited", kind, name)
		case limit.value > MaxLimit:
			return fmt.Errorf("%s %q: limits.%s must be at most %d; 0 is unlimited", kind, name, limit.field, MaxLimit)
		}
	}
	return nil
}

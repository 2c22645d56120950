package policy

import "fmt"

// LimitsSpec is a set of rates; 0 means none. The tokens are those that count against quotas, see Formula.
type LimitsSpec struct {
	RequestsPerMinute int   `json:"requestsPerMinute,omitempty" yaml:"requestsPerMinute,omitempty" doc:"Requests a minute; 0 unlimited" minimum:"0" maximum:"1000000000"`
	TokensPerMinute   int64 `json:"tokensPerMinute,omitempty" yaml:"tokensPerMinute,omitempty" doc:"Tokens a minute, weighed as in quotas; 0 unlimited" minimum:"0" maximum:"1000000000"`
	InFlight          int   `json:"inFlight,omitempty" yaml:"inFlight,omitempty" doc:"Requests at the same time; 0 unlimited" minimum:"0" maximum:"1000000000"`
}

// MaxLimit is the largest limit that can be asked for; what is larger is no limit.
const MaxLimit = 1_000_000_000

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

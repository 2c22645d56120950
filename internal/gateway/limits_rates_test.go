package gateway

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func callerOf(name string, key, user, team policy.LimitsSpec) policy.Caller {
	return policy.Caller{
		Key: &policy.Key{Name: name, Limits: key}, User: &policy.User{Name: name, Team: "t", Limits: user},
		Team: &policy.Team{Name: "t", Limits: team},
	}
}

// copyOf is what the limits hold, apart from subjects of whom nothing is held.
func copyOf(l *limits, now time.Time) map[subject]rates {
	held := map[subject]rates{}
	for s, r := range l.held {
		if !r.idle(now) {
			held[s] = *r
		}
	}
	return held
}

// A request that does not fit into one limit takes nothing of any other, and one that is undone leaves nothing behind.
func TestLimitsAreTakenTogetherOrNotAtAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, now := newLimits(), noon
		draw := func(label string) policy.LimitsSpec {
			return policy.LimitsSpec{
				RequestsPerMinute: rapid.IntRange(0, 4).Draw(t, label+" requests"),
				TokensPerMinute:   rapid.Int64Range(0, 400).Draw(t, label+" tokens"),
				InFlight:          rapid.IntRange(0, 3).Draw(t, label+" in flight"),
			}
		}
		callers := []policy.Caller{
			callerOf("a", draw("key a"), draw("user a"), draw("team")),
			callerOf("b", draw("key b"), draw("user b"), policy.LimitsSpec{}),
		}
		*callers[1].Team = *callers[0].Team
		var running []stay
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
			if len(running) > 0 && rapid.Bool().Draw(t, "one ends") {
				l.settle(running[0], rapid.Int64Range(0, 600).Draw(t, "used"), now)
				running = running[1:]
				continue
			}
			c, tokens := callers[rapid.IntRange(0, 1).Draw(t, "caller")], rapid.Int64Range(0, 500).Draw(t, "tokens")
			before := copyOf(l, now)
			place, denied := l.take(c, tokens, now)
			if denied == nil && rapid.Bool().Draw(t, "is undone") {
				l.undo(place, now)
			} else if denied == nil {
				running = append(running, place)
				continue
			}
			if after := copyOf(l, now); !sameHeld(before, after, now) {
				t.Fatalf("something of it stayed: %+v, before %+v", after, before)
			}
			if denied != nil && (denied.wait <= 0 || denied.limit <= 0) {
				t.Fatalf("%+v", denied)
			}
		}
		for _, place := range running {
			l.settle(place, 0, now)
		}
		for s, r := range l.held {
			if r.slots.Held() != 0 {
				t.Fatalf("%v holds %d slots after all ended", s, r.slots.Held())
			}
		}
	})
}

// sameHeld compares by what can be taken: a bucket says the same in different words after a unit went and came back.
func sameHeld(a, b map[subject]rates, now time.Time) bool {
	if len(a) != len(b) {
		return false
	}
	for s, x := range a {
		y, ok := b[s]
		if !ok || x.slots.Held() != y.slots.Held() || x.requests.Wait(now, 1) != y.requests.Wait(now, 1) {
			return false
		}
		for _, n := range []int64{0, 1, 50, 400} {
			if x.tokens.Wait(now, n) != y.tokens.Wait(now, n) {
				return false
			}
		}
	}
	return true
}

func TestLimitsOf200AtOnce(t *testing.T) {
	t.Parallel()
	const most = 17
	for name, spec := range map[string]policy.LimitsSpec{
		"in_flight": {InFlight: most}, "requests_per_minute": {RequestsPerMinute: most}, "tokens_per_minute": {TokensPerMinute: most * 100},
	} {
		for i, whose := range []string{"key", "user", "team"} {
			t.Run(whose+" "+name, func(t *testing.T) {
				t.Parallel()
				specs := [3]policy.LimitsSpec{{InFlight: 1000}, {RequestsPerMinute: 1000}, {TokensPerMinute: 1_000_000}}
				specs[i] = spec
				l, c := newLimits(), callerOf("a", specs[0], specs[1], specs[2])
				var passed, denials atomic.Int64
				var group sync.WaitGroup
				for range 200 {
					group.Go(func() {
						_, denied := l.take(c, 100, noon)
						if denied == nil {
							passed.Add(1)
						} else if denied.reason == name && denied.kind == whose {
							denials.Add(1)
						}
					})
				}
				group.Wait()
				if passed.Load() != most || denials.Load() != 200-most {
					t.Errorf("%d passed and %d were denied for %s of the %s, want %d and %d", passed.Load(), denials.Load(), name, whose, most, 200-most)
				}
			})
		}
	}
}

// Whoever is idle costs nothing, and nobody who is not idle is forgotten.
func TestLimitsForgetTheIdle(t *testing.T) {
	t.Parallel()
	l, now := newLimits(), noon
	spec := policy.LimitsSpec{RequestsPerMinute: 60, TokensPerMinute: 1000, InFlight: 1}
	stays := callerOf("stays", policy.LimitsSpec{}, spec, policy.LimitsSpec{})
	place, denied := l.take(stays, 10, now)
	if denied != nil {
		t.Fatal(denied)
	}
	for i := range 20_000 {
		one, denied := l.take(callerOf(fmt.Sprint("u", i), spec, spec, policy.LimitsSpec{}), 10, now)
		if denied != nil {
			t.Fatal(denied)
		}
		now = now.Add(10 * time.Millisecond)
		l.settle(one, 5, now)
	}
	// Two minutes' worth of subjects at most: one until the buckets are full, one until the next sweep.
	if n := len(l.held); n > 2*2*6001+1 {
		t.Errorf("%d subjects are remembered", n)
	}
	now = now.Add(2 * time.Minute)
	if _, denied := l.take(stays, 10, now); denied == nil || denied.reason != "in_flight" {
		t.Errorf("the running request is forgotten: %+v", denied)
	}
	if n := len(l.held); n != 1 {
		t.Errorf("%d subjects are remembered, want the one with a request in flight", n)
	}
	l.settle(place, 5, now)
	if _, denied := l.take(callerOf("none", policy.LimitsSpec{}, policy.LimitsSpec{}, policy.LimitsSpec{}), 10, now.Add(10*time.Minute)); denied != nil {
		t.Error(denied)
	}
	if n := len(l.held); n != 0 {
		t.Errorf("%d subjects are remembered, want none", n)
	}
}

// Of several limits that deny, the one is named that lasts longest: only after it another try makes sense.
func TestDenialIsTheLongest(t *testing.T) {
	t.Parallel()
	l := newLimits()
	c := callerOf("a", policy.LimitsSpec{RequestsPerMinute: 60}, policy.LimitsSpec{InFlight: 1, TokensPerMinute: 600}, policy.LimitsSpec{RequestsPerMinute: 4})
	if _, denied := l.take(c, 600, noon); denied != nil {
		t.Fatal(denied)
	}
	if _, denied := l.take(c, 300, noon); denied == nil || denied.subject != (subject{"user", "a"}) || denied.reason != "tokens_per_minute" || denied.wait != 30*time.Second {
		t.Errorf("%+v", denied)
	}
	if _, denied := l.take(c, 10, noon.Add(59*time.Second)); denied == nil || denied.reason != "in_flight" {
		t.Errorf("%+v", denied)
	}
}

func TestDenialsAreExplained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		denial
		seconds, says string
	}{
		{denial{subject{"user", "alice"}, "in_flight", 16, 1, busyRetry}, "2", "16 requests of user alice are running already, which is its limit."},
		{denial{subject{"team", "platform"}, "requests_per_minute", 60, 1, 900 * time.Millisecond}, "1", "The limit of team platform is 60 requests a minute. Try again in a second."},
		{denial{subject{"key", "ci"}, "tokens_per_minute", 40_000, 1_234_567, 61500 * time.Millisecond}, "60", "The limit of key ci is 40 000 tokens a minute, and this request needs about 1 234 567. Try again in a minute; there is room for it in 62 seconds."},
		{denial{subject{"key", "ci"}, "requests_per_minute", 1, 1, 30 * time.Second}, "30", "The limit of key ci is 1 request a minute. Try again in 30 seconds."},
	} {
		var shown *anthropic.Error
		if !errors.As(c.explain(), &shown) || shown.Status != 429 || shown.Type != "rate_limit_error" || !strings.HasPrefix(shown.Message, c.says) {
			t.Errorf("%+v", shown)
		}
		if want := []anthropic.HeaderField{{Name: "retry-after", Value: c.seconds}}; !reflect.DeepEqual(shown.Header, want) {
			t.Errorf("%v, want %v", shown.Header, want)
		}
	}
}

func BenchmarkLimits(b *testing.B) {
	l, spec := newLimits(), policy.LimitsSpec{RequestsPerMinute: 1_000_000_000, TokensPerMinute: 1_000_000_000, InFlight: 1000}
	c := callerOf("a", spec, spec, spec)
	b.ReportAllocs()
	for now := noon; b.Loop(); now = now.Add(time.Millisecond) {
		place, denied := l.take(c, 1000, now)
		if denied != nil {
			b.Fatal(denied)
		}
		l.settle(place, 900, now)
	}
}

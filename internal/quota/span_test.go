package quota_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/quota"
)

func span(t testing.TB, text, zone string, rolling bool) quota.Span {
	t.Helper()
	s, err := quota.ParseSpan(text)
	if err != nil {
		t.Fatal(err)
	}
	if s.Zone, err = time.LoadLocation(zone); err != nil {
		t.Fatal(err)
	}
	s.Rolling = rolling
	return s
}

func TestParseSpan(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"hour", "day", "week", "month", "lifetime", "14 days", "3660 days"} {
		s, err := quota.ParseSpan(text)
		if err != nil || s.String() != text {
			t.Errorf("%q is %q, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		"1 days": "day", "7 days": "week", "1 day": "day", "14days": "14 days", "1hour": "hour", "1 week": "week", "1 month": "month",
	} {
		if s, err := quota.ParseSpan(text); err != nil || s.String() != want {
			t.Errorf("%q is %q, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "daily", "Day", "0 days", "-1 days", "+2 days", "3661 days", "2 weeks", "2  days", "days", "2 day", "1 lifetime", "1  day", "14 days ", "99999999999999999999 days"} {
		if s, err := quota.ParseSpan(text); err == nil {
			t.Errorf("%q is %q", text, s)
		}
	}
}

func TestSlot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ window, zone, now, label, start, end string }{
		{"hour", "UTC", "2026-11-25T13:59:59.9Z", "2026-11-25T13:00Z", "2026-11-25T13:00:00Z", "2026-11-25T14:00:00Z"},
		{"hour", "Asia/Kolkata", "2026-11-25T13:10:00Z", "2026-11-25T12:30Z", "2026-11-25T12:30:00Z", "2026-11-25T13:30:00Z"},
		{"hour", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"}, // the hour that
		{"hour", "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}, // happens twice
		{"hour", "Australia/Lord_Howe", "2026-04-04T15:10:00Z", "2026-04-04T15:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"},
		{"day", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"}, // 23 hours
		{"day", "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"}, // 25 hours
		{"week", "UTC", "2026-11-25T13:00:00Z", "2026-11-23", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"week", "Asia/Tokyo", "2026-11-22T15:00:00Z", "2026-11-23", "2026-11-22T15:00:00Z", "2026-11-29T15:00:00Z"},
		{"14 days", "UTC", "2026-11-25T13:00:00Z", "2026-11-23", "2026-11-23T00:00:00Z", "2026-12-07T00:00:00Z"},
		{"week", "UTC", "1969-12-31T13:00:00Z", "1969-12-29", "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"},
		{"month", "America/New_York", "2026-11-01T03:30:00Z", "2026-10", "2026-10-01T04:00:00Z", "2026-11-01T04:00:00Z"},
		{"lifetime", "UTC", "2026-11-25T13:00:00Z", "always", "0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		p := span(t, c.window, c.zone, false).Slot(now)
		got := []string{p.Label, p.Start.UTC().Format(time.RFC3339), p.End.UTC().Format(time.RFC3339)}
		if want := []string{c.label, c.start, c.end}; !slices.Equal(got, want) {
			t.Errorf("%s of %s in %s: %v, want %v", c.window, c.now, c.zone, got, want)
		}
	}
}

// Calendar slots tile time, whatever the zone does, and each has a name of its own.
func TestSlotsTile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "America/Sao_Paulo"}).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := quota.ParseSpan(rapid.SampledFrom([]string{"hour", "day", "week", "3 days", "month"}).Draw(t, "window"))
		if err != nil {
			t.Fatal(err)
		}
		s.Zone = zone
		now := time.Unix(rapid.Int64Range(0, 2_000_000_000).Draw(t, "now"), 0)
		p := s.Slot(now)
		next := s.Slot(p.End)
		if !p.Contains(now) || !next.Start.Equal(p.End) || next.Label == p.Label || s.Slot(p.Start) != p {
			t.Fatalf("%v lies in %v, then comes %v", now.UTC(), p, next)
		}
	})
}

func TestRolling(t *testing.T) {
	t.Parallel()
	s := span(t, "hour", "UTC", true)
	begin := time.Date(2026, 11, 25, 13, 0, 0, 0, time.UTC)
	var p quota.Pot
	spend := func(at time.Time, n int64) {
		slot := s.Slot(at)
		p.Open(slot.Label, slot.End).Settle(0, n)
	}
	used := func(at time.Time) int64 {
		n, _ := p.Sum(s, at)
		return n
	}
	spend(begin.Add(30*time.Second), 10)
	spend(begin.Add(30*time.Minute), 5)
	for _, c := range []struct {
		after time.Duration
		want  int64
	}{
		{30 * time.Minute, 15},
		{61*time.Minute - 1, 15}, // never less than an hour,
		{61 * time.Minute, 5},    // and at most a sixtieth more
		{91 * time.Minute, 0},
		{-time.Hour, 15}, // a clock set back forgets nothing
	} {
		if got := used(begin.Add(c.after)); got != c.want {
			t.Errorf("after %s: %d used, want %d", c.after, got, c.want)
		}
	}
	now := begin.Add(31 * time.Minute)
	for n, want := range map[int64]time.Duration{0: 31 * time.Minute, 1: 61 * time.Minute, 10: 61 * time.Minute, 11: 91 * time.Minute, 99: 91 * time.Minute} {
		if got := p.ResetsAt(s, now, n); !got.Equal(begin.Add(want)) {
			t.Errorf("%d are there again at %v, want after %s", n, got, want)
		}
	}
	if p.Forget(begin.Add(2 * time.Hour)) {
		t.Error("what is long over is not forgotten")
	}
}

func ExampleSpan_Slot() {
	s, _ := quota.ParseSpan("week")
	p := s.Slot(time.Date(2026, 11, 25, 13, 0, 0, 0, time.UTC))
	fmt.Println(p.Label, p.End.Format(time.DateOnly))
	// Output: 2026-11-23 2026-11-30
}

// hold is a reservation in flight.
type hold struct {
	slot *quota.Slot
	n    int64
}

// TestPot: reservations, settlements, refunds and the end of windows in any order, under a clock that jumps.
func TestPot(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, err := quota.ParseSpan(rapid.SampledFrom([]string{"hour", "day", "3 days", "month", "lifetime"}).Draw(t, "window"))
		if err != nil {
			t.Fatal(err)
		}
		s.Rolling = rapid.Bool().Draw(t, "rolling")
		limit := rapid.Int64Range(0, 1000).Draw(t, "limit")
		now := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
		var p quota.Pot
		var held []hold
		var settled, excess int64 // excess: used beyond reservations
		check := func() {
			var used, reserved int64
			for _, h := range held {
				reserved += h.n
				if h.slot.Reserved < h.n {
					t.Fatalf("%+v does not hold %d", h.slot, h.n)
				}
			}
			u, r := p.Sum(s, now)
			if u < 0 || r < 0 || u > settled || r > reserved {
				t.Fatalf("%d used of %d, %d reserved of %d", u, settled, r, reserved)
			}
			if used = u + r; used > limit+excess {
				t.Fatalf("%d used and %d reserved of %d, %d beyond reservations", u, r, limit, excess)
			}
			if s.Length == quota.Lifetime && (u != settled || r != reserved) {
				t.Fatalf("%d used of %d, %d reserved of %d", u, settled, r, reserved)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"reserve": func(t *rapid.T) {
				n := rapid.Int64Range(0, 300).Draw(t, "n")
				used, reserved := p.Sum(s, now)
				if !quota.Room(limit, used, reserved, n) {
					if used+reserved < limit && used+reserved+n <= limit {
						t.Fatalf("%d do not fit beside %d and %d in %d", n, used, reserved, limit)
					}
					return
				}
				at := s.Slot(now)
				slot := p.Open(at.Label, at.End)
				slot.Reserve(n)
				held = append(held, hold{slot, n})
			},
			"settle": func(t *rapid.T) {
				if len(held) == 0 {
					return
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				h := held[i]
				held = slices.Delete(held, i, i+1)
				used := rapid.Int64Range(0, 400).Draw(t, "used") // 0: a refund
				h.slot.Settle(h.n, used)
				settled, excess = settled+used, excess+max(used-h.n, 0)
			},
			"time": func(t *rapid.T) {
				// Forth only: a clock set back makes a window current again, with what was spent in it meanwhile.
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(40*24*time.Hour)).Draw(t, "step")))
			},
			"forget": func(*rapid.T) { p.Forget(now) },
		})
		for _, h := range held {
			h.slot.Release(h.n)
		}
		held = nil
		if _, reserved := p.Sum(s, now); reserved != 0 {
			t.Fatalf("%d reserved of nobody", reserved)
		}
	})
}

package quota_test

import (
	"fmt"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"

	"carpool/internal/quota"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestPeriod(t *testing.T) {
	for _, c := range []struct {
		why, zone, now string
		window         quota.Window
		label          string
		start, end     string // UTC
	}{
		{"plain day", "UTC", "2026-11-23T12:00:00Z", quota.Daily, "2026-11-23", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"},
		{"first instant", "UTC", "2026-11-23T00:00:00Z", quota.Daily, "2026-11-23", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"},
		{"last instant", "UTC", "2026-11-23T23:59:59.999999999Z", quota.Daily, "2026-11-23", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"},
		{"east of UTC", "Asia/Shanghai", "2026-11-23T16:00:00Z", quota.Daily, "2026-11-24", "2026-11-23T16:00:00Z", "2026-11-24T16:00:00Z"},
		{"west of UTC", "America/Los_Angeles", "2026-11-23T07:59:59Z", quota.Daily, "2026-11-22", "2026-11-22T08:00:00Z", "2026-11-23T08:00:00Z"},
		{"14 hours ahead", "Pacific/Kiritimati", "2026-01-01T09:59:59Z", quota.Daily, "2026-01-01", "2025-12-31T10:00:00Z", "2026-01-01T10:00:00Z"},
		{"23 hours", "Europe/Berlin", "2026-03-29T12:00:00Z", quota.Daily, "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"25 hours", "Europe/Berlin", "2026-10-25T12:00:00Z", quota.Daily, "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{"no midnight", "America/Sao_Paulo", "2018-11-04T12:00:00Z", quota.Daily, "2018-11-04", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"},
		{"before no midnight", "America/Sao_Paulo", "2018-11-04T02:59:59Z", quota.Daily, "2018-11-03", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z"},
		{"midnight twice", "America/Havana", "2025-11-02T04:30:00Z", quota.Daily, "2025-11-02", "2025-11-02T04:00:00Z", "2025-11-03T05:00:00Z"},
		{"second midnight", "America/Havana", "2025-11-02T05:00:00Z", quota.Daily, "2025-11-02", "2025-11-02T04:00:00Z", "2025-11-03T05:00:00Z"},
		{"the old date again after midnight", "America/St_Johns", "2009-11-01T02:45:00Z", quota.Daily, "2009-11-01", "2009-11-01T02:30:00Z", "2009-11-02T03:30:00Z"},
		{"before a date that does not exist", "Pacific/Apia", "2011-12-30T09:59:59Z", quota.Daily, "2011-12-29", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{"after a date that does not exist", "Pacific/Apia", "2011-12-30T10:00:00Z", quota.Daily, "2011-12-31", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"plain month", "UTC", "2026-02-28T23:59:59Z", quota.Monthly, "2026-02", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		{"leap month", "UTC", "2028-02-29T23:59:59Z", quota.Monthly, "2028-02", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"December", "Europe/Berlin", "2026-12-31T22:59:59Z", quota.Monthly, "2026-12", "2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z"},
		{"month with a clock change", "Europe/Berlin", "2026-03-31T21:59:59Z", quota.Monthly, "2026-03", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"},
		{"the old month again", "America/St_Johns", "2009-11-01T02:45:00Z", quota.Monthly, "2009-11", "2009-11-01T02:30:00Z", "2009-12-01T03:30:00Z"},
	} {
		t.Run(c.why, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339Nano, c.now)
			if err != nil {
				t.Fatal(err)
			}
			loc := zone(t, c.zone)
			p := c.window.Period(now, loc)
			got := fmt.Sprint(p.Label, " ", p.Start.UTC().Format(time.RFC3339), " ", p.End.UTC().Format(time.RFC3339))
			if want := fmt.Sprint(c.label, " ", c.start, " ", c.end); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if start, end := c.window.Bounds(now, loc); start != p.Start || end != p.End {
				t.Errorf("Bounds %v %v differ from Period %v", start, end, p)
			}
		})
	}
}

func TestPeriodWithoutZoneIsUTC(t *testing.T) {
	now := time.Date(2026, 11, 23, 23, 30, 0, 0, time.UTC)
	if got := quota.Daily.Period(now.In(zone(t, "Asia/Tokyo")), nil).Label; got != "2026-11-23" {
		t.Errorf("got %s", got)
	}
}

// Whatever the zone does, periods tile time: each contains its instants, and the next begins where it ends.
func TestPeriodsTile(t *testing.T) {
	zones := []string{
		"UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "America/St_Johns", "Pacific/Apia", "Pacific/Kwajalein",
		"Asia/Kathmandu", "Africa/Casablanca", "Asia/Beirut", "America/Nuuk", "Antarctica/Troll", "Africa/Monrovia", "Asia/Manila",
	}
	rapid.Check(t, func(t *rapid.T) {
		loc, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		w := rapid.SampledFrom(quota.Windows()).Draw(t, "window")
		now := time.Unix(rapid.Int64Range(-4e9, 8e9).Draw(t, "now"), 0)
		p := w.Period(now, loc)
		if !p.Contains(now) || p.Contains(p.End) || !p.Contains(p.Start) {
			t.Fatalf("%v is not in %v", now, p)
		}
		if again := w.Period(p.End.Add(-1), loc); again != p {
			t.Fatalf("the last instant is in %v, the first in %v", again, p)
		}
		if again := w.Period(p.Start, loc); again != p {
			t.Fatalf("the first instant is in %v, the last in %v", again, p)
		}
		if next := w.Period(p.End, loc); !next.Start.Equal(p.End) || next.Label <= p.Label {
			t.Fatalf("after %v comes %v", p, next)
		}
		if length := p.End.Sub(p.Start); w == quota.Daily && (length < 20*time.Hour || length > 50*time.Hour) {
			t.Fatalf("a day of %v: %v", length, p)
		}
	})
}

func BenchmarkPeriod(b *testing.B) {
	loc, now := zone(b, "Europe/Berlin"), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		quota.Monthly.Period(now, loc)
	}
}

func ExampleWindow_Bounds() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	start, end := quota.Daily.Bounds(time.Date(2026, 10, 25, 12, 0, 0, 0, time.UTC), berlin)
	fmt.Println(end.Sub(start))
	// Output: 25h0m0s
}

package quota

import "time"

// Window is a calendar window in which a quota is counted.
type Window string

// The windows.
const (
	Daily   Window = "daily"
	Monthly Window = "monthly"
)

// Windows returns all windows.
func Windows() []Window { return []Window{Daily, Monthly} }

// Valid reports whether w is one of the windows.
func (w Window) Valid() bool { return w == Daily || w == Monthly }

// Bounds returns the window that now lies in: start <= now < end, both in loc (nil is UTC). See Period.
func (w Window) Bounds(now time.Time, loc *time.Location) (start, end time.Time) {
	p := w.Period(now, loc)
	return p.Start, p.End
}

// Period is one occurrence of a Window. Periods of the same window and zone tile time: each starts where the last ended.
type Period struct {
	// Label is the calendar date of the period, as 2006-01-02 for a day and 2006-01 for a month. It outlives a change of
	// the time zone: what was spent on a date stays spent on that date, although its bounds move.
	Label      string
	Start, End time.Time // Start <= t < End
}

// Contains reports whether t lies in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start) && t.Before(p.End) }

// Period returns the occurrence that now lies in, by the calendar of loc (nil is UTC). A day starts at the first instant
// that bears its date, which is not always midnight: zones have jumped over midnight, and over whole dates. A window
// that is not Valid counts as Daily.
func (w Window) Period(now time.Time, loc *time.Location) Period {
	if loc == nil {
		loc = time.UTC
	}
	if w == Monthly {
		return calendar(now, loc, months())
	}
	return calendar(now, loc, days(1))
}

// dates says how a calendar is divided into periods. Dates may overflow as in time.Date.
type dates struct {
	layout string // of labels
	// first brings a date to the first of its period, and next to that of the next one.
	first, next func(time.Time) time.Time
}

func months() dates {
	return dates{
		"2006-01",
		func(d time.Time) time.Time { return d.AddDate(0, 0, 1-d.Day()) },
		func(d time.Time) time.Time { return d.AddDate(0, 1, 0) },
	}
}

// days are periods of n days, counted from a Monday.
func days(n int) dates {
	const monday, day = 4, 24 * 60 * 60 // 1970-01-05
	return dates{
		time.DateOnly,
		func(d time.Time) time.Time {
			into := (d.Unix()/day - monday) % int64(n)
			if into < 0 {
				into += int64(n)
			}
			return d.AddDate(0, 0, -int(into))
		},
		func(d time.Time) time.Time { return d.AddDate(0, 0, n) },
	}
}

func calendar(now time.Time, loc *time.Location, by dates) Period {
	year, month, day := now.In(loc).Date()
	date := by.first(time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
	next := by.next(date)
	start, end := firstInstant(date, loc), firstInstant(next, loc)
	// A clock set back across midnight shows the old date a second time; that hour belongs to the period already begun.
	for !now.Before(end) {
		date, next = next, by.next(next)
		start, end = end, firstInstant(next, loc)
	}
	return Period{Label: date.Format(by.layout), Start: start, End: end}
}

// firstInstant returns the first instant at which the date in loc is that of midnight, which is in UTC, or a later one.
// time.Date itself is not exact where midnight is skipped or happens twice.
func firstInstant(midnight time.Time, loc *time.Location) time.Time {
	// No zone is more than a day away from UTC, so the date has not begun at this instant anywhere.
	at := midnight.Add(-26 * time.Hour).In(loc)
	for {
		_, offset := at.Zone()
		_, until := at.ZoneBounds()
		begins := midnight.Add(-time.Duration(offset) * time.Second).In(loc)
		if begins.Before(at) {
			begins = at
		}
		if until.IsZero() || begins.Before(until) {
			return begins
		}
		at = until
	}
}

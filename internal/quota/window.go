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
	local := now.In(loc)
	year, month, day := local.Date()
	layout, step := "2006-01-02", func() { day++ }
	if w == Monthly {
		layout, step, day = "2006-01", func() { month++ }, 1
	}
	start := firstInstant(year, month, day, loc)
	label := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	step()
	end := firstInstant(year, month, day, loc)
	// A clock set back across midnight shows the old date a second time; that hour belongs to the period already begun.
	for !now.Before(end) {
		label = time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
		step()
		start, end = end, firstInstant(year, month, day, loc)
	}
	return Period{Label: label.Format(layout), Start: start, End: end}
}

// firstInstant returns the first instant at which the date in loc is year-month-day or a later one; day and month may
// overflow as in time.Date. time.Date itself is not exact where midnight is skipped or happens twice.
func firstInstant(year int, month time.Month, day int, loc *time.Location) time.Time {
	midnight := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
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

package quota

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Span is how long a budget is for: an hour, a number of days, a month, or for ever. It is a calendar window in Zone, or
// rolling: the time of that length that ends now. The zero Span is not valid.
type Span struct {
	Length  Length
	Days    int // of DayLength
	Rolling bool
	Zone    *time.Location // of calendar windows; nil is UTC
}

// Length is the kind of a Span.
type Length string

// The lengths. A week is seven days and begins on a Monday.
const (
	HourLength  Length = "hour"
	DayLength   Length = "day"
	MonthLength Length = "month"
	Lifetime    Length = "lifetime"
)

const (
	week        = 7
	maxDays     = 3660
	rollingDays = 30 // of a rolling month
	slots       = 60 // of a rolling span, see Slot
)

// Spans are the names that ParseSpan knows, besides a number of days.
func Spans() []string { return []string{"hour", "day", "week", "month", "lifetime"} }

// ParseSpan reads a span as people write it: hour, day, week, month, lifetime, or a number of days as in "14 days".
// 1 day and 14days are understood, too.
func ParseSpan(text string) (Span, error) {
	switch text {
	case "hour", "month", "lifetime":
		return Span{Length: Length(text)}, nil
	case "day":
		return Span{Length: DayLength, Days: 1}, nil
	case "week":
		return Span{Length: DayLength, Days: week}, nil
	}
	unit := strings.TrimLeft(text, "0123456789")
	n, err := strconv.Atoi(text[:len(text)-len(unit)])
	switch unit = strings.TrimPrefix(unit, " "); {
	case err != nil:
	case n == 1 && slices.Contains([]string{"hour", "day", "week", "month"}, unit):
		return ParseSpan(unit)
	case n >= 1 && n <= maxDays && unit == "days":
		return Span{Length: DayLength, Days: n}, nil
	}
	return Span{}, fmt.Errorf("%q is no window: it is %s, or 1 to %d days as in \"14 days\"", text, strings.Join(Spans(), ", "), maxDays)
}

// String is what ParseSpan reads.
func (s Span) String() string {
	switch {
	case s.Length != DayLength:
		return string(s.Length)
	case s.Days == 1:
		return "day"
	case s.Days == week:
		return "week"
	}
	return strconv.Itoa(s.Days) + " days"
}

// Never is when a Span ends that never does: after everything that can be written down.
func Never() time.Time { return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) }

// Duration is the length of a rolling span, 0 where it has none.
func (s Span) Duration() time.Duration {
	const day = 24 * time.Hour
	switch {
	case !s.Rolling || s.Length == Lifetime:
		return 0
	case s.Length == HourLength:
		return time.Hour
	case s.Length == MonthLength:
		return rollingDays * day
	}
	return time.Duration(s.Days) * day
}

// Slot returns the period in which what is spent now is counted: of a calendar span the whole window, of a rolling one a
// sixtieth of it. Label names the slot; it is the same for the same slot whatever the clock did in between. End is when
// what was spent in the slot stops counting.
func (s Span) Slot(now time.Time) Period {
	if s.Length == Lifetime {
		return Period{Label: "always", End: Never()}
	}
	if whole := s.Duration(); whole > 0 {
		width := whole / slots
		start := now.Truncate(width)
		return Period{Label: strconv.FormatInt(start.Unix(), 10), Start: start, End: start.Add(width + whole)}
	}
	loc := s.Zone
	if loc == nil {
		loc = time.UTC
	}
	if s.Length == HourLength {
		return hour(now.In(loc))
	}
	by := days(max(s.Days, 1))
	if s.Length == MonthLength {
		by = months()
	}
	return calendar(now, loc, by)
}

// hour is the hour of a clock. Where the clock is changed one hour ends and another begins.
func hour(now time.Time) Period {
	start := now.Add(-time.Duration(now.Minute())*time.Minute - time.Duration(now.Second())*time.Second - time.Duration(now.Nanosecond()))
	end := start.Add(time.Hour)
	since, until := now.ZoneBounds()
	if start.Before(since) {
		start = since
	}
	if !until.IsZero() && until.Before(end) {
		end = until
	}
	return Period{Label: start.UTC().Format("2006-01-02T15:04Z"), Start: start, End: end}
}

// Pot is what was spent of a budget and is held of it, by slots. The zero Pot is empty. Only one goroutine at a time may use it.
type Pot struct {
	slots []*Slot

	// The slot of the last request, which most often is that of the next one.
	span   Span
	latest Period
	until  time.Time // when another slot begins
}

// Now is the Slot of a span, remembered from the last time.
func (p *Pot) Now(span Span, now time.Time) Period {
	if p.span == span && !now.Before(p.latest.Start) && now.Before(p.until) {
		return p.latest
	}
	p.span, p.latest = span, span.Slot(now)
	p.until = p.latest.End.Add(-span.Duration())
	return p.latest
}

// Slot is what was spent in a slot of a Span, and what requests hold that were admitted in it.
type Slot struct {
	Label    string
	End      time.Time // when it stops counting
	Used     int64     // settled
	Reserved int64     // held by requests in flight
}

// Open returns a slot, and makes it when there is none yet.
func (p *Pot) Open(label string, end time.Time) *Slot {
	for _, s := range slices.Backward(p.slots) {
		if s.Label == label {
			s.End = end
			return s
		}
	}
	s := &Slot{Label: label, End: end}
	p.slots = append(p.slots, s)
	return s
}

// Sum returns what counts now. Of a rolling span that is also what was spent in the future of a clock that was set back.
func (p *Pot) Sum(span Span, now time.Time) (used, reserved int64) {
	rolling, label := span.Duration() > 0, ""
	if !rolling {
		label = p.Now(span, now).Label
	}
	for _, s := range p.slots {
		if rolling && now.Before(s.End) || !rolling && s.Label == label {
			used, reserved = Add(used, s.Used), Add(reserved, s.Reserved)
		}
	}
	return used, reserved
}

// ResetsAt returns when at least n of what was used will count no longer, or everything if that is less: the end of a
// calendar window, and of a rolling one when enough of its slots have left.
func (p *Pot) ResetsAt(span Span, now time.Time, n int64) time.Time {
	if span.Duration() == 0 {
		return p.Now(span, now).End
	}
	counting := make([]*Slot, 0, len(p.slots))
	for _, s := range p.slots {
		if now.Before(s.End) && s.Used > 0 {
			counting = append(counting, s)
		}
	}
	slices.SortFunc(counting, func(a, b *Slot) int { return a.End.Compare(b.End) })
	at := now
	for _, s := range counting {
		if n <= 0 {
			break
		}
		n, at = n-s.Used, s.End
	}
	return at
}

// Forget drops the slots that ended before a time and of which nothing is held. It reports whether any is left.
func (p *Pot) Forget(before time.Time) (left bool) {
	p.slots = slices.DeleteFunc(p.slots, func(s *Slot) bool { return s.Reserved == 0 && s.End.Before(before) })
	return len(p.slots) > 0
}

// Reserve holds n of the slot.
func (s *Slot) Reserve(n int64) { s.Reserved = Add(s.Reserved, max(n, 0)) }

// Release gives a reservation back.
func (s *Slot) Release(n int64) { s.Reserved = max(s.Reserved-max(n, 0), 0) }

// Settle replaces a reservation by what was really used.
func (s *Slot) Settle(reserved, used int64) {
	s.Release(reserved)
	s.Used = Add(s.Used, max(used, 0))
}

// Room reports whether n more fit under a limit of which used and reserved are gone. Nothing fits where nothing is left,
// not even a request that is expected to cost nothing.
func Room(limit, used, reserved, n int64) bool {
	gone := Add(max(used, 0), max(reserved, 0))
	return gone < limit && Add(gone, max(n, 0)) <= limit
}

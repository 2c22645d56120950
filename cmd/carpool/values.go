package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"carpool/internal/control"
	"carpool/internal/policy"
)

// tokensFlag is an amount of tokens on the command line: a number, one with a suffix (40k, 2M, 1.5G), `unlimited`, or
// `default` for what the server's configuration says. It implements pflag.Value.
type tokensFlag struct {
	text  string
	set   bool
	value *int64 // nil: default
}

func (f *tokensFlag) String() string { return f.text }

// Type names the value in help texts.
func (f *tokensFlag) Type() string { return "TOKENS" }

// Set parses the value.
func (f *tokensFlag) Set(text string) error {
	value, err := parseTokens(text)
	if err != nil {
		return err
	}
	f.text, f.set, f.value = text, true, value
	return nil
}

// countFlag is a number on the command line; `unlimited` is 0, and `default` is what the server's configuration says. It
// implements pflag.Value.
type countFlag struct {
	text  string
	set   bool
	value *int // nil: default
}

func (f *countFlag) String() string { return f.text }

// Type names the value in help texts.
func (f *countFlag) Type() string { return "NUMBER" }

// Set parses the value.
func (f *countFlag) Set(text string) error {
	value := new(int)
	switch strings.ToLower(text) {
	case "default":
		value = nil
	case "unlimited":
	default:
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("it must be a whole number; 0 is unlimited")
		}
		*value = n
	}
	f.text, f.set, f.value = text, true, value
	return nil
}

// maxTokens keeps sums of quotas far from the end of int64.
const maxTokens = int64(1e15)

// parseTokens reads an amount of tokens; nil is the configured default.
func parseTokens(text string) (*int64, error) {
	switch strings.ToLower(text) {
	case "default":
		return nil, nil
	case "unlimited", "-1":
		return new(int64(policy.Unlimited)), nil
	}
	n, ok := policy.ParseCount(text)
	switch {
	case !ok:
		return nil, errors.New("it is a number of tokens such as 500000, 40k or 2M, or one of unlimited, default")
	case n > maxTokens:
		return nil, errors.New("it is too large; use unlimited")
	}
	return &n, nil
}

// amount writes an amount of tokens that may be unlimited.
func amount(n int64) string {
	if n == policy.Unlimited {
		return "unlimited"
	}
	return number(n)
}

// percentsFlag is a list of percentages on the command line; an empty text is none. It implements pflag.Value.
type percentsFlag struct {
	list *[]int
	set  bool
}

func (f *percentsFlag) String() string {
	if f.list == nil {
		return ""
	}
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(*f.list)), ","), "[]")
}

// Type names the value in help texts.
func (f *percentsFlag) Type() string { return "PERCENTAGES" }

// Set parses the value. A flag that is repeated adds to what is there.
func (f *percentsFlag) Set(text string) error {
	list := []int{}
	for part := range strings.SplitSeq(text, ",") {
		if text == "" {
			break
		}
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(part), "%"))
		if err != nil {
			return errors.New("it is percentages with commas, such as 75,95")
		}
		list = append(list, n)
	}
	if f.set {
		list = append(*f.list, list...)
	}
	*f.list, f.set = list, true
	return nil
}

// parsePeriod reads 30m, 12h, 7d or 2w.
func parsePeriod(text string) (time.Duration, bool) {
	unit := time.Duration(0)
	if text != "" {
		switch text[len(text)-1] {
		case 'd':
			unit = 24 * time.Hour
		case 'w':
			unit = 7 * 24 * time.Hour
		}
	}
	if unit > 0 {
		n, err := strconv.ParseUint(text[:len(text)-1], 10, 16)
		return time.Duration(n) * unit, err == nil
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0
}

// parseDate reads a date, a date with a time of day, or an RFC 3339 time. What names no zone is in that of now.
func parseDate(text string, now time.Time) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// parsePast reads a point in time as it is written after --since and --until: a period back from now, a date, or one of
// now, today and yesterday (their first moment).
func parsePast(text string, now time.Time) (time.Time, error) {
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	switch strings.ToLower(text) {
	case "":
		return time.Time{}, nil
	case "now":
		return now, nil
	case "today":
		return today, nil
	case "yesterday":
		return today.AddDate(0, 0, -1), nil
	}
	if d, ok := parsePeriod(text); ok {
		return now.Add(-d), nil
	}
	if t, ok := parseDate(text, now); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("it is a period such as 90m, 24h or 7d, a date such as %s, a time such as %s, or one of today, yesterday, now",
		now.Format(time.DateOnly), now.UTC().Format(time.RFC3339))
}

// parseExpiry reads when something ends: a period from now, a date in the future, or never (nil).
func parseExpiry(text string, now time.Time) (*time.Time, error) {
	if strings.EqualFold(text, "never") {
		return nil, nil
	}
	t, ok := parseDate(text, now)
	if d, isPeriod := parsePeriod(text); isPeriod {
		t, ok = now.Add(d).Truncate(time.Second), true
	}
	if !ok {
		return nil, fmt.Errorf("it is a period such as 12h or 90d, a date such as %s, or never", now.AddDate(0, 3, 0).Format(time.DateOnly))
	}
	if !t.After(now) {
		return nil, fmt.Errorf("%s is in the past", text)
	}
	t = t.UTC()
	return &t, nil
}

// splitPair reads LEFT=RIGHT.
func splitPair(text, form string) (left, right string, err error) {
	left, right, ok := strings.Cut(text, "=")
	if left, right = strings.TrimSpace(left), strings.TrimSpace(right); !ok || left == "" || right == "" {
		return "", "", usagef("%q is not of the form %s", text, form)
	}
	return left, right, nil
}

// change is the flag as a field of a patch.
func (f *tokensFlag) change() control.Change[int64] { return change(f.set, f.value) }

// change is a flag as a field of a patch; nil is the default.
func change[T any](set bool, value *T) control.Change[T] {
	switch {
	case !set:
		return control.Change[T]{}
	case value == nil:
		return control.ToDefault[T]()
	}
	return control.To(*value)
}

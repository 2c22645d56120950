package config

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const mask = "********"

// Secret is text that must not be shown. Every way of formatting or encoding it
// gives asterisks (or nothing when it is empty); Reveal gives its value.
type Secret string

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// IsSet says whether there is a value.
func (s Secret) IsSet() bool { return s != "" }

// String returns asterisks, or nothing when the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// Format writes the mask for every verb, %#v and %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue masks the secret in logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText masks the secret in JSON, YAML and every other encoding.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Weight is a non-negative factor in thousandths: 1500 is 1.5. Thousandths are
// exact, so that two nodes always count the same.
type Weight int64

// maxWeight keeps weight × tokens far from the end of int64.
const maxWeight Weight = 1000 * 1000

// Thousandths returns the weight as a whole number of thousandths.
func (w Weight) Thousandths() int64 { return int64(w) }

// String returns the weight as a decimal number without trailing zeros.
func (w Weight) String() string {
	whole, rest := int64(w)/1000, int64(w)%1000
	if rest == 0 {
		return strconv.FormatInt(whole, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%d.%03d", whole, rest), "0")
}

// MarshalText writes the weight as a decimal number.
func (w Weight) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// parseWeight reads a decimal number with at most three decimals.
func parseWeight(s string) (Weight, error) {
	whole, frac, dotted := strings.Cut(s, ".")
	switch {
	case strings.HasPrefix(s, "-"):
		return 0, errors.New("must not be negative")
	case whole == "" || !digits(whole) || (dotted && (frac == "" || !digits(frac))):
		return 0, errors.New("must be a number such as 1 or 0.25")
	case len(strings.TrimRight(frac, "0")) > 3:
		return 0, errors.New("must not have more than three decimals")
	case len(strings.TrimLeft(whole, "0")) > 6:
		return 0, errors.New("must be at most 1000")
	}
	if len(frac) > 3 {
		frac = frac[:3]
	}
	n, err := strconv.ParseInt(whole+(frac + "000")[:3], 10, 64)
	if err != nil {
		return 0, errors.New("must be a number such as 1 or 0.25")
	}
	if Weight(n) > maxWeight {
		return 0, errors.New("must be at most 1000")
	}
	return Weight(n), nil
}

// days are the parts of a duration that Go does not know.
var days = regexp.MustCompile(`([0-9]+\.?[0-9]*|\.[0-9]+)d`)

// parseDuration reads a duration such as 30s, 1h30m or 7d, or a whole number of
// milliseconds.
func parseDuration(s string) (time.Duration, error) {
	if signed := strings.TrimPrefix(s, "-"); digits(signed) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, errors.New("is too large")
		}
		return milliseconds(n)
	}
	// 24 times the hours, so that fractions and overflows are Go's to deal with.
	d, err := time.ParseDuration(days.ReplaceAllStringFunc(s, func(part string) string {
		return strings.Repeat(strings.TrimSuffix(part, "d")+"h", 24)
	}))
	if err != nil {
		return 0, errors.New(`must be a whole number of milliseconds, or a duration such as "30s", "1h30m" or "7d"`)
	}
	return d, nil
}

func milliseconds(n int64) (time.Duration, error) {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	if n > most || n < -most {
		return 0, errors.New("is too large")
	}
	return time.Duration(n) * time.Millisecond, nil
}

// formatDuration is time.Duration.String without the zero parts: 2m, not 2m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func digits(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

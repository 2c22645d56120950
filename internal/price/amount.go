package price

import (
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// amount is a sum of money in yocto-dollars, 10⁻²⁴ dollars. It never wraps: what is too large for 128 bits stays at the largest value, which
// is far beyond what int64 micro-dollars can say.
//
// Yocto-dollars are what a rate in pico-dollars (10⁻¹²) becomes by factors in units of 10⁻¹²: see [factors].
type amount struct{ hi, lo uint64 }

// yoctoPerMicro is how many yocto-dollars a micro-dollar has. It fits in 64 bits, which keeps the division in [amount.micro] one instruction.
const yoctoPerMicro = 1_000_000_000_000_000_000

// product is count × rate × factor.
func product(count int64, rate, factor uint64) amount {
	if count <= 0 {
		return amount{}
	}
	hi, lo := bits.Mul64(uint64(count), rate)
	over, upper := bits.Mul64(hi, factor)
	carry, lower := bits.Mul64(lo, factor)
	upper, more := bits.Add64(upper, carry, 0)
	if over+more != 0 {
		return amount{math.MaxUint64, math.MaxUint64}
	}
	return amount{upper, lower}
}

func (a amount) plus(b amount) amount {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, over := bits.Add64(a.hi, b.hi, carry)
	if over != 0 {
		return amount{math.MaxUint64, math.MaxUint64}
	}
	return amount{hi, lo}
}

func (a amount) less(b amount) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// micro is a in micro-dollars, rounded half up.
func (a amount) micro() int64 { return a.plus(amount{lo: yoctoPerMicro / 2}).whole() }

// microUp is a in micro-dollars, rounded up.
func (a amount) microUp() int64 { return a.plus(amount{lo: yoctoPerMicro - 1}).whole() }

// whole is the number of whole micro-dollars in a, at most math.MaxInt64.
func (a amount) whole() int64 {
	if a.hi >= yoctoPerMicro {
		return math.MaxInt64
	}
	q, _ := bits.Div64(a.hi, a.lo, yoctoPerMicro)
	return int64(min(q, math.MaxInt64))
}

// decimal reads a decimal number that is not negative as a whole number of 10^-places.
func decimal(s string, places int) (uint64, error) {
	whole, fraction, dotted := strings.Cut(s, ".")
	fraction = strings.TrimRight(fraction, "0")
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	switch {
	case strings.HasPrefix(s, "-"):
		return 0, errors.New("must not be negative")
	case whole == "" || !digits(whole) || !digits(fraction) || dotted && strings.HasSuffix(s, "."):
		return 0, errors.New("must be a decimal number such as 5 or 0.25")
	case len(fraction) > places:
		return 0, errors.New("must have at most " + strconv.Itoa(places) + " decimal places")
	}
	n, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", places-len(fraction)), 10, 64)
	if err != nil {
		return 0, errors.New("is too large")
	}
	return n, nil
}

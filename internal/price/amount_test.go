package price

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// TestAmount reckons with big integers what amounts reckon with 128 bits.
func TestAmount(t *testing.T) {
	most := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1))
	saturated := func(n *big.Int) *big.Int {
		if n.Cmp(most) > 0 {
			return most
		}
		return n
	}
	value := func(a amount) *big.Int {
		n := new(big.Int).Lsh(new(big.Int).SetUint64(a.hi), 64)
		return n.Add(n, new(big.Int).SetUint64(a.lo))
	}
	micro := func(n, up *big.Int) int64 {
		sum := saturated(new(big.Int).Add(n, up))
		if q := new(big.Int).Quo(sum, big.NewInt(yoctoPerMicro)); q.IsInt64() {
			return q.Int64()
		}
		return math.MaxInt64
	}
	number := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 1<<20), rapid.SampledFrom([]uint64{0, 1, math.MaxUint64, yoctoPerMicro / 2, yoctoPerMicro}))
	count := rapid.OneOf(rapid.Int64Min(0), rapid.Int64Range(0, 1<<20), rapid.SampledFrom([]int64{0, 1, math.MaxInt64}))
	rapid.Check(t, func(t *rapid.T) {
		n, rate, factor := count.Draw(t, "count"), number.Draw(t, "rate"), number.Draw(t, "factor")
		exact := new(big.Int).Mul(big.NewInt(n), new(big.Int).SetUint64(rate))
		exact = saturated(exact.Mul(exact, new(big.Int).SetUint64(factor)))
		a := product(n, rate, factor)
		if value(a).Cmp(exact) != 0 {
			t.Fatalf("product: %d, want %d", value(a), exact)
		}
		b := product(count.Draw(t, "other"), number.Draw(t, "rate"), number.Draw(t, "factor"))
		sum := saturated(new(big.Int).Add(exact, value(b)))
		if got := value(a.plus(b)); got.Cmp(sum) != 0 {
			t.Fatalf("sum: %d, want %d", got, sum)
		}
		if a.less(b) != (exact.Cmp(value(b)) < 0) {
			t.Fatalf("%d less than %d: %v", exact, value(b), a.less(b))
		}
		if got, want := a.micro(), micro(exact, big.NewInt(yoctoPerMicro/2)); got != want {
			t.Fatalf("micro: %d, want %d", got, want)
		}
		if got, want := a.microUp(), micro(exact, big.NewInt(yoctoPerMicro-1)); got != want {
			t.Fatalf("microUp: %d, want %d", got, want)
		}
	})
}

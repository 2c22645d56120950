// Package price makes money of usage: an effective-dated price table and int64 micro-dollars.
//
// A [Table] is the published prices, which are embedded, under what the operator says of his own ([Overlay]). [Table.Cost] prices what an
// answer reported, [Table.UpperBound] what a request can cost at most, before it is sent. docs/prices.md tells the same to operators.
//
// The package is pure: no I/O, no clock, no state that changes. A Table may be used by any number of goroutines.
//
// Money is exact until the very end. Rates are whole pico-dollars per token and every multiplier is a decimal with few places, so the sum
// over a request is a whole number of yocto-dollars (10⁻²⁴). It is rounded once, half up, to micro-dollars. No float is on the way.
package price

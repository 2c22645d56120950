package anthropic

import (
	"encoding/binary"
	"math/bits"
)

// countString counts the characters of a JSON string, of which b is what follows the opening quote. rest is what follows the closing one;
// it is nil when the string does not end in b or on this line. An escape sequence counts as one character, so one beyond the basic plane
// that is written as two escapes counts as two.
func countString(b []byte) (n int64, rest []byte) {
	for {
		plain, stop := countPlain(b)
		n += plain
		b = b[stop:]
		if len(b) == 0 {
			return n, nil
		}
		switch b[0] {
		case '"':
			return n, b[1:]
		case '\n', '\r':
			return n, nil
		case '\\':
			b = b[skipEscape(b):]
		default: // a control character, which the upstream should have escaped
			b = b[1:]
		}
		n++
	}
}

// skipEscape is the length of what can be taken for an escape sequence at the start of b. It never goes beyond the end of a line.
func skipEscape(b []byte) int {
	if len(b) < 2 || b[1] < ' ' {
		return 1
	}
	n := 2
	if b[1] == 'u' {
		for n < min(6, len(b)) && isAlnum(b[n]) {
			n++
		}
	}
	return n
}

// countPlain counts the UTF-8 characters at the start of b up to the first quote, backslash or control character, at offset stop.
func countPlain(b []byte) (n int64, stop int) {
	i := 0
	for len(b)-i >= 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		m := ^(ordinary(x) | x) & highs
		follow := x &^ (x << 1) & highs // bytes whose top bits are 10 continue a character
		if m != 0 {
			at := bits.TrailingZeros64(m) / 8
			follow &= 1<<(8*at) - 1
			return n + int64(at-bits.OnesCount64(follow)), i + at
		}
		n += int64(8 - bits.OnesCount64(follow))
		i += 8
	}
	for ; i < len(b); i++ {
		c := b[i]
		if c == '"' || c == '\\' || c < ' ' {
			break
		}
		if c&0xC0 != 0x80 {
			n++
		}
	}
	return n, i
}

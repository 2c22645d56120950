package anthropic

import (
	"encoding/binary"
	"math/bits"
)

// countString counts the characters of a JSON string, of which b is what follows the opening quote. rest is what follows the closing one;
// it is nil when the string does not end in b or on this line. An escape sequence counts as one character, so one beyond the basic plane
// that is written as two escapes counts as two.
func countString(b []byte) (n int64, rest []byte) {
	more := 0 // by how many the bytes read are more than the characters
	// Nearly every event of a stream comes here, so plainText and the usual escape sequences are written out.
	for i := 0; i < len(b); {
		if len(b)-i >= 8 {
			x := binary.LittleEndian.Uint64(b[i:])
			m := ^(ordinary(x) | x) & highs
			if x&highs != 0 {
				more += bits.OnesCount64(x &^ (x << 1) & highs & (m&-m - 1))
			}
			if m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) / 8
		}
		switch c := b[i]; c {
		case '"':
			return int64(i - more), b[i+1:]
		case '\n', '\r':
			return int64(i - more), nil
		case '\\':
			size := 2
			if i+1 == len(b) || b[i+1] < ' ' || b[i+1] == 'u' {
				size = skipEscape(b[i:])
			}
			i += size
			more += size - 1
		default: // one of the last bytes of b; or a control character, which the upstream should have escaped
			if c&0xC0 == 0x80 {
				more++
			}
			i++
		}
	}
	return int64(len(b) - more), nil
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

// plainText is the length of the text at the start of b up to the first quote, backslash or control character. follow is how many of its
// bytes continue a UTF-8 character.
func plainText(b []byte) (n, follow int) {
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		m := ^(ordinary(x) | x) & highs
		if m == 0 && x&highs == 0 {
			continue
		}
		continues := x &^ (x << 1) & highs // bytes whose top bits are 10
		if m != 0 {
			at := bits.TrailingZeros64(m) / 8
			return i + at, follow + bits.OnesCount64(continues&(1<<(8*at)-1))
		}
		follow += bits.OnesCount64(continues)
	}
	for ; i < len(b); i++ {
		c := b[i]
		if c == '"' || c == '\\' || c < ' ' {
			break
		}
		if c&0xC0 == 0x80 {
			follow++
		}
	}
	return i, follow
}

package anthropic

import "encoding/binary"

// A text is looked at in windows of 64 bytes, each of which has a word of marks: a bit for each byte, the lowest for the first, set for
// those that need care in a string. Only they are then looked at one by one.
const (
	window  = 64
	windows = 16 // whose marks are made at a time
)

// A word is eight bytes of text. In the marks of a word the top bit of each byte says something about that byte.
const (
	ones  = 0x0101010101010101
	lows  = 0x7f * ones
	highs = 0x80 * ones
)

// cover makes the marks of the window in which i lies, and of those behind it. Those behind the end of the text are set.
func (s *scanner) cover(i int) {
	s.from = i - i%window
	b := s.b[s.from:]
	whole := min(len(b)/window, windows)
	mark(b, s.marks[:whole])
	if rest := b[whole*window:]; whole < windows && len(rest) > 0 {
		var last [window]byte
		copy(last[:], rest)
		mark(last[:], s.marks[whole:whole+1])
		whole++
	}
	s.to = s.from + whole*window
}

// markPortable sets marks to those of text, which has a window for each.
func markPortable(text []byte, marks []uint64) {
	for i := range marks {
		marks[i] = marked((*[window]byte)(text[i*window:]))
	}
}

// marked is a window's word of marks: quotes, backslashes, control characters and bytes beyond ASCII.
func marked(p *[window]byte) uint64 {
	return marked8(p[0:]) | marked8(p[8:])<<8 | marked8(p[16:])<<16 | marked8(p[24:])<<24 |
		marked8(p[32:])<<32 | marked8(p[40:])<<40 | marked8(p[48:])<<48 | marked8(p[56:])<<56
}

// marked8 is marked for the first eight bytes of b.
func marked8(b []byte) uint64 {
	x := binary.LittleEndian.Uint64(b)
	// The product gathers the marks in its top byte.
	return ((^ordinary(x) | x) & highs) * 0x0002040810204081 >> 56
}

// ordinary marks the bytes of x that are neither a quote nor a backslash nor a control character. For those beyond ASCII it says nothing.
func ordinary(x uint64) uint64 {
	x &= lows // so that no sum goes beyond its byte
	// The exchange of the quote (0x22) and the space (0x20) brings quote and control characters below 0x21.
	return ((x ^ 0x02*ones) + 0x5f*ones) & ((x ^ '\\'*ones) + lows)
}

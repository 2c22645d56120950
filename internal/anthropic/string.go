package anthropic

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Strings are nearly all of a request, and most of them is text in which every tenth or twentieth byte needs care. They are looked at in
// windows of 64 bytes: specials finds the bytes that need care without a branch, and only those are then looked at one by one. Where all
// is plain, plain goes faster still.
const window = 64

// A word is eight bytes of text. In the marks of a word the top bit of each byte says something about that byte.
const (
	ones  = 0x0101010101010101
	lows  = 0x7f * ones
	highs = 0x80 * ones
)

// str walks over the string that begins at i and reports whether it holds escapes.
func (s *scanner) str(i int) (end int, escaped bool, err error) {
	if end = s.near(i); end > 0 {
		return end, false, nil
	}
	return s.text(i + 1)
}

// near walks over the string that begins at i when the window of an earlier string holds all of it, and it is plain. Else it returns 0.
func (s *scanner) near(i int) (end int) {
	m := s.marks >> (uint(i+1-s.edge) % window)
	if end = i + 1 + bits.TrailingZeros64(m); end < s.edge && s.b[end] == '"' {
		return end + 1
	}
	return 0
}

// text walks over the rest of a string.
func (s *scanner) text(i int) (end int, escaped bool, err error) {
	if i < s.edge { // what of it is in the window of an earlier string
		i = min(i+bits.TrailingZeros64(s.marks>>(uint(i-s.edge)%window)), s.edge)
	}
	b := s.b
	for len(b)-i >= window+8 {
		p := (*[window + 8]byte)(b[i:])
		m := specials(p)
		if m == 0 {
			i = s.plain(i + window)
			continue
		}
		s.marks, s.edge = m, i+window
		for end = i; m != 0; {
			k := bits.TrailingZeros64(m)
			c := p[k]
			if c == '\\' {
				escaped = true
				if simpleEscape[p[k+1]] == 1 {
					m &^= 3 << k
					end = i + k + 2
					continue
				}
			} else if c == '"' {
				return i + k + 1, escaped, nil
			} else if n := charLen(binary.LittleEndian.Uint32(p[k:])); n > 0 && p[k+n] < utf8.RuneSelf { // not one of many
				m &^= (1<<n - 1) << k
				end = i + k + n
				continue
			}
			if end, err = s.special(i + k); err != nil {
				return end, escaped, err
			}
			m = m >> uint(end-i) << uint(end-i)
		}
		i = max(i+window, end)
	}
	return s.tail(i, escaped)
}

// tail is text where less than a window is left.
func (s *scanner) tail(i int, escaped bool) (end int, _ bool, err error) {
	for i < len(s.b) {
		if len(s.b)-i >= 8 {
			x := binary.LittleEndian.Uint64(s.b[i:])
			m := (^ordinary(x) | x) & highs
			if m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) / 8
		}
		switch c := s.b[i]; {
		case c == '"':
			return i + 1, escaped, nil
		case c >= ' ' && c < utf8.RuneSelf && c != '\\':
			i++
		default:
			escaped = escaped || c == '\\'
			if i, err = s.special(i); err != nil {
				return i, escaped, err
			}
		}
	}
	return i, escaped, s.fail(i, "unexpected end inside a string")
}

// special walks over an escape sequence, or all characters beyond ASCII that follow each other.
func (s *scanner) special(i int) (end int, err error) {
	c := s.b[i]
	n, what := 0, "invalid UTF-8"
	switch {
	case c == '\\':
		n, what = escapeLen(s.b[i:]), "invalid escape"
	case c < ' ':
		what = fmt.Sprintf("unescaped control character 0x%02x in a string", c)
	default:
		n = runes(s.b[i:])
	}
	if n == 0 {
		return i, s.fail(i, what)
	}
	return i + n, nil
}

// specials has a bit for each of the 64 bytes of a window, set for quotes, backslashes, control characters and bytes beyond ASCII.
func specials(p *[window + 8]byte) uint64 {
	return special8(p[0:]) | special8(p[8:])<<8 | special8(p[16:])<<16 | special8(p[24:])<<24 |
		special8(p[32:])<<32 | special8(p[40:])<<40 | special8(p[48:])<<48 | special8(p[56:])<<56
}

// special8 is specials for the first eight bytes of b.
func special8(b []byte) uint64 {
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

// plain is the offset of the first 32 bytes, counted from i, in which one may need care.
func (s *scanner) plain(i int) int {
	b := s.b[i:]
	for len(b) >= 32 {
		x, y := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		z, w := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
		// As in ordinary. A byte beyond ASCII spoils the sum of the next one and is seen by itself.
		ok := ((x ^ 0x02*ones) + 0x5f*ones) & ((x ^ '\\'*ones) + lows) & ((y ^ 0x02*ones) + 0x5f*ones) & ((y ^ '\\'*ones) + lows) &
			((z ^ 0x02*ones) + 0x5f*ones) & ((z ^ '\\'*ones) + lows) & ((w ^ 0x02*ones) + 0x5f*ones) & ((w ^ '\\'*ones) + lows)
		if (^ok|x|y|z|w)&highs != 0 {
			break
		}
		b = b[32:]
	}
	return len(s.b) - len(b)
}

// simpleEscape has a 1 for each byte that makes an escape sequence with a backslash, by itself.
const simpleEscape = "" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00" +
	"\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// escapeLen is the length of the escape sequence at the start of b, 0 if it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if ('0' > c || c > '9') && ('a' > c || c > 'f') && ('A' > c || c > 'F') {
				return 0
			}
		}
		return 6
	}
	return 0
}

// runes is the length of the characters beyond ASCII at the start of b, 0 if it does not start with one.
func runes(b []byte) int {
	rest := b
	for len(rest) >= 8 { // Chinese, Japanese and Korean, two characters at a time
		x := binary.LittleEndian.Uint64(rest)
		if !threeLong(uint32(x)) || !threeLong(uint32(x>>24)) {
			break
		}
		rest = rest[6:]
	}
	for len(rest) >= utf8.UTFMax {
		n := charLen(binary.LittleEndian.Uint32(rest))
		if n == 0 {
			return len(b) - len(rest)
		}
		rest = rest[n:]
	}
	for len(rest) > 0 && rest[0] >= utf8.RuneSelf {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			break
		}
		rest = rest[n:]
	}
	return len(b) - len(rest)
}

// charLen is the length of the character beyond ASCII with which the bytes of x begin, the lowest first. It is 0 when there is none.
func charLen(x uint32) int {
	switch {
	case threeLong(x):
		return 3
	case x&0xC0E0 == 0x80C0:
		if x&0x1E != 0 { // not overlong (below U+0080)
			return 2
		}
	case x&0xC0C0C0F8 == 0x808080F0:
		// Neither overlong (below U+10000) nor beyond U+10FFFF.
		if v := x & 0x3007; v != 0 && (v&7 < 4 || v == 4) {
			return 4
		}
	}
	return 0
}

// threeLong reports whether x begins with a character of three bytes: neither overlong (below U+0800) nor half of a surrogate pair (U+D800
// to U+DFFF).
func threeLong(x uint32) bool {
	return x&0xC0C0F0 == 0x8080E0 && x&0x200F != 0 && x&0x200F != 0x200D
}

// validPrefix is how many bytes of b are UTF-8 before the first that is not.
func validPrefix(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// isBase64 judges by both ends whether a string is encoded binary data rather than text. Short strings do not matter and are not.
func isBase64(b []byte) bool {
	const sample = 256
	if len(b) < 2*sample {
		return false
	}
	for _, part := range [2][]byte{b[:sample], b[len(b)-sample:]} {
		for _, c := range part {
			if !isAlnum(c) && c != '+' && c != '/' && c != '=' {
				return false
			}
		}
	}
	return true
}

// unquote decodes a JSON string that the scanner has accepted. Half surrogate pairs become U+FFFD.
func unquote(raw []byte, escaped bool) string {
	if !escaped {
		return string(raw[1 : len(raw)-1])
	}
	// The error reports half surrogate pairs; everything else the scanner has refused before.
	text, _ := jsontext.AppendUnquote(nil, raw)
	return string(text)
}

// spelled is the name that matters in a prompt for which raw, a name with escapes and without its quotes, stands, "" for none.
func spelled(raw []byte) string {
	for _, name := range [...]string{nameType, nameData, nameCache, nameTTL} {
		if spells(raw, name) {
			return name
		}
	}
	return ""
}

// spells reports whether raw, a string without its quotes, stands for text, which is letters and underscores.
func spells(raw []byte, text string) bool {
	for i := range len(text) {
		switch {
		case len(raw) == 0:
			return false
		case raw[0] == text[i]:
			raw = raw[1:]
		case raw[0] == '\\' && escapeLen(raw) == 6:
			if v, err := strconv.ParseUint(string(raw[2:6]), 16, 16); err != nil || v != uint64(text[i]) {
				return false
			}
			raw = raw[6:]
		default:
			return false
		}
	}
	return len(raw) == 0
}

package anthropic

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Strings are nearly all of a request, and most of them is text in which every tenth or twentieth byte needs care: see cover.

// str walks over the string that begins at i and reports whether it holds escapes.
func (s *scanner) str(i int) (end int, escaped bool, err error) {
	if end = s.near(i); end > 0 {
		return end, false, nil
	}
	return s.text(i + 1)
}

// near walks over the string that begins at i when one window holds the rest of it, and it is plain. Else it returns 0.
func (s *scanner) near(i int) (end int) {
	if i++; i >= s.from && i < s.to {
		m := s.marks[uint(i-s.from)/window%windows] >> (uint(i) % window)
		if end = i + bits.TrailingZeros64(m); end < len(s.b) && m != 0 && s.b[end] == '"' {
			return end + 1
		}
	}
	return 0
}

// text walks over the rest of a string.
func (s *scanner) text(i int) (end int, escaped bool, err error) {
	b := s.b
	for {
		if i >= s.to || i < s.from {
			if i >= len(b) {
				return len(b), escaped, s.fail(len(b), "unexpected end inside a string")
			}
			s.cover(i)
		}
		start := i - i%window
		m := s.marks[(start-s.from)/window%windows] >> (uint(i) % window) << (uint(i) % window)
		for end = i; m != 0; {
			k := uint(bits.TrailingZeros64(m)) % window
			at := start + int(k)
			if at >= len(b) {
				return len(b), escaped, s.fail(len(b), "unexpected end inside a string")
			}
			switch c := b[at]; {
			case c == '"':
				return at + 1, escaped, nil
			case c == '\\':
				escaped = true
				if at+1 < len(b) && simpleEscape[b[at+1]] == 1 {
					m &^= 3 << k
					end = at + 2
					continue
				}
			case len(b)-at > utf8.UTFMax:
				if n := charLen(binary.LittleEndian.Uint32(b[at:])); n > 0 && b[at+n] < utf8.RuneSelf { // not one of many
					m &^= (1<<n - 1) << k
					end = at + n
					continue
				}
			}
			if end, err = s.special(at); err != nil {
				return end, escaped, err
			}
			m = m >> uint(end-start) << uint(end-start)
		}
		i = max(start+window, end)
	}
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

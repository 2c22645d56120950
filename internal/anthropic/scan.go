package anthropic

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds the nesting of arrays and objects. Real requests nest about a dozen levels.
const maxDepth = 1000

// syntaxError says where a text stops being JSON. It is shown to the client, so it quotes no more than one byte of the text.
type syntaxError struct {
	at   int // byte offset
	what string
}

func (e *syntaxError) Error() string { return e.what + " at byte " + strconv.Itoa(e.at) }

// scanner walks over JSON text (RFC 8259, UTF-8) and builds nothing. It is strict: what it accepts, every JSON reader accepts.
//
// Two liberties of RFC 8259 are kept, because real clients use them and they are the upstream's to judge: a name may occur twice in an
// object, and a \u escape may be half of a surrogate pair (programs that cut text between UTF-16 units write that).
type scanner struct {
	b []byte
	i int // next byte to read

	levels [maxDepth/64 + 1]uint64 // while in value: bit per level, set when the container is an object
	depth  int                     // while in value: open containers
	items  int                     // after value: elements or members of the outermost container

	prompt     bool // look out for cache breakpoints and media
	mark       int  // level of the object whose cache_control is being walked over; 0 for none
	breakpoint int  // offset just after the last value named cache_control that is not null; 0 for none
	dataAt     int  // offset of the value last named data
	media      int  // bytes of base64 strings named data
}

func (s *scanner) fail(what string) error { return &syntaxError{s.i, what} }

// unexpected says what stands at the read position instead of what was wanted.
func (s *scanner) unexpected(wanted string) error {
	if s.i >= len(s.b) {
		return s.fail("unexpected end, expected " + wanted)
	}
	if c := s.b[s.i]; c > ' ' && c < 0x7f {
		return s.fail(fmt.Sprintf("unexpected %q, expected %s", c, wanted))
	}
	return s.fail(fmt.Sprintf("unexpected byte 0x%02x, expected %s", s.b[s.i], wanted))
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end: 0 never stands between tokens.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// value walks over one value, which white space may precede, without recursion.
func (s *scanner) value() error {
	s.depth, s.mark, s.items = 0, 0, 0
	for {
		s.space()
		opened, err := s.token()
		if err != nil {
			return err
		}
		if opened {
			continue
		}
		done, err := s.next()
		if done || err != nil {
			return err
		}
	}
}

// token walks over a scalar or an empty container, or enters a container, up to where its first value stands (opened).
func (s *scanner) token() (opened bool, err error) {
	switch c := s.peek(); {
	case c == '"':
		start := s.i
		_, err = s.str()
		if s.prompt && start == s.dataAt && err == nil && isBase64(s.b[start+1:s.i-1]) {
			s.media += s.i - start - 2
		}
		return false, err
	case c == '{' || c == '[':
		if s.depth == maxDepth {
			return false, s.fail("arrays and objects nested too deep")
		}
		s.depth++
		s.i++
		bit := uint64(1) << (s.depth % 64)
		s.levels[s.depth/64] &^= bit
		if c == '{' {
			s.levels[s.depth/64] |= bit
		}
		s.space()
		if s.peek() == c+2 { // '}' and ']' stand two after their opening
			s.depth--
			s.i++
			return false, nil
		}
		if s.depth == 1 {
			s.items = 1
		}
		if c == '{' {
			err = s.name()
		}
		return true, err
	case c == '-' || '0' <= c && c <= '9':
		return false, s.number()
	case c == 't':
		return false, s.literal("true")
	case c == 'f':
		return false, s.literal("false")
	case c == 'n':
		return false, s.literal("null")
	}
	return false, s.unexpected("a value")
}

// next stands behind a value: it leaves every container that ends here and goes on to the next value, or says that there is none.
func (s *scanner) next() (done bool, err error) {
	for s.depth > 0 {
		if s.depth == s.mark {
			s.breakpoint, s.mark = s.i, 0
		}
		s.space()
		object := s.levels[s.depth/64]>>(s.depth%64)&1 == 1
		switch c := s.peek(); {
		case c == ',':
			s.i++
			if s.depth == 1 {
				s.items++
			}
			if object {
				s.space()
				err = s.name()
			}
			return false, err
		case object && c == '}', !object && c == ']':
			s.i++
			s.depth--
		case object:
			return false, s.unexpected("',' or '}'")
		default:
			return false, s.unexpected("',' or ']'")
		}
	}
	return true, nil
}

// name walks over a member's name and colon.
func (s *scanner) name() error {
	if s.peek() != '"' {
		return s.unexpected("a name in double quotes")
	}
	start := s.i
	escaped, err := s.str()
	if err != nil {
		return err
	}
	raw := s.b[start:s.i]
	s.space()
	if s.peek() != ':' {
		return s.unexpected("':'")
	}
	s.i++
	if !s.prompt {
		return nil
	}
	if escaped {
		raw, _ = jsontext.AppendQuote(nil, unquote(raw, true))
	}
	switch {
	case len(raw) == len(`"cache_control"`) && string(raw) == `"cache_control"`:
		s.space()
		if s.mark == 0 && s.peek() != 'n' {
			s.mark = s.depth
		}
	case len(raw) == len(`"data"`) && string(raw) == `"data"`:
		s.space()
		s.dataAt = s.i
	}
	return nil
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks the bytes of x that end a run of plain string bytes: quote, backslash and control characters. Only the lowest mark is
// exact; a byte above it may be marked without reason.
func special(x uint64) uint64 {
	quote := x ^ '"'*ones
	slash := x ^ '\\'*ones
	return ((quote-ones)&^quote | (slash-ones)&^slash | (x-' '*ones)&^x) & highs
}

// str walks over a string and reports whether it holds escapes.
func (s *scanner) str() (escaped bool, err error) {
	b, start := s.b, s.i
	i := start + 1
	var seen uint64 // all bytes or-ed together: tells whether there is anything beyond ASCII
	for {
		for len(b)-i >= 8 {
			x := binary.LittleEndian.Uint64(b[i:])
			seen |= x
			if m := special(x); m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		if i >= len(b) {
			s.i = len(b)
			return escaped, s.fail("unexpected end inside a string")
		}
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			if seen&highs != 0 && !utf8.Valid(b[start+1:i]) {
				s.i = start + 1 + validPrefix(b[start+1:i])
				return escaped, s.fail("invalid UTF-8")
			}
			return escaped, nil
		case c == '\\':
			escaped = true
			n := escapeLen(b[i:])
			if n == 0 {
				s.i = i
				return escaped, s.fail("invalid escape")
			}
			i += n
		case c < ' ':
			s.i = i
			return escaped, s.fail(fmt.Sprintf("unescaped control character 0x%02x in a string", c))
		default: // one of the last bytes of b
			seen |= uint64(c)
			i++
		}
	}
}

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

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return s.unexpected("a digit")
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return s.unexpected("a digit")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c = s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.unexpected("a digit")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

func (s *scanner) literal(word string) error {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return s.unexpected(word)
	}
	s.i += len(word)
	return nil
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

// member is a member of an object in a response.
type member struct {
	name  string
	value []byte // without white space around it
	whole bool   // false when the text ended or stopped being JSON inside the value: value is then everything to the end
}

// text is the value when it is a string, else "".
func (m member) text() string {
	if !m.whole || m.value[0] != '"' {
		return ""
	}
	return unquote(m.value, true)
}

// members walks over the members of the object in b for as long as it is one. It never fails: of a broken or cut text it yields what
// came before the break.
func members(b []byte) iter.Seq[member] {
	return func(yield func(member) bool) {
		s := scanner{b: b}
		for opening := byte('{'); ; opening = ',' {
			s.space()
			if s.peek() != opening {
				return
			}
			s.i++
			s.space()
			if s.peek() != '"' {
				return
			}
			start := s.i
			escaped, err := s.str()
			if err != nil {
				return
			}
			m := member{name: unquote(b[start:s.i], escaped)}
			s.space()
			if s.peek() != ':' {
				return
			}
			s.i++
			s.space()
			start = s.i
			if err = s.value(); err != nil {
				m.value = b[start:]
				yield(m)
				return
			}
			m.value, m.whole = b[start:s.i], true
			if !yield(m) {
				return
			}
		}
	}
}

// elements walks over the elements of the array in b for as long as it is one.
func elements(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		s := scanner{b: b}
		for opening := byte('['); ; opening = ',' {
			s.space()
			if s.peek() != opening {
				return
			}
			s.i++
			s.space()
			start := s.i
			if s.value() != nil || !yield(b[start:s.i]) {
				return
			}
		}
	}
}

package anthropic

import (
	"fmt"
	"strconv"
)

// maxDepth bounds the nesting of arrays and objects. Real requests nest about a dozen levels.
const maxDepth = 1000

// The names that matter in a prompt.
const (
	nameCache = "cache_control"
	nameData  = "data"
	nameTTL   = "ttl"
	nameType  = "type"
)

// syntaxError says where a text stops being JSON. It is shown to the client, so it quotes no more than one byte of the text.
type syntaxError struct {
	at   int // byte offset
	what string
}

func (e *syntaxError) Error() string { return e.what + " at byte " + strconv.Itoa(e.at) }

// scanner walks over JSON text (RFC 8259, UTF-8) and builds nothing. It is strict: what it accepts, every JSON reader accepts. Its methods
// take the offset at which something begins and return the one at which it ends; with an error they return where that is.
//
// Two liberties of RFC 8259 are kept, because real clients use them and they are the upstream's to judge: a name may occur twice in an
// object, and a \u escape may be half of a surrogate pair (programs that cut text between UTF-16 units write that).
//
// The time it takes is proportional to the length of the text, whatever the structure, and it allocates nothing.
type scanner struct {
	b []byte

	marks    [windows]uint64 // of the bytes between from and to: see cover
	from, to int

	levels [maxDepth/64 + 1]uint64 // while in value: bit per level, set when the container is an object
	items  int                     // after value: elements or members of the outermost container

	prompt     prompt // what of it is walked over: look out for what follows
	mark       int    // level of the object whose cache_control is being walked over; 0 for none
	breakpoint int    // offset just after the last value named cache_control that is not null; 0 for none
	dataAt     int    // offset of the value last named data; 0 for none
	media      int    // bytes of base64 strings named data
	typeAt     int    // offset of the value last named type in the text of a prompt; 0 for none
	heavy      int    // types in the text of a prompt that are those of heavy blocks, or may be
	serverTool int    // offset of the type of the first tool that is not the client's; 0 for none
	ttl        bool   // something is named ttl
	brief      bool   // a cache_control does not ask for the lifetime of an hour
}

// prompt is a part of a request that is part of its prompt.
type prompt int

const (
	noPrompt prompt = iota
	promptTools
	promptText // system or messages
)

func (s *scanner) fail(i int, what string) error { return &syntaxError{i, what} }

// unexpected says what stands at i instead of what was wanted.
func (s *scanner) unexpected(i int, wanted string) error {
	if i >= len(s.b) {
		return s.fail(i, "unexpected end, expected "+wanted)
	}
	if c := s.b[i]; c > ' ' && c < 0x7f {
		return s.fail(i, fmt.Sprintf("unexpected %q, expected %s", c, wanted))
	}
	return s.fail(i, fmt.Sprintf("unexpected byte 0x%02x, expected %s", s.b[i], wanted))
}

// at returns the byte at i, or 0 at the end: 0 never stands between tokens.
func (s *scanner) at(i int) byte {
	if i < len(s.b) {
		return s.b[i]
	}
	return 0
}

// next walks over white space, if there is any, and returns the byte behind it, 0 at the end.
func (s *scanner) next(i int) (end int, c byte) {
	if i < len(s.b) && s.b[i] > ' ' {
		return i, s.b[i]
	}
	return s.space(i)
}

// space is next where there probably is white space.
func (s *scanner) space(i int) (end int, c byte) {
	for ; i < len(s.b); i++ {
		switch c := s.b[i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return i, c
		}
	}
	return i, 0
}

// value walks over one value, which white space may precede, without recursion. It is one function because it is the loop of all loops:
// divided it takes a tenth longer.
func (s *scanner) value(i int) (end int, err error) {
	s.mark, s.items = 0, 0
	depth, object := 0, false // open containers, and whether the innermost one is an object
	for {
		if object {
			end, start, stop, escaped, err := s.name(i)
			if err != nil {
				return end, err
			}
			i = end
			if s.prompt != noPrompt {
				switch name := s.b[start+1 : stop-1]; {
				case escaped:
					i = s.notice(spelled(name), i, depth)
				case len(name) == len(nameType), len(name) == len(nameCache), len(name) == len(nameTTL):
					i = s.notice(string(name), i, depth)
				}
			}
		}
		var c byte
		switch i, c = s.next(i); c {
		case '"':
			start := i
			if i = s.near(start); i == 0 {
				if i, _, err = s.text(start + 1); err != nil {
					return i, err
				}
			}
			switch start {
			case s.dataAt:
				s.data(start, i)
			case s.typeAt:
				if isHeavy(s.b[start+1 : i-1]) {
					s.heavy++
				}
			}
		case '{', '[':
			if depth == maxDepth {
				return i, s.fail(i, "arrays and objects nested too deep")
			}
			closing := c + 2 // '}' and ']' stand two after their opening
			if i, c = s.next(i + 1); c == closing {
				i++
				break
			}
			depth++
			if depth == 1 {
				s.items = 1
			}
			object = closing == '}'
			s.enter(depth, object)
			continue
		case 't', 'f', 'n':
			if i, err = s.literal(i); err != nil {
				return i, err
			}
		default:
			if i, err = s.number(i); err != nil {
				return i, err
			}
		}
		// Behind a value: leave the containers that end here.
		for {
			if depth == 0 {
				return i, nil
			}
			if depth == s.mark {
				s.breakpoint, s.mark = i, 0
			}
			if i, c = s.next(i); c == ',' {
				i++
				if depth == 1 {
					s.items++
				}
				break
			}
			if object && c != '}' {
				return i, s.unexpected(i, "',' or '}'")
			}
			if !object && c != ']' {
				return i, s.unexpected(i, "',' or ']'")
			}
			i++
			depth--
			object = s.levels[depth/64]>>(depth%64)&1 == 1
		}
	}
}

// enter remembers what kind of container is open at a depth.
func (s *scanner) enter(depth int, object bool) {
	bit := uint64(1) << (depth % 64)
	s.levels[depth/64] &^= bit
	if object {
		s.levels[depth/64] |= bit
	}
}

// name walks over a member's name and colon, which white space may precede. start and stop enclose the name with its quotes.
func (s *scanner) name(i int) (end, start, stop int, escaped bool, err error) {
	start, c := s.next(i)
	if c != '"' {
		return start, 0, 0, false, s.unexpected(start, "a name in double quotes")
	}
	if stop = s.near(start); stop == 0 {
		if stop, escaped, err = s.text(start + 1); err != nil {
			return stop, 0, 0, false, err
		}
	}
	if end, c = s.next(stop); c != ':' {
		return end, 0, 0, false, s.unexpected(end, "':'")
	}
	return end + 1, start, stop, escaped, nil
}

// notice looks at the name of a member of the prompt, whose value follows behind i in an object at the given depth. It walks over the white
// space before the value when that matters.
func (s *scanner) notice(name string, i, depth int) (end int) {
	switch end = i; name {
	case nameType:
		var c byte
		switch end, c = s.next(i); {
		case s.prompt == promptText:
			s.typeAt = end
		case depth <= 2 && s.serverTool == 0 && c != 'n' && !ofClient(s.b[end:]):
			s.serverTool = end
		}
	case nameData:
		end, _ = s.next(i)
		s.dataAt = end
	case nameCache:
		var c byte
		if end, c = s.next(i); c != 'n' && s.mark == 0 {
			s.mark, s.brief = depth, s.brief || !forAnHour(s.b[end:])
		}
	case nameTTL:
		s.ttl = true
	}
	return end
}

// data counts the string named data that stands between start and end.
func (s *scanner) data(start, end int) {
	if s.prompt != noPrompt && isBase64(s.b[start+1:end-1]) {
		s.media += end - start - 2
	}
}

// number walks over a number. It is what is tried when no other value begins at i.
func (s *scanner) number(i int) (end int, err error) {
	c := s.at(i)
	if c == '-' {
		i++
		c = s.at(i)
	} else if c < '0' || c > '9' {
		return i, s.unexpected(i, "a value")
	}
	if c == '0' {
		i++
	} else if i, err = s.digits(i); err != nil {
		return i, err
	}
	if c = s.at(i); c == '.' {
		if i, err = s.digits(i + 1); err != nil {
			return i, err
		}
		c = s.at(i)
	}
	if c == 'e' || c == 'E' {
		i++
		if c = s.at(i); c == '+' || c == '-' {
			i++
		}
		return s.digits(i)
	}
	return i, nil
}

// digits walks over one or more digits.
func (s *scanner) digits(i int) (end int, err error) {
	end = i
	for end < len(s.b) && s.b[end]-'0' <= 9 {
		end++
	}
	if end == i {
		return i, s.unexpected(i, "a digit")
	}
	return end, nil
}

// literal walks over true, false or null, by the letter with which it begins.
func (s *scanner) literal(i int) (end int, err error) {
	word := "null"
	switch s.b[i] {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	}
	if !hasPrefix(s.b[i:], word) {
		return i, s.unexpected(i, word)
	}
	return i + len(word), nil
}

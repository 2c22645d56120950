package anthropic

import (
	"iter"
	"unicode/utf8"
)

// IsJSON reports whether b is one JSON value, in UTF-8 and nested at most 1 000 levels deep.
func IsJSON(b []byte) bool {
	s := scanner{b: b}
	end, err := s.value(0)
	if err != nil {
		return false
	}
	end, _ = s.next(end)
	return end == len(b)
}

// member is a member of an object in a response.
type member struct {
	name  []byte
	value []byte // without white space around it
	whole bool   // false when the text ended or stopped being JSON inside the value: value is then everything to the end
}

// text is the value when it is a string, else nil. It may be a part of the value, and must not be changed.
func (m member) text() []byte {
	if !m.whole || m.value[0] != '"' {
		return nil
	}
	if inner := m.value[1:]; utf8.Valid(inner) {
		if stop, _ := plainText(inner); stop == len(inner)-1 && inner[stop] == '"' {
			return inner[:stop]
		}
	}
	return []byte(unquote(m.value, true))
}

// members walks over the members of the object in b for as long as it is one. It never fails: of a broken or cut text it yields what
// came before the break.
func members(b []byte) iter.Seq[member] {
	return func(yield func(member) bool) {
		s := scanner{b: b}
		i, c := s.next(0)
		for opening := byte('{'); c == opening; opening = ',' {
			end, start, stop, escaped, err := s.name(i + 1)
			if err != nil {
				return
			}
			m := member{name: b[start+1 : stop-1]}
			if escaped {
				m.name = []byte(unquote(b[start:stop], true))
			}
			start, _ = s.next(end)
			if end, err = s.value(start); err != nil {
				m.value = b[start:]
				yield(m)
				return
			}
			m.value, m.whole = b[start:end], true
			if !yield(m) {
				return
			}
			i, c = s.next(end)
		}
	}
}

// elements walks over the elements of the array in b for as long as it is one.
func elements(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		s := scanner{b: b}
		i, c := s.next(0)
		for opening := byte('['); c == opening; opening = ',' {
			start, _ := s.next(i + 1)
			end, err := s.value(start)
			if err != nil || !yield(b[start:end]) {
				return
			}
			i, c = s.next(end)
		}
	}
}

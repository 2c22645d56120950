package anthropic

// bodyReader reads a JSON body piece by piece and keeps only the members that a Result needs. It follows structure (strings, nesting,
// names) and does not judge grammar.
type bodyReader struct {
	depth  int  // open arrays and objects
	dead   bool // not an object, or the object is over: nothing more to read
	quoted bool // inside a string
	escape int8 // bytes of an escape sequence still to come; -1 directly after the backslash

	naming  bool          // the next string, or the current one, is a name
	content bool          // inside the top-level array content
	inBlock bool          // inside an object directly in it
	take    taking        // what to do with the bytes of the current value
	named   uint8         // length of the name
	name    [maxWord]byte // that name, or the one of the current value; raw, bounded
	level   int           // depth of the object whose member is taken
	kept    []byte        // the value taken, as far as it is not in the current piece or not in one part
	from    int           // offset in the current piece of the part of the value that is not in kept
	block   contentBlock
}

// taking is what happens to the bytes of a value.
type taking uint8

const (
	takeNothing taking = iota
	takeValue          // keep it
	takeText           // count the characters of the string
	takeInput          // count every byte: tool input
)

func (r *bodyReader) read(p []byte, g *reading) {
	r.from = 0
	for i := 0; i < len(p) && !r.dead; {
		if r.quoted {
			i = r.readString(p, i, g)
			continue
		}
		c := p[i]
		i++
		switch c {
		case ' ', '\t', '\n', '\r': // not kept
			r.keep(p[r.from : i-1])
			r.from = i
			continue
		case ',', '}', ']':
			r.end(c, p[:i-1], g)
			continue
		}
		if r.depth == 0 && c != '{' {
			r.dead = true
			return
		}
		if r.take == takeInput && c&0xC0 != 0x80 {
			g.Characters++
		}
		switch c {
		case '"':
			r.quoted = true
			if r.naming {
				r.named = 0
			}
		case ':':
			if r.naming {
				r.naming = false
				r.beginValue(i)
			}
		case '{', '[':
			r.open(c)
		}
	}
	r.keep(p[r.from:])
}

// keep keeps a part of a value that is taken.
func (r *bodyReader) keep(part []byte) {
	if r.take != takeValue || len(part) == 0 {
		return
	}
	if r.kept == nil {
		r.kept = make([]byte, 0, max(512, len(part))) // a usage object, mostly
	}
	r.kept = append(r.kept, part[:min(len(part), maxKept-len(r.kept))]...)
}

// open enters an array or object.
func (r *bodyReader) open(c byte) {
	r.depth++
	switch {
	case r.depth == 1:
		r.naming = true
	case r.depth == 2 && c == '[' && string(r.name[:r.named]) == "content":
		r.content = true
	case r.depth == 3 && c == '{' && r.content:
		r.naming, r.inBlock = true, true
		r.block = contentBlock{name: r.block.name[:0], to: r.block.to[:0]}
	}
}

// beginValue decides what to do with the value of the member just named, which begins at an offset of the current piece.
func (r *bodyReader) beginValue(from int) {
	r.level, r.kept, r.from = r.depth, r.kept[:0], from
	r.take = takeNothing
	name := string(r.name[:r.named])
	if r.depth == 1 {
		switch name {
		case "id", "type", "model", "stop_reason", "usage", "error":
			r.take = takeValue
		}
		return
	}
	switch name {
	case "type", "name", "to":
		r.take = takeValue
	case "text", "thinking":
		r.take = takeText
	case "input":
		r.take = takeInput
	}
}

// end handles a comma or a closing bracket. before is what stands before it in the current piece.
func (r *bodyReader) end(c byte, before []byte, g *reading) {
	member := r.depth == 1 || r.depth == 3 && r.inBlock // directly inside an object that is of interest
	if member && r.level == r.depth {
		r.endValue(before[r.from:], g)
	} else if r.take == takeInput {
		g.Characters++
	}
	if c == ',' {
		r.naming = member
		return
	}
	if r.depth == 3 && r.inBlock {
		g.block(r.block)
		r.inBlock = false
	}
	r.depth--
	r.naming = false
	switch r.depth {
	case 1:
		r.content = false
	case 0:
		r.dead = true
		g.Complete, g.ended = true, true
	}
}

// endValue hands a taken value on, of which last is the last part.
func (r *bodyReader) endValue(last []byte, g *reading) {
	if r.take == takeValue {
		value := last[:min(len(last), maxKept)]
		if len(r.kept) > 0 {
			r.keep(last)
			value = r.kept
		}
		m := member{name: r.name[:r.named], value: value, whole: len(value) > 0 && len(value) < maxKept}
		switch {
		case r.depth == 1:
			g.member(m)
		case string(m.name) == "type":
			r.block.kind = blockKindOf(m.text())
		case string(m.name) == "name":
			r.block.name = append(r.block.name[:0], m.text()...)
		case string(m.name) == "to":
			r.block.to = append(r.block.to[:0], m.value...)
		}
	}
	r.take, r.level = takeNothing, 0
	if cap(r.kept) > 4<<10 {
		r.kept = nil
	}
}

// readString reads the part of a string that is in p from i on, and returns where that ends.
func (r *bodyReader) readString(p []byte, i int, g *reading) int {
	start := i
	for i < len(p) && r.quoted {
		switch {
		case r.escape < 0: // the byte after a backslash
			r.escape = 0
			if p[i] == 'u' {
				r.escape = 4
			}
			i++
		case r.escape > 0:
			r.escape--
			i++
		case p[i] == '"':
			r.quoted = false
			i++
		default:
			n, follow := plainText(p[i:])
			if n == 0 { // an escape, or a control character
				if p[i] == '\\' {
					r.escape = -1
				}
				n = 1
			}
			if r.take == takeText && r.depth == r.level {
				g.Characters += int64(n - follow)
			}
			i += n
		}
	}
	part := p[start:i]
	if r.naming {
		name := part
		if !r.quoted {
			name = part[:len(part)-1]
		}
		r.named += uint8(copy(r.name[r.named:], name))
	}
	if r.take == takeInput {
		for _, c := range part {
			if c&0xC0 != 0x80 {
				g.Characters++
			}
		}
	}
	return i
}

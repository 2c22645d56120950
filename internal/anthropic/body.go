package anthropic

// bodyReader reads a JSON body piece by piece and keeps only the members that a Result needs. It follows structure (strings, nesting,
// names) and does not judge grammar.
type bodyReader struct {
	depth  int  // open arrays and objects
	dead   bool // not an object, or the object is over: nothing more to read
	quoted bool // inside a string
	escape int  // bytes of an escape sequence still to come; -1 directly after the backslash

	naming  bool   // the next string, or the current one, is a name
	name    []byte // that name, or the one of the current value; raw, bounded
	content bool   // inside the top-level array content
	inBlock bool   // inside an object directly in it
	take    taking // what to do with the bytes of the current value
	level   int    // depth of the object whose member is taken
	kept    []byte // the value taken
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
	for i := 0; i < len(p) && !r.dead; {
		if r.quoted {
			i += r.readString(p[i:], g)
			continue
		}
		c := p[i]
		i++
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		case ',', '}', ']':
			r.end(c, g)
			continue
		}
		if r.depth == 0 && c != '{' {
			r.dead = true
			return
		}
		r.put(p[i-1:i], g)
		switch c {
		case '"':
			r.quoted = true
			if r.naming {
				r.name = r.name[:0]
			}
		case ':':
			if r.naming {
				r.naming = false
				r.beginValue()
			}
		case '{', '[':
			r.open(c)
		}
	}
}

// open enters an array or object.
func (r *bodyReader) open(c byte) {
	r.depth++
	switch {
	case r.depth == 1:
		r.naming = true
	case r.depth == 2 && c == '[' && string(r.name) == "content":
		r.content = true
	case r.depth == 3 && c == '{' && r.content:
		r.naming, r.inBlock, r.block = true, true, contentBlock{}
	}
}

// beginValue decides what to do with the value of the member just named.
func (r *bodyReader) beginValue() {
	r.level, r.kept = r.depth, r.kept[:0]
	r.take = takeNothing
	name := string(r.name)
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

// put gives bytes of the current value to whoever takes them.
func (r *bodyReader) put(p []byte, g *reading) {
	switch r.take {
	case takeValue:
		r.kept = append(r.kept, p[:min(len(p), maxKept-len(r.kept))]...)
	case takeInput:
		for _, c := range p {
			if c&0xC0 != 0x80 {
				g.Characters++
			}
		}
	case takeNothing, takeText:
	}
}

// end handles a comma or a closing bracket.
func (r *bodyReader) end(c byte, g *reading) {
	member := r.depth == 1 || r.depth == 3 && r.inBlock // directly inside an object that is of interest
	if member && r.level == r.depth {
		r.endValue(g)
	} else if r.take != takeNothing {
		r.put([]byte{c}, g)
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

// endValue hands a taken value on.
func (r *bodyReader) endValue(g *reading) {
	if r.take == takeValue {
		m := member{name: r.name, value: r.kept, whole: len(r.kept) > 0 && len(r.kept) < maxKept}
		switch {
		case r.depth == 1:
			g.member(m)
		case string(m.name) == "type":
			r.block.kind = m.text()
		case string(m.name) == "name":
			r.block.name = m.text()
		case string(m.name) == "to":
			r.block.to = append([]byte(nil), m.value...)
		}
	}
	r.take, r.level = takeNothing, 0
	if cap(r.kept) > 4<<10 {
		r.kept = nil
	}
}

// readString reads the part of a string that is in p, and returns its length.
func (r *bodyReader) readString(p []byte, g *reading) int {
	i := 0
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
			n, stop := countPlain(p[i:])
			if stop == 0 { // an escape, or a control character
				if p[i] == '\\' {
					r.escape = -1
				}
				n, stop = 1, 1
			}
			if r.take == takeText && r.depth == r.level {
				g.Characters += n
			}
			i += stop
		}
	}
	if r.naming {
		part := p[:i]
		if !r.quoted {
			part = p[:i-1]
		}
		r.name = append(r.name, part[:min(len(part), maxWord-len(r.name))]...)
	}
	r.put(p[:i], g)
	return i
}

package anthropic

import (
	"bytes"
)

// kind is what an event of a Messages stream means to a Meter.
type kind uint8

const (
	kindOther kind = iota // ping, content_block_stop, and whatever comes in future
	kindStart
	kindBlock
	kindDelta
	kindMessageDelta
	kindStop
	kindError
)

func kindOf(name []byte) kind {
	switch string(name) {
	case "message_start":
		return kindStart
	case "content_block_start":
		return kindBlock
	case "content_block_delta":
		return kindDelta
	case "message_delta":
		return kindMessageDelta
	case "message_stop":
		return kindStop
	case "error":
		return kindError
	}
	return kindOther
}

// eventReader divides a stream into lines and events as the HTML standard says ("Server-sent events", parsing an event stream): lines end
// with LF, CR or CRLF, an event ends with an empty line, and an event that the end of the stream cuts off is none.
type eventReader struct {
	line    []byte // beginning of a line that the end of a write cut, at most maxKept bytes
	dropped int    // bytes of that line beyond
	cr      bool   // the last byte was a CR, so a LF directly after it ends nothing
	begun   bool   // the first line, which may start with a byte order mark, is over

	// The event being read.
	open bool // there were lines since the last empty one
	name kind
	data []byte // its data so far, when it is worth keeping; at most maxKept bytes
	fate fate
}

// fate is what happens to the data of an event.
type fate uint8

const (
	fateNone fate = iota // no data yet
	fateKeep             // kept until the event ends
	fateDone             // counted already, or of no interest
)

func (e *eventReader) between() bool {
	return !e.open && !e.cr && len(e.line) == 0
}

func (e *eventReader) read(p []byte, g *reading) {
	lf := -1 // position of the next LF in p, when ≥ 0; len(p) when there is none
	for at := 0; at < len(p); {
		if e.cr {
			e.cr = false
			if p[at] == '\n' {
				at++
				continue
			}
		}
		if n := e.readDelta(p[at:], g); n > 0 {
			at += n
			continue
		}
		if lf < at {
			if lf = bytes.IndexByte(p[at:], '\n'); lf < 0 {
				lf = len(p)
			} else {
				lf += at
			}
		}
		end := lf
		if i := bytes.IndexByte(p[at:lf], '\r'); i >= 0 {
			end = at + i
		}
		if end == len(p) {
			e.hold(p[at:])
			return
		}
		e.cr = p[end] == '\r'
		e.endLine(p[at:end], g)
		at = end + 1
	}
}

// hold keeps the beginning of a line whose end has not come yet.
func (e *eventReader) hold(p []byte) {
	n := min(len(p), maxKept-len(e.line))
	e.line = append(e.line, p[:n]...)
	e.dropped += len(p) - n
}

// endLine reads a line of which p is the rest.
func (e *eventReader) endLine(p []byte, g *reading) {
	if len(e.line) == 0 {
		n := min(len(p), maxKept)
		e.readLine(p[:n], len(p)-n, g)
		return
	}
	e.hold(p)
	e.readLine(e.line, e.dropped, g)
	if cap(e.line) > 4<<10 {
		e.line = nil // a long line is rare: do not hold its memory for the rest of the stream
	}
	e.line, e.dropped = e.line[:0], 0
}

// readLine reads a line without its end. dropped bytes at its end were not kept.
func (e *eventReader) readLine(line []byte, dropped int, g *reading) {
	if !e.begun {
		e.begun = true
		line = bytes.TrimPrefix(line, []byte("\xEF\xBB\xBF"))
	}
	if len(line) == 0 {
		e.endEvent(g)
		return
	}
	e.open = true
	switch {
	case hasPrefix(line, "data:"):
		e.readData(fieldValue(line[len("data:"):]), dropped, g)
	case hasPrefix(line, "event:"):
		e.name = kindOf(fieldValue(line[len("event:"):]))
	case string(line) == "data":
		e.readData(nil, 0, g)
	}
}

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

func fieldValue(b []byte) []byte {
	if len(b) > 0 && b[0] == ' ' {
		return b[1:]
	}
	return b
}

// readData reads a data line. The first one usually tells by its beginning what to do with the event, so that the many deltas are counted
// on the spot and what is of no interest is not kept.
func (e *eventReader) readData(value []byte, dropped int, g *reading) {
	switch e.fate {
	case fateDone:
		return
	case fateKeep:
		if len(e.data) < maxKept {
			e.data = append(e.data, '\n')
		}
	case fateNone:
		e.fate = fateKeep
		typ, rest := leadingType(value)
		if typ == nil {
			break
		}
		switch kindOf(typ) {
		case kindDelta:
			if n, after, ok := countDelta(rest); ok && (after != nil || dropped > 0) {
				g.Characters += n + int64(dropped)
				e.fate = fateDone
				return
			}
		case kindOther:
			e.fate = fateDone
			return
		case kindStart, kindBlock, kindMessageDelta, kindStop, kindError:
		}
	}
	n := min(len(value), maxKept-len(e.data))
	e.data = append(e.data, value[:n]...)
}

func (e *eventReader) endEvent(g *reading) {
	switch e.fate {
	case fateNone:
	case fateDone:
		g.Events++
	case fateKeep:
		g.Events++
		g.event(e.name, e.data)
	}
	if cap(e.data) > 4<<10 {
		e.data = nil
	}
	e.open, e.name, e.data, e.fate = false, kindOther, e.data[:0], fateNone
}

// leadingType returns the type of event data that begins with it, as the API's does, and what follows; nil when it does not.
func leadingType(data []byte) (typ, rest []byte) {
	data, ok := cutToken(data, '{', `"type"`)
	if !ok {
		return nil, nil
	}
	if data, ok = cutToken(data, ':', `"`); !ok {
		return nil, nil
	}
	end := bytes.IndexByte(data[:min(len(data), maxWord)], '"')
	if end < 0 {
		return nil, nil
	}
	return data[:end], data[end+1:]
}

// cutToken cuts a punctuation mark, at most one space and text from the start of b.
func cutToken(b []byte, mark byte, text string) ([]byte, bool) {
	if len(b) == 0 || b[0] != mark {
		return b, false
	}
	b = fieldValue(b[1:])
	if !hasPrefix(b, text) {
		return b, false
	}
	return b[len(text):], true
}

// countDelta counts the characters in a content_block_delta of the usual form, of which b is what follows its type:
//
//	,"index":0,"delta":{"type":"text_delta","text":"…"}}
//
// ok is false for another form. after is what follows the string, nil when the string does not end.
func countDelta(b []byte) (n int64, after []byte, ok bool) {
	if b, ok = cutToken(b, ',', `"index"`); !ok || len(b) == 0 || b[0] != ':' {
		return 0, nil, false
	}
	b = fieldValue(b[1:])
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		b = b[1:]
	}
	if b, ok = cutToken(b, ',', `"delta"`); !ok || len(b) == 0 || b[0] != ':' {
		return 0, nil, false
	}
	typ, b := leadingType(fieldValue(b[1:]))
	switch string(typ) {
	case "text_delta":
		b, ok = cutToken(b, ',', `"text"`)
	case "thinking_delta":
		b, ok = cutToken(b, ',', `"thinking"`)
	case "input_json_delta":
		b, ok = cutToken(b, ',', `"partial_json"`)
	case "signature_delta", "citations_delta": // not output that anybody reads
		return 0, b, true
	default:
		return 0, nil, false
	}
	if !ok {
		return 0, nil, false
	}
	if b, ok = cutToken(b, ':', `"`); !ok {
		return 0, nil, false
	}
	n, after = countString(b)
	return n, after, true
}

// readDelta is a short cut for what nearly all events of a stream are: a whole content_block_delta, exactly as the API writes it. It
// returns the length of that event at the start of p, or 0 when there is anything else. It comes to the same as reading line by line.
func (e *eventReader) readDelta(p []byte, g *reading) int {
	const start = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\""
	if e.open || len(e.line) > 0 || !hasPrefix(p, start) {
		return 0
	}
	n, after, ok := countDelta(p[len(start):])
	if !ok || after == nil {
		return 0
	}
	for len(after) > 0 && (after[0] == '}' || after[0] == ' ') {
		after = after[1:]
	}
	if !hasPrefix(after, "\n\n") {
		return 0
	}
	size := len(p) - len(after) + len("\n\n")
	if size > maxKept {
		return 0 // of so long a line not everything is counted
	}
	e.begun = true
	g.Characters += n
	g.Events++
	return size
}

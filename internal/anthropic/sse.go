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
		fresh := !e.open && len(e.line) == 0
		if fresh {
			if n := e.readDelta(p[at:], g); n > 0 {
				at += n
				continue
			}
		}
		if lf < at {
			if lf = bytes.IndexByte(p[at:], '\n'); lf < 0 {
				lf = len(p)
			} else {
				lf += at
			}
		}
		if fresh && lf < len(p) {
			if n := e.readWhole(p[at:], lf-at, g); n > 0 {
				at += n
				continue
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
	if cap(e.line) > maxIdle {
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
		if g.skim(value, dropped) {
			e.fate = fateDone
			return
		}
		e.fate = fateKeep
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
	// Few events of a stream are kept: do not hold the memory of one for the rest of the stream.
	e.open, e.name, e.data, e.fate = false, kindOther, nil, fateNone
}

// skim reads event data that tells by its beginning that nothing is to be kept of it: the many deltas, which are counted, and what is of no
// interest. dropped bytes at its end were not kept.
func (g *reading) skim(data []byte, dropped int) bool {
	typ, rest := leadingType(data)
	if typ == nil {
		return false
	}
	switch kindOf(typ) {
	case kindDelta:
		n, after, ok := countDelta(rest)
		if !ok || after == nil && dropped == 0 {
			return false
		}
		g.Characters += n + int64(dropped)
		return true
	case kindOther:
		return true
	case kindStart, kindBlock, kindMessageDelta, kindStop, kindError:
	}
	return false
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

// readWhole is a short cut for an event in the form in which the API writes it, of which nothing is missing in p: a name, up to lf, one line
// of data, and lines that end with LF. It returns the length of that event at the start of p, or 0 when there is anything else. It comes to
// the same as reading line by line, and keeps nothing.
func (e *eventReader) readWhole(p []byte, lf int, g *reading) int {
	const event, data = "event: ", "data: "
	if !hasPrefix(p, event) || !hasPrefix(p[lf+1:], data) {
		return 0
	}
	start := lf + 1 + len(data)
	end := start + bytes.IndexByte(p[start:], '\n')
	if end < start || !hasPrefix(p[end:], "\n\n") || end-lf > maxKept || bytes.IndexByte(p[:end], '\r') >= 0 {
		return 0
	}
	e.begun = true
	g.Events++
	if !g.skim(p[start:end], 0) {
		g.event(kindOf(p[len(event):lf]), p[start:end])
	}
	return end + len("\n\n")
}

// readDelta is a shorter cut for what nearly all events of a stream are: a content_block_delta, to the last byte as the API writes it.
func (e *eventReader) readDelta(p []byte, g *reading) int {
	const (
		start  = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":"
		middle = `,"delta":{"type":"`
		text   = `text_delta","text":"`
		think  = `thinking_delta","thinking":"`
		input  = `input_json_delta","partial_json":"`
	)
	if !hasPrefix(p, start) {
		return 0
	}
	b := p[len(start):]
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		b = b[1:]
	}
	if !hasPrefix(b, middle) {
		return 0
	}
	switch b = b[len(middle):]; {
	case hasPrefix(b, text):
		b = b[len(text):]
	case hasPrefix(b, input):
		b = b[len(input):]
	case hasPrefix(b, think):
		b = b[len(think):]
	default:
		return 0
	}
	n, b := countString(b)
	end := len("}}")
	if !hasPrefix(b, "}}\n\n") { // there are spaces in it, mostly
		if end = bytes.IndexByte(b, '\n'); end < 0 || !hasPrefix(b[end:], "\n\n") || bytes.IndexByte(b[:end], '\r') >= 0 {
			return 0
		}
	}
	size := len(p) - len(b) + end + len("\n\n")
	if size > maxKept {
		return 0 // of so long a line not everything is counted
	}
	e.begun = true
	g.Characters += n
	g.Events++
	return size
}

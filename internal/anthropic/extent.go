package anthropic

import (
	"bytes"
	"strconv"
)

// Extent is how much a request can use at most, as far as its body tells.
type Extent struct {
	Prompt    int64 // tokens, never below what the upstream counts
	ShortLife bool  // nothing asks for a cache lifetime beyond five minutes
	GlobalGeo bool  // inference_geo is "global"

	// Unbounded says why the body tells no bound, for people; "" when it does. It is what lets the server run the model several times, or
	// run other models, and tools whose results become part of the prompt.
	Unbounded string
}

const (
	// No token is shorter than a byte of the text, and the JSON around a text is longer than what the model reads in its place. What the API
	// adds of its own accord is far below these.
	ownPrompt     = 1024 // tokens
	ownToolPrompt = 4096

	imageBound = 8_000     // tokens: an image is scaled down to fewer than 5 000
	context    = 1_000_000 // the longest: a PDF can fill it, whatever its size
)

// What is looked for heavy blocks. The API takes some hundred images in a request and 100 000 messages; what goes far beyond costs it nothing
// to refuse, and must not cost much here.
const (
	maxHeavy  = 1000
	maxBlocks = 50_000
	maxLevels = 4 // of blocks inside each other: each is walked over once more. The API knows of two
)

// extent is what Peek finds out about the Extent of a request.
type extent struct {
	longLife   bool // something may ask for a cache lifetime beyond five minutes
	globalGeo  bool
	unbounded  string
	serverTool int // as in scanner
	heavy      int // as in scanner
	system     span
	messages   span
}

// member looks at a top-level member that is not part of the prompt.
func (x *extent) member(name, value []byte) {
	switch string(name) {
	case "inference_geo":
		x.globalGeo = string(value) == `"global"`
	case "mcp_servers", "fallbacks", "container":
		if string(value) != "null" && string(value) != "[]" {
			x.unbound(string(name))
		}
	case "context_management":
		if bytes.Contains(value, []byte("compact")) || bytes.Contains(value, []byte(`\u`)) {
			x.unbound("compaction by the server")
		}
	}
	x.longLife = x.longLife || bytes.Contains(value, []byte(nameTTL)) || bytes.Contains(value, []byte(`\u`))
}

func (x *extent) unbound(why string) {
	if x.unbounded == "" {
		x.unbounded = why
	}
}

// finish takes over what the scanner noticed in the prompt.
func (x *extent) finish(p *peeker) {
	x.longLife = x.longLife || p.s.ttl
	x.serverTool = p.s.serverTool
	if p.s.heavy > 0 {
		x.heavy, x.system, x.messages = p.s.heavy, p.system.span, p.messages.span
	}
}

// Measure returns how much the request can use at most. body must be the one that r was made from.
func (r *Request) Measure(body []byte) Extent {
	x := &r.extent
	m := measure{Extent: Extent{
		Prompt: int64(len(body)) + ownPrompt, ShortLife: !x.longLife, GlobalGeo: x.globalGeo, Unbounded: x.unbounded,
	}}
	if r.HasTools {
		m.Prompt += ownToolPrompt - ownPrompt
	}
	if at := x.serverTool; at > 0 && m.Unbounded == "" {
		m.Unbounded = "the server's tool " + toolType(body[at:])
	}
	switch {
	case x.heavy == 0 || m.Unbounded != "":
	case x.heavy > maxHeavy:
		m.Unbounded = "more than " + strconv.Itoa(maxHeavy) + " images and documents"
	default:
		m.blocks(body[x.system.start:x.system.end])
		for message := range elements(body[x.messages.start:x.messages.end]) {
			m.inside(message)
		}
		if m.found != x.heavy {
			m.unbound("media in blocks that are not known")
		}
	}
	return m.Extent
}

// ofClient reports whether b begins with the type of a tool that the client runs: those are as long as they are written. What is written
// with escapes is not recognised.
func ofClient(b []byte) bool {
	for _, own := range []string{`"custom`, `"bash_`, `"text_editor_`, `"computer_`, `"memory_`, `""`} {
		if hasPrefix(b, own) {
			return true
		}
	}
	return false
}

// toolType is the type of a tool, with which b begins, for people.
func toolType(b []byte) string {
	s := scanner{b: b}
	end, err := s.value(0)
	return string(bounded(member{value: b[:end], whole: err == nil}.text(), 60))
}

// isHeavy reports whether a type, a string without its quotes, may be that of a block that is more tokens than bytes: media, what may be
// divided for citations, and what stands for a text elsewhere.
func isHeavy(text []byte) bool {
	switch string(text) {
	case "image", "document", "search_result", "tool_reference":
		return true
	}
	return bytes.IndexByte(text, '\\') >= 0
}

// measure is one walk over the blocks of a prompt. It stops where it finds no bound.
type measure struct {
	Extent
	found   int  // types of heavy blocks
	walked  int  // messages and blocks
	level   int  // of blocks inside each other
	context bool // it is counted: whatever fills it shares it
}

func (m *measure) unbound(why string) {
	if m.Unbounded == "" {
		m.Unbounded = why
	}
}

// walk counts a message or block, and reports whether to go on.
func (m *measure) walk() bool {
	if m.walked++; m.walked > maxBlocks {
		m.unbound("more than " + strconv.Itoa(maxBlocks) + " blocks")
	}
	return m.Unbounded == ""
}

// kind is the type of a block or source.
func (m *measure) kind(of member) string {
	if of.whole && len(of.value) >= 2 && of.value[0] == '"' && isHeavy(of.value[1:len(of.value)-1]) {
		m.found++
	}
	return string(of.text())
}

// fill counts the longest context, once.
func (m *measure) fill() {
	if !m.context {
		m.context = true
		m.Prompt += context
	}
}

// inside looks at the blocks of a message.
func (m *measure) inside(message []byte) {
	if !m.walk() {
		return
	}
	for part := range members(message) {
		if string(part.name) == "content" {
			m.blocks(part.value)
		}
	}
}

// blocks looks at the blocks of a content.
func (m *measure) blocks(content []byte) {
	if m.level == maxLevels {
		m.unbound("blocks deep inside each other")
	}
	m.level++
	for block := range elements(content) {
		if !m.walk() {
			break
		}
		m.block(block)
	}
	m.level--
}

func (m *measure) block(block []byte) {
	var image, document, results, result, call bool
	var source, content, input, citations []byte
	for part := range members(block) {
		var into *[]byte
		switch string(part.name) {
		case "type": // where there are two, each counts
			switch m.kind(part) {
			case "image":
				image = true
			case "document":
				document = true
			case "search_result":
				results = true
			case "tool_result":
				result = true
			case "tool_use", "server_tool_use", "mcp_tool_use":
				call = true
			case "tool_reference":
				m.fill()
			}
		case "source":
			into = &source
		case "content":
			into = &content
		case "input":
			into = &input
		case "citations":
			into = &citations
		}
		if into != nil {
			if *into != nil {
				m.unbound("a block with two members of the same name")
			}
			*into = part.value
		}
	}
	if image {
		m.Prompt += imageBound
	}
	if image || document {
		m.source(source, document)
	}
	if (document || results) && (bytes.Contains(citations, []byte("true")) || bytes.IndexByte(citations, '\\') >= 0) {
		m.fill() // a text is divided for them
	}
	if results || result {
		m.blocks(content)
	}
	if call { // it is as long as it is written, whatever it looks like
		s := scanner{b: input, prompt: promptText}
		_, _ = s.value(0)
		m.found += s.heavy
	}
}

// source looks at the source of a document or image. That of a document may be text or blocks, which are as long as they are written.
func (m *measure) source(source []byte, document bool) {
	written, encoded, data := false, false, int64(0)
	for part := range members(source) {
		switch string(part.name) {
		case "type":
			switch m.kind(part) {
			case "text", "content":
				written = true
			default:
				encoded = true
			}
		case "content":
			if document {
				m.blocks(part.value)
			}
		case "data":
			if part.whole && len(part.value) >= 2 && part.value[0] == '"' && isBase64(part.value[1:len(part.value)-1]) {
				data = int64(len(part.value)) - 2
			}
		}
	}
	if document {
		if written && !encoded {
			return
		}
		m.fill()
	}
	m.Prompt -= data
}

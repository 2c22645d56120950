package anthropic

import "bytes"

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

	imageBound    = 8_000     // tokens: an image is scaled down to fewer than 5 000
	documentBound = 1_000_000 // a PDF can fill the longest context, whatever its size
)

// extent is what Peek finds out about the Extent of a request.
type extent struct {
	longLife   bool // something may ask for a cache lifetime beyond five minutes
	globalGeo  bool
	unbounded  string
	serverTool int  // as in scanner
	media      bool // system or messages may have blocks of media
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
	if p.s.blocks {
		x.media, x.system, x.messages = true, p.system.span, p.messages.span
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
	if x.media {
		m.blocks(body[x.system.start:x.system.end])
		for message := range elements(body[x.messages.start:x.messages.end]) {
			m.inside(message)
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

// ofMedia reports whether a type, a string without its quotes, may be that of a block of media.
func ofMedia(text []byte) bool {
	return string(text) == "image" || string(text) == "document" || bytes.IndexByte(text, '\\') >= 0
}

// maxBlocks bounds how deep blocks may stand in each other: each level is walked over once more. The API knows of two.
const maxBlocks = 4

type measure struct {
	Extent
	documents bool
	depth     int
}

// blocks looks for media among the blocks of a content. Where a name occurs twice in a block, each of its values counts.
func (m *measure) blocks(content []byte) {
	if m.depth == maxBlocks {
		m.Unbounded = "blocks deep inside each other"
		return
	}
	m.depth++
	defer func() { m.depth-- }()
	for block := range elements(content) {
		var image, document, result bool
		for part := range members(block) {
			if string(part.name) == "type" {
				kind := string(part.text())
				image, document, result = image || kind == "image", document || kind == "document", result || kind == "tool_result"
			}
		}
		if image {
			m.Prompt += imageBound
		}
		for part := range members(block) {
			switch name := string(part.name); {
			case name == "source" && document:
				m.document(part.value)
			case name == "source" && image:
				m.Prompt -= data(part.value)
			case name == "content" && result:
				m.blocks(part.value)
			}
		}
	}
}

// inside looks for media in the content of a message or document.
func (m *measure) inside(object []byte) {
	for part := range members(object) {
		if string(part.name) == "content" {
			m.blocks(part.value)
		}
	}
}

// document looks at the source of a document: texts and blocks are as long as they are written.
func (m *measure) document(source []byte) {
	written, encoded := false, false
	for part := range members(source) {
		if string(part.name) == "type" {
			switch string(part.text()) {
			case "text", "content":
				written = true
			default:
				encoded = true
			}
		}
	}
	m.inside(source)
	if written && !encoded {
		return
	}
	m.Prompt -= data(source)
	if !m.documents { // they share one context
		m.documents = true
		m.Prompt += documentBound
	}
}

// data is the length of the base64 text in a source.
func data(source []byte) (n int64) {
	for part := range members(source) {
		if string(part.name) == "data" && part.whole && len(part.value) >= 2 && part.value[0] == '"' && isBase64(part.value[1:len(part.value)-1]) {
			n = int64(len(part.value)) - 2
		}
	}
	return n
}

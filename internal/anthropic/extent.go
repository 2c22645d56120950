package anthropic

import (
	"bytes"
	"strings"
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

	imageBound    = 8_000     // tokens: an image is scaled down to fewer than 5 000
	documentBound = 1_000_000 // a PDF can fill the longest context, whatever its size
)

// Measure reads the Extent from the body of a request that Peek has accepted. It looks at every block of the prompt, so it is for
// requests of which somebody must know.
func Measure(body []byte) Extent {
	m := measure{Extent: Extent{Prompt: int64(len(body)) + ownPrompt, ShortLife: !bytes.Contains(body, []byte("ttl")) && !bytes.Contains(body, []byte(`\u00`))}}
	for top := range members(body) {
		switch string(top.name) {
		case "tools":
			m.Prompt += ownToolPrompt - ownPrompt
			for tool := range elements(top.value) {
				m.tool(tool)
			}
		case "messages":
			for message := range elements(top.value) {
				for part := range members(message) {
					if string(part.name) == "content" {
						m.blocks(part.value)
					}
				}
			}
		case "system":
			m.blocks(top.value)
		case "inference_geo":
			m.GlobalGeo = string(top.text()) == "global"
		case "mcp_servers", "fallbacks", "container":
			if string(top.value) != "null" && string(top.value) != "[]" {
				m.unbounded(string(top.name))
			}
		case "context_management":
			if bytes.Contains(top.value, []byte("compact")) || bytes.Contains(top.value, []byte(`\u`)) {
				m.unbounded("compaction by the server")
			}
		}
	}
	return m.Extent
}

type measure struct {
	Extent
	documents bool
}

func (m *measure) unbounded(what string) {
	if m.Unbounded == "" {
		m.Unbounded = what
	}
}

// tool looks at the definition of a tool: those that the client runs are as long as they are written.
func (m *measure) tool(definition []byte) {
	for part := range members(definition) {
		if string(part.name) != "type" {
			continue
		}
		kind := string(part.text())
		for _, own := range []string{"custom", "bash_", "text_editor_", "computer_", "memory_"} {
			if strings.HasPrefix(kind, own) {
				return
			}
		}
		if kind != "" || part.text() == nil && string(part.value) != "null" {
			m.unbounded("the server's tool " + string(bounded([]byte(kind), 60)))
		}
	}
}

// blocks looks for media among the blocks of a content.
func (m *measure) blocks(content []byte) {
	for block := range elements(content) {
		var kind string
		var source, inner []byte
		for part := range members(block) {
			switch string(part.name) {
			case "type":
				kind = string(part.text())
			case "source":
				source = part.value
			case "content":
				inner = part.value
			}
		}
		switch kind {
		case "image":
			m.Prompt += imageBound - data(source)
		case "document":
			m.document(source)
		case "tool_result":
			m.blocks(inner)
		}
	}
}

// document looks at a document: texts and blocks are as long as they are written.
func (m *measure) document(source []byte) {
	for part := range members(source) {
		switch string(part.name) {
		case "type":
			switch string(part.text()) {
			case "text":
				return
			case "content":
				for inner := range members(source) {
					if string(inner.name) == "content" {
						m.blocks(inner.value)
					}
				}
				return
			}
		}
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

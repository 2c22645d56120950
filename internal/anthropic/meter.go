package anthropic

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// PingEvent is a server-sent event without meaning that resets the idle timers of clients. It may be put between two events of a stream:
// see [Meter.Between].
const PingEvent = "event: ping\ndata: {\"type\": \"ping\"}\n\n"

// Bounds of what a Meter keeps.
const (
	maxKept         = 256 << 10 // bytes of one event or of one member of a JSON body
	maxIdle         = 256       // bytes that a buffer holds while it is not in use
	maxToolName     = 128
	maxTools        = 64 // distinct names
	maxErrorMessage = 512
)

// ToolCount is how often a response called a tool.
type ToolCount struct {
	Name  string `json:"name"`  // at most 128 bytes of [0-9A-Za-z_.-]
	Count int    `json:"count"` // ≥ 1
}

// Result is what a Meter has read so far.
type Result struct {
	Usage        Usage
	MessageID    string // "msg_…"
	Model        string // as the response names it
	ServingModel string // the model that produced the message: after a fallback another than Model
	StopReason   string // "end_turn", "tool_use", "refusal", …
	ErrorType    string // of an error body or an error event
	ErrorMessage string // for the operator; at most 512 bytes, may quote the request

	Tools          []ToolCount // in the order of their first call; at most 64 names
	FileOperations int         // calls of the tools by which Claude Code reads and writes files

	Started  bool // a message has begun
	Complete bool // the response is whole: message_stop, or a message_delta with a stop reason; for JSON the end of the object

	PromptStated bool // a report of usage told what the prompt cost, be it nothing
	OutputStated bool // one told what the whole answer cost: not that of a message_start, which is preliminary

	Characters int64 // of text, thinking and tool input, as sent
	Blocks     int   // content blocks begun
	Events     int64 // server-sent events with data
	// Raw is the usage object as JSON, what later events stated merged into what the first one stated. nil when there was none, or it was
	// longer than 16 KiB or had more than 128 members. It must not be changed.
	Raw []byte
}

// Settled is the usage to settle with, and whether it is an estimate because the response is not whole, does not state what it cost, or
// states counts that are none. The true output of a response that was cut is not known; it is at least what was last stated and about one
// token for every four characters that were sent, of which there cannot be more than the request's max_tokens (0: not stated). The prompt of
// a response that does not report it (see PromptReported) is for the caller to guess.
func (r Result) Settled(maxTokens int64) (u Usage, estimated bool) {
	u = r.Usage
	doubtful, unknown := unread(r.Raw)
	if r.Complete && (r.OutputStated || !r.Started) && !unknown {
		return u, doubtful || !r.PromptReported()
	}
	sent := (r.Characters + 3) / 4
	if maxTokens > 0 {
		sent = min(sent, maxTokens)
	}
	if sent <= u.Output && !unknown {
		return u, true
	}
	u.Output = max(u.Output, sent)
	// Iterations win over the top level when there are any: the message itself is the last of its kind.
	if it := u.message(); it != nil {
		it.Output = max(it.Output, sent)
	}
	return u, true
}

// PromptReported reports whether what a message says of its prompt is to be believed. Some endpoints begin with zeros and say the truth at
// the end.
func (r *Result) PromptReported() bool {
	return !r.Started || r.PromptStated && (r.Complete || r.Usage.Prompt() > 0 || len(r.Usage.Iterations) > 0)
}

// Unreported reports whether a whole message does not say what it cost.
func (r *Result) Unreported() bool {
	return r.Started && r.Complete && (!r.PromptStated || !r.OutputStated)
}

// Uncharged reports whether the message is a refusal before any output: it states token counts and costs nothing.
func (r Result) Uncharged() bool {
	if r.StopReason != "refusal" || r.Blocks > 0 || r.Characters > 0 {
		return false
	}
	for _, it := range r.Usage.Iterations {
		if it.Output > 0 {
			return false
		}
	}
	return true
}

// Meter reads a response over the shoulder of its relay. It never fails and never blocks; what it does not understand costs precision
// only. Most events of a stream cost it no memory; it keeps less than a megabyte at worst and less than a kilobyte for an ordinary stream.
// The way in which a response is divided into writes has no influence on the result. A Meter is for one response and one goroutine.
type Meter struct {
	body   *bodyReader // nil for a stream
	events eventReader
	got    reading
}

// NewMeter returns a meter for a response with the given Content-Type: server-sent events for text/event-stream, else a JSON body, of which
// it keeps no more than usage, names and stop reason. The bytes written must be those after decoding any Content-Encoding.
func NewMeter(contentType string) *Meter {
	if IsStream(contentType) {
		return &Meter{}
	}
	both := &struct { // in one allocation
		m Meter
		b bodyReader
	}{}
	both.m.body = &both.b
	return &both.m
}

// IsStream reports whether a Content-Type is that of server-sent events.
func IsStream(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
}

// Write reads the next bytes of the response. It always returns len(p) and nil, and does not keep p.
func (m *Meter) Write(p []byte) (int, error) {
	if m.body == nil {
		m.events.read(p, &m.got)
	} else {
		m.body.read(p, &m.got)
	}
	return len(p), nil
}

// Between reports whether the bytes so far end exactly between two server-sent events, so that another one may be put there. Before the
// first byte they do.
func (m *Meter) Between() bool { return m.body == nil && m.events.between() }

// Ended reports whether the response has said its last word: message_stop, or the end of the JSON object. Unlike Complete it leaves no
// room for a further message_delta.
func (m *Meter) Ended() bool { return m.got.ended }

// Started is that of Result, for those who ask often.
func (m *Meter) Started() bool { return m.got.Started }

// Characters is that of Result, for those who ask often.
func (m *Meter) Characters() int64 { return m.got.Characters }

// Result returns what has been read so far. It may be called at any time and more than once.
func (m *Meter) Result() Result {
	r := m.got.Result
	r.Tools = slices.Clone(r.Tools) // what else it refers to is never written again
	r.ServingModel = r.Model
	if m.got.fallback != "" {
		r.ServingModel = m.got.fallback
	}
	for _, it := range r.Usage.Iterations {
		if it.Type == "fallback_message" && it.Model != "" {
			r.ServingModel = it.Model
		}
	}
	return r
}

// reading collects a Result from the events of a stream or the members of a body.
type reading struct {
	Result
	ended    bool   // nothing that counts can follow
	fallback string // model named by a fallback block
}

// event reads one server-sent event. name is its event field; the type in the data has precedence.
func (g *reading) event(name kind, data []byte) {
	var message, usage, delta, block, failure []byte
	for m := range members(data) {
		switch string(m.name) {
		case "type":
			if m.whole {
				name = kindOf(m.text())
			}
		case "message":
			message = m.value
		case "usage":
			usage = m.value
		case "delta":
			delta = m.value
		case "content_block":
			block = m.value
		case "error":
			failure = m.value
		}
	}
	switch name {
	case kindStart:
		g.begin(message)
	case kindBlock:
		g.contentBlock(block)
	case kindDelta:
		g.content(delta)
	case kindMessageDelta:
		for m := range members(delta) {
			if string(m.name) == "stop_reason" && len(m.text()) > 0 {
				g.StopReason = word(m.text())
				g.Complete = true
			}
		}
		g.usage(usage)
	case kindStop:
		g.Complete, g.ended = true, true
	case kindError:
		g.failure(failure)
	case kindOther:
	}
}

// begin reads the message of a message_start. A second one is a fault of the upstream; the last one counts.
func (g *reading) begin(message []byte) {
	g.Started, g.Complete = true, false
	g.Usage, g.Raw, g.StopReason = Usage{}, nil, ""
	g.PromptStated = false
	for m := range members(message) {
		g.member(m)
	}
	g.OutputStated = false
}

// member reads a member of a message, or of an error body.
func (g *reading) member(m member) {
	switch string(m.name) {
	case "id":
		g.MessageID = string(bounded(m.text(), maxToolName))
	case "model":
		g.Model = string(bounded(m.text(), maxModel))
	case "type":
		g.Started = g.Started || string(m.text()) == "message"
	case "stop_reason":
		g.StopReason = word(m.text())
	case "usage":
		g.usage(m.value)
	case "error":
		g.failure(m.value)
	}
}

func (g *reading) usage(object []byte) {
	prompt, output := g.Usage.update(object)
	g.PromptStated, g.OutputStated = g.PromptStated || prompt, g.OutputStated || output
	g.Raw = mergeUsage(g.Raw, object)
}

func (g *reading) failure(object []byte) {
	for m := range members(object) {
		switch string(m.name) {
		case "type":
			m.word(&g.ErrorType)
		case "message":
			g.ErrorMessage = string(bounded(m.text(), maxErrorMessage))
		}
	}
}

// contentBlock reads the block of a content_block_start.
func (g *reading) contentBlock(block []byte) {
	var b contentBlock
	for m := range members(block) {
		switch string(m.name) {
		case "type":
			b.kind = blockKindOf(m.text())
		case "name":
			b.name = m.text()
		case "to":
			b.to = m.value
		}
	}
	g.block(b)
}

// contentBlock is what matters of a content block.
type contentBlock struct {
	kind blockKind
	name []byte // of a tool
	to   []byte // of a fallback block: {"model":"…"}
}

// blockKind is what a content block means to a Meter.
type blockKind uint8

const (
	blockOther      blockKind = iota
	blockTool                 // called by the client
	blockServerTool           // called by the API or through it
	blockFallback
)

func blockKindOf(name []byte) blockKind {
	switch string(name) {
	case "tool_use":
		return blockTool
	case "server_tool_use", "mcp_tool_use":
		return blockServerTool
	case "fallback":
		return blockFallback
	}
	return blockOther
}

func (g *reading) block(b contentBlock) {
	g.Blocks++
	switch b.kind {
	case blockTool:
		switch string(b.name) {
		case "Read", "Write", "Edit", "MultiEdit", "NotebookEdit", "NotebookRead":
			g.FileOperations++
		}
		g.tool(b.name)
	case blockServerTool:
		g.tool(b.name)
	case blockFallback:
		for m := range members(b.to) {
			if string(m.name) == "model" {
				g.fallback = string(bounded(m.text(), maxModel))
			}
		}
	case blockOther:
	}
}

// tool counts a call. What is unusual in a name becomes an underscore.
func (g *reading) tool(name []byte) {
	clean := make([]byte, 0, maxToolName)
	for len(name) > 0 && len(clean) < maxToolName {
		r, n := utf8.DecodeRune(name)
		if r < utf8.RuneSelf && isAlnum(byte(r)) || r == '-' || r == '.' {
			clean = append(clean, byte(r))
		} else {
			clean = append(clean, '_')
		}
		name = name[n:]
	}
	for i := range g.Tools {
		if g.Tools[i].Name == string(clean) {
			g.Tools[i].Count++
			return
		}
	}
	if len(g.Tools) < maxTools {
		g.Tools = append(g.Tools, ToolCount{string(clean), 1})
	}
}

// content counts the characters of the delta of a content_block_delta.
func (g *reading) content(delta []byte) {
	for m := range members(delta) {
		switch string(m.name) {
		case "text", "thinking", "partial_json":
			if len(m.value) > 0 && m.value[0] == '"' {
				n, _ := countString(m.value[1:])
				g.Characters += n
			}
		}
	}
}

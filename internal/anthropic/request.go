package anthropic

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of the values that are kept. They are what the API accepts or more; a longer value is refused where policy depends on it and
// ignored elsewhere.
const (
	maxModel   = 256
	maxUserID  = 4096
	maxWord    = 64
	maxMembers = 256 // of the request body, and of metadata
)

// Request is what the gateway knows about the body of a Messages or count_tokens request. It refers to the body by offsets only and
// does not keep it alive.
type Request struct {
	Model       string // as the client wrote it; never empty
	Stream      bool
	MaxTokens   int64  // 0 when absent
	UserID      string // metadata.user_id; "" when absent
	HasSystem   bool   // there is a member "system", whatever its value
	HasTools    bool   // there is a member "tools" that is not null
	LongLife    bool   // something is to be cached, and all of it for an hour
	ToolCount   int    // elements of tools
	Speed       string // "" when absent or not a short string; likewise ServiceTier
	ServiceTier string

	Bytes int // length of the body
	// CachedPrefix is how many of those bytes may be read from or written to the prompt cache: everything up to the last breakpoint
	// (cache_control) in the order in which the model reads a prompt, which is tools, system, messages, however the body orders them. The
	// other Bytes-CachedPrefix bytes are certainly uncached input. 0 without any breakpoint; Bytes when the body asks for automatic
	// caching by a top-level cache_control.
	CachedPrefix int
	// Media is how many bytes are base64 data in the prompt (images, PDF), whose cost in tokens has little to do with their length.
	Media int

	model span // the value, with its quotes

	extent extent
}

type span struct{ start, end int }

// lookalike reports whether name is one of the names that mean something to the gateway or its operator, but for letter case: some readers
// take such a name for the real one and some do not.
func lookalike(name []byte) bool {
	if !slices.ContainsFunc(name, func(c byte) bool { return 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf }) {
		return false // already in lower case: it is a known name itself or none
	}
	for _, known := range [...]string{
		"model", "messages", "system", "tools", "tool_choice", "stream", "max_tokens", "metadata", "user_id", "thinking", "speed",
		"service_tier", "inference_geo", "cache_control", "output_config", "context_management", "container", "mcp_servers", "fallbacks",
		"stop_sequences", "temperature", "top_p", "top_k", "safeguards", "tags", "anthropic_version", "anthropic_beta",
	} {
		if bytes.EqualFold(name, []byte(known)) {
			return true
		}
	}
	return false
}

// Peek reads what the gateway needs from the body of a Messages request, in one scan that builds nothing else.
//
// The error is an [*Error] with status 400 that says what to change. Refused is everything that two JSON readers could understand
// differently, because then policy and upstream would not see the same request:
//
//   - text that is not one JSON object in UTF-8: syntax errors, bytes after the object, nesting deeper than 1 000 levels;
//   - a name that occurs twice at the top level or in metadata, also when one of them is written with escapes;
//   - a name at the top level or in metadata that differs from a known one in letter case only;
//   - a wrong type of model, stream, max_tokens, metadata or metadata.user_id. Only model is required;
//   - more than 256 names at the top level or in metadata: each is compared with all others. The API knows about thirty.
//
// Everything else is the upstream's to judge and passes: unknown members, and twice-used names deeper inside messages or tools, which
// are forwarded as they are and on which no policy depends. null stands for absent, except for model.
func Peek(body []byte) (*Request, error) {
	p := peeker{s: scanner{b: body}, req: &Request{Bytes: len(body)}}
	end, err := p.object(0, "the request body", p.member)
	if err == nil {
		if end, _ = p.s.next(end); end < len(body) {
			err = p.s.unexpected(end, "the end of the body")
		}
	}
	if err == nil && p.req.model.end == 0 {
		err = ErrInvalidRequest("model: Field required")
	}
	if err != nil {
		if own, ok := errors.AsType[*Error](err); ok {
			return nil, own
		}
		return nil, ErrInvalidRequest("The request body is not valid JSON: " + err.Error() + ". Send one JSON object in UTF-8.")
	}
	p.req.Media = p.s.media
	p.req.extent.finish(&p)
	p.req.CachedPrefix = p.cachedPrefix()
	p.req.LongLife = p.req.CachedPrefix > 0 && !p.s.brief
	return p.req, nil
}

// peeker is one run of Peek.
type peeker struct {
	s   scanner
	req *Request

	// The parts of the prompt in the order in which the model reads them.
	tools, system, messages part
	automatic               bool // top-level cache_control
}

// part is a top-level member that is part of the prompt.
type part struct {
	span
	breakpoint int // offset just after the last cache_control in it; 0 for none
}

// object walks over an object and calls member with each name before its value, which member must walk over.
func (p *peeker) object(i int, what string, member func(name []byte, i int) (end int, err error)) (end int, err error) {
	s := &p.s
	i, c := s.next(i)
	if c != '{' {
		return i, s.unexpected(i, what+" to be an object")
	}
	if i, c = s.next(i + 1); c == '}' {
		return i + 1, nil
	}
	seen := make([][]byte, 0, 16)
	for {
		end, start, stop, escaped, err := s.name(i)
		if err != nil {
			return end, err
		}
		name := s.b[start+1 : stop-1]
		if escaped {
			name = []byte(unquote(s.b[start:stop], true))
		}
		switch {
		case lookalike(name):
			return i, ErrInvalidRequest(fmt.Sprintf("%s: differs from a known name in letter case only (byte %d); write it in lower case.", display(name), start))
		case slices.ContainsFunc(seen, func(old []byte) bool { return bytes.Equal(old, name) }):
			return i, ErrInvalidRequest(fmt.Sprintf("%s: occurs twice in %s (byte %d); send it once.", display(name), what, start))
		case len(seen) == maxMembers:
			return i, ErrInvalidRequest(fmt.Sprintf("%s: must have at most %d members (byte %d).", what, maxMembers, start))
		}
		seen = append(seen, name)
		i, _ = s.next(end)
		if i, err = member(name, i); err != nil {
			return i, err
		}
		switch i, c = s.next(i); c {
		case ',':
			i++
		case '}':
			return i + 1, nil
		default:
			return i, s.unexpected(i, "',' or '}'")
		}
	}
}

// member walks over the value of a top-level member and keeps what is of use.
func (p *peeker) member(name []byte, i int) (end int, err error) {
	s, r := &p.s, p.req
	switch string(name) {
	case "model":
		return p.model(i)
	case "stream":
		return p.stream(i)
	case "max_tokens":
		return p.maxTokens(i)
	case "metadata":
		switch s.at(i) {
		case 'n':
			return s.literal(i)
		case '{':
			return p.object(i, "metadata", p.metadata)
		}
		return p.wrongType(i, "metadata", "an object")
	case "speed":
		return p.word(i, &r.Speed)
	case "service_tier":
		return p.word(i, &r.ServiceTier)
	case "system":
		r.HasSystem = true
		return p.part(i, promptText, &p.system)
	case "tools":
		r.HasTools = s.at(i) != 'n'
		if end, err = p.part(i, promptTools, &p.tools); s.at(i) == '[' {
			r.ToolCount = s.items
		}
		return end, err
	case "messages":
		return p.part(i, promptText, &p.messages)
	case "cache_control":
		if p.automatic = s.at(i) != 'n'; p.automatic && !forAnHour(s.b[i:]) {
			s.brief = true
		}
	}
	end, err = s.value(i)
	r.extent.member(name, s.b[i:end])
	return end, err
}

// metadata walks over the value of a member of metadata.
func (p *peeker) metadata(name []byte, i int) (end int, err error) {
	if string(name) != "user_id" || p.s.at(i) == 'n' {
		return p.s.value(i)
	}
	end, escaped, err := p.str(i, "metadata.user_id")
	if raw := p.s.b[i:end]; err == nil && len(raw) <= maxUserID {
		p.req.UserID = unquote(raw, escaped)
	}
	return end, err
}

// part walks over a part of the prompt.
func (p *peeker) part(i int, which prompt, into *part) (end int, err error) {
	s := &p.s
	s.prompt, s.breakpoint = which, 0
	end, err = s.value(i)
	s.prompt = noPrompt
	*into = part{span{i, end}, s.breakpoint}
	return end, err
}

// cachedPrefix computes [Request.CachedPrefix].
func (p *peeker) cachedPrefix() int {
	if p.automatic {
		return p.req.Bytes
	}
	uncached := 0
	for _, part := range [...]part{p.messages, p.system, p.tools} { // from the end of the prompt to its start
		if part.breakpoint > 0 {
			return p.req.Bytes - uncached - (part.end - part.breakpoint)
		}
		uncached += part.end - part.start
	}
	return 0
}

// forAnHour reports whether b begins with a cache_control that asks for the lifetime of an hour. It looks at a bounded part of b only; what is
// written in an unusual way is not recognised.
func forAnHour(b []byte) bool {
	const longest = 128
	object, _, ended := bytes.Cut(b[:min(len(b), longest)], []byte("}"))
	return ended && hasPrefix(object, "{") && bytes.Contains(object, []byte(`"1h"`))
}

// wrongType walks over a value to see whether it is JSON at all and then says what it should have been.
func (p *peeker) wrongType(i int, name, wanted string) (end int, err error) {
	if end, err = p.s.value(i); err != nil {
		return end, err
	}
	return end, ErrInvalidRequest(fmt.Sprintf("%s: must be %s (byte %d)", name, wanted, i))
}

// str walks over a value that must be a string.
func (p *peeker) str(i int, name string) (end int, escaped bool, err error) {
	if p.s.at(i) != '"' {
		end, err = p.wrongType(i, name, "a string")
		return end, false, err
	}
	return p.s.str(i)
}

// model walks over the model's name.
func (p *peeker) model(i int) (end int, err error) {
	end, escaped, err := p.str(i, "model")
	if err != nil {
		return end, err
	}
	if end-i > 6*maxModel {
		return end, ErrInvalidRequest(fmt.Sprintf("model: must be at most %d characters long", maxModel))
	}
	name := unquote(p.s.b[i:end], escaped)
	switch {
	case name == "":
		return end, ErrInvalidRequest("model: must not be empty")
	case len(name) > maxModel:
		return end, ErrInvalidRequest(fmt.Sprintf("model: must be at most %d characters long", maxModel))
	case strings.ContainsFunc(name, func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) }):
		return end, ErrInvalidRequest("model: must not contain control or replacement characters")
	}
	p.req.Model, p.req.model = name, span{i, end}
	return end, nil
}

// word walks over any value and keeps it when it is a short string.
func (p *peeker) word(i int, into *string) (end int, err error) {
	if p.s.at(i) != '"' {
		return p.s.value(i)
	}
	end, escaped, err := p.s.str(i)
	if err == nil && end-i <= maxWord {
		*into = unquote(p.s.b[i:end], escaped)
	}
	return end, err
}

func (p *peeker) stream(i int) (end int, err error) {
	switch p.s.at(i) {
	case 't', 'f', 'n':
		p.req.Stream = p.s.at(i) == 't'
		return p.s.literal(i)
	}
	return p.wrongType(i, "stream", "true or false")
}

// maxTokens walks over max_tokens. Zero passes: a prompt cache can be warmed without any output.
func (p *peeker) maxTokens(i int) (end int, err error) {
	if end, err = p.s.value(i); err != nil {
		return end, err
	}
	raw := string(p.s.b[i:min(end, i+32)])
	if raw == "null" {
		return end, nil
	}
	n, err := strconv.ParseInt(raw, 10, 64)
	if err != nil || n < 0 || raw[0] == '-' {
		return end, ErrInvalidRequest(fmt.Sprintf("max_tokens: must be a positive integer (byte %d)", i))
	}
	p.req.MaxTokens = n
	return end, nil
}

// display shortens and quotes a name that a client chose.
func display(name []byte) string {
	return strconv.QuoteToASCII(string(bounded(name, 40)))
}

// SessionID is the Claude Code session named in [Request.UserID], which the client writes in one of two forms:
//
//	user_<64 hex digits>_account_<uuid or nothing>_session_<uuid>      up to 2.1.50
//	{"device_id":"…","account_uuid":"…","session_id":"<uuid>"}         since 2.1.200, the object as a string
//
// It is "" when there is none. It is chosen by the client: good for grouping, not for authorisation. At most 64 bytes of [0-9A-Za-z_-].
func (r *Request) SessionID() string {
	if strings.HasPrefix(r.UserID, "{") {
		for m := range members([]byte(r.UserID)) {
			if string(m.name) == "session_id" {
				return sessionToken(string(m.text()))
			}
		}
		return ""
	}
	const marker = "_session_"
	i := strings.LastIndex(r.UserID, marker)
	if i < 0 {
		return ""
	}
	return sessionToken(r.UserID[i+len(marker):])
}

func sessionToken(s string) string {
	if len(s) > 64 {
		return ""
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' && s[i] != '_' {
			return ""
		}
	}
	return s
}

// Edits are the changes to a request body that policies may ask for.
type Edits struct {
	Model  string // replaces the value of model; "" keeps it
	System string // text of a system block for a request without any; "" adds none. Ignored when HasSystem
}

// Splice returns body with the edits in a new slice, or body itself when there is nothing to change. body must be the one that r was made
// from. All bytes but the edited ones stay as they are:
//
//   - Model replaces the bytes of the value of the top-level model;
//   - System inserts the member "system":[{"type":"text","text":…}] just behind it, without cache_control.
func (r *Request) Splice(body []byte, e Edits) []byte {
	addSystem := e.System != "" && !r.HasSystem
	if e.Model == "" && !addSystem {
		return body
	}
	out := make([]byte, 0, len(body)+len(e.Model)+len(e.System)+len(e.System)/8+64)
	out = append(out, body[:r.model.start]...)
	if e.Model != "" {
		out = appendQuoted(out, e.Model)
	} else {
		out = append(out, body[r.model.start:r.model.end]...)
	}
	if addSystem {
		out = append(out, `,"system":[{"type":"text","text":`...)
		out = appendQuoted(out, e.System)
		out = append(out, `}]`...)
	}
	return append(out, body[r.model.end:]...)
}

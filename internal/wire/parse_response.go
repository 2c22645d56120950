package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// answerHead is the head of an answer and what it says of the body and the connection.
type answerHead struct {
	status  int
	fields  Head  // without Transfer-Encoding, and where that was, without Content-Length
	length  int64 // -1 when not known
	chunked bool
	keep    bool // another request may follow on the connection
}

// interim reports whether another answer follows. 101 does not come here: see parseStatus.
func (h *answerHead) interim() bool { return h.status >= 100 && h.status < 200 }

// hasBody reports whether bytes follow the head of the answer to a request.
func (h *answerHead) hasBody(method string) bool {
	return method != "HEAD" && h.status != 204 && h.status != 304 && h.length != 0
}

var errNotHTTP = errors.New("the answer is not HTTP") //nolint:gochecknoglobals // a constant

// mayBeAnswer reports whether bytes are the beginning of an answer as far as they go.
func mayBeAnswer(b []byte) bool {
	const start = "HTTP/"
	n := min(len(b), len(start))
	return string(b[:n]) == start[:n]
}

// headEnd returns the length of a head with the empty line that ends it, or -1. looked is how much of it is known not to
// have the end.
func headEnd(b []byte, looked int) int {
	for at := max(looked-2, 0); ; {
		feed := bytes.IndexByte(b[at:], '\n')
		if feed < 0 {
			return -1
		}
		at += feed + 1
		switch {
		case at < len(b) && b[at] == '\n':
			return at + 1
		case at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n':
			return at + 2
		}
	}
}

// parseAnswer parses the head of an answer with the empty line at its end. Like net/http it takes line feeds alone for the ends of
// lines and joins folded ones (RFC 9112 §2.2, §5.2); unlike it, it keeps the order and the case of the fields.
func parseAnswer(raw []byte) (answerHead, error) {
	unfold(raw)
	line, text := cutLine(string(raw))
	h := answerHead{length: -1}
	old, err := h.parseStatus(line)
	if err != nil {
		return h, err
	}
	var said framingFields
	h.fields = make(Head, 0, max(strings.Count(text, "\n")-1, 0))
	for number := 2; ; number++ {
		if line, text = cutLine(text); line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.TrimRight(name, " \t"), strings.Trim(value, " \t")
		if !ok || !isToken(name) || !isValue(value) {
			return h, fmt.Errorf("line %d of the answer's head is malformed", number)
		}
		keep, err := said.take(name, value)
		if err != nil {
			return h, err
		}
		if keep {
			h.fields = append(h.fields, Field{name, value})
		}
	}
	return h, h.frame(&said, old)
}

// parseStatus parses the first line. old is a version before 1.1.
func (h *answerHead) parseStatus(line string) (old bool, err error) {
	version, rest, ok := strings.Cut(line, " ")
	code, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	const form = "HTTP/1.1"
	if !ok || len(version) != len(form) || version[:5] != form[:5] || !isDigits(version[5:6]) || version[6] != '.' || !isDigits(version[7:]) {
		return false, errNotHTTP
	}
	if len(code) != 3 || !isDigits(code) {
		return false, errors.New("the answer has no status")
	}
	h.status, _ = strconv.Atoi(code)
	if h.status < 100 || h.status == 101 { // nobody asked to switch protocols, and the rest is no answer
		return false, fmt.Errorf("the answer has the status %d", h.status)
	}
	return version < form, nil
}

// framingFields is what the fields say of the framing.
type framingFields struct {
	length                     string // "": nothing
	coding                     string
	codings                    int
	close, keepAlive, measured bool
}

// take notes a field; keep is false for one that has no place in the head.
func (s *framingFields) take(name, value string) (keep bool, err error) {
	switch {
	case isField(name, "Connection"):
		for option := range strings.SplitSeq(value, ",") {
			option = strings.TrimSpace(option)
			s.close = s.close || strings.EqualFold(option, "close")
			s.keepAlive = s.keepAlive || strings.EqualFold(option, "keep-alive")
		}
	case isField(name, "Content-Length"):
		if s.measured && s.length != value {
			return false, errors.New("the answer has two lengths")
		}
		keep = !s.measured
		s.measured, s.length = true, value
		return keep, nil
	case isField(name, "Transfer-Encoding"):
		s.codings++
		s.coding = value
		return false, nil
	}
	return true, nil
}

// frame decides where the body ends (RFC 9112 §6.3) and whether the connection can be used afterwards (§9.3).
func (h *answerHead) frame(said *framingFields, old bool) error {
	h.keep = !said.close && (!old || said.keepAlive)
	if said.measured {
		n, err := strconv.ParseUint(said.length, 10, 63)
		if err != nil {
			return errors.New("the answer's length is malformed")
		}
		h.length = int64(n)
	}
	switch {
	case said.codings == 0:
		return nil
	case said.codings > 1 || !strings.EqualFold(said.coding, "chunked"):
		return errors.New("the answer has a transfer coding other than chunked")
	}
	h.chunked = true
	if said.measured || old { // someone on the way may see another end
		h.keep = false
	}
	if said.measured {
		h.length = -1
		h.fields = h.fields.Filter(func(f Field) bool { return !isField(f.Name, "Content-Length") })
	}
	return nil
}

// unfold joins folded lines by making their ends spaces. The first line has no continuation.
func unfold(head []byte) {
	for at := bytes.IndexByte(head, '\n') + 1; ; {
		feed := bytes.IndexByte(head[at:], '\n')
		if feed < 0 {
			return
		}
		feed += at
		at = feed + 1
		if at == len(head) || head[at] != ' ' && head[at] != '\t' {
			continue
		}
		head[feed] = ' '
		if feed > 0 && head[feed-1] == '\r' {
			head[feed-1] = ' '
		}
	}
}

// cutLine cuts the first line off.
func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

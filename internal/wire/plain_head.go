package wire

import (
	"bytes"
	"errors"
	"strings"
)

// errOdd says that a request, or what stands in its place, is for net/http to judge.
var errOdd = errors.New("the request is not plain")

// headScan looks for the end of a head, as far as it has come.
type headScan struct{ line int } // where the next line begins

// find returns the length of the head, with the empty line that ends it, or 0 when that has not come yet.
func (s *headScan) find(b []byte) (end int, err error) {
	for {
		n := bytes.IndexByte(b[s.line:], '\n')
		if n < 0 {
			return 0, nil
		}
		if n == 0 || b[s.line+n-1] != '\r' || n == 1 && s.line == 0 {
			return 0, errOdd // a bare LF, or an empty line in front
		}
		s.line += n + 1
		if n == 1 {
			return s.line, nil
		}
	}
}

// plainRequest is a Request with what its framing says.
type plainRequest struct {
	Request
	size int  // of its head
	last bool // the client wants the connection closed
}

// parse reads a whole head. Only what has exactly one meaning is plain: everything that two programs have ever understood
// differently is odd.
func (r *plainRequest) parse(b []byte) error {
	rest := string(b[:len(b)-2]) // each line ends with CRLF
	r.size = len(b)
	line, rest, _ := strings.Cut(rest, "\r\n")
	if !r.requestLine(line) {
		return errOdd
	}
	r.Head = make(Head, 0, strings.Count(rest, "\n"))
	var hosts, lengths int
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if value = strings.Trim(value, " \t"); !ok || !isToken(name) || !isValue(value) {
			return errOdd
		}
		switch {
		case isField(name, "Host"):
			r.Host = value
			hosts++
			continue
		case isField(name, "Content-Length"):
			lengths++
			if r.ContentLength, ok = parseLength(value); !ok {
				return errOdd
			}
		case isField(name, "Connection"):
			if !r.connection(value) {
				return errOdd
			}
		case isFraming(name):
			return errOdd
		}
		r.Head = append(r.Head, Field{name, value})
	}
	if hosts != 1 || !isHost(r.Host) || lengths > 1 {
		return errOdd
	}
	return nil
}

func (r *plainRequest) requestLine(line string) bool {
	method, rest, _ := strings.Cut(line, " ")
	target, proto, _ := strings.Cut(rest, " ")
	switch method { // as constants: metrics keep the method, which must not keep the head
	case "GET":
		r.Method = "GET"
	case "HEAD":
		r.Method = "HEAD"
	case "POST":
		r.Method = "POST"
	default:
		return false
	}
	if r.Proto = "HTTP/1.1"; proto != r.Proto {
		return false
	}
	r.Path, r.Query, _ = strings.Cut(target, "?")
	return strings.HasPrefix(r.Path, "/") && all(r.Path, inPath) && all(r.Query, inQuery)
}

// connection takes the two options that are no names of fields.
func (r *plainRequest) connection(value string) bool {
	switch {
	case strings.EqualFold(value, "keep-alive"):
		return true
	case strings.EqualFold(value, "close"):
		r.last = true
		return true
	}
	return false
}

// isFraming reports whether a field changes how a request is to be read or answered, in a way that is not plain.
func isFraming(name string) bool {
	for _, odd := range [...]string{"transfer-encoding", "expect", "upgrade", "te", "trailer", "http2-settings"} {
		if isField(name, odd) {
			return true
		}
	}
	return false
}

func parseLength(s string) (n int64, ok bool) {
	const digits = 15 // far more than any limit, far less than an overflow
	if s == "" || len(s) > digits {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}

// charset says of each byte where it may stand.
type charset uint8

const (
	inToken charset = 1 << iota // RFC 9110 §5.6.2
	inPath                      // what a path holds unescaped, RFC 3986 §3.3
	inQuery                     // the same of a query, with escapes
	inHost
	inValue // RFC 9110 §5.5
)

//nolint:gochecknoglobals // a constant
var charsets = makeCharsets()

func makeCharsets() (t [256]charset) {
	put := func(s string, in charset) {
		for i := range len(s) {
			t[s[i]] |= in
		}
	}
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	put(alnum, inToken|inPath|inQuery|inHost)
	put("!#$%&'*+-.^_`|~", inToken)
	put("-._~!$&'()*+,;=:@/", inPath)
	put("-._~!$&'()*+,;=:@/?%", inQuery)
	put("-._:[]", inHost)
	for b := range t {
		if b == '\t' || b >= ' ' && b != 0x7f {
			t[b] |= inValue
		}
	}
	return t
}

func all(s string, in charset) bool {
	for i := range len(s) {
		if charsets[s[i]]&in == 0 {
			return false
		}
	}
	return true
}

func isToken(s string) bool { return s != "" && all(s, inToken) }
func isValue(s string) bool { return all(s, inValue) }
func isHost(s string) bool  { return s != "" && all(s, inHost) }

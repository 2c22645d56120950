package wire

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// smallBody is how large a body may be to be written by the caller together with the head; of a larger one as much as makes
// that size with the head. Every connection takes that much without anybody reading it.
const smallBody = 16 << 10

// request is ready to be written: first, which is lent, and then rest, for which the body is held.
type request struct {
	first *[]byte
	body  *Body
	rest  []byte // nil when first holds all of it
}

// prepare makes the bytes of a request.
func (c *Client) prepare(out *Outgoing) (request, error) {
	r := request{first: c.requests.lend()}
	first, err := appendRequestHead((*r.first)[:0], out)
	*r.first = first
	if err != nil || out.Body == nil {
		if err != nil {
			c.discard(r)
		}
		return r, err
	}
	content, ok := out.Body.Hold()
	if !ok {
		c.discard(r)
		return r, fmt.Errorf("the request's body was released: %w", io.ErrUnexpectedEOF)
	}
	n := len(content)
	if n > smallBody {
		n = max(smallBody-len(first), 0) // one record of TLS
	}
	*r.first = append(first, content[:n]...)
	if n == len(content) {
		out.Body.Release()
		return r, nil
	}
	r.body, r.rest = out.Body, content[n:]
	return r, nil
}

// discard is the end of a request that is not going to be written, or not to its end.
func (c *Client) discard(r request) {
	c.requests.back(r.first)
	if r.body != nil {
		r.body.Release()
	}
}

// ErrUnsendable says that a request has characters that no request may have. Nothing was sent.
var ErrUnsendable = errors.New("characters that cannot be sent") //nolint:gochecknoglobals // a constant

// appendRequestHead appends the head of a request: the fields in the order and case given, between Host and Content-Length.
func appendRequestHead(b []byte, out *Outgoing) ([]byte, error) {
	if !isToken(out.Method) {
		return b, fmt.Errorf("%w: the method %q", ErrUnsendable, out.Method)
	}
	target, host := out.URL.RequestURI(), withoutZone(out.URL.Host)
	if !sendableTarget(target) || !sendableTarget(host) {
		return b, fmt.Errorf("%w: the address", ErrUnsendable)
	}
	b = append(b, out.Method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	for _, f := range out.Head {
		if !isToken(f.Name) || !isValue(f.Value) { // a value may be a secret
			return b, fmt.Errorf("%w: the field %q", ErrUnsendable, f.Name)
		}
		if framing(f.Name) {
			continue
		}
		b = append(b, f.Name...)
		b = append(b, ": "...)
		b = append(b, f.Value...)
		b = append(b, "\r\n"...)
	}
	size := 0
	if out.Body != nil {
		size = out.Body.Size()
	}
	if size > 0 || out.Method == "POST" || out.Method == "PUT" || out.Method == "PATCH" {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(size), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// framing reports whether a field says where a request goes or ends, which is the client's to say.
func framing(name string) bool {
	return isField(name, "Host") || isField(name, "Content-Length") || isField(name, "Transfer-Encoding") || isField(name, "Trailer")
}

// withoutZone removes the zone of an IPv6 address, which means something on this machine only (RFC 6874 §4).
func withoutZone(host string) string {
	zone, end := strings.IndexByte(host, '%'), strings.IndexByte(host, ']')
	if host == "" || host[0] != '[' || zone < 0 || end < zone {
		return host
	}
	return host[:zone] + host[end:]
}

// sendableTarget reports whether a request target is without white space and control characters.
func sendableTarget(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

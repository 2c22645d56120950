package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"carpool/internal/anthropic"
	"carpool/internal/wire"
)

const (
	// plainMost is up to which length a plain answer is held back until it is whole. Upstreams send one when it is complete,
	// so the client waits no longer for it, and until it has a byte another upstream can do better.
	plainMost = 64 << 10
	// plainFirst is how much of an answer of unknown length is waited for with a buffer of its own.
	plainFirst = 512
	// plainDecoded bounds how much of a compressed answer is looked at.
	plainDecoded = 1 << 20
)

// plainBuffers lends buffers for answers that turn out longer than plainFirst.
type plainBuffers struct{ pool sync.Pool } // of *[plainMost]byte

func (p *plainBuffers) get() *[plainMost]byte {
	if lent, ok := p.pool.Get().(*[plainMost]byte); ok {
		return lent
	}
	return new([plainMost]byte)
}

// beginPlain waits until a plain answer is whole, and makes its body one that is in memory; one that is too long is relayed as it
// comes from there on. The error says why it is no answer.
func (s *search) beginPlain(r *wire.Response) error {
	body, err := s.pool.buffers.hold(r)
	start := body.start
	r.Body = body
	kind := strings.ToLower(r.Head.Get("Content-Type"))
	switch {
	case len(start) == 0:
		return err
	case !encoded(r.Head) && !isObject(kind, start):
		return fmt.Errorf("it is no object, content type %q", kind)
	case err == nil:
		return nil // the rest is yet to come
	case !wholePlain(r, start, err):
		return fmt.Errorf("it broke off after %d bytes: %w", len(start), err)
	}
	body.err = io.EOF
	return nil
}

// wholePlain reports whether a plain answer that ended with err is complete. One that has said its last word has lost nothing when
// its connection then breaks, unless more bytes were announced.
func wholePlain(r *wire.Response, body []byte, err error) bool {
	ended := errors.Is(err, io.EOF)
	if r.ContentLength >= 0 && !ended {
		return false
	}
	if !encoded(r.Head) {
		return isJSON(body)
	}
	var decoded bytes.Buffer
	var unknown *unknownEncodingError
	switch err := Decode(&decoded, r.Head.Get("Content-Encoding"), bytes.NewReader(body), plainDecoded); {
	case errors.As(err, &unknown) || decoded.Len() == plainDecoded:
		return ended // only its end can tell
	case err != nil:
		return false
	}
	return isJSON(decoded.Bytes())
}

// isJSON reports whether b is one JSON value. What the quicker reader does not accept, the one that is lenient about UTF-8 and depth may.
func isJSON(b []byte) bool { return anthropic.IsJSON(b) || json.Valid(b) }

// hold reads an answer until it ends, and gives up when it is too long, or begins with mere whitespace, by which some upstreams keep
// a client patient. err is how it ended; nil: it goes on.
func (p *plainBuffers) hold(r *wire.Response) (body *startedBody, err error) {
	size := int64(plainFirst)
	if r.ContentLength >= 0 && r.ContentLength < plainMost {
		size = r.ContentLength + 1 // so that the end is seen
	}
	body = &startedBody{start: make([]byte, 0, size), rest: r.Body}
	var lent *[plainMost]byte
	for err == nil && len(body.start) < plainMost {
		if len(body.start) == cap(body.start) {
			lent = p.get()
			body.start = append(lent[:0], body.start...)
			body.release = func() { p.pool.Put(lent) }
		}
		var n int
		n, err = r.Body.Read(body.start[len(body.start):cap(body.start)])
		if body.start = body.start[:len(body.start)+n]; n > 0 && len(bytes.TrimSpace(body.start)) == 0 {
			break
		}
	}
	body.err = err
	return body, err
}

package wire

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
)

// answer is a response and its body in one piece of memory.
type answer struct {
	Response
	body   answerBody
	chunks chunks
}

// answerBody reads the body of an answer. It has no buffer: what arrives is read into the caller's, and the framing of chunks
// is taken out where it stands. It has the connection until its end, or until Close, which may come at any time.
type answerBody struct {
	ctx    context.Context
	conn   *conn
	owned  atomic.Bool // the connection was given away
	keep   bool        // the connection can be used again after the end
	chunks *chunks     // nil: left counts
	left   int64       // bytes to come; negative: until the connection ends
	err    error       // what Read says from now on

	buffer *[]byte // lent, with the rest of what came together with the head
	rest   []byte
}

var errBodyClosed = errors.New("the answer's body was closed") //nolint:gochecknoglobals // a constant

// Read returns what has arrived and waits only when nothing has. The error that ends the body comes with the last bytes when
// it is known by then: io.EOF when it is whole, io.ErrUnexpectedEOF when it was cut.
func (b *answerBody) Read(p []byte) (n int, err error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	for n == 0 && err == nil {
		n, err = b.read(p)
	}
	if err != nil {
		b.finish(err)
	}
	return n, b.err
}

func (b *answerBody) read(p []byte) (n int, err error) {
	if b.chunks == nil && b.left >= 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err = b.receive(p)
	switch {
	case b.chunks != nil:
		var used int
		var broken error
		got := n
		if n, used, broken = b.chunks.decode(p[:got]); broken != nil {
			return n, broken
		}
		if b.chunks.ended() {
			b.keep = b.keep && used == got // what follows belongs to nothing
			return n, io.EOF
		}
	case b.left < 0:
		return n, err
	default:
		if b.left -= int64(n); b.left == 0 {
			return n, io.EOF
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// receive takes what came together with the head first.
func (b *answerBody) receive(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return b.conn.Read(p)
	}
	n := copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		b.dropBuffer()
	}
	return n, nil
}

func (b *answerBody) dropBuffer() {
	b.conn.client.heads.back(b.buffer)
	b.buffer, b.rest = nil, nil
}

// finish is the end of reading.
func (b *answerBody) finish(err error) {
	whole := errors.Is(err, io.EOF)
	keep := b.keep && whole && len(b.rest) == 0
	if b.buffer != nil {
		b.dropBuffer()
	}
	canceled := b.ctx.Err() != nil
	closed := b.owned.Swap(true)
	if !closed {
		b.conn.end(keep)
	}
	switch {
	case whole:
		err = io.EOF
	case canceled:
		err = context.Cause(b.ctx)
	case closed:
		err = errBodyClosed
	}
	b.err = err
}

// Close before the end closes the connection, which cancels the request at the upstream. A Read that is waiting fails.
func (b *answerBody) Close() error {
	if !b.owned.Swap(true) {
		b.conn.end(false)
	}
	return nil
}

package wire

import (
	"io"
	"sync"
)

// Body is a request body in memory that can be sent several times and then let go. Letting go matters: prompts have 50 to
// 300 KB, and their answers stream for minutes. It counts who needs its bytes; whoever made it is the first.
type Body struct {
	mu    sync.Mutex
	bytes []byte
	size  int
	holds int
	gone  func()
}

// NewBody wraps bytes, which must not change until gone is called, once nobody needs them any more; gone may be nil.
func NewBody(bytes []byte, gone func()) *Body {
	return &Body{bytes: bytes, size: len(bytes), holds: 1, gone: gone}
}

// Size returns the length in bytes; it stays known when they are gone.
func (b *Body) Size() int { return b.size }

// Hold returns the bytes, which stay as they are until the Release that goes with it; false when they are gone already.
func (b *Body) Hold() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holds == 0 {
		return nil, false
	}
	b.holds++
	return b.bytes, true
}

// Release is the end of a Hold, or of what NewBody began. Who calls it must not look at the bytes any more.
func (b *Body) Release() {
	b.mu.Lock()
	b.holds--
	last := b.holds == 0
	if last {
		b.bytes = nil
	}
	b.mu.Unlock()
	if last && b.gone != nil {
		b.gone()
	}
}

// Reader returns a new reader from the start, which holds the bytes until its end or until Close. When they are gone it fails
// with io.ErrUnexpectedEOF.
func (b *Body) Reader() io.ReadCloser {
	bytes, ok := b.Hold()
	return &bodyReader{body: b, bytes: bytes, gone: !ok}
}

// bodyReader may be closed while it reads.
type bodyReader struct {
	body *Body

	mu    sync.Mutex
	bytes []byte // what was not read yet
	gone  bool   // nothing is held
	ended bool
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
		return 0, io.EOF
	case r.gone:
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, r.bytes)
	if r.bytes = r.bytes[n:]; len(r.bytes) > 0 {
		return n, nil
	}
	r.ended = true
	r.finish()
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish()
	return nil
}

// finish is called with the lock held.
func (r *bodyReader) finish() {
	if !r.gone {
		r.gone, r.bytes = true, nil
		r.body.Release()
	}
}

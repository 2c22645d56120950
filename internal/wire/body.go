package wire

import (
	"io"
	"sync"
)

// Body is a request body in memory that can be sent several times and then let go. Letting go matters: an HTTP client
// keeps its request reachable for as long as the response streams, and with it 50 to 300 KB of prompt for minutes.
type Body struct {
	mu       sync.Mutex
	bytes    []byte
	size     int
	readers  int // open readers that have not reached the end, and holds
	released bool
}

// NewBody wraps bytes, which must not change afterwards.
func NewBody(bytes []byte) *Body { return &Body{bytes: bytes, size: len(bytes)} }

// Size returns the length in bytes; it stays known after Release.
func (b *Body) Size() int { return b.size }

// Bytes returns the bytes, or nil once they are gone.
func (b *Body) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// Release lets the bytes go as soon as no reader needs them any more.
func (b *Body) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = true
	b.drop()
}

func (b *Body) drop() {
	if b.released && b.readers == 0 {
		b.bytes = nil
	}
}

// hold returns the bytes, which stay as they are until letGo; false when they are gone already.
func (b *Body) hold() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes == nil && b.size > 0 {
		return nil, false
	}
	b.readers++
	return b.bytes, true
}

// letGo is the end of a hold. Whoever held the bytes must not look at them any more.
func (b *Body) letGo() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers--
	b.drop()
}

// Reader returns a new reader from the start. After the bytes are gone it fails with io.ErrUnexpectedEOF.
func (b *Body) Reader() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers++
	return &bodyReader{body: b}
}

type bodyReader struct {
	body *Body
	at   int
	done bool
}

func (r *bodyReader) Read(p []byte) (int, error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.at == b.size {
		r.finish()
		return 0, io.EOF
	}
	if r.done || b.bytes == nil {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, b.bytes[r.at:])
	if r.at += n; r.at == b.size {
		r.finish()
	}
	return n, nil
}

func (r *bodyReader) Close() error {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	r.finish()
	return nil
}

// finish is called with the body's lock held.
func (r *bodyReader) finish() {
	if !r.done {
		r.done = true
		r.body.readers--
		r.body.drop()
	}
}

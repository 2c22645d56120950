package upstream

import (
	"io"
	"sync"
)

// startedBody is a body of which the beginning was read already, and perhaps how it ends.
type startedBody struct {
	start []byte
	err   error // what reading gave after start; nil: go on with rest
	rest  io.ReadCloser
}

func (b *startedBody) Read(p []byte) (int, error) {
	if len(b.start) > 0 {
		n := copy(p, b.start)
		if b.start = b.start[n:]; len(b.start) == 0 {
			b.start = nil
		}
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.rest.Read(p)
}

func (b *startedBody) Close() error { return b.rest.Close() }

// leavingBody does something once when it is closed.
type leavingBody struct {
	io.ReadCloser
	leave func()
	once  sync.Once
}

func (b *leavingBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.leave)
	return err
}

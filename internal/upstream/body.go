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

	release func() // gives back what start is part of; nil: nothing
}

func (b *startedBody) Read(p []byte) (int, error) {
	if len(b.start) > 0 {
		n := copy(p, b.start)
		if b.start = b.start[n:]; len(b.start) == 0 {
			b.drop()
		}
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.rest.Read(p)
}

// drop lets go of what was read already.
func (b *startedBody) drop() {
	if b.release != nil {
		b.release()
	}
	b.release, b.start = nil, nil
}

func (b *startedBody) Close() error {
	b.drop()
	return b.rest.Close()
}

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

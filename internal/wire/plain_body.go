package wire

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// plainBody is the body of a request: as many bytes as its Content-Length says.
type plainBody struct {
	conn  *plainConn
	watch *watch
	left  int64
	err   error
}

// Read returns what has come of the body.
func (b *plainBody) Read(p []byte) (n int, err error) {
	switch {
	case b.left == 0:
		return 0, io.EOF
	case b.err != nil:
		return 0, b.err
	case len(p) == 0:
		return 0, nil
	}
	p = p[:min(int64(len(p)), b.left)]
	if c := b.conn; c.r < c.w {
		n = copy(p, c.buf[c.r:c.w])
		c.r += n
	} else if n, err = c.nc.Read(p); err == io.EOF { //nolint:errorlint // what net.Conn returns is io.EOF itself
		err = io.ErrUnexpectedEOF
	}
	b.left -= int64(n)
	b.used()
	if b.left == 0 {
		return n, nil
	}
	b.err = err
	return n, err
}

// used lets go what the rest of the exchange does not need once the body was read: the buffer. From then on the client has
// nothing to send, and it is watched.
func (b *plainBody) used() {
	if b.left > 0 {
		return
	}
	if c := b.conn; c.r == c.w {
		c.release()
	}
	b.watch.arm()
}

// watchAfter is how long an exchange takes before its client is watched: most are over by then.
const watchAfter = 250 * time.Millisecond

// watch finds out when the client leaves while its answer is under way: it reads, which a client that waits has no bytes
// for. One that sends its next request early is read one byte of it.
type watch struct {
	nc    net.Conn
	leave context.CancelFunc
	timer *time.Timer

	mu      sync.Mutex
	over    bool
	reading chan struct{} // closed when the reading has ended; nil before it begins
	early   earlyByte
}

type earlyByte struct {
	b    byte
	came bool
}

// arm has the watch begin after a while.
func (w *watch) arm() { w.timer = time.AfterFunc(watchAfter, w.read) }

func (w *watch) read() {
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return
	}
	ended := make(chan struct{})
	w.reading = ended
	w.mu.Unlock()
	defer close(ended)
	var one [1]byte
	n, err := w.nc.Read(one[:])
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case n == 1:
		w.early = earlyByte{one[0], true}
	case err != nil && !w.over:
		w.leave()
	}
}

// end ends the watch and returns what it has read.
func (w *watch) end() earlyByte {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Lock()
	w.over = true
	reading := w.reading
	w.mu.Unlock()
	if reading != nil {
		_ = w.nc.SetReadDeadline(past)
		<-reading
		_ = w.nc.SetReadDeadline(time.Time{})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.early
}

//go:build unix

package wire

import (
	"errors"
	"net"
	"syscall"
)

// watcher tells whether a connection that nobody reads is open and has nothing to say. It is made once per connection, so
// that a look costs a system call and no memory.
type watcher struct {
	raw   syscall.RawConn
	look  func(fd uintptr) bool
	one   [1]byte
	found error
}

func newWatcher(c net.Conn) *watcher {
	sys, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return nil
	}
	w := &watcher{raw: raw}
	w.look = func(fd uintptr) bool {
		_, _, w.found = syscall.Recvfrom(int(fd), w.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	}
	return w
}

// silent reports false when the other side has closed the connection, or has sent something that nobody asked for.
func (w *watcher) silent() bool {
	return w == nil || w.raw.Read(w.look) == nil && errors.Is(w.found, syscall.EAGAIN)
}

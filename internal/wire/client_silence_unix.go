//go:build unix

package wire

import (
	"errors"
	"net"
	"syscall"
)

// watcher tells whether a connection that nobody reads is open and has nothing to say, and what it takes without waiting. It
// is made once per connection, so that either costs a system call and no memory.
type watcher struct {
	raw   syscall.RawConn
	look  func(fd uintptr) bool
	one   [1]byte
	found error

	give    func(fd uintptr) bool
	offered []byte
	taken   int
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
	w.give = func(fd uintptr) bool {
		w.taken, _ = syscall.Write(int(fd), w.offered) // an error comes again with what is left
		return true
	}
	return w
}

// offer writes as much of p as the system takes at once, and returns how much that is. Nothing else may be writing.
func (w *watcher) offer(p []byte) int {
	if w == nil {
		return 0
	}
	w.offered, w.taken = p, 0
	_ = w.raw.Write(w.give)
	w.offered = nil
	return max(w.taken, 0)
}

// silent reports false when the other side has closed the connection, or has sent something that nobody asked for.
func (w *watcher) silent() bool {
	return w == nil || w.raw.Read(w.look) == nil && errors.Is(w.found, syscall.EAGAIN)
}

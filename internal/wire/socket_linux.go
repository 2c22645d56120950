package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// mostAtOnce bounds what is copied in one system call that the scheduler does not know of.
const mostAtOnce = 32 << 10

// socket is a TCP connection that reads and writes with system calls that the scheduler is not told of. They never wait, since
// the runtime's sockets do not block, and to prepare for one that does costs more than many of them, most of all while there is
// little to do: then the runtime's monitor is woken for each.
type socket struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is one direction. It exists once for each, so that using it costs no memory.
type transfer struct {
	mu   sync.Mutex
	step func(fd uintptr) (done bool) // of what is below
	p    []byte
	n    int
	err  syscall.Errno
}

// Socket returns the same connection, whose Read and Write may cost less.
func Socket(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	s := &socket{TCPConn: t, raw: raw}
	s.in.step, s.out.step = s.in.read, s.out.write
	return s
}

// Read returns what has arrived, and waits when nothing has.
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 || len(p) > mostAtOnce {
		return s.TCPConn.Read(p)
	}
	n, err := s.in.run(p, s.raw.Read)
	switch {
	case err != nil:
		return 0, s.wrap("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write sends all of p, and waits while there is no room for it.
func (s *socket) Write(p []byte) (int, error) {
	if len(p) == 0 || len(p) > mostAtOnce {
		return s.TCPConn.Write(p)
	}
	n, err := s.out.run(p, s.raw.Write)
	if err != nil {
		return n, s.wrap("write", err)
	}
	return n, nil
}

// NetConn returns the connection below.
func (s *socket) NetConn() net.Conn { return s.TCPConn }

func (s *socket) wrap(op string, err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = os.NewSyscallError(op, errno)
	} else if own, ok := errors.AsType[*net.OpError](err); ok { // of the wait
		err = own.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// run makes a transfer of p with the help of how, which waits between its steps.
func (t *transfer) run(p []byte, how func(func(uintptr) bool) error) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p, t.n, t.err = p, 0, 0
	err := how(t.step)
	if t.p = nil; t.err != 0 {
		err = t.err
	}
	return t.n, err
}

func (t *transfer) read(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&t.p[0])), uintptr(len(t.p))) //nolint:gosec // p outlives the call
		switch errno {
		case 0:
			t.n = int(n)
			tellRead(fd)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.err = errno
			return true
		}
	}
}

func (t *transfer) write(fd uintptr) bool {
	tellWrite()
	for t.n < len(t.p) {
		rest := t.p[t.n:]
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest))) //nolint:gosec // p outlives the call
		switch errno {
		case 0:
			t.n += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.err = errno
			return true
		}
	}
	return true
}

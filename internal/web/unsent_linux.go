package web

import (
	"net"

	"golang.org/x/sys/unix"
)

// mostUnsent bounds what the kernel takes of an answer before it can be sent on. By itself it would take megabytes for each
// client that reads slowly or not at all; a quick one is served as fast with this.
const mostUnsent = 16 << 10

func boundUnsent(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // not vital
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, mostUnsent)
	})
}

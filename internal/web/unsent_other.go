//go:build !linux

package web

import "net"

// boundUnsent leaves it to the system how much of an answer it takes before it can be sent on.
func boundUnsent(net.Conn) {}

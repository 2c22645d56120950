package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// dialPatient makes connections on which an answer survives a broken request: an upstream that refuses a large body
// answers before it has read it and hangs up, and net/http would report the failed write instead of reading the answer.
func dialPatient(dialer *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &patientConn{Conn: conn}, nil
	}
}

// patientConn hides that the other side has hung up in the middle of what is being written. The reader gets to know it
// next, after all that had arrived before. The first write of a request still fails, because a request of which nothing
// was written can be sent again on another connection.
type patientConn struct {
	net.Conn
	writing atomic.Bool // something of the request was written
}

// requestBegins tells a connection of dialPatient, which may be below TLS, that what is written from now on is a new request.
func requestBegins(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if c, ok := conn.(*patientConn); ok {
		c.writing.Store(false)
	}
}

func (c *patientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	switch {
	case err == nil:
		c.writing.Store(true)
	case (n > 0 || c.writing.Load()) && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		return len(p), nil
	}
	return n, err
}

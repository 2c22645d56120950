package web

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
)

// refusals is a connection that tells of what net/http refuses by itself, because it is not HTTP or not what HTTP allows:
// no handler gets to see that, and so it has no line in the access log.
type refusals struct {
	net.Conn
	log    *slog.Logger
	server string
}

// Write logs an answer that no handler has given: those have a date, and begin in other ways.
func (c *refusals) Write(p []byte) (int, error) {
	const version, fields = "HTTP/1.1 ", "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
	if line, _, ok := bytes.Cut(p, []byte(fields)); ok && bytes.HasPrefix(line, []byte(version)) && !bytes.Contains(line, []byte("\n")) {
		status, _, _ := strings.Cut(string(line[len(version):]), " ")
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		c.log.LogAttrs(context.Background(), slog.LevelInfo, "refused what is no proper request",
			slog.String("server", c.server), slog.String("status", status), slog.String("client", host))
	}
	return c.Conn.Write(p)
}

// CloseWrite ends the sending side; net/http does so before it gives up a connection on which a client still sends.
func (c *refusals) CloseWrite() error { return closeWrite(c.Conn) }

// NetConn returns the connection below.
func (c *refusals) NetConn() net.Conn { return c.Conn }

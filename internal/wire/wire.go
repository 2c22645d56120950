package wire

import (
	"io"
	"net/netip"
	"time"
)

// Request is a client's request. Body is unread and belongs to the handler.
type Request struct {
	Method        string
	Path          string // as sent, undecoded, without the query
	Query         string // without the question mark
	Host          string
	Proto         string // HTTP/1.1, HTTP/2.0
	Head          Head   // without Host
	ContentLength int64  // -1 when unknown
	Body          io.Reader
	Remote        netip.AddrPort

	// ReadDeadline bounds how long reading Body may take from now on; the zero time lifts the bound. It is nil where the
	// adaptor cannot do it, and fails where the connection cannot.
	ReadDeadline func(time.Time) error

	// Uninvited says that the client waits to be asked for the body (Expect: 100-continue); the first read of Body does so.
	Uninvited bool
}

// Response is an upstream's answer. Body streams and must be closed.
type Response struct {
	Status        int
	Head          Head
	ContentLength int64 // -1 when unknown
	Body          io.ReadCloser
}

// Writer answers one Request. It is not safe for concurrent use.
type Writer interface {
	// Begin sends the status and the fields; it must come first and once. A Content-Length field fixes the length. A
	// handler that returns without it aborts.
	Begin(status int, head Head) error
	// Write sends bytes of the body. Bytes may be held back until Flush.
	Write(p []byte) (int, error)
	// Flush sends what is held back.
	Flush() error
	// Abort breaks the connection off so that the client sees an incomplete answer. Nothing can be sent after it.
	Abort()
	// Begun reports whether Begin was called.
	Begun() bool
}

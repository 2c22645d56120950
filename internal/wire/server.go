package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// HandlerFunc answers a request on wire types.
type HandlerFunc func(ctx context.Context, w Writer, r *Request)

// HandlerOptions configure a handler.
type HandlerOptions struct {
	// WriteTimeout is how long a client may take nothing of what is written or flushed before the answer is aborted; 0 is no
	// limit. It works for HTTP/2, where one client shares a connection with its other streams and stops one of them by flow
	// control; on HTTP/1 it is the connection that has to be watched, which is the server's matter.
	WriteTimeout time.Duration
}

// Handler is NewHandler without options.
func Handler(serve HandlerFunc) http.Handler { return NewHandler(serve, HandlerOptions{}) }

// NewHandler adapts a HandlerFunc to net/http. A handler that returns without having begun an answer aborts it.
func NewHandler(serve HandlerFunc, o HandlerOptions) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &serverWriter{rw: rw, control: http.NewResponseController(rw)}
		if r.ProtoMajor >= 2 {
			w.patience = o.WriteTimeout
		} else if len(r.TransferEncoding) > 0 {
			// The request may have had a Content-Length besides, which net/http has dropped. Whoever stands in front may have gone
			// by it and take the end of this request to be elsewhere: nothing further may come on this connection (RFC 9112 §6.1).
			rw.Header().Set("Connection", "close")
		}
		in := fromHTTP(r)
		in.ReadDeadline = w.control.SetReadDeadline
		if r.ProtoAtLeast(1, 1) && r.ContentLength != 0 && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
			in.Uninvited, in.Body = true, &invitingBody{r.Body, in}
		}
		serve(r.Context(), w, in)
		if w.aborted || !w.begun { // net/http would make an empty 200 of an answer that never began
			if !r.ProtoAtLeast(1, 1) && reset(w.control) {
				return
			}
			panic(http.ErrAbortHandler) // the one way to make net/http break a connection off
		}
	})
}

// invitingBody is a body that net/http asks the client for when it is first read.
type invitingBody struct {
	io.Reader
	request *Request
}

func (b *invitingBody) Read(p []byte) (int, error) {
	b.request.Uninvited = false
	return b.Reader.Read(p)
}

// reset breaks an HTTP/1.0 connection off. There the end of the connection is the end of the answer, so that an orderly one
// would make a cut answer look complete (and proxies still speak HTTP/1.0 by default).
func reset(control *http.ResponseController) bool {
	conn, _, err := control.Hijack()
	if err != nil {
		return false
	}
	for inner := conn; inner != nil; {
		if tcp, ok := inner.(interface{ SetLinger(seconds int) error }); ok {
			_ = tcp.SetLinger(0)
			_ = inner.Close()
			break
		}
		wrapped, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = wrapped.NetConn()
	}
	_ = conn.Close()
	return true
}

func fromHTTP(r *http.Request) *Request {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	return &Request{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Host: r.Host, Proto: r.Proto,
		Head: fromHeader(r.Header), ContentLength: r.ContentLength, Body: r.Body,
		Remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()),
	}
}

// fromHeader makes a Head sorted by name, so that equal requests are forwarded equally.
func fromHeader(header http.Header) Head {
	head := make(Head, 0, len(header)+2)
	for name, values := range header {
		for _, v := range values {
			head = append(head, Field{name, v})
		}
	}
	slices.SortStableFunc(head, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return head
}

// addTo adds the fields of a head to a net/http header. One array holds the values, most of which stand alone.
func addTo(header http.Header, head Head) {
	values := make([]string, 0, len(head))
	for _, f := range head {
		name := http.CanonicalHeaderKey(f.Name)
		if earlier, ok := header[name]; ok {
			header[name] = append(earlier, f.Value)
			continue
		}
		values = append(values, f.Value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
}

var (
	errAborted  = errors.New("the answer was aborted")
	errBegun    = errors.New("the answer has begun already")
	errNotBegun = errors.New("the answer has not begun yet")
)

type serverWriter struct {
	rw       http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration // for one write or flush; 0: not limited here
	begun    bool
	aborted  bool
}

func (w *serverWriter) Begin(status int, head Head) error {
	if w.aborted {
		return errAborted
	}
	if w.begun {
		return errBegun
	}
	w.begun = true
	header := w.rw.Header()
	addTo(header, head)
	if _, ok := header["Content-Type"]; !ok {
		header["Content-Type"] = nil // no guessing from the first bytes
	}
	w.rw.WriteHeader(status)
	return nil
}

func (w *serverWriter) Write(p []byte) (int, error) {
	if err := w.sendable(); err != nil {
		return 0, err
	}
	defer w.bound()()
	return w.rw.Write(p)
}

func (w *serverWriter) Flush() error {
	if err := w.sendable(); err != nil {
		return err
	}
	defer w.bound()()
	return w.control.Flush()
}

// bound sets the deadline of a write and returns what lifts it: between writes a stream may be silent for as long as it likes.
func (w *serverWriter) bound() (lift func()) {
	if w.patience <= 0 {
		return func() {}
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(w.patience))
	return func() { _ = w.control.SetWriteDeadline(time.Time{}) }
}

func (w *serverWriter) sendable() error {
	switch {
	case w.aborted:
		return errAborted
	case !w.begun:
		return errNotBegun
	}
	return nil
}

func (w *serverWriter) Abort()      { w.aborted = true }
func (w *serverWriter) Begun() bool { return w.begun }

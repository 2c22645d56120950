package wire

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// outSize bounds what is written at once.
const outSize = 16 << 10

//nolint:gochecknoglobals // memory to be used again, no state
var outBuffers = sync.Pool{New: func() any { return new([outSize]byte) }}

// plainWriter answers a request of a plainConn. It holds a buffer only while something is held back.
type plainWriter struct {
	conn *plainConn
	body *plainBody // of the request
	head bool       // the request's method is HEAD
	last bool       // no request may follow on the connection

	begun, aborted bool
	framing        bodyFraming
	left           int64 // of a fixed length
	lent           *[outSize]byte
	out            []byte // held back
	err            error  // of an earlier write
}

// bodyFraming is how an answer's end is found.
type bodyFraming int

const (
	chunked bodyFraming = iota
	fixed
	bodiless // HEAD, or a status without a body
)

// Begin puts status and fields into what is held back.
func (w *plainWriter) Begin(status int, head Head) error {
	switch {
	case w.aborted:
		return errAborted
	case w.begun:
		return errBegun
	}
	w.begun = true
	if w.body.left > 0 || w.conn.plain.close.Load() {
		w.last = true
	}
	length, known := int64(0), false
	if value := head.Get("Content-Length"); value != "" {
		length, known = parseLength(value)
	}
	none := status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
	switch {
	case w.head || none:
		w.framing = bodiless
	case known:
		w.framing, w.left = fixed, length
	}
	w.text("HTTP/1.1 ")
	w.text(strconv.Itoa(status))
	w.text(" ")
	w.text(http.StatusText(status))
	w.text("\r\n")
	dated := false
	for _, f := range head {
		switch {
		case isField(f.Name, "Content-Length"):
			if none || !known {
				continue
			}
		case isField(f.Name, "Connection"), isField(f.Name, "Transfer-Encoding"):
			continue
		case isField(f.Name, "Date"):
			dated = true
		}
		w.field(f.Name, f.Value)
	}
	if !dated {
		w.field("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	if w.framing == chunked {
		w.field("Transfer-Encoding", "chunked")
	}
	if w.last {
		w.field("Connection", "close")
	}
	w.text("\r\n")
	return w.err
}

// field adds a field line. What cannot stand in one does not get there.
func (w *plainWriter) field(name, value string) {
	if !isToken(name) {
		return
	}
	if !isValue(value) {
		value = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, value)
	}
	w.text(name)
	w.text(": ")
	w.text(value)
	w.text("\r\n")
}

// text adds bytes to what is held back, and sends that on when it is full.
func (w *plainWriter) text(s string) {
	for len(s) > 0 {
		n := copy(w.room(), s)
		w.out = w.out[:len(w.out)+n]
		s = s[n:]
	}
}

// room returns the free part of the buffer, which has at least one byte.
func (w *plainWriter) room() []byte {
	if w.lent == nil {
		w.lent = outBuffers.Get().(*[outSize]byte) //nolint:forcetypeassert // the pool holds nothing else
		w.out = w.lent[:0]
	}
	if len(w.out) == cap(w.out) {
		w.send()
	}
	return w.out[len(w.out):cap(w.out)]
}

func (w *plainWriter) send() {
	if len(w.out) > 0 && w.err == nil {
		_, w.err = w.conn.nc.Write(w.out)
	}
	w.out = w.out[:0]
}

// release gives the buffer away.
func (w *plainWriter) release() {
	if w.lent != nil {
		outBuffers.Put(w.lent)
		w.lent, w.out = nil, nil
	}
}

func (w *plainWriter) sendable() error {
	switch {
	case w.aborted:
		return errAborted
	case !w.begun:
		return errNotBegun
	}
	return w.err
}

// Write adds bytes of the body to what is held back, and sends when that is enough.
func (w *plainWriter) Write(p []byte) (int, error) {
	if err := w.sendable(); err != nil {
		return 0, err
	}
	switch w.framing {
	case bodiless:
		return len(p), nil
	case fixed:
		if int64(len(p)) > w.left {
			return 0, http.ErrContentLength
		}
		w.left -= int64(len(p))
		w.bytes(p)
	case chunked:
		w.chunks(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

func (w *plainWriter) bytes(p []byte) {
	for len(p) > 0 {
		if len(w.out) == 0 && len(p) >= outSize/2 { // nothing is gained by copying it
			if w.err == nil {
				_, w.err = w.conn.nc.Write(p)
			}
			return
		}
		n := copy(w.room(), p)
		w.out = w.out[:len(w.out)+n]
		p = p[n:]
	}
}

// chunkRoom is what the size and the ends of lines around a chunk take at most.
const chunkRoom = len("ffff\r\n\r\n")

// chunks makes one chunk of p, or several when it does not fit into the buffer.
func (w *plainWriter) chunks(p []byte) {
	for len(p) > 0 {
		free := len(w.room()) - chunkRoom
		if free < min(len(p), 512) {
			w.send()
			continue
		}
		part := p[:min(len(p), free)]
		w.out = strconv.AppendInt(w.out, int64(len(part)), 16)
		w.out = append(w.out, '\r', '\n')
		w.out = append(w.out, part...)
		w.out = append(w.out, '\r', '\n')
		p = p[len(part):]
	}
}

// Flush sends what is held back.
func (w *plainWriter) Flush() error {
	if err := w.sendable(); err != nil {
		return err
	}
	w.send()
	w.release()
	return w.err
}

// Abort keeps the answer from being completed.
func (w *plainWriter) Abort() { w.aborted = true }

// Begun reports whether Begin was called.
func (w *plainWriter) Begun() bool { return w.begun }

// end completes the answer, and reports whether it is whole.
func (w *plainWriter) end() (whole bool) {
	if w.aborted || !w.begun || w.left > 0 {
		w.aborted = true
		return false
	}
	if w.framing == chunked {
		w.text("0\r\n\r\n")
	}
	w.send()
	w.aborted = true // nothing can be sent any more
	return w.err == nil
}

//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// client is a developer's connection, kept open from one request to the next.
type client struct {
	address string
	got     func(int) // told how many bytes of an answer arrived together

	conn   net.Conn
	in     *bufio.Reader
	detach func() bool
}

// call sends a request, whose bytes are given, and compares the whole answer. It returns when the answer's first byte came.
// The connection is closed after an error.
func (c *client) call(ctx context.Context, x *exchange, request []byte, limit time.Duration) (first time.Time, err error) {
	if c.conn == nil {
		if err := c.dial(ctx, limit); err != nil {
			return first, err
		}
	}
	keep := false
	defer func() {
		if !keep {
			c.close()
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return first, fmt.Errorf("cannot set a deadline: %w", err)
	}
	_, writeErr := c.conn.Write(request)
	if _, err := c.in.Peek(1); err != nil { // an answer may be there although the request was not taken whole
		if writeErr != nil {
			err = writeErr
		}
		return first, fmt.Errorf("no answer: %w", err)
	}
	first = time.Now()
	keep, err = c.answer(x)
	return first, err
}

func (c *client) dial(ctx context.Context, limit time.Duration) error {
	conn, err := (&net.Dialer{Timeout: limit}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	c.conn = conn
	c.detach = context.AfterFunc(ctx, func() { conn.Close() })
	if c.in == nil {
		c.in = bufio.NewReaderSize(conn, 8<<10)
	}
	c.in.Reset(conn)
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		c.detach()
		c.conn.Close()
		c.conn = nil
	}
}

// answer compares an answer and reports whether the connection can be used again.
func (c *client) answer(x *exchange) (keep bool, err error) {
	h, err := readHead(c.in)
	if err != nil {
		return false, err
	}
	if !strings.HasPrefix(h.start, "HTTP/1.1 200") {
		said := make([]byte, min(max(h.length, 0), 300))
		n, _ := io.ReadFull(c.in, said)
		return false, fmt.Errorf("%q %s", h.start, said[:n])
	}
	switch {
	case h.chunked:
		err = c.chunks(x.answer)
	case h.length == len(x.answer):
		err = compare(c.in, x.answer, c.got)
	default:
		err = fmt.Errorf("%d bytes instead of %d", h.length, len(x.answer))
	}
	if err != nil {
		return false, fmt.Errorf("answer: %w", err)
	}
	return !h.close, nil
}

func (c *client) chunks(want []byte) error {
	for {
		line, err := readLine(c.in)
		if err != nil {
			return fmt.Errorf("cut off before %d of the bytes: %w", len(want), err)
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return fmt.Errorf("cannot read the size of a chunk: %w", err)
		}
		if int(size) > len(want) {
			return fmt.Errorf("a chunk of %d bytes, where only %d are left", size, len(want))
		}
		if err := compare(c.in, want[:size], c.got); err != nil {
			return err
		}
		want = want[size:]
		if line, err := readLine(c.in); err != nil || len(line) > 0 {
			return errors.New("a chunk that does not end where it should")
		}
		if size == 0 {
			break
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("ended %d bytes early", len(want))
	}
	return nil
}

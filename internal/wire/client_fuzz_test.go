package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// pieces is a connection from which bytes come in pieces of given sizes, and then the end.
type pieces struct {
	net.Conn
	text  []byte
	sizes []byte // taken in turn; none: all at once
	turn  int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	size := len(p.text)
	if len(p.sizes) > 0 {
		size = int(p.sizes[p.turn%len(p.sizes)]) + 1
		p.turn++
	}
	n := copy(b[:min(size, len(b))], p.text)
	p.text = p.text[n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error)     { return len(b), nil }
func (p *pieces) Close() error                    { return nil }
func (p *pieces) SetReadDeadline(time.Time) error { return nil }

// read is an answer as a client sees it.
func (p *pieces) read(client *Client, method string, buffer []byte) (head string, body []byte, kept bool, err error) {
	host := &host{}
	c := &conn{Conn: p, tcp: p, client: client, host: host}
	resp, _, err := c.exchange(context.Background(), request{first: client.requests.lend()}, method)
	if err != nil {
		return "", nil, false, err
	}
	head = fmt.Sprint(resp.Status, resp.Head, resp.ContentLength)
	for err == nil {
		var n int
		n, err = resp.Body.Read(buffer)
		body = append(body, buffer[:n]...)
	}
	return head, body, len(host.idle) == 1, err
}

// FuzzResponse: in whatever pieces an answer arrives, and whatever buffer it is read with, it is the same.
func FuzzResponse(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, text := range []string{
		ok + "Content-Length: 5\r\n\r\nhello", ok + "\r\nhello", "HTTP/1.0 200\n\nhello", ok + "Content-Length: 5\r\n\r\nhello, world",
		"HTTP/1.1 100 Continue\r\n\r\n" + ok + "a: b,\r\n  c\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 204 No Content\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + ok, ok + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n5\r\nhel",
		ok + "Connection: close\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
	} {
		f.Add([]byte(text), []byte{0}, uint16(1), false)
		f.Add([]byte(text), []byte{20, 1, 5}, uint16(100), true)
	}
	client := NewClient(ClientOptions{IdlePerUpstream: 1})
	f.Fuzz(func(t *testing.T, text, sizes []byte, buffer uint16, isHead bool) {
		method := "POST"
		if isHead {
			method = "HEAD"
		}
		head, body, kept, err := (&pieces{text: bytes.Clone(text)}).read(client, method, make([]byte, 64<<10))
		if len(body) > len(text) || len(head) > 0 && !errors.Is(err, io.EOF) && kept {
			t.Errorf("%q is read as %q, kept %v, %v", text, body, kept, err)
		}
		head2, body2, kept2, err2 := (&pieces{text: bytes.Clone(text), sizes: sizes}).read(client, method, make([]byte, int(buffer)+1))
		// Surplus that has not arrived by the end is seen by the pool, which is not here.
		if head2 != head || !bytes.Equal(body2, body) || err2.Error() != err.Error() || kept && !kept2 {
			t.Errorf("%q is read as %q, %q, %v\nin pieces as %q, %q, %v", text, head, body, err, head2, body2, err2)
		}
	})
}

package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carpool/internal/wire"
)

func newListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// plainServer accepts connections for a Plain.
type plainServer struct {
	*wire.Plain
	odd func(net.Conn) // takes what is not plain
}

func startPlain(t testing.TB, l net.Listener, o wire.PlainOptions) *plainServer {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.HeaderTimeout == 0 {
		o.HeaderTimeout = patience
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = patience
	}
	s := &plainServer{odd: func(c net.Conn) { c.Close() }}
	o.HandOver = func(c net.Conn) { s.odd(c) }
	s.Plain = wire.NewPlain(o)
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.ServeConn(ctx, c) })
		}
	})
	t.Cleanup(func() {
		stop()
		l.Close()
		s.Close()
		serving.Wait()
	})
	return s
}

// echo answers with what it got.
func echo(_ context.Context, w wire.Writer, r *wire.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.Abort()
		return
	}
	_ = w.Begin(200, wire.Head{{"X-Path", r.Path + "?" + r.Query}})
	_, _ = w.Write(body)
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// Fields come as they were sent: in order and in their case.
func TestPlainKeepsOrderAndCase(t *testing.T) {
	t.Parallel()
	heads := make(chan wire.Head, 1)
	address, _ := serveWire(t, "plain", func(_ context.Context, w wire.Writer, r *wire.Request) {
		heads <- r.Head
		_ = w.Begin(200, wire.Head{{"x-lower", "1"}, {"X-UPPER", "2"}, {"Content-Length", "0"}, {"date", "today"}})
	})
	c := dial(t, address)
	fmt.Fprint(c, "GET /a?b=%20 HTTP/1.1\r\nzeta: 1\r\nhOSt: h:1\r\nAlpha:  two words\t\r\nzeta:\r\nConnection: close\r\n\r\n")
	raw, err := io.ReadAll(c)
	if want := "HTTP/1.1 200 OK\r\nx-lower: 1\r\nX-UPPER: 2\r\nContent-Length: 0\r\ndate: today\r\nConnection: close\r\n\r\n"; string(raw) != want || err != nil {
		t.Errorf("%q, %v", raw, err)
	}
	if got, want := <-heads, (wire.Head{{"zeta", "1"}, {"Alpha", "two words"}, {"zeta", ""}, {"Connection", "close"}}); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// However a client cuts what it sends, and whether or not it waits for answers, each request is answered once and in order.
func TestPlainTakesRequestsInAnyPieces(t *testing.T) {
	t.Parallel()
	var sent, want strings.Builder
	for i := range 20 {
		body := strings.Repeat(fmt.Sprint(i), i*i)
		if i%3 == 0 {
			fmt.Fprintf(&sent, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
			body = ""
		} else {
			fmt.Fprintf(&sent, "POST /%d HTTP/1.1\r\nHost: h\r\nX-Long: %s\r\ncontent-length: %d\r\n\r\n%s", i, strings.Repeat("x", i*300), len(body), body)
		}
		want.WriteString(body + "|")
	}
	address, _ := serveWire(t, "plain", echo)
	for _, piece := range []int{1, 2, 3, 7, 100, 4096, 1 << 20} {
		c := dial(t, address)
		go func() {
			for rest := []byte(sent.String()); len(rest) > 0; {
				n := min(piece, len(rest))
				if _, err := c.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		from := bufio.NewReader(c)
		var got strings.Builder
		for range 20 {
			resp, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatalf("pieces of %d: %v", piece, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatalf("pieces of %d: %v", piece, err)
			}
			got.Write(body)
			got.WriteByte('|')
		}
		if got.String() != want.String() {
			t.Errorf("pieces of %d: %.200q", piece, got.String())
		}
	}
}

// What could be read in two ways is net/http's to judge, with every byte of it, and so is everything after it.
func TestOddRequestsAreHandedOverWhole(t *testing.T) {
	t.Parallel()
	handed := make(chan string, 1)
	listener := newListener(t)
	s := startPlain(t, listener, wire.PlainOptions{Serve: echo, Elsewhere: func(path string) bool { return strings.HasPrefix(path, "/admin/") }})
	s.odd = func(c net.Conn) {
		all, _ := io.ReadAll(c)
		handed <- string(all)
		c.Close()
	}
	const plain = "POST /first HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
	for name, odd := range map[string]string{
		"another method":        "PUT / HTTP/1.1\r\nHost: h\r\n\r\n",
		"HTTP/1.0":              "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
		"HTTP/2":                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"elsewhere":             "GET /admin/v1/users HTTP/1.1\r\nHost: h\r\n\r\n",
		"absolute form":         "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
		"escape in the path":    "GET /%61dmin/ HTTP/1.1\r\nHost: h\r\n\r\n",
		"fragment":              "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n",
		"two spaces":            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
		"no host":               "GET / HTTP/1.1\r\nX: h\r\n\r\n",
		"two hosts":             "GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n",
		"host with a path":      "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n",
		"two lengths":           "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\na",
		"length with a sign":    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na",
		"list of lengths":       "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\na",
		"chunks":                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks and a length":   "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"expect":                "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
		"upgrade":               "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n",
		"connection names":      "GET / HTTP/1.1\r\nHost: h\r\nConnection: x-api-key\r\n\r\n",
		"space before colon":    "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
		"folded line":           "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
		"no colon":              "GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n",
		"no name":               "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
		"bare LF in a line":     "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
		"bare LF at the end":    "GET / HTTP/1.1\r\nHost: h\r\n\n",
		"bare CR in a value":    "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
		"NUL in a value":        "GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
		"empty line in front":   "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"head that is too long": "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n",
	} {
		for _, first := range []string{"", plain} {
			c := dial(t, listener.Addr().String())
			go func() {
				fmt.Fprint(c, first+odd+plain)
				_ = c.(*net.TCPConn).CloseWrite()
			}()
			if first != "" {
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || resp.Header.Get("X-Path") != "/first?" {
					t.Fatalf("%s: the request before it was not answered: %v", name, err)
				}
			}
			select {
			case got := <-handed:
				if got != odd+plain {
					t.Errorf("%s: handed over %.200q", name, got)
				}
			case <-time.After(patience):
				t.Fatalf("%s: not handed over", name)
			}
			c.Close()
		}
	}
}

// While the answer is under way the client has nothing to say, so its leaving is seen, within a second.
func TestPlainSeesTheClientLeave(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*net.TCPConn){
		"FIN": func(c *net.TCPConn) { _ = c.Close() },
		"RST": func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		arrived, left := make(chan time.Time, 1), make(chan time.Duration, 1)
		address, _ := serveWire(t, "plain", func(ctx context.Context, w wire.Writer, r *wire.Request) {
			_, _ = io.ReadAll(r.Body)
			_ = w.Begin(200, nil)
			_ = w.Flush()
			start := time.Now()
			arrived <- start
			<-ctx.Done()
			left <- time.Since(start)
		})
		c := dial(t, address).(*net.TCPConn)
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
		<-arrived
		leave(c)
		select {
		case took := <-left:
			if took > time.Second {
				t.Errorf("%s: seen after %v", name, took)
			}
		case <-time.After(patience):
			t.Errorf("%s: not seen", name)
		}
	}
}

// A client that sends its next request early has not left, and gets both answers.
func TestPlainKeepsWhatComesEarly(t *testing.T) {
	t.Parallel()
	finish := make(chan struct{})
	address, _ := serveWire(t, "plain", func(ctx context.Context, w wire.Writer, r *wire.Request) {
		if r.Path == "/slow" {
			select {
			case <-finish:
			case <-ctx.Done():
				t.Error("the client was taken to have left")
			}
		}
		echo(ctx, w, r)
	})
	c := dial(t, address)
	fmt.Fprint(c, "POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
	time.AfterFunc(400*time.Millisecond, func() { // the watch reads by now
		fmt.Fprint(c, "POST /next HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n[1]")
		time.AfterFunc(100*time.Millisecond, func() { close(finish) })
	})
	from := bufio.NewReader(c)
	for _, want := range []string{"{}", "[1]"} {
		resp, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != want || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
}

// A body that nobody has read ends the connection, in a way that lets the answer arrive.
func TestPlainAnswersBeforeTheBodyIsRead(t *testing.T) {
	t.Parallel()
	address, _ := serveWire(t, "plain", func(_ context.Context, w wire.Writer, _ *wire.Request) {
		_ = w.Begin(413, wire.Head{{"Content-Length", "3"}})
		_, _ = w.Write([]byte("no!"))
	})
	c := dial(t, address)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", 1<<20, strings.Repeat("x", 100_000))
	raw, err := io.ReadAll(c)
	if !bytes.HasPrefix(raw, []byte("HTTP/1.1 413 ")) || !bytes.Contains(raw, []byte("\r\nConnection: close\r\n")) || !bytes.HasSuffix(raw, []byte("\r\n\r\nno!")) || err != nil {
		t.Errorf("%q, %v", raw, err)
	}
}

func TestPlainTimesOut(t *testing.T) {
	t.Parallel()
	listener := newListener(t)
	startPlain(t, listener, wire.PlainOptions{Serve: echo, HeaderTimeout: 100 * time.Millisecond, IdleTimeout: 300 * time.Millisecond})
	const request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, send := range map[string]string{"nothing": "", "half a head": request[:9], "a request": request, "one and a half": request + request[:9]} {
		c := dial(t, listener.Addr().String())
		fmt.Fprint(c, send)
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("after %s the connection stays: %v", name, err)
		}
	}
}

// FuzzPlain feeds a connection with any bytes: they are answered or handed over, and nothing is lost of what is handed over.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET / HTTP/1.1\nHost: h\n\n", "\r\n\r\n",
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, sent []byte, piece int) {
		piece = max(piece, 1)
		var seen int // requests that were served
		var rest net.Conn
		plain := wire.NewPlain(wire.PlainOptions{HandOver: func(c net.Conn) { rest = c }, HeaderTimeout: patience, IdleTimeout: patience, Log: slog.New(slog.DiscardHandler), Serve: func(_ context.Context, w wire.Writer, r *wire.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil && int64(len(body)) != r.ContentLength {
				t.Errorf("a body of %d bytes, announced were %d", len(body), r.ContentLength)
			}
			for _, f := range r.Head {
				if strings.ContainsAny(f.Name+f.Value, "\r\n\x00") {
					t.Errorf("field %q", f)
				}
			}
			seen++
			_ = w.Begin(200, wire.Head{{"Content-Length", "0"}})
		}})
		client, server := net.Pipe()
		go func() {
			for rest := sent; len(rest) > 0; {
				n := min(piece, len(rest))
				if _, err := client.Write(rest[:n]); err != nil {
					break
				}
				rest = rest[n:]
			}
			client.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		plain.ServeConn(context.Background(), server)
		if rest == nil {
			return
		}
		left, _ := io.ReadAll(rest)
		if !bytes.HasSuffix(sent, left) || seen == 0 && len(left) != len(sent) {
			t.Errorf("handed over %q of %q", left, sent)
		}
		rest.Close()
	})
}

// While the drain is only announced, a connection that was not told so may ask once more; then it is told.
func TestPlainSaysThatItCloses(t *testing.T) {
	t.Parallel()
	listener := newListener(t)
	s := startPlain(t, listener, wire.PlainOptions{Serve: echo})
	c := dial(t, listener.Addr().String())
	from := bufio.NewReader(c)
	ask := func() (closing bool, err error) {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, err := http.ReadResponse(from, nil)
		if err != nil {
			return false, err
		}
		_, err = io.ReadAll(resp.Body)
		return resp.Close, err
	}
	if closing, err := ask(); closing || err != nil {
		t.Fatal(closing, err)
	}
	s.CloseAfterAnswers()
	if closing, err := ask(); !closing || err != nil {
		t.Errorf("closing %v, %v", closing, err)
	}
	if _, err := from.ReadByte(); err != io.EOF {
		t.Errorf("the connection stays: %v", err)
	}
}

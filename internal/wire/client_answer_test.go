package wire_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"carpool/internal/wire"
)

// answering is an upstream that gives its first answer as it is and then, on the same connection if the client has kept it, another.
// It counts connections.
func answering(t testing.TB, first string, hangUp bool) (base string, connections *atomic.Int64) {
	t.Helper()
	connections = new(atomic.Int64)
	var asked atomic.Int64
	return listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		connections.Add(1)
		for {
			if _, err := receive(in); err != nil {
				return
			}
			if asked.Add(1) > 1 {
				_, _ = io.WriteString(c, okAnswer)
				continue
			}
			if _, err := io.WriteString(c, first); err != nil || hangUp {
				return
			}
		}
	}), connections
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	chunked := wire.Field{"X-A", "b"}
	cases := map[string]struct {
		method string // "": POST
		text   string
		close  bool // the upstream then closes
		status int  // 0: 200
		head   wire.Head
		length int64
		body   string
		kept   bool // the connection is used again
	}{
		"length":                {text: ok + "Content-Length: 5\r\n\r\nhello", head: wire.Head{{"Content-Length", "5"}}, length: 5, body: "hello", kept: true},
		"no body":               {text: ok + "Content-Length: 0\r\n\r\n", head: wire.Head{{"Content-Length", "0"}}, kept: true},
		"the length twice":      {text: ok + "content-length: 5\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello", head: wire.Head{{"content-length", "5"}, {"X-A", "b"}}, length: 5, body: "hello", kept: true},
		"more than the length":  {text: ok + "Content-Length: 5\r\n\r\nhello, world", head: wire.Head{{"Content-Length", "5"}}, length: 5, body: "hello"},
		"to be closed":          {text: ok + "Content-Length: 5\r\nConnection: x, CLOSE\r\n\r\nhello", head: wire.Head{{"Content-Length", "5"}, {"Connection", "x, CLOSE"}}, length: 5, body: "hello"},
		"until the end":         {text: ok + "X-A: b\r\n\r\nhello", close: true, head: wire.Head{{"X-A", "b"}}, length: -1, body: "hello"},
		"nothing until the end": {text: ok + "\r\n", close: true, length: -1},

		"order and case": {text: ok + "x-b: 1\r\nX-a: 2\r\ncOnTeNt-TyPe: 3\r\nX-B: 4\r\nContent-Length: 0\r\nx-c: \r\n\r\n", head: wire.Head{{"x-b", "1"}, {"X-a", "2"}, {"cOnTeNt-TyPe", "3"}, {"X-B", "4"}, {"Content-Length", "0"}, {"x-c", ""}}, kept: true},
		"white space":    {text: ok + "a:1\r\nb: \t 2 3 \t\r\nc : 4\r\nContent-Length:0\r\n\r\n", head: wire.Head{{"a", "1"}, {"b", "2 3"}, {"c", "4"}, {"Content-Length", "0"}}, kept: true},
		"white space before the colon of the length": {text: ok + "Content-Length : 5\r\n\r\nhello", head: wire.Head{{"Content-Length", "5"}}, length: 5, body: "hello", kept: true},
		"beyond ASCII":      {text: ok + "a: é\xff:\"\r\nContent-Length: 0\r\n\r\n", head: wire.Head{{"a", "é\xff:\""}, {"Content-Length", "0"}}, kept: true},
		"folded":            {text: ok + "a: b,\r\n  c\r\n\td\r\n \r\ne: f\r\nContent-Length: 0\r\n\r\n", head: wire.Head{{"a", "b,    c  \td"}, {"e", "f"}, {"Content-Length", "0"}}, kept: true},
		"line feeds":        {text: "HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\n\n\n", head: wire.Head{{"A", "b"}, {"Content-Length", "2"}}, length: 2, body: "\n\n", kept: true},
		"no reason":         {text: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", head: wire.Head{{"Content-Length", "0"}}, kept: true},
		"an empty reason":   {text: "HTTP/1.1 529 \r\nContent-Length: 0\r\n\r\n", status: 529, head: wire.Head{{"Content-Length", "0"}}, kept: true},
		"HTTP/1.0":          {text: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", head: wire.Head{{"Content-Length", "5"}}, length: 5, body: "hello"},
		"HTTP/1.0, kept":    {text: "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", head: wire.Head{{"Connection", "Keep-Alive"}, {"Content-Length", "5"}}, length: 5, body: "hello", kept: true},
		"HTTP/1.0, the end": {text: "HTTP/1.0 200 OK\r\n\r\nhello", close: true, length: -1, body: "hello"},

		"interim answers":       {text: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi", head: wire.Head{{"Content-Length", "2"}}, length: 2, body: "hi", kept: true},
		"204":                   {text: "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", status: 204, head: wire.Head{{"X-A", "b"}}, kept: true},
		"304 with a length":     {text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", status: 304, head: wire.Head{{"Content-Length", "9"}}, kept: true},
		"HEAD":                  {method: "HEAD", text: ok + "Content-Length: 9\r\n\r\n", head: wire.Head{{"Content-Length", "9"}}, length: 9, kept: true},
		"HEAD without a length": {method: "HEAD", text: ok + "X-A: b\r\n\r\n", head: wire.Head{{"X-A", "b"}}, length: -1, kept: true},
		"HEAD with chunks":      {method: "HEAD", text: ok + "X-A: b\r\nTransfer-Encoding: chunked\r\n\r\n", head: wire.Head{chunked}, length: -1, kept: true},

		"chunks":               {text: ok + "X-A: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", head: wire.Head{chunked}, length: -1, body: "hello, world", kept: true},
		"no chunks":            {text: ok + "X-A: b\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", head: wire.Head{chunked}, length: -1, kept: true},
		"sizes of chunks":      {text: ok + "X-A: b\r\nTransfer-Encoding: chunked\r\n\r\n00A;x=\"y\";z\r\n0123456789\r\n0b \t\r\n0123456789a\r\n0000\r\n\r\n", head: wire.Head{chunked}, length: -1, body: "01234567890123456789a", kept: true},
		"trailer fields":       {text: ok + "X-A: b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n:\r\nX-B: 2\r\n\r\n", head: wire.Head{chunked}, length: -1, body: "!", kept: true},
		"more than the chunks": {text: ok + "X-A: b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", head: wire.Head{chunked}, length: -1, body: "!"},
		"chunks and a length":  {text: ok + "Content-Length: 3\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", head: wire.Head{chunked}, length: -1, body: "hello"},
		"chunks of HTTP/1.0":   {text: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", head: wire.Head{{"Connection", "keep-alive"}}, length: -1, body: "hello"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, connections := answering(t, c.text, c.close)
			client := newClient(t)
			out := post(t, base, []byte("{}"))
			if c.method != "" {
				out.Method, out.Body = c.method, nil
			}
			answer, sent, err := client.Do(t.Context(), out)
			if err != nil || !sent {
				t.Fatal(sent, err)
			}
			body, err := io.ReadAll(answer.Body)
			if c.status == 0 {
				c.status = 200
			}
			if answer.Status != c.status || !slices.Equal(answer.Head, c.head) || answer.ContentLength != c.length || string(body) != c.body || err != nil {
				t.Errorf("%d %q, length %d, %q, %v\nwant %d %q, length %d, %q", answer.Status, answer.Head, answer.ContentLength, body, err, c.status, c.head, c.length, c.body)
			}
			// Before Close: with the end of an answer its connection is free for the next one.
			next, _, err := client.Do(t.Context(), post(t, base, []byte("{}")))
			if err != nil {
				t.Fatal(err)
			}
			next.Body.Close()
			answer.Body.Close()
			if n := connections.Load(); (n == 1) != c.kept {
				t.Errorf("%d connections for two requests", n)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	cases := map[string]string{
		"nothing":                     "",
		"another protocol":            "SSH-2.0-OpenSSH_9.2\r\n",
		"half a line":                 "HTTP/1.1 20",
		"half a head":                 ok + "A: b\r\n",
		"an empty line first":         "\r\n" + okAnswer,
		"HTTP/2":                      "HTTP/2 200 OK\r\n\r\n",
		"HTTP/11":                     "HTTP/11 200 OK\r\n\r\n",
		"no status":                   "HTTP/1.1\r\n\r\n",
		"a long status":               "HTTP/1.1 2000 OK\r\n\r\n",
		"a short status":              "HTTP/1.1 20 OK\r\n\r\n",
		"a signed status":             "HTTP/1.1 +20 OK\r\n\r\n",
		"a status below 100":          "HTTP/1.1 099 OK\r\n\r\n",
		"a switch of protocols":       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"no colon":                    ok + "A b\r\n\r\n",
		"no name":                     ok + ": b\r\n\r\n",
		"white space in a name":       ok + "A b: c\r\n\r\n",
		"a control character":         ok + "A: b\x00c\r\n\r\n",
		"a carriage return":           ok + "A: b\rc: d\r\n\r\n",
		"white space first":           ok + " A: b\r\n\r\n",
		"two lengths":                 ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"a list of lengths":           ok + "Content-Length: 5, 5\r\n\r\nhello",
		"a signed length":             ok + "Content-Length: +5\r\n\r\nhello",
		"a negative length":           ok + "Content-Length: -5\r\n\r\nhello",
		"an empty length":             ok + "Content-Length:\r\n\r\nhello",
		"a length beyond measure":     ok + "Content-Length: 9223372036854775808\r\n\r\nhello",
		"a hexadecimal length":        ok + "Content-Length: 0x5\r\n\r\nhello",
		"another coding":              ok + "Transfer-Encoding: gzip\r\n\r\nhello",
		"two codings":                 ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"the coding twice":            ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"no coding":                   ok + "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
		"a malformed length of a 204": "HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n",
		"a head beyond measure":       ok + "A: " + strings.Repeat("b", 256<<10) + "\r\n\r\n",
		"a head without an end":       ok + strings.Repeat("A: b\r\n", 100<<10),
		"interim answers for ever":    strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20<<10) + okAnswer,
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, _ := answering(t, text, true)
			answer, sent, err := newClient(t).Do(t.Context(), post(t, base, []byte("{}")))
			if err == nil || answer != nil || !sent || !strings.HasPrefix(err.Error(), "cannot reach "+strings.TrimPrefix(base, "http://")+": ") {
				t.Errorf("%+v, sent %v, %v", answer, sent, err)
			}
		})
	}
}

// A large head is taken, and the interim answers before it count.
func TestALargeHead(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("b", 200<<10)
	base, connections := answering(t, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nA: "+value+"\r\nContent-Length: 5\r\n\r\nhello", false)
	client := newClient(t)
	for _, want := range []string{"hello", "ok"} {
		answer, _, err := client.Do(t.Context(), post(t, base, []byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if string(body) != want || err != nil || want == "hello" && answer.Head.Get("a") != value {
			t.Errorf("%q, %v, a value of %d bytes", body, err, len(answer.Head.Get("a")))
		}
	}
	if connections.Load() != 1 {
		t.Errorf("%d connections", connections.Load())
	}
}

// Whatever is wrong with the chunks, what was right before is handed over, and then there is no clean end.
func TestMalformedChunks(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no size":                     "5\r\nhello\r\n\r\n",
		"no number":                   "5\r\nhello\r\nx\r\nhello\r\n0\r\n\r\n",
		"a sign":                      "5\r\nhello\r\n+5\r\nhello\r\n0\r\n\r\n",
		"a prefix":                    "5\r\nhello\r\n0x5\r\nhello\r\n0\r\n\r\n",
		"white space before":          "5\r\nhello\r\n 5\r\nhello\r\n0\r\n\r\n",
		"white space within":          "5\r\nhello\r\n1 0\r\nhello\r\n0\r\n\r\n",
		"a size beyond measure":       "5\r\nhello\r\n8000000000000000\r\nhello",
		"a line feed alone":           "5\r\nhello\r\n5\nhello\r\n0\r\n\r\n",
		"a carriage return alone":     "5\r\nhello\r\n5\r5\r\nhello\r\n0\r\n\r\n",
		"more data than announced":    "5\r\nhello!\r\n0\r\n\r\n",
		"no end of the data":          "5\r\nhello0\r\n\r\n",
		"a line feed in extensions":   "5\r\nhello\r\n5;a\n\r\nhello\r\n0\r\n\r\n",
		"endless extensions":          "5\r\nhello\r\n5;" + strings.Repeat("x", 8<<10) + "\r\nhello\r\n0\r\n\r\n",
		"endless white space":         "5\r\nhello\r\n5" + strings.Repeat(" ", 8<<10) + "\r\nhello\r\n0\r\n\r\n",
		"endless zeros":               "5\r\nhello\r\n" + strings.Repeat("0", 8<<10) + "\r\n\r\n",
		"endless trailer fields":      "5\r\nhello\r\n0\r\n" + strings.Repeat("a: b\r\n", 8<<10) + "\r\n",
		"an end of a line feed alone": "5\r\nhello\r\n0\r\n\n",
		"half an end":                 "5\r\nhello\r\n0\r\n\rx",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, connections := answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+text, false)
			client := newClient(t)
			answer, _, err := client.Do(t.Context(), post(t, base, []byte("{}")))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			if string(body) != "hello" || err == nil {
				t.Errorf("%q, %v", body, err)
			}
			for range 2 {
				if n, again := answer.Body.Read(make([]byte, 10)); n != 0 || !errors.Is(again, err) {
					t.Errorf("reading on gives %d, %v after %v", n, again, err)
				}
			}
			if answer, _, err = client.Do(t.Context(), post(t, base, []byte("{}"))); err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if connections.Load() != 2 {
				t.Error("the connection was used again")
			}
		})
	}
}

// A cut answer is never a whole one, wherever it was cut.
func TestAnswersCutAnywhere(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n",
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cuts := make(chan int, 1)
			base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				_, _ = receive(in)
				_, _ = io.WriteString(c, text[:<-cuts])
			})
			client := newClient(t)
			for cut := 0; cut <= len(text); cut++ {
				cuts <- cut
				answer, _, err := client.Do(t.Context(), post(t, base, []byte("{}")))
				if head := strings.Index(text, "\r\n\r\n") + 4; (err == nil) != (cut >= head) {
					t.Fatalf("cut at %d of a head of %d: %v", cut, head, err)
				} else if cut < head {
					continue
				}
				_, err = io.Copy(io.Discard, answer.Body)
				if cut < len(text) && !errors.Is(err, io.ErrUnexpectedEOF) || cut == len(text) && err != nil {
					t.Errorf("cut after %q: %v", text[:cut], err)
				}
				answer.Body.Close()
			}
		})
	}
	t.Run("by a reset", func(t *testing.T) {
		t.Parallel()
		read := make(chan struct{})
		base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = receive(in)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
			<-read
			reset(c)
		})
		answer, _, err := newClient(t).Do(t.Context(), post(t, base, []byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if _, err := io.ReadFull(answer.Body, make([]byte, 5)); err != nil {
			t.Error(err)
		}
		close(read)
		if n, err := answer.Body.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("an answer until the end of its connection that was reset ends with %d, %v", n, err)
		}
	})
}

// What has arrived is handed over without waiting for more, and all of it, however many chunks that are.
func TestAStreamIsNeitherHeldBackNorInPieces(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	base := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		_, _ = receive(in)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for text := range next {
			_, _ = io.WriteString(c, text)
		}
	})
	answer, _, err := newClient(t).Do(t.Context(), post(t, base, []byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	buffer := make([]byte, 4<<10)
	for _, c := range [][2]string{
		{"1\r\na\r\n", "a"},
		{"2\r\nbc\r\n3\r\ndef\r\n4\r\nghij\r\n", "bcdefghij"},
		{"5\r\nkl", "kl"},
		{"mno", "mno"},
		{"\r\n1\r\np\r\n2", "p"},
		{"\r\nq", "q"},
		{"r\r\n1\r\ns\r\n0\r\n\r\n", "rs"},
	} {
		next <- c[0]
		n, err := answer.Body.Read(buffer)
		if last := strings.HasSuffix(c[0], "0\r\n\r\n"); string(buffer[:n]) != c[1] || (err == io.EOF) != last || err != nil && !last {
			t.Errorf("%q was read as %q, %v", c[0], buffer[:n], err)
		}
	}
	close(next)
}

package wire_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"carpool/internal/wire"
)

// Over HTTP/1.0 the end of the connection is the end of the answer: a cut one must end in a reset.
func TestAbortOverHTTP10IsNoCleanEnd(t *testing.T) {
	for _, abort := range []bool{false, true} {
		server := httptest.NewServer(wire.Handler(func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, wire.Head{{Name: "Content-Type", Value: "text/event-stream"}})
			_, _ = io.WriteString(w, "some")
			_ = w.Flush()
			if abort {
				w.Abort()
			}
		}))
		conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
		reader := bufio.NewReader(conn)
		_, err = io.ReadAll(reader)
		if (err != nil) != abort {
			t.Errorf("aborted %v: reading ended with %v", abort, err)
		}
		_ = conn.Close()
		server.Close()
	}
}

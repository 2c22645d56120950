package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"carpool/internal/wire"
)

// patience bounds waits that are over at once when all is well.
const patience = 10 * time.Second

// protocols are the ways in which a client can talk to a Handler.
var protocols = []string{"HTTP/1.1", "HTTP/1.1 TLS", "HTTP/2 TLS", "h2c"}

// serveWire starts a server for a HandlerFunc and returns its address and a client that speaks the protocol.
func serveWire(t testing.TB, protocol string, handle wire.HandlerFunc) (string, *http.Client) {
	t.Helper()
	if !strings.HasPrefix(protocol, "plain") {
		return serve(t, protocol, wire.Handler(handle))
	}
	scheme, listener, client := "http://", newListener(t), &http.Client{Transport: &http.Transport{}}
	if protocol == "plain TLS" {
		scheme = "https://"
		server := httptest.NewUnstartedServer(nil) // lends its certificate
		server.StartTLS()
		server.Close()
		listener = tls.NewListener(listener, server.TLS)
		client = server.Client()
	}
	plain := startPlain(t, listener, wire.PlainOptions{Serve: handle})
	plain.odd = func(net.Conn) { t.Error("a request was taken for odd") }
	t.Cleanup(client.CloseIdleConnections)
	return scheme + listener.Addr().String(), client
}

// serve starts a server and returns its address and a client that speaks the protocol.
func serve(t testing.TB, protocol string, handler http.Handler) (string, *http.Client) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = discard()
	var client *http.Client
	switch protocol {
	case "HTTP/1.1":
		server.Start()
		client = server.Client()
	case "HTTP/1.1 TLS":
		server.StartTLS()
		client = server.Client()
	case "HTTP/2 TLS":
		server.EnableHTTP2 = true
		server.StartTLS()
		client = server.Client()
	case "h2c":
		only := new(http.Protocols)
		only.SetUnencryptedHTTP2(true)
		server.Config.Protocols = only
		server.Start()
		client = &http.Client{Transport: &http.Transport{Protocols: only}}
	}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		server.Close()
	})
	return server.URL, client
}

func eachProtocol(t *testing.T, test func(t *testing.T, protocol string)) {
	t.Helper()
	each(t, protocols, test)
}

// eachWay is every way to a HandlerFunc: through net/http, or through Plain.
func eachWay(t *testing.T, test func(t *testing.T, protocol string)) {
	t.Helper()
	each(t, append(slices.Clone(protocols), "plain", "plain TLS"), test)
}

func each(t *testing.T, protocols []string, test func(t *testing.T, protocol string)) {
	t.Helper()
	for _, p := range protocols {
		t.Run(strings.ReplaceAll(p, "/", ""), func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

func TestHandlerPassesRequestAndAnswer(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, protocol string) {
		var got *wire.Request
		url, client := serveWire(t, protocol, func(_ context.Context, w wire.Writer, r *wire.Request) {
			got = r
			body, err := io.ReadAll(r.Body)
			if w.Begun() || err != nil {
				t.Errorf("begun %v, %v", w.Begun(), err)
			}
			head := wire.Head{{"content-type", "application/json"}, {"X-Many", "1"}, {"x-many", "2"}}
			if err := w.Begin(418, head); err != nil || !w.Begun() {
				t.Error(err, w.Begun())
			}
			if _, err := w.Write(body); err != nil {
				t.Error(err)
			}
		})
		path := "/v1/a%2Fb//c"
		if strings.HasPrefix(protocol, "plain") { // escapes in a path are not plain
			path = "/v1/a;b//c"
		}
		req, err := http.NewRequest("POST", url+path+"?x=%20&y", strings.NewReader("the body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", "k")
		req.Header["Anthropic-Beta"] = []string{"first", "second"}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "the body" || resp.StatusCode != 418 || resp.Header.Get("Content-Type") != "application/json" || fmt.Sprint(resp.Header["X-Many"]) != "[1 2]" {
			t.Errorf("%q, %v, %+v", body, err, resp)
		}
		if got.Method != "POST" || got.Path != path || got.Query != "x=%20&y" || got.ContentLength != 8 || "http://"+got.Host != strings.Replace(url, "https", "http", 1) {
			t.Errorf("%+v", got)
		}
		if two := strings.Contains(protocol, "2"); (got.Proto == "HTTP/2.0") != two || !got.Remote.Addr().IsLoopback() || got.Remote.Port() == 0 {
			t.Errorf("proto %s, remote %v", got.Proto, got.Remote)
		}
		var names []string
		for _, f := range got.Head {
			names = append(names, f.Name+"="+f.Value)
		}
		if all := strings.Join(names, " "); !strings.Contains(all, "Anthropic-Beta=first Anthropic-Beta=second") || got.Head.Get("x-api-key") != "k" || got.Head.Has("Host") {
			t.Errorf("head %s", all)
		}
	})
}

func TestBeginAddsNoContentType(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, protocol string) {
		url, client := serveWire(t, protocol, func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, nil)
			_, _ = w.Write([]byte("<html>"))
		})
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if v, ok := resp.Header["Content-Type"]; ok {
			t.Errorf("content type %q", v)
		}
	})
}

func TestContentLengthPassesThrough(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, protocol string) {
		url, client := serveWire(t, protocol, func(_ context.Context, w wire.Writer, r *wire.Request) {
			head := wire.Head{{"Content-Length", "100000"}}
			if r.Path == "/unknown" {
				head = nil
			}
			_ = w.Begin(200, head)
			if r.Method != "HEAD" {
				_, _ = w.Write(make([]byte, 100_000))
			}
		})
		for path, want := range map[string]int64{"GET /": 100_000, "HEAD /": 100_000, "GET /unknown": -1} {
			method, path, _ := strings.Cut(path, " ")
			req, err := http.NewRequest(method, url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.ContentLength != want || err != nil || (n == 0) != (method == "HEAD") {
				t.Errorf("%s %s: length %d, read %d, %v", method, path, resp.ContentLength, n, err)
			}
		}
	})
}

// An answer that was not completed must be an error for the client, whatever was sent before and however its end is marked.
func TestAnAbortedAnswerIsNeverTakenForComplete(t *testing.T) {
	t.Parallel()
	length := wire.Head{{"Content-Length", "10"}}
	cases := map[string]wire.HandlerFunc{
		"before begin":   func(_ context.Context, w wire.Writer, _ *wire.Request) { w.Abort() },
		"never answered": func(context.Context, wire.Writer, *wire.Request) {},
		"after begin": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, nil)
			w.Abort()
		},
		"after begin was flushed": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, nil)
			_ = w.Flush()
			w.Abort()
		},
		"within an unknown length": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, nil)
			_, _ = w.Write([]byte("12345"))
			_ = w.Flush()
			w.Abort()
		},
		"with held back bytes": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, nil)
			_, _ = w.Write([]byte("12345"))
			_ = w.Flush()
			_, _ = w.Write([]byte("67890"))
			w.Abort()
		},
		"within a known length": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, length)
			_, _ = w.Write([]byte("12345"))
			_ = w.Flush()
			w.Abort()
		},
		"at the start of a known length": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, length)
			_ = w.Flush()
			w.Abort()
		},
		"returned short of a known length": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, length)
			_, _ = w.Write([]byte("12345"))
			_ = w.Flush()
		},
		"after 100 KB": func(_ context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, nil)
			_, _ = w.Write(make([]byte, 100_000))
			w.Abort()
		},
	}
	eachWay(t, func(t *testing.T, protocol string) {
		url, client := serveWire(t, protocol, func(ctx context.Context, w wire.Writer, r *wire.Request) {
			cases[strings.ReplaceAll(r.Path[1:], "_", " ")](ctx, w, r)
		})
		for name := range cases {
			resp, err := client.Post(url+"/"+strings.ReplaceAll(name, " ", "_"), "text/plain", strings.NewReader("{}"))
			if err != nil {
				continue
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil {
				t.Errorf("%s: a clean end after %d bytes with status %d", name, len(body), resp.StatusCode)
			}
		}
	})
}

// On the wire itself: no last chunk, and the connection ends.
func TestAbortSendsNoLastChunk(t *testing.T) {
	t.Parallel()
	url, _ := serveWire(t, "HTTP/1.1", func(_ context.Context, w wire.Writer, _ *wire.Request) {
		_ = w.Begin(200, nil)
		_, _ = w.Write([]byte("event"))
		_ = w.Flush()
		w.Abort()
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	raw, _ := io.ReadAll(conn) // ends with EOF or a reset
	if !bytes.HasSuffix(raw, []byte("\r\n\r\n5\r\nevent\r\n")) {
		t.Errorf("received %q", raw)
	}
}

func TestWriterRefusesWhatComesOutOfOrder(t *testing.T) {
	t.Parallel()
	url, client := serveWire(t, "HTTP/1.1", func(_ context.Context, w wire.Writer, r *wire.Request) {
		if _, err := w.Write([]byte("early")); err == nil || w.Flush() == nil || w.Begun() {
			t.Error("a body before its head was accepted")
		}
		_ = w.Begin(201, wire.Head{{"X-Once", "1"}})
		if w.Begin(500, wire.Head{{"X-Once", "2"}}) == nil {
			t.Error("a second head was accepted")
		}
		if r.Path != "/abort" {
			return
		}
		w.Abort()
		if _, err := w.Write([]byte("late")); err == nil || w.Flush() == nil || w.Begin(200, nil) == nil {
			t.Error("bytes after the abort were accepted")
		}
	})
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || len(body) != 0 || resp.StatusCode != 201 || len(resp.Header["X-Once"]) != 1 {
		t.Errorf("%q, %v, %+v", body, err, resp)
	}
	if resp, err := client.Get(url + "/abort"); err == nil {
		_, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Error("a clean end")
		}
	}
}

// Each piece must reach the client before the next one exists.
func TestFlushDeliversEachPieceAtOnce(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, protocol string) {
		read := make(chan struct{})
		url, client := serveWire(t, protocol, func(ctx context.Context, w wire.Writer, _ *wire.Request) {
			_ = w.Begin(200, wire.Head{{"Content-Type", "text/event-stream"}})
			_ = w.Flush()
			for i := range 100 {
				select {
				case <-read:
				case <-ctx.Done():
					return
				}
				fmt.Fprintf(w, "data: %d\n", i)
				_ = w.Flush()
			}
		})
		ctx, stop := context.WithTimeout(t.Context(), patience)
		defer stop()
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req) // returns only because the head was flushed
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for i := range 100 {
			read <- struct{}{}
			if line, err := lines.ReadString('\n'); line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%q, %v", line, err)
			}
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func TestReadDeadlineEndsASlowBody(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, protocol string) {
		url, client := serveWire(t, protocol, func(_ context.Context, w wire.Writer, r *wire.Request) {
			if err := r.ReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Error(err)
			}
			_, err := io.ReadAll(r.Body)
			_ = w.Begin(200, nil)
			fmt.Fprint(w, err != nil)
		})
		body, end := io.Pipe()
		defer end.Close()
		go func() { _, _ = end.Write([]byte("half")) }()
		req, err := http.NewRequest("POST", url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 8
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); string(text) != "true" {
			t.Errorf("the body ended without an error: %s", text)
		}
	})
}

//go:build unix

package wire_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"carpool/internal/wire"
)

// ask sends a request and hands its answer's body over.
type ask func(ctx context.Context, body []byte) (io.ReadCloser, error)

// asking gives the benchmarks both clients: this package's, and the one of net/http with the same settings.
func asking(b *testing.B, base string, run func(b *testing.B, do ask)) {
	target, err := url.Parse(base + "/v1/messages")
	if err != nil {
		b.Fatal(err)
	}
	head := cliHead().Filter(func(f wire.Field) bool { return f.Name != "Connection" && f.Name != "Content-Length" })
	b.Run("wire", func(b *testing.B) {
		client := newClient(b)
		run(b, func(ctx context.Context, body []byte) (io.ReadCloser, error) {
			answer, _, err := client.Do(ctx, &wire.Outgoing{Method: "POST", URL: target, Head: head, Body: wire.NewBody(body, nil)})
			if err != nil {
				return nil, err
			}
			return answer.Body, nil
		})
	})
	b.Run("net-http", func(b *testing.B) {
		transport := &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: time.Minute, DisableCompression: true, WriteBufferSize: 2 << 10, ReadBufferSize: 2 << 10}
		b.Cleanup(transport.CloseIdleConnections)
		run(b, func(ctx context.Context, body []byte) (io.ReadCloser, error) {
			header := make(http.Header, len(head))
			for _, f := range head {
				header[f.Name] = []string{f.Value}
			}
			req := (&http.Request{Method: "POST", URL: target, Host: target.Host, Header: header, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}).WithContext(ctx)
			answer, err := transport.RoundTrip(req)
			if err != nil {
				return nil, err
			}
			return answer.Body, nil
		})
	})
}

// processorTime makes a benchmark report what it takes of the processors, the upstream's part included: on a machine with others
// that says more than the time on the clock.
func processorTime(b *testing.B) (report func()) {
	used := func() int64 {
		var r syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
		return r.Utime.Nano() + r.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// serving is a server that costs next to nothing: it takes requests of one size, whatever they are, and answers each.
func serving(b *testing.B, answer func(c net.Conn) error) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				buffer := make([]byte, 256<<10)
				for {
					got, end := 0, -1
					for end < 0 || got < end {
						n, err := c.Read(buffer[got:])
						if err != nil {
							return
						}
						got += n
						if at := bytes.Index(buffer[:got], []byte("\r\n\r\n")); end < 0 && at >= 0 {
							end = at + 4
							if _, length, ok := bytes.Cut(buffer[:at], []byte("Content-Length: ")); ok {
								size := 0
								for _, d := range length {
									if d < '0' || d > '9' {
										break
									}
									size = size*10 + int(d-'0')
								}
								end += size
							}
						}
					}
					if answer(c) != nil {
						return
					}
				}
			})
		}
	})
	b.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	return "http://" + listener.Addr().String()
}

const answerHead = "HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 09:00:00 GMT\r\nContent-Type: application/json\r\nrequest-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\nanthropic-ratelimit-requests-limit: 4000\r\nanthropic-ratelimit-requests-remaining: 3999\r\nanthropic-ratelimit-requests-reset: 2026-11-23T09:00:00Z\r\nServer: cloudflare\r\nCF-RAY: 94a0a0a0a0a0a0a0-FRA\r\n"

// BenchmarkClient sends 1 KB, or 100 KB, and gets 1 KB back.
func BenchmarkClient(b *testing.B) {
	reply := fmt.Appendf(nil, "%sContent-Length: 1024\r\n\r\n%s", answerHead, bytes.Repeat([]byte("x"), 1024))
	base := serving(b, func(c net.Conn) error { _, err := c.Write(reply); return err })
	for _, size := range []int{1 << 10, 100 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			asking(b, base, func(b *testing.B, do ask) {
				body := make([]byte, size)
				b.ReportAllocs()
				defer processorTime(b)()
				b.SetParallelism(32 / runtime.GOMAXPROCS(0))
				b.RunParallel(func(pb *testing.PB) {
					buffer := make([]byte, 4<<10)
					for pb.Next() {
						ctx, cancel := context.WithCancel(b.Context()) // as every request has its own
						if _, err := drain(ctx, do, body, buffer); err != nil {
							b.Error(err)
						}
						cancel()
					}
				})
			})
		})
	}
}

func drain(ctx context.Context, do ask, body, buffer []byte) (read int64, err error) {
	answer, err := do(ctx, body)
	if err != nil {
		return 0, err
	}
	defer answer.Close()
	for {
		n, err := answer.Read(buffer)
		read += int64(n)
		if err == io.EOF {
			return read, nil
		}
		if err != nil {
			return read, err
		}
	}
}

// BenchmarkClientStream reads a stream of 200 events in as many chunks, each of them sent alone.
func BenchmarkClientStream(b *testing.B) {
	const events = 200
	const text = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":\"some text\"}}\n\n"
	event := fmt.Appendf(nil, "%x\r\n%s\r\n", len(text), text)
	head := []byte(answerHead + "Transfer-Encoding: chunked\r\n\r\n")
	base := serving(b, func(c net.Conn) error {
		_, err := c.Write(head)
		for range events {
			if err == nil {
				_, err = c.Write(event)
			}
		}
		if err == nil {
			_, err = io.WriteString(c, "0\r\n\r\n")
		}
		return err
	})
	asking(b, base, func(b *testing.B, do ask) {
		body, buffer := make([]byte, 1<<10), make([]byte, 4<<10)
		b.ReportAllocs()
		defer processorTime(b)()
		for b.Loop() {
			if n, err := drain(b.Context(), do, body, buffer); err != nil || n != int64(events*len(text)) {
				b.Fatal(n, err)
			}
		}
	})
}

// BenchmarkClientMemory reports what a stream takes that is open and has nothing to say, without its reader, but with the
// upstream's end of the connection, which is in this process.
func BenchmarkClientMemory(b *testing.B) {
	const streams = 400
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var open []net.Conn
	done, request := make(chan struct{}), make([]byte, 8<<10)
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			_, _ = c.Read(request)
			_, _ = io.WriteString(c, answerHead+"Transfer-Encoding: chunked\r\n\r\n5\r\nstart\r\n")
		}
	}()
	asking(b, "http://"+listener.Addr().String(), func(b *testing.B, do ask) {
		body, buffer := make([]byte, 1<<10), make([]byte, 4<<10)
		for b.Loop() {
			before := inUse()
			answers := make([]io.Closer, 0, streams)
			for range streams {
				answer, err := do(b.Context(), body)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := answer.Read(buffer); err != nil {
					b.Fatal(err)
				}
				answers = append(answers, answer)
			}
			b.ReportMetric(float64(inUse()-before)/streams, "B/stream")
			for _, answer := range answers {
				answer.Close()
			}
		}
	})
	listener.Close()
	<-done
	for _, c := range open {
		c.Close()
	}
}

func inUse() int64 {
	for range 3 { // what is pooled survives one
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

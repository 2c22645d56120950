package web_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"carpool/internal/web"
	"carpool/internal/wire"
)

// What is refused before it is a request has a line in the log, too, which quotes nothing of it; what a handler refuses has its own.
func TestRefusedWithoutARequest(t *testing.T) {
	t.Parallel()
	handle := func(_ context.Context, w wire.Writer, _ *wire.Request) {
		_ = w.Begin(400, wire.Head{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}, {Name: "Content-Length", Value: "0"}})
	}
	lender := httptest.NewUnstartedServer(nil) // of its certificate
	lender.StartTLS()
	defer lender.Close()
	config := &tls.Config{Certificates: lender.TLS.Certificates}
	for sent, status := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a\r\nX-Secret: hidden\r\nno field\r\n\r\n":                       "400",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Secret: " + strings.Repeat("hidden", 12<<10) + "\r\n\r\n": "431",
		"POST / HTTP/1.1\r\nHost: a\r\nX-Secret: hidden\r\nTransfer-Encoding: hidden\r\n\r\n":     "501",
		"GET / HTTP/3.0\r\nHost: a\r\nX-Secret: hidden\r\n\r\n":                                   "505",
		"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":                                  "",
	} {
		for name, config := range map[string]*tls.Config{"plain": nil, "TLS": config} {
			raw := &journal{}
			s := serveWith(t, web.ServerOptions{Plain: handle, Handler: wire.Handler(handle), TLS: config, Log: slog.New(slog.NewTextHandler(raw, nil))})
			conn := s.dial(t)
			if config != nil {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the lender's
			}
			_, _ = io.WriteString(conn, sent)
			answer, _ := io.ReadAll(conn)
			if want := " " + status; !strings.HasPrefix(string(answer), "HTTP/1.1"+want) {
				t.Errorf("%s: %.60q: %.60q", name, sent, answer)
			}
			text := raw.String()
			if n := strings.Count(text, "refused what is no proper request"); (n == 1) != (status != "") || strings.Contains(text, "hidden") ||
				status != "" && !strings.Contains(text, "server=test status="+status+" client=127.0.0.1\n") {
				t.Errorf("%s: %.60q: the log is %s", name, sent, text)
			}
		}
	}
}

func TestADrainIsAnnounced(t *testing.T) {
	t.Parallel()
	raw := &journal{}
	s := serveWith(t, web.ServerOptions{Plain: hello, Handler: wire.Handler(hello), Drain: web.Drain{Timeout: patience}, Log: slog.New(slog.NewTextHandler(raw, nil))})
	s.stop()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
	s.ended <- nil
	if want := "msg=draining server=test delayMs=0 timeoutMs=10000\n"; !strings.Contains(raw.String(), want) {
		t.Errorf("the log is %s", raw)
	}
}

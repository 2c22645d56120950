package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/anthropic"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// patience bounds waits that are over at once when all is well.
const patience = 10 * time.Second

// rig is a Front behind a real socket, with what it logs and counts.
type rig struct {
	url      string
	client   *http.Client
	registry *prometheus.Registry
	lines    chan map[string]any // finished access lines
	raw      *journal
}

// journal is the log as text.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
	line chan map[string]any
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	j.text.Write(p)
	j.mu.Unlock()
	var line map[string]any
	if json.Unmarshal(p, &line) == nil && line["msg"] == "request" {
		j.line <- line
	}
	return len(p), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newRig(t testing.TB, handle web.Handler) *rig {
	t.Helper()
	r := &rig{registry: prometheus.NewRegistry(), lines: make(chan map[string]any, 1000)}
	r.raw = &journal{line: r.lines}
	log := slog.New(slog.NewJSONHandler(r.raw, &slog.HandlerOptions{Level: slog.LevelDebug}))
	front := web.NewFront(log, web.NewMetrics(r.registry), time.Now)
	server := httptest.NewUnstartedServer(wire.Handler(front.Serve(handle)))
	server.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	server.Start()
	t.Cleanup(server.Close)
	r.url, r.client = server.URL, server.Client()
	return r
}

// do sends a request and returns the answer with its body; err is also an answer that breaks off.
func (r *rig) do(t testing.TB, method, path string, body io.Reader) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", "the-clients-secret")
	req.Header.Set("Authorization", "Bearer the-clients-secret")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

// line waits for the access line of the next request.
func (r *rig) line(t testing.TB) map[string]any {
	t.Helper()
	select {
	case line := <-r.lines:
		return line
	case <-time.After(patience):
		t.Fatalf("no access line; the log is\n%s", r.raw)
		return nil
	}
}

func ok(_ context.Context, w wire.Writer, r *web.Request) error {
	r.Route = "/ok"
	if err := w.Begin(200, wire.Head{{Name: "Request-Id", Value: r.ID}, {Name: "Content-Length", Value: "5"}}); err != nil {
		return err
	}
	_, err := w.Write([]byte("hello"))
	return err
}

func TestAccessLine(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(ctx context.Context, w wire.Writer, r *web.Request) error {
		r.Note(slog.String("user", "alice"), slog.Int("tokens", 7))
		return ok(ctx, w, r)
	})
	resp, body, err := r.do(t, "POST", "/v1/messages?key=the-clients-secret", strings.NewReader("the-clients-secret"))
	if err != nil || body != "hello" {
		t.Fatal(body, err)
	}
	line := r.line(t)
	id, err := uuid.Parse(fmt.Sprint(line["id"]))
	if err != nil || id.Version() != 7 || resp.Header.Get("Request-Id") != id.String() {
		t.Errorf("id %v, the client has %q: %v", line["id"], resp.Header.Get("Request-Id"), err)
	}
	for key, want := range map[string]any{
		"level": "INFO", "method": "POST", "path": "/v1/messages", "status": 200.0, "bytes": 5.0, "client": "127.0.0.1", "user": "alice", "tokens": 7.0,
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
	if took, ok := line["tookMs"].(float64); !ok || took < 0 || took > float64(patience.Milliseconds()) {
		t.Errorf("took %v ms", line["tookMs"])
	}
	for _, key := range []string{"error", "errorType", "aborted"} {
		if v, ok := line[key]; ok {
			t.Errorf("%s is %v in the line of a success", key, v)
		}
	}
	if strings.Contains(r.raw.String(), "secret") {
		t.Errorf("the log shows a secret: %s", r.raw)
	}
}

func TestAccessLineIsBoundedAndQuiet(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(ctx context.Context, w wire.Writer, r *web.Request) error {
		r.Quiet = strings.HasPrefix(r.Path, "/probe")
		return ok(ctx, w, r)
	})
	long := "/" + strings.Repeat("a", 5000)
	if _, _, err := r.do(t, strings.Repeat("M", 300), long, nil); err != nil {
		t.Fatal(err)
	}
	line := r.line(t)
	if len(fmt.Sprint(line["path"])) > 140 || len(fmt.Sprint(line["method"])) > 30 {
		t.Errorf("%v %v", line["method"], line["path"])
	}
	if _, _, err := r.do(t, "GET", "/probe", nil); err != nil {
		t.Fatal(err)
	}
	if line := r.line(t); line["level"] != "DEBUG" {
		t.Errorf("a probe is logged at level %v", line["level"])
	}
	if _, _, err := r.do(t, "GET", "/x%0Alevel=ERROR%22", nil); err != nil {
		t.Fatal(err)
	}
	if line := r.line(t); line["path"] != "/x%0Alevel=ERROR%22" {
		t.Errorf("path %v", line["path"])
	}
}

func TestErrorsAreRendered(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		err     error
		status  int
		kind    string
		message string
		level   string
	}{
		"shown":   {anthropic.ErrUnauthenticated("Set a key."), 401, "authentication_error", "Set a key.", "INFO"},
		"wrapped": {fmt.Errorf("cannot: %w", anthropic.ErrTooLarge(10)), 413, "request_too_large", "Request exceeds the maximum allowed size of 10 bytes.", "INFO"},
		"hidden":  {errors.New("password=hunter2"), 500, "api_error", "Internal server error.", "WARN"},
		"caused":  {anthropic.ErrUpstream(errors.New("password=hunter2")), 502, "api_error", "No upstream could answer this request; try again in a moment.", "WARN"},
		"stopped": {web.ErrStopping, 503, "api_error", "This gateway is restarting; try again in a moment.", "WARN"},
	}
	r := newRig(t, func(_ context.Context, _ wire.Writer, r *web.Request) error { return cases[r.Path[1:]].err })
	for name, c := range cases {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			resp, body, err := r.do(t, method, "/"+name, nil)
			if err != nil {
				t.Fatal(err)
			}
			id := resp.Header.Get("Request-Id")
			want := fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q},"request_id":%q}`, c.kind, c.message, id)
			if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != "application/json" || resp.ContentLength != int64(len(want)) {
				t.Errorf("%s %s: %d, %v", method, name, resp.StatusCode, resp.Header)
			}
			if method == "HEAD" && body != "" || method != "HEAD" && body != want {
				t.Errorf("%s %s: %q\nwant %q", method, name, body, want)
			}
			line := r.line(t)
			if line["id"] != id || line["level"] != c.level || line["errorType"] != c.kind || line["status"] != float64(c.status) {
				t.Errorf("%s %s: line %v", method, name, line)
			}
			if cause := fmt.Sprint(line["error"]); strings.Contains(c.err.Error(), "hunter2") && !strings.Contains(cause, "hunter2") {
				t.Errorf("%s: the log does not say the cause: %s", name, cause)
			}
		}
	}
	resp, _, _ := r.do(t, "GET", "/shown", nil)
	if resp.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("the error's own fields are lost: %v", resp.Header)
	}
}

func TestPanicIsOneRequestsProblem(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(ctx context.Context, w wire.Writer, r *web.Request) error {
		switch r.Path {
		case "/nil":
			var none *web.Request
			none.Route = "crash"
		case "/late":
			_ = ok(ctx, w, r)
			_ = w.Flush()
			panic("too late")
		case "/early":
			panic(fmt.Errorf("internal detail"))
		}
		return ok(ctx, w, r)
	})
	for _, path := range []string{"/nil", "/early"} {
		resp, body, err := r.do(t, "POST", path, strings.NewReader("{}"))
		if err != nil || resp.StatusCode != 500 || !strings.Contains(body, `"type":"api_error"`) {
			t.Fatalf("%s: %+v, %q, %v", path, resp, body, err)
		}
		for _, inside := range []string{"goroutine", ".go", "detail", "nil pointer"} {
			if strings.Contains(body, inside) {
				t.Errorf("%s: the client sees %q in %s", path, inside, body)
			}
		}
		if line := r.line(t); line["status"] != 500.0 || line["level"] != "WARN" {
			t.Errorf("line %v", line)
		}
	}
	if log := r.raw.String(); !strings.Contains(log, "handler_test.go") || !strings.Contains(log, "internal detail") || !strings.Contains(log, `"stack"`) {
		t.Errorf("the log has no stack: %s", log)
	}
	_, _, _ = r.do(t, "GET", "/late", nil)
	if line := r.line(t); line["aborted"] != true {
		t.Errorf("line %v", line)
	}
	if _, body, err := r.do(t, "GET", "/fine", nil); body != "hello" || err != nil {
		t.Errorf("the server does not live on: %q, %v", body, err)
	}
	if got := counter(t, r.registry, "http_panics_total"); got != 3 {
		t.Errorf("%v panics counted", got)
	}
}

func TestErrorAfterBeginBreaksOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(_ context.Context, w wire.Writer, _ *web.Request) error {
		_ = w.Begin(200, wire.Head{{Name: "Content-Type", Value: "text/event-stream"}})
		_, _ = w.Write([]byte("event: message_start\n\n"))
		_ = w.Flush()
		return errors.New("the upstream broke off")
	})
	resp, body, err := r.do(t, "POST", "/v1/messages", strings.NewReader("{}"))
	if err == nil || resp.StatusCode != 200 || body != "event: message_start\n\n" {
		t.Errorf("%q, %v", body, err)
	}
	if line := r.line(t); line["aborted"] != true || line["level"] != "WARN" || line["status"] != 200.0 || line["bytes"] != 22.0 || line["error"] != "the upstream broke off" {
		t.Errorf("line %v", line)
	}
}

func TestClientThatLeavesIsNoFailure(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	r := newRig(t, func(ctx context.Context, _ wire.Writer, _ *web.Request) error {
		close(arrived)
		<-ctx.Done()
		return fmt.Errorf("cannot reach the upstream: %w", ctx.Err())
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := r.client.Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("an answer")
	}
	if line := r.line(t); line["status"] != 0.0 || line["level"] != "INFO" || line["errorType"] != nil || !strings.Contains(fmt.Sprint(line["error"]), "the client left") {
		t.Errorf("line %v", line)
	}
	if got := labels(t, r.registry, "http_requests_total"); !slices.Equal(got, []string{"method=GET path=other status=0"}) {
		t.Errorf("counted %v", got)
	}
}

// A client that writes while it is refused must read the whole refusal.
func TestRefusalReachesAClientThatIsStillWriting(t *testing.T) {
	t.Parallel()
	refusals := map[string]error{"/large": anthropic.ErrTooLarge(1), "/stranger": anthropic.ErrUnauthenticated("Set a key.")}
	r := newRig(t, func(_ context.Context, _ wire.Writer, r *web.Request) error { return refusals[r.Path] })
	body := strings.Repeat("x", 5<<20)
	for path, refusal := range refusals {
		for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body), fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			// This client is as simple as can be: it writes everything before it reads anything. Twice, on one connection, which
			// a chunked request does not keep.
			times := 2
			if strings.HasPrefix(framing, "Transfer-Encoding") {
				times = 1
			}
			for range times {
				if _, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: a\r\n"+framing); err != nil {
					t.Fatal(err)
				}
				head := make([]byte, 1<<10)
				n, err := conn.Read(head)
				var shown *anthropic.Error
				_ = errors.As(refusal, &shown)
				if err != nil || !strings.HasPrefix(string(head[:n]), fmt.Sprintf("HTTP/1.1 %d ", shown.Status)) || !strings.Contains(string(head[:n]), shown.Message) {
					t.Fatalf("%s: %q, %v", path, head[:n], err)
				}
			}
			conn.Close()
		}
	}
}

// A body that does not end must neither hold the answer back for long nor cost the connection of one that does.
func TestRefusalDoesNotWaitForASlowBody(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(context.Context, wire.Writer, *web.Request) error {
		return anthropic.ErrUnauthenticated("Set a key.")
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	_ = conn.SetDeadline(start.Add(3 * patience))
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	var trickle sync.WaitGroup
	trickle.Go(func() { // a byte now and then, so that no time-out between bytes would help
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-answered:
				return
			case <-tick.C:
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	})
	answer, err := io.ReadAll(conn)
	close(answered)
	trickle.Wait()
	if err != nil && len(answer) == 0 || !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") || !strings.HasSuffix(string(answer), "}") {
		t.Errorf("%q, %v", answer, err)
	}
	if !strings.Contains(string(answer), "Connection: close") {
		t.Errorf("the connection is kept: %q", answer)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("after %v", took)
	}
}

// A client that asks first is refused without being asked for its body.
func TestRefusalComesInsteadOfAnInvitation(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(_ context.Context, w wire.Writer, r *web.Request) error {
		if r.Path == "/stranger" {
			return anthropic.ErrUnauthenticated("Set a key.")
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return err
		}
		return ok(t.Context(), w, r)
	})
	for path, want := range map[string][]string{"/stranger": {"HTTP/1.1 401 Unauthorized"}, "/": {"HTTP/1.1 100 Continue", "HTTP/1.1 200 OK"}} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		from := textproto.NewReader(bufio.NewReader(conn))
		for i, status := range want {
			line, err := from.ReadLine()
			head, _ := from.ReadMIMEHeader()
			if line != status || err != nil {
				t.Fatalf("%s: %q, want %q: %v", path, line, status, err)
			}
			if closes := head.Get("Connection") == "close"; closes != (path == "/stranger") {
				t.Errorf("%s, %s: closes %v", path, line, closes)
			}
			if i+1 < len(want) {
				_, _ = conn.Write([]byte("x"))
			}
		}
	}
}

// A client that stopped sending is told why it is refused before all of the time for its body is over.
func TestRefusalDoesNotWaitForSilence(t *testing.T) {
	t.Parallel()
	front := web.NewFront(slog.New(slog.DiscardHandler), web.NewMetrics(prometheus.NewRegistry()), time.Now)
	serve := front.Serve(func(context.Context, wire.Writer, *web.Request) error { return anthropic.ErrTooLarge(1) })
	var allowed time.Duration
	serve(t.Context(), &fakeWriter{}, &wire.Request{
		Method: "POST", Path: "/", Body: iotest.ErrReader(os.ErrDeadlineExceeded),
		ReadDeadline: func(at time.Time) error { allowed = time.Until(at); return nil },
	})
	if allowed <= 0 || allowed > time.Second {
		t.Errorf("silence is suffered for %v", allowed)
	}
}

// fakeWriter is the Writer of another adaptor.
type fakeWriter struct {
	bytes.Buffer
	status  int
	aborted bool
}

func (w *fakeWriter) Begin(status int, _ wire.Head) error { w.status = status; return nil }
func (w *fakeWriter) Flush() error                        { return nil }
func (w *fakeWriter) Abort()                              { w.aborted = true }
func (w *fakeWriter) Begun() bool                         { return w.status != 0 }

// endless is a body without an end that notes how much of it was taken.
type endless struct{ taken int64 }

func (e *endless) Read(p []byte) (int, error) { e.taken += int64(len(p)); return len(p), nil }

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	front := web.NewFront(slog.New(slog.DiscardHandler), web.NewMetrics(prometheus.NewRegistry()), time.Now)
	serve := front.Serve(func(context.Context, wire.Writer, *web.Request) error { return anthropic.ErrTooLarge(1) })
	var deadlines []time.Time
	cases := map[string]struct {
		deadline func(time.Time) error
		drained  bool
	}{
		"with a deadline":    {func(at time.Time) error { deadlines = append(deadlines, at); return nil }, true},
		"without":            {nil, false},
		"that cannot be set": {func(time.Time) error { return errors.ErrUnsupported }, false},
	}
	for name, c := range cases {
		body, w := &endless{}, &fakeWriter{}
		serve(t.Context(), w, &wire.Request{Method: "POST", Path: "/", Body: body, ReadDeadline: c.deadline})
		if w.status != 413 || w.Len() == 0 || w.aborted {
			t.Errorf("%s: %+v", name, w)
		}
		if (body.taken > 0) != c.drained || body.taken > 65<<20 {
			t.Errorf("%s: %d bytes were taken in", name, body.taken)
		}
	}
	// The time allowed is never lifted from a body that has not ended: whoever reads on would wait for ever.
	if len(deadlines) == 0 || slices.ContainsFunc(deadlines, func(at time.Time) bool { return at.IsZero() || time.Until(at) > 5*time.Second }) {
		t.Errorf("deadlines %v", deadlines)
	}
	w := &fakeWriter{}
	serve(t.Context(), w, &wire.Request{Method: "GET", Path: "/"}) // no body at all
	if w.status != 413 {
		t.Errorf("%+v", w)
	}
}

func TestMetricsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(ctx context.Context, w wire.Writer, r *web.Request) error {
		if r.Path == "/ok" {
			return ok(ctx, w, r)
		}
		return anthropic.ErrNotFound("nothing")
	})
	for i := range 50 {
		if _, _, err := r.do(t, fmt.Sprint("METHOD", i), fmt.Sprint("/path/", i), nil); err != nil {
			t.Fatal(err)
		}
		r.line(t)
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		if _, _, err := r.do(t, method, "/ok", nil); err != nil {
			t.Fatal(err)
		}
		r.line(t)
	}
	got := labels(t, r.registry, "http_requests_total")
	if len(got) != 8 || !slices.Contains(got, "method=other path=other status=404") || !slices.Contains(got, "method=GET path=/ok status=200") {
		t.Errorf("%q", got)
	}
	if got := counter(t, r.registry, "http_requests_total"); got != 57 {
		t.Errorf("%v requests counted", got)
	}
	if got := labels(t, r.registry, "http_request_duration_seconds"); len(got) != 8 {
		t.Errorf("%q", got)
	}
	if got := counter(t, r.registry, "http_requests_in_flight"); got != 0 {
		t.Errorf("%v in flight after all is done", got)
	}
}

// labels returns the label sets of a metric as "name=value …".
func labels(t testing.TB, registry *prometheus.Registry, name string) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sets []string
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() != name {
				continue
			}
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, l.GetName()+"="+l.GetValue())
			}
			sets = append(sets, strings.Join(pairs, " "))
		}
	}
	return sets
}

// counter returns the sum of a counter or gauge over its labels.
func counter(t testing.TB, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

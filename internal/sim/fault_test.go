package sim_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andybalholm/brotli"

	"carpool/internal/sim"
)

func TestFaultStatus(t *testing.T) {
	g := newRig(t, sim.Options{})
	for status, kind := range map[int]string{
		400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
		413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "api_error", 504: "timeout_error",
		529: "overloaded_error",
	} {
		res := g.must("POST", "/v1/messages", prompt(fmt.Sprintf(`[[sim {"status":%d}]]`, status), streaming))
		wantError(t, res, status, kind, "")
		if res.header.Get("Retry-After") != "" {
			t.Errorf("%d has retry-after", status)
		}
	}
	res := g.must("POST", "/v1/messages", prompt(`[[sim {"status":429,"type":"billing_error","message":"enough",
		"headers":{"retry-after":"7","x-should-retry":"false","anthropic-ratelimit-tokens-limit":"","request-id":"req_own"}}]]`))
	if res.status != 429 || res.header.Get("Retry-After") != "7" || res.header.Get("X-Should-Retry") != "false" ||
		res.header.Get("Anthropic-Ratelimit-Tokens-Limit") != "" || res.header.Get("Request-Id") != "req_own" ||
		!strings.Contains(string(res.body), `"error":{"type":"billing_error","message":"enough"}`) {
		t.Errorf("got %+v %s", res, res.body)
	}
	res = g.must("POST", "/v1/messages", prompt(`[[sim {"status":502,"body":"html"}]]`))
	if res.status != 502 || !strings.HasPrefix(res.header.Get("Content-Type"), "text/html") || !strings.Contains(string(res.body), "<h1>502 Bad Gateway</h1>") {
		t.Errorf("html: %+v %s", res, res.body)
	}
	res = g.must("POST", "/v1/messages", prompt(`[[sim {"status":503,"body":"empty"}]]`))
	if res.status != 503 || len(res.body) != 0 {
		t.Errorf("empty: %+v", res)
	}
	res = g.must("POST", "/v1/messages", prompt(`[[sim {"status":200,"body":"empty"}]]`, streaming))
	if res.status != 200 || len(res.body) != 0 || res.err != nil || !strings.HasPrefix(res.header.Get("Content-Type"), "text/event-stream") {
		t.Errorf("empty 200: %+v", res)
	}
	res = g.must("POST", "/v1/messages", prompt(`[[sim {"status":307,"location":"/elsewhere"}]]`))
	if res.status != 307 || res.header.Get("Location") != "/elsewhere" {
		t.Errorf("redirect: %+v", res)
	}
}

func TestFaultSelection(t *testing.T) {
	g := newRig(t, sim.Options{Credentials: []sim.Credential{
		{Key: sim.DefaultKey, Faults: []sim.Fault{{Status: 529, Skip: 1, Times: 2, Model: "claude-opus-5-5"}, {Status: 403, Path: "/v1/models"}}},
		{Name: "b", Key: "key-b"},
	}})
	ask := func(body string, pairs ...string) int { return g.must("POST", "/v1/messages", body, pairs...).status }
	opus := strings.Replace(prompt("x"), "claude-sonnet-4-5", "claude-opus-5-5", 1)
	got := []int{ask(opus), ask(prompt("x")), ask(opus), ask(opus), ask(opus), ask(opus, "x-api-key", "key-b"), g.must("GET", "/v1/models", "").status}
	if want := "[200 200 529 529 200 200 403]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if ok, err := g.sim.SetFaults("credential-1"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got := g.must("GET", "/v1/models", "").status; got != 200 {
		t.Errorf("after removing the faults: %d", got)
	}
	if ok, _ := g.sim.SetFaults("nobody"); ok {
		t.Error("faults of nobody were set")
	}
	if _, err := g.sim.SetFaults("b", sim.Fault{Cut: "sideways"}); err == nil {
		t.Error("a bad fault was taken")
	}
	first := prompt(`[[sim {"text":"fine","status":500,"times":2}]] one`)
	got = []int{ask(first), ask(first), ask(first), ask(strings.Replace(first, "one", "two", 1))}
	if want := "[500 500 200 500]"; fmt.Sprint(got) != want {
		t.Errorf("first requests of a script: %v, want %s", got, want)
	}
	only := prompt(`[[sim {"text":"fine","status":500,"credential":"b"}]]`)
	if got := []int{ask(only), ask(only, "x-api-key", "key-b")}; fmt.Sprint(got) != "[200 500]" {
		t.Errorf("by credential: %v", got)
	}
}

const cutText = `"text":"This text is long enough for a number of events to come."`

func TestCuts(t *testing.T) {
	g := newRig(t, sim.Options{})
	whole, list := g.streamed(prompt(`[[sim {`+cutText+`}]]`, streaming))
	total := len(list)
	if total < 8 || whole.StopReason != "end_turn" {
		t.Fatal(total, whole)
	}
	ask := func(cut string) (result, []event) {
		t.Helper()
		res := g.must("POST", "/v1/messages", prompt(`[[sim {`+cutText+`,`+cut+`}]]`, streaming))
		if res.status != 200 {
			t.Fatalf("%s: %d %s", cut, res.status, res.body)
		}
		if strings.Contains(cut, "garbage") || strings.Contains(cut, "at_byte") {
			return res, nil
		}
		return res, events(t, res.body)
	}
	for at, want := range map[int]int{0: 0, 3: 3, -1: total - 1, -2: total - 2, 1000: total} {
		for kind, check := range map[string]func(error) bool{
			"reset": func(err error) bool { return errors.Is(err, syscall.ECONNRESET) },
			"abort": func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) },
			"clean": func(err error) bool { return err == nil },
		} {
			res, list := ask(fmt.Sprintf(`"cut":%q,"at_event":%d`, kind, at))
			if !check(res.err) || len(list) != want {
				t.Errorf("%s at %d: %d events, want %d, %v", kind, at, len(list), want, res.err)
			}
		}
		if res, list := ask(fmt.Sprintf(`"cut":"error","at_event":%d,"type":"api_error"`, at)); res.err != nil ||
			len(list) != want+1 || list[want].name != "error" || asJSON(t, list[want].data["error"]) != `{"message":"Overloaded","type":"api_error"}` {
			t.Errorf("error at %d: %+v", at, list)
		}
	}
	if res, _ := ask(`"cut":"abort","at_byte":333`); len(res.body) != 333 || !errors.Is(res.err, io.ErrUnexpectedEOF) {
		t.Errorf("abort at a byte: %d bytes, %v", len(res.body), res.err)
	}
	if res, _ := ask(`"cut":"garbage","at_event":2`); !bytes.Contains(res.body, []byte("{]this")) || res.err != nil {
		t.Errorf("garbage: %q", res.body)
	}
	if res, list := ask(`"cut":"stall","stall_ms":40,"ping_ms":10,"at_event":4`); res.err != nil || len(list) < total || list[4].name != "ping" {
		t.Errorf("stall: %d events, %v", len(list), res.err)
	}
	for _, cut := range []string{"drop", "drop_reset"} {
		if _, err := g.do("POST", "/v1/messages", prompt(`[[sim {"cut":"`+cut+`"}]]`)); err == nil {
			t.Errorf("%s: there was an answer", cut)
		}
	}
	g.until(func(c sim.Counters) bool { return c.InFlight == 0 })
	res := g.must("POST", "/v1/messages", prompt(`[[sim {"cut":"abort","at_byte":10}]]`))
	if len(res.body) != 10 || !errors.Is(res.err, io.ErrUnexpectedEOF) {
		t.Errorf("a whole message cut: %d bytes, %v", len(res.body), res.err)
	}
}

func TestHTTP2(t *testing.T) {
	s, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(s)
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	ask := func(step string) (proto string, body []byte, err error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, web.URL+"/v1/messages",
			strings.NewReader(prompt(`[[sim {`+cutText+step+`}]]`, streaming)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-api-key", sim.DefaultKey)
		req.Header.Set("anthropic-version", "2023-06-01")
		resp, err := web.Client().Do(req)
		if err != nil {
			return "", nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err = io.ReadAll(resp.Body)
		return resp.Proto, body, err
	}
	proto, body, err := ask("")
	if err != nil || proto != "HTTP/2.0" || assemble(t, events(t, body)).StopReason != "end_turn" {
		t.Errorf("%s %v %s", proto, err, body)
	}
	for _, cut := range []string{"reset", "abort"} {
		if _, body, err := ask(`,"cut":"` + cut + `","at_event":3`); err == nil || len(events(t, body)) != 3 {
			t.Errorf("%s: %v %s", cut, err, body)
		}
	}
	if _, _, err := ask(`,"cut":"drop"`); err == nil {
		t.Error("drop: there was an answer")
	}
}

func TestOddStreams(t *testing.T) {
	g := newRig(t, sim.Options{})
	const text = `"text":"ünïcödé — ✓ 😀 to be split","think":"größer"`
	plain, _ := g.streamed(prompt(`[[sim {`+text+`}]]`, streaming))
	for _, odd := range []string{
		`"write":1`, `"write":7,"crlf":true`, `"split_utf8":true`, `"comments":true,"unknown_events":true`,
		`"long_line":1048576`, `"crlf":true,"comments":true,"unknown_events":true,"long_line":70000,"write":1000`, `"every_ms":1`,
	} {
		res := g.must("POST", "/v1/messages", prompt(`[[sim {`+text+`,`+odd+`}]]`, streaming))
		var known []event
		for _, e := range events(t, res.body) {
			if e.name != "simulated_unknown" {
				known = append(known, e)
			}
		}
		m := assemble(t, known)
		if m.Content[0].Thinking != plain.Content[0].Thinking || m.text() != plain.text() || m.StopReason != "end_turn" {
			t.Errorf("%s: %+v", odd, m)
		}
		if crlf := bytes.Contains(res.body, []byte("\r\n")); crlf != strings.Contains(odd, "crlf") ||
			crlf && bytes.Count(res.body, []byte("\n")) != bytes.Count(res.body, []byte("\r\n")) {
			t.Errorf("%s: line ends", odd)
		}
		if strings.Contains(odd, "1048576") && len(res.body) < 1<<20 {
			t.Errorf("%s: %d bytes", odd, len(res.body))
		}
		sum := sha256.Sum256(res.body)
		g.until(func(c sim.Counters) bool { return c.InFlight == 0 })
		all := g.sim.Requests(0)
		if last := all[len(all)-1]; last.ResponseSHA256 != hex.EncodeToString(sum[:]) || last.ResponseBytes != int64(len(res.body)) || last.ClientGone {
			t.Errorf("%s: recorded %+v", odd, last)
		}
	}
}

func TestEncodings(t *testing.T) {
	g := newRig(t, sim.Options{})
	for name, reader := range map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"br":   func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
	} {
		for _, more := range []string{`"top_k":1`, streaming} {
			res := g.must("POST", "/v1/messages", prompt(`[[sim {"text":"packed","encoding":"`+name+`"}]]`, more))
			if res.header.Get("Content-Encoding") != name {
				t.Errorf("%s: %v", name, res.header)
			}
			r, err := reader(bytes.NewReader(res.body))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r)
			if err != nil || !strings.Contains(string(body), "packed") {
				t.Errorf("%s: %v %q", name, err, body)
			}
		}
	}
}

func TestHold(t *testing.T) {
	g := newRig(t, sim.Options{})
	const n = 5
	done := make(chan result, n)
	for range n {
		go func() {
			done <- g.must("POST", "/v1/messages", prompt(`[[sim {"text":"free","hold":"h"}]]`, streaming))
		}()
	}
	g.until(func(c sim.Counters) bool { return c.Held == n && c.InFlight == n })
	if got := g.sim.Release("other", 0); got != 0 {
		t.Errorf("%d released by another name", got)
	}
	if got := g.sim.Release("h", 2); got != 2 {
		t.Errorf("%d released", got)
	}
	for range 2 {
		if res := <-done; res.status != 200 || res.err != nil {
			t.Errorf("got %+v", res)
		}
	}
	g.until(func(c sim.Counters) bool { return c.Held == n-2 && c.InFlight == n-2 && c.Finished == 2 })
	if res := g.must("POST", "/__sim/release", ""); string(res.body) != "{\"released\":3}\n" {
		t.Errorf("got %s", res.body)
	}
	for range n - 2 {
		<-done
	}
}

func TestHoldInTheMiddleAndClientGone(t *testing.T) {
	g := newRig(t, sim.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := prompt(`[[sim {`+cutText+`,"cut":"stall","at_event":4,"hold":"mid"}]]`, streaming)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/messages", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-api-key", sim.DefaultKey)
	req.Header.Set("anthropic-version", "2023-06-01")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	g.until(func(c sim.Counters) bool { return c.Held == 1 })
	cancel()
	_ = resp.Body.Close()
	g.until(func(c sim.Counters) bool { return c.Held == 0 && c.ClientGone == 1 && c.Finished == 1 })
	if r := g.sim.Requests(0)[0]; !r.ClientGone || r.Status != 200 || r.ResponseBytes == 0 || r.Usage == nil {
		t.Errorf("recorded %+v", r)
	}
}

func TestDelay(t *testing.T) {
	g := newRig(t, sim.Options{})
	began := time.Now()
	g.message(prompt(`[[sim {"delay_ms":60}]]`))
	if took := time.Since(began); took < 60*time.Millisecond {
		t.Errorf("took %s", took)
	}
	began = time.Now()
	if m, list := g.streamed(prompt(`[[sim {"events":5,"every_ms":10}]]`, streaming)); m.text() == "" || time.Since(began) < time.Duration(len(list)-1)*10*time.Millisecond {
		t.Errorf("%d events took %s", len(list), time.Since(began))
	}
}

// TestEarly sends half of a body and expects the whole answer.
func TestEarly(t *testing.T) {
	for name, c := range map[string]struct {
		fault sim.Fault
		want  string
	}{
		"error":  {sim.Fault{Early: true, Status: 529}, "HTTP/1.1 529"},
		"stream": {sim.Fault{Early: true}, "event: message_stop"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, sim.Options{Credentials: []sim.Credential{{Key: sim.DefaultKey, Faults: []sim.Fault{c.fault}}}})
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = fmt.Fprintf(conn, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nAnthropic-Version: 1\r\nContent-Length: 20\r\n\r\n{\"model\":", sim.DefaultKey)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			var got bytes.Buffer
			buf := make([]byte, 4096)
			for !strings.Contains(got.String(), c.want) {
				n, err := conn.Read(buf)
				got.Write(buf[:n])
				if err != nil {
					t.Fatalf("%v after %q", err, got.String())
				}
			}
			if g.sim.Counters().Finished != 0 {
				t.Error("finished before the body came")
			}
			_, _ = io.WriteString(conn, strings.Repeat(" ", 11))
			g.until(func(c sim.Counters) bool { return c.Finished == 1 })
			if r := g.sim.Requests(0)[0]; r.BodyBytes != 20 {
				t.Errorf("recorded %+v", r)
			}
		})
	}
}

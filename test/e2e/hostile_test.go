package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// rawUpstream records the bytes that arrive on each connection, and answers each request with the same answer.
type rawUpstream struct {
	url string

	mu       sync.Mutex
	received []*bytes.Buffer // by connection
}

func startRawUpstream(t testing.TB, answer func(conn net.Conn)) *rawUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{url: "http://" + l.Addr().String()}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { u.serve(conn, answer) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return u
}

// serve takes what comes until it is a whole request by its Content-Length, answers, and listens on for more.
func (u *rawUpstream) serve(conn net.Conn, answer func(net.Conn)) {
	defer conn.Close()
	got := new(bytes.Buffer)
	u.mu.Lock()
	u.received = append(u.received, got)
	u.mu.Unlock()
	var request []byte
	p := make([]byte, 64<<10)
	for {
		n, err := conn.Read(p)
		u.mu.Lock()
		got.Write(p[:n])
		u.mu.Unlock()
		if request = append(request, p[:n]...); whole(request) {
			request = nil
			answer(conn)
		}
		if err != nil {
			return
		}
	}
}

var contentLength = regexp.MustCompile(`(?i)\r\ncontent-length: (\d+)\r\n`)

func whole(request []byte) bool {
	head, body, ended := bytes.Cut(request, []byte("\r\n\r\n"))
	length := contentLength.FindSubmatch(append(head, "\r\n"...))
	if !ended || length == nil {
		return false
	}
	n, err := strconv.Atoi(string(length[1]))
	return err == nil && len(body) >= n
}

// take returns what arrived since the last call, all connections one after another.
func (u *rawUpstream) take() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all strings.Builder
	for _, got := range u.received {
		all.Write(got.Bytes())
		got.Reset()
	}
	return all.String()
}

const plainMessage = `{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}`

func answerPlainly(conn net.Conn) {
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(plainMessage), plainMessage)
}

// sendRaw sends bytes on a new connection and returns the statuses of all answers until the server closes or is silent.
func sendRaw(t testing.TB, address, request string) (statuses []int) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callPatience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		_, err = io.Copy(io.Discard, resp.Body)
		statuses = append(statuses, resp.StatusCode)
		if err != nil || resp.Close {
			return statuses
		}
		_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond)) // whether there is another answer
	}
}

// TestDesync: whatever frames a request, the upstream gets one request of our own making, or none.
func TestDesync(t *testing.T) {
	t.Parallel()
	upstream := startRawUpstream(t, answerPlainly)
	g := configured(t, t.TempDir(), upstream.url, "drainTimeout: 5s", "claudeCode: {requireClient: off}") // no User-Agent, so that nothing is filled in
	body := mustJSON(prompt("x"))
	inner := "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	key := "x-api-key: " + g.key
	head := func(lines ...string) string {
		return "POST /v1/messages HTTP/1.1\r\n" + strings.Join(append([]string{"Host: carpool.example.com", "Content-Type: application/json"}, lines...), "\r\n") + "\r\n\r\n"
	}
	length := fmt.Sprintf("Content-Length: %d", len(body))
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	for name, test := range map[string]struct {
		request string
		want    []int // statuses
	}{
		"plain":                      {head(key, length) + body, []int{200}},
		"CL and TE":                  {head(key, "Content-Length: 4", "Transfer-Encoding: chunked") + chunked + inner, []int{200}},
		"TE and CL":                  {head(key, "Transfer-Encoding: chunked", "Content-Length: 4") + chunked + inner, []int{200}},
		"two lengths":                {head(key, length, "Content-Length: 5") + body, []int{400}},
		"the same length twice":      {head(key, length, length) + body, []int{200}},
		"a list of lengths":          {head(key, length+", 5") + body, []int{400}},
		"a signed length":            {head(key, fmt.Sprintf("Content-Length: +%d", len(body))) + body, []int{400}},
		"a negative length":          {head(key, "Content-Length: -1") + body, []int{400}},
		"an unknown encoding":        {head(key, "Transfer-Encoding: xchunked", length) + body, []int{501}},
		"two encodings":              {head(key, "Transfer-Encoding: chunked", "Transfer-Encoding: identity") + chunked, []int{501}},
		"an obscured encoding":       {head(key, "Transfer-Encoding: \x0bchunked", length) + body, []int{400}},
		"space before the colon":     {head(key, "Transfer-Encoding : chunked", length) + body, []int{400}},
		"bare LF":                    {strings.ReplaceAll(head(key, length), "\r\n", "\n") + body, []int{200}},
		"bare LF hides a field":      {head(key, length, "X-A: b\nTransfer-Encoding: chunked") + chunked, []int{200}},
		"bare CR":                    {head(key, length, "X-A: b\rTransfer-Encoding: chunked") + body, []int{400}},
		"obs-fold":                   {head(key, length, "X-Folded: a\r\n Transfer-Encoding: chunked") + body, []int{200}},
		"a folded first line":        {"POST /v1/messages HTTP/1.1\r\n Host: a\r\n" + key + "\r\n" + length + "\r\n\r\n" + body, []int{400}},
		"two hosts":                  {head(key, length, "Host: other") + body, []int{400}},
		"keys in two cases":          {head(key, "X-API-KEY: other", length) + body, nil},
		"key listed in Connection":   {head(key, length, "Connection: x-api-key, content-length, host") + body, nil},
		"Connection: keep-alive, te": {head(key, length, "Connection: keep-alive, TE", "TE: trailers", "Keep-Alive: timeout=5") + body, []int{200}},
		"upgrade":                    {head(key, length, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__") + body, []int{200}},
		"absolute form":              {strings.Replace(head(key, length), "/v1/messages", "http://other.example.com/v1/messages", 1) + body, []int{200}},
		"authority form":             {strings.Replace(head(key, length), "POST /v1/messages", "CONNECT upstream.example.com:443", 1) + body, nil},
		"chunk extension":            {head(key, "Transfer-Encoding: chunked") + fmt.Sprintf("%x;a=\"b\"\r\n%s\r\n0;c\r\n\r\n", len(body), body), []int{200}},
		"trailer":                    {head(key, "Transfer-Encoding: chunked", "Trailer: X-Api-Key") + strings.TrimSuffix(chunked, "\r\n") + "X-Api-Key: other\r\nContent-Length: 3\r\n\r\n", nil},
		"chunk size too large":       {head(key, "Transfer-Encoding: chunked") + "fffffffffffffffff\r\n" + body, []int{400}},
		"chunk longer than it says":  {head(key, "Transfer-Encoding: chunked") + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body)-1, body), []int{400}},
		"NUL in a value":             {head(key, length, "X-A: a\x00b") + body, []int{400}},
		"NUL in a name":              {head(key, length, "X-\x00A: a") + body, []int{400}},
		"control sign in the target": {strings.Replace(head(key, length), "/v1/messages", "/v1/messages\x01", 1) + body, []int{400}},
		"CR LF in the query":         {strings.Replace(head(key, length), "/v1/messages", "/v1/messages?a=%0d%0aX-Injected:%20b", 1) + body, []int{200}},
		"space in the target":        {strings.Replace(head(key, length), "/v1/messages", "/v1/messages x", 1) + body, []int{400}},
		"HTTP/1.0 with an encoding":  {strings.Replace(head(key, "Transfer-Encoding: chunked"), "HTTP/1.1", "HTTP/1.0", 1) + chunked, nil},
		"HTTP/3.0":                   {strings.Replace(head(key, length), "HTTP/1.1", "HTTP/3.0", 1) + body, []int{505}},
		"a request after it":         {head(key, length) + body + inner, []int{200, 404}},
		"compressed":                 {head(key, length, "Content-Encoding: gzip") + body, []int{400}},
		"a large header":             {head(key, length, "X-Large: "+strings.Repeat("x", 80<<10)) + body, []int{431}},
		"many fields":                {head(key, length, strings.TrimSuffix(strings.Repeat("X-M: x\r\n", 20000), "\r\n")) + body, []int{431}},
	} {
		t.Run(name, func(t *testing.T) { // one after another: the upstream's bytes belong to one of them
			got := sendRaw(t, g.url, test.request)
			if test.want != nil && !slices.Equal(got, test.want) {
				t.Errorf("statuses %v, want %v", got, test.want)
			}
			arrived := upstream.take()
			served := len(got) > 0 && got[0] == http.StatusOK
			if !served {
				if arrived != "" {
					t.Errorf("refused with %v, and yet this arrived:\n%q", got, tail(arrived, 2000))
				}
				return
			}
			wellFramed(t, arrived, body, strings.TrimPrefix(upstream.url, "http://"), g.key)
		})
	}
}

// wellFramed checks that the bytes are exactly one request, as strict as a reader can be.
func wellFramed(t *testing.T, arrived, body, host, key string) {
	t.Helper()
	head, got, ok := strings.Cut(arrived, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	if !ok || got != body || !regexp.MustCompile(`^POST /v1/messages(\?[!-~]*)? HTTP/1\.1$`).MatchString(lines[0]) || strings.ContainsAny(strings.ReplaceAll(head, "\r\n", ""), "\r\n\x00") {
		t.Fatalf("not one plain request:\n%q", tail(arrived, 2000))
	}
	count := map[string]int{}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ": ")
		if !ok || !regexp.MustCompile(`^[0-9A-Za-z-]+$`).MatchString(name) {
			t.Errorf("line %q", line)
		}
		name = strings.ToLower(name)
		count[name]++
		switch name {
		case "content-length":
			if value != strconv.Itoa(len(body)) {
				t.Errorf("length %s of %d", value, len(body))
			}
		case "host":
			if value != host {
				t.Errorf("host %s", value)
			}
		case "x-api-key":
			if value != simKey {
				t.Errorf("credential %q", value)
			}
		case "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "http2-settings", "x-injected":
			t.Errorf("field of another hop: %s", line)
		}
		if strings.Contains(line, key) {
			t.Errorf("the developer's key: %s", line)
		}
	}
	for _, name := range []string{"content-length", "host", "x-api-key"} {
		if count[name] != 1 {
			t.Errorf("%d fields %s", count[name], name)
		}
	}
}

// memory is the resident size of the server in bytes.
func (g *gateway) memory() int64 {
	g.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.proc.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		g.t.Fatal("no VmRSS")
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

// peak runs f and returns by how much the server's memory grew meanwhile at most.
func (g *gateway) peak(f func()) int64 {
	g.t.Helper()
	before, most := g.memory(), int64(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return max(most, g.memory()) - before
		case <-tick.C:
			most = max(most, g.memory())
		}
	}
}

// TestHostileBodies: bodies made to be expensive are refused or served, quickly and within bounds.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	upstream := startRawUpstream(t, answerPlainly)
	g := measured(t, upstream.url, "drainTimeout: 5s")
	const around = `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user","content":"x"}]`
	var keys strings.Builder
	keys.WriteString(around)
	for i := range 1_000_000 {
		fmt.Fprintf(&keys, `,"k%d":1`, i)
	}
	keys.WriteString("}")
	var nested strings.Builder
	nested.WriteString(around + `,"metadata":{`)
	for i := range 1_000_000 {
		if i > 0 {
			nested.WriteByte(',')
		}
		fmt.Fprintf(&nested, `"k%d":1`, i)
	}
	nested.WriteString("}}")
	for name, test := range map[string]struct {
		body   string
		status []int
	}{
		"depth 10 000 of arrays":        {around + `,"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, []int{200, 400}},
		"depth 10 000 of objects":       {around + `,"x":` + strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000) + `}`, []int{200, 400}},
		"depth 5 000 000, never closed": {around + `,"x":` + strings.Repeat("[", 5_000_000), []int{400}},
		"a million keys":                {keys.String(), []int{200, 400}},
		"a million keys in metadata":    {nested.String(), []int{200, 400}},
		"a string of 30 MB":             {around + `,"x":"` + strings.Repeat("x", 30<<20) + `"}`, []int{200}},
		"over the limit":                {around + `,"x":"` + strings.Repeat("x", 33<<20) + `"}`, []int{413}},
		"a number of a million digits":  {around + `,"x":` + strings.Repeat("1", 1_000_000) + `}`, []int{200, 400}},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			var status int
			grown := g.peak(func() { status = g.raw(t, []byte(test.body)).status })
			if !slices.Contains(test.status, status) {
				t.Errorf("status %d", status)
			}
			if limit := int64(100<<20 + 6*len(test.body)); grown > limit {
				t.Errorf("memory grew by %d MB for a body of %d MB", grown>>20, len(test.body)>>20)
			}
			t.Logf("status %d after %v, memory %+d MB", status, time.Since(begun).Round(time.Millisecond), grown>>20)
		})
	}
}

// TestBodyMemory: when bodies fill the memory that is meant for them, further requests are told to come back, and the
// others are served.
func TestBodyMemory(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	upstream := startRawUpstream(t, func(conn net.Conn) {
		<-hold
		answerPlainly(conn)
	})
	g := measured(t, upstream.url, "drainTimeout: 5s, maxBodyBytes: 8388608, maxBodyMemory: 33554432")
	body := mustJSON(prompt(strings.Repeat("x", 6<<20)))
	const clients = 24
	results := make(chan response, clients)
	grown := g.peak(func() {
		for range clients {
			go func() { results <- g.raw(t, []byte(body)) }()
		}
		eventually(t, callPatience, "all others have been refused", func() bool { return len(results) >= clients-5 })
	})
	statuses := map[int]int{}
	for range clients - 5 {
		r := <-results
		statuses[r.status]++
		if r.status == 529 && (r.header.Get("Retry-After") == "" || !strings.Contains(string(r.body), "overloaded_error")) {
			t.Errorf("%v\n%s", r.header, r.body)
		}
	}
	close(hold)
	for range 5 {
		statuses[(<-results).status]++
	}
	// Five of 6 MiB fit into 32 MiB if they come one after another; growing buffers of several at once may keep each other out.
	if statuses[200] == 0 || statuses[200] > 5 || statuses[200]+statuses[529] != clients {
		t.Errorf("statuses %v", statuses)
	}
	// Everything is let go again.
	if r := g.raw(t, []byte(body)); r.status != http.StatusOK {
		t.Errorf("afterwards: status %d\n%s", r.status, r.body)
	}
	t.Logf("%v of %d requests of 6 MiB; memory %+d MB", statuses, clients, grown>>20)
}

// TestAnswerBomb: a compressed answer passes as it is, and metering it costs no more than a bound.
func TestAnswerBomb(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	_, _ = io.WriteString(z, `{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"`)
	zeros := bytes.Repeat([]byte("0"), 1<<20)
	for range 2 << 10 { // 2 GiB
		_, _ = z.Write(zeros)
	}
	_ = z.Close()
	for name, status := range map[string]int{"success": 200, "refusal": 400, "overload": 529} {
		t.Run(name, func(t *testing.T) {
			upstream := startRawUpstream(t, func(conn net.Conn) {
				fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", status, bomb.Len())
				_, _ = conn.Write(bomb.Bytes())
			})
			g := measured(t, upstream.url, "drainTimeout: 5s")
			begun := time.Now()
			var r response
			grown := g.peak(func() { r = g.raw(t, []byte(mustJSON(prompt("x")))) })
			if grown > 64<<20 || r.err != nil {
				t.Errorf("memory grew by %d MB; %v", grown>>20, r.err)
			}
			if status == 200 && !bytes.Equal(r.body, bomb.Bytes()) {
				t.Errorf("%d of %d bytes", len(r.body), bomb.Len())
			}
			t.Logf("status %d, %d KB for 2 GiB after %v, memory %+d MB", r.status, bomb.Len()>>10, time.Since(begun).Round(time.Millisecond), grown>>20)
		})
	}
}

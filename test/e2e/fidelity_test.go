package e2e

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// capture is a request as a real CLI sent it: fields in their order and case, texts replaced by filler of the same shape.
type capture struct {
	name    string
	Method  string      `json:"method"`
	URL     string      `json:"url"`
	Headers [][2]string `json:"headers_in_wire_order"`
	body    []byte
}

// captures reads testdata/captures.tar.zst: NAME.head.json and NAME.body for each request.
func captures(t *testing.T) []capture {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "captures.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzip, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer unzip.Close()
	var list []capture
	for files := tar.NewReader(unzip); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutSuffix(h.Name, ".head.json"); ok {
			c := capture{name: name}
			if err := json.Unmarshal(content, &c); err != nil {
				t.Fatalf("%s: %v", h.Name, err)
			}
			list = append(list, c)
		} else {
			list[len(list)-1].body = content
		}
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// send writes the request byte for byte as the CLI did, apart from host, credential and length, and reads the answer as it comes.
func (c capture) send(t *testing.T, address, key string) response {
	t.Helper()
	host := strings.TrimPrefix(address, "http://")
	var head strings.Builder
	head.WriteString(c.Method + " " + c.URL + " HTTP/1.1\r\n")
	for _, f := range c.Headers {
		name, value := f[0], f[1]
		switch strings.ToLower(name) {
		case "host":
			value = host
		case "authorization":
			value = "Bearer " + key
		case "x-api-key":
			value = key
		case "content-length":
			value = strconv.Itoa(len(c.body))
		}
		head.WriteString(name + ": " + value + "\r\n")
	}
	head.WriteString("\r\n")
	conn, err := net.DialTimeout("tcp", host, callPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callPatience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append([]byte(head.String()), c.body...)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: c.Method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, body, err}
}

// notForwarded are the fields that belong to one connection or to the developer's credential.
func notForwarded() []string {
	return []string{
		"host", "content-length", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
		"proxy-authorization", "proxy-authenticate", "proxy-connection", "authorization", "x-api-key",
	}
}

// TestFidelityOfCapturedRequests: what real CLIs sent reaches the upstream byte for byte, with every header but the
// connection's own and the credential, and the answer comes back byte for byte.
func TestFidelityOfCapturedRequests(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	inferences := 0
	for _, c := range captures(t) {
		t.Run(c.name, func(t *testing.T) {
			var seq int64
			if list := sim.requests(0); len(list) > 0 {
				seq = list[len(list)-1].Seq
			}
			r := c.send(t, g.url, g.key)
			if r.status != http.StatusOK || r.err != nil {
				t.Fatalf("status %d, %v\n%s", r.status, r.err, tail(string(r.body), 500))
			}
			switch c.Method {
			case http.MethodHead: // a probe that opens a connection; nobody needs to be asked
				if n := len(sim.requests(seq)); n != 0 {
					t.Errorf("%s %s reached the upstream", c.Method, c.URL)
				}
				return
			case http.MethodGet:
				if !strings.Contains(string(r.body), `"claude-opus-5-5"`) || !strings.Contains(string(r.body), `"has_more":false`) {
					t.Errorf("models: %s", tail(string(r.body), 500))
				}
				return
			}
			inferences++
			list := sim.finished(seq, 1)
			if len(list) != 1 {
				t.Fatalf("the upstream got %d requests", len(list))
			}
			c.check(t, list[0])
			if got := sum(r.body); got != list[0].ResponseSHA256 {
				t.Errorf("the answer has %d bytes, %d were sent; hashes %s and %s", len(r.body), list[0].ResponseBytes, got, list[0].ResponseSHA256)
			}
		})
	}
	if inferences < 40 {
		t.Errorf("only %d captured inference requests", inferences)
	}
}

// check compares what the CLI sent with what the upstream received.
func (c capture) check(t *testing.T, got received) {
	t.Helper()
	if got.BodySHA256 != sum(c.body) {
		t.Errorf("the body changed: sent %d bytes, received %d", len(c.body), got.BodyBytes)
	}
	if target := got.Path + "?" + got.Query; target != c.URL {
		t.Errorf("target %q, want %q", target, c.URL)
	}
	if got.Credential == "" || got.Credential == "unknown" {
		t.Errorf("the upstream saw credential %q", got.Credential)
	}
	sent := map[string][]string{}
	for _, f := range c.Headers {
		if !slices.Contains(notForwarded(), strings.ToLower(f[0])) {
			name := http.CanonicalHeaderKey(f[0])
			sent[name] = append(sent[name], f[1])
		}
	}
	for name, values := range sent {
		if !slices.Equal(got.Header[name], values) {
			t.Errorf("header %s: received %q, sent %q", name, got.Header[name], values)
		}
	}
	added := []string{
		"Content-Length", "X-Api-Key", // recomputed, the upstream's own
		"Anthropic-Version", "X-Stainless-Lang", "X-Stainless-Package-Version", "X-App", "Anthropic-Dangerous-Direct-Browser-Access", // filled in when absent
	}
	for name, values := range got.Header {
		if sent[name] == nil && !slices.Contains(added, name) {
			t.Errorf("header %s: %q was added", name, values)
		}
	}
}

// TestHeadersTowardsUpstream: unknown fields pass, those of the connection, of proxies and of credentials do not.
func TestHeadersTowardsUpstream(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1, "claudeCode: {requireClient: off}") // no User-Agent, so that nothing is filled in
	c := capture{
		Method: "POST", URL: "/v1/messages?beta=true&later=1",
		Headers: [][2]string{
			{"Host", ""},
			{"aUTHorization", ""},
			{"X-Api-Key", ""},
			{"Connection", "keep-alive, X-Dropped, x-api-key"},
			{"X-Dropped", "1"},
			{"Keep-Alive", "timeout=5"},
			{"TE", "trailers"},
			{"Proxy-Authorization", "Basic c2VjcmV0"},
			{"Proxy-Connection", "keep-alive"},
			{"Cookie", "session=secret"},
			{"X-Forwarded-For", "192.0.2.1"},
			{"Forwarded", "for=192.0.2.1"},
			{"Via", "1.1 proxy.example.com"},
			{"Content-Type", "application/json"},
			{"anthropic-version", "2026-10-21"},
			{"anthropic-beta", "one-2030-01-01,two-2030-01-01"},
			{"anthropic-beta", "three-2030-01-01"},
			{"anthropic-future", "kept"},
			{"x-future", "kept, too"},
			{"Content-Length", ""},
		},
		body: []byte(mustJSON(prompt(script("ok")))),
	}
	if r := c.send(t, g.url, g.key); r.status != http.StatusOK {
		t.Fatalf("status %d\n%s", r.status, r.body)
	}
	got := sim.finished(0, 1)[0]
	for name, want := range map[string][]string{
		"X-Dropped": nil, "Keep-Alive": nil, "Te": nil, "Proxy-Authorization": nil, "Proxy-Connection": nil, "Cookie": nil,
		"X-Forwarded-For": nil, "Forwarded": nil, "Via": nil, "Authorization": nil, "Connection": nil,
		"Content-Type":      {"application/json"},
		"Anthropic-Version": {"2026-10-21"},
		"Anthropic-Beta":    {"one-2030-01-01,two-2030-01-01", "three-2030-01-01"},
		"Anthropic-Future":  {"kept"},
		"X-Future":          {"kept, too"},
	} {
		if !slices.Equal(got.Header[name], want) {
			t.Errorf("header %s: received %q, want %q", name, got.Header[name], want)
		}
	}
	if got.Query != "beta=true&later=1" {
		t.Errorf("query %q", got.Query)
	}
}

// TestTwoCredentials: the CLI sends both headers when both of its variables are set. The Carpool key counts wherever it is,
// a stranger's key beside it is dropped, and neither reaches the upstream.
func TestTwoCredentials(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	body := []byte(mustJSON(prompt(script("ok"))))
	const stranger = "sk-ant-api03-somebody-elses"
	for name, test := range map[string]struct {
		header http.Header
		status int
	}{
		"bearer":                   {http.Header{"Authorization": {"Bearer " + g.key}}, 200},
		"bearer in lower case":     {http.Header{"Authorization": {"bearer " + g.key}}, 200},
		"api key":                  {http.Header{"X-Api-Key": {g.key}}, 200},
		"both the same":            {http.Header{"Authorization": {"Bearer " + g.key}, "X-Api-Key": {g.key}}, 200},
		"a stranger's bearer":      {http.Header{"Authorization": {"Bearer " + stranger}, "X-Api-Key": {g.key}}, 200},
		"a stranger's api key":     {http.Header{"Authorization": {"Bearer " + g.key}, "X-Api-Key": {stranger}}, 200},
		"an empty bearer":          {http.Header{"Authorization": {"Bearer "}, "X-Api-Key": {g.key}}, 200},
		"only a stranger's":        {http.Header{"X-Api-Key": {stranger}}, 401},
		"the upstream's own":       {http.Header{"X-Api-Key": {simKey}}, 401},
		"none":                     {http.Header{}, 401},
		"a key that almost exists": {http.Header{"X-Api-Key": {g.key + "x"}}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			var seq int64
			if list := sim.requests(0); len(list) > 0 {
				seq = list[len(list)-1].Seq
			}
			test.header.Set("Content-Type", "application/json")
			test.header.Set("Anthropic-Version", "2023-06-01")
			test.header.Set("User-Agent", agent)
			r := call(t, http.MethodPost, g.url+"/v1/messages", test.header, body)
			if r.status != test.status {
				t.Fatalf("status %d\n%s", r.status, r.body)
			}
			list := sim.requests(seq)
			if test.status == http.StatusUnauthorized {
				kind, _ := apiError(t, r)
				if kind != "authentication_error" || r.header.Get("X-Should-Retry") != "false" || len(list) != 0 {
					t.Errorf("%s, x-should-retry %q, %d requests upstream", kind, r.header.Get("X-Should-Retry"), len(list))
				}
				return
			}
			if len(list) != 1 || len(list[0].Header["Authorization"]) != 0 || list[0].Credential != list[0].Header["X-Api-Key"][0] {
				t.Errorf("the upstream saw %+v", list)
			}
		})
	}
}

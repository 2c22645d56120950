package wire

import (
	"net/url"
	"strings"
	"testing"
)

func TestRequestHead(t *testing.T) {
	t.Parallel()
	head := Head{{"b", "1"}, {"A", "2"}, {"b", ""}}
	fields := "b: 1\r\nA: 2\r\nb: \r\n"
	for name, c := range map[string]struct {
		method  string
		address string
		head    Head
		body    *Body
		want    string
	}{
		"no path":                    {"GET", "http://h", head, nil, "GET / HTTP/1.1\r\nHost: h\r\n" + fields},
		"a port":                     {"GET", "http://h:80/a", nil, nil, "GET /a HTTP/1.1\r\nHost: h:80\r\n"},
		"path and query as they are": {"GET", "http://h/a%2Fb/%7e//c;d?e=%20f&g+h&", nil, nil, "GET /a%2Fb/%7e//c;d?e=%20f&g+h& HTTP/1.1\r\nHost: h\r\n"},
		"a query of nothing":         {"GET", "http://h?", nil, nil, "GET /? HTTP/1.1\r\nHost: h\r\n"},
		"without fragment and user":  {"GET", "http://u:p@h/#f", nil, nil, "GET / HTTP/1.1\r\nHost: h\r\n"},
		"an IPv6 address":            {"GET", "http://[::1]:8080/", nil, nil, "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n"},
		"an IPv6 zone":               {"GET", "http://[fe80::1%25eth0]:8080/", nil, nil, "GET / HTTP/1.1\r\nHost: [fe80::1]:8080\r\n"},
		"a body":                     {"POST", "http://h/", head, NewBody([]byte("abc"), nil), "POST / HTTP/1.1\r\nHost: h\r\n" + fields + "Content-Length: 3\r\n"},
		"a body for a GET":           {"GET", "http://h/", nil, NewBody([]byte("abc"), nil), "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"},
		"an empty body":              {"PUT", "http://h/", nil, NewBody(nil, nil), "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"},
		"an empty body for a GET":    {"GET", "http://h/", nil, NewBody(nil, nil), "GET / HTTP/1.1\r\nHost: h\r\n"},
		"no body":                    {"PATCH", "http://h/", nil, nil, "PATCH / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"},
		"no body for a DELETE":       {"DELETE", "http://h/", nil, nil, "DELETE / HTTP/1.1\r\nHost: h\r\n"},
		"framing is the client's":    {"POST", "http://h/", Head{{"host", "x"}, {"a", "b"}, {"CONTENT-LENGTH", "7"}, {"transfer-encoding", "chunked"}, {"trailer", "c"}}, NewBody([]byte("abc"), nil), "POST / HTTP/1.1\r\nHost: h\r\na: b\r\nContent-Length: 3\r\n"},
		"unusual characters":         {"M-SEARCH", "http://h/", Head{{"a!#$%&'*+-.^_`|~9", "é\xff\t:\""}}, nil, "M-SEARCH / HTTP/1.1\r\nHost: h\r\na!#$%&'*+-.^_`|~9: é\xff\t:\"\r\n"},
	} {
		u, err := url.Parse(c.address)
		if err != nil {
			t.Fatal(err)
		}
		got, err := appendRequestHead([]byte("-"), &Outgoing{Method: c.method, URL: u, Head: c.head, Body: c.body})
		if string(got) != "-"+c.want+"\r\n" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// No field, method or address can become more than that.
func TestRequestsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	const secret = "secret"
	for _, bad := range []string{"\r\nX: y", "\n", "\r", "\x00", "\x7f", "\x1b"} {
		for name, out := range map[string]*Outgoing{
			"a value":   {Method: "GET", URL: &url.URL{Scheme: "http", Host: "h"}, Head: Head{{"A", secret + bad}}},
			"a name":    {Method: "GET", URL: &url.URL{Scheme: "http", Host: "h"}, Head: Head{{"A" + bad, secret}}},
			"dropped":   {Method: "GET", URL: &url.URL{Scheme: "http", Host: "h"}, Head: Head{{"Host", bad}}},
			"a method":  {Method: "GET" + bad, URL: &url.URL{Scheme: "http", Host: "h"}},
			"a query":   {Method: "GET", URL: &url.URL{Scheme: "http", Host: "h", RawQuery: bad}},
			"an opaque": {Method: "GET", URL: &url.URL{Scheme: "http", Host: "h", Opaque: "//h/" + bad}},
			"a host":    {Method: "GET", URL: &url.URL{Scheme: "http", Host: "h" + bad}},
		} {
			if _, err := appendRequestHead(nil, out); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%s with %q: %v", name, bad, err)
			}
		}
	}
	for name, out := range map[string]*Outgoing{
		"no method":              {URL: &url.URL{Host: "h"}},
		"a name of nothing":      {Method: "GET", URL: &url.URL{Host: "h"}, Head: Head{{"", "x"}}},
		"white space in a name":  {Method: "GET", URL: &url.URL{Host: "h"}, Head: Head{{"a b", "x"}}},
		"a colon in a name":      {Method: "GET", URL: &url.URL{Host: "h"}, Head: Head{{"a:", "x"}}},
		"white space in a query": {Method: "GET", URL: &url.URL{Host: "h", RawQuery: "a b"}},
	} {
		if _, err := appendRequestHead(nil, out); err == nil {
			t.Errorf("%s is sent", name)
		}
	}
}

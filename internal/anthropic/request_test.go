package anthropic

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

func captured(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func capturedNames() []string {
	return []string{"request-1.0.59-toolloop.json", "request-2.1.330-toolloop.json", "request-2.1.330-subagents.json"}
}

func TestPeekCaptured(t *testing.T) {
	tests := []struct {
		file, model, session string
		maxTokens            int64
		tools                int
	}{
		{"request-1.0.59-toolloop.json", "claude-sonnet-4-20250514", "7ef71dc5-6330-4250-97c8-8c4a31f74637", 32000, 15},
		{"request-2.1.330-toolloop.json", "claude-opus-5-5", "6bc57e05-e4b0-4129-9167-515e44e11ff4", 128000, 12},
		{"request-2.1.330-subagents.json", "claude-opus-5-5", "fdc24db8-714a-453f-ad96-1633a6bd6696", 128000, 12},
	}
	for _, tt := range tests {
		body := captured(t, tt.file)
		r, err := Peek(body)
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		if r.Model != tt.model || !r.Stream || r.MaxTokens != tt.maxTokens || !r.HasSystem || !r.HasTools || r.ToolCount != tt.tools ||
			r.SessionID() != tt.session || r.Bytes != len(body) {
			t.Errorf("%s: %+v session %s", tt.file, r, r.SessionID())
		}
		// The last message carries the last breakpoint, so nearly all of the prompt may be cached, wherever it stands in the body.
		if tail := r.Bytes - r.CachedPrefix; tail < 0 || tail > 16 {
			t.Errorf("%s: %d of %d bytes are certainly uncached", tt.file, tail, r.Bytes)
		}
	}
}

func TestPeekFields(t *testing.T) {
	long := strings.Repeat("A", 2000)
	tests := []struct {
		body string
		want Request
	}{
		{`{"model":"m"}`, Request{Model: "m"}},
		{" {\n\"model\" : \"m\" , \"stream\":true,\"max_tokens\": 7 }\r\n", Request{Model: "m", Stream: true, MaxTokens: 7}},
		{`{"\u006dodel":"\u0041\/b","stream":false}`, Request{Model: "A/b"}},
		{`{"model":"m","stream":null,"max_tokens":null,"metadata":null,"tools":null}`, Request{Model: "m"}},
		{`{"model":"m","system":null}`, Request{Model: "m", HasSystem: true}},
		{`{"model":"m","tools":[]}`, Request{Model: "m", HasTools: true}},
		{`{"model":"m","tools":[{"a":[1,2]},[],3]}`, Request{Model: "m", HasTools: true, ToolCount: 3}},
		{`{"model":"m","tools":{"a":1,"b":2}}`, Request{Model: "m", HasTools: true}},
		{`{"model":"m","max_tokens":0}`, Request{Model: "m"}},
		{`{"model":"m","metadata":{"user_id":null,"x":1}}`, Request{Model: "m"}},
		{`{"model":"m","metadata":{"user_id":"u\n"}}`, Request{Model: "m", UserID: "u\n"}},
		{`{"model":"m","speed":"fast","service_tier":"auto"}`, Request{Model: "m", Speed: "fast", ServiceTier: "auto"}},
		{`{"model":"m","speed":{"x":1},"service_tier":3}`, Request{Model: "m"}},
		{`{"model":"m","future":{"a":1,"a":2},"messages":[{"Model":1,"Model":2}]}`, Request{Model: "m"}},
		{`{"model":"m","messages":[{"source":{"type":"base64","data":"` + long + `"}}]}`, Request{Model: "m", Media: 2000}},
		{`{"model":"m","messages":[{"source":{"type":"text","data":"` + strings.Repeat("two words ", 200) + `"}}]}`, Request{Model: "m"}},
		{`{"model":"m","other":{"data":"` + long + `"}}`, Request{Model: "m"}},
	}
	for _, tt := range tests {
		got, err := Peek([]byte(tt.body))
		if err != nil {
			t.Errorf("%.80s: %v", tt.body, err)
			continue
		}
		got.Bytes, got.model = 0, span{}
		if *got != tt.want {
			t.Errorf("%.80s:\n got %+v\nwant %+v", tt.body, *got, tt.want)
		}
	}
}

func TestPeekRefuses(t *testing.T) {
	const notJSON = "The request body is not valid JSON: "
	const send = ". Send one JSON object in UTF-8."
	tests := []struct{ body, want string }{
		{``, notJSON + "unexpected end, expected the request body to be an object at byte 0" + send},
		{`[]`, notJSON + "unexpected '[', expected the request body to be an object at byte 0" + send},
		{`{}`, "model: Field required"},
		{"\xEF\xBB\xBF{}", notJSON + "unexpected byte 0xef, expected the request body to be an object at byte 0" + send},
		{`{"model":"m"} {}`, notJSON + "unexpected '{', expected the end of the body at byte 14" + send},
		{`{"model":"m"}` + "\x00", notJSON + "unexpected byte 0x00, expected the end of the body at byte 13" + send},
		{`{"model":"m",}`, notJSON + "unexpected '}', expected a name in double quotes at byte 13" + send},
		{`{"model":"m"`, notJSON + "unexpected end, expected ',' or '}' at byte 12" + send},
		{`{"model" "m"}`, notJSON + "unexpected '\"', expected ':' at byte 9" + send},
		{`{"model":"m","x":NaN}`, notJSON + "unexpected 'N', expected a value at byte 17" + send},
		{`{"model":"m","x":[1 2]}`, notJSON + "unexpected '2', expected ',' or ']' at byte 20" + send},
		{`{"model":"m","x":01}`, notJSON + "unexpected '1', expected ',' or '}' at byte 18" + send},
		{`{"model":"m","x":-}`, notJSON + "unexpected '}', expected a digit at byte 18" + send},
		{`{"model":"m","x":tru}`, notJSON + "unexpected 't', expected true at byte 17" + send},
		{`{"model":"m","x":"\x"}`, notJSON + "invalid escape at byte 18" + send},
		{"{\"model\":\"m\",\"x\":\"a\nb\"}", notJSON + "unescaped control character 0x0a in a string at byte 19" + send},
		{"{\"model\":\"m\",\"x\":\"ab\xff\"}", notJSON + "invalid UTF-8 at byte 20" + send},
		{"{\"model\":\"m\",\"\xff\":1}", notJSON + "invalid UTF-8 at byte 14" + send},
		{`{"model":"m","x":"abc`, notJSON + "unexpected end inside a string at byte 21" + send},
		{`{"model":"m","x":` + strings.Repeat("[", 1001), notJSON + "arrays and objects nested too deep at byte 1017" + send},
		{`{"model":1}`, "model: must be a string (byte 9)"},
		{`{"model":null}`, "model: must be a string (byte 9)"},
		{`{"model":}`, notJSON + "unexpected '}', expected a value at byte 9" + send},
		{`{"model":""}`, "model: must not be empty"},
		{`{"model":"` + strings.Repeat("x", 257) + `"}`, "model: must be at most 256 characters long"},
		{`{"model":"` + strings.Repeat("x", 9999) + `"}`, "model: must be at most 256 characters long"},
		{`{"model":"a\u0000"}`, "model: must not contain control or replacement characters"},
		{`{"model":"a\ud800"}`, "model: must not contain control or replacement characters"},
		{`{"model":"a","model":"b"}`, `"model": occurs twice in the request body (byte 13); send it once.`},
		{`{"model":"a","\u006dodel":"b"}`, `"model": occurs twice in the request body (byte 13); send it once.`},
		{`{"model":"a","x":1,"x":1}`, `"x": occurs twice in the request body (byte 19); send it once.`},
		{`{"model":"a","Model":"b"}`, `"Model": differs from a known name in letter case only (byte 13); write it in lower case.`},
		{`{"model":"a","STREAM":true}`, `"STREAM": differs from a known name in letter case only (byte 13); write it in lower case.`},
		{`{"model":"a","max_to\u212Aens":1}`, `"max_to\u212aens": differs from a known name in letter case only (byte 13); write it in lower case.`},
		{`{"model":"a","\u004dodel":"b"}`, `"Model": differs from a known name in letter case only (byte 13); write it in lower case.`},
		{`{"model":"a","stream":"true"}`, "stream: must be true or false (byte 22)"},
		{`{"model":"a","stream":1}`, "stream: must be true or false (byte 22)"},
		{`{"model":"a","max_tokens":"5"}`, "max_tokens: must be a positive integer (byte 26)"},
		{`{"model":"a","max_tokens":-5}`, "max_tokens: must be a positive integer (byte 26)"},
		{`{"model":"a","max_tokens":1.5}`, "max_tokens: must be a positive integer (byte 26)"},
		{`{"model":"a","max_tokens":1e3}`, "max_tokens: must be a positive integer (byte 26)"},
		{`{"model":"a","max_tokens":99999999999999999999}`, "max_tokens: must be a positive integer (byte 26)"},
		{`{"model":"a","max_tokens":{}}`, "max_tokens: must be a positive integer (byte 26)"},
		{`{"model":"a","metadata":"u"}`, "metadata: must be an object (byte 24)"},
		{`{"model":"a","metadata":{"user_id":5}}`, "metadata.user_id: must be a string (byte 35)"},
		{`{"model":"a","metadata":{"user_id":"a","user_id":"b"}}`, `"user_id": occurs twice in metadata (byte 39); send it once.`},
		{`{"model":"a","metadata":{"User_ID":"a"}}`, `"User_ID": differs from a known name in letter case only (byte 25); write it in lower case.`},
	}
	for _, tt := range tests {
		r, err := Peek([]byte(tt.body))
		var e *Error
		if r != nil || !errors.As(err, &e) {
			t.Errorf("%.60q: accepted", tt.body)
			continue
		}
		if e.Status != 400 || e.Type != TypeInvalidRequest || e.Message != tt.want {
			t.Errorf("%.60q:\n got %d %s %s\nwant %s", tt.body, e.Status, e.Type, e.Message, tt.want)
		}
	}
}

func TestCachedPrefix(t *testing.T) {
	const bp = `"cache_control":{"type":"ephemeral"}`
	tests := []struct {
		name, body string
		uncached   string // the part of the body that is certainly uncached; "*" for everything
	}{
		{"none", `{"model":"m","messages":[1]}`, "*"},
		{"in the last message", `{"model":"m","messages":[{"content":[{"text":"a",` + bp + `}]}]}`, `}]}]`},
		{"before the last message", `{"model":"m","messages":[{` + bp + `},{"content":"hello"}]}`, `},{"content":"hello"}]`},
		{"system after messages in the body", `{"messages":["abc"],"system":[{` + bp + `}],"tools":["tools"],"model":"m"}`, `}]["abc"]`},
		{"tools only", `{"model":"m","messages":["abc"],"system":"sys","tools":[{` + bp + `},{}]}`, `},{}]"sys"["abc"]`},
		{"automatic", `{"model":"m","cache_control":{"type":"ephemeral"},"messages":["abc"]}`, ""},
		{"null is none", `{"model":"m","cache_control":null,"messages":[{"cache_control":null}]}`, "*"},
		{"escaped name", `{"model":"m","messages":[{"\u0063ache_control":{}},"abc"]}`, `},"abc"]`},
		{"nested in itself", `{"model":"m","messages":[{"cache_control":{"cache_control":{}},"b":2},"abc"]}`, `,"b":2},"abc"]`},
		{"elsewhere", `{"model":"m","metadata":{` + bp + `},"messages":["abc"]}`, "*"},
	}
	for _, tt := range tests {
		r, err := Peek([]byte(tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		want := len(tt.uncached)
		if tt.uncached == "*" {
			want = len(tt.body)
		}
		if got := r.Bytes - r.CachedPrefix; got != want {
			t.Errorf("%s: %d bytes certainly uncached, want %d", tt.name, got, want)
		}
	}
}

func TestLongLife(t *testing.T) {
	const short, long = `"cache_control":{"type":"ephemeral"}`, `"cache_control": {"type": "ephemeral", "ttl": "1h"}`
	tests := []struct {
		name, body string
		want       bool
	}{
		{"nothing is cached", `{"model":"m","messages":[1]}`, false},
		{"of an hour", `{"model":"m","system":[{` + long + `}],"tools":[{` + long + `}],"messages":[{"content":[{` + long + `}]}]}`, true},
		{"a short one at last", `{"model":"m","system":[{` + long + `}],"messages":[{"content":[{` + short + `}]}]}`, false},
		{"a short one at first", `{"model":"m","tools":[{` + short + `}],"system":[{` + long + `}],"messages":[1]}`, false},
		{"null is none", `{"model":"m","tools":[{"cache_control":null}],"system":[{` + long + `}],"messages":[1]}`, true},
		{"five minutes", `{"model":"m","system":[{"cache_control":{"type":"ephemeral","ttl":"5m"}},{"ttl":"1h"}],"messages":[1]}`, false},
		{"escaped name", `{"model":"m","system":[{"\u0063ache_control":{"ttl":"1h"}}],"messages":[1]}`, true},
		{"automatic", `{"model":"m",` + long + `,"messages":[1]}`, true},
		{"automatic and short", `{"model":"m",` + short + `,"messages":[{` + long + `}]}`, false},
		{"no object", `{"model":"m","messages":[{"cache_control":"1h"}]}`, false},
	}
	for _, tt := range tests {
		r, err := Peek([]byte(tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if r.LongLife != tt.want {
			t.Errorf("%s: %v", tt.name, r.LongLife)
		}
	}
	for _, broken := range []string{`{"model":"m","messages":[{"cache_control":}]}`, `{"model":"m","messages":[{"cache_control":`, `{"model":"m","cache_control":}`} {
		if _, err := Peek([]byte(broken)); err == nil {
			t.Errorf("%s was accepted", broken)
		}
	}
}

func TestSessionID(t *testing.T) {
	const id = "0f5c1d7e-1111-2222-3333-444455556666"
	tests := []struct{ userID, want string }{
		{"", ""},
		{"user_" + strings.Repeat("ab", 32) + "_account__session_" + id, id},
		{"user_" + strings.Repeat("ab", 32) + "_account_" + id + "_session_" + id, id},
		{`{"device_id":"d","account_uuid":"","session_id":"` + id + `"}`, id},
		{`{"device_id":"d"}`, ""},
		{`{"session_id":5}`, ""},
		{`{"session_id":"` + id, ""},
		{"alice", ""},
		{"_session_", ""},
		{"x_session_a b", ""},
		{"x_session_" + strings.Repeat("a", 65), ""},
	}
	for _, tt := range tests {
		if got := (&Request{UserID: tt.userID}).SessionID(); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.userID, got, tt.want)
		}
	}
}

func TestSplice(t *testing.T) {
	tests := []struct {
		body string
		edit Edits
		want string
	}{
		{`{"model":"a","x":1}`, Edits{}, `{"model":"a","x":1}`},
		{`{"model":"a","x":1}`, Edits{Model: "b"}, `{"model":"b","x":1}`},
		{"{ \"x\":1.0e0, \"model\"\t:\n\"a\" }", Edits{Model: `q"\`}, "{ \"x\":1.0e0, \"model\"\t:\n\"q\\\"\\\\\" }"},
		{`{"model":"a"}`, Edits{System: "You <&> \"é\"\n"}, `{"model":"a","system":[{"type":"text","text":"You <&> \"é\"\n"}]}`},
		{`{"x":{"model":"z"},"model":"a","y":2}`, Edits{Model: "bb", System: "s"}, `{"x":{"model":"z"},"model":"bb","system":[{"type":"text","text":"s"}],"y":2}`},
		{`{"model":"a","system":"mine"}`, Edits{System: "s"}, `{"model":"a","system":"mine"}`},
		{`{"model":"a","system":null}`, Edits{Model: "b", System: "s"}, `{"model":"b","system":null}`},
	}
	for _, tt := range tests {
		r, err := Peek([]byte(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.Splice([]byte(tt.body), tt.edit)); got != tt.want {
			t.Errorf("%s %+v:\n got %s\nwant %s", tt.body, tt.edit, got, tt.want)
		}
	}
}

func TestSpliceCaptured(t *testing.T) {
	for _, name := range capturedNames() {
		body := captured(t, name)
		r, err := Peek(body)
		if err != nil {
			t.Fatal(err)
		}
		out := r.Splice(body, Edits{Model: "claude-haiku-5-5", System: "never added"})
		back, err := Peek(out)
		if err != nil || back.Model != "claude-haiku-5-5" {
			t.Fatalf("%s: %v", name, err)
		}
		if again := back.Splice(out, Edits{Model: r.Model}); !bytes.Equal(again, body) {
			t.Errorf("%s: there and back changed the body", name)
		}
	}
}

func seedBodies(f *testing.F) {
	for _, s := range []string{ // small ones: the fuzzer finds more in the same time
		`{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"."}]}`,
		`{"model":"a","model":"b"}`, `{"Model":"a"}`, `{"\u006dodel":"b"}`, `{"model":"\ud83d\ude00","stream":true}`,
		`{"model":"m","x":[[[{}]],{"a":null,"b":-0.1e+5}]}`, "{\"model\":\"\xff\"}", `{"model":"m","x":"é€𝄞"}`, `{"model":"m"}x`,
		`{"model":"m","metadata":{"user_id":"{\"session_id\":\"s\"}"},"tools":[1,2],"system":"s"}`,
	} {
		f.Add([]byte(s))
	}
}

// FuzzPeek holds Peek against two independent readers: they agree on what is JSON, and on the values that policy depends on.
func FuzzPeek(f *testing.F) {
	seedBodies(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Peek(body)
		valid := json.Valid(body) && utf8.Valid(body)
		var own *Error
		switch {
		case err == nil && !valid:
			t.Fatalf("accepted what is not JSON: %q", body)
		case err != nil && !errors.As(err, &own):
			t.Fatalf("not an *Error: %v", err)
		case err != nil && valid && strings.Contains(own.Message, "not valid JSON") &&
			!strings.Contains(own.Message, "nested too deep") && !strings.Contains(own.Message, "to be an object"):
			t.Fatalf("refused JSON: %v", err)
		}
		if err == nil && !jsontextValid(body) {
			t.Fatalf("jsontext refuses what was accepted: %q", body)
		}
		if err != nil {
			return
		}
		var std struct {
			Model     string `json:"model"`
			Stream    bool   `json:"stream"`
			MaxTokens int64  `json:"max_tokens"`
			Metadata  *struct {
				UserID string `json:"user_id"`
			} `json:"metadata"`
			Tools json.RawMessage `json:"tools"`
		}
		if err := json.Unmarshal(body, &std); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if std.Model != r.Model || std.Stream != r.Stream || std.MaxTokens != r.MaxTokens ||
			std.Metadata != nil && len(std.Metadata.UserID) < 1000 && std.Metadata.UserID != r.UserID {
			t.Fatalf("disagreement on %q: %+v and %+v", body, std, r)
		}
		var list []json.RawMessage
		if json.Unmarshal(std.Tools, &list) == nil && len(list) != r.ToolCount {
			t.Fatalf("%d tools, counted %d", len(list), r.ToolCount)
		}
		if r.CachedPrefix < 0 || r.CachedPrefix > r.Bytes || r.Media > r.Bytes {
			t.Fatalf("impossible sizes: %+v", r)
		}
		if id := r.SessionID(); len(id) > 64 {
			t.Fatalf("session id %q", id)
		}
	})
}

// jsontextValid reports whether jsontext takes b for one value, half surrogate pairs and twice-used names allowed.
func jsontextValid(b []byte) bool {
	return jsontext.Value(b).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) && utf8.Valid(b)
}

// FuzzSplice edits arbitrary bodies: the result says what was asked, and the bytes around the edits are untouched.
func FuzzSplice(f *testing.F) {
	f.Add([]byte(`{"messages":[],"model":"m","system":null,"z":"\ud800"}`), "claude-x", "You are \"it\".")
	f.Add([]byte(`{"x":[1],"model" : "m" }`), "a\u2028<b>", "")
	f.Add([]byte(`{"model":"m","stream":true}`), "", "line\nline\x00\xff")
	f.Fuzz(func(t *testing.T, body []byte, model, system string) {
		r, err := Peek(body)
		if err != nil {
			return
		}
		before := bytes.Clone(body)
		out := r.Splice(body, Edits{Model: model, System: system})
		if !bytes.Equal(before, body) {
			t.Fatal("the original was changed")
		}
		if !bytes.HasPrefix(out, body[:r.model.start]) || !bytes.HasSuffix(out, body[r.model.end:]) {
			t.Fatalf("bytes around the edit changed:\n%q\n%q", body, out)
		}
		var got struct {
			Model  string          `json:"model"`
			System json.RawMessage `json:"system"`
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v: %q", err, out)
		}
		want := r.Model
		if model != "" {
			want = strings.ToValidUTF8(model, "\uFFFD")
		}
		if got.Model != want {
			t.Fatalf("model %q, want %q", got.Model, want)
		}
		if system != "" && !r.HasSystem {
			var blocks []struct{ Type, Text string }
			if err := json.Unmarshal(got.System, &blocks); err != nil || len(blocks) != 1 || blocks[0].Type != "text" ||
				blocks[0].Text != strings.ToValidUTF8(system, "\uFFFD") {
				t.Fatalf("system %s: %v", got.System, err)
			}
		} else if model == "" && !bytes.Equal(out, body) {
			t.Fatal("changed without an edit")
		}
		if _, err := Peek(out); err != nil && model == "" {
			t.Fatalf("the result is refused: %v", err)
		}
	})
}

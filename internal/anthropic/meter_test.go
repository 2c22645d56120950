package anthropic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// meterOf writes text in pieces of n bytes (0: at once) and returns the result.
func meterOf(contentType, text string, n int) Result {
	m := NewMeter(contentType)
	b := []byte(text)
	if n == 0 {
		n = max(len(b), 1)
	}
	for len(b) > 0 {
		k := min(n, len(b))
		piece := bytes.Clone(b[:k])
		_, _ = m.Write(piece)
		clear(piece) // the meter must not keep what it was given
		b = b[k:]
	}
	return m.Result()
}

const sse = "text/event-stream; charset=utf-8"

// event renders a server-sent event whose name is the type of its data.
func event(data string) string {
	var typ struct{ Type string }
	_ = json.Unmarshal([]byte(data), &typ)
	return "event: " + typ.Type + "\ndata: " + data + "\n\n"
}

// plainStream is an ordinary answer with thinking, text and two tools.
func plainStream() string {
	return event(`{"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","model":"claude-opus-5-5","content":[],`+
		`"stop_reason":null,"usage":{"input_tokens":12,"cache_creation_input_tokens":248,"cache_read_input_tokens":4000,`+
		`"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100},"output_tokens":3,"service_tier":"standard",`+
		`"inference_geo":"us","speed":"fast"}}}`) +
		event(`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`) +
		event(`{"type":"ping"}`) +
		event(`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm … é"}}`) +
		event(`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqoBCkgI"}}`) +
		event(`{"type":"content_block_stop","index":0}`) +
		event(`{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}`) +
		event(`{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hello"}        }`) +
		event(`{"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a\n\"\u00e9\\"}}`) +
		event(`{"type":"content_block_stop","index":1}`) +
		event(`{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}}`) +
		event(`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"command\""}}`) +
		event(`{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"Write","input":{}}}`) +
		event(`{"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_3","name":"Bash","input":{}}}`) +
		event(`{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":321,"output_tokens_details":{"thinking_tokens":20}}}`) +
		event(`{"type":"message_stop"}`)
}

func plainResult() Result {
	return Result{
		Usage: Usage{
			Input: 12, Output: 321, CacheRead: 4000, CacheWrite5m: 148, CacheWrite1h: 100, Thinking: 20,
			ServiceTier: "standard", InferenceGeo: "us", Speed: "fast",
		},
		MessageID: "msg_01", Model: "claude-opus-5-5", ServingModel: "claude-opus-5-5", StopReason: "tool_use",
		Tools: []ToolCount{{"Bash", 2}, {"Write", 1}}, FileOperations: 1, Started: true, Complete: true, PromptStated: true, OutputStated: true,
		Characters: 6 + 5 + 5 + 10, Blocks: 5, Events: 16,
		Raw: []byte(`{"input_tokens":12,"cache_creation_input_tokens":248,"cache_read_input_tokens":4000,` +
			`"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100},"output_tokens":321,` +
			`"service_tier":"standard","inference_geo":"us","speed":"fast","output_tokens_details":{"thinking_tokens":20}}`),
	}
}

func wantResult(t *testing.T, what string, got, want Result) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\n     %s\nwant %+v\n     %s", what, got, got.Raw, want, want.Raw)
	}
}

func TestMeterPlainStream(t *testing.T) {
	text := plainStream()
	for name, s := range map[string]string{
		"LF":          text,
		"CRLF":        strings.ReplaceAll(text, "\n", "\r\n"),
		"CR":          strings.ReplaceAll(text, "\n", "\r"),
		"BOM":         "\xEF\xBB\xBF" + text,
		"comments":    strings.ReplaceAll(text, "\n\n", "\n: a comment\n\n: keep-alive\n\n"),
		"no names":    strings.ReplaceAll(text, "event: ", "evnt: "),
		"no space":    strings.ReplaceAll(strings.ReplaceAll(text, "event: ", "event:"), "data: ", "data:"),
		"ids":         strings.ReplaceAll(text, "event: ", "id: 7\nretry: 10\nevent: "),
		"data in two": strings.ReplaceAll(text, `,"usage"`, ",\ndata: \"usage\""),
	} {
		for _, n := range []int{0, 1, 2, 3, 7, 64, 1000} {
			wantResult(t, fmt.Sprintf("%s in pieces of %d", name, n), meterOf(sse, s, n), plainResult())
		}
	}
}

// Whatever the bytes, one write and two writes divided anywhere come to the same. The deltas here are near the form that is read by a
// short cut, which a division disables.
func TestMeterDivision(t *testing.T) {
	const head = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\""
	streams := []string{plainStream(), strings.ReplaceAll(plainStream(), "\n", "\r\n")}
	for _, tail := range []string{
		"ab\"}}\n\n", "ab\"}  }\n\n", "ab\"}}\r\n\r\n", "ab\"}}\r\r", "ab\"}}\n", "ab\"}}", "ab", "",
		"a\nb\"}}\n\n", "a\n\nb\"}}\n\n", "a\rb\"}}\n\n", "a\x01b\"}}\n\n", "a\\\n\n\"}}\n\n", "a\\u\n\n\"}}\n\n", "a\\u00e9\"}}\n\n",
		"a\\u00\"}}\n\n", "a\\\\\"}}\n\n", "a\\\"\"}}\n\n", "a\\", "a\\u12", "é世𝄞\"}}\n\n", "\xff\x80\"}}\n\n", "a\",\"b\":1}}\n\n", "a\"}}x\n\n",
		"a\"}}\ndata: more\n\n", "a\"}}\nevent: message_stop\n\n",
	} {
		streams = append(streams, head+tail, "\n"+head+tail+head+tail, "data: x\n"+head+tail, "\xEF\xBB\xBF"+head+tail)
	}
	for _, s := range streams {
		whole := NewMeter(sse)
		_, _ = whole.Write([]byte(s))
		want := whole.Result()
		for i := range len(s) {
			m := NewMeter(sse)
			_, _ = m.Write([]byte(s[:i]))
			_, _ = m.Write([]byte(s[i:]))
			if got := m.Result(); !reflect.DeepEqual(got, want) || m.Between() != whole.Between() {
				t.Errorf("%q divided at %d:\n got %+v\nwant %+v", s, i, got, want)
				break
			}
		}
	}
}

func TestMeterStreams(t *testing.T) {
	start := func(usage string) string {
		return event(`{"type":"message_start","message":{"id":"msg_1","model":"m","usage":` + usage + `}}`)
	}
	delta := func(usage string) string {
		return event(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":` + usage + `}`)
	}
	stop := event(`{"type":"message_stop"}`)
	tests := []struct {
		name, stream string
		want         Usage
	}{
		{
			"deltas overwrite and are never summed",
			start(`{"input_tokens":5,"output_tokens":1}`) + delta(`{"output_tokens":10}`) + delta(`{"output_tokens":30}`) + stop,
			Usage{Input: 5, Output: 30},
		},
		{
			"server tools let the input grow, the growth of cache writes is of five minutes",
			start(`{"input_tokens":2679,"cache_creation_input_tokens":150,"cache_creation":{"ephemeral_5m_input_tokens":50,"ephemeral_1h_input_tokens":100},"output_tokens":3}`) +
				delta(`{"input_tokens":10682,"cache_creation_input_tokens":400,"cache_read_input_tokens":7,"output_tokens":510,"server_tool_use":{"web_search_requests":1,"web_fetch_requests":2,"code_execution_requests":3}}`) + stop,
			Usage{Input: 10682, Output: 510, CacheRead: 7, CacheWrite5m: 300, CacheWrite1h: 100, WebSearches: 1, WebFetches: 2, CodeExecutions: 3},
		},
		{
			"cache writes without a division are of five minutes",
			start(`{"cache_creation_input_tokens":150}`) + stop,
			Usage{CacheWrite5m: 150},
		},
		{
			"null is nothing at the start and no change later",
			start(`{"input_tokens":5,"cache_read_input_tokens":null,"cache_creation":null,"output_tokens":1,"server_tool_use":null,"iterations":null}`) +
				delta(`{"input_tokens":null,"output_tokens":9,"cache_creation_input_tokens":null}`) + stop,
			Usage{Input: 5, Output: 9},
		},
		{
			"of two message_start the last one counts",
			start(`{"input_tokens":5,"output_tokens":100,"speed":"fast"}`) + start(`{"input_tokens":7,"output_tokens":2}`) + stop,
			Usage{Input: 7, Output: 2},
		},
		{
			"invocation metrics of another platform are not usage",
			start(`{"input_tokens":5,"output_tokens":1}`) + delta(`{"output_tokens":10}`) +
				event(`{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":99,"outputTokenCount":99}}`),
			Usage{Input: 5, Output: 10},
		},
		{
			"odd numbers",
			start(`{"input_tokens":"5","output_tokens":12.9,"cache_read_input_tokens":-4,"cache_creation_input_tokens":1e400}`) + stop,
			Usage{Output: 12},
		},
		{
			"iterations",
			start(`{"input_tokens":1}`) + delta(`{"output_tokens":4,"iterations":[{"type":"message","model":"a","input_tokens":1,"output_tokens":2,"cache_read_input_tokens":3,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":5}},{"type":"new","x":[]}]}`) + stop,
			Usage{Input: 1, Output: 4, Iterations: []Iteration{{"message", "a", 1, 2, 3, 4, 5}, {Type: "new"}}},
		},
		{
			"the type stands last and the event has no name",
			"data: {\"usage\":{\"output_tokens\":8},\"delta\":{\"stop_reason\":\"end_turn\"},\"type\":\"message_delta\"}\n\n",
			Usage{Output: 8},
		},
		{
			"the name of the event stands in for a missing type",
			"event: message_delta\ndata: {\"usage\":{\"output_tokens\":8},\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
			Usage{Output: 8},
		},
	}
	for _, tt := range tests {
		for _, n := range []int{0, 1} {
			got := meterOf(sse, tt.stream, n)
			if !reflect.DeepEqual(got.Usage, tt.want) || !got.Complete {
				t.Errorf("%s:\n got %+v\nwant %+v, complete", tt.name, got, tt.want)
			}
		}
	}
}

func TestMeterCutAndBroken(t *testing.T) {
	start := event(`{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":50,"output_tokens":3}}}`)
	text := func(n int) string {
		return event(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"` + strings.Repeat("x", n) + `"}}`)
	}
	end := event(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":77}}`)
	failure := event(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`)
	const unstated = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n"
	const stop = "data: {\"type\":\"message_stop\"}\n\n"
	tests := []struct {
		name, stream string
		input        int64
		output       int64
		estimated    bool
		errorType    string
	}{
		{"nothing", "", 0, 0, true, ""},
		{"a cut after 400 characters", start + text(150) + text(250), 50, 100, true, ""},
		{"a cut after 401 characters", start + text(401), 50, 101, true, ""},
		{"a cut before the stated output is reached", start + text(4), 50, 3, true, ""},
		{"only message_stop is missing", start + text(400) + end, 50, 77, false, ""},
		{"the last event is not ended", start + text(400) + strings.TrimSuffix(end, "\n"), 50, 100, true, ""},
		{"an error at first", failure, 0, 0, true, "overloaded_error"},
		{"an error after text", start + text(40) + failure, 50, 10, true, "overloaded_error"},
		{"an error after the end", start + end + failure, 50, 77, false, "overloaded_error"},
		{"a whole answer without a report at its end", start + text(400) + unstated + stop, 50, 100, true, ""},
		{"a whole answer that states nothing", event(`{"type":"message_start","message":{"id":"m"}}`) + text(41) + unstated + stop, 0, 11, true, ""},
		{"a whole answer that states its output only", event(`{"type":"message_start","message":{"id":"m"}}`) + text(400) + end, 0, 77, true, ""},
		{"sampling runs state everything", event(`{"type":"message_start","message":{"id":"m"}}`) +
			event(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"iterations":[{"type":"message","input_tokens":5,"output_tokens":6}]}}`), 0, 0, false, ""},
		{"broken data", start + "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}, oops\n\n" + "data: nonsense\n\ndata\n\n", 50, 9, true, ""},
		{"no JSON at all", "<html>\n\n</html>", 0, 0, true, ""},
	}
	for _, tt := range tests {
		for _, n := range []int{0, 1} {
			r := meterOf(sse, tt.stream, n)
			u, estimated := r.Settled(0)
			if u.Input != tt.input || u.Output != tt.output || estimated != tt.estimated || r.ErrorType != tt.errorType {
				t.Errorf("%s: input %d, output %d, estimated %v, error %q", tt.name, u.Input, u.Output, estimated, r.ErrorType)
			}
		}
	}
}

// A text of many megabytes on one line neither stops the meter nor stays in memory.
func TestMeterLongLines(t *testing.T) {
	const size = 5 << 20
	long := strings.Repeat("word ", size/5)
	s := event(`{"type":"message_start","message":{"model":"m","usage":{"input_tokens":1}}}`) +
		event(`{"type":"content_block_start","index":0,"content_block":{"type":"web_search_tool_result","content":[{"encrypted_content":"`+long+`"}]}}`) +
		event(`{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"Read","input":{"a":"`+long+`"}}}`) +
		": " + long + "\n\n" +
		event(`{"type":"future","x":"`+long+`"}`) +
		event(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"`+long+`"}}`) +
		event(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}`)
	whole := meterOf(sse, s, 0)
	m := NewMeter(sse)
	for b := []byte(s); len(b) > 0; {
		n := min(4096, len(b))
		_, _ = m.Write(b[:n])
		b = b[n:]
		if kept := cap(m.events.line) + cap(m.events.data); kept > 4*maxKept {
			t.Fatalf("keeps %d bytes", kept)
		}
	}
	wantResult(t, "in pieces", m.Result(), whole)
	if whole.FileOperations != 1 || whole.Blocks != 2 || !whole.Complete || whole.Usage.Output != 9 {
		t.Errorf("%+v", whole)
	}
	if diff := whole.Characters - size; diff < -16 || diff > 16 {
		t.Errorf("%d characters, want about %d", whole.Characters, size)
	}
}

func TestMeterToolNames(t *testing.T) {
	var s strings.Builder
	for i := range 100 {
		s.WriteString(event(fmt.Sprintf(`{"type":"content_block_start","content_block":{"type":"tool_use","name":"t%d%s"}}`, i, strings.Repeat("x", 300))))
	}
	r := meterOf(sse, s.String(), 0)
	if len(r.Tools) != maxTools || len(r.Tools[0].Name) != maxToolName || r.Blocks != 100 {
		t.Errorf("%d names of %d bytes, %d blocks", len(r.Tools), len(r.Tools[0].Name), r.Blocks)
	}
	r = meterOf(sse, event(`{"type":"content_block_start","content_block":{"type":"mcp_tool_use","name":"a\nb\"é"}}`), 0)
	if want := []ToolCount{{"a_b__", 1}}; !reflect.DeepEqual(r.Tools, want) {
		t.Errorf("%v", r.Tools)
	}
}

func TestMeterBody(t *testing.T) {
	body := `{"id":"msg_9","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[` +
		`{"type":"thinking","thinking":"abc","signature":"zz"},{"type":"text","text":"d\u00e9\"f","citations":null},` +
		`{"type":"tool_use","id":"toolu_1","name":"Edit","input":{"type":"fake","name":"Fake","list":[1,{"content":[{"type":"x"}]}]}},` +
		`{},"odd",[{"type":"tool_use","name":"hidden"}],{"type":"server_tool_use","name":"web_search","input":{}}],` +
		`"stop_reason":"tool_use","context_management":{"usage":{"output_tokens":999},"model":"wrong"},` +
		`"usage":{"input_tokens":7,"output_tokens":42,"cache_read_input_tokens":3,"cache_creation_input_tokens":5,"service_tier":"batch"}}`
	want := Result{
		Usage:     Usage{Input: 7, Output: 42, CacheRead: 3, CacheWrite5m: 5, ServiceTier: "batch"},
		MessageID: "msg_9", Model: "claude-sonnet-5-5", ServingModel: "claude-sonnet-5-5", StopReason: "tool_use",
		Tools: []ToolCount{{"Edit", 1}, {"web_search", 1}}, FileOperations: 1, Started: true, Complete: true, PromptStated: true, OutputStated: true,
		Characters: 3 + 4 + int64(len(`{"type":"fake","name":"Fake","list":[1,{"content":[{"type":"x"}]}]}{}`)), Blocks: 5,
		Raw: []byte(`{"input_tokens":7,"output_tokens":42,"cache_read_input_tokens":3,"cache_creation_input_tokens":5,"service_tier":"batch"}`),
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(body), "", "  "); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 2, 5, 100} {
		wantResult(t, "compact", meterOf("application/json", body, n), want)
		wantResult(t, "indented", meterOf("application/json; charset=utf-8", indented.String(), n), want)
	}

	cut := meterOf("application/json", body[:strings.Index(body, `"stop_reason"`)], 3)
	if u, estimated := cut.Settled(0); !estimated || u.Output != (want.Characters+3)/4 || cut.Complete || !cut.Started {
		t.Errorf("cut: %+v", cut)
	}
	if u, estimated := cut.Settled(cut.Usage.Output + 1); !estimated || u.Output != cut.Usage.Output+1 {
		t.Errorf("cut, and more than could be: %+v", u)
	}
	failed := meterOf("application/json", `{"type":"error","error":{"type":"not_found_error","message":"model: x"},"request_id":"req_1"}`, 1)
	wantResult(t, "error", failed, Result{ErrorType: "not_found_error", ErrorMessage: "model: x", Complete: true})
	for _, s := range []string{"", "<html>", `"text"`, "[]", "[{\"usage\":{}}]", "{", "}", "{}}}", `{"usage":5,"content":7,"model":{},"id":`} {
		if got := meterOf("text/html", s, 1); got.Started || got.Usage.Output != 0 {
			t.Errorf("%s: %+v", s, got)
		}
	}
}

func TestMeterServingModel(t *testing.T) {
	start := event(`{"type":"message_start","message":{"model":"claude-fable-5-2","usage":{"input_tokens":1}}}`)
	block := event(`{"type":"content_block_start","index":0,"content_block":{"type":"fallback","from":{"model":"claude-fable-5-2"},"to":{"model":"claude-opus-5-5"}}}`)
	final := event(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5,"iterations":[{"type":"message","model":"claude-fable-5-2"},{"type":"fallback_message","model":"claude-opus-5-5"}]}}`)
	for name, s := range map[string]string{"block": start + block, "iterations": start + final, "both": start + block + final} {
		if r := meterOf(sse, s, 0); r.ServingModel != "claude-opus-5-5" || r.Model != "claude-fable-5-2" {
			t.Errorf("%s: serving %s, model %s", name, r.ServingModel, r.Model)
		}
	}
	body := `{"type":"message","model":"a","content":[{"type":"fallback","to":{"model":"b"}}],"usage":{}}`
	if r := meterOf("application/json", body, 1); r.ServingModel != "b" {
		t.Errorf("body: %s", r.ServingModel)
	}
}

func TestMeterBetween(t *testing.T) {
	m := NewMeter(sse)
	for _, step := range []struct {
		piece string
		want  bool
	}{
		{"", true},
		{"event: ping\n", false},
		{"data: {\"type\":\"ping\"}\n", false},
		{"\n", true},
		{"\n", true},
		{"e", false},
		{"vent: ping\r\n", false},
		{"data: {\"type\":\"ping\"}\r\n\r", false},
		{"\n", true},
		{": comment\n", false},
		{"\n", true},
		{"data: x\n\n", true},
		{PingEvent, true},
		{"\r", false},
	} {
		_, _ = m.Write([]byte(step.piece))
		if got := m.Between(); got != step.want {
			t.Errorf("after %q: %v", step.piece, got)
		}
	}
	if NewMeter("application/json").Between() {
		t.Error("a JSON body has no events")
	}
}

// Result is a copy: what is read later does not change it.
func TestMeterResultIsACopy(t *testing.T) {
	m := NewMeter(sse)
	_, _ = m.Write([]byte(plainStream()))
	got := m.Result()
	_, _ = m.Write([]byte(plainStream()))
	wantResult(t, "first result", got, plainResult())
}

// FuzzMeter: no bytes make a meter fail, and how they are divided makes no difference.
func FuzzMeter(f *testing.F) {
	f.Add([]byte(plainStream()), uint64(1), true)
	f.Add([]byte(strings.ReplaceAll(plainStream(), "\n", "\r\n")), uint64(7), true)
	f.Add([]byte("\xEF\xBB\xBFdata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"\\u00e9\\\r\r\n\n"), uint64(3), true)
	f.Add([]byte(`{"type":"message","content":[{"type":"tool_use","name":"Read","input":{"a":[1,"\u00e9"]}}],"usage":{"output_tokens":3}}`), uint64(2), false)
	f.Add([]byte("data: {\"type\":\"message_delta\",\"usage\":{\"iterations\":[{},1,[]]}}\n\n"), uint64(5), true)
	f.Fuzz(func(t *testing.T, b []byte, seed uint64, stream bool) {
		contentType := "application/json"
		if stream {
			contentType = sse
		}
		whole := NewMeter(contentType)
		_, _ = whole.Write(b)
		pieces := NewMeter(contentType)
		for rest := b; len(rest) > 0; {
			seed = seed*6364136223846793005 + 1442695040888963407
			n := min(int(seed>>60), len(rest))
			_, _ = pieces.Write(rest[:n])
			rest = rest[n:]
		}
		if whole.Between() != pieces.Between() {
			t.Fatal("boundary depends on the division")
		}
		r := whole.Result()
		wantResult(t, "in pieces", pieces.Result(), r)
		if r.Raw != nil && !json.Valid(r.Raw) {
			t.Fatalf("raw usage is not JSON: %s", r.Raw)
		}
		u, _ := r.Settled(0)
		if u.Prompt() < 0 || u.Output < 0 || u.CacheWrite5m < 0 || r.Characters < 0 || r.Characters > int64(len(b)) {
			t.Fatalf("impossible counts: %+v", r)
		}
		u.BilledTotal()
		r.Uncharged()
	})
}

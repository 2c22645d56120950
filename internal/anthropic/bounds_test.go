package anthropic

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// distinct is n members, each with another name.
func distinct(n int) string {
	var b []byte
	for i := range n {
		b = append(strconv.AppendInt(append(b, `,"k`...), int64(i+1), 10), `":0`...)
	}
	return string(b[1:])
}

// allocations counts those of one call, which testing.AllocsPerRun would make twice.
func allocations(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// Names are compared with each other where policy depends on them, so there may only be so many of them.
func TestPeekMemberBound(t *testing.T) {
	object := func(first string, n int) string { return "{" + first + "," + distinct(n-1) + "}" }
	tests := []struct {
		name, body, want string // want is the start of the error; "" for none
	}{
		{"a full body", object(`"model":"m"`, 256), ""},
		{"a member too many", object(`"model":"m"`, 257), "the request body: must have at most 256 members (byte 2200)."},
		{"a late duplicate", strings.TrimSuffix(object(`"model":"m"`, 255), "}") + `,"k254":0}`, `"k254": occurs twice in the request body`},
		{"full metadata", `{"model":"m","metadata":` + object(`"user_id":"u"`, 256) + "}", ""},
		{"metadata with a member too many", `{"model":"m","metadata":` + object(`"user_id":"u"`, 257) + "}", "metadata: must have at most 256 members"},
		{"a late duplicate in metadata", `{"model":"m","metadata":` + strings.TrimSuffix(object(`"user_id":"u"`, 255), "}") + `,"k\u0031":0}}`, `"k1": occurs twice in metadata`},
		{"any number elsewhere", `{"model":"m","messages":` + object(`"role":"user"`, 1000) + "}", ""},
	}
	for _, tt := range tests {
		_, err := Peek([]byte(tt.body))
		var own *Error
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (!errors.As(err, &own) || own.Status != 400 || !strings.HasPrefix(own.Message, tt.want)):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// Whatever the structure of a body and however large it is, to peek at it costs a handful of allocations. The names and counts that are
// checked beside tell that it was read to its end.
func TestPeekAllocations(t *testing.T) {
	const million = 1_000_000
	messages := func(value string) string { return `{"model":"m","messages":` + value + `}` }
	each := func(piece string, n int) string { return strings.Repeat(piece+",", n-1) + piece }
	text := func(piece string, size int) string {
		return messages(`"` + strings.Repeat(piece, size/len(piece)) + `"`)
	}
	const size = 1 << 20
	keys := distinct(million)
	tests := []struct {
		name, body, refused string // refused is a part of the error; "" for none
	}{
		{"keys", messages("{" + each(`"k0":0`, million) + "}"), ""},
		{"keys with escapes", messages("{" + each(`"\u006b0":0`, million/10) + "}"), ""},
		{"keys that spell a name that is looked for", messages("{" + each(`"cach\u0065_control":{"d\u0061ta":"0"}`, million/10) + "}"), ""},
		{"keys at the top", `{"model":"m",` + keys + "}", "at most 256 members"},
		{"keys in metadata", `{"model":"m","metadata":{` + keys + "}}", "at most 256 members"},
		{"elements", messages("[" + each("0", million) + "]"), ""},
		{"messages", messages("[" + each(`{"role":"user","content":"0"}`, million) + "]"), ""},
		{"tools", `{"model":"m","tools":[` + each("{}", million/10) + "]}", ""},
		{"empty strings", messages("[" + each(`""`, million/10) + "]"), ""},
		{"a deep array", messages(strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)), "nested too deep"},
		{"a deep object", messages(strings.Repeat(`{"":`, 10_000) + "0" + strings.Repeat("}", 10_000)), "nested too deep"},
		{"deep arrays side by side", messages("[" + strings.Repeat(strings.Repeat("[", 900)+strings.Repeat("]", 900)+",", 500) + "0]"), ""},
		{"30 MB of escapes", text(`\n`, 30<<20), ""},
		{"escaped quotes", text(`\"`, size), ""},
		{"escaped backslashes", text(`\\`, size), ""},
		{"escaped quotes between letters", text(`\"a`, size), ""},
		{"escapes with digits", text(`\ud83d`, size), ""},
		{"characters of two bytes", text("éa", size), ""},
		{"characters of three bytes", text("文", size), ""},
		{"characters of four bytes", text("😀a", size), ""},
		{"base64", messages("[" + strings.Repeat(`{"data":"`+strings.Repeat("A", 512)+`"},`, size/512) + "0]"), ""},
		{"one number", messages(strings.Repeat("7", size)), ""},
		{"white space", messages("[" + strings.Repeat(" \n", size/2) + "]"), ""},
		{"a string without end", strings.TrimSuffix(text("a", size), `"}`), "unexpected end inside a string"},
		{"a name without end", messages(`{"` + strings.Repeat("a", size)), "unexpected end inside a string"},
	}
	for _, tt := range tests {
		body := []byte(tt.body)
		var r *Request
		var err error
		if allocs := allocations(func() { r, err = Peek(body) }); allocs > 32 { // most of them for an error
			t.Errorf("%s: %d allocations", tt.name, allocs)
		}
		switch {
		case tt.refused == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.refused)
		case tt.name == "tools" && r.ToolCount != million/10:
			t.Errorf("%d tools", r.ToolCount)
		case tt.name == "base64" && r.Media != size/512*512:
			t.Errorf("%d bytes of media", r.Media)
		}
	}
}

// Events cost no memory, but for the few that say what the message costs and what it calls.
func TestMeterAllocations(t *testing.T) {
	few := event(`{"type":"ping"}`) + textDelta + event(`{"type":"content_block_stop","index":0}`) +
		event(`{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}}`) +
		event(`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a"}}`) +
		event(`{"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "h\u00e9 …"}}`) +
		event(`{"type":"content_block_delta","index":1,"delta":{"type":"signature_delta","signature":"EqoBCkgI"}}`) +
		event(`{"type":"future","x":[1,2,{"y":"z"}]}`)
	pieces := func(m *Meter, text []byte, size int) {
		for len(text) > 0 {
			n := min(size, len(text))
			_, _ = m.Write(text[:n])
			text = text[n:]
		}
	}
	for _, tt := range []struct {
		name, text string
		size       int // of the pieces
	}{
		{"one event at a time", few, len(few)},
		{"many events", strings.Repeat(few, 100), 1 << 20},
		{"many deltas in pieces", strings.Repeat(textDelta, 100), 1000}, // of other events the pieces must be kept
		{"a delta in pieces", textDelta, 30},
		{"CRLF", strings.ReplaceAll(textDelta, "\n", "\r\n"), 1 << 20},
	} {
		m := NewMeter(sse)
		b := []byte(tt.text)
		pieces(m, b, tt.size) // the name of a tool is new once, and so is the beginning of a line
		if allocs := testing.AllocsPerRun(10, func() { pieces(m, b, tt.size) }); allocs != 0 {
			t.Errorf("%s: %.0f allocations", tt.name, allocs)
		}
	}

	// The meter, the id, the model, and usage twice for a stream.
	ends := strings.ReplaceAll(plainStream(), "tool_use", "text")
	for _, tt := range []struct {
		name, contentType, text string
		want                    float64
	}{
		{"stream", sse, ends, 5},
		{"JSON", "application/json", answer(), 4},
	} {
		b := []byte(tt.text)
		allocs := testing.AllocsPerRun(10, func() {
			m := NewMeter(tt.contentType)
			_, _ = m.Write(b)
			if !m.Result().Complete {
				t.Error("not complete")
			}
		})
		if allocs > tt.want {
			t.Errorf("%s: %.0f allocations, want at most %.0f", tt.name, allocs, tt.want)
		}
	}
}

// There may be thousands of meters at a time, each for as long as its stream lasts.
func TestMeterMemory(t *testing.T) {
	start, _, _ := strings.Cut(plainStream(), "event: content_block_stop")
	text := []byte(start + strings.Repeat(textDelta, 30) + textDelta[:120])
	for _, size := range []int{len(text), 100} {
		meters := make([]*Meter, 2000)
		held := func() uint64 {
			var stats runtime.MemStats
			runtime.GC()
			runtime.GC() // what the first one finalised or swept late
			runtime.ReadMemStats(&stats)
			return stats.HeapAlloc
		}
		before := held()
		for i := range meters {
			meters[i] = NewMeter(sse)
			for p := text; len(p) > 0; {
				n := min(size, len(p))
				_, _ = meters[i].Write(p[:n])
				p = p[n:]
			}
		}
		if each := (held() - before) / uint64(len(meters)); each >= 1024 {
			t.Errorf("by %d: a meter in the middle of a stream holds %d bytes", size, each)
		}
		runtime.KeepAlive(meters)
	}
}

// An upstream cannot make a meter work or keep much either.
func TestMeterHostileUsage(t *testing.T) {
	members := distinct(1000)
	r := meterOf(sse, event(`{"type":"message_start","message":{"usage":{"output_tokens":1,`+members+`}}}`), 0)
	if r.Usage.Output != 1 || r.Raw != nil {
		t.Errorf("%d tokens, %d bytes of raw usage", r.Usage.Output, len(r.Raw))
	}
	first := event(`{"type":"message_start","message":{"usage":{"output_tokens":1}}}`)
	r = meterOf(sse, first+event(`{"type":"message_delta","usage":{"output_tokens":2,`+members+`}}`), 0)
	if r.Usage.Output != 2 || string(r.Raw) != `{"output_tokens":1}` {
		t.Errorf("%d tokens, raw usage %s", r.Usage.Output, r.Raw)
	}
	// Lines that end with CR are looked for without going through all the rest each time; 8 MB of them would take minutes.
	r = meterOf(sse, strings.Repeat("event: ping\rdata: {}\r\r", 8<<20/22)+"\n", 0)
	if r.Events != 8<<20/22 {
		t.Errorf("%d events", r.Events)
	}
}

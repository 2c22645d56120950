package anthropic

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestBilled(t *testing.T) {
	tests := []struct {
		name, usage   string
		want          []Iteration
		input, output int64 // billed in all
	}{
		{
			"no iterations: the top level",
			`{"input_tokens":5,"output_tokens":6,"cache_read_input_tokens":7,"cache_creation_input_tokens":248,"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100}}`,
			[]Iteration{{"message", "", 5, 6, 7, 148, 100}},
			5, 6,
		},
		{
			"advisor",
			`{"input_tokens":1760,"cache_read_input_tokens":412,"cache_creation_input_tokens":0,"output_tokens":531,"iterations":[
			 {"type":"message","input_tokens":412,"cache_read_input_tokens":0,"output_tokens":89},
			 {"type":"advisor_message","model":"claude-opus-5-5","input_tokens":823,"output_tokens":1612},
			 {"type":"message","input_tokens":1348,"cache_read_input_tokens":412,"output_tokens":442}]}`,
			[]Iteration{
				{"message", "", 412, 89, 0, 0, 0},
				{"advisor_message", "claude-opus-5-5", 823, 1612, 0, 0, 0},
				{"message", "", 1348, 442, 412, 0, 0},
			},
			2583, 2143,
		},
		{
			"compaction",
			`{"input_tokens":23000,"output_tokens":1000,"iterations":[{"type":"compaction","input_tokens":180000,"output_tokens":3500},{"type":"message","input_tokens":23000,"output_tokens":1000}]}`,
			[]Iteration{{"compaction", "", 180000, 3500, 0, 0, 0}, {"message", "", 23000, 1000, 0, 0, 0}},
			203000, 4500,
		},
		{
			"a declined attempt before a fallback is free",
			`{"input_tokens":412,"output_tokens":264,"iterations":[{"type":"message","model":"a","input_tokens":535,"output_tokens":0},{"type":"fallback_message","model":"b","input_tokens":412,"output_tokens":264}]}`,
			[]Iteration{{"fallback_message", "b", 412, 264, 0, 0, 0}},
			412, 264,
		},
		{
			"an attempt that declined in the middle is not",
			`{"output_tokens":264,"iterations":[{"type":"message","model":"a","input_tokens":535,"output_tokens":1},{"type":"fallback_message","model":"b","input_tokens":412,"output_tokens":264}]}`,
			[]Iteration{{"message", "a", 535, 1, 0, 0, 0}, {"fallback_message", "b", 412, 264, 0, 0, 0}},
			947, 265,
		},
		{
			"a lone run without output warms a cache",
			`{"iterations":[{"type":"message","input_tokens":9,"output_tokens":0,"cache_creation_input_tokens":2000}]}`,
			[]Iteration{{"message", "", 9, 0, 0, 2000, 0}},
			9, 0,
		},
		{"an empty list is none", `{"input_tokens":3,"iterations":[]}`, []Iteration{{Type: "message", Input: 3}}, 3, 0},
	}
	for _, tt := range tests {
		var u Usage
		u.update([]byte(tt.usage))
		if got := slices.Collect(u.Billed()); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
		if total := u.BilledTotal(); total.Input != tt.input || total.Output != tt.output {
			t.Errorf("%s: total %+v", tt.name, total)
		}
	}
}

func TestPrompt(t *testing.T) {
	if got := (Usage{Input: 1, Output: 2, CacheRead: 4, CacheWrite5m: 8, CacheWrite1h: 16, Thinking: 32}).Prompt(); got != 29 {
		t.Error(got)
	}
}

func TestCacheWrites(t *testing.T) {
	tests := []struct {
		name, first, second string
		fiveMinutes, hour   int64
	}{
		{"division", `{"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100}}`, `{}`, 148, 100},
		{"total beyond the division", `{"cache_creation_input_tokens":300,"cache_creation":{"ephemeral_1h_input_tokens":100}}`, `{}`, 200, 100},
		{"total before the division", `{"cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":2},"cache_creation_input_tokens":3}`, `{}`, 1, 2},
		{"growth", `{"cache_creation_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":2}}`, `{"cache_creation_input_tokens":10}`, 8, 2},
		{"no change", `{"cache_creation_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":2}}`, `{"output_tokens":1}`, 1, 2},
		{"shrinking", `{"cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":2}}`, `{"cache_creation_input_tokens":1}`, 0, 1},
	}
	for _, tt := range tests {
		var u Usage
		u.update([]byte(tt.first))
		u.update([]byte(tt.second))
		if u.CacheWrite5m != tt.fiveMinutes || u.CacheWrite1h != tt.hour {
			t.Errorf("%s: %d and %d", tt.name, u.CacheWrite5m, u.CacheWrite1h)
		}
	}
}

func TestMergeUsage(t *testing.T) {
	tests := []struct{ old, update, want string }{
		{``, `{"a":1, "b" : [1, 2]}`, `{"a":1,"b":[1, 2]}`},
		{`{"a":1,"b":2}`, `{"b":3,"c":{"x":"}"}}`, `{"a":1,"b":3,"c":{"x":"}"}}`},
		{`{"a":1}`, `{"a":null,"b":null}`, `{"a":1,"b":null}`},
		{`{"a":1}`, `{"a":2,"b":tru`, `{"a":1}`},
		{`{"a":1}`, `null`, `{"a":1}`},
		{`{"a":1}`, ``, `{"a":1}`},
		{``, `{"a":1,"a":2}`, `{"a":2}`},
	}
	for _, tt := range tests {
		got := string(mergeUsage([]byte(tt.old), []byte(tt.update)))
		if got != tt.want || !json.Valid([]byte(got)) {
			t.Errorf("%s + %s = %s, want %s", tt.old, tt.update, got, tt.want)
		}
	}
}

func TestUncharged(t *testing.T) {
	tests := []struct {
		r    Result
		want bool
	}{
		{Result{StopReason: "refusal"}, true},
		{Result{StopReason: "end_turn"}, false},
		{Result{StopReason: "refusal", Blocks: 1}, false},
		{Result{StopReason: "refusal", Usage: Usage{Iterations: []Iteration{{Type: "message", Output: 4}, {Type: "fallback_message"}}}}, false},
		{Result{StopReason: "refusal", Usage: Usage{Iterations: []Iteration{{Type: "message"}, {Type: "fallback_message"}}}}, true},
	}
	for _, tt := range tests {
		if got := tt.r.Uncharged(); got != tt.want {
			t.Errorf("%+v: %v", tt.r, got)
		}
	}
}

func TestSettledKeepsIterationsInStep(t *testing.T) {
	r := Result{Characters: 400, Usage: Usage{Output: 3, Iterations: []Iteration{{Type: "compaction", Output: 50}, {Type: "message", Output: 3}, {Type: "advisor_message", Output: 7}}}}
	u, estimated := r.Settled(0)
	if !estimated || u.Output != 100 || u.Iterations[1].Output != 100 || u.BilledTotal().Output != 157 {
		t.Errorf("%+v", u)
	}
	if r.Usage.Iterations[1].Output != 3 {
		t.Error("the result itself was changed")
	}
}

// What a sampling run states is as much bounded as what the message does, and so is the sum of many.
func TestRunsOfNonsense(t *testing.T) {
	run := func(counts string) string {
		return `{"input_tokens":5,"output_tokens":9,"iterations":[{"type":"compaction","input_tokens":7,"output_tokens":1},{"type":"message",` + counts + `}]}`
	}
	for usage, want := range map[string]struct {
		input, output, written int64
		estimated              bool
	}{
		run(`"input_tokens":5,"output_tokens":9`):                                                                                         {12, 10, 0, false},
		run(`"input_tokens":5,"output_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":4}`):                                        {12, 10, 4, false},
		run(`"input_tokens":-5,"output_tokens":9`):                                                                                        {7, 10, 0, true},
		run(`"input_tokens":1e300,"output_tokens":9`):                                                                                     {7, 10, 0, true},
		run(`"input_tokens":9223372036854775807,"output_tokens":9`):                                                                       {7, 10, 0, true},
		run(`"input_tokens":5,"output_tokens":-9`):                                                                                        {12, 7, 0, true}, // by what was sent: 24 characters
		run(`"input_tokens":5,"output_tokens":"nine"`):                                                                                    {12, 7, 0, true},
		run(`"input_tokens":5,"output_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":-4}`):                                       {12, 10, 0, true},
		run(`"input_tokens":5,"output_tokens":9},` + strings.Repeat(`{"input_tokens":1},`, 300) + `{"a":1`):                               {12 + 254, 10, 0, true},
		`{"iterations":[` + strings.Repeat(`{"input_tokens":9007199254740992,"cache_read_input_tokens":9007199254740992},`, 200) + `{}]}`: {1 << 53, 0, 0, false},
	} {
		m := NewMeter(sse)
		_, _ = m.Write([]byte(event(`{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":5,"output_tokens":1}}}`) + textDelta +
			event(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":`+usage+`}`) + event(`{"type":"message_stop"}`)))
		u, estimated := m.Result().Settled(100)
		if sum := u.BilledTotal(); sum.Input != want.input || sum.Output != want.output || sum.CacheWrite5m != want.written || sum.Prompt() < 0 || estimated != want.estimated {
			t.Errorf("%s: %+v, estimated %v", usage, sum, estimated)
		}
	}
}

// A count that is none does not settle as nothing without saying so.
func TestCountsThatAreNone(t *testing.T) {
	for usage, want := range map[string]struct {
		output    int64
		estimated bool
	}{
		`{"input_tokens":5,"output_tokens":9}`:                                       {9, false},
		`{"input_tokens":5,"output_tokens":9,"cache_read_input_tokens":null}`:        {9, false},
		`{"input_tokens":5,"output_tokens":1e30}`:                                    {3, true},
		`{"input_tokens":5,"output_tokens":-1}`:                                      {3, true},
		`{"input_tokens":9223372036854775807,"output_tokens":2}`:                     {2, true},
		`{"input_tokens":5,"output_tokens":2,"cache_creation_input_tokens":"seven"}`: {2, true},
	} {
		m := NewMeter("text/event-stream")
		_, _ = m.Write([]byte("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n" +
			"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"twelve chars\"}}\n\n" +
			"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":" + usage + "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"))
		if u, estimated := m.Result().Settled(100); u.Output != want.output || u.Input != 5 || estimated != want.estimated {
			t.Errorf("%s: %d in, %d out, estimated %v", usage, u.Input, u.Output, estimated)
		}
	}
}

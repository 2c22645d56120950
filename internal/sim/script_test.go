package sim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"carpool/internal/sim"
)

// talk is a conversation as a client builds it.
type talk struct {
	g        *rig
	messages []any
	extra    map[string]any
}

func (g *rig) talk(text string, tools ...string) *talk {
	c := &talk{g: g, extra: map[string]any{"model": "claude-opus-5-5", "max_tokens": 1000}}
	var list []any
	for _, name := range tools {
		list = append(list, map[string]any{"name": name, "input_schema": map[string]any{"type": "object"}})
	}
	c.extra["tools"] = list
	c.say("user", text)
	return c
}

func (c *talk) say(role string, content any) {
	c.messages = append(c.messages, map[string]any{"role": role, "content": content})
}

func (c *talk) body() string {
	c.extra["messages"] = c.messages
	return asJSON(c.g.t, c.extra)
}

// turn asks for the next message and answers its tool calls with "result of" their input.
func (c *talk) turn() msg {
	c.g.t.Helper()
	m := c.g.message(c.body())
	c.say("assistant", json.RawMessage(asJSON(c.g.t, blocks(m))))
	var results []any
	for _, b := range m.Content {
		if b.Type == "tool_use" {
			results = append(results, map[string]any{"type": "tool_result", "tool_use_id": b.ID, "content": "result of " + string(b.Input)})
		}
	}
	if results != nil {
		c.say("user", results)
	}
	return m
}

func blocks(m msg) []any {
	var list []any
	for _, b := range m.Content {
		switch b.Type {
		case "text":
			list = append(list, map[string]any{"type": "text", "text": b.Text})
		case "thinking":
			list = append(list, map[string]any{"type": "thinking", "thinking": b.Thinking, "signature": b.Signature})
		case "tool_use":
			list = append(list, map[string]any{"type": "tool_use", "id": b.ID, "name": b.Name, "input": b.Input})
		}
	}
	return list
}

func calls(m msg) string {
	var out []string
	for _, b := range m.Content {
		if b.Type == "tool_use" {
			out = append(out, b.Name+string(b.Input))
		}
	}
	return strings.Join(out, " ")
}

func TestLoop(t *testing.T) {
	g := newRig(t, sim.Options{})
	c := g.talk(`Go on. [[sim [{"think":"hm","text":"I start.","tool":"Bash","input":{"command":"a"}},
		{"tools":[{"tool":"Read","input":{"p":1}},{"tool":"Read","input":{"p":2}}],"repeat":2},"Last: {{result}} by {{model}}"]]] please`, "Bash", "Read")
	want := []string{`Bash{"command":"a"}`, `Read{"p":1} Read{"p":2}`, `Read{"p":1} Read{"p":2}`, ``}
	for i, w := range want {
		m := c.turn()
		if calls(m) != w {
			t.Fatalf("turn %d: %+v", i, m)
		}
		if i == 0 && (m.Content[0].Thinking != "hm" || m.Content[0].Signature == "" || m.Content[1].Text != "I start.") {
			t.Errorf("first turn: %+v", m)
		}
		if i == 3 && m.text() != "Last: result of {\"p\":1}\nresult of {\"p\":2} by claude-opus-5-5" {
			t.Errorf("last turn: %q", m.text())
		}
	}
	c.say("user", "Anything else?")
	if m := c.turn(); calls(m) != "" || !strings.HasPrefix(m.text(), "Last: ") {
		t.Errorf("after the end: %+v", m)
	}
	c.say("user", `[[sim [{"tool":"Bash"},"second"]]]`)
	if m := c.turn(); calls(m) != "Bash{}" {
		t.Errorf("a new directive: %+v", m)
	}
	if m := c.turn(); m.text() != "second" {
		t.Errorf("its end: %+v", m)
	}
}

func TestLoopSurvivesRepeatedAndForeignTurns(t *testing.T) {
	const script = `[[sim [{"tool":"Bash","input":{"n":1}},{"tool":"Bash","input":{"n":2}},{"tool":"Bash","input":{"n":3}},"end"]]]`
	g := newRig(t, sim.Options{})
	c := g.talk(script, "Bash")
	c.turn()
	c.messages = append(c.messages, c.messages[1], c.messages[2]) // as claude 1.0.57 and 1.0.59 do in print mode
	if m := c.turn(); calls(m) != `Bash{"n":2}` {
		t.Errorf("after a repeated turn: %+v", m)
	}
	foreign := g.talk(script, "Bash")
	for _, id := range []string{"toolu_a", "toolu_a", "call_b"} {
		foreign.say("assistant", []any{map[string]any{"type": "tool_use", "id": id, "name": "Bash", "input": map[string]any{}}})
		foreign.say("user", []any{map[string]any{"type": "tool_result", "tool_use_id": id, "content": "x"}})
	}
	if m := foreign.turn(); calls(m) != `Bash{"n":3}` {
		t.Errorf("after two foreign calls: %+v", m)
	}
}

func TestAgents(t *testing.T) {
	g := newRig(t, sim.Options{})
	const text = `[[sim [{"agents":["one [[sim \"nested\"]]","two"]},"They said: {{result}}"]]]`
	for _, tool := range []string{"Task", "Agent"} {
		c := g.talk(text, "Bash", tool)
		m := c.turn()
		want := tool + `{"description":"Sub-agent 1","prompt":"one [[sim \"nested\"]]","subagent_type":"general-purpose"} ` +
			tool + `{"description":"Sub-agent 2","prompt":"two","subagent_type":"general-purpose"}`
		if calls(m) != want {
			t.Fatalf("got %s", calls(m))
		}
		if m := g.message(prompt("one [[sim \"nested\"]]")); m.text() != "nested" {
			t.Errorf("the sub-agent's own answer: %q", m.text())
		}
	}
	// A newer client answers the tool call at once and tells the result later.
	c := g.talk(text, "Agent")
	m := g.message(c.body())
	c.say("assistant", blocks(m))
	var receipts []any
	for _, b := range m.Content {
		receipts = append(receipts, map[string]any{"type": "tool_result", "tool_use_id": b.ID, "content": "Async agent launched successfully."})
	}
	c.say("user", receipts)
	if m := c.turn(); m.text() != "They said: (still at work)\n(still at work)" {
		t.Errorf("got %q", m.text())
	}
	c.say("user", fmt.Sprintf("<system-reminder>\n<task-notification>\n<tool-use-id>%s</tool-use-id>\n<result>two!</result>\n"+
		"</task-notification>\n</system-reminder>", m.Content[1].ID))
	if m := c.turn(); m.text() != "They said: (still at work)\ntwo!" {
		t.Errorf("got %q", m.text())
	}
}

func TestAuxiliaryRequestsDoNotRunTheScript(t *testing.T) {
	g := newRig(t, sim.Options{})
	script := `[[sim [{"tool":"Bash","status":529},"end"]]]`
	for name, c := range map[string]struct{ body, want string }{
		"title": {prompt(script, `"tools":[],"output_config":{"format":{"type":"json_schema","schema":{"type":"object",
			"properties":{"title":{"type":"string"},"n":{"type":["integer","null"],"minimum":2},"kind":{"enum":["a","b"]},"list":{"type":"array","minItems":1,
			"items":{"type":"boolean"}}},"required":["title","n","kind","list"]}}}`), `{"title":"Simulated","n":2,"kind":"a","list":[false]}`},
		"topic":       {prompt(script, `"system":"Format your response as a JSON object with two fields: 'isNewTopic'"`), `{"isNewTopic": false, "title": null}`},
		"paths":       {prompt("Command: echo\nOutput: "+script, `"system":"Extract any file paths that this command reads"`), "<is_displaying_contents>\nfalse\n</is_displaying_contents>\n\n<filepaths>\n</filepaths>"},
		"prefix":      {prompt(script, `"system":[{"type":"text","text":"or command_injection_detected"}]`), "none"},
		"no tools":    {prompt(script), "A simulated answer. This request does not offer the tool Bash."},
		"other tools": {prompt(script, strings.ReplaceAll(twoTools, "Bash", "Grep")), "A simulated answer. This request does not offer the tool Bash."},
		"no agents":   {prompt(`[[sim [{"agents":["x"]},"end"]]]`), "A simulated answer. This request does not offer the tool Agent."},
	} {
		t.Run(name, func(t *testing.T) {
			if m := g.message(c.body); m.text() != c.want || m.StopReason != "end_turn" {
				t.Errorf("got %q", m.text())
			}
		})
	}
	c := g.talk(script, "Bash")
	c.say("assistant", "ok")
	c.say("user", "Your task is to create a detailed summary of the conversation so far")
	if m := g.message(c.body()); !strings.Contains(m.text(), "<summary>") {
		t.Errorf("summary: %q", m.text())
	}
}

func TestWebSearch(t *testing.T) {
	g := newRig(t, sim.Options{})
	body := prompt("Perform a web search for the query: go", `"tools":[{"type":"web_search_20250305","name":"web_search","max_uses":8}]`, streaming)
	m, _ := g.streamed(body)
	if len(m.Content) != 3 || m.Content[0].Type != "server_tool_use" || m.Content[1].Type != "web_search_tool_result" {
		t.Fatalf("got %+v", m)
	}
	if got := asJSON(t, m.Usage["server_tool_use"]); got != `{"web_fetch_requests":0,"web_search_requests":1}` {
		t.Errorf("usage %s", got)
	}
}

func TestDirectiveForms(t *testing.T) {
	g := newRig(t, sim.Options{})
	const bad = "Carpool's simulated Claude cannot read the directive"
	for text, want := range map[string]string{
		`[[sim "plain"]]`:                        "plain",
		`[[sim"tight"]]`:                         "tight",
		"a [[sim\n [ \"lines\" ]\n ]] b":         "lines",
		`[[sim {"text":"object ]] inside"}]]`:    "object ]] inside",
		`[[sim "first"]] [[sim "second"]]`:       "second",
		`[[sim {}]]`:                             "Done.",
		`[[simple brackets]]`:                    "This is Carpool's simulated Claude",
		`[[sim]] and [[simulation "x"]]`:         "This is Carpool's simulated Claude",
		`[[sim "x"`:                              bad,
		`[[sim {"txt":"x"}]]`:                    bad,
		`[[sim []]]`:                             bad,
		`[[sim ["text first",{"tool":"Bash"}]]]`: bad,
		`[[sim {"cut":"sideways"}]]`:             bad,
		`[[sim {"tool":"Bash","input":"text"}]]`: bad,
		`[[sim {"text":"x","repeat":100000}]]`:   bad,
		`[[sim [{"tool":"B","repeat":900},{"tool":"B","repeat":900}]]]`: bad,
	} {
		if got := g.message(prompt(text)).text(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q", text, got)
		}
	}
	// A reminder that a client adds is not the user's word, and an earlier directive gives way to a later one.
	c := g.talk(`[[sim "old"]]`)
	c.say("assistant", "old")
	c.say("user", []any{
		map[string]any{"type": "text", "text": `[[sim "new"]]`},
		map[string]any{"type": "text", "text": `<system-reminder>[[sim "no"]]</system-reminder>`},
	})
	c.say("assistant", `[[sim "nor this"]]`)
	c.say("user", "go on")
	if m := c.turn(); m.text() != "new" {
		t.Errorf("got %q", m.text())
	}
}

func TestDictatedUsage(t *testing.T) {
	g := newRig(t, sim.Options{})
	text := `[[sim {"text":"x","usage":{"input_tokens":2679,"output_tokens":510,"cache_read_input_tokens":3,"cache_creation_input_tokens":10,
		"server_tool_use":{"web_search_requests":2},"speed":"fast","iterations":[{"type":"message"}]},"start_usage":{"input_tokens":11}}]]`
	m, list := g.streamed(prompt(text, streaming))
	got := asJSON(t, m.Usage)
	want := `{"cache_creation":{"ephemeral_1h_input_tokens":0,"ephemeral_5m_input_tokens":10},"cache_creation_input_tokens":10,"cache_read_input_tokens":3,` +
		`"inference_geo":"global","input_tokens":2679,"iterations":[{"type":"message"}],"output_tokens":510,"server_tool_use":{"web_search_requests":2},` +
		`"service_tier":"standard","speed":"fast"}`
	if got != want {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(list[0].usage, `"input_tokens":11,`) || !strings.Contains(list[0].usage, `"output_tokens":4,`) {
		t.Errorf("message_start: %s", list[0].usage)
	}
	if whole := g.message(prompt(text)); asJSON(t, whole.Usage) != want {
		t.Errorf("whole: %s", asJSON(t, whole.Usage))
	}
}

func TestRefusal(t *testing.T) {
	g := newRig(t, sim.Options{})
	m, list := g.streamed(prompt(`[[sim {"stop":"refusal"}]]`, streaming))
	if m.StopReason != "refusal" || len(m.Content) != 0 {
		t.Errorf("got %+v", m)
	}
	if n := names(list); n != "message_start message_delta message_stop" {
		t.Errorf("events %s", n)
	}
	res := g.must(http.MethodPost, "/v1/messages", prompt(`[[sim {"stop":"refusal","text":"I would"}]]`))
	if !strings.Contains(string(res.body), `"stop_details":{"type":"refusal"`) {
		t.Errorf("got %s", res.body)
	}
}

func TestEvents(t *testing.T) {
	g := newRig(t, sim.Options{})
	for _, n := range []int{1, 7, 500} {
		m, list := g.streamed(prompt(fmt.Sprintf(`[[sim {"text":"ünï","events":%d}]]`, n), streaming, `"max_tokens":64000`))
		deltas := 0
		for _, e := range list {
			if e.name == "content_block_delta" {
				deltas++
			}
		}
		if deltas != n || !strings.HasPrefix(m.text(), "ünï") {
			t.Errorf("%d deltas, want %d: %.50s", deltas, n, m.text())
		}
	}
}

package sim

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// answer is a message to be sent, whole or as a stream.
type answer struct {
	ID           string
	Model        string
	Blocks       []outBlock
	Stop         string
	StopSequence *string
	Events       int // number of text deltas, 0 for as many as the text's length suggests
	EditsContext bool
	HideThinking bool
	Start, Final usage
}

// outBlock is one content block of an answer.
type outBlock struct {
	Type      string         // "text", "thinking", "tool_use", "server_tool_use" or another one that is sent at once
	Text      string         // of text and thinking
	Signature string         // of thinking
	ID, Name  string         // of tool_use and server_tool_use
	Input     jsontext.Value // of tool_use and server_tool_use
	Raw       jsontext.Value // of any other block
}

func (b outBlock) bytes() int {
	return len(b.Text) + len(b.Signature)/8 + len(b.Name) + len(b.Input)
}

// usage is a usage object with its members in order.
type usage []member

type member struct {
	name  string
	value jsontext.Value
}

func (u usage) with(name string, value jsontext.Value) usage {
	for i := range u {
		if u[i].name == name {
			u[i].value = value
			return u
		}
	}
	return append(u, member{name, value})
}

// overlaid replaces and adds members.
func (u usage) overlaid(f fields) usage {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		u = u.with(name, f[name])
	}
	return u
}

func (u usage) number(name string) int64 {
	for _, m := range u {
		if m.name == name {
			var n int64
			if json.Unmarshal(m.value, &n) == nil {
				return n
			}
		}
	}
	return 0
}

// without returns the usage without some members.
func (u usage) without(names ...string) usage {
	var out usage
next:
	for _, m := range u {
		for _, name := range names {
			if m.name == name {
				continue next
			}
		}
		out = append(out, m)
	}
	return out
}

// MarshalJSON writes the members in their order.
func (u usage) MarshalJSON() ([]byte, error) {
	size := 2
	for _, m := range u {
		size += len(m.name) + len(m.value) + 4
	}
	out := append(make([]byte, 0, size), '{')
	for i, m := range u {
		if i > 0 {
			out = append(out, ',')
		}
		var err error
		if out, err = jsontext.AppendQuote(out, m.name); err != nil {
			return nil, err
		}
		out = append(append(out, ':'), m.value...)
	}
	return append(out, '}'), nil
}

func number(n int64) jsontext.Value { return jsontext.Value(jsontext.Int(n).String()) }

// compose makes the answer's content: what the script's step says, or what an ordinary or auxiliary request deserves.
func compose(q *request, st step, scripted bool, seed []byte, index int) (blocks []outBlock, stop string) {
	calls, missing := st.calls(q)
	if text, ok := auxiliary(q); ok || missing != "" {
		if !ok {
			text = "A simulated answer. This request does not offer the tool " + missing + "."
		}
		return []outBlock{{Type: "text", Text: text}}, "end_turn"
	}
	if !scripted {
		return unscripted(q, seed)
	}
	if st.Think != "" {
		sig := sha256.Sum256([]byte(st.Think))
		blocks = append(blocks, outBlock{
			Type: "thinking", Text: st.Think,
			Signature: base64.StdEncoding.EncodeToString(append([]byte("carpool-sim-signature:"), sig[:]...)),
		})
	}
	text := st.Text
	if strings.Contains(text, "{{") {
		text = strings.ReplaceAll(text, "{{result}}", strings.TrimSpace(q.lastResults()))
		text = strings.ReplaceAll(text, "{{model}}", q.Model)
	}
	if st.Events > 0 {
		text = fill(text, st.Events)
	}
	if text == "" && len(calls) == 0 && st.Stop == "" {
		text = "Done."
	}
	if text != "" {
		blocks = append(blocks, outBlock{Type: "text", Text: text})
	}
	stop = "end_turn"
	for i, c := range calls {
		blocks = append(blocks, outBlock{Type: "tool_use", ID: toolID(seed, index, i), Name: c.Tool, Input: c.Input})
		stop = "tool_use"
	}
	if st.Stop != "" {
		stop = st.Stop
	}
	return blocks, stop
}

// unscripted answers a request without a directive: a forced tool call, a web search or an echo.
func unscripted(q *request, seed []byte) ([]outBlock, string) {
	for _, t := range q.Tools {
		forced := q.ToolChoice.Type == "any" || q.ToolChoice.Type == "tool" && q.ToolChoice.Name == t.Name
		if forced && t.Schema != nil {
			return []outBlock{{Type: "tool_use", ID: toolID(seed, 0, 0), Name: t.Name, Input: sample(t.Schema, 0)}}, "tool_use"
		}
		if strings.HasPrefix(t.Type, "web_search_") && len(q.Tools) == 1 {
			return search(q, seed), "end_turn"
		}
	}
	return []outBlock{{Type: "text", Text: echo(q)}}, "end_turn"
}

// search is the answer to a request with nothing but the API's own web search tool.
func search(q *request, seed []byte) []outBlock {
	text, _ := q.said()
	query, err := json.Marshal(map[string]string{"query": shorten(text, 100)})
	if err != nil {
		query = []byte(`{}`)
	}
	id := ident("srvtoolu_01", 22, seed, "search", 0)
	result := `{"type":"web_search_tool_result","tool_use_id":"` + id + `","content":[{"type":"web_search_result",` +
		`"title":"Simulated result","url":"https://example.com/","encrypted_content":"c2ltdWxhdGVk","page_age":null}]}`
	return []outBlock{
		{Type: "server_tool_use", ID: id, Name: "web_search", Input: query},
		{Type: "web_search_tool_result", Raw: jsontext.Value(result)},
		{Type: "text", Text: "Simulated search result: https://example.com/"},
	}
}

// fill makes a text long enough for n deltas of at least one word each.
func fill(text string, n int) string {
	const words = "carpool simulates a long and pleasant answer — "
	var b strings.Builder
	_, _ = b.WriteString(text)
	for b.Len() < n*8 {
		_, _ = b.WriteString(words)
	}
	return b.String()
}

// limit applies stop_sequences and max_tokens to an answer's text and returns the tokens generated.
func (a *answer) limit(q *request) int64 {
	left, out := q.MaxTokens, int64(0)
	for i := range a.Blocks {
		b := &a.Blocks[i]
		if b.Type == "text" {
			for _, stop := range q.StopSequences {
				if at := strings.Index(b.Text, stop); stop != "" && at >= 0 {
					b.Text, a.Stop, a.StopSequence = b.Text[:at], "stop_sequence", &stop
				}
			}
			if left > 0 && tokens(len(b.Text)) > left && a.Stop != "tool_use" {
				b.Text, a.Stop, a.StopSequence = cutText(b.Text, int(left)*4), "max_tokens", nil
			}
		}
		n := tokens(b.bytes())
		out, left = out+n, left-n
	}
	return max(1, out)
}

// account fills in both usage objects: counted numbers, then what the step dictates.
func (a *answer) account(p promptUsage, out int64, st step) {
	u := usage{
		{"input_tokens", number(p.input)},
		{"cache_creation_input_tokens", number(p.write5m + p.write1h)},
		{"cache_read_input_tokens", number(p.read)},
		{"cache_creation", nil},
		{"output_tokens", number(out)},
		{"service_tier", jsontext.Value(`"standard"`)},
		{"inference_geo", jsontext.Value(`"global"`)},
	}
	var thought, searches int64
	for _, b := range a.Blocks {
		switch b.Type {
		case "thinking":
			thought += tokens(b.bytes())
		case "server_tool_use":
			searches++
		}
	}
	if thought > 0 {
		u = u.with("output_tokens_details", jsontext.Value(`{"thinking_tokens":`+string(number(thought))+`}`))
	}
	if searches > 0 {
		u = u.with("server_tool_use", jsontext.Value(`{"web_search_requests":`+string(number(searches))+`,"web_fetch_requests":0}`))
	}
	u = u.overlaid(st.Usage)
	if _, dictated := st.Usage["cache_creation"]; !dictated {
		long := p.write1h
		if _, ok := st.Usage["cache_creation_input_tokens"]; ok {
			long = 0
		}
		short := u.number("cache_creation_input_tokens") - long
		u = u.with("cache_creation", jsontext.Value(`{"ephemeral_5m_input_tokens":`+string(number(short))+
			`,"ephemeral_1h_input_tokens":`+string(number(long))+`}`))
	}
	a.Final = u
	a.Start = append(usage(nil), u...).without("output_tokens_details", "server_tool_use", "iterations")
	a.Start = a.Start.with("output_tokens", number(min(4, u.number("output_tokens"))))
	a.Start = a.Start.overlaid(st.StartUsage)
}

package sim

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	deltaBytes = 24 // of text in one delta, about
	toolParts  = 4  // deltas of a tool's input, at least
)

// object is a JSON object with its members in order; the API's own order matters to nobody, but stable bytes do.
type object []member

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) { return usage(o).MarshalJSON() }

// value returns v as JSON. Objects and strings, the stuff of events, take a short way.
func value(v any) jsontext.Value {
	var raw jsontext.Value
	var err error
	switch v := v.(type) {
	case jsontext.Value:
		return v
	case object:
		raw, err = v.MarshalJSON()
	case string:
		raw, err = jsontext.AppendQuote(nil, v)
	case int:
		return number(int64(v))
	default:
		raw, err = json.Marshal(v)
	}
	if err != nil {
		return jsontext.Value("null")
	}
	return raw
}

func pairs(list ...any) object {
	o := make(object, 0, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		o = append(o, member{name, value(list[i+1])})
	}
	return o
}

// message returns the answer as one Messages object; content is empty and stop_reason null while a stream has just begun.
func (a *answer) message(whole bool) object {
	content, stop, sequence, u := []object{}, (*string)(nil), (*string)(nil), a.Start
	if whole {
		for _, b := range a.Blocks {
			content = append(content, b.object(a.HideThinking))
		}
		stop, sequence, u = &a.Stop, a.StopSequence, a.Final
	}
	o := pairs("model", a.Model, "id", a.ID, "type", "message", "role", "assistant", "content", content,
		"stop_reason", stop, "stop_sequence", sequence)
	if whole && a.Stop == "refusal" {
		o = append(o, member{"stop_details", refusal()})
	}
	o = append(o, member{"usage", value(u)})
	if whole && a.EditsContext {
		o = append(o, member{"context_management", jsontext.Value(`{"applied_edits":[]}`)})
	}
	return o
}

func refusal() jsontext.Value {
	return jsontext.Value(`{"type":"refusal","category":null,"explanation":null}`)
}

// object returns a complete content block.
func (b outBlock) object(hideThinking bool) object {
	switch b.Type {
	case "text":
		return pairs("type", "text", "text", b.Text)
	case "thinking":
		if hideThinking {
			b.Text = ""
		}
		return pairs("type", "thinking", "thinking", b.Text, "signature", b.Signature)
	case "tool_use", "server_tool_use":
		return pairs("type", b.Type, "id", b.ID, "name", b.Name, "input", b.Input)
	}
	var o fields
	if json.Unmarshal(b.Raw, &o) != nil {
		return pairs("type", b.Type)
	}
	out := pairs("type", b.Type)
	return object(usage(out).overlaid(o))
}

// begun returns a block as content_block_start shows it: without what deltas bring.
func (b outBlock) begun() object {
	switch b.Type {
	case "text":
		return pairs("type", "text", "text", "")
	case "thinking":
		return pairs("type", "thinking", "thinking", "", "signature", "")
	case "tool_use", "server_tool_use":
		return pairs("type", b.Type, "id", b.ID, "name", b.Name, "input", jsontext.Value("{}"))
	}
	return b.object(false)
}

// stream sends the answer event by event until send fails.
func (a *answer) stream(send func(event string, data []byte) error) error {
	emit := func(event string, o object) error {
		return send(event, value(append(pairs("type", event), o...)))
	}
	if err := emit("message_start", pairs("message", a.message(false))); err != nil {
		return err
	}
	for i, b := range a.Blocks {
		if err := emit("content_block_start", pairs("index", i, "content_block", b.begun())); err != nil {
			return err
		}
		if i == 0 {
			if err := emit("ping", nil); err != nil {
				return err
			}
		}
		err := b.deltas(a, func(delta object) error {
			return emit("content_block_delta", pairs("index", i, "delta", delta))
		})
		if err != nil {
			return err
		}
		if err := emit("content_block_stop", pairs("index", i)); err != nil {
			return err
		}
	}
	delta := pairs("stop_reason", a.Stop, "stop_sequence", a.StopSequence)
	if a.Stop == "refusal" {
		delta = append(delta, member{"stop_details", refusal()})
	}
	last := pairs("delta", delta, "usage", a.Final.without("cache_creation", "service_tier", "inference_geo", "speed"))
	if a.EditsContext {
		last = append(last, member{"context_management", jsontext.Value(`{"applied_edits":[]}`)})
	}
	if err := emit("message_delta", last); err != nil {
		return err
	}
	return emit("message_stop", nil)
}

// deltas sends a block's content in pieces.
func (b outBlock) deltas(a *answer, send func(object) error) error {
	switch b.Type {
	case "text":
		n := a.Events
		if n == 0 {
			n = (len(b.Text) + deltaBytes - 1) / deltaBytes
		}
		return pieces(b.Text, n, func(part string) error {
			return send(pairs("type", "text_delta", "text", part))
		})
	case "thinking":
		if !a.HideThinking {
			err := pieces(b.Text, (len(b.Text)+deltaBytes-1)/deltaBytes, func(part string) error {
				return send(pairs("type", "thinking_delta", "thinking", part))
			})
			if err != nil {
				return err
			}
		}
		return send(pairs("type", "signature_delta", "signature", b.Signature))
	case "tool_use", "server_tool_use":
		if err := send(pairs("type", "input_json_delta", "partial_json", "")); err != nil {
			return err
		}
		n := max(toolParts, len(b.Input)/(4*deltaBytes))
		return pieces(string(b.Input), n, func(part string) error {
			return send(pairs("type", "input_json_delta", "partial_json", part))
		})
	}
	return nil
}

// pieces cuts a text into n parts between characters, fewer when it is too short.
func pieces(text string, n int, send func(string) error) error {
	for n > 0 && text != "" {
		size := max(1, len(text)/n)
		part := cutText(text, size)
		for part == "" {
			size++
			part = cutText(text, size)
		}
		if err := send(part); err != nil {
			return err
		}
		text = text[len(part):]
		n--
		if n == 0 && text != "" {
			return send(text)
		}
	}
	return nil
}

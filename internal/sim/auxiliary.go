package sim

import (
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// auxiliary returns the short answer to a request that a client makes beside the conversation and that often quotes the user's
// prompt: such a request must not run the prompt's script. ok is false for an ordinary request.
func auxiliary(q *request) (text string, ok bool) {
	if q.Schema != nil {
		return string(sample(q.Schema, 0)), true
	}
	switch {
	case q.asks("isNewTopic"):
		return `{"isNewTopic": false, "title": null}`, true
	case q.asks("Extract any file paths"):
		return "<is_displaying_contents>\nfalse\n</is_displaying_contents>\n\n<filepaths>\n</filepaths>", true
	case q.asks("command_injection_detected"):
		return "none", true
	case q.asks("under 50 characters"), len(q.Tools) == 0 && q.asks("concise title"):
		return "Simulated conversation", true
	case q.asks("Your task is to create a detailed summary of"):
		return "<analysis>\nThe conversation was simulated.\n</analysis>\n\n<summary>\nThe user talked with Carpool's " +
			"simulated Claude. There is nothing left to do.\n</summary>", true
	}
	return "", false
}

// asks reports whether the instructions of the request, its system text or its last user message, contain a phrase.
func (q *request) asks(phrase string) bool {
	for _, b := range q.System {
		if strings.Contains(b.Text, phrase) {
			return true
		}
	}
	last := q.lastUser()
	for _, b := range last.Blocks {
		if b.Type == "text" && strings.Contains(b.Text, phrase) {
			return true
		}
	}
	return false
}

func (q *request) lastUser() message {
	for _, v := range slices.Backward(q.Messages) {
		if v.Role == "user" {
			return v
		}
	}
	return message{}
}

// echo is the answer to a prompt without a directive.
func echo(q *request) string {
	text, results := q.said()
	switch {
	case text == "" && results == "":
		return "This is Carpool's simulated Claude. There was no text in your message."
	case text == "":
		return "This is Carpool's simulated Claude. The tool answered: " + shorten(results, 400)
	}
	return "This is Carpool's simulated Claude, answering as " + q.Model + ". You said: " + shorten(text, 400)
}

// shorten cuts a text to about n bytes at a character and disarms directives in it.
func shorten(text string, n int) string {
	text = strings.ReplaceAll(text, marker, "[ [sim")
	if len(text) <= n {
		return text
	}
	return cutText(text, n) + "…"
}

// cutText returns the longest prefix of at most n bytes that ends between two characters.
func cutText(text string, n int) string {
	if n >= len(text) {
		return text
	}
	for n > 0 && text[n]&0xC0 == 0x80 {
		n--
	}
	return text[:n]
}

type schema struct {
	Type       jsontext.Value   `json:"type"`
	Const      jsontext.Value   `json:"const"`
	Enum       []jsontext.Value `json:"enum"`
	AnyOf      []jsontext.Value `json:"anyOf"`
	Properties fields           `json:"properties"`
	Required   []string         `json:"required"`
	Items      jsontext.Value   `json:"items"`
	MinItems   int              `json:"minItems"`
	Minimum    float64          `json:"minimum"`
}

// sample returns the smallest value that satisfies a JSON schema's common keywords.
func sample(raw jsontext.Value, depth int) jsontext.Value {
	var sc schema
	if depth > 32 || json.Unmarshal(raw, &sc, lastWins()) != nil {
		return jsontext.Value("null")
	}
	switch {
	case sc.Const != nil:
		return sc.Const
	case len(sc.Enum) > 0:
		return sc.Enum[0]
	case len(sc.AnyOf) > 0:
		return sample(sc.AnyOf[0], depth+1)
	}
	kind := ""
	if sc.Type.Kind() == '[' {
		var kinds []string
		if json.Unmarshal(sc.Type, &kinds) == nil && len(kinds) > 0 {
			kind = kinds[0]
		}
	} else if sc.Type.Kind() == '"' {
		_ = json.Unmarshal(sc.Type, &kind)
	}
	return sc.value(kind, depth)
}

func (sc schema) value(kind string, depth int) jsontext.Value {
	switch kind {
	case "string":
		return jsontext.Value(`"Simulated"`)
	case "boolean":
		return jsontext.Value("false")
	case "integer", "number":
		return jsontext.Value(strconv.FormatFloat(sc.Minimum, 'f', -1, 64))
	case "array":
		out := []byte{'['}
		for i := range min(sc.MinItems, 100) {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, sample(sc.Items, depth+1)...)
		}
		return append(out, ']')
	case "null":
		return jsontext.Value("null")
	}
	out := []byte{'{'}
	for i, name := range sc.Required {
		if i > 0 {
			out = append(out, ',')
		}
		quoted, err := jsontext.AppendQuote(nil, name)
		if err != nil {
			return jsontext.Value("{}")
		}
		out = append(append(out, quoted...), ':')
		part, ok := sc.Properties[name]
		if !ok {
			part = jsontext.Value(`{"type":"string"}`)
		}
		out = append(out, sample(part, depth+1)...)
	}
	return append(out, '}')
}

package sim

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// request is what the simulator understands of a Messages request. Everything else in the body is accepted and ignored.
type request struct {
	Model         string
	MaxTokens     int64
	Stream        bool
	System        []block
	Messages      []message
	Tools         []tool
	StopSequences []string
	ToolChoice    toolChoice
	Schema        jsontext.Value // of output_config.format, when JSON was asked for
	HideThinking  bool           // thinking.display is "omitted"
	EditsContext  bool           // context_management is present
	CacheAll      *cacheControl  // top-level cache_control: a breakpoint on the last block
}

type message struct {
	Role   string
	Blocks []block
}

// block is one content block with the parts that matter here; Raw is its JSON, empty for the string form of a text.
type block struct {
	Type      string
	Text      string
	ID        string
	ToolUseID string
	Result    jsontext.Value
	Cache     *cacheControl
	Raw       jsontext.Value
}

type cacheControl struct {
	Type string `json:"type"`
	TTL  string `json:"ttl"`
}

type tool struct {
	Name   string         `json:"name"`
	Type   string         `json:"type"`
	Schema jsontext.Value `json:"input_schema"`
	Cache  *cacheControl  `json:"cache_control"`
	raw    jsontext.Value
}

type toolChoice struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// fields is a JSON object by exact member name; of duplicates the last one counts, as in the API's parser.
type fields map[string]jsontext.Value

func lastWins() json.Options {
	return json.JoinOptions(jsontext.AllowDuplicateNames(true))
}

// parseFields reads a whole body as one JSON object.
func parseFields(body []byte) (fields, *apiError) {
	var v jsontext.Value
	if err := json.Unmarshal(body, &v, lastWins()); err != nil {
		why := err.Error()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || len(body) == 0 {
			why = "unexpected end of data"
		}
		return nil, invalid("The request body is not valid JSON: " + why)
	}
	if v.Kind() != '{' {
		return nil, invalid("Input should be a valid dictionary or object to extract fields from")
	}
	var f fields
	if err := json.Unmarshal(v, &f, lastWins()); err != nil {
		return nil, invalid("The request body is not valid JSON: " + err.Error())
	}
	return f, nil
}

// name returns the string in a member, or "" when it is not one.
func (f fields) name(member string) string {
	var s string
	if v := f[member]; v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

func (f fields) has(member string) bool {
	v, ok := f[member]
	return ok && v.Kind() != 'n'
}

// parseRequest checks a body's members as the API does. counting leaves out what count_tokens does not require.
func parseRequest(f fields, counting bool) (*request, *apiError) {
	q := &request{}
	required := []string{"model", "max_tokens", "messages"}
	if counting {
		required = []string{"model", "messages"}
	}
	for _, member := range required {
		if _, ok := f[member]; !ok {
			return nil, invalid(member + ": Field required")
		}
	}
	if f["model"].Kind() != '"' {
		return nil, invalid("model: Input should be a valid string")
	}
	q.Model = f.name("model")
	if q.Model == "" {
		return nil, invalid("model: String should have at least 1 character")
	}
	steps := []func(fields, *request) *apiError{parseScalars, parseSystem, parseMessages, parseTools, parseExtras}
	for _, step := range steps {
		if err := step(f, q); err != nil {
			return nil, err
		}
	}
	if err := parseThinking(f, q); err != nil {
		return nil, err
	}
	return q, nil
}

func parseScalars(f fields, q *request) *apiError {
	if f.has("max_tokens") || f["max_tokens"] != nil {
		if err := json.Unmarshal(f["max_tokens"], &q.MaxTokens); err != nil || f["max_tokens"].Kind() != '0' {
			return invalid("max_tokens: Input should be a valid integer")
		}
		if q.MaxTokens < 1 {
			return invalid("max_tokens: Input should be greater than or equal to 1")
		}
	}
	if f.has("stream") && json.Unmarshal(f["stream"], &q.Stream) != nil {
		return invalid("stream: Input should be a valid boolean")
	}
	for _, name := range []string{"temperature", "top_p"} {
		var n float64
		if !f.has(name) {
			continue
		}
		if json.Unmarshal(f[name], &n) != nil {
			return invalid(name + ": Input should be a valid number")
		}
		if n < 0 {
			return invalid(name + ": Input should be greater than or equal to 0")
		}
		if n > 1 {
			return invalid(name + ": range: 0..1")
		}
	}
	if f.has("stop_sequences") && json.Unmarshal(f["stop_sequences"], &q.StopSequences) != nil {
		return invalid("stop_sequences: Input should be a valid list")
	}
	if f.has("metadata") && f["metadata"].Kind() != '{' {
		return invalid("metadata: Input should be a valid dictionary or object to extract fields from")
	}
	return nil
}

func parseSystem(f fields, q *request) *apiError {
	if !f.has("system") {
		return nil
	}
	var err *apiError
	q.System, err = parseBlocks(f["system"], "system")
	return err
}

func parseMessages(f fields, q *request) *apiError {
	v := f["messages"]
	if v.Kind() != '[' {
		return invalid("messages: Input should be a valid list")
	}
	var list []jsontext.Value
	if err := json.Unmarshal(v, &list, lastWins()); err != nil {
		return invalid("messages: Input should be a valid list")
	}
	if len(list) == 0 {
		return invalid("messages: at least one message is required")
	}
	for i, raw := range list {
		path := fmt.Sprintf("messages.%d", i)
		var m fields
		if raw.Kind() != '{' || json.Unmarshal(raw, &m, lastWins()) != nil {
			return invalid(path + ": Input should be a valid dictionary or object to extract fields from")
		}
		for _, member := range []string{"role", "content"} {
			if _, ok := m[member]; !ok {
				return invalid(path + "." + member + ": Field required")
			}
		}
		role := m.name("role")
		if role != "user" && role != "assistant" && role != "system" {
			return invalid(path + ".role: Input should be 'user' or 'assistant'")
		}
		blocks, err := parseBlocks(m["content"], path+".content")
		if err != nil {
			return err
		}
		if empty(blocks) && (role != "assistant" || i < len(list)-1) {
			return invalid(path + ": all messages must have non-empty content except for the optional final assistant message")
		}
		q.Messages = append(q.Messages, message{Role: role, Blocks: blocks})
	}
	return nil
}

func empty(blocks []block) bool {
	return len(blocks) == 0 || len(blocks) == 1 && blocks[0].Raw == nil && blocks[0].Text == ""
}

// parseBlocks reads content in either of its forms, a string or a list of blocks.
func parseBlocks(v jsontext.Value, path string) ([]block, *apiError) {
	switch v.Kind() {
	case '"':
		var text string
		if err := json.Unmarshal(v, &text); err != nil {
			return nil, invalid(path + ": Input should be a valid string")
		}
		return []block{{Type: "text", Text: text}}, nil
	case '[':
	default:
		return nil, invalid(path + ": Input should be a valid list")
	}
	var list []jsontext.Value
	if err := json.Unmarshal(v, &list, lastWins()); err != nil {
		return nil, invalid(path + ": Input should be a valid list")
	}
	blocks := make([]block, 0, len(list))
	for i, raw := range list {
		b, err := parseBlock(raw, fmt.Sprintf("%s.%d", path, i))
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func parseBlock(raw jsontext.Value, path string) (block, *apiError) {
	var m fields
	if raw.Kind() != '{' || json.Unmarshal(raw, &m, lastWins()) != nil {
		return block{}, invalid(path + ": Input should be a valid dictionary or object to extract fields from")
	}
	if _, ok := m["type"]; !ok {
		return block{}, invalid(path + ".type: Field required")
	}
	b := block{Type: m.name("type"), Raw: raw}
	if b.Type == "" {
		return block{}, invalid(path + ".type: Input should be a valid string")
	}
	if m.has("cache_control") {
		b.Cache = &cacheControl{}
		if json.Unmarshal(m["cache_control"], b.Cache, lastWins()) != nil || b.Cache.Type != "ephemeral" {
			return block{}, invalid(path + ".cache_control: Input tag does not match any of the expected tags: 'ephemeral'")
		}
	}
	member := map[string]string{"text": "text", "tool_use": "id", "tool_result": "tool_use_id", "thinking": "thinking"}[b.Type]
	if member != "" {
		if _, ok := m[member]; !ok {
			return block{}, invalid(path + "." + b.Type + "." + member + ": Field required")
		}
		if m[member].Kind() != '"' {
			return block{}, invalid(path + "." + b.Type + "." + member + ": Input should be a valid string")
		}
	}
	b.Text, b.ID, b.ToolUseID, b.Result = m.name("text"), m.name("id"), m.name("tool_use_id"), m["content"]
	if b.Type == "text" && b.Text == "" {
		return block{}, invalid(strings.SplitN(path, ".", 2)[0] + ": text content blocks must be non-empty")
	}
	return b, nil
}

func parseTools(f fields, q *request) *apiError {
	if !f.has("tools") {
		return nil
	}
	var list []jsontext.Value
	if f["tools"].Kind() != '[' || json.Unmarshal(f["tools"], &list, lastWins()) != nil {
		return invalid("tools: Input should be a valid list")
	}
	for i, raw := range list {
		t := tool{raw: raw}
		if raw.Kind() != '{' || json.Unmarshal(raw, &t, lastWins()) != nil {
			return invalid(fmt.Sprintf("tools.%d: Input should be a valid dictionary or object to extract fields from", i))
		}
		if t.Name == "" && (t.Type == "" || t.Type == "custom") {
			return invalid(fmt.Sprintf("tools.%d.custom.name: Field required", i))
		}
		q.Tools = append(q.Tools, t)
	}
	return nil
}

// parseExtras reads optional members that shape the answer; members of an unexpected form are ignored.
func parseExtras(f fields, q *request) *apiError {
	if f.has("tool_choice") && json.Unmarshal(f["tool_choice"], &q.ToolChoice, lastWins()) != nil {
		return invalid("tool_choice: Input should be a valid dictionary or object to extract fields from")
	}
	if f.has("cache_control") {
		q.CacheAll = &cacheControl{}
		if json.Unmarshal(f["cache_control"], q.CacheAll, lastWins()) != nil {
			return invalid("cache_control: Input should be a valid dictionary or object to extract fields from")
		}
	}
	q.EditsContext = f.has("context_management")
	var output, format fields
	if json.Unmarshal(f["output_config"], &output, lastWins()) == nil && output["format"].Kind() == '{' {
		f = output
		f["output_format"] = output["format"]
	}
	if json.Unmarshal(f["output_format"], &format, lastWins()) == nil && format.name("type") == "json_schema" {
		q.Schema = format["schema"]
	}
	return nil
}

func parseThinking(f fields, q *request) *apiError {
	if !f.has("thinking") {
		return nil
	}
	var m fields
	if f["thinking"].Kind() != '{' || json.Unmarshal(f["thinking"], &m, lastWins()) != nil {
		return invalid("thinking: Input should be a valid dictionary or object to extract fields from")
	}
	q.HideThinking = m.name("display") == "omitted"
	switch kind := m.name("type"); kind {
	case "adaptive", "disabled":
		return nil
	case "enabled":
	case "":
		return invalid("thinking.type: Field required")
	default:
		return invalid("thinking: Input tag '" + kind +
			"' found using 'type' does not match any of the expected tags: 'adaptive', 'disabled', 'enabled'")
	}
	var budget int64
	if _, ok := m["budget_tokens"]; !ok {
		return invalid("thinking.enabled.budget_tokens: Field required")
	}
	if json.Unmarshal(m["budget_tokens"], &budget) != nil {
		return invalid("thinking.enabled.budget_tokens: Input should be a valid integer")
	}
	if budget < 1024 {
		return invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
	}
	if q.MaxTokens != 0 && budget >= q.MaxTokens {
		return invalid("`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at " +
			"https://docs.claude.com/en/docs/build-with-claude/extended-thinking#max-tokens-and-context-window-size")
	}
	return nil
}

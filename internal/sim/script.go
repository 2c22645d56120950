package sim

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	marker      = "[[sim"
	maxSteps    = 1000
	maxParallel = 64
	maxEvents   = 100_000
)

// step is one assistant message of a script. [Usage] explains every field.
type step struct {
	Text       string         `json:"text"`
	Think      string         `json:"think"`
	Tool       string         `json:"tool"`
	Input      jsontext.Value `json:"input"`
	Tools      []call         `json:"tools"`
	Agents     []string       `json:"agents"`
	Repeat     int            `json:"repeat"`
	Stop       string         `json:"stop"`
	Usage      fields         `json:"usage"`
	StartUsage fields         `json:"start_usage"`
	Events     int            `json:"events"`
	Fault      `json:",inline"`
}

// call is one tool call of a step.
type call struct {
	Tool  string         `json:"tool"`
	Input jsontext.Value `json:"input"`
}

// script is a directive found in a conversation, with the step that is due.
type script struct {
	Steps []step
	Due   int
	Done  bool     // all steps have been taken; the last one's text is repeated
	Key   [32]byte // identifies the prompt and the step, to count its requests
	Err   error    // the directive cannot be read; nothing else is set then
}

// step returns the step that is due; after the end the last one, without its tools.
func (c *script) step() step {
	st := c.Steps[c.Due]
	if c.Done {
		st.Tool, st.Tools, st.Agents = "", nil, nil
	}
	return st
}

// findScript returns the script of the last user message that holds a directive, or nil.
func findScript(messages []message) *script {
	for i, m := range slices.Backward(messages) {
		if m.Role != "user" {
			continue
		}
		for _, b := range slices.Backward(m.Blocks) {
			if b.Type != "text" || strings.HasPrefix(b.Text, "<system-reminder>") {
				continue
			}
			steps, found, err := parseDirective(b.Text)
			if !found {
				continue
			}
			if err != nil {
				return &script{Err: err}
			}
			c := &script{Steps: steps}
			c.Due, c.Done = due(steps, messages[i+1:])
			c.Key = sha256.Sum256([]byte(fmt.Sprintf("%d\x00%s", c.Due, b.Text)))
			return c
		}
	}
	return nil
}

// parseDirective reads the last directive of a text that is not inside another one. found is false when there is none.
func parseDirective(text string) (steps []step, found bool, err error) {
	for {
		i := strings.Index(text, marker)
		if i < 0 {
			return steps, found, err
		}
		text = text[i+len(marker):]
		body := strings.TrimLeft(text, " \t\r\n")
		if body == "" || len(body) == len(text) && body[0] != '[' && body[0] != '{' && body[0] != '"' {
			continue
		}
		found = true
		dec := jsontext.NewDecoder(strings.NewReader(body))
		value, readErr := dec.ReadValue()
		if readErr != nil {
			steps, err = nil, fmt.Errorf("no JSON value follows %s: %w", marker, readErr)
			continue
		}
		steps, err = parseSteps(value.Clone())
		text = body[dec.InputOffset():]
		if !strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "]]") && err == nil {
			steps, err = nil, errors.New("the directive does not end with ]]")
		}
	}
}

func parseSteps(v jsontext.Value) ([]step, error) {
	list := []jsontext.Value{v}
	if v.Kind() == '[' {
		if err := json.Unmarshal(v, &list); err != nil {
			return nil, fmt.Errorf("cannot read the steps: %w", err)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("the directive has no steps")
	}
	var steps []step
	for i, raw := range list {
		st, err := parseStep(raw)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
		if i < len(list)-1 && len(st.Tools)+len(st.Agents) == 0 {
			return nil, fmt.Errorf("step %d: only the last step may be without tools", i+1)
		}
		for range max(1, st.Repeat) {
			steps = append(steps, st)
		}
		if len(steps) > maxSteps {
			return nil, fmt.Errorf("more than %d steps", maxSteps)
		}
	}
	return steps, nil
}

func parseStep(raw jsontext.Value) (step, error) {
	var st step
	if raw.Kind() == '"' {
		err := json.Unmarshal(raw, &st.Text)
		return st, err
	}
	if err := json.Unmarshal(raw, &st, json.RejectUnknownMembers(true)); err != nil {
		return st, fmt.Errorf("cannot read it: %w", err)
	}
	if st.Tool != "" {
		st.Tools = append([]call{{Tool: st.Tool, Input: st.Input}}, st.Tools...)
	}
	if len(st.Tools)+len(st.Agents) > maxParallel {
		return st, fmt.Errorf("more than %d tools", maxParallel)
	}
	for i, c := range st.Tools {
		if c.Tool == "" {
			return st, errors.New("a tool without a name")
		}
		if c.Input == nil {
			st.Tools[i].Input = jsontext.Value("{}")
		} else if c.Input.Kind() != '{' {
			return st, fmt.Errorf("the input of %s is not an object", c.Tool)
		}
	}
	if st.Repeat < 0 || st.Repeat > maxSteps || st.Events < 0 || st.Events > maxEvents {
		return st, errors.New("repeat or events is out of range")
	}
	return st, st.Validate()
}

// due returns the step that the messages after the directive have come to. The simulator's own tool_use ids name their step;
// of foreign ids each distinct one counts as one call. Some clients repeat a turn with the same ids, which changes nothing.
func due(steps []step, after []message) (index int, done bool) {
	next, foreign := 0, map[string]bool{}
	for _, m := range after {
		if m.Role != "assistant" {
			continue
		}
		for _, b := range m.Blocks {
			if b.Type != "tool_use" {
				continue
			}
			if n, ok := toolStep(b.ID); ok {
				next = max(next, n+1)
				continue
			}
			foreign[b.ID] = true
		}
	}
	calls := len(foreign)
	for calls > 0 && next < len(steps) {
		calls -= len(steps[next].Tools) + len(steps[next].Agents)
		next++
	}
	if next >= len(steps) {
		return len(steps) - 1, true
	}
	return next, false
}

// agentTool returns the sub-agent tool that the client offers.
func (q *request) agentTool() (string, bool) {
	for _, name := range []string{"Agent", "Task"} {
		if q.offers(name) {
			return name, true
		}
	}
	return "", false
}

func (q *request) offers(name string) bool {
	for _, t := range q.Tools {
		if t.Name == name {
			return true
		}
	}
	return false
}

// calls returns the tool calls of a step with sub-agents resolved, and the name of a tool that the client does not offer.
func (st step) calls(q *request) (calls []call, missing string) {
	calls = append(calls, st.Tools...)
	if len(st.Agents) > 0 {
		name, offered := q.agentTool()
		if !offered {
			return nil, "Agent"
		}
		for i, prompt := range st.Agents {
			input, err := json.Marshal(struct {
				Description  string `json:"description"`
				Prompt       string `json:"prompt"`
				SubagentType string `json:"subagent_type"`
			}{fmt.Sprintf("Sub-agent %d", i+1), prompt, "general-purpose"})
			if err != nil {
				return nil, name
			}
			calls = append(calls, call{Tool: name, Input: bytes.TrimSpace(input)})
		}
	}
	for _, c := range calls {
		if !q.offers(c.Tool) {
			return nil, c.Tool
		}
	}
	return calls, ""
}

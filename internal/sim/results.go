package sim

import (
	"slices"
	"strings"
)

// said returns the last text of the user, without what the client added to it, and the text of tool results beside it.
func (q *request) said() (text, results string) {
	for _, b := range q.lastUser().Blocks {
		if b.Type == "text" && !strings.HasPrefix(b.Text, "<system-reminder>") {
			text = strings.TrimSpace(b.Text)
		}
	}
	return text, q.resultsOf(q.lastUser())
}

// lastResults returns the text of the tool results in the latest user message that has any.
func (q *request) lastResults() string {
	for _, v := range slices.Backward(q.Messages) {
		for _, b := range v.Blocks {
			if b.Type == "tool_result" {
				return q.resultsOf(v)
			}
		}
	}
	return ""
}

// resultsOf returns the text of a message's tool results, one after the other. A sub-agent that runs in the background has an
// empty receipt as its tool result; its real one comes in a later notification, which is looked up.
func (q *request) resultsOf(m message) string {
	var parts []string
	for _, b := range m.Blocks {
		if b.Type != "tool_result" {
			continue
		}
		text := b.resultText()
		if strings.HasPrefix(text, "Async agent launched") {
			text = q.notified(b.ToolUseID)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "\n")
}

// notified returns what a background sub-agent has answered, by the id of the tool_use that started it.
func (q *request) notified(toolUseID string) string {
	result := "(still at work)"
	for _, m := range q.Messages {
		if m.Role != "user" {
			continue
		}
		for _, b := range m.Blocks {
			_, about, ok := strings.Cut(b.Text, "<tool-use-id>"+toolUseID+"</tool-use-id>")
			if !ok {
				continue
			}
			about, _, _ = strings.Cut(about, "</task-notification>")
			if _, after, ok := strings.Cut(about, "<result>"); ok {
				result, _, _ = strings.Cut(after, "</result>")
			}
		}
	}
	return result
}

// resultText returns the text of a tool_result's content in either of its forms, without the client's reminders to the model.
func (b block) resultText() string {
	blocks, err := parseBlocks(b.Result, "content")
	if err != nil {
		return ""
	}
	var text strings.Builder
	for _, b := range blocks {
		_, _ = text.WriteString(b.Text)
	}
	out := text.String()
	for {
		before, rest, ok := strings.Cut(out, "<system-reminder>")
		_, after, closed := strings.Cut(rest, "</system-reminder>")
		if !ok || !closed {
			return strings.TrimSpace(out)
		}
		out = before + after
	}
}

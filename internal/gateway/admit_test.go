package gateway

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"carpool/internal/anthropic"
)

// TestEstimateIsWithinTheBound: whatever a body is made of, a prompt that nobody has counted is charged with no more than a strict budget has
// reserved for it.
func TestEstimateIsWithinTheBound(t *testing.T) {
	data := func(n int) string { return strings.Repeat("QUJD", n/4) }
	var content func(t *rapid.T, deep int) string
	content = func(t *rapid.T, deep int) string {
		cache := rapid.SampledFrom([]string{"", "", `,"cache_control":{"type":"ephemeral"}`}).Draw(t, "cache")
		size := rapid.SampledFrom([]int{508, 516, 9000, 100_000}).Draw(t, "size")
		source := `"source":{"type":"base64","data":"` + data(size) + `"}`
		block := rapid.SampledFrom([]string{
			`"type":"text","text":"hello"`,
			`"type":"image",` + source,
			`"type":"image",` + source,
			`"type":"image","source":{"type":"url","url":"https://a"}`,
			`"type":"document",` + source,
			`"type":"document","source":{"type":"text","data":"` + data(size) + `"}`,
			`"type":"tool_use","id":"a","name":"b","input":{"data":"` + data(size) + `"}`,
			`"type":"redacted_thinking","data":"` + data(size) + `"`,
			`"type":"thing","type":"image","type":"document","source":{"data":"` + data(size) + `"},"data":"` + data(size) + `"`,
			`"type":"tool_result","content":`,
		}).Draw(t, "block")
		if strings.HasSuffix(block, ":") {
			if deep == 0 {
				block += "[]"
			} else {
				block += content(t, deep-1)
			}
		}
		block = "{" + block + cache + "}"
		if rapid.Bool().Draw(t, "more") {
			return "[" + block + "," + block + "]"
		}
		return "[" + block + "]"
	}
	rapid.Check(t, func(t *rapid.T) {
		body := `{"model":"m","max_tokens":1`
		if rapid.Bool().Draw(t, "automatic") {
			body += `,"cache_control":{"type":"ephemeral"}`
		}
		if rapid.Bool().Draw(t, "tools") {
			body += `,"tools":[{"name":"a","data":"` + data(600) + `"}]`
		}
		body += `,"messages":[{"role":"user","content":` + content(t, 2) + `}]}`
		peek, err := anthropic.Peek([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		uncached, cached := estimateInput(peek)
		if bound := peek.Measure([]byte(body)).Prompt; uncached < 0 || cached < 0 || uncached+cached > bound {
			t.Errorf("estimated at %d and %d cached, bound %d: %s", uncached, cached, bound, body[:min(len(body), 400)])
		}
	})
}

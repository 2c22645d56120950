package sim_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carpool/internal/sim"
)

func TestEcho(t *testing.T) {
	g := newRig(t, sim.Options{})
	m := g.message(prompt("hi there"))
	if got := m.text(); !strings.HasPrefix(got, "This is Carpool's simulated Claude") || !strings.HasSuffix(got, "You said: hi there") {
		t.Errorf("got %q", got)
	}
	if m.Model != "claude-sonnet-4-5-20250929" || m.StopReason != "end_turn" || !strings.HasPrefix(m.ID, "msg_01") {
		t.Errorf("got %+v", m)
	}
}

func TestStreamTellsTheSameMessage(t *testing.T) {
	g := newRig(t, sim.Options{})
	text := `[[sim {"think":"let me — think","text":"Ünïcode ✓ text, long enough for several deltas","usage":{"input_tokens":7},
		"tools":[{"tool":"Bash","input":{"command":"echo \"ä\"","list":[1,2.50,null]}},{"tool":"Task"}]}]]`
	whole := g.message(prompt(text, twoTools))
	got, list := g.streamed(prompt(text, twoTools, streaming))
	var begun struct {
		InputTokens  int `json:"input_tokens"`
		OutputTokens int `json:"output_tokens"`
	}
	if err := json.Unmarshal([]byte(list[0].usage), &begun); err != nil {
		t.Fatal(err)
	}
	if len(whole.Content) != 4 || len(got.Content) != 4 {
		t.Fatalf("%d and %d blocks", len(whole.Content), len(got.Content))
	}
	for i, c := range whole.Content {
		d := got.Content[i]
		if c.ID == d.ID && c.ID != "" {
			t.Errorf("two requests share the id %s", c.ID)
		}
		c.ID, d.ID = "", ""
		if a, b := asJSON(t, c), asJSON(t, d); a != b {
			t.Errorf("block %d: %s streamed as %s", i, a, b)
		}
	}
	if a, b := asJSON(t, whole.Usage), asJSON(t, got.Usage); a != b {
		t.Errorf("usage %s streamed as %s", a, b)
	}
	if got.StopReason != "tool_use" || whole.StopReason != "tool_use" {
		t.Errorf("stop reasons %s, %s", whole.StopReason, got.StopReason)
	}
	want := "message_start content_block_start ping content_block_delta content_block_stop content_block_start content_block_delta " +
		"content_block_stop content_block_start content_block_delta content_block_stop content_block_start content_block_delta " +
		"content_block_stop message_delta message_stop"
	if n := names(list); n != want {
		t.Errorf("events %s", n)
	}
	if begun.OutputTokens == 0 || float64(begun.OutputTokens) >= got.Usage["output_tokens"].(float64) || begun.InputTokens != 7 {
		t.Errorf("message_start has usage %+v", begun)
	}
	for _, e := range list {
		if e.name != "message_delta" {
			continue
		}
		for _, field := range []string{"cache_creation", "service_tier", "inference_geo"} {
			if _, ok := e.data["usage"].(map[string]any)[field]; ok {
				t.Errorf("message_delta has %s", field)
			}
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestChecks(t *testing.T) {
	g := newRig(t, sim.Options{})
	const user = `"messages":[{"role":"user","content":"x"}]`
	const head = `"model":"claude-opus-5-5","max_tokens":10,`
	cases := map[string]struct{ body, message string }{
		"empty":              {``, "The request body is not valid JSON: unexpected end of data"},
		"cut":                {`{"model":`, "The request body is not valid JSON"},
		"trailing":           {`{} {}`, "The request body is not valid JSON"},
		"utf8":               {"{\"model\":\"\xff\"}", "The request body is not valid JSON"},
		"array":              {`[]`, "Input should be a valid dictionary"},
		"no model":           {`{"max_tokens":1,` + user + `}`, "model: Field required"},
		"other case":         {`{"Model":"claude-opus-5-5","max_tokens":1,` + user + `}`, "model: Field required"},
		"model type":         {`{"model":5,"max_tokens":1,` + user + `}`, "model: Input should be a valid string"},
		"no max_tokens":      {`{"model":"claude-opus-5-5",` + user + `}`, "max_tokens: Field required"},
		"max_tokens zero":    {`{"model":"claude-opus-5-5","max_tokens":0,` + user + `}`, "max_tokens: Input should be greater than or equal to 1"},
		"max_tokens type":    {`{"model":"claude-opus-5-5","max_tokens":"9",` + user + `}`, "max_tokens: Input should be a valid integer"},
		"max_tokens null":    {`{"model":"claude-opus-5-5","max_tokens":null,` + user + `}`, "max_tokens: Input should be a valid integer"},
		"max_tokens much":    {`{"model":"claude-3-5-haiku-latest","max_tokens":9000,` + user + `}`, "max_tokens: 9000 > 8192, which is the maximum"},
		"no messages":        {`{` + head + `"x":1}`, "messages: Field required"},
		"messages type":      {`{` + head + `"messages":{}}`, "messages: Input should be a valid list"},
		"messages empty":     {`{` + head + `"messages":[]}`, "messages: at least one message is required"},
		"message type":       {`{` + head + `"messages":["x"]}`, "messages.0: Input should be a valid dictionary"},
		"no role":            {`{` + head + `"messages":[{"content":"x"}]}`, "messages.0.role: Field required"},
		"role":               {`{` + head + `"messages":[{"role":"tool","content":"x"}]}`, "messages.0.role: Input should be 'user' or 'assistant'"},
		"no content":         {`{` + head + `"messages":[{"role":"user"}]}`, "messages.0.content: Field required"},
		"content type":       {`{` + head + `"messages":[{"role":"user","content":5}]}`, "messages.0.content: Input should be a valid list"},
		"content empty":      {`{` + head + `"messages":[{"role":"user","content":""}]}`, "messages.0: all messages must have non-empty content"},
		"block type":         {`{` + head + `"messages":[{"role":"user","content":[{"text":"x"}]}]}`, "messages.0.content.0.type: Field required"},
		"no text":            {`{` + head + `"messages":[{"role":"user","content":[{"type":"text"}]}]}`, "messages.0.content.0.text.text: Field required"},
		"empty text":         {`{` + head + `"messages":[{"role":"user","content":[{"type":"text","text":""}]}]}`, "messages: text content blocks must be non-empty"},
		"stream type":        {`{` + head + `"stream":"yes",` + user + `}`, "stream: Input should be a valid boolean"},
		"temperature":        {`{` + head + `"temperature":1.5,` + user + `}`, "temperature: range: 0..1"},
		"tools type":         {`{` + head + `"tools":{},` + user + `}`, "tools: Input should be a valid list"},
		"thinking too large": {`{"model":"claude-opus-5-5","max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":2000},` + user + `}`, "`max_tokens` must be greater than `thinking.budget_tokens`"},
		"thinking too small": {`{"model":"claude-opus-5-5","max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":5},` + user + `}`, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"},
		"cache_control":      {`{` + head + `"system":[{"type":"text","text":"x","cache_control":{"type":"forever"}}],` + user + `}`, "system.0.cache_control"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			wantError(t, g.must(http.MethodPost, "/v1/messages", c.body), http.StatusBadRequest, "invalid_request_error", c.message)
		})
	}
}

func TestAcceptsWhatTheAPIAccepts(t *testing.T) {
	g := newRig(t, sim.Options{})
	for name, body := range map[string]string{
		"last duplicate wins": `{"model":"nope","model":"claude-opus-5-5","max_tokens":9,"messages":[],"messages":[{"role":"user","content":"x"}]}`,
		"system in messages":  `{"model":"claude-opus-5-5","max_tokens":9,"messages":[{"role":"user","content":"x"},{"role":"system","content":"y"}]}`,
		"unknown members": `{"model":"claude-opus-5-5","max_tokens":9,"novel":[{}],"safeguards":[1],"tools":[{"type":"new_20990101","name":"n"}],
			"messages":[{"role":"user","content":[{"type":"novelty","x":1},{"type":"text","text":"x","y":2}]}]}`,
		"repeated tool ids": `{"model":"claude-opus-5-5","max_tokens":9,"messages":[{"role":"user","content":"x"},
			{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]},
			{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			res := g.must(http.MethodPost, "/v1/messages?beta=true&novel=1", body, "anthropic-beta", "novelty-2099-01-01", "x-novel", "1")
			if res.status != http.StatusOK {
				t.Errorf("got %d %s", res.status, res.body)
			}
		})
	}
}

func TestCredentialsAndPaths(t *testing.T) {
	g := newRig(t, sim.Options{})
	ok := prompt("x")
	for name, c := range map[string]struct {
		method, path string
		header       []string
		status       int
		kind, text   string
	}{
		"none":         {"POST", "/v1/messages", []string{"x-api-key", ""}, 401, "authentication_error", "x-api-key header is required"},
		"wrong":        {"POST", "/v1/messages", []string{"x-api-key", "nope"}, 401, "authentication_error", "invalid x-api-key"},
		"wrong bearer": {"POST", "/v1/messages", []string{"x-api-key", "", "authorization", "Bearer nope"}, 401, "authentication_error", "invalid x-api-key"},
		"no version":   {"POST", "/v1/messages", []string{"anthropic-version", ""}, 400, "invalid_request_error", "anthropic-version: header is required"},
		"method":       {"GET", "/v1/messages", nil, 405, "invalid_request_error", "Method Not Allowed"},
		"path":         {"POST", "/v1/nothing", nil, 404, "not_found_error", "Not Found"},
		"doubled":      {"POST", "/v1/v1/messages", nil, 404, "not_found_error", "Not Found"},
		"model":        {"GET", "/v1/models/gpt", nil, 404, "not_found_error", "model: gpt"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, g.must(c.method, c.path, ok, c.header...), c.status, c.kind, c.text)
		})
	}
	wantError(t, g.must("POST", "/v1/messages", strings.Replace(ok, "sonnet-4-5", "sonnet-9", 1)), 404, "not_found_error", "model: claude-sonnet-9")
	for _, header := range [][]string{
		{"x-api-key", "", "authorization", "Bearer " + sim.DefaultKey},
		{"x-api-key", "stranger", "authorization", "Bearer " + sim.DefaultKey},
	} {
		if res := g.must("POST", "/v1/messages", ok, header...); res.status != 200 {
			t.Errorf("%v: %d %s", header, res.status, res.body)
		}
	}
	last := g.sim.Requests(0)
	if h := last[len(last)-1].Header; h["X-Api-Key"][0] != "unknown" || h["Authorization"][0] != "credential-1" {
		t.Errorf("credentials recorded as %v", h)
	}
	for _, path := range []string{"/", "/api/hello"} {
		if res := g.must("HEAD", path, "", "x-api-key", ""); res.status != 200 || len(res.body) != 0 {
			t.Errorf("HEAD %s: %d %q", path, res.status, res.body)
		}
	}
}

func TestTooLarge(t *testing.T) {
	g := newRig(t, sim.Options{})
	fits := prompt(strings.Repeat("x", sim.MaxBody-1000))
	fits += strings.Repeat(" ", sim.MaxBody-len(fits))
	if res := g.must("POST", "/v1/messages/count_tokens", fits); res.status != 200 {
		t.Errorf("%d %.200s", res.status, res.body)
	}
	// Without a socket: a client that is still sending may see the connection close before it sees the answer.
	for _, length := range []int64{int64(len(fits)) + 1, -1} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/messages", strings.NewReader(fits+" "))
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+sim.DefaultKey)
		r.Header.Set("Anthropic-Version", "2023-06-01")
		w := httptest.NewRecorder()
		g.sim.ServeHTTP(w, r)
		res := result{status: w.Code, header: w.Header(), body: w.Body.Bytes()}
		wantError(t, res, 413, "request_too_large", "Request exceeds the maximum size")
	}
}

func TestHeaders(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	g := newRig(t, sim.Options{
		Now:         func() time.Time { return now },
		Credentials: []sim.Credential{{Name: "a", Key: "key-a", Organization: "org-a", RequestsPerMinute: 2}, {Key: sim.DefaultKey}},
	})
	res := g.must("POST", "/v1/messages", prompt("x"), "x-api-key", "key-a")
	for name, want := range map[string]string{
		"Anthropic-Organization-Id":                  "org-a",
		"Anthropic-Ratelimit-Requests-Limit":         "2",
		"Anthropic-Ratelimit-Requests-Remaining":     "1",
		"Anthropic-Ratelimit-Requests-Reset":         "2026-11-23T12:01:00Z",
		"Anthropic-Ratelimit-Tokens-Limit":           "2400000",
		"Anthropic-Ratelimit-Input-Tokens-Limit":     "2000000",
		"Anthropic-Ratelimit-Output-Tokens-Limit":    "400000",
		"Anthropic-Ratelimit-Output-Tokens-Reset":    "2026-11-23T12:01:00Z",
		"Anthropic-Ratelimit-Tokens-Remaining":       "2400000",
		"Retry-After":                                "",
		"Anthropic-Ratelimit-Input-Tokens-Remaining": "2000000",
	} {
		if got := res.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if res := g.must("POST", "/v1/messages", prompt("x"), "x-api-key", "key-a"); res.status != 200 {
		t.Errorf("second request: %d", res.status)
	}
	now = now.Add(20 * time.Second)
	res = g.must("POST", "/v1/messages", prompt("x"), "x-api-key", "key-a")
	wantError(t, res, 429, "rate_limit_error", "This request would exceed your organization's rate limit of 2 requests per minute")
	if got := res.header.Get("Retry-After"); got != "40" {
		t.Errorf("retry-after %q", got)
	}
	if res := g.must("POST", "/v1/messages", prompt("x")); res.status != 200 {
		t.Errorf("the other credential: %d", res.status)
	}
	now = now.Add(40 * time.Second)
	if res := g.must("POST", "/v1/messages", prompt("x"), "x-api-key", "key-a"); res.status != 200 {
		t.Errorf("after a minute: %d", res.status)
	}
}

func TestModels(t *testing.T) {
	g := newRig(t, sim.Options{})
	type page struct {
		Data []struct {
			Type, ID    string
			DisplayName string `json:"display_name"`
			CreatedAt   string `json:"created_at"`
		}
		HasMore bool   `json:"has_more"`
		FirstID string `json:"first_id"`
		LastID  string `json:"last_id"`
	}
	get := func(query string) page {
		var p page
		if err := json.Unmarshal(g.must("GET", "/v1/models"+query, "").body, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	all := get("?limit=1000")
	if all.HasMore || len(all.Data) < 20 || all.FirstID != all.Data[0].ID || all.LastID != all.Data[len(all.Data)-1].ID {
		t.Fatalf("got %+v", all)
	}
	var seen []string
	for after := ""; ; {
		p := get("?limit=7&after_id=" + after)
		for _, m := range p.Data {
			seen = append(seen, m.ID)
			if _, err := time.Parse(time.RFC3339, m.CreatedAt); err != nil || m.Type != "model" || m.DisplayName == "" {
				t.Errorf("bad entry %+v", m)
			}
		}
		if !p.HasMore {
			break
		}
		after = p.LastID
	}
	if len(seen) != len(all.Data) {
		t.Errorf("paging found %d of %d", len(seen), len(all.Data))
	}
	back := get("?limit=2&before_id=" + seen[5])
	if !back.HasMore || back.FirstID != seen[3] || back.LastID != seen[4] {
		t.Errorf("before: %+v", back)
	}
	wantError(t, g.must("GET", "/v1/models?limit=0", ""), 400, "invalid_request_error", "limit:")
	for _, id := range seen {
		if res := g.must("GET", "/v1/models/"+id, ""); res.status != 200 || !strings.Contains(string(res.body), `"id":"`+id+`"`) {
			t.Errorf("%s: %s", id, res.body)
		}
	}
}

func TestCountTokens(t *testing.T) {
	g := newRig(t, sim.Options{})
	res := g.must("POST", "/v1/messages/count_tokens?beta=true", `{"model":"claude-opus-5-5","system":"12345678",
		"messages":[{"role":"user","content":"123456789"},{"role":"assistant","content":[{"type":"text","text":"1","cache_control":{"type":"ephemeral"}}]}]}`)
	if string(res.body) != `{"input_tokens":6}` {
		t.Errorf("got %s", res.body)
	}
	wantError(t, g.must("POST", "/v1/messages/count_tokens", `{"model":"claude-opus-5-5"}`), 400, "invalid_request_error", "messages: Field required")
}

func TestLimits(t *testing.T) {
	g := newRig(t, sim.Options{})
	m := g.message(strings.Replace(prompt("quota"), `"max_tokens":1000`, `"max_tokens":1`, 1))
	if m.StopReason != "max_tokens" || m.Usage["output_tokens"] != float64(1) || m.text() != "This" {
		t.Errorf("got %+v", m)
	}
	m = g.message(prompt(`[[sim "one two three"]]`, `"stop_sequences":["two"]`))
	if m.StopReason != "stop_sequence" || m.text() != "one " {
		t.Errorf("got %+v", m)
	}
	m = g.message(prompt("compute", twoTools, `"tool_choice":{"type":"tool","name":"Task"}`))
	if m.StopReason != "tool_use" || m.Content[0].Name != "Task" {
		t.Errorf("got %+v", m)
	}
}

// TestCacheFollowsTheMovingBreakpoint plays a tool loop as the CLI does: each turn takes the mark off the blocks of the turn before.
func TestCacheFollowsTheMovingBreakpoint(t *testing.T) {
	g := newRig(t, sim.Options{})
	const mark = `,"cache_control":{"type":"ephemeral"}`
	body := func(tool, result, last string) string {
		return `{"model":"claude-opus-5-5","max_tokens":9,"tools":[{"name":"Bash","input_schema":{}` + tool + `}],"messages":[
			{"role":"user","content":"go"},{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Bash","input":{"cache_control":1}}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"done"` + result + `}]}` + last + `]}`
	}
	first := g.message(body(mark, mark, "")).Usage
	second := g.message(body("", "", `,{"role":"user","content":[{ "type":"text" `+mark+`, "text":"12345678" }]}`)).Usage
	if first["cache_read_input_tokens"] != float64(0) || second["cache_creation_input_tokens"] != float64(2) ||
		second["cache_read_input_tokens"] != first["cache_creation_input_tokens"] || second["input_tokens"] != float64(0) {
		t.Errorf("first %v, second %v", first, second)
	}
}

func TestPromptCache(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	g := newRig(t, sim.Options{
		Now:         func() time.Time { return now },
		Credentials: []sim.Credential{{Key: sim.DefaultKey}, {Key: "other"}},
	})
	const long = `{"type":"ephemeral","ttl":"1h"}`
	const short = `{"type":"ephemeral"}`
	body := func(cacheFirst, cacheSecond string) string {
		block := func(text, cache string) string {
			if cache != "" {
				cache = `,"cache_control":` + cache
			}
			return `{"type":"text","text":"` + text + `"` + cache + `}`
		}
		return `{"model":"claude-opus-5-5","max_tokens":9,"system":[` + block("x-anthropic-billing-header: changes", "") + `,` +
			block(strings.Repeat("s", 400), long) + `],"messages":[{"role":"user","content":[` + block(strings.Repeat("a", 40), cacheFirst) + `]},` +
			`{"role":"user","content":[` + block(strings.Repeat("b", 20), cacheSecond) + `,` + block("tail", "") + `]}]}`
	}
	check := func(what, body, key string, input, read, write5m, write1h float64) {
		t.Helper()
		u := g.message(body, "x-api-key", key).Usage
		split, _ := u["cache_creation"].(map[string]any)
		if u["input_tokens"] != input || u["cache_read_input_tokens"] != read || u["cache_creation_input_tokens"] != write5m+write1h ||
			split["ephemeral_5m_input_tokens"] != write5m || split["ephemeral_1h_input_tokens"] != write1h {
			t.Errorf("%s: %v", what, u)
		}
	}
	check("first turn", body(short, ""), sim.DefaultKey, 6, 0, 10, 100)
	check("again", body(short, ""), sim.DefaultKey, 6, 110, 0, 0)
	check("breakpoint moved on", body("", short), sim.DefaultKey, 1, 110, 5, 0)
	check("other credential", body(short, ""), "other", 6, 0, 10, 100)
	now = now.Add(6 * time.Minute)
	check("short part expired", body("", short), sim.DefaultKey, 1, 100, 15, 0)
	now = now.Add(2 * time.Hour)
	check("all expired", body("", short), sim.DefaultKey, 1, 0, 15, 100)
	g.sim.Reset()
	check("reset", body("", short), sim.DefaultKey, 1, 0, 15, 100)
}

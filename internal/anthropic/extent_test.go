package anthropic

import (
	"strings"
	"testing"
)

// measured is what a body tells; all are of some model.
func measured(t *testing.T, body string) Extent {
	t.Helper()
	b := []byte(strings.Replace(body, "{", `{"model":"m",`, 1))
	r, err := Peek(b)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	got := r.Measure(b)
	got.Prompt -= int64(len(`"model":"m",`))
	return got
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	picture := strings.Repeat("QUJD", 10_000)
	const unknownMedia = "media in blocks that are not known"
	for _, c := range []struct {
		name, body string
		least      int64 // of the prompt, beside a token for each byte of text
		text       int   // bytes that are not media
		unbounded  string
	}{
		{"text", `{"max_tokens":5,"messages":[{"role":"user","content":"hello"}]}`, 1024, -1, ""},
		{"tools", `{"tools":[{"name":"a"},{"type":"custom","name":"b"},{"type":"bash_20250124","name":"bash"}],"messages":[]}`, 4096, -1, ""},
		{"image", `{"messages":[{"content":[{"type":"image","source":{"type":"base64","data":"` + picture + `"}}]}]}`, 1024 + 8000, 80, ""},
		{"image by address", `{"messages":[{"content":[{"type":"image","source":{"type":"url","url":"https://a/b"}}]}]}`, 1024 + 8000, -1, ""},
		{"image with escapes", `{"messages":[{"content":[{"typ\u0065":"im\u0061ge","source":{"data":"` + picture + `"}}]}]}`, 1024 + 8000, 80, ""},
		{"image and text", `{"messages":[{"content":[{"type":"image","source":{"type":"url"},"type":"text"}]}]}`, 1024 + 8000, -1, ""},
		{"image in the system prompt", `{"system":[{"type":"image","source":{"data":"` + picture + `"}}],"messages":[]}`, 1024 + 8000, 80, ""},
		{"text and PDF", `{"messages":[{"content":[{"type":"document","source":{"type":"base64","data":"` + picture + `","type":"text"}}]}]}`, 1024 + 1_000_000, 120, ""},
		{"a picture that is no image", `{"messages":[{"content":[{"type":"text","source":{"data":"` + picture + `"}}]}]}`, 1024, -1, ""},
		{"image in a result", `{"messages":[{"content":[{"type":"tool_result","content":[{"type":"image","source":{"data":"` + picture + `"}}]}]}]}`, 1024 + 8000, 80, ""},
		{"PDF", `{"messages":[{"content":[{"type":"document","source":{"type":"base64","data":"` + picture + `"}},{"type":"document","source":{"type":"file","file_id":"x"}}]}]}`, 1024 + 1_000_000, 120, ""},
		{"text document", `{"messages":[{"content":[{"type":"document","source":{"type":"text","data":"` + picture + `"}}]}]}`, 1024, -1, ""},
		{"document of blocks", `{"messages":[{"content":[{"type":"document","source":{"type":"content","content":[{"type":"image","source":{}}]}}]}]}`, 1024 + 8000, -1, ""},
		{"data of a tool", `{"messages":[{"content":[{"type":"tool_use","input":{"type":"image","source":{"data":"` + picture + `"}}}]}]}`, 1024, -1, ""},
		{"JSON in calls", `{"messages":[{"content":[{"type":"tool_use","input":{"a":[{"type":"document"},{"t\u0079pe":"x\u0079z"}]}},{"type":"mcp_tool_use","input":{"type":"tool_reference"}},{"type":"image"}]}]}`, 1024 + 8000, -1, ""},
		{"a fetched PDF", `{"messages":[{"content":[{"type":"web_fetch_tool_result","content":{"type":"web_fetch_result","content":{"type":"document","source":{"type":"base64","data":"` + picture + `"}}}}]}]}`, 1024, -1, unknownMedia},
		{"a fetched PDF beside an image", `{"messages":[{"content":[{"type":"image"},{"type":"web_fetch_tool_result","content":{"content":{"type":"document","source":{"type":"url"}}}}]}]}`, 1024 + 8000, -1, unknownMedia},
		{"an image in an MCP result", `{"messages":[{"content":[{"type":"mcp_tool_result","content":[{"type":"image","source":{"type":"url","url":"https://a"}}]}]}]}`, 1024, -1, unknownMedia},
		{"an image as a message", `{"messages":[{"type":"image","source":{"type":"url"}}]}`, 1024, -1, unknownMedia},
		{"an image that may be one", `{"messages":[{"content":[{"type":"new","parts":[{"type":"ima\u0067e"}]}]}]}`, 1024, -1, unknownMedia},
		{"an image in an image", `{"messages":[{"content":[{"type":"image","source":{"type":"content","content":[{"type":"image"}]}}]}]}`, 1024 + 8000, -1, unknownMedia},
		{"search results", `{"messages":[{"content":[{"type":"search_result","source":"https://a","content":[{"type":"text","text":"a"}],"citations":{"enabled":false}}]}]}`, 1024, -1, ""},
		{"an image in search results", `{"messages":[{"content":[{"type":"tool_result","content":[{"type":"search_result","content":[{"type":"image"}]}]}]}]}`, 1024 + 8000, -1, ""},
		{"search results to be cited", `{"messages":[{"content":[{"type":"search_result","citations":{"enabled":true}},{"type":"search_result","citations":{"enabled":true}}]}]}`, 1024 + 1_000_000, -1, ""},
		{"a text to be cited", `{"messages":[{"content":[{"type":"document","source":{"type":"text","data":"` + picture + `"},"citations":{"enabled":true}}]}]}`, 1024 + 1_000_000, -1, ""},
		{"a text to be cited with escapes", `{"messages":[{"content":[{"type":"document","source":{"type":"text"},"citations":{"\u0065nabled":1}}]}]}`, 1024 + 1_000_000, -1, ""},
		{"what was cited", `{"messages":[{"content":[{"type":"text","text":"a","citations":[{"type":"char_location","cited_text":"true"}]},{"type":"image"}]}]}`, 1024 + 8000, -1, ""},
		{"a tool that is referred to", `{"messages":[{"content":[{"type":"tool_result","content":[{"type":"tool_reference","tool_name":"a"},{"type":"tool_reference","tool_name":"b"}]}]}]}`, 1024 + 1_000_000, -1, ""},
		{"two sources", `{"messages":[{"content":[{"type":"image","source":{"type":"url"},"sourc\u0065":{"data":"` + picture + `"}}]}]}`, 1024 + 8000, 100, "a block with two members of the same name"},
		{"images", `{"messages":[{"content":[` + strings.TrimSuffix(strings.Repeat(`{"type":"image"},`, 1000), ",") + `]}]}`, 1024 + 8_000_000, -1, ""},
		{"too many images", `{"messages":[{"content":[` + strings.TrimSuffix(strings.Repeat(`{"type":"image"},`, 1001), ",") + `]}]}`, 1024, -1, "more than 1000 images and documents"},
		{"too many blocks beside an image", `{"messages":[{"content":[` + strings.Repeat(`{},`, 60_000) + `{"type":"image"}]}]}`, 1024, -1, "more than 50000 blocks"},
		{"too many messages", `{"messages":[` + strings.Repeat(`{},`, 60_000) + `{"content":[{"type":"image"}]}]}`, 1024, -1, "more than 50000 blocks"},
		{"many blocks", `{"messages":[{"content":[` + strings.Repeat(`{},`, 60_000) + `{}]}]}`, 1024, -1, ""},
		{"web search", `{"tools":[{"type":"web_search_20250305","name":"web_search","max_uses":3}]}`, 4096, -1, "the server's tool web_search_20250305"},
		{"the second tool", `{"tools":[{"name":"a","input_schema":{"type":"object","properties":{"type":{"type":"string"}}}}, {"name":"x", "t\u0079pe" : "code_execution_20250825"}]}`, 4096, -1, "the server's tool code_execution_20250825"},
		{"tools without types", `{"tools":[{"type":null},{"type":""},{"type":"custom"}]}`, 4096, -1, ""},
		{"results deep in each other", `{"messages":[{"content":` + strings.Repeat(`[{"type":"tool_result","content":`, 5) + `[{"type":"image"}]` + strings.Repeat("}]", 5) + `}]}`, 1024, -1, "blocks deep inside each other"},
		{"a tool of another kind", `{"tools":[{"type":{},"name":"x"}]}`, 4096, -1, "the server's tool "},
		{"mcp", `{"mcp_servers":[{"url":"https://a"}]}`, 1024, -1, "mcp_servers"},
		{"none", `{"mcp_servers":[],"container":null,"context_management":{"edits":[{"type":"clear_thinking_20251015"}]}}`, 1024, -1, ""},
		{"compaction", `{"context_management":{"edits":[{"type":"compact_20260112"}]}}`, 1024, -1, "compaction by the server"},
		{"fallbacks", `{"fallbacks":["claude-x"]}`, 1024, -1, "fallbacks"},
	} {
		got := measured(t, c.body)
		text := c.text
		if text < 0 {
			text = len(c.body)
		}
		if most := c.least + int64(text) + 40; got.Prompt < c.least+int64(text)-40 || got.Prompt > most || got.Unbounded != c.unbounded {
			t.Errorf("%s: %+v, want %d", c.name, got, c.least+int64(text))
		}
	}
	for body, want := range map[string]Extent{
		`{"inference_geo":"global"}`:                                                                   {ShortLife: true, GlobalGeo: true},
		`{"inference_geo":"us"}`:                                                                       {ShortLife: true},
		`{"cache_control":{"type":"ephemeral"}}`:                                                       {ShortLife: true},
		`{"cache_control":{"type":"ephemeral","ttl":"1h"}}`:                                            {},
		`{"cache_control":{"type":"ephemeral","\u0074tl":1}}`:                                          {},
		`{"system":[{"type":"text","text":"ttl","cache_control":{"type":"ephemeral"}}]}`:               {ShortLife: true},
		`{"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}}]}`:      {},
		`{"tools":[{"name":"a","cache_control":{"\u0074t\u006c":"1h"}}]}`:                              {},
		`{"messages":[{"content":[{"type":"text","cache_control":{"type":"ephemeral","ttl":"5m"}}]}]}`: {},
	} {
		got := measured(t, body)
		if got.Prompt = 0; got != want {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

// FuzzMeasure: without media every byte counts a token, and with them what is no base64 text does.
func FuzzMeasure(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","messages":[{"content":[{"type":"image","source":{"type":"base64","data":"QUJD"}},{"type":"tool_result","content":[{"type":"document","source":{"data":"QUJD"}}]}]}]}`,
		`{"model":"m","tools":[{"type":"web_search_20250305"}],"system":[{"type":"text","text":"a"}],"mcp_servers":[1],"inference_geo":"global"}`,
		`{"model":"m","messages":[{"content":[{"type":"document","source":{"type":"content","content":[{"type":"image"}]}}]}`,
		`{"model":"m","messages":[{"content":[{"type":"tool_use","input":{"type":"picture","source":{"data":"` + strings.Repeat("QUJD", 200) + `"}}}]}]}`,
		`{"model":"m","messages":[{"content":[{"type":"tool_reference"},{"type":"search_result","content":[{"type":"redacted_thinking","data":"` + strings.Repeat("QUJD", 200) + `"}]}]}]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Peek(body)
		if err != nil {
			return
		}
		text := int64(0) // bytes that cannot stand in base64
		for _, c := range body {
			if !isAlnum(c) && !strings.ContainsRune("+/=-_", rune(c)) {
				text++
			}
		}
		if !strings.Contains(string(body), "image") && !strings.Contains(string(body), "document") && !strings.Contains(string(body), `\u`) {
			text = int64(len(body))
		}
		got := r.Measure(body)
		if got.Prompt < text+ownPrompt {
			t.Errorf("%d tokens for %d bytes, %d of them text", got.Prompt, len(body), text)
		}
		if again := r.Measure(body); again != got {
			t.Errorf("%+v, then %+v", got, again)
		}
	})
}

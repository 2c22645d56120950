//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

const (
	model = "claude-opus-5-5"
	key   = "cpk_bench_0123456789abcdef0123456789abcdef" // the developer's, which all targets are sent

	// sessions is how many different exchanges there are, so that an answer which went to the wrong client is noticed.
	sessions = 32
)

// exchange is a request and its answer. The session is in a header of the request, by which the upstream knows the exchange,
// and in its body and in every event of its answer.
type exchange struct {
	session string
	request []byte   // body
	answer  []byte   // body, as the client must receive it
	writes  [][]byte // the answer as the upstream writes it, head and framing included
	event   int      // bytes of a content_block_delta event
}

// makeTraffic makes the exchanges of a load: each connection has one of them.
func makeTraffic(l *load) []*exchange {
	template := requestBody(l.body, l.events > 0)
	exchanges := make([]*exchange, min(sessions, l.conns))
	for i := range exchanges {
		x := &exchange{session: sessionID(i + 1)}
		x.request = bytes.Replace(template, []byte(sessionID(0)), []byte(x.session), 1)
		if l.events > 0 {
			x.stream(i+1, l.events)
		} else {
			x.plain(i + 1)
		}
		exchanges[i] = x
	}
	return exchanges
}

func sessionID(n int) string { return fmt.Sprintf("6bc57e05-e4b0-4129-9167-%012x", n) }

// head renders the head of a request as Claude Code 2.1.330 sends it.
func (x *exchange) head(address string) []byte {
	return fmt.Appendf(nil, "POST /v1/messages?beta=true HTTP/1.1\r\n"+
		"Accept: application/json\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"User-Agent: claude-cli/2.1.330 (external, sdk-cli)\r\nX-Claude-Code-Session-Id: %s\r\n"+
		"X-Stainless-Arch: x64\r\nX-Stainless-Lang: js\r\nX-Stainless-OS: Linux\r\nX-Stainless-Package-Version: 0.128.0\r\n"+
		"X-Stainless-Retry-Count: 0\r\nX-Stainless-Runtime: node\r\nX-Stainless-Runtime-Version: v26.12.1\r\nX-Stainless-Timeout: 600\r\n"+
		"anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,thinking-token-count-2026-05-13,effort-2025-11-24\r\n"+
		"anthropic-dangerous-direct-browser-access: true\r\nanthropic-version: 2023-06-01\r\nx-app: cli\r\n"+
		"Connection: keep-alive\r\nHost: %s\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nContent-Length: %d\r\n\r\n",
		key, x.session, address, len(x.request))
}

// The heads of answers, before Content-Length or Transfer-Encoding.
const (
	commonHead = "HTTP/1.1 200 OK\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\nrequest-id: req_011Cbench\r\n" +
		"anthropic-organization-id: 3a1f9c52-0d8e-4c77-9a55-2f1f0a6b7c11\r\n"
	plainHead  = commonHead + "Content-Type: application/json\r\n"
	streamHead = commonHead + "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"

	// Small enough for the largest limit of tokens a minute that can be set, at any rate a machine can reach.
	usage = `"input_tokens":12,"cache_creation_input_tokens":80,"cache_read_input_tokens":2048`
)

func (x *exchange) plain(n int) {
	const size = 1 << 10
	before := fmt.Sprintf(`{"model":%q,"id":"msg_01%012x","type":"message","role":"assistant","content":[{"type":"text","text":"`, model, n)
	after := `"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{` + usage + `,"output_tokens":60,"service_tier":"standard"}}`
	x.answer = []byte(before + filler(size-len(before)-len(after)) + after)
	x.writes = [][]byte{append(fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n", plainHead, len(x.answer)), x.answer...)}
}

// stream makes an answer of three events at the start, then deltas of equal length, then three at the end, one write for each
// group and each delta.
func (x *exchange) stream(n, deltas int) {
	write := func(head, events, tail string) {
		x.answer = append(x.answer, events...)
		x.writes = append(x.writes, fmt.Appendf(nil, "%s%x\r\n%s\r\n%s", head, len(events), events, tail))
	}
	write(streamHead, sse("message_start", fmt.Sprintf(`{"type":"message_start","message":{"model":%q,"id":"msg_01%012x","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{%s,"output_tokens":1,"service_tier":"standard"}}}`, model, n, usage))+
		sse("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)+
		sse("ping", `{"type": "ping"}`), "")
	for i := range deltas {
		delta := sse("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" %03d/%06d \"über\" 令牌\n"}}`, n, i))
		x.event = len(delta)
		write("", delta, "")
	}
	write("", sse("content_block_stop", `{"type":"content_block_stop","index":0}`)+
		sse("message_delta", fmt.Sprintf(`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{%s,"output_tokens":%d}}`, usage, deltas))+
		sse("message_stop", `{"type":"message_stop"}`), "0\r\n\r\n")
}

func sse(event, data string) string { return "event: " + event + "\ndata: " + data + "\n\n" }

// requestBody makes a body of the shape and field order of Claude Code 2.1.330 with exactly size bytes, of at least 1 KB: an
// agent's conversation of file contents and code, with the escapes and the other scripts that such have.
func requestBody(size int, stream bool) []byte {
	text := writer{rand.New(rand.NewPCG(1, uint64(size)))}
	tail := text.settings(size >= 20<<10, stream)
	const before, after = `{"model":"` + model + `","messages":[{"role":"user","content":[{"type":"text","text":"`, `"}]}`
	room := size - len(before) - len(after) - len(tail)
	var turns []byte
	for i := 0; ; i++ {
		turn := text.turn(i, min(room, 4<<10))
		if len(turns)+len(turn) > room {
			break
		}
		turns = append(turns, turn...)
	}
	return []byte(before + filler(room-len(turns)) + after + string(turns) + tail)
}

// filler is plain prose of exactly n bytes.
func filler(n int) string {
	const prose = "fix the failing test and say what was wrong with it "
	return strings.Repeat(prose, n/len(prose)+1)[:n]
}

// writer makes up text; the same seed gives the same text.
type writer struct{ *rand.Rand }

// settings is what follows the messages in a request.
func (w writer) settings(large, stream bool) string {
	var b strings.Builder
	b.WriteString(`],"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330.255; cc_entrypoint=sdk-cli;"},` +
		`{"type":"text","text":"You are a Claude agent, built on Anthropic's Claude Agent SDK.","cache_control":{"type":"ephemeral"}}`)
	if large {
		fmt.Fprintf(&b, `,{"type":"text","text":%s,"cache_control":{"type":"ephemeral"}}],"tools":[`, quote(w.prose(6000)))
		for i, name := range []string{"Agent", "Bash", "Edit", "Glob", "Grep", "Read", "Skill", "Write"} {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"name":%q,"description":%s,"input_schema":{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",`+
				`"properties":{"file_path":{"description":%s,"type":"string"}},"required":["file_path"],"additionalProperties":false}}`,
				name, quote(w.prose(900)), quote(w.prose(80)))
		}
	}
	fmt.Fprintf(&b, `],"metadata":{"user_id":%s},"max_tokens":32000,"thinking":{"type":"adaptive","display":"omitted"},`+
		`"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]},"output_config":{"effort":"medium"}`,
		quote(`{"device_id":"35e5a4f0b70e779a","account_uuid":"","session_id":"`+sessionID(0)+`"}`))
	if stream {
		b.WriteString(`,"stream":true`)
	}
	return b.String() + "}"
}

// turn is a tool call and its result of at most about n bytes.
func (w writer) turn(i, n int) string {
	id := fmt.Sprintf("toolu_%024x", i)
	return fmt.Sprintf(`,{"role":"assistant","content":[{"type":"text","text":%s},{"type":"tool_use","id":%q,"name":"Read","input":{"file_path":"/src/app/file%d.go"}}]},`+
		`{"role":"user","content":[{"tool_use_id":%q,"type":"tool_result","content":%s}]}`, quote(w.prose(120)), id, i, id, quote(w.code(n-700)))
}

func (w writer) word() string {
	words := [...]string{"the", "file", "error", "context", "stream", "request", "token", "cache", "retry", "client", "naïve", "代理", "λ", `"quoted"`, `a\b`, "<tag>", "→"}
	return words[w.IntN(len(words))]
}

func (w writer) prose(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(w.word())
		if w.IntN(12) == 0 {
			b.WriteString(".\n")
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func (w writer) code(n int) string {
	var b strings.Builder
	for line := 1; b.Len() < n; line++ {
		fmt.Fprintf(&b, "%6d→\tif err := do(ctx, %q, %d); err != nil { // %s\n", line, w.word(), w.IntN(1e6), w.word())
	}
	return b.String()
}

// quote is a JSON string as JavaScript writes it.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of a string, into memory
	return strings.TrimSuffix(b.String(), "\n")
}

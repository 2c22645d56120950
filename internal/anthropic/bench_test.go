package anthropic

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func BenchmarkPeek(b *testing.B) {
	const size = 100 << 10
	prompt := func(text string) []byte {
		return []byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"` + strings.Repeat(text, size/len(text)) + `"}]}]}`)
	}
	bodies := []struct {
		name string
		body []byte
	}{
		{"prose", prompt("The file returns an error when its context is done. ")},
		{"code", prompt(`   123→\tif err := read(ctx, \"value\", 77); err != nil {\n`)},
		{"chinese", prompt(`请修复失败的测试。代理服务器返回错误,\n`)},
		{"accents", prompt("Où est passée l'erreur ? Elle a été corrigée. ")},
		{"image", []byte(`{"model":"m","messages":[{"data":"` + strings.Repeat("QUJD", size/4) + `"}]}`)},
		{"keys", []byte(`{"model":"m","messages":[` + strings.Repeat(`{"type":"text","text":"a","n":1},`, size/32) + `{}]}`)},
	}
	for _, name := range capturedNames() {
		bodies = append(bodies, struct {
			name string
			body []byte
		}{strings.TrimSuffix(name, ".json"), captured(b, name)})
	}
	for _, bb := range bodies {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Peek(bb.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	body := captured(b, capturedNames()[1])
	b.Run("jsontext", func(b *testing.B) { // for comparison: what a validator of the same rules takes
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if !jsontext.Value(body).IsValid() {
				b.Fatal("invalid")
			}
		}
	})
}

// textDelta is an event as the API writes it.
const textDelta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":" +
	`{"type":"text_delta","text":" and the \"quick\" fox\n"}}` + "\n\n"

// answer is a JSON answer of about a kilobyte.
func answer() string {
	return `{"id":"msg_01","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{"type":"text","text":"` +
		strings.Repeat("All work and no play. ", 20) + `"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":412,` +
		`"cache_creation_input_tokens":1280,"cache_read_input_tokens":20480,"cache_creation":{"ephemeral_5m_input_tokens":1280,` +
		`"ephemeral_1h_input_tokens":0},"output_tokens":120,"service_tier":"standard"}}`
}

func BenchmarkMeter(b *testing.B) {
	// One stream that goes on and on, by the events in a write.
	for _, bb := range []struct {
		name, events string
		n            int
	}{
		{"1", textDelta, 1},
		{"20", strings.Repeat(textDelta, 20), 20},
		{"20crlf", strings.ReplaceAll(strings.Repeat(textDelta, 20), "\n", "\r\n"), 20},
	} {
		p := []byte(bb.events)
		b.Run("deltas/"+bb.name, func(b *testing.B) {
			m := NewMeter(sse)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = m.Write(p)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bb.n), "ns/event")
		})
	}
	// Whole responses, by the bytes in a write.
	stream := strings.Replace(plainStream(), "event: content_block_stop", strings.Repeat(textDelta, 200)+"event: content_block_stop", 1)
	for _, bb := range []struct{ name, contentType, text string }{
		{"stream", sse, stream}, {"ends", sse, plainStream()}, {"json", "application/json", answer()},
	} {
		for _, size := range []int{4096, 400} {
			b.Run(fmt.Sprintf("%s/by%d", bb.name, size), func(b *testing.B) {
				text := []byte(bb.text)
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					m := NewMeter(bb.contentType)
					for p := text; len(p) > 0; {
						n := min(size, len(p))
						_, _ = m.Write(p[:n])
						p = p[n:]
					}
					if !m.Result().Complete {
						b.Fatal("not complete")
					}
				}
			})
		}
	}
}

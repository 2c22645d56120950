package anthropic

import (
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

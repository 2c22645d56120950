package sim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func FuzzBody(f *testing.F) {
	s, err := New(Options{Keep: 4})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"model":"claude-opus-5-5","max_tokens":9,"messages":[{"role":"user","content":"x"}]}`,
		`{"model":"claude-opus-5-5","max_tokens":9,"stream":true,"thinking":{"type":"adaptive"},"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],
			"tools":[{"name":"B","input_schema":{"type":"object","required":["a"]}}],"tool_choice":{"type":"any"},"output_config":{"format":{"type":"json_schema","schema":{}}},
			"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x"}]}]}]}`,
		`{"model":"claude-opus-5-5","max_tokens":9,"messages":[{"role":"user","content":"[[sim {\"text\":\"x\",\"think\":\"y\",\"events\":3}]]"}]}`,
		`{"model":"claude-opus-5-5","model":"x"}`, `[`, "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if strings.Contains(body, "_ms") || strings.Contains(body, "hold") || strings.Contains(body, `\u`) || strings.Contains(body, "cut") ||
			strings.Contains(body, "encoding") || strings.Contains(body, "body") || strings.Contains(body, "long_line") || strings.Contains(body, "00") {
			return // faults are meant to disturb, and pauses to take time
		}
		for _, path := range []string{"/v1/messages", "/v1/messages/count_tokens"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
			r.Header.Set("X-Api-Key", DefaultKey)
			r.Header.Set("Anthropic-Version", "2023-06-01")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code < 100 || w.Header().Get("Request-Id") == "" {
				t.Errorf("status %d", w.Code)
			}
			if kind := w.Header().Get("Content-Type"); kind == "application/json" && !json.Valid(w.Body.Bytes()) {
				t.Errorf("invalid JSON: %q", w.Body.Bytes())
			}
		}
	})
}

func FuzzDirective(f *testing.F) {
	f.Add(`a [[sim ["x"]]] b [[sim {"tool":"Bash","input":{"a":1},"usage":{"x":null},"repeat":2}]]`)
	f.Add(`[[sim [[sim "x"]]`)
	f.Add(`[[sim`)
	f.Fuzz(func(t *testing.T, text string) {
		steps, found, err := parseDirective(text)
		if found == (len(steps) == 0 && err == nil) {
			t.Errorf("found %v, %d steps, %v", found, len(steps), err)
		}
		if i, _ := due(steps, nil); len(steps) > 0 && i != 0 {
			t.Errorf("the first step due is %d", i)
		}
	})
}

func FuzzPieces(f *testing.F) {
	f.Add("größer ✓", 3)
	f.Fuzz(func(t *testing.T, text string, n int) {
		var got strings.Builder
		count := 0
		err := pieces(text, n, func(part string) error {
			count++
			got.WriteString(part)
			return nil
		})
		if err != nil || n > 0 && got.String() != text || count > max(n, 0) {
			t.Errorf("%d pieces of %d: %q, %v", count, n, got.String(), err)
		}
	})
}

// FuzzToolID checks that an id tells its step and looks like the API's.
func FuzzToolID(f *testing.F) {
	f.Add([]byte("seed"), 3, 2)
	f.Fuzz(func(t *testing.T, seed []byte, step, index int) {
		step, index = (step%maxSteps+maxSteps)%maxSteps, (index%maxParallel+maxParallel)%maxParallel
		id := toolID(seed, step, index)
		if got, ok := toolStep(id); !ok || got != step || len(id) != 30 {
			t.Errorf("%s: step %d, %v", id, got, ok)
		}
		_, _ = toolStep(string(seed))
	})
}

func BenchmarkStream100KB(b *testing.B) {
	s, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	body := `{"model":"claude-opus-5-5","max_tokens":9000,"stream":true,"system":[{"type":"text","text":"` + strings.Repeat("s", 100_000) +
		`","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"[[sim {\"events\":200}]]"}]}`
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/messages", strings.NewReader(body))
		r.Header.Set("X-Api-Key", DefaultKey)
		r.Header.Set("Anthropic-Version", "2023-06-01")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body.String())
		}
	}
}

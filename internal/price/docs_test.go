package price_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

// TestDocumentedOverlay: the configuration in docs/prices.md is one, and does what it says there.
func TestDocumentedOverlay(t *testing.T) {
	page, err := os.ReadFile("../../docs/prices.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no example")
	}
	document, err := yaml.YAMLToJSON([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var configuration struct{ Prices price.Overlay }
	strict := json.NewDecoder(bytes.NewReader(document))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&configuration); err != nil {
		t.Fatal(err)
	}
	prices := table(t, configuration.Prices)
	for _, c := range []struct {
		day, upstream, model string
		input                int64 // of a thousand tokens
	}{
		{"2026-11-30", "", "claude-opus-6", 6000},
		{"2026-12-01", "", "claude-opus-6", 5000},
		{"2026-12-01", "main", "claude-opus-6", 4250},
		{"2026-11-30", "main", "claude-opus-5", 4400},
		{"2026-11-30", "", "glm-4.6", 600},
		{"2026-11-30", "bedrock-eu", "claude-sonnet-5", 1800},
		{"2026-11-30", "", "unheard-of", 15000},
	} {
		r := price.Request{Upstream: c.upstream, Sent: c.model, Usage: anthropic.Usage{Input: 1000}}
		if got := prices.Cost(day(c.day), r); got.Total != c.input {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

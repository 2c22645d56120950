package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// sdkAnswers is what test/sdk/acceptance.cjs prints.
type sdkAnswers struct {
	Create, Stream struct {
		Text   string           `json:"text"`
		Stop   string           `json:"stop"`
		Usage  map[string]any   `json:"usage"`
		Events map[string]int64 `json:"events"`
	}
	Iterate struct {
		Text string `json:"text"`
	}
	Tool []struct {
		Name  string            `json:"name"`
		Input map[string]string `json:"input"`
	}
	CountTokens struct {
		InputTokens int64 `json:"input_tokens"`
	} `json:"countTokens"`
	Models                           []string
	WrongKey, BadRequest, Overloaded sdkError
}

type sdkError struct {
	Class   string `json:"class"`
	Status  int    `json:"status"`
	Type    string `json:"type"`
	Message string `json:"message"`
	ID      string `json:"id"`
}

// TestSDK: the official SDK, current and 0.x, whose ways to send a key and to name an API version differ.
func TestSDK(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.70.0", "1.12.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			g := startDemo(t)
			pkg := installed(t, "@anthropic-ai/sdk@"+version)
			home := t.TempDir()
			r := runProgram(t, time.Minute, home,
				plainEnv(home, "BASE_URL="+g.url, "API_KEY="+g.key, "WRONG_KEY=cpk_wrong"), nil,
				"node", filepath.Join(repository(t), "test", "sdk", "acceptance.cjs"), pkg)
			if r.code != 0 {
				t.Fatalf("exit status %d\n%s", r.code, r.stderr)
			}
			var a sdkAnswers
			if err := json.Unmarshal([]byte(r.stdout), &a); err != nil {
				t.Fatalf("%v\n%s", err, r.stdout)
			}
			a.check(t)

			rows := g.books("--endpoint", "all").Rows
			count := map[string]int{}
			for _, e := range rows {
				count[e.Endpoint+" "+e.Outcome]++
			}
			if count["messages finished"] != 4 || count["count_tokens finished"] != 1 {
				t.Errorf("books: %v, want 4 messages and 1 count", count)
			}
		})
	}
}

func (a sdkAnswers) check(t *testing.T) {
	t.Helper()
	if a.Create.Text != "created" || a.Create.Stop != "end_turn" || a.Create.Usage["output_tokens"].(float64) <= 0 {
		t.Errorf("create: %+v", a.Create)
	}
	if a.Stream.Text != "streamed, ünïcode 🚗" || a.Stream.Stop != "end_turn" || a.Stream.Events["message_stop"] != 1 {
		t.Errorf("stream: %+v", a.Stream)
	}
	if a.Iterate.Text != "iterated" {
		t.Errorf("iterate: %+v", a.Iterate)
	}
	if len(a.Tool) != 1 || a.Tool[0].Name != "get_weather" || a.Tool[0].Input["city"] != "Oslo" {
		t.Errorf("tool: %+v", a.Tool)
	}
	if a.CountTokens.InputTokens <= 0 {
		t.Errorf("countTokens: %+v", a.CountTokens)
	}
	if once := slices.Compact(slices.Sorted(slices.Values(a.Models))); !slices.Contains(a.Models, "claude-opus-5-5") || len(a.Models) < 3 || len(once) != len(a.Models) {
		t.Errorf("models.list: %v", a.Models)
	}
	if e := a.WrongKey; e.Class != "AuthenticationError" || e.Status != 401 || e.Type != "authentication_error" || e.ID == "" {
		t.Errorf("wrong key: %+v", e)
	}
	if e := a.BadRequest; e.Class != "BadRequestError" || e.Status != 400 || e.Type != "invalid_request_error" || e.Message == "" {
		t.Errorf("bad request: %+v", e)
	}
	if e := a.Overloaded; e.Status != 529 || e.Type != "overloaded_error" {
		t.Errorf("overloaded: %+v", e)
	}
}

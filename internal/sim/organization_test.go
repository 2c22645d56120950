package sim

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// ask answers GET of the Usage and Cost API.
func ask(t *testing.T, s *Server, path, key string, into any) int {
	t.Helper()
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/v1/organizations/"+path, http.NoBody)
	r.Header.Set("X-Api-Key", key)
	r.Header.Set("Anthropic-Version", "2023-06-01")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s: %v: %s", path, err, w.Body)
		}
	}
	return w.Code
}

type page struct {
	Data []struct {
		StartingAt string           `json:"starting_at"`
		Results    []map[string]any `json:"results"`
	} `json:"data"`
	HasMore  bool   `json:"has_more"`
	NextPage string `json:"next_page"`
}

func TestUsageAndCostReports(t *testing.T) {
	now := time.Date(2026, 11, 20, 23, 59, 0, 0, time.UTC)
	s, err := New(Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(model, step string) {
		t.Helper()
		body := `{"model":"` + model + `","max_tokens":10,"messages":[{"role":"user","content":"[[sim ` + strings.ReplaceAll(step, `"`, `\"`) + `]]"}]}`
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/messages", strings.NewReader(body))
		r.Header.Set("X-Api-Key", DefaultKey)
		r.Header.Set("Anthropic-Version", "2023-06-01")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	send := func(model, usage string) { answer(model, `{"text":"hi","usage":`+usage+`}`) }
	answer("claude-sonnet-4-5", `{"stop":"refusal","usage":{"input_tokens":5000,"output_tokens":0}}`) // before any output: free
	send("claude-sonnet-4-5", `{"input_tokens":100,"output_tokens":10,"cache_read_input_tokens":1000}`)
	send("claude-sonnet-4-5-20250929", `{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"server_tool_use":{"web_search_requests":2}}`)
	now = now.Add(2 * time.Minute) // the next day
	send("claude-haiku-4-5", `{"input_tokens":7,"output_tokens":3}`)

	var p page
	if status := ask(t, s, "usage_report/messages?starting_at=2026-11-20T12:00:00Z&ending_at=2026-11-22T00:00:00Z&group_by[]=model", DefaultAdminKey, &p); status != http.StatusOK {
		t.Fatal(status)
	}
	if len(p.Data) != 2 || p.HasMore || len(p.Data[0].Results) != 1 || len(p.Data[1].Results) != 1 {
		t.Fatalf("%+v", p)
	}
	got, err := json.Marshal(p.Data[0].Results[0])
	if want := `{"api_key_id":null,"cache_creation":{"ephemeral_1h_input_tokens":20,"ephemeral_5m_input_tokens":10},` +
		`"cache_read_input_tokens":1000,"context_window":null,"inference_geo":null,"model":"claude-sonnet-4-5-20250929","output_tokens":11,` +
		`"server_tool_use":{"web_search_requests":2},"service_tier":null,"uncached_input_tokens":101,"workspace_id":null}`; err != nil || string(got) != want {
		t.Errorf("%v\n%s\n%s", err, got, want)
	}
	if day := p.Data[1]; day.StartingAt != "2026-11-21T00:00:00Z" || day.Results[0]["model"] != "claude-haiku-4-5-20251001" {
		t.Errorf("%+v", day)
	}

	// By hours, page by page.
	hours, pages := 0, 0
	for next := ""; ; pages++ {
		p = page{}
		ask(t, s, "usage_report/messages?starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-21T06:00:00Z&bucket_width=1h&limit=7&page="+next, DefaultAdminKey, &p)
		hours += len(p.Data)
		if next = p.NextPage; !p.HasMore {
			break
		}
	}
	if hours != 30 || pages != 4 {
		t.Errorf("%d hours on %d pages", hours, pages+1)
	}

	p = page{}
	ask(t, s, "cost_report?starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-21T00:00:00Z&group_by[]=description", DefaultAdminKey, &p)
	amounts := map[string]string{}
	for _, r := range p.Data[0].Results {
		kind, _ := r["token_type"].(string)
		amounts[kind], _ = r["amount"].(string)
	}
	for kind, want := range map[string]string{
		"uncached_input_tokens": "0.0303", "output_tokens": "0.0165", "cache_read_input_tokens": "0.03",
		"cache_creation.ephemeral_5m_input_tokens": "0.00375", "cache_creation.ephemeral_1h_input_tokens": "0.012", "": "2",
	} {
		if amounts[kind] != want {
			t.Errorf("%q: %q cents, want %q", kind, amounts[kind], want)
		}
	}
	p = page{}
	ask(t, s, "cost_report?starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-21T00:00:00Z", DefaultAdminKey, &p)
	if len(p.Data[0].Results) != 1 || p.Data[0].Results[0]["amount"] != "2.09255" {
		t.Errorf("%+v", p.Data[0].Results)
	}

	for path, want := range map[string]int{
		"usage_report/messages": http.StatusBadRequest,
		"usage_report/messages?starting_at=2026-11-20T00:00:00Z&limit=32":           http.StatusBadRequest,
		"cost_report?starting_at=2026-11-20T00:00:00Z&bucket_width=1h":              http.StatusBadRequest,
		"usage_report/messages?starting_at=2026-11-20T00:00:00Z&page=page_nonsense": http.StatusBadRequest,
		"members": http.StatusNotFound,
	} {
		if status := ask(t, s, path, DefaultAdminKey, nil); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	if status := ask(t, s, "cost_report?starting_at=2026-11-20T00:00:00Z", DefaultKey, nil); status != http.StatusUnauthorized {
		t.Errorf("a developer's key: %d", status)
	}
	if n := s.Counters().Requests; n != 4 {
		t.Errorf("%d requests were recorded", n)
	}
}

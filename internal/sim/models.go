package sim

import (
	"net/http"
	"strconv"
	"strings"
)

// model is one entry of the catalogue, in the order of GET /v1/models: newest first.
type model struct {
	ID        string
	Name      string
	Created   string
	Window    int64
	MaxOutput int64
}

// catalogue lists the models the simulated organisation may use: the API's own ids, current and older ones.
func catalogue() []model {
	return []model{
		{"claude-fable-5-2", "Claude Fable 5.2", "2026-11-09", 1_000_000, 128_000},
		{"claude-mythos-5-2", "Claude Mythos 5.2", "2026-11-09", 1_000_000, 128_000},
		{"claude-haiku-5-5", "Claude Haiku 5.5", "2026-10-07", 1_000_000, 128_000},
		{"claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-09-28", 1_000_000, 128_000},
		{"claude-opus-5-5", "Claude Opus 5.5", "2026-09-22", 1_000_000, 128_000},
		{"claude-fable-5-1", "Claude Fable 5.1", "2026-09-01", 1_000_000, 128_000},
		{"claude-mythos-5-1", "Claude Mythos 5.1", "2026-09-01", 1_000_000, 128_000},
		{"claude-opus-5", "Claude Opus 5", "2026-07-21", 1_000_000, 128_000},
		{"claude-sonnet-5", "Claude Sonnet 5", "2026-06-30", 1_000_000, 128_000},
		{"claude-fable-5", "Claude Fable 5", "2026-06-09", 1_000_000, 128_000},
		{"claude-mythos-5", "Claude Mythos 5", "2026-06-09", 1_000_000, 128_000},
		{"claude-opus-4-8", "Claude Opus 4.8", "2026-05-28", 1_000_000, 128_000},
		{"claude-opus-4-7", "Claude Opus 4.7", "2026-04-16", 1_000_000, 128_000},
		{"claude-sonnet-4-6", "Claude Sonnet 4.6", "2026-02-17", 1_000_000, 128_000},
		{"claude-opus-4-6", "Claude Opus 4.6", "2026-02-05", 1_000_000, 128_000},
		{"claude-opus-4-5-20251101", "Claude Opus 4.5", "2025-11-24", 200_000, 64_000},
		{"claude-haiku-4-5-20251001", "Claude Haiku 4.5", "2025-10-15", 200_000, 64_000},
		{"claude-sonnet-4-5-20250929", "Claude Sonnet 4.5", "2025-09-29", 200_000, 64_000},
		{"claude-opus-4-1-20250805", "Claude Opus 4.1", "2025-08-05", 200_000, 32_000},
		{"claude-opus-4-20250514", "Claude Opus 4", "2025-05-22", 200_000, 32_000},
		{"claude-sonnet-4-20250514", "Claude Sonnet 4", "2025-05-22", 200_000, 64_000},
		{"claude-3-7-sonnet-20250219", "Claude Sonnet 3.7", "2025-02-24", 200_000, 64_000},
		{"claude-3-5-haiku-20241022", "Claude Haiku 3.5", "2024-10-22", 200_000, 8_192},
		{"claude-3-5-sonnet-20241022", "Claude Sonnet 3.5 (New)", "2024-10-22", 200_000, 8_192},
		{"claude-3-haiku-20240307", "Claude Haiku 3", "2024-03-07", 200_000, 4_096},
		{"claude-3-opus-20240229", "Claude Opus 3", "2024-02-29", 200_000, 4_096},
	}
}

// lookup finds a model by its id or by an alias as the API knows them: the id without its date, also with -latest or -0.
func (s *Server) lookup(id string) (model, bool) {
	for _, m := range s.models {
		if m.ID == id {
			return m, true
		}
		base, dated := undated(m.ID)
		if dated && (id == base || id == base+"-latest" || id == base+"-0") {
			return m, true
		}
	}
	return model{}, false
}

func undated(id string) (base string, dated bool) {
	i := strings.LastIndexByte(id, '-')
	if i < 0 || len(id)-i != 9 {
		return id, false
	}
	if _, err := strconv.Atoi(id[i+1:]); err != nil {
		return id, false
	}
	return id[:i], true
}

// modelObject is a model as the API shows it.
type modelObject struct {
	Type         string  `json:"type"`
	ID           string  `json:"id"`
	DisplayName  string  `json:"display_name"`
	CreatedAt    string  `json:"created_at"`
	Lifecycle    string  `json:"lifecycle"`
	DeprecatedAt *string `json:"deprecated_at"`
	Line         string  `json:"line"`
	MaxInput     int64   `json:"max_input_tokens"`
	MaxTokens    int64   `json:"max_tokens"`
}

func (m model) object() modelObject {
	line := ""
	for _, l := range []string{"fable", "mythos", "opus", "sonnet", "haiku"} {
		if strings.Contains(m.ID, l) {
			line = l
		}
	}
	return modelObject{
		Type: "model", ID: m.ID, DisplayName: m.Name, CreatedAt: m.Created + "T00:00:00Z",
		Lifecycle: "active", Line: line, MaxInput: m.Window, MaxTokens: m.MaxOutput,
	}
}

// listModels answers GET /v1/models with the API's paging by limit (1 to 1000, default 20), after_id and before_id.
func (x *exchange) listModels() {
	q := x.r.URL.Query()
	limit := 20
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			x.fail(invalid("limit: Input should be a valid integer, unable to parse string as an integer"))
			return
		}
		if n < 1 || n > 1000 {
			x.fail(invalid("limit: Input should be between 1 and 1000"))
			return
		}
		limit = n
	}
	page := x.s.models
	more := false
	switch after, before := q.Get("after_id"), q.Get("before_id"); {
	case after != "" && before != "":
		x.fail(invalid("Only one of `before_id` and `after_id` can be used."))
		return
	case after != "":
		page = page[indexModel(page, after)+1:]
		page, more = page[:min(limit, len(page))], len(page) > limit
	case before != "":
		page = page[:max(indexModel(page, before), 0)]
		page, more = page[max(0, len(page)-limit):], len(page) > limit
	default:
		page, more = page[:min(limit, len(page))], len(page) > limit
	}
	answer := struct {
		Data    []modelObject `json:"data"`
		HasMore bool          `json:"has_more"`
		FirstID *string       `json:"first_id"`
		LastID  *string       `json:"last_id"`
	}{Data: make([]modelObject, 0, len(page)), HasMore: more}
	for _, m := range page {
		answer.Data = append(answer.Data, m.object())
	}
	if len(page) > 0 {
		answer.FirstID, answer.LastID = &page[0].ID, &page[len(page)-1].ID
	}
	x.sendJSON(http.StatusOK, answer)
}

func indexModel(list []model, id string) int {
	for i, m := range list {
		if m.ID == id {
			return i
		}
	}
	return -1
}

func (x *exchange) getModel(id string) {
	m, ok := x.s.lookup(id)
	if !ok {
		x.fail(notFound("model: " + id))
		return
	}
	x.sendJSON(http.StatusOK, m.object())
}

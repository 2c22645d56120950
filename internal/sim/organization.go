package sim

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// DefaultAdminKey is the Admin API key when Options names none.
const DefaultAdminKey = "sk-ant-admin01-sim"

// The Usage and Cost API, from what the simulator has answered since the start or the last reset. Requests to it are not
// among the recorded ones.

// billKey is what the organisation's bill is divided by.
type billKey struct {
	minute     int64 // since 1970
	model      string
	credential string
}

// billed is what was used.
type billed struct{ input, output, cacheRead, cacheWrite5m, cacheWrite1h, webSearches int64 }

func (b *billed) add(o billed) {
	b.input += o.input
	b.output += o.output
	b.cacheRead += o.cacheRead
	b.cacheWrite5m += o.cacheWrite5m
	b.cacheWrite1h += o.cacheWrite1h
	b.webSearches += o.webSearches
}

// bill books what a request used. A refusal before any output is free, and a request for a model that there is not used nothing. The caller holds s.mu.
func (s *Server) bill(r *Request) {
	m, known := s.lookup(r.Model)
	if len(r.Usage) == 0 || r.free || !known {
		return
	}
	var usage struct {
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
		CacheRead  int64 `json:"cache_read_input_tokens"`
		CacheWrite int64 `json:"cache_creation_input_tokens"`
		Creation   *struct {
			FiveMinutes int64 `json:"ephemeral_5m_input_tokens"`
			OneHour     int64 `json:"ephemeral_1h_input_tokens"`
		} `json:"cache_creation"`
		Server struct {
			WebSearches int64 `json:"web_search_requests"`
		} `json:"server_tool_use"`
	}
	if json.Unmarshal(r.Usage, &usage, lastWins()) != nil { // a script may say anything
		return
	}
	b := billed{
		input: usage.Input, output: usage.Output, cacheRead: usage.CacheRead, cacheWrite5m: usage.CacheWrite,
		webSearches: usage.Server.WebSearches,
	}
	if c := usage.Creation; c != nil {
		b.cacheWrite5m, b.cacheWrite1h = c.FiveMinutes, c.OneHour
	}
	key := billKey{r.Received.Unix() / 60, m.ID, r.Credential}
	b.add(s.bills[key])
	s.bills[key] = b
}

// organization answers /v1/organizations/….
func (s *Server) organization(w http.ResponseWriter, r *http.Request) {
	var answer any
	bad := s.administers(r)
	if bad == nil {
		switch path := strings.TrimPrefix(r.URL.Path, "/v1/organizations/"); {
		case path != "usage_report/messages" && path != "cost_report":
			bad = notFound("Not Found")
		case r.Method != http.MethodGet:
			bad = &apiError{Status: http.StatusMethodNotAllowed, Type: "invalid_request_error", Message: "Method Not Allowed"}
		case path == "cost_report":
			answer, bad = s.report(r.URL.Query(), []string{"1d"}, (*Server).costs)
		default:
			answer, bad = s.report(r.URL.Query(), []string{"1d", "1h", "1m"}, (*Server).usages)
		}
	}
	if bad != nil {
		show(w, bad.Status, errorBody{Type: "error", Error: errorDetail{bad.Type, bad.Message}})
		return
	}
	show(w, http.StatusOK, answer)
}

func (s *Server) administers(r *http.Request) *apiError {
	switch {
	case r.Header.Get("X-Api-Key") != s.adminKey:
		return unauthorized("invalid x-api-key")
	case r.Header.Get("Anthropic-Version") == "":
		return invalid("anthropic-version: header is required")
	}
	return nil
}

// reportPage is a page of either report.
type reportPage struct {
	Data []reportBucket `json:"data"`
	More bool           `json:"has_more"`
	Next *string        `json:"next_page"`
}

type reportBucket struct {
	Start   time.Time `json:"starting_at"`
	End     time.Time `json:"ending_at"`
	Results []any     `json:"results"`
}

// bucketWidths are the widths of buckets with how many a page has, and has at most.
func bucketWidths(name string) (width time.Duration, usual, most int) {
	switch name {
	case "1m":
		return time.Minute, 60, 1440
	case "1h":
		return time.Hour, 24, 168
	}
	return 24 * time.Hour, 7, 31
}

// report divides the bills of a range into buckets; results makes those of one bucket.
func (s *Server) report(q url.Values, widths []string, results func(*Server, map[billKey]billed, []string) []any) (*reportPage, *apiError) {
	name := q.Get("bucket_width")
	if name == "" {
		name = "1d"
	}
	if !slices.Contains(widths, name) {
		return nil, invalid("bucket_width: must be one of " + strings.Join(widths, ", "))
	}
	width, limit, most := bucketWidths(name)
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return nil, invalid(fmt.Sprintf("limit: must be from 1 to %d", most))
		}
		limit = n
	}
	start, err := time.Parse(time.RFC3339, q.Get("starting_at"))
	if err != nil {
		return nil, invalid("starting_at: must be an RFC 3339 timestamp")
	}
	end := s.now()
	if text := q.Get("ending_at"); text != "" {
		if end, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, invalid("ending_at: must be an RFC 3339 timestamp")
		}
	}
	if page := q.Get("page"); page != "" {
		at, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(page, "page_"))
		if err == nil {
			start, err = time.Parse(time.RFC3339, string(at))
		}
		if err != nil {
			return nil, invalid("page: is not what an earlier answer says as next_page")
		}
	}
	answer := &reportPage{Data: []reportBucket{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := start.UTC().Truncate(width); at.Before(end); at = at.Add(width) {
		if len(answer.Data) == limit {
			next := "page_" + base64.StdEncoding.EncodeToString([]byte(at.Format(time.RFC3339)))
			answer.More, answer.Next = true, &next
			break
		}
		within := map[billKey]billed{}
		for key, b := range s.bills {
			if t := time.Unix(key.minute*60, 0); !t.Before(at) && t.Before(at.Add(width)) {
				within[key] = b
			}
		}
		answer.Data = append(answer.Data, reportBucket{at, at.Add(width), results(s, within, q["group_by[]"])})
	}
	return answer, nil
}

type usageResult struct {
	Input         int64            `json:"uncached_input_tokens"`
	CacheCreation map[string]int64 `json:"cache_creation"`
	CacheRead     int64            `json:"cache_read_input_tokens"`
	Output        int64            `json:"output_tokens"`
	ServerTools   map[string]int64 `json:"server_tool_use"`
	APIKey        *string          `json:"api_key_id"`
	Workspace     *string          `json:"workspace_id"`
	Model         *string          `json:"model"`
	ServiceTier   *string          `json:"service_tier"`
	ContextWindow *string          `json:"context_window"`
	InferenceGeo  *string          `json:"inference_geo"`
}

// usages sums the bills of a bucket by model and credential, as far as asked for.
func (s *Server) usages(within map[billKey]billed, groupBy []string) []any {
	groups := map[billKey]billed{}
	byModel, byKey := slices.Contains(groupBy, "model"), slices.Contains(groupBy, "api_key_id")
	for key, b := range within {
		var group billKey
		if byModel {
			group.model = key.model
		}
		if byKey {
			group.credential = key.credential
		}
		b.add(groups[group])
		groups[group] = b
	}
	results := []any{}
	for _, key := range ordered(groups) {
		b := groups[key]
		r := usageResult{
			Input: b.input, Output: b.output, CacheRead: b.cacheRead,
			CacheCreation: map[string]int64{"ephemeral_5m_input_tokens": b.cacheWrite5m, "ephemeral_1h_input_tokens": b.cacheWrite1h},
			ServerTools:   map[string]int64{"web_search_requests": b.webSearches},
		}
		if byModel {
			r.Model = &key.model
		}
		if byKey {
			r.APIKey = &key.credential
		}
		results = append(results, r)
	}
	return results
}

func ordered(groups map[billKey]billed) []billKey {
	return slices.SortedFunc(maps.Keys(groups), func(a, b billKey) int {
		return strings.Compare(a.model+"\x00"+a.credential, b.model+"\x00"+b.credential)
	})
}

type costResult struct {
	Amount        string  `json:"amount"` // cents
	Currency      string  `json:"currency"`
	CostType      *string `json:"cost_type"`
	Description   *string `json:"description"`
	Model         *string `json:"model"`
	TokenType     *string `json:"token_type"`
	ServiceTier   *string `json:"service_tier"`
	ContextWindow *string `json:"context_window"`
	Workspace     *string `json:"workspace_id"`
}

// costs prices the bills of a bucket: in sum, or by description, a line for each model and kind of token.
func (s *Server) costs(within map[billKey]billed, groupBy []string) []any {
	models := map[billKey]billed{}
	for key, b := range within {
		group := billKey{model: key.model}
		b.add(models[group])
		models[group] = b
	}
	itemised := slices.Contains(groupBy, "description")
	var total, searches int64
	results := []any{}
	for _, key := range ordered(models) {
		b, rate := models[key], ratesOf(key.model)
		searches += b.webSearches
		for _, line := range []struct {
			kind, words string
			tokens, pay int64
		}{
			{"uncached_input_tokens", "Input Tokens", b.input, rate.input},
			{"output_tokens", "Output Tokens", b.output, rate.output},
			{"cache_read_input_tokens", "Input Tokens, Cache Read", b.cacheRead, rate.cacheRead},
			{"cache_creation.ephemeral_5m_input_tokens", "Input Tokens, Cache Write 5m", b.cacheWrite5m, rate.input * 5 / 4},
			{"cache_creation.ephemeral_1h_input_tokens", "Input Tokens, Cache Write 1h", b.cacheWrite1h, rate.input * 2},
		} {
			amount := line.tokens * line.pay
			total += amount
			if itemised && amount > 0 {
				results = append(results, costResult{
					Amount: cents(amount), Currency: "USD", CostType: new("tokens"), Model: &key.model, TokenType: &line.kind,
					Description: new(key.model + " Usage - " + line.words), ServiceTier: new("standard"),
				})
			}
		}
	}
	const search = 10_000_000_000 // a cent
	total += searches * search
	switch {
	case itemised && searches > 0:
		results = append(results, costResult{
			Amount: cents(searches * search), Currency: "USD", CostType: new("web_search"), Description: new("Web Search Usage"),
		})
	case !itemised && total > 0:
		results = append(results, costResult{Amount: cents(total), Currency: "USD"})
	}
	return results
}

// cents writes pico-dollars as a decimal number of cents.
func cents(pico int64) string {
	const cent = 10_000_000_000
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%010d", pico/cent, pico%cent), "0"), ".")
}

// rates are pico-dollars for a token. What writing into the cache costs follows from input.
type rates struct{ input, output, cacheRead int64 }

// ratesOf are the prices of late 2026, whatever the day and the size of the prompt.
func ratesOf(id string) rates {
	const dollar = 1_000_000 // a million tokens
	for _, line := range []struct {
		prefix string
		rates
	}{
		{"claude-fable-5-2", rates{8 * dollar, 40 * dollar, dollar / 5}},
		{"claude-mythos-5-2", rates{8 * dollar, 40 * dollar, dollar / 5}},
		{"claude-fable-5-1", rates{10 * dollar, 50 * dollar, dollar / 4}},
		{"claude-mythos-5-1", rates{10 * dollar, 50 * dollar, dollar / 4}},
		{"claude-fable-5", rates{10 * dollar, 50 * dollar, dollar}},
		{"claude-mythos-5", rates{10 * dollar, 50 * dollar, dollar}},
		{"claude-opus-5-5", rates{4 * dollar, 20 * dollar, dollar / 5}},
		{"claude-opus-4-1", rates{15 * dollar, 75 * dollar, dollar * 3 / 2}},
		{"claude-opus-4-2", rates{15 * dollar, 75 * dollar, dollar * 3 / 2}}, // 4 with its date
		{"claude-3-opus", rates{15 * dollar, 75 * dollar, dollar * 3 / 2}},
		{"claude-opus", rates{5 * dollar, 25 * dollar, dollar / 2}},
		{"claude-sonnet-5-5", rates{2 * dollar, 10 * dollar, dollar / 10}},
		{"claude-sonnet-5", rates{2 * dollar, 10 * dollar, dollar / 5}},
		{"claude-haiku-5-5", rates{dollar / 10, dollar / 2, dollar / 100}},
		{"claude-haiku-4-5", rates{dollar, 5 * dollar, dollar / 10}},
		{"claude-3-5-haiku", rates{dollar * 4 / 5, 4 * dollar, dollar * 8 / 100}},
	} {
		if strings.HasPrefix(id, line.prefix) {
			return line.rates
		}
	}
	return rates{3 * dollar, 15 * dollar, dollar * 3 / 10}
}

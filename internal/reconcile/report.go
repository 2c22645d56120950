package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Line is what amounts are compared by.
type Line struct {
	Day   string `json:"day"`   // UTC, 2006-01-02
	Model string `json:"model"` // without its date
}

// webSearch stands for a model where it is not known which ones searched: the cost report has web searches by day.
const webSearch = "(web search)"

// NewLine is the line of a model at an instant. A request that named an alias and got no answer has no date in its model.
func NewLine(at time.Time, model string) Line {
	return Line{at.UTC().Format(time.DateOnly), undated(model)}
}

// undated removes what an alias of a model does not have, or has instead.
func undated(model string) string {
	model = strings.TrimSuffix(strings.TrimSuffix(model, "[1m]"), "-latest")
	if i := len(model) - len("-20260102"); i > 0 && strings.HasPrefix(model[i:], "-20") && strings.Trim(model[i+1:], "0123456789") == "" {
		return model[:i]
	}
	return model
}

// Amounts are what was used and what it cost.
type Amounts struct {
	Input        int64 `json:"inputTokens"`
	Output       int64 `json:"outputTokens"`
	CacheRead    int64 `json:"cacheReadTokens"`
	CacheWrite5m int64 `json:"cacheWrite5mTokens"`
	CacheWrite1h int64 `json:"cacheWrite1hTokens"`
	WebSearches  int64 `json:"webSearches"`
	MicroUSD     int64 `json:"costMicroUsd"`
}

// Tokens is the sum over all classes.
func (a *Amounts) Tokens() int64 {
	return a.Input + a.Output + a.CacheRead + a.CacheWrite5m + a.CacheWrite1h
}

// Add adds other amounts.
func (a *Amounts) Add(o Amounts) {
	ours, theirs := a.all(), o.all()
	for i := range ours {
		*ours[i] += *theirs[i]
	}
}

func (a *Amounts) all() [7]*int64 {
	return [7]*int64{&a.Input, &a.Output, &a.CacheRead, &a.CacheWrite5m, &a.CacheWrite1h, &a.WebSearches, &a.MicroUSD}
}

// Report is what Anthropic says was used and charged.
type Report struct {
	Lines    map[Line]Amounts
	From, To time.Time // the range that it covers
	Usage    bool      // it has tokens
	Cost     bool      // it has dollars

	workspace string
	pages     int
	pageOf    map[item]int
	dollars   map[Line]*big.Rat // of tokens, in micro-dollars
	searches  map[string]*big.Rat
}

// newReport is an empty report of one workspace, or of all when it is empty.
func newReport(workspace string) *Report {
	return &Report{Lines: map[Line]Amounts{}, workspace: workspace, pageOf: map[item]int{}, dollars: map[Line]*big.Rat{}, searches: map[string]*big.Rat{}}
}

// page is an answer of either endpoint; see contract/usage-and-pricing.md.
type page struct {
	Data []struct {
		Start   time.Time `json:"starting_at"`
		End     time.Time `json:"ending_at"`
		Results []result  `json:"results"`
	} `json:"data"`
	More bool   `json:"has_more"`
	Next string `json:"next_page"`

	Error json.RawMessage `json:"error"` // of an answer that is none
}

// problem is what an answer that is an error says, "" when it is not one of the API's.
func (p *page) problem() string {
	var said struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(p.Error, &said) // a proxy's answer says nothing
	return said.Message
}

// item is what a result is about. The API has each once.
type item struct {
	Start time.Time
	Cost  bool
	dimensions
}

// dimensions are what results are grouped by.
type dimensions struct {
	Model          string `json:"model"`
	Workspace      string `json:"workspace_id"`
	Key            string `json:"api_key_id"`
	Account        string `json:"account_id"`
	ServiceAccount string `json:"service_account_id"`
	ServiceTier    string `json:"service_tier"`
	ContextWindow  string `json:"context_window"`
	InferenceGeo   string `json:"inference_geo"`
	Speed          string `json:"speed"`
	CostType       string `json:"cost_type"`
	TokenType      string `json:"token_type"`
	Description    string `json:"description"`
}

// result is one of a bucket: of the cost report when it has an amount.
type result struct {
	dimensions

	Input         int64 `json:"uncached_input_tokens"`
	Output        int64 `json:"output_tokens"`
	CacheRead     int64 `json:"cache_read_input_tokens"`
	CacheCreation struct {
		FiveMinutes int64 `json:"ephemeral_5m_input_tokens"`
		OneHour     int64 `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	ServerTools struct {
		WebSearches int64 `json:"web_search_requests"`
	} `json:"server_tool_use"`

	Amount   *string `json:"amount"` // cents
	Currency string  `json:"currency"`
}

// used reports whether it has anything.
func (x *result) used() bool {
	x0 := *x
	x0.dimensions = dimensions{}
	return x0 != result{}
}

// ReadReport reads pages of the usage report, of the cost report (by description) or of both, one JSON document after the
// other, in any order. It keeps one workspace, or all when it is empty.
func ReadReport(r io.Reader, workspace string) (*Report, error) {
	report := newReport(workspace)
	for decoder, n := json.NewDecoder(r), 1; ; n++ {
		var p page
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return report.finish()
		case err != nil:
			return nil, fmt.Errorf("page %d is not an answer of the Usage and Cost API: %w", n, err)
		case p.Data == nil && p.problem() != "":
			return nil, fmt.Errorf("page %d is an error that the Usage and Cost API answered: %s", n, p.problem())
		case p.Data == nil:
			return nil, fmt.Errorf("page %d is not an answer of the Usage and Cost API: it has no data", n)
		}
		if err := report.add(&p); err != nil {
			return nil, err
		}
	}
}

func (r *Report) add(p *page) error {
	r.pages++
	for _, bucket := range p.Data {
		if r.From.IsZero() || bucket.Start.Before(r.From) {
			r.From = bucket.Start.UTC()
		}
		if bucket.End.After(r.To) {
			r.To = bucket.End.UTC()
		}
		for i := range bucket.Results {
			x := &bucket.Results[i]
			about := item{bucket.Start.UTC(), x.Amount != nil, x.dimensions}
			if first, known := r.pageOf[about]; known && first != r.pages {
				return fmt.Errorf("page %d repeats %s of page %d", r.pages, about.Start.Format(time.DateOnly), first)
			}
			r.pageOf[about] = r.pages
			if err := r.book(bucket.Start, x); err != nil {
				return fmt.Errorf("page %d: %w", r.pages, err)
			}
		}
	}
	return nil
}

func (r *Report) book(day time.Time, x *result) error {
	if r.workspace != "" && x.Workspace != r.workspace {
		return nil
	}
	if x.Amount == nil {
		r.Usage = true
		if x.Model == "" && x.used() {
			return errors.New("the usage report has no models: ask for it with group_by[]=model")
		}
		line := NewLine(day, x.Model)
		sum := r.Lines[line]
		sum.Add(Amounts{
			Input: x.Input, Output: x.Output, CacheRead: x.CacheRead, WebSearches: x.ServerTools.WebSearches,
			CacheWrite5m: x.CacheCreation.FiveMinutes, CacheWrite1h: x.CacheCreation.OneHour,
		})
		r.Lines[line] = sum
		return nil
	}
	r.Cost = true
	cents, ok := new(big.Rat).SetString(*x.Amount)
	if !ok || (x.Currency != "" && x.Currency != "USD") {
		return fmt.Errorf("%q %s is not an amount of US cents", *x.Amount, x.Currency)
	}
	micro := cents.Mul(cents, big.NewRat(10_000, 1))
	switch {
	case x.CostType == "web_search":
		key := day.UTC().Format(time.DateOnly)
		r.searches[key] = sum(r.searches[key], micro)
		return nil
	case x.Model == "" && x.CostType == "":
		return errors.New("the cost report is not itemised: ask for it with group_by[]=description")
	case x.Model == "":
		x.Model = "(" + strings.ReplaceAll(x.CostType, "_", " ") + ")"
	}
	line := NewLine(day, x.Model)
	r.dollars[line] = sum(r.dollars[line], micro)
	return nil
}

func sum(a, b *big.Rat) *big.Rat {
	if a == nil {
		return b
	}
	return a.Add(a, b)
}

// finish rounds dollars and gives those of web searches, which the cost report tells for a day, to the models that made them.
func (r *Report) finish() (*Report, error) {
	if !r.Usage && !r.Cost && r.From.IsZero() {
		return nil, errors.New("there is no page of the Usage and Cost API")
	}
	for day, cost := range r.searches {
		total := int64(0)
		for line, a := range r.Lines {
			if line.Day == day {
				total += a.WebSearches
			}
		}
		if total == 0 {
			line := Line{day, webSearch}
			r.dollars[line] = sum(r.dollars[line], cost)
			continue
		}
		for line, a := range r.Lines {
			if line.Day == day && a.WebSearches > 0 {
				r.dollars[line] = sum(r.dollars[line], new(big.Rat).Mul(cost, big.NewRat(a.WebSearches, total)))
			}
		}
	}
	for line, micro := range r.dollars {
		a := r.Lines[line]
		rounded, _ := new(big.Float).SetRat(micro.Add(micro, big.NewRat(1, 2))).Int64()
		a.MicroUSD = rounded
		r.Lines[line] = a
	}
	return r, nil
}

// API is Anthropic's Admin API.
type API struct {
	URL  string // without /v1
	Key  string // an Admin key (sk-ant-admin…)
	HTTP *http.Client
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// Fetch asks for both reports of a range of whole UTC days, page by page, and keeps one workspace, or all when it is empty.
func (a API) Fetch(ctx context.Context, from, to time.Time, workspace string) (*Report, error) {
	report := newReport(workspace)
	for path, groupBy := range map[string]string{"usage_report/messages": "model", "cost_report": "description"} {
		query := url.Values{
			"starting_at": {from.UTC().Format(time.RFC3339)}, "ending_at": {to.UTC().Format(time.RFC3339)},
			"bucket_width": {"1d"}, "limit": {"31"}, "group_by[]": {groupBy, "workspace_id"},
		}
		for {
			p, err := a.page(ctx, path, query)
			if err != nil {
				return nil, err
			}
			if err := report.add(p); err != nil {
				return nil, err
			}
			if !p.More || p.Next == "" {
				break
			}
			query.Set("page", p.Next)
		}
	}
	report.From, report.To, report.Usage, report.Cost = from.UTC(), to.UTC(), true, true
	return report.finish()
}

func (a API) page(ctx context.Context, path string, query url.Values) (*page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(a.URL, "/")+"/v1/organizations/"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the Admin API: %w", err)
	}
	req.Header.Set("X-Api-Key", a.Key)
	req.Header.Set("Anthropic-Version", "2023-06-01")
	resp, err := a.HTTP.Do(req)
	if err != nil {
		if whole, ok := errors.AsType[*url.Error](err); ok {
			err = whole.Err // without the query, which hides the cause
		}
		return nil, fmt.Errorf("cannot ask the Admin API at %s: %w", a.URL, err)
	}
	defer resp.Body.Close() //nolint:errcheck // the body was read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("cannot read the Admin API's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var p page
		_ = json.Unmarshal(body, &p) // a proxy's answer says nothing
		text := strings.TrimSuffix(fmt.Sprintf("the Admin API answered %d %s: %s", resp.StatusCode, http.StatusText(resp.StatusCode), p.problem()), ": ")
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			text += "; it takes an Admin key (sk-ant-admin…), not one for messages"
		}
		return nil, errors.New(text)
	}
	p := new(page)
	if err := json.Unmarshal(body, p); err != nil {
		return nil, fmt.Errorf("cannot understand the Admin API's answer: %w", err)
	}
	return p, nil
}

package reconcile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/reconcile"
)

const (
	usagePage = `{"data":[{"starting_at":"2026-11-20T00:00:00Z","ending_at":"2026-11-21T00:00:00Z","results":[
		{"model":"claude-sonnet-4-5-20250929","workspace_id":"w1","uncached_input_tokens":100,"output_tokens":10,"cache_read_input_tokens":5,
		 "cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4},"server_tool_use":{"web_search_requests":3},
		 "service_tier":"standard","something_new":{"x":1}},
		{"model":"claude-sonnet-4-5-20250929","workspace_id":null,"uncached_input_tokens":1000,"output_tokens":1},
		{"model":"claude-opus-5","workspace_id":"w1","uncached_input_tokens":7,"output_tokens":1,"server_tool_use":{"web_search_requests":1}}]}],
		"has_more":false,"next_page":null}`
	costPage = `{"data":[{"starting_at":"2026-11-20T00:00:00Z","ending_at":"2026-11-21T00:00:00Z","results":[
		{"amount":"0.03333","currency":"USD","cost_type":"tokens","model":"claude-sonnet-4-5-20250929","token_type":"uncached_input_tokens","workspace_id":"w1"},
		{"amount":"0.00002","currency":"USD","cost_type":"tokens","model":"claude-sonnet-4-5-20250929","token_type":"output_tokens","workspace_id":"w1"},
		{"amount":"4","currency":"USD","cost_type":"web_search","model":null,"workspace_id":"w1"},
		{"amount":"12.5","currency":"USD","cost_type":"code_execution","model":null,"workspace_id":"w1"},
		{"amount":"99","currency":"USD","cost_type":"tokens","model":"claude-opus-5","workspace_id":"w2"}]}],"has_more":false}`
)

func TestReadReport(t *testing.T) {
	// The order of the pages does not matter: web searches, which are charged for the day, go to the models that made them.
	for _, text := range []string{usagePage + costPage, costPage + "\n" + usagePage} {
		r, err := reconcile.ReadReport(strings.NewReader(text), "w1")
		if err != nil {
			t.Fatal(err)
		}
		line := func(model string) reconcile.Line { return reconcile.Line{Day: "2026-11-20", Model: model} }
		want := map[reconcile.Line]reconcile.Amounts{
			line("claude-sonnet-4-5"): {Input: 100, Output: 10, CacheRead: 5, CacheWrite5m: 3, CacheWrite1h: 4, WebSearches: 3, MicroUSD: 30_334}, // 333.5 rounded
			line("claude-opus-5"):     {Input: 7, Output: 1, WebSearches: 1, MicroUSD: 10_000},
			line("(code execution)"):  {MicroUSD: 125_000},
		}
		if fmt.Sprint(r.Lines) != fmt.Sprint(want) || !r.Usage || !r.Cost || r.To.Sub(r.From) != 24*time.Hour {
			t.Errorf("%+v\n%+v", r.Lines, want)
		}
	}
	all, err := reconcile.ReadReport(strings.NewReader(usagePage), "")
	if err != nil || all.Cost || all.Lines[reconcile.Line{Day: "2026-11-20", Model: "claude-sonnet-4-5"}].Input != 1100 {
		t.Errorf("%v %+v", err, all)
	}
	// The answers about several workspaces, one by one.
	one, other := strings.ReplaceAll(costPage, `"w2"`, `"w1"`), strings.NewReplacer(`"w1"`, `"w3"`, `"w2"`, `"w3"`).Replace(costPage)
	if all, err = reconcile.ReadReport(strings.NewReader(one+other), ""); err != nil || all.Lines[reconcile.Line{Day: "2026-11-20", Model: "(code execution)"}].MicroUSD != 250_000 {
		t.Errorf("%v %+v", err, all)
	}
	for text, says := range map[string]string{
		"":                  "there is no page",
		"nonsense":          "page 1 is not an answer",
		usagePage + `{}`:    "page 2 is not an answer",
		`{"error":"x"}`:     "has no data",
		usagePage[:100]:     "unexpected EOF",
		`{"data":[1,2,"3"]`: "page 1",
		costPage + `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`: "page 2 is an error that the Usage and Cost API answered: invalid x-api-key",
		usagePage + costPage + usagePage:                                  "page 3 repeats 2026-11-20 of page 1",
		costPage + costPage:                                               "page 2 repeats 2026-11-20 of page 1",
		strings.ReplaceAll(usagePage, "claude-opus-5", ""):                "group_by[]=model",
		strings.ReplaceAll(costPage, `"cost_type":"code_execution",`, ""): "group_by[]=description",
		strings.ReplaceAll(costPage, "12.5", "12,5"):                      "is not an amount",
		strings.ReplaceAll(costPage, "USD", "EUR"):                        "is not an amount",
	} {
		if _, err := reconcile.ReadReport(strings.NewReader(text), ""); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v, want %s", text, err, says)
		}
	}
}

func TestCompare(t *testing.T) {
	report, err := reconcile.ReadReport(strings.NewReader(usagePage+costPage), "w1")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 23, 0, 0, 0, time.FixedZone("", -2*3600)) // the next day in UTC
	books := func(change func(*reconcile.Books)) map[reconcile.Line]reconcile.Books {
		sonnet := reconcile.Books{Amounts: report.Lines[reconcile.Line{Day: "2026-11-20", Model: "claude-sonnet-4-5"}], Requests: 10}
		change(&sonnet)
		return map[reconcile.Line]reconcile.Books{
			reconcile.NewLine(at.Add(-2*time.Hour), "claude-sonnet-4-5"): sonnet,
			reconcile.NewLine(at, "claude-new-latest"):                   {Requests: 3}, // without usage
		}
	}
	for _, c := range []struct {
		name      string
		tolerance float64
		change    func(*reconcile.Books)
		within    bool
	}{
		{"equal", 0, func(*reconcile.Books) {}, true},
		{"rounding", 0, func(b *reconcile.Books) { b.MicroUSD += 5 }, true},
		{"more than rounding", 0, func(b *reconcile.Books) { b.MicroUSD += 6 }, false},
		{"a token", 0, func(b *reconcile.Books) { b.Output++ }, false},
		{"a token of many", 0.1, func(b *reconcile.Books) { b.Output++ }, true},
		{"fewer", 0.04, func(b *reconcile.Books) { b.Input -= 5 }, false},
		{"one class in another", 0.5, func(b *reconcile.Books) { b.CacheWrite1h += 3; b.CacheWrite5m -= 3 }, false},
	} {
		rows := reconcile.Compare(books(c.change), report, c.tolerance)
		if len(rows) != 3 || rows[0].Model != "(code execution)" || rows[1].Model != "claude-opus-5" || rows[2].Model != "claude-sonnet-4-5" {
			t.Fatalf("%s: %+v", c.name, rows)
		}
		if rows[0].Within || rows[1].Within || rows[2].Within != c.within {
			t.Errorf("%s: %+v", c.name, rows)
		}
	}
}

// A cost report alone does not say which models searched: the searches of both sides are on a line of their own then.
func TestCompareSearchesByDay(t *testing.T) {
	book := func(micro, searches int64) reconcile.Books {
		return reconcile.Books{Amounts: reconcile.Amounts{WebSearches: searches, MicroUSD: micro + 10_000*searches}, Requests: 1, SearchMicroUSD: 10_000 * searches}
	}
	books := map[reconcile.Line]reconcile.Books{
		{Day: "2026-11-20", Model: "claude-sonnet-4-5"}: book(334, 3),
		{Day: "2026-11-20", Model: "claude-opus-5"}:     book(0, 1),
	}
	codeless := strings.ReplaceAll(costPage, `"amount":"12.5"`, `"amount":"0"`)
	for _, c := range []struct {
		report string
		within bool
	}{
		{codeless, true},
		{strings.ReplaceAll(codeless, `"amount":"4"`, `"amount":"5"`), false},
		{strings.ReplaceAll(codeless, `"amount":"4"`, `"amount":"0"`), false},
	} {
		report, err := reconcile.ReadReport(strings.NewReader(c.report), "w1")
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range reconcile.Compare(books, report, 0) {
			searches := row.Model == "(web search)"
			if row.Within != (c.within || !searches) || (searches && row.Ledger.MicroUSD != 40_000) {
				t.Errorf("%+v", row)
			}
		}
	}
	if len(books) != 2 {
		t.Errorf("the books are changed: %+v", books)
	}
}

func TestReadTelemetry(t *testing.T) {
	events, err := reconcile.ReadTelemetry(strings.NewReader(`{"event.name":"user_prompt","request_id":"not this"}
{"name":"claude_code.api_request","attributes":{"request_id":"r1","input_tokens":7,"output_tokens":"8","cost_usd_micros":55,"cost_usd":1,"event.timestamp":"2026-11-20T12:00:00.5Z","duration_ms":1500}}

{"resourceLogs":[{"resource":{"attributes":[]},"scopeLogs":[{"logRecords":[{"timeUnixNano":"1795176000000000000","body":{"stringValue":"claude_code.api_request"},"attributes":[{"key":"request_id","value":{"stringValue":"r2"}},{"key":"cost_usd","value":{"doubleValue":0.0000125}},{"key":"cache_read_tokens","value":{"intValue":"9"}}]},{"body":{"stringValue":"claude_code.tool_result"},"attributes":[]}]}]}]}
{"event.name":"api_request","cost_usd":"","duration_ms":-1e12,"timeUnixNano":"0"}`))
	if err != nil || len(events) != 3 {
		t.Fatalf("%v %+v", err, events)
	}
	if e := events[0]; e.RequestID != "r1" || e.Input != 7 || e.Output != 8 || e.MicroUSD != 55 || e.Duration != 1500*time.Millisecond || e.At.Nanosecond() != 5e8 {
		t.Errorf("%+v", e)
	}
	if e := events[1]; e.RequestID != "r2" || e.CacheRead != 9 || e.MicroUSD != 13 || !e.HasCost || e.At.Unix() != 1795176000 {
		t.Errorf("%+v", e)
	}
	if e := events[2]; e.Input != 0 || e.HasCost || e.Duration != 0 {
		t.Errorf("%+v", e)
	}
	from, to, ok := reconcile.Range(events[:1])
	if !ok || to.Sub(from) != 121500*time.Millisecond {
		t.Errorf("%v %v %v", from, to, ok)
	}
	if _, _, ok := reconcile.Range(events[2:]); ok {
		t.Error("an event without a time has a range")
	}
}

// What cannot be read is not zero, which would look like a difference or be compared with the wrong hours.
func TestReadTelemetryRefuses(t *testing.T) {
	for event, says := range map[string]string{
		`"input_tokens":"abc"`:                   `line 2: input_tokens of the event is "abc", which is not a number`,
		`"cost_usd":"NaN"`:                       `cost_usd of the event is "NaN"`,
		`"duration_ms":-1e300`:                   `duration_ms of the event is "-1e300"`,
		`"event.timestamp":"yesterday"`:          `line 2: event.timestamp of the event is "yesterday", which is not an RFC 3339 time`,
		`"timeUnixNano":"99999999999999999999"`:  `timeUnixNano of the event`,
		`"attributes":{"output_tokens":"1,000"}`: `output_tokens of the event is "1,000"`,
	} {
		_, err := reconcile.ReadTelemetry(strings.NewReader("\n[{\"event.name\":\"api_request\"," + event + "}]"))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", event, err)
		}
	}
}

// A request is missed where its session has telemetry; that another event has no session says nothing about those that have none.
func TestMatchingWithoutSession(t *testing.T) {
	finished := func(session string) *fleet.Entry {
		return &fleet.Entry{ID: "of " + session, Outcome: fleet.OutcomeFinished, SessionID: session}
	}
	for _, c := range []struct {
		events  []reconcile.Event
		missing string
	}{
		{[]reconcile.Event{{RequestID: "r1"}}, ""},
		{[]reconcile.Event{{RequestID: "r1"}, {RequestID: "r2", Session: "s"}}, "of s"},
	} {
		m := reconcile.NewMatching(c.events, 0)
		for _, session := range []string{"", "s", "other"} {
			m.Add(finished(session))
		}
		missing := ""
		for _, d := range m.Differences() {
			if d.Telemetry == nil {
				missing += d.RequestID
			}
		}
		if missing != c.missing {
			t.Errorf("%+v: %q is missing, not %q", c.events, missing, c.missing)
		}
	}
}

// What an exporter delivers twice is one event.
func TestReadTelemetryOnceEach(t *testing.T) {
	first := `{"event.name":"api_request","request_id":"r1","input_tokens":1}`
	without := `{"event.name":"api_request","client_request_id":"c1","input_tokens":2}`
	retried := `{"event.name":"api_request","client_request_id":"c1","input_tokens":3}`
	nameless := `{"event.name":"api_request","input_tokens":4}`
	later := `{"event.name":"api_request","request_id":"r2","client_request_id":"c1","input_tokens":5}`
	events, err := reconcile.ReadTelemetry(strings.NewReader(strings.Join([]string{
		first, without, first, `[` + first + `,` + without + `]`, retried, nameless, nameless, later, first,
	}, "\n")))
	inputs := ""
	for i := range events {
		inputs += fmt.Sprint(events[i].Input)
	}
	if err != nil || inputs != "123445" {
		t.Errorf("%s %v", inputs, err)
	}
}

package anthropic

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestErrors(t *testing.T) {
	cause := errors.New("dial tcp: refused")
	many := make([]string, 25)
	for i := range many {
		many[i] = fmt.Sprintf("m%d", i)
	}
	noRetry := HeaderField{"x-should-retry", "false"}
	tests := []struct {
		err    *Error
		status int
		typ    string
		msg    string
		header []HeaderField
	}{
		{ErrUnauthenticated("no key"), 401, "authentication_error", "no key", []HeaderField{noRetry}},
		{ErrPermission("disabled"), 403, "permission_error", "disabled", []HeaderField{noRetry}},
		{ErrInvalidRequest("bad"), 400, "invalid_request_error", "bad", nil},
		{ErrNotFound("no such path"), 404, "not_found_error", "no such path", nil},
		{ErrModelNotFound("x", []string{"a", "b"}), 404, "not_found_error", "model: x is not available here. Permitted: a, b.", nil},
		{ErrModelNotFound("x", nil), 404, "not_found_error", "model: x is not available here. No model is permitted for this key; ask the operator of this gateway.", nil},
		{ErrModelNotFound("x", many), 404, "not_found_error", "model: x is not available here. Permitted: " + strings.Join(many[:20], ", ") + " and 5 more.", nil},
		{ErrTooLarge(33554432), 413, "request_too_large", "Request exceeds the maximum allowed size of 33554432 bytes.", nil},
		{ErrRateLimit("slow down", 7), 429, "rate_limit_error", "slow down", []HeaderField{{"retry-after", "7"}}},
		{ErrRateLimit("slow down", 600), 429, "rate_limit_error", "slow down", []HeaderField{{"retry-after", "60"}}},
		{ErrRateLimit("slow down", 0), 429, "rate_limit_error", "slow down", []HeaderField{{"retry-after", "1"}}},
		{ErrLimitStore(), 429, "billing_error", "spend limit unavailable", []HeaderField{
			noRetry, {"anthropic-ratelimit-unified-overage-disabled-reason", "fetch_error"},
		}},
		{ErrOverloaded(0), 529, "overloaded_error", "Overloaded: every upstream for this model is at capacity; try again in a moment.", nil},
		{ErrOverloaded(90), 529, "overloaded_error", "Overloaded: every upstream for this model is at capacity; try again in a moment.", []HeaderField{{"retry-after", "60"}}},
		{ErrUpstream(cause), 502, "api_error", "No upstream could answer this request; try again in a moment.", nil},
		{ErrUpstreamTimeout(cause), 504, "timeout_error", "The upstream did not answer in time; try again in a moment.", nil},
		{ErrDraining(), 503, "api_error", "This gateway is restarting; try again in a moment.", []HeaderField{{"retry-after", "2"}}},
		{
			ErrUnwritable(cause), 503, "api_error", "This gateway cannot write its books, so the request was not sent; try again in a moment. " +
				"If it lasts, the operator should make room on the gateway's disk or make its data writable again; the server's log says what is wrong.",
			[]HeaderField{{"retry-after", "5"}},
		},
		{ErrInternal(cause), 500, "api_error", "Internal server error.", nil},
	}
	for _, tt := range tests {
		e := tt.err
		if e.Status != tt.status || !reflect.DeepEqual(e.Header, tt.header) {
			t.Errorf("%s %q: %d %v", tt.typ, tt.msg, e.Status, e.Header)
		}
		want := `{"type":"error","error":{"type":"` + tt.typ + `","message":"` + tt.msg + `"},"request_id":"req_1"}`
		if got := string(e.Body("req_1")); got != want {
			t.Errorf("body\n got %s\nwant %s", got, want)
		}
	}
	if e := ErrUpstream(cause); !errors.Is(e, cause) || !strings.HasSuffix(e.Error(), ": "+cause.Error()) ||
		strings.Contains(string(e.Body("")), "dial") {
		t.Errorf("the cause is for the log only: %v %s", e, e.Body(""))
	}
}

func TestErrQuota(t *testing.T) {
	reset := time.Date(2026, 8, 8, 0, 0, 0, 0, time.FixedZone("UTC+8", 8*3600))
	const prefix = "anthropic-ratelimit-unified-"
	tests := []struct {
		block QuotaBlock
		retry string
		msg   string
	}{
		{
			QuotaBlock{Period: "daily", Used: 2000001, Limit: 2000000, ResetsAt: reset, Now: reset.Add(-90*time.Minute - time.Millisecond), OperatorText: " Ask ops@example.com. "},
			"5401", "token quota reached (daily; 2000001 of 2000000 tokens used; resets 2026-08-07 16:00 UTC) Ask ops@example.com.",
		},
		{QuotaBlock{Period: "monthly", ResetsAt: reset, Now: reset}, "1", "spend limit reached (monthly; resets 2026-08-07 16:00 UTC)"},
		{
			QuotaBlock{Period: "weekly", Used: 7, Limit: 5, Detail: "budget research, a week: $7 of $5 used", ResetsAt: reset, Now: reset.Add(time.Hour)},
			"1", "spend limit reached (budget research, a week: $7 of $5 used; resets 2026-08-07 16:00 UTC)",
		},
	}
	for _, tt := range tests {
		e := ErrQuota(tt.block)
		want := []HeaderField{
			{"retry-after", tt.retry},
			{"x-should-retry", "false"},
			{prefix + "status", "rejected"},
			{prefix + "reset", "1786118400"},
			{prefix + "overage-reset", "1786118400"},
			{prefix + "overage-utilization", "1"},
			{prefix + "overage-surpassed-threshold", "1"},
			{prefix + "overage-period", tt.block.Period},
			{prefix + "overage-disabled-reason", "org_spend_cap_reached"},
		}
		if e.Status != 429 || e.Type != "billing_error" || e.Message != tt.msg || !reflect.DeepEqual(e.Header, want) {
			t.Errorf("%d %s %q\n%v", e.Status, e.Type, e.Message, e.Header)
		}
	}
}

func TestErrorBodyEscapes(t *testing.T) {
	for _, msg := range []string{"", `quote " and \ and </script>`, "control \x00\x1f\n\u2028", "broken \xff\xfe", strings.Repeat("é", 3000)} {
		e := ErrInvalidRequest(msg)
		var got struct {
			Type      string
			Error     struct{ Type, Message string }
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal(e.Body(`id"1`), &got); err != nil {
			t.Fatalf("%q: %v", msg, err)
		}
		want := strings.ToValidUTF8(msg, "\uFFFD")
		if len(msg) > maxMessage {
			want = msg[:maxMessage] + "…"
		}
		if got.Type != "error" || got.Error.Type != TypeInvalidRequest || got.Error.Message != want || got.RequestID != `id"1` {
			t.Errorf("%q: %+v", msg, got)
		}
	}
	if got := string(ErrNotFound("x").Body("")); got != `{"type":"error","error":{"type":"not_found_error","message":"x"}}` {
		t.Error(got)
	}
	if got := string(ErrorEvent([]byte("{\n\"type\":\r\n\"error\"}"))); got != "event: error\ndata: {\"type\":\"error\"}\n\n" {
		t.Error(got)
	}
}

func ExampleError_Body() {
	err := ErrRateLimit("60 requests per minute used; wait a moment.", 12)
	fmt.Println(err.Status, err.Header)
	fmt.Printf("%s\n", err.Body("req_011"))
	// Output:
	// 429 [{retry-after 12}]
	// {"type":"error","error":{"type":"rate_limit_error","message":"60 requests per minute used; wait a moment."},"request_id":"req_011"}
}

func ExamplePeek() {
	body := []byte(`{"model":"sonnet","max_tokens":1,"messages":[{"role":"user","content":"."}]}`)
	r, err := Peek(body)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", r.Splice(body, Edits{Model: "claude-sonnet-5-5"}))
	_, err = Peek([]byte(`{"model":"a","Model":"b"}`))
	fmt.Println(err)
	// Output:
	// {"model":"claude-sonnet-5-5","max_tokens":1,"messages":[{"role":"user","content":"."}]}
	// invalid_request_error (400): "Model": differs from a known name in letter case only (byte 13); write it in lower case.
}

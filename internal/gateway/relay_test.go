package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"carpool/internal/fleet"
)

// What an upstream calls a success and the API would not is relayed as it is, and booked as what it is.
func TestErrorsThatPassForSuccesses(t *testing.T) {
	const failure = `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`
	for _, tt := range []struct {
		status    int
		body      string
		outcome   fleet.Outcome
		errorType string
		tokens    int64 // of output
	}{
		{200, failure, fleet.OutcomeUpstreamError, "overloaded_error", 0},
		{206, failure, fleet.OutcomeUpstreamError, "overloaded_error", 0},
		{299, failure, fleet.OutcomeUpstreamError, "overloaded_error", 0},
		{299, `{}`, fleet.OutcomeUpstreamError, "", 0},
		{206, plainAnswer, fleet.OutcomeUpstreamError, "", 5}, // what it states was used
		{200, plainAnswer, fleet.OutcomeFinished, "", 5},
	} {
		t.Run(fmt.Sprint(tt.status, tt.outcome, tt.errorType, tt.tokens), func(t *testing.T) {
			r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}, nil)
			if got := r.post(plainRequest); got.status != tt.status || got.body != tt.body {
				t.Errorf("relayed as %d %s", got.status, got.body)
			}
			e := r.entries(1)[0]
			if e.Status != tt.status || e.Outcome != tt.outcome || e.ErrorType != tt.errorType || e.OutputTokens != tt.tokens || e.Estimated || tt.tokens == 0 && e.QuotaTokens != 0 {
				t.Errorf("entry %+v", e)
			}
		})
	}
}

package anthropic

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// unified is the prefix of the headers by which a client learns about spend limits.
const unified = "anthropic-ratelimit-unified-"

// QuotaBlock describes the limit that stopped a request until a calendar reset. When several limits are exhausted, describe the one
// that resets last.
type QuotaBlock struct {
	Period       string    // "daily", "weekly" or "monthly"
	Used, Limit  int64     // tokens; left out of the message when Limit is 0
	ResetsAt     time.Time // start of the next window; rendered in UTC
	Now          time.Time // for retry-after
	OperatorText string    // appended to the message, e.g. whom to ask for more; may be empty

	Detail string // says in place of Used and Limit what is exhausted and how much is left
	Pool   bool   // several users share it; Period is "monthly" then
	Never  bool   // no reset brings anything: the client is told of none
}

// ErrQuota (429) stops the client until a calendar reset: with these headers it shows the message at once and does not retry.
//
// The headers representative-claim and overage-status are left out on purpose: with them the client writes a text of its own and drops
// the message.
func ErrQuota(q QuotaBlock) *Error {
	wait := int64((q.ResetsAt.Sub(q.Now) + time.Second - 1) / time.Second)
	reset := strconv.FormatInt(q.ResetsAt.Unix(), 10)
	var h []HeaderField
	if !q.Never {
		h = append(h, retryAfter(max(wait, 1)))
	}
	h = append(h, shouldNotRetry(), HeaderField{unified + "status", "rejected"})
	if !q.Never {
		h = append(h, HeaderField{unified + "reset", reset}, HeaderField{unified + "overage-reset", reset})
	}
	h = append(h,
		HeaderField{unified + "overage-utilization", "1"},
		HeaderField{unified + "overage-surpassed-threshold", "1"},
		HeaderField{unified + "overage-period", q.Period},
		HeaderField{unified + "overage-disabled-reason", "org_spend_cap_reached"},
	)
	if q.Pool {
		h = append(h, HeaderField{unified + "overage-scope", "group_pool"})
	}
	return newError(429, TypeBilling, q.message(), h...)
}

// SpendHeaders are the headers by which an answer tells the client how much of its fullest limit is used. share is the used part; warn that
// it has passed one of the operator's thresholds; resetsAt is zero when it never resets.
//
// The claim is never one of a number of hours: the client computes rolling windows from those.
func SpendHeaders(share float64, warn bool, resetsAt time.Time) []HeaderField {
	threshold := ""
	switch {
	case share >= 0.95:
		threshold = "0.95"
	case share >= 0.75:
		threshold = "0.75"
	}
	status := "allowed"
	if warn || threshold != "" {
		status = "allowed_warning"
	}
	h := append(make([]HeaderField, 0, 7),
		HeaderField{unified + "status", status},
		HeaderField{unified + "representative-claim", "overage"},
		HeaderField{unified + "overage-status", status},
		// Below 1 while requests are allowed, and so is that of a soft limit which is passed.
		HeaderField{unified + "overage-utilization", strconv.FormatFloat(min(max(share, 0), 0.99), 'f', 2, 64)},
	)
	if threshold != "" {
		h = append(h, HeaderField{unified + "overage-surpassed-threshold", threshold})
	}
	if !resetsAt.IsZero() {
		reset := strconv.FormatInt(resetsAt.Unix(), 10)
		h = append(h, HeaderField{unified + "reset", reset}, HeaderField{unified + "overage-reset", reset})
	}
	return h
}

func (q QuotaBlock) message() string {
	var b strings.Builder
	switch {
	case q.Detail != "":
		b.WriteString("spend limit reached (" + q.Detail)
	case q.Limit == 0:
		b.WriteString("spend limit reached (" + q.Period)
	default:
		fmt.Fprintf(&b, "token quota reached (%s; %d of %d tokens used", q.Period, q.Used, q.Limit)
	}
	if q.Never {
		b.WriteString("; does not reset)")
	} else {
		b.WriteString("; resets " + q.ResetsAt.UTC().Format("2006-01-02 15:04") + " UTC)")
	}
	if t := strings.TrimSpace(q.OperatorText); t != "" {
		b.WriteString(" " + t)
	}
	return b.String()
}

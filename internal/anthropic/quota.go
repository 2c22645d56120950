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
	Used, Limit  int64     // in Unit; left out of the message when Limit is 0
	Unit         string    // "tokens" when empty
	ResetsAt     time.Time // start of the next window; rendered in UTC
	Now          time.Time // for retry-after
	OperatorText string    // appended to the message, e.g. whom to ask for more; may be empty
}

// ErrQuota (429) stops the client until a calendar reset: with these headers it shows the message at once and does not retry.
//
// The headers representative-claim and overage-status are left out on purpose: with them the client writes a text of its own and drops
// the message.
func ErrQuota(q QuotaBlock) *Error {
	wait := int64((q.ResetsAt.Sub(q.Now) + time.Second - 1) / time.Second)
	reset := strconv.FormatInt(q.ResetsAt.Unix(), 10)
	return newError(429, TypeBilling, q.message(),
		retryAfter(max(wait, 1)),
		shouldNotRetry(),
		HeaderField{unified + "status", "rejected"},
		HeaderField{unified + "reset", reset},
		HeaderField{unified + "overage-reset", reset},
		HeaderField{unified + "overage-utilization", "1"},
		HeaderField{unified + "overage-surpassed-threshold", "1"},
		HeaderField{unified + "overage-period", q.Period},
		HeaderField{unified + "overage-disabled-reason", "org_spend_cap_reached"},
	)
}

func (q QuotaBlock) message() string {
	var b strings.Builder
	switch {
	case q.Limit == 0:
		b.WriteString("spend limit reached (" + q.Period)
	case q.Unit == "":
		fmt.Fprintf(&b, "token quota reached (%s; %d of %d tokens used", q.Period, q.Used, q.Limit)
	default:
		fmt.Fprintf(&b, "spend limit reached (%s; %d of %d %s used", q.Period, q.Used, q.Limit, q.Unit)
	}
	b.WriteString("; resets " + q.ResetsAt.UTC().Format("2006-01-02 15:04") + " UTC)")
	if t := strings.TrimSpace(q.OperatorText); t != "" {
		b.WriteString(" " + t)
	}
	return b.String()
}

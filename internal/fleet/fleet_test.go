package fleet_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// keys returns the names that a type has in JSON, sorted, with those that may be missing marked.
func keys(t reflect.Type) string {
	var names []string
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options == "omitempty" {
			name += "?"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// Nodes and control of different versions read each other's messages: a name that changes here is a new protocol version.
func TestProtocol2(t *testing.T) {
	t.Parallel()
	if fleet.Protocol != 2 {
		t.Fatalf("protocol %d has no test of its names", fleet.Protocol)
	}
	for _, c := range []struct {
		value any
		want  string
	}{
		{fleet.Heartbeat{}, "applied inFlight outbox problem? protocol refused? time"},
		{fleet.UsageBatch{}, "entries from? node to?"},
		{fleet.Command{}, "args? id kind"},
		{fleet.CommandResult{}, "error? id result?"},
		{fleet.QuotaArgs{}, "users? windows?"},
		{fleet.BudgetArgs{}, "budgets?"},
		{fleet.BudgetUsage{}, "reserved resetsAt subject used"},
		{fleet.UserQuota{}, "daily monthly"},
		{fleet.WindowUsage{}, "limit remaining reserved resetsAt used"},
		{fleet.ToolCount{}, "count name"},
		{fleet.Cooling{}, "cause model? seconds"},
		{fleet.Entry{}, "agentId? attempts cacheReadTokens cacheSavingsMicroUsd cacheWrite1hTokens cacheWrite5mTokens client? clientRequestId? clientVersion? costMicroUsd durationMs " +
			"endpoint errorType? estimated fileOperations firstByteMs id inferenceGeo? inputTokens keyId keyName location? messageId? modelAsked modelSent? modelServed? movedFrom? node " +
			"outcome outputTokens parentAgentId? priceRule? priceVersion? provider? quotaTokens requestBytes requestClass? responseBytes route? seq serviceTier? sessionId? speed? startedAt " +
			"status stopReason? stream team? thinkingTokens tools? uncharged unpriced upstream? upstreamRequestId? usage? user webSearches"},
	} {
		if got := keys(reflect.TypeOf(c.value)); got != c.want {
			t.Errorf("%T has\n%s\nwant\n%s", c.value, got, c.want)
		}
	}
	outcomes := []fleet.Outcome{fleet.OutcomeFinished, fleet.OutcomeUpstreamError, fleet.OutcomeFailed, fleet.OutcomeCut, fleet.OutcomeCanceled, fleet.OutcomeCrashed}
	commands := []fleet.CommandKind{fleet.CommandFlush, fleet.CommandQuotaUsage, fleet.CommandQuotaReset, fleet.CommandKeyActivity, fleet.CommandBudgetUsage, fleet.CommandUpstreamHealth}
	if got, want := fmt.Sprint(outcomes, commands), "[finished upstream_error failed cut canceled crashed] [flush quota.usage quota.reset key.activity budget.usage upstream.health]"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// fill gives every field of a struct a value that is not its zero.
func fill(v reflect.Value) {
	for f, field := range v.Fields() {
		switch field.Interface().(type) {
		case time.Time:
			field.Set(reflect.ValueOf(time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC)))
			continue
		case json.RawMessage:
			field.SetBytes([]byte(`{"a":1}`))
			continue
		case []fleet.ToolCount:
			field.Set(reflect.ValueOf([]fleet.ToolCount{{Name: "Bash", Count: 2}}))
			continue
		}
		switch field.Kind() {
		case reflect.String:
			field.SetString(f.Name)
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int, reflect.Int64:
			field.SetInt(1<<53 + 1) // more than a float64 can hold
		default: // the test then finds that the field stayed zero
		}
	}
}

func TestEntryComesThroughWhole(t *testing.T) {
	t.Parallel()
	var entry fleet.Entry
	v := reflect.ValueOf(&entry).Elem()
	fill(v)
	for f, field := range v.Fields() {
		if field.IsZero() {
			t.Errorf("%s was not filled in", f.Name)
		}
	}
	data, err := json.Marshal(fleet.UsageBatch{Node: "n", Entries: []fleet.Entry{entry}})
	if err != nil {
		t.Fatal(err)
	}
	var back fleet.UsageBatch
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back.Entries[0], entry) {
		t.Errorf("%v\n%+v\nwant %+v", err, back.Entries[0], entry)
	}
	// A newer node may say more than this control knows.
	if err := json.Unmarshal([]byte(`{"seq":3,"news":{"a":[1]},"outcome":"exploded"}`), &entry); err != nil || entry.Seq != 3 || entry.Outcome != "exploded" {
		t.Errorf("%v, %+v", err, entry)
	}
}

func ExampleQuotaUsage() {
	usage := fleet.QuotaUsage{"alice": {
		Daily:   fleet.WindowUsage{Limit: 100, Used: 40, Reserved: 10, Remaining: 50, ResetsAt: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)},
		Monthly: fleet.WindowUsage{Limit: policy.Unlimited, Used: 40, Reserved: 10, Remaining: policy.Unlimited, ResetsAt: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)},
	}}
	text, err := json.Marshal(usage["alice"].Daily)
	fmt.Println(string(text), err)
	// Output: {"limit":100,"used":40,"reserved":10,"remaining":50,"resetsAt":"2026-11-24T00:00:00Z"} <nil>
}

package fleet

import (
	"context"
	"encoding/json"
	"time"

	"carpool/internal/policy"
)

// Protocol is the version of the types in this package.
const Protocol = 2

// Link is a node's connection to control. All methods may be called concurrently; those that wait return ctx.Err() when
// ctx ends first.
type Link interface {
	// Snapshot waits until control has a document newer than version have, and returns the newest.
	Snapshot(ctx context.Context, have int64) (*policy.Document, error)
	// Ship delivers entries in order and returns the mark: the highest sequence number up to which control has everything,
	// 0 for a node it does not know. The mark is where the node goes on, whatever it delivered before: it asks for it with
	// a batch without entries when it starts, since either side may have been restored from a backup. Entries that control
	// already has, by number or by ID, are ignored, so a batch may be sent again.
	Ship(ctx context.Context, batch UsageBatch) (acknowledged int64, err error)
	// Command waits for the next thing control wants of the node.
	Command(ctx context.Context) (Command, error)
	// Answer returns a command's result.
	Answer(ctx context.Context, result CommandResult) error
	// Heartbeat tells control how the node is.
	Heartbeat(ctx context.Context, beat Heartbeat) error
}

// Heartbeat is a node's state. It is sent at an interval and after each attempt to apply a document.
type Heartbeat struct {
	Protocol int       `json:"protocol"`
	Time     time.Time `json:"time"`
	Applied  int64     `json:"applied"`           // version of the document in force
	Refused  int64     `json:"refused,omitempty"` // version of a newer document that did not compile
	Problem  string    `json:"problem,omitempty"` // why it did not
	Outbox   int64     `json:"outbox"`            // entries not yet acknowledged
	InFlight int64     `json:"inFlight"`          // requests being served
}

// UsageBatch is a run of a node's ledger.
type UsageBatch struct {
	Node    string  `json:"node"`
	Entries []Entry `json:"entries"` // ascending sequence numbers, consecutive unless From and To say otherwise

	// From and To, both or none, are the first and last sequence number of a stretch of which Entries holds all that the
	// node still has. The numbers missing are gone or never were: control must not wait for them.
	From int64 `json:"from,omitempty"`
	To   int64 `json:"to,omitempty"`
}

// CommandKind is what control wants of a node.
type CommandKind string

// The commands.
const (
	// CommandFlush ships everything that was settled before it. No arguments, no result.
	CommandFlush CommandKind = "flush"
	// CommandQuotaUsage reports what users have used of their current quota windows: QuotaArgs, QuotaUsage.
	CommandQuotaUsage CommandKind = "quota.usage"
	// CommandQuotaReset sets the current windows of users to nothing used: QuotaArgs, no result.
	CommandQuotaReset CommandKind = "quota.reset"
	// CommandKeyActivity reports when keys were last used: no arguments, map from key id to time.
	CommandKeyActivity CommandKind = "key.activity"
	// CommandBudgetUsage reports what was used of budgets in their current windows: BudgetArgs, BudgetsUsage.
	CommandBudgetUsage CommandKind = "budget.usage"
	// CommandUpstreamHealth reports which upstreams are left alone: no arguments, UpstreamHealth.
	CommandUpstreamHealth CommandKind = "upstream.health"
)

// Command is one request of control to a node.
type Command struct {
	ID   string          `json:"id"`
	Kind CommandKind     `json:"kind"`
	Args json.RawMessage `json:"args,omitempty"`
}

// CommandResult answers the Command of the same ID.
type CommandResult struct {
	ID     string          `json:"id"`
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// QuotaArgs names users (all when empty) and windows (both when empty).
type QuotaArgs struct {
	Users   []string `json:"users,omitempty"`
	Windows []string `json:"windows,omitempty"` // daily, monthly
}

// BudgetArgs names budgets, all when empty.
type BudgetArgs struct {
	Budgets []string `json:"budgets,omitempty"`
}

// BudgetsUsage maps a budget to the state of its parts.
type BudgetsUsage map[string][]BudgetUsage

// BudgetUsage is one part of a budget: all of it, or what a member of a team has used, in micro-dollars or tokens.
type BudgetUsage struct {
	Subject  string    `json:"subject"`
	Used     int64     `json:"used"`     // settled
	Reserved int64     `json:"reserved"` // held by requests in flight
	ResetsAt time.Time `json:"resetsAt"`
}

// QuotaUsage maps a user to the state of its windows.
type QuotaUsage map[string]UserQuota

// UserQuota is the state of a user's quota windows.
type UserQuota struct {
	Daily   WindowUsage `json:"daily"`
	Monthly WindowUsage `json:"monthly"`
}

// WindowUsage is one quota window in tokens. Limit and Remaining are policy.Unlimited where there is no quota.
type WindowUsage struct {
	Limit     int64     `json:"limit"`
	Used      int64     `json:"used"`      // settled
	Reserved  int64     `json:"reserved"`  // held by requests in flight
	Remaining int64     `json:"remaining"` // Limit - Used - Reserved, not below 0
	ResetsAt  time.Time `json:"resetsAt"`
}

// UpstreamHealth says of each upstream that is left alone, or of which a model is, why. Those that are asked as usual are absent.
type UpstreamHealth map[string][]Cooling

// Cooling is one reason to leave an upstream alone.
type Cooling struct {
	Cause   string `json:"cause"`           // as the metric carpool_upstream_cooling names it: rate, overloaded, credential …
	Model   string `json:"model,omitempty"` // as it is sent; empty: it is about the whole upstream
	Seconds int64  `json:"seconds"`         // for how long still
}

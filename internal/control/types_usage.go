package control

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/fleet"
)

// UsageQuery selects entries of the ledger. Zero fields select everything, except Endpoint, whose default is messages.
type UsageQuery struct {
	Since    string // RFC 3339 time, date in the configured zone (its start), or an age like 24h or 7d
	Until    string // the same forms; a date means its start; exclusive
	User     string
	Team     string
	Key      string // name or public id
	Model    string // asked, sent or served
	Session  string
	Endpoint string // messages, count_tokens or all
	GroupBy  string // some of user, team, key, model, upstream, session, agent, version, day and hour with commas between them; "" or none: the entries themselves
	Limit    int    // rows, 0 for the default
}

// Usage is the answer to a UsageQuery.
type Usage struct {
	From     *time.Time  `json:"from,omitempty" doc:"Start of the range; absent: from the first entry on"`
	To       *time.Time  `json:"to,omitempty" doc:"End of the range, exclusive; absent: until now"`
	GroupBy  string      `json:"groupBy" doc:"What a row stands for: none is one exchange; several have commas between them"`
	KeptFrom *time.Time  `json:"keptFrom,omitempty" doc:"Present when the range reaches before it: exchanges that began earlier are not kept one by one but in sums by the hour, which know no sessions and no single agents"`
	Totals   UsageTotals `json:"totals" doc:"Over everything selected, whatever the limit"`
	Rows     []UsageRow  `json:"rows" nullable:"false" doc:"Groups, largest first (days and hours in their order), or exchanges, newest first"` // the last field, for those that stream it
}

// UsageTotals sums exchanges.
type UsageTotals struct {
	Requests           int64   `json:"requests"`
	Errors             int64   `json:"errors" doc:"Exchanges that went wrong: upstream errors, failed, cut, crashed; not those that the client cancelled"`
	InputTokens        int64   `json:"inputTokens"`
	OutputTokens       int64   `json:"outputTokens"`
	CacheReadTokens    int64   `json:"cacheReadTokens"`
	CacheWriteTokens   int64   `json:"cacheWriteTokens" doc:"Both lifetimes together"`
	CacheWrite5mTokens int64   `json:"cacheWrite5mTokens"`
	CacheWrite1hTokens int64   `json:"cacheWrite1hTokens"`
	ThinkingTokens     int64   `json:"thinkingTokens" doc:"Part of the output tokens"`
	QuotaTokens        int64   `json:"quotaTokens" doc:"What the quota formula made of them"`
	WebSearches        int64   `json:"webSearches"`
	FileOperations     int64   `json:"fileOperations"`
	RequestBytes       int64   `json:"requestBytes"`
	ResponseBytes      int64   `json:"responseBytes"`
	AverageDurationMs  float64 `json:"averageDurationMs" doc:"Over exchanges with an answer"`
	AverageFirstByteMs float64 `json:"averageFirstByteMs" doc:"Over exchanges with an answer"`

	CostMicroUSD         int64 `json:"costMicroUsd" doc:"Millionths of a US dollar"`
	CacheSavingsMicroUSD int64 `json:"cacheSavingsMicroUsd" doc:"How much more it would have cost if nothing were cached; negative when writing cost more than reading saved"`
	Unpriced             int64 `json:"unpriced" doc:"Exchanges some of which has no price: the cost follows a rule for that, or is 0 for those from before there were prices"`
	Estimated            int64 `json:"estimated" doc:"Exchanges whose usage was not all reported, or not believably"`
}

// UsageGroup is one row of a grouped answer.
type UsageGroup struct {
	Group  string   `json:"group" doc:"The user, model, day … the row stands for; empty where the entries say none; several have a comma and a space between them"`
	Groups []string `json:"groups" nullable:"false" doc:"The same one by one, in the order of groupBy"`
	Parent string   `json:"parent,omitempty" doc:"Of an agent: the one that spawned it; absent: the main agent"`
	UsageTotals
	FirstAt time.Time `json:"firstAt" doc:"Start of the first exchange"`
	LastAt  time.Time `json:"lastAt" doc:"Start of the last exchange"`
}

// EntriesPage is a part of the exchanges that a UsageQuery selects, newest first.
type EntriesPage struct {
	Entries  []fleet.Entry `json:"entries" nullable:"false"`
	KeptFrom *time.Time    `json:"keptFrom,omitempty" doc:"Present when the range reaches before it: exchanges that began earlier are not kept one by one"`
	Next     string        `json:"next,omitempty" doc:"Where the next page begins, for the parameter after; absent on the last one"`
}

// UsageRow is a group or an exchange: exactly one field is set, and that one is the JSON.
type UsageRow struct {
	Group *UsageGroup
	Entry *fleet.Entry
}

// MarshalJSON writes whichever field is set.
func (r UsageRow) MarshalJSON() ([]byte, error) {
	if r.Group != nil {
		return json.Marshal(r.Group)
	}
	return json.Marshal(r.Entry)
}

// UnmarshalJSON reads a row with a group as Group, any other as Entry.
func (r *UsageRow) UnmarshalJSON(data []byte) error {
	var probe struct {
		Group *string `json:"group"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return err
	}
	if probe.Group != nil {
		r.Group, r.Entry = new(UsageGroup), nil
		return json.Unmarshal(data, r.Group)
	}
	r.Group, r.Entry = nil, new(fleet.Entry)
	return json.Unmarshal(data, r.Entry)
}

// Schema describes the row in the OpenAPI document.
func (r UsageRow) Schema(reg huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{
		reg.Schema(reflect.TypeFor[UsageGroup](), true, "UsageGroup"),
		reg.Schema(reflect.TypeFor[fleet.Entry](), true, "Entry"),
	}}
}

// BillingRow is what the Claude API was used for on a day with a model. What was declined before any output, and so is not
// charged, is left out.
type BillingRow struct {
	Day   string `json:"day" doc:"UTC" example:"2026-11-23"`
	Model string `json:"model" doc:"As the answers say"`
	Mixed int64  `json:"mixed" doc:"Requests in which other models took part and are billed as well, an advisor or one that a fallback replaced: Anthropic divides them by model, here all is the answering model's. Only of requests that are kept one by one"`
	UsageTotals

	WebSearchMicroUSD int64 `json:"webSearchMicroUsd" doc:"Of the cost, what web searches cost by the prices that are configured now: Anthropic's cost report has it by day and not by model"`
}

// SessionQuery selects sessions; the forms are those of UsageQuery.
type SessionQuery struct {
	Since string
	Until string
	User  string
	Team  string
	Limit int // 0 for the default
}

// Sessions is the answer to a SessionQuery.
type Sessions struct {
	Items    []Session  `json:"items" nullable:"false" doc:"Those used last first"`
	KeptFrom *time.Time `json:"keptFrom,omitempty" doc:"Present when the range reaches before it: sessions are of exchanges that began from then on"`
}

// Session is a session of Claude Code: what the exchanges with its id add up to.
type Session struct {
	ID         string    `json:"id"`
	User       string    `json:"user"`
	Users      int64     `json:"users" doc:"How many; more than one has used the same id"`
	Agents     int64     `json:"agents" doc:"Sub-agents that said their id; Claude Code does from 2.1 on"`
	FirstAt    time.Time `json:"firstAt" doc:"Start of the first exchange"`
	LastAt     time.Time `json:"lastAt" doc:"Start of the last exchange"`
	EndAt      time.Time `json:"endAt" doc:"When the last of them ended"`
	DurationMs int64     `json:"durationMs" doc:"From firstAt to endAt"`
	UsageTotals
}

// SessionDetail is a session with the tree of its agents.
type SessionDetail struct {
	Session
	Tree []SessionAgent `json:"tree" nullable:"false" doc:"The main agent and below each agent those that it spawned, in the order in which they began; depth says how far below"`
}

// SessionAgent is an agent of a session.
type SessionAgent struct {
	ID           string         `json:"id" doc:"Empty: the main agent"`
	Parent       string         `json:"parent" doc:"The agent that spawned it; empty: the main agent"`
	Depth        int            `json:"depth" doc:"0: the main agent"`
	Agents       int64          `json:"agents" doc:"How many agents are below it"`
	TreeRequests int64          `json:"treeRequests" doc:"Exchanges of it and those below"`
	TreeMicroUSD int64          `json:"treeCostMicroUsd" doc:"Cost of it and those below"`
	Models       []SessionModel `json:"models" nullable:"false" doc:"What it used, by model, the dearest first"`
	FirstAt      time.Time      `json:"firstAt" doc:"Start of the first exchange"`
	LastAt       time.Time      `json:"lastAt" doc:"Start of the last exchange"`
	EndAt        time.Time      `json:"endAt" doc:"When the last of them ended"`
	DurationMs   int64          `json:"durationMs" doc:"From firstAt to endAt"`
	UsageTotals
}

// SessionModel is what an agent used of a model.
type SessionModel struct {
	Model string `json:"model"`
	UsageTotals
}

// ReportQuery selects what a report is about; the forms are those of UsageQuery.
type ReportQuery struct {
	Since string
	Until string
	User  string
	Team  string
}

// Report is the Claude Code report over the message exchanges of a time range.
type Report struct {
	From                *time.Time       `json:"from,omitempty" doc:"Start of the range; absent: from the first entry on"`
	To                  *time.Time       `json:"to,omitempty" doc:"End of the range, exclusive; absent: until now"`
	KeptFrom            *time.Time       `json:"keptFrom,omitempty" doc:"Present when the range reaches before it: sessions and tools are only those of exchanges that began from then on"`
	TotalRequests       int64            `json:"totalRequests"`
	SuccessRate         float64          `json:"successRate" doc:"Share of exchanges that did not go wrong, 0 to 1; 0 when there are none"`
	AverageResponseTime float64          `json:"averageResponseTime" doc:"Milliseconds from the request to the end of the answer, over exchanges with one"`
	AverageFirstByte    float64          `json:"averageFirstByte" doc:"Milliseconds from the request to the first byte of the answer, over the same"`
	FileOperations      int64            `json:"fileOperations" doc:"Tool calls that read or write files"`
	TopTools            []ReportCount    `json:"topTools" nullable:"false" doc:"Tools that answers called, most often first"`
	VersionDistribution []ReportVersion  `json:"versionDistribution" nullable:"false" doc:"Client versions, most requests first"`
	TokenUsage          ReportTokens     `json:"tokenUsage"`
	Models              []ReportModel    `json:"models" nullable:"false" doc:"Models, most requests first"`
	Outcomes            map[string]int64 `json:"outcomes" nullable:"false" doc:"Exchanges by how they ended"`
	ActiveUsers         int64            `json:"activeUsers"`
	Sessions            int64            `json:"sessions"`
	Cost                ReportCost       `json:"cost"`
}

// ReportCost is what the exchanges cost, and what caching did about it.
type ReportCost struct {
	MicroUSD             int64   `json:"microUsd" doc:"Millionths of a US dollar"`
	CacheSavingsMicroUSD int64   `json:"cacheSavingsMicroUsd" doc:"How much more it would have cost if nothing were cached; negative when writing cost more than reading saved"`
	CacheReadShare       float64 `json:"cacheReadShare" doc:"Cache reads among the tokens of prompts, 0 to 1"`
	Unpriced             int64   `json:"unpriced" doc:"Exchanges some of which has no price: the cost follows a rule for that, or is 0 for those from before there were prices"`
	Estimated            int64   `json:"estimated" doc:"Exchanges whose usage was not all reported, or not believably"`
}

// ReportCount is a name with how often it occurs.
type ReportCount struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// ReportVersion is a client version with its requests.
type ReportVersion struct {
	Version string  `json:"version" doc:"Empty where the client names none"`
	Count   int64   `json:"count"`
	Share   float64 `json:"share" doc:"0 to 1"`
}

// ReportModel is a model with its requests and tokens.
type ReportModel struct {
	Model  string `json:"model"`
	Count  int64  `json:"count"`
	Input  int64  `json:"input"`
	Output int64  `json:"output"`

	CostMicroUSD int64 `json:"costMicroUsd" doc:"Millionths of a US dollar"`
	Unpriced     int64 `json:"unpriced" doc:"Exchanges some of which has no price"`
	Estimated    int64 `json:"estimated" doc:"Exchanges whose usage was not all reported, or not believably"`
}

// ReportTokens are tokens by class.
type ReportTokens struct {
	Input        int64 `json:"input"`
	Output       int64 `json:"output"`
	CacheRead    int64 `json:"cacheRead"`
	CacheWrite   int64 `json:"cacheWrite" doc:"Both lifetimes together"`
	CacheWrite5m int64 `json:"cacheWrite5m"`
	CacheWrite1h int64 `json:"cacheWrite1h"`
	Thinking     int64 `json:"thinking" doc:"Part of output"`
	Quota        int64 `json:"quota" doc:"What the quota formula made of them"`
	Total        int64 `json:"total" doc:"Input, output and cache tokens together"`
}

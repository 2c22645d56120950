package fleet

import (
	"encoding/json"
	"time"
)

// Outcome is how an exchange ended.
type Outcome string

// The outcomes.
const (
	OutcomeFinished      Outcome = "finished"       // a complete answer reached the client
	OutcomeUpstreamError Outcome = "upstream_error" // the upstream answered with an error, which the client got
	OutcomeFailed        Outcome = "failed"         // no upstream gave an answer that could be handed on
	OutcomeCut           Outcome = "cut"            // the upstream's answer broke off
	OutcomeCanceled      Outcome = "canceled"       // the client went away
	OutcomeCrashed       Outcome = "crashed"        // the node died during the exchange; resolved at its next start
)

// Entry is one exchange in the ledger. It never holds prompt or answer text.
type Entry struct {
	Node string `json:"node"`
	Seq  int64  `json:"seq"` // per node, ascending; without gaps, but see UsageBatch.From

	ID        string    `json:"id"` // UUIDv7, also the request id in the logs
	StartedAt time.Time `json:"startedAt"`
	FirstByte int64     `json:"firstByteMs"` // from start to the first byte to the client; -1 when there was none
	Duration  int64     `json:"durationMs"`
	Outcome   Outcome   `json:"outcome"`
	Status    int       `json:"status"` // HTTP status the client got; 0 when it left before
	ErrorType string    `json:"errorType,omitempty"`

	User     string `json:"user"`
	Team     string `json:"team,omitempty"`
	KeyID    string `json:"keyId"`
	KeyName  string `json:"keyName"`
	Endpoint string `json:"endpoint"` // messages or count_tokens
	Stream   bool   `json:"stream"`

	ModelAsked  string `json:"modelAsked"`
	ModelSent   string `json:"modelSent,omitempty"`   // to the upstream, after aliases
	ModelServed string `json:"modelServed,omitempty"` // as the answer says
	Route       string `json:"route,omitempty"`
	Upstream    string `json:"upstream,omitempty"`
	Provider    string `json:"provider,omitempty"` // the upstream's kind and place, as they were then: its prices go by them
	Location    string `json:"location,omitempty"`
	Attempts    int    `json:"attempts"`
	MovedFrom   string `json:"movedFrom,omitempty"` // the session's upstream before, when another had to serve
	MessageID   string `json:"messageId,omitempty"`
	StopReason  string `json:"stopReason,omitempty"`

	InputTokens        int64           `json:"inputTokens"`
	OutputTokens       int64           `json:"outputTokens"`
	CacheReadTokens    int64           `json:"cacheReadTokens"`
	CacheWrite5mTokens int64           `json:"cacheWrite5mTokens"`
	CacheWrite1hTokens int64           `json:"cacheWrite1hTokens"`
	ThinkingTokens     int64           `json:"thinkingTokens"` // part of OutputTokens
	WebSearches        int64           `json:"webSearches"`
	ServiceTier        string          `json:"serviceTier,omitempty"`
	InferenceGeo       string          `json:"inferenceGeo,omitempty"`
	Speed              string          `json:"speed,omitempty"`
	Usage              json.RawMessage `json:"usage,omitempty"` // as the upstream reported it
	Estimated          bool            `json:"estimated"`       // not all of the usage was reported, or not believably
	Uncharged          bool            `json:"uncharged"`       // declined before any output: what Usage says is not billed
	QuotaTokens        int64           `json:"quotaTokens"`     // what the quota formula made of it

	Cost         int64  `json:"costMicroUsd"`           // micro-dollars
	CacheSavings int64  `json:"cacheSavingsMicroUsd"`   // how much more it would cost if nothing were cached; negative when writing cost more than reading saved
	Unpriced     bool   `json:"unpriced"`               // some of it has no price, and Cost follows a rule for that
	PriceRule    string `json:"priceRule,omitempty"`    // which prices Cost follows, for people
	PriceVersion string `json:"priceVersion,omitempty"` // of the table

	SessionID         string `json:"sessionId,omitempty"`
	AgentID           string `json:"agentId,omitempty"`
	ParentAgentID     string `json:"parentAgentId,omitempty"`
	RequestClass      string `json:"requestClass,omitempty"`
	Client            string `json:"client,omitempty"`        // claude-cli
	ClientVersion     string `json:"clientVersion,omitempty"` // 2.1.330
	ClientRequestID   string `json:"clientRequestId,omitempty"`
	UpstreamRequestID string `json:"upstreamRequestId,omitempty"`

	Tools          []ToolCount `json:"tools,omitempty"` // tools the answer calls
	FileOperations int64       `json:"fileOperations"`  // of them, those that read or write files
	RequestBytes   int64       `json:"requestBytes"`
	ResponseBytes  int64       `json:"responseBytes"`
}

// ToolCount is how often an answer calls a tool.
type ToolCount struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

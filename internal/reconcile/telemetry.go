package reconcile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"carpool/internal/fleet"
)

// Event is a claude_code.api_request event of Claude Code's telemetry: a request that it got an answer to. See
// contract/client.md §14.
type Event struct {
	RequestID       string
	ClientRequestID string
	Session         string
	Model           string
	At              time.Time // its end; zero when the event does not say
	Duration        time.Duration
	Input, Output   int64
	CacheRead       int64
	CacheCreation   int64
	MicroUSD        int64 // the client's own estimate
	HasCost         bool
}

// ReadTelemetry reads JSON lines: events as objects with their attributes, or what OpenTelemetry's collector writes with
// its file exporter. Other events are left out, and so are those that are there already: OTLP delivers at least once.
func ReadTelemetry(r io.Reader) ([]Event, error) {
	var events []Event
	in := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if text := strings.TrimSpace(string(line)); text != "" {
			decoder := json.NewDecoder(strings.NewReader(text))
			decoder.UseNumber()
			var value any
			if wrong := decoder.Decode(&value); wrong != nil {
				return nil, fmt.Errorf("line %d is not JSON: %w", n, wrong)
			}
			if wrong := collect(value, &events); wrong != nil {
				return nil, fmt.Errorf("line %d: %w", n, wrong)
			}
		}
		if last {
			return onceEach(events), nil
		}
	}
}

// onceEach leaves out events that were delivered again. A request id names one; without it, only an event that is the same in everything
// is taken for another's copy, and none that has no id at all.
func onceEach(events []Event) []Event {
	known := map[Event]bool{}
	return slices.DeleteFunc(events, func(e Event) bool {
		name := e
		switch {
		case e.RequestID != "":
			name = Event{RequestID: e.RequestID}
		case e.ClientRequestID == "":
			return false
		}
		again := known[name]
		known[name] = true
		return again
	})
}

// collect finds the events in a document, however deep its resources and scopes are.
func collect(value any, events *[]Event) error {
	switch v := value.(type) {
	case []any:
		for _, each := range v {
			if err := collect(each, events); err != nil {
				return err
			}
		}
	case map[string]any:
		attributes := attributesOf(v)
		if strings.TrimPrefix(attributes["event.name"], "claude_code.") == "api_request" {
			event, err := eventOf(attributes)
			*events = append(*events, event)
			return err
		}
		for _, each := range v {
			if err := collect(each, events); err != nil {
				return err
			}
		}
	}
	return nil
}

// attributesOf flattens an event: its own scalars, and those of attributes as an object or as OTLP's list of pairs.
func attributesOf(v map[string]any) map[string]string {
	flat := map[string]string{}
	for name, each := range v {
		if text, ok := scalar(each); ok {
			flat[name] = text
		}
	}
	switch attributes := v["attributes"].(type) {
	case map[string]any:
		for name, each := range attributes {
			if text, ok := scalar(each); ok {
				flat[name] = text
			}
		}
	case []any:
		for _, each := range attributes {
			pair, _ := each.(map[string]any)
			name, _ := pair["key"].(string)
			if text, ok := scalar(pair["value"]); ok && name != "" {
				flat[name] = text
			}
		}
	}
	for _, other := range []string{"eventName", "event_name", "body", "name"} {
		if flat["event.name"] == "" {
			flat["event.name"] = flat[other]
		}
	}
	return flat
}

// scalar reads a text or a number, also as OTLP wraps them.
func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case map[string]any:
		if len(v) == 1 {
			for _, kind := range []string{"stringValue", "intValue", "doubleValue"} {
				if inner, ok := v[kind]; ok {
					return scalar(inner)
				}
			}
		}
	}
	return "", false
}

// eventOf reads an event. What it does not have is zero; what cannot be read is an error, because it would look like a difference.
func eventOf(attributes map[string]string) (Event, error) {
	var wrong error
	number := func(name string) float64 {
		text := attributes[name]
		if text == "" {
			return 0
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.Abs(n) > 1e15 {
			wrong = errors.Join(wrong, fmt.Errorf("%s of the event is %.40q, which is not a number", name, text))
			return 0
		}
		return n
	}
	e := Event{
		RequestID: attributes["request_id"], ClientRequestID: attributes["client_request_id"], Session: attributes["session.id"],
		Model: attributes["model"], Duration: milliseconds(number("duration_ms")),
		Input: int64(number("input_tokens")), Output: int64(number("output_tokens")),
		CacheRead: int64(number("cache_read_tokens")), CacheCreation: int64(number("cache_creation_tokens")),
	}
	if e.HasCost = attributes["cost_usd_micros"] != ""; e.HasCost {
		e.MicroUSD = int64(number("cost_usd_micros"))
	} else if e.HasCost = attributes["cost_usd"] != ""; e.HasCost {
		e.MicroUSD = int64(math.Round(1e6 * min(max(number("cost_usd"), -1e9), 1e9)))
	}
	at, err := eventTime(attributes["event.timestamp"], attributes["timeUnixNano"])
	e.At = at
	return e, errors.Join(wrong, err)
}

// milliseconds is a duration of at most a century: what is longer would overflow.
func milliseconds(n float64) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	return time.Duration(min(max(n, 0), float64(most.Milliseconds()))) * time.Millisecond
}

// eventTime is when an event was, by its own word or else by that of its record, where 0 is none.
func eventTime(timestamp, nanos string) (time.Time, error) {
	if timestamp != "" {
		at, err := time.Parse(time.RFC3339, timestamp)
		if err != nil {
			return time.Time{}, fmt.Errorf("event.timestamp of the event is %.40q, which is not an RFC 3339 time", timestamp)
		}
		return at.UTC(), nil
	}
	if nanos == "" || nanos == "0" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(nanos, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("timeUnixNano of the event is %.40q, which is not a number of nanoseconds", nanos)
	}
	return time.Unix(0, n).UTC(), nil
}

// Range is when the requests of the events began and ended, with a minute to spare for clocks that differ. ok is false when
// no event says its time.
func Range(events []Event) (from, to time.Time, ok bool) {
	for i := range events {
		e := &events[i]
		if e.At.IsZero() {
			continue
		}
		if begin := e.At.Add(-e.Duration); from.IsZero() || begin.Before(from) {
			from = begin
		}
		if e.At.After(to) {
			to = e.At
		}
	}
	return from.Add(-time.Minute), to.Add(time.Minute), !from.IsZero()
}

// Difference is a request about which ledger and telemetry do not agree.
type Difference struct {
	RequestID string    `json:"requestId"`
	Session   string    `json:"sessionId,omitempty"`
	Model     string    `json:"model"`
	At        time.Time `json:"at,omitzero"`
	Ledger    *Request  `json:"ledger,omitempty"`    // absent: it is not there
	Telemetry *Request  `json:"telemetry,omitempty"` // absent: it is not there
	Differs   []string  `json:"differs,omitempty"`   // the names of the fields in which both differ
}

// Request is what one side says of a request.
type Request struct {
	Model     string `json:"model"`
	Input     int64  `json:"inputTokens"`
	Output    int64  `json:"outputTokens"`
	CacheRead int64  `json:"cacheReadTokens"`
	CacheNew  int64  `json:"cacheWriteTokens"`
	MicroUSD  int64  `json:"costMicroUsd"`
}

// Tokens is the sum over all classes.
func (r *Request) Tokens() int64 { return r.Input + r.Output + r.CacheRead + r.CacheNew }

// Matching matches requests of the ledger with events, as they come.
type Matching struct {
	Tolerance float64 // of costs, as a share of the larger side
	Matched   int64
	Found     []Difference // in both, and different

	events   []Event
	seen     []bool
	byID     map[string]int
	sessions map[string]bool
	missing  []Difference
}

// NewMatching prepares to match events.
func NewMatching(events []Event, tolerance float64) *Matching {
	m := &Matching{Tolerance: tolerance, events: events, seen: make([]bool, len(events)), byID: map[string]int{}, sessions: map[string]bool{}}
	for i := range events {
		e := &events[i]
		for _, id := range []string{e.RequestID, e.ClientRequestID} {
			if id != "" {
				m.byID[id] = i
			}
		}
		if e.Session != "" {
			m.sessions[e.Session] = true
		}
	}
	return m
}

// Add takes a request of the ledger.
func (m *Matching) Add(e *fleet.Entry) {
	for _, id := range []string{e.UpstreamRequestID, e.ID, e.ClientRequestID} {
		if i, ok := m.byID[id]; ok && id != "" && !m.seen[i] {
			m.seen[i] = true
			m.Matched++
			m.compare(&m.events[i], e)
			return
		}
	}
	// Clients without telemetry are in the ledger too, and a request that failed has an event of another kind. An event without a session
	// does not speak for all requests that have none.
	if e.Outcome == fleet.OutcomeFinished && m.sessions[e.SessionID] {
		m.missing = append(m.missing, Difference{
			RequestID: requestID(e), Session: e.SessionID, Model: served(e), At: e.StartedAt, Ledger: ledgerSide(e),
		})
	}
}

func (m *Matching) compare(event *Event, e *fleet.Entry) {
	ours, theirs := ledgerSide(e), event.side()
	var differs []string
	for _, field := range []struct {
		name string
		same bool
	}{
		{"model", event.Model == "" || undated(ours.Model) == undated(theirs.Model)},
		{"inputTokens", ours.Input == theirs.Input},
		{"outputTokens", ours.Output == theirs.Output},
		{"cacheReadTokens", ours.CacheRead == theirs.CacheRead},
		{"cacheWriteTokens", ours.CacheNew == theirs.CacheNew},
		{"costMicroUsd", !event.HasCost || near(ours.MicroUSD, theirs.MicroUSD, m.Tolerance)},
	} {
		if !field.same {
			differs = append(differs, field.name)
		}
	}
	if len(differs) > 0 {
		m.Found = append(m.Found, Difference{
			RequestID: requestID(e), Session: e.SessionID, Model: served(e), At: e.StartedAt, Ledger: ours, Telemetry: theirs, Differs: differs,
		})
	}
}

// near reports whether two costs are the same but for a micro-dollar of rounding and a share.
func near(a, b int64, tolerance float64) bool {
	off := max(a-b, b-a)
	return off <= 1 || float64(off) <= tolerance*float64(max(a, b))
}

// Differences returns all requests about which the sides do not agree, by time: those that differ, those that only the
// telemetry has, and those that only the ledger has although their session has telemetry.
func (m *Matching) Differences() []Difference {
	all := append(slices.Clone(m.Found), m.missing...)
	for i := range m.events {
		if e := &m.events[i]; !m.seen[i] {
			all = append(all, Difference{RequestID: e.RequestID, Session: e.Session, Model: e.Model, At: e.At, Telemetry: e.side()})
		}
	}
	slices.SortStableFunc(all, func(a, b Difference) int { return a.At.Compare(b.At) })
	return all
}

func (e *Event) side() *Request {
	return &Request{Model: e.Model, Input: e.Input, Output: e.Output, CacheRead: e.CacheRead, CacheNew: e.CacheCreation, MicroUSD: e.MicroUSD}
}

func ledgerSide(e *fleet.Entry) *Request {
	return &Request{
		Model: served(e), Input: e.InputTokens, Output: e.OutputTokens, CacheRead: e.CacheReadTokens,
		CacheNew: e.CacheWrite5mTokens + e.CacheWrite1hTokens, MicroUSD: e.Cost,
	}
}

// requestID is the id that the client got.
func requestID(e *fleet.Entry) string {
	if e.UpstreamRequestID != "" {
		return e.UpstreamRequestID
	}
	return e.ID
}

func served(e *fleet.Entry) string {
	for _, model := range []string{e.ModelServed, e.ModelSent} {
		if model != "" {
			return model
		}
	}
	return e.ModelAsked
}

package sim

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Request is what the simulator knows of one request it received and of how it was answered. Inspection requests are not among
// them.
type Request struct {
	Seq        int64               `json:"seq"` // from 1 since the start or the last reset
	Received   time.Time           `json:"received"`
	Method     string              `json:"method"`
	Path       string              `json:"path"`
	Query      string              `json:"query"`
	Proto      string              `json:"proto"`
	Header     map[string][]string `json:"header"` // canonical names; credentials replaced by their name, or "unknown"
	Credential string              `json:"credential"`
	BodyBytes  int64               `json:"body_bytes"`
	BodySHA256 string              `json:"body_sha256"` // hex; of nothing when the body was not read
	Model      string              `json:"model,omitzero"`
	Stream     bool                `json:"stream,omitzero"`

	Finished       bool           `json:"finished"`
	Status         int            `json:"status"` // 0 when no header was sent
	RequestID      string         `json:"request_id,omitzero"`
	ResponseBytes  int64          `json:"response_bytes"`
	ResponseSHA256 string         `json:"response_sha256"` // hex, of the body's bytes as sent, compressed if they were
	ClientGone     bool           `json:"client_gone"`     // the client went away before the answer was complete
	Usage          jsontext.Value `json:"usage,omitzero"`  // of a message that was begun, as in its last event

	free bool // the usage is not billed
}

// Counters are totals since the start or the last reset; InFlight and Held are current.
type Counters struct {
	Requests     int64                       `json:"requests"`
	Finished     int64                       `json:"finished"`
	InFlight     int64                       `json:"in_flight"`
	Held         int64                       `json:"held"`
	ClientGone   int64                       `json:"client_gone"`
	BodyBytes    int64                       `json:"body_bytes"`
	AnswerBytes  int64                       `json:"answer_bytes"`
	ByPath       map[string]int64            `json:"by_path"` // method and path of known endpoints; others under "other"
	ByStatus     map[int]int64               `json:"by_status"`
	ByCredential map[string]map[string]int64 `json:"by_credential"` // credential to "requests" and each status
}

func newCounters() Counters {
	return Counters{ByPath: map[string]int64{}, ByStatus: map[int]int64{}, ByCredential: map[string]map[string]int64{}}
}

// begin records the arrival of a request.
func (s *Server) begin(r *http.Request, known bool) *Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	rec := &Request{
		Seq: s.seq, Received: s.now().UTC(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Proto: r.Proto,
		Header: s.redacted(r.Header), RequestID: ident("req_011C", 20, s.seed[:], "request", int(s.unique)),
	}
	s.unique++
	s.requests = append(s.requests, rec)
	if over := len(s.requests) - s.keep; over > 0 {
		s.requests = slices.Delete(s.requests, 0, over)
	}
	s.counters.Requests++
	s.counters.InFlight++
	name := "other"
	if known {
		name = r.Method + " " + r.URL.Path
	}
	s.counters.ByPath[name]++
	s.announce()
	return rec
}

// redacted copies headers with credentials reduced to their names.
func (s *Server) redacted(h http.Header) map[string][]string {
	out := make(map[string][]string, len(h))
	for name, values := range h {
		values = slices.Clone(values)
		if name == "Authorization" || name == "X-Api-Key" {
			for i, v := range values {
				values[i] = "unknown"
				if c := s.credential(strings.TrimPrefix(v, "Bearer ")); c != nil {
					values[i] = c.Name
				} else if strings.TrimSpace(strings.TrimPrefix(v, "Bearer")) == "" {
					values[i] = "empty"
				}
			}
		}
		out[name] = values
	}
	return out
}

// end records how a request was answered.
func (s *Server) end(rec *Request, update func(*Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	update(rec)
	rec.Finished = true
	s.bill(rec)
	c := &s.counters
	c.Finished++
	c.InFlight--
	c.BodyBytes += rec.BodyBytes
	c.AnswerBytes += rec.ResponseBytes
	c.ByStatus[rec.Status]++
	if rec.ClientGone {
		c.ClientGone++
	}
	by := c.ByCredential[rec.Credential]
	if by == nil {
		by = map[string]int64{}
		c.ByCredential[rec.Credential] = by
	}
	by["requests"]++
	by[strconv.Itoa(rec.Status)]++
	s.announce()
}

// announce wakes everyone who waits for a change. The caller holds s.mu.
func (s *Server) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Requests returns what was received after sequence number since, oldest first. Old requests are forgotten.
func (s *Server) Requests(since int64) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Request
	for _, r := range s.requests {
		if r.Seq > since {
			out = append(out, *r)
		}
	}
	return out
}

// Counters returns the totals.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counters
	c.ByPath, c.ByStatus = maps.Clone(c.ByPath), maps.Clone(c.ByStatus)
	c.ByCredential = map[string]map[string]int64{}
	for name, counts := range s.counters.ByCredential {
		c.ByCredential[name] = maps.Clone(counts)
	}
	return c
}

// Wait returns nil as soon as the counters satisfy ready, or ctx's error.
func (s *Server) Wait(ctx context.Context, ready func(Counters) bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if ready(s.Counters()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// hold blocks until the name is released or ctx ends.
func (s *Server) hold(ctx context.Context, name string) error {
	s.mu.Lock()
	released := make(chan struct{})
	s.held[name] = append(s.held[name], released)
	s.counters.Held++
	s.announce()
	s.mu.Unlock()
	select {
	case <-released:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.held[name], released); i >= 0 {
		s.held[name] = slices.Delete(s.held[name], i, i+1)
		s.counters.Held--
		s.announce()
	}
	return context.Cause(ctx)
}

// Release lets up to n requests that are held under a name go on, the longest waiting first, and returns how many it let go.
// The empty name means every name, n <= 0 all of them.
func (s *Server) Release(name string, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.release(name, n)
}

func (s *Server) release(name string, n int) int {
	count := 0
	for key, waiting := range s.held {
		if name != "" && key != name {
			continue
		}
		for len(waiting) > 0 && (n <= 0 || count < n) {
			close(waiting[0])
			waiting = waiting[1:]
			count++
		}
		s.held[key] = waiting
		if len(waiting) == 0 {
			delete(s.held, key)
		}
	}
	s.counters.Held -= int64(count)
	s.announce()
	return count
}

// Reset forgets requests, totals, simulated caches, rate windows and how often faults applied, and releases every hold. Requests
// in flight go on and are counted when they end.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release("", 0)
	flying := s.counters.InFlight
	s.counters = newCounters()
	s.counters.InFlight = flying
	s.requests, s.seq = nil, 0
	s.bills = map[billKey]billed{}
	s.cache = promptCache{until: map[[32]byte]time.Time{}}
	s.scripted = map[[32]byte]int{}
	s.scriptOrder = nil
	for _, c := range s.credentials {
		c.window = window{}
		for _, f := range c.faults {
			f.seen = 0
		}
	}
}

// SetFaults replaces the faults of the credential with that name. It reports false when there is none, and the first error of
// [Fault.Validate] without changing anything.
func (s *Server) SetFaults(name string, faults ...Fault) (bool, error) {
	list, err := arm(faults)
	if err != nil {
		return true, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.credentials {
		if c.Name == name {
			c.faults = list
			return true, nil
		}
	}
	return false, nil
}

func arm(faults []Fault) ([]*armed, error) {
	list := make([]*armed, 0, len(faults))
	for _, f := range faults {
		if err := f.Validate(); err != nil {
			return nil, err
		}
		list = append(list, &armed{Fault: f})
	}
	return list, nil
}

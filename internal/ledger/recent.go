package ledger

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	maxRecent      = 4 * moveEntries // entries
	maxRecentBytes = 16 << 20        // of their texts
)

// recent are the last entries of the database that control has not acknowledged, so that the outbox need not read and
// decode what the process had in its hands a moment ago. What is here is in the database, the same and under the same
// number: the mover adds entries once they are committed, and forgets them before numbers change. What is not here, the
// database may have.
type recent struct {
	mu     sync.Mutex
	chunks []chunk // with consecutive numbers
	length int
	bytes  int
}

// chunk are the entries of one transaction, or what is left of them.
type chunk struct {
	entries []Entry
	bytes   int // of them all
}

func (c *chunk) last() int64 { return c.entries[len(c.entries)-1].Seq }

// add takes in what a transaction has brought into the database.
func (r *recent) add(batch []*settlement, node string) error {
	c := chunk{entries: make([]Entry, len(batch))}
	for i, s := range batch {
		size, err := s.copyTo(&c.entries[i])
		if err != nil {
			return err
		}
		c.entries[i].Node, c.entries[i].Seq = node, s.seq
		c.bytes += size
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.chunks); n > 0 && r.chunks[n-1].last()+1 != c.entries[0].Seq {
		r.forget(n)
	}
	r.chunks = append(r.chunks, c)
	r.length, r.bytes = r.length+len(batch), r.bytes+c.bytes
	for r.length > maxRecent || r.bytes > maxRecentBytes {
		r.forget(1)
	}
	return nil
}

// forget drops the first chunks; mu is held.
func (r *recent) forget(n int) {
	for _, c := range r.chunks[:n] {
		r.length, r.bytes = r.length-len(c.entries), r.bytes-c.bytes
	}
	r.chunks = slices.Delete(r.chunks, 0, n)
}

// clear forgets everything.
func (r *recent) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(len(r.chunks))
}

// acknowledged forgets the entries up to seq, which the database may forget from now on.
func (r *recent) acknowledged(seq int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.chunks) > 0 && r.chunks[0].last() <= seq {
		r.forget(1)
	}
	if len(r.chunks) > 0 {
		c := &r.chunks[0]
		n := max(seq+1-c.entries[0].Seq, 0)
		clear(c.entries[:n])
		c.entries, r.length = c.entries[n:], r.length-int(n)
	}
}

// after returns at most limit entries after seq, or none when the first of them is not here.
func (r *recent) after(seq int64, limit int) []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.chunks) == 0 || r.chunks[0].entries[0].Seq > seq+1 {
		return nil
	}
	var found []Entry
	for _, c := range r.chunks {
		if c.last() > seq {
			from := max(seq+1-c.entries[0].Seq, 0)
			found = append(found, c.entries[from:min(int64(len(c.entries)), from+int64(limit-len(found)))]...)
		}
		if len(found) == limit {
			break
		}
	}
	return found
}

// copyTo copies a settlement's entry as the database would give it back, and returns the size of its texts. The copy
// shares no memory with the request, of which each text may be a small part of something large.
func (s *settlement) copyTo(e *Entry) (size int, err error) {
	*e = *s.entry
	e.Usage, e.Tools = nil, nil
	if len(s.entry.Usage) > 0 {
		e.Usage = bytes.Clone(s.entry.Usage)
	}
	if len(s.entry.Tools) > 0 {
		e.Tools = slices.Clone(s.entry.Tools)
	}
	usual := [...]*string{
		&e.ID, (*string)(&e.Outcome), &e.ErrorType, &e.User, &e.Team, &e.KeyID, &e.KeyName, &e.Endpoint,
		&e.ModelAsked, &e.ModelSent, &e.ModelServed, &e.Route, &e.Upstream, &e.Provider, &e.Location, &e.MovedFrom, &e.MessageID,
		&e.StopReason,
		&e.ServiceTier, &e.InferenceGeo, &e.Speed, &e.PriceRule, &e.PriceVersion, &e.SessionID, &e.AgentID, &e.ParentAgentID, &e.RequestClass,
		&e.Client, &e.ClientVersion, &e.ClientRequestID, &e.UpstreamRequestID,
	}
	texts := usual[:]
	for i := range e.Tools {
		texts = append(texts, &e.Tools[i].Name)
	}
	valid := true // each alone: two halves of a character can join
	for _, t := range texts {
		size += len(*t)
		valid = valid && utf8.ValidString(*t)
	}
	var joined strings.Builder
	joined.Grow(size)
	for _, t := range texts {
		joined.WriteString(*t)
	}
	rest := joined.String()
	if !valid { // JSON has other characters in its place
		*e, err = decode(s.body, "", 0)
		return len(s.body), err
	}
	for _, t := range texts {
		*t, rest = rest[:len(*t)], rest[len(*t):]
	}
	return size + len(e.Usage), nil
}

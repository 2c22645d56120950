package anthropic

import (
	"bytes"
	"iter"
	"slices"
	"strconv"
)

// maxCount is the largest number of tokens that is taken for one, also as a sum over sampling runs.
const maxCount = 1 << 53

// maxIterations bounds how many sampling runs of one response are kept.
const maxIterations = 256

// maxRawUsage bounds the raw usage object that is kept for re-rating, in bytes.
const maxRawUsage = 16 << 10

// Usage is what a response says it cost, in tokens. A number that the response leaves out or sets to null is 0.
type Usage struct {
	Input          int64 // uncached input after the last cache breakpoint
	Output         int64 // everything generated, thinking included
	CacheRead      int64
	CacheWrite5m   int64 // written with the five-minute lifetime, or with no stated one
	CacheWrite1h   int64
	Thinking       int64 // part of Output and informative: never add it
	WebSearches    int64 // server tool requests
	WebFetches     int64
	CodeExecutions int64

	ServiceTier  string // "standard", "priority", "batch"; "" when not stated
	InferenceGeo string // "global", "us", …; "" when not stated
	Speed        string // "standard", "fast"; "" when not stated

	Iterations []Iteration // the sampling runs behind the message; empty for an ordinary response
}

// Iteration is one sampling run. With server-side features (compaction, advisor, fallback) a response can stand for several, which may be
// of different models.
type Iteration struct {
	Type  string // "message", "compaction", "advisor_message", "fallback_message", or one that is not known yet
	Model string // "" stands for the requested model

	Input, Output, CacheRead, CacheWrite5m, CacheWrite1h int64
}

// Prompt is the size of the whole prompt: uncached input, cache reads and cache writes.
func (u Usage) Prompt() int64 { return u.Input + u.CacheRead + u.CacheWrite5m + u.CacheWrite1h }

// Billed returns the sampling runs that cost money, each to be priced by its own model. A response without iterations is one run.
//
// The top-level counts and the iterations describe the same tokens and are never added: the top level leaves out compaction, advisor and
// replaced attempts, the iterations leave out nothing. One kind of run is reported and free: an attempt that declined before any
// output and was replaced by a fallback model.
func (u Usage) Billed() iter.Seq[Iteration] {
	return func(yield func(Iteration) bool) {
		if len(u.Iterations) == 0 {
			yield(Iteration{"message", "", u.Input, u.Output, u.CacheRead, u.CacheWrite5m, u.CacheWrite1h})
			return
		}
		fallback := slices.ContainsFunc(u.Iterations, func(it Iteration) bool { return it.Type == "fallback_message" })
		for _, it := range u.Iterations {
			if free := fallback && it.Type == "message" && it.Output == 0; !free && !yield(it) {
				return
			}
		}
	}
}

// BilledTotal is u with the five token counts summed over [Usage.Billed]: what a quota counts when it does not tell models apart.
func (u Usage) BilledTotal() Usage {
	t := u
	t.Input, t.Output, t.CacheRead, t.CacheWrite5m, t.CacheWrite1h = 0, 0, 0, 0, 0
	add := func(to *int64, n int64) { *to = min(*to+n, maxCount) }
	for it := range u.Billed() {
		add(&t.Input, it.Input)
		add(&t.Output, it.Output)
		add(&t.CacheRead, it.CacheRead)
		add(&t.CacheWrite5m, it.CacheWrite5m)
		add(&t.CacheWrite1h, it.CacheWrite1h)
	}
	return t
}

// WithOutput is u with further output, which is the message's own.
func (u Usage) WithOutput(more int64) Usage {
	u.Output += more
	if it := u.message(); it != nil {
		it.Output += more
	}
	return u
}

// ForAnHour is u, of which raw is the report, for a request that asked for the lifetime of an hour for all that it caches: writes that the
// report does not divide by lifetime are such. A growth of divided ones stays with the five minutes, which is how server tools write.
func (u Usage) ForAnHour(raw []byte) Usage {
	move := func(object []byte, fiveMinutes, oneHour *int64) {
		var w cacheWrites
		for m := range members(object) {
			w.member(m)
		}
		if w.hasTotal && !w.hasSplit {
			*fiveMinutes, *oneHour = 0, w.total
		}
	}
	move(raw, &u.CacheWrite5m, &u.CacheWrite1h)
	u.Iterations = slices.Clone(u.Iterations)
	for m := range members(raw) {
		if string(m.name) != "iterations" {
			continue
		}
		runs := u.Iterations
		for element := range elements(m.value) {
			if len(runs) == 0 {
				break
			}
			move(element, &runs[0].CacheWrite5m, &runs[0].CacheWrite1h)
			runs = runs[1:]
		}
	}
	return u
}

// message gives u iterations of its own and returns the one that the message is, the last of its kind, or nil.
func (u *Usage) message() *Iteration {
	u.Iterations = slices.Clone(u.Iterations)
	for i := len(u.Iterations) - 1; i >= 0; i-- {
		if it := &u.Iterations[i]; it.Type == "message" || it.Type == "fallback_message" {
			return it
		}
	}
	return nil
}

// ParseUsage reads a usage object as a [Meter] gives it in [Result].Raw. What it does not understand is 0.
func ParseUsage(object []byte) Usage {
	var u Usage
	u.update(object)
	return u
}

// update overwrites u with what a usage object states; counts are cumulative, so nothing is ever added. null and unknown members
// change nothing. It reports whether the object has a count of the prompt and one of the output.
func (u *Usage) update(object []byte) (prompt, output bool) {
	var w cacheWrites
	for m := range members(object) {
		switch string(m.name) {
		case "input_tokens":
			prompt = m.number(&u.Input) || prompt
		case "output_tokens":
			output = m.number(&u.Output)
		case "cache_read_input_tokens":
			prompt = m.number(&u.CacheRead) || prompt
		case "output_tokens_details":
			for d := range members(m.value) {
				if string(d.name) == "thinking_tokens" {
					d.number(&u.Thinking)
				}
			}
		case "server_tool_use":
			u.serverTools(m.value)
		case "service_tier":
			m.word(&u.ServiceTier)
		case "inference_geo":
			m.word(&u.InferenceGeo)
		case "speed":
			m.word(&u.Speed)
		case "iterations":
			u.iterations(m.value)
		default:
			w.member(m)
		}
	}
	w.apply(&u.CacheWrite5m, &u.CacheWrite1h)
	runs := len(u.Iterations) > 0
	return prompt || w.hasTotal || w.hasSplit || runs, output || runs
}

func (u *Usage) serverTools(object []byte) {
	for m := range members(object) {
		switch string(m.name) {
		case "web_search_requests":
			m.number(&u.WebSearches)
		case "web_fetch_requests":
			m.number(&u.WebFetches)
		case "code_execution_requests":
			m.number(&u.CodeExecutions)
		}
	}
}

func (u *Usage) iterations(array []byte) {
	var list []Iteration
	for element := range elements(array) {
		if len(list) == maxIterations {
			break
		}
		var it Iteration
		var w cacheWrites
		for m := range members(element) {
			switch string(m.name) {
			case "type":
				m.word(&it.Type)
			case "model":
				it.Model = string(bounded(m.text(), maxModel))
			case "input_tokens":
				m.number(&it.Input)
			case "output_tokens":
				m.number(&it.Output)
			case "cache_read_input_tokens":
				m.number(&it.CacheRead)
			default:
				w.member(m)
			}
		}
		w.apply(&it.CacheWrite5m, &it.CacheWrite1h)
		list = append(list, it)
	}
	if list != nil {
		u.Iterations = list
	}
}

// cacheWrites collects what a usage object says about cache writes: a total, its division by lifetime, both or neither.
type cacheWrites struct {
	total, fiveMinutes, oneHour int64
	hasTotal, hasSplit          bool
}

func (w *cacheWrites) member(m member) {
	switch string(m.name) {
	case "cache_creation_input_tokens":
		w.hasTotal = m.number(&w.total)
	case "cache_creation":
		for d := range members(m.value) {
			switch string(d.name) {
			case "ephemeral_5m_input_tokens":
				w.hasSplit = d.number(&w.fiveMinutes) || w.hasSplit
			case "ephemeral_1h_input_tokens":
				w.hasSplit = d.number(&w.oneHour) || w.hasSplit
			}
		}
	}
}

// apply overwrites the two counts. What a total holds beyond its stated division counts as five-minute writes: server tools write with
// that lifetime, and it is the default.
func (w *cacheWrites) apply(fiveMinutes, oneHour *int64) {
	if w.hasSplit {
		*fiveMinutes, *oneHour = w.fiveMinutes, w.oneHour
	}
	if w.hasTotal {
		if !w.hasSplit {
			*oneHour = min(*oneHour, w.total)
		}
		if rest := w.total - *oneHour; rest > *fiveMinutes || !w.hasSplit {
			*fiveMinutes = rest
		}
	}
}

// number overwrites to when the value is a number ≥ 0, and reports whether it did. Fractions are cut off.
func (m member) number(to *int64) bool {
	if !m.whole || len(m.value) > 32 {
		return false
	}
	n, err := strconv.ParseInt(string(m.value), 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(string(m.value), 64)
		if err != nil || f > maxCount {
			return false
		}
		n = int64(f)
	}
	if n < 0 || n > maxCount {
		return false
	}
	*to = n
	return true
}

// unread reports whether a usage object states a count of tokens that is no such number, of the message or of a sampling run, and whether
// it is one of the output.
func unread(object []byte) (doubtful, output bool) {
	count := func(m member) {
		var n int64
		switch name := string(m.name); name {
		case "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
			"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens":
			if string(m.value) != "null" && !m.number(&n) {
				doubtful, output = true, output || name == "output_tokens"
			}
		}
	}
	run := func(object []byte) {
		for m := range members(object) {
			count(m)
			if string(m.name) == "cache_creation" {
				for d := range members(m.value) {
					count(d)
				}
			}
		}
	}
	run(object)
	for m := range members(object) {
		if string(m.name) == "iterations" {
			runs := 0
			for element := range elements(m.value) {
				run(element)
				runs++
			}
			doubtful = doubtful || runs > maxIterations
		}
	}
	return doubtful, output
}

// word overwrites to when the value is a short string.
func (m member) word(to *string) {
	if b := m.text(); len(b) > 0 && len(b) <= maxWord {
		*to = word(b)
	}
}

// word is b as a string of at most maxWord bytes. The words that nearly every response contains cost no memory.
func word(b []byte) string {
	for _, known := range [...]string{
		"standard", "priority", "batch", "fast", "global", "us", "not_available", "message",
		"end_turn", "tool_use", "max_tokens", "stop_sequence", "pause_turn", "refusal",
	} {
		if string(b) == known {
			return known
		}
	}
	return string(bounded(b, maxWord))
}

// maxRawMembers bounds the members of a raw usage object: they are compared with each other. The API knows about ten.
const maxRawMembers = 128

// mergeUsage returns old overwritten member by member with update, as JSON. null overwrites nothing. A result beyond maxRawUsage or
// maxRawMembers, or an update that is not an object, leaves old. It changes neither.
func mergeUsage(old, update []byte) []byte {
	if len(update) == 0 || update[0] != '{' || len(old)+len(update) > maxRawUsage {
		return old
	}
	merged := make([]usageMember, 0, 16)
	for m := range members(old) {
		merged = append(merged, usageMember{m.name, m.value, nil})
	}
	known := len(merged)
	for m := range members(update) {
		i := slices.IndexFunc(merged, func(other usageMember) bool { return bytes.Equal(other.name, m.name) })
		switch {
		case !m.whole, i < 0 && len(merged) == maxRawMembers:
			return old
		case i < 0:
			merged = append(merged, usageMember{m.name, nil, m.value})
		default:
			merged[i].newer = m.value
		}
	}
	out := append(make([]byte, 0, len(old)+len(update)+len("{}")), '{')
	for i, m := range merged {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendName(out, m.name), ':')
		if i >= known || m.newer != nil && string(m.newer) != "null" {
			m.value = m.newer
		}
		out = append(out, m.value...)
	}
	return slices.Clip(append(out, '}'))
}

// usageMember is a member of a usage object, of which there may be a newer value.
type usageMember struct{ name, value, newer []byte }

// appendName appends a name as a JSON string.
func appendName(b, name []byte) []byte {
	if stop, _ := plainText(name); stop < len(name) {
		return appendQuoted(b, string(name))
	}
	return append(append(append(b, '"'), name...), '"')
}

// bounded cuts b to at most n bytes of whole characters.
func bounded(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	return b[:validPrefix(b[:n])]
}

package sim

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// maxCached bounds the simulated prompt cache: the oldest entries make room.
const maxCached = 20_000

// tokens is the simulator's tokenizer: four bytes a token, rounded up.
func tokens(bytes int) int64 { return int64(bytes+3) / 4 }

// segment is a piece of the prompt in the order in which prefixes grow: tools, system, messages.
type segment struct {
	key    [32]byte // of the whole prompt up to and including this segment
	tokens int64    // of the whole prompt up to and including this segment
	cache  *cacheControl
}

// segments measures a prompt.
func (q *request) segments() []segment {
	var list []segment
	sum, total := sha256.New(), int64(0)
	add := func(kind string, text []byte, cache *cacheControl) {
		total += tokens(len(text))
		list = append(list, segment{key: extend(sum, kind, text), tokens: total, cache: cache})
	}
	for _, t := range q.Tools {
		add("tool", withoutCache(t.raw), t.Cache)
	}
	for i, b := range q.System {
		if i == 0 && strings.HasPrefix(b.Text, "x-anthropic-billing-header:") {
			continue
		}
		add("system", b.counted(), b.Cache)
	}
	for _, m := range q.Messages {
		for _, b := range m.Blocks {
			add(m.Role, b.counted(), b.Cache)
		}
	}
	if q.CacheAll != nil && len(list) > 0 && list[len(list)-1].cache == nil {
		list[len(list)-1].cache = q.CacheAll
	}
	return list
}

// extend feeds the running hash of the prompt and returns its value so far.
func extend(sum hash.Hash, kind string, text []byte) [32]byte {
	part := sha256.Sum256(text)
	_, _ = sum.Write([]byte(kind))
	_, _ = sum.Write(part[:])
	return [32]byte(sum.Sum(nil))
}

// counted returns the bytes of a block that are prompt.
func (b block) counted() []byte {
	if b.Type == "text" {
		return []byte(b.Text)
	}
	return withoutCache(b.Raw)
}

// withoutCache returns a JSON object's bytes, compact and without its own cache_control member, which moves from turn to turn.
func withoutCache(raw jsontext.Value) []byte {
	compact := raw.Clone()
	if compact.Compact(jsontext.AllowDuplicateNames(true)) != nil || !bytes.Contains(compact, []byte(`"cache_control"`)) {
		return compact
	}
	dec := jsontext.NewDecoder(bytes.NewReader(compact), jsontext.AllowDuplicateNames(true))
	if _, err := dec.ReadToken(); err != nil {
		return compact
	}
	out := append(make([]byte, 0, len(compact)), '{')
	for dec.PeekKind() == '"' {
		name, err := dec.ReadValue()
		if err != nil {
			return compact
		}
		name = name.Clone()
		value, err := dec.ReadValue()
		if err != nil {
			return compact
		}
		if string(name) == `"cache_control"` {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}')
}

// promptUsage is the input side of the bill.
type promptUsage struct {
	input, read, write5m, write1h int64
}

// promptCache remembers prompt prefixes until they expire. It is guarded by Server.mu.
type promptCache struct {
	until map[[32]byte]time.Time
	order [][32]byte
}

func (c *promptCache) put(key [32]byte, until time.Time) {
	if _, ok := c.until[key]; !ok {
		c.order = append(c.order, key)
	}
	c.until[key] = until
	for len(c.order) > maxCached {
		delete(c.until, c.order[0])
		c.order = c.order[1:]
	}
}

// bill looks a prompt up in the cache, remembers it and returns what it costs. scope separates credentials and models.
func (c *promptCache) bill(list []segment, scope string, now time.Time) promptUsage {
	var p promptUsage
	if len(list) == 0 {
		return p
	}
	last := -1
	for i, seg := range list {
		if seg.cache != nil {
			last = i
		}
	}
	total := list[len(list)-1].tokens
	if last < 0 {
		return promptUsage{input: total}
	}
	keyOf := func(seg segment) [32]byte {
		return sha256.Sum256(append([]byte(scope), seg.key[:]...))
	}
	hit := -1
	for i := last; i >= 0; i-- {
		if until, ok := c.until[keyOf(list[i])]; ok && now.Before(until) {
			hit, p.read = i, list[i].tokens
			break
		}
	}
	seen := p.read
	for i, seg := range list[:last+1] {
		if seg.cache == nil {
			continue
		}
		life := 5 * time.Minute
		long := seg.cache.TTL == "1h"
		if long {
			life = time.Hour
		}
		c.put(keyOf(seg), now.Add(life))
		if i <= hit {
			continue
		}
		if long {
			p.write1h += seg.tokens - seen
		} else {
			p.write5m += seg.tokens - seen
		}
		seen = seg.tokens
	}
	p.input = total - list[last].tokens
	return p
}

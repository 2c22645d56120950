package price

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// model is one model's prices over time.
type model struct {
	id        string
	rows      []row // ascending by from
	fast      uint64
	fastUntil time.Time // zero: open
	us        uint64
	regional  bool // dearer on regional endpoints of clouds that ask for it
}

// row is what holds from an instant on, until the next row.
type row struct {
	from       time.Time
	tiers      []tier // ascending by upTo; the last takes every prompt
	negotiated bool   // agreed for one upstream: neither its discount nor a premium for its place applies
}

// tier is the rates of prompts of up to so many tokens.
type tier struct {
	upTo int64
	rates
	fast uint64 // 0: that of the model
	rule string // what [Cost.Rule] says
}

// rates are pico-dollars per token. One dollar per million tokens is 1 000 000.
type rates struct{ input, cacheWrite5m, cacheWrite1h, cacheRead, output uint64 }

// noLessThan reports whether no rate is lower than in other.
func (r rates) noLessThan(other rates) bool {
	return r.input >= other.input && r.cacheWrite5m >= other.cacheWrite5m && r.cacheWrite1h >= other.cacheWrite1h &&
		r.cacheRead >= other.cacheRead && r.output >= other.output
}

// at is the row that holds at an instant. Before the first row it is the first, and held is false.
func (m *model) at(instant time.Time) (r *row, held bool) {
	for i := len(m.rows) - 1; i >= 0; i-- {
		if !instant.Before(m.rows[i].from) {
			return &m.rows[i], true
		}
	}
	return &m.rows[0], false
}

func (r *row) tier(prompt int64) *tier {
	for i := range r.tiers {
		if prompt <= r.tiers[i].upTo {
			return &r.tiers[i]
		}
	}
	return &r.tiers[len(r.tiers)-1]
}

// fastAt is the factor of fast mode at an instant, 0 where none is known.
func (m *model) fastAt(instant time.Time, t *tier) uint64 {
	switch {
	case t.fast != 0:
		return t.fast
	case !m.fastUntil.IsZero() && !instant.Before(m.fastUntil):
		return 0
	default:
		return m.fast
	}
}

// with returns the model with further rows, which replace its own from the first of them on.
func (m *model) with(rows []row) *model {
	changed := *m
	first := rows[0].from
	changed.rows = slices.DeleteFunc(slices.Clone(m.rows), func(r row) bool { return !r.from.Before(first) })
	changed.rows = append(changed.rows, rows...)
	return &changed
}

// label puts a rule to every tier of a row: which price it is, for people.
func (r *row) label(what string) {
	if r.from.After(always()) {
		what += " since " + r.from.Format(time.DateOnly)
	}
	for i := range r.tiers {
		t := &r.tiers[i]
		t.rule = what
		switch {
		case t.upTo != math.MaxInt64:
			t.rule += ", prompt up to " + strconv.FormatInt(t.upTo, 10)
		case i > 0:
			t.rule += ", prompt above " + strconv.FormatInt(r.tiers[i-1].upTo, 10)
		}
	}
}

// always is where rows begin of which no earlier price is known.
func always() time.Time { return time.Unix(0, 0).UTC() }

// generation reads 405 from claude-opus-4-5 and from claude-3-5-haiku 305; 0 from what is no id of that kind.
func generation(id string) int {
	parts := strings.Split(id, "-")
	if parts[0] != "claude" {
		return 0
	}
	parts = parts[1:]
	number := func() (n int, ok bool) {
		if len(parts) == 0 || len(parts[0]) > 2 { // longer ones are dates
			return 0, false
		}
		n, err := strconv.Atoi(parts[0])
		if err == nil {
			parts = parts[1:]
		}
		return n, err == nil
	}
	major, ok := number()
	if !ok && len(parts) > 0 {
		parts = parts[1:] // the family
		major, ok = number()
	}
	if !ok {
		return 0
	}
	minor, _ := number()
	return major*100 + minor
}

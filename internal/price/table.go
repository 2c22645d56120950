package price

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Table is what everything costs, at any time. It does not change.
type Table struct {
	asOf    string
	version string

	list      book
	upstreams map[string]*agreement
	unknown   *model

	fast, batch, us uint64              // the largest factor of fast mode, and those of the batch API and of inference in the US
	endpoints       map[Provider]uint64 // on endpoints that are not global
	webSearch       uint64              // pico-dollars each
}

// agreement is what the operator says of one upstream.
type agreement struct {
	models    book
	discounts []discount
}

// New returns the published prices under the operator's. The error is [Problems]: everything that is wrong with the Overlay.
func New(o Overlay) (*Table, error) { return build(publishedJSON, o) }

func build(document []byte, o Overlay) (*Table, error) {
	t, err := load(document)
	if err != nil {
		return nil, fmt.Errorf("cannot read the published prices: %w", err)
	}
	changes := o.read(t.list.canonical)
	if len(changes.problems) > 0 {
		return nil, changes.problems
	}
	t.apply(changes)
	own, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("cannot tell the version of the prices: %w", err)
	}
	digest := sha256.Sum256(slices.Concat(document, own))
	t.version = t.asOf + "-" + hex.EncodeToString(digest[:4])
	return t, nil
}

// Version names the table: the day of the published prices and a digest of them and the Overlay, as 2026-11-23-1f0a9c42.
func (t *Table) Version() string { return t.version }

func (t *Table) apply(c *changes) {
	t.override(&t.list, c.models[""])
	t.upstreams = map[string]*agreement{}
	agree := func(upstream string) *agreement {
		if t.upstreams[upstream] == nil {
			t.upstreams[upstream] = &agreement{models: newBook()}
		}
		return t.upstreams[upstream]
	}
	for upstream, models := range c.models {
		if upstream != "" {
			t.override(&agree(upstream).models, models)
		}
	}
	for upstream, discounts := range c.discounts {
		agree(upstream).discounts = discounts
	}
	if c.unknown != nil {
		t.unknown.rows[0].tiers[0].rates = *c.unknown
	}
	if c.webSearch != nil {
		t.webSearch = *c.webSearch
	}
}

// override puts the operator's rows into a book, each over what the book or else the list says of the model.
func (t *Table) override(into *book, models map[string][]row) {
	ids := make([]string, 0, len(models))
	for id := range models {
		ids = append(ids, id)
	}
	// A dated or regional id inherits from the plain one, which is shorter and so comes first.
	slices.SortFunc(ids, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	for _, id := range ids {
		m := &model{id: id, us: one, regional: generation(id) >= 405}
		if generation(id) >= 406 {
			m.us = t.us
		}
		base, _ := into.find(id)
		if base == nil {
			base, _ = t.list.find(id)
		}
		names := []string{id}
		if base != nil {
			m = base
			if base.id == id {
				names = t.list.names(id)
			}
		}
		m = m.with(models[id])
		m.id = id
		for _, name := range names {
			into.add(name, m)
		}
	}
}

// Knows reports whether a model has a price, also one that is agreed for a single upstream.
func (t *Table) Knows(id string) bool {
	m, _ := t.list.find(id)
	for _, a := range t.upstreams {
		if m == nil {
			m, _ = a.models.find(id)
		}
	}
	return m != nil
}

// Models are the ids that have a price, sorted: those of every list, under every name that they go by.
func (t *Table) Models() []string {
	ids := map[string]bool{}
	for id := range t.list.models {
		ids[id] = true
	}
	for _, a := range t.upstreams {
		for id := range a.models.models {
			ids[id] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// find looks an id up among what is agreed for the upstream, then in the list.
func (t *Table) find(upstream, id string) (m *model, fast bool) {
	if a := t.upstreams[upstream]; a != nil {
		if m, fast = a.models.find(id); m != nil {
			return m, fast
		}
	}
	return t.list.find(id)
}

// place finds the model behind the first of the ids that says one. A Claude id that is not known is never replaced by the next one: it would
// be priced as a model that it is not.
func (t *Table) place(upstream string, ids [3]string) *model {
	for _, id := range ids {
		if id == "" {
			continue
		}
		if m, _ := t.find(upstream, id); m != nil {
			return m
		}
		if isClaude(id) {
			return nil
		}
	}
	return nil
}

// discountAt is the factor of an upstream at an instant, in ten-thousandths.
func (t *Table) discountAt(upstream string, at time.Time) uint64 {
	factor := uint64(fullPrice)
	if a := t.upstreams[upstream]; a != nil {
		for _, d := range a.discounts {
			if !at.Before(d.from) {
				factor = d.factor
			}
		}
	}
	return factor
}

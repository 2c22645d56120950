package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"carpool/internal/price"
)

// Prices is what the operator says about prices. Its rows are the types of package price, which also checks them.
type Prices struct {
	Models      []price.Rates    `key:"models" doc:"Rates of models, in dollars per million tokens: model, upstream, from, upTo, input, output, cacheRead, cacheWrite5m, cacheWrite1h, fast."`
	Discounts   []price.Discount `key:"discounts" doc:"Factors on the prices of whole upstreams: upstream, from, multiplier."`
	Unknown     *price.Rates     `key:"unknown" shown:"5 in, 25 out" doc:"Rates of models that have no price: input, output, cacheRead, cacheWrite5m, cacheWrite1h. What is charged by them is marked unpriced."`
	WebSearches json.Number      `key:"webSearches" shown:"as published" doc:"Dollars for 1000 web searches."`
}

// Overlay is p as package price takes it.
func (p Prices) Overlay() price.Overlay {
	o := price.Overlay{Models: p.Models, Discounts: p.Discounts, Unknown: p.Unknown, WebSearches: p.WebSearches}
	if len(o.Models) == 0 {
		o.Models = nil
	}
	if len(o.Discounts) == 0 {
		o.Discounts = nil
	}
	return o
}

func (p Prices) text() string {
	var parts []string
	for _, n := range []struct {
		count int
		of    string
	}{{len(p.Models), "row"}, {len(p.Discounts), "discount"}} {
		switch {
		case n.count == 1:
			parts = append(parts, "1 "+n.of)
		case n.count > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n.count, n.of))
		}
	}
	if p.Unknown != nil {
		parts = append(parts, "rates of unknown models")
	}
	if p.WebSearches != "" {
		parts = append(parts, "web searches")
	}
	if len(parts) == 0 {
		return "as published"
	}
	return "as published but for " + strings.Join(parts, ", ")
}

// prices has package price check the section as a whole.
func (d *decoder) prices() {
	_, err := price.New(d.config.Prices.Overlay())
	wrong, ok := errors.AsType[price.Problems](err)
	if !ok && err != nil {
		d.problemOf("prices", err.Error())
	}
	for _, p := range wrong {
		d.problemIn(p.Key, p.Message)
	}
}

// problemIn reports a problem of a value inside a key, at the nearest place that is known: what is missing has none of its own.
func (d *decoder) problemIn(path, message string) {
	at := path
	for at != "" {
		if o, ok := d.origins[at]; ok {
			d.problems = append(d.problems, Problem{Source: o.source, Line: o.line, Column: o.column, Key: path, Message: message})
			return
		}
		at = at[:max(0, strings.LastIndexAny(at, ".["))]
	}
	d.problemOf(path, message)
}

func (d *decoder) number(path string, n *node, p *json.Number) bool {
	if n.kind != numberNode {
		message := "expected a number, found " + n.describe()
		if n.kind == textNode && isNumber(n.text) {
			message += "; remove the quotes"
		}
		d.problemAt(n, path, message)
		return false
	}
	*p = json.Number(n.text)
	return true
}

// records reads a list of maps, each into a struct.
func records[T any](d *decoder, f field, path string, n *node, p *[]T) bool {
	if n.kind != listNode {
		d.problemAt(n, path, "expected a list of maps, found "+n.describe())
		return false
	}
	ok := true
	out := make([]T, len(n.items))
	for i, item := range n.items {
		ok = d.record(f, fmt.Sprintf("%s[%d]", path, i), item, reflect.ValueOf(&out[i]).Elem()) && ok
	}
	*p = out
	return ok
}

// record reads a map into a struct, whose keys are the names that it has in JSON.
func (d *decoder) record(f field, path string, n *node, v reflect.Value) bool {
	if n.kind != mapNode {
		d.problemAt(n, path, "expected a map of keys, found "+n.describe())
		return false
	}
	d.remember(path, n)
	ok := true
	keys := recordKeys(v.Type())
	for _, e := range n.entries {
		at := join(path, shorten(e.key))
		i := slices.Index(keys, e.key)
		switch {
		case i < 0:
			d.problemAt(&node{line: e.line, column: e.column}, at, "unknown key; "+suggestKey(e.key, keys))
			ok = false
		case e.value.kind == nullNode:
			d.problemAt(e.value, at, "has no value; give one or remove the line")
			ok = false
		default:
			d.remember(at, e.value)
			ok = d.convert(f, at, e.value, v.Field(i)) && ok
		}
	}
	return ok
}

func suggestKey(key string, keys []string) string {
	if near, ok := nearest(key, keys); ok {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "known keys here: " + strings.Join(keys, ", ")
}

// recordKeys are the keys of a struct in the order of its fields.
func recordKeys(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return keys
}

// flowRecord writes the keys of a struct that have a value.
func flowRecord(v reflect.Value) (string, error) {
	var parts []string
	for i, key := range recordKeys(v.Type()) {
		if v.Field(i).IsZero() {
			continue
		}
		text, err := flow(v.Field(i))
		if err != nil {
			return "", err
		}
		parts = append(parts, key+": "+text)
	}
	return "{" + strings.Join(parts, ", ") + "}", nil
}

// recordSchema describes a struct; what JSON never omits of it is required, and what else is named.
func recordSchema(t reflect.Type, required ...string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
	for i, key := range recordKeys(t) {
		item := &jsonschema.Schema{Type: "string"}
		switch t.Field(i).Type {
		case reflect.TypeFor[json.Number]():
			item = &jsonschema.Schema{Type: "number", Minimum: "0"}
		case reflect.TypeFor[int64]():
			item = &jsonschema.Schema{Type: "integer", Minimum: "0"}
		}
		s.Properties.Set(key, item)
		if !strings.Contains(t.Field(i).Tag.Get("json"), ",omitempty") {
			s.Required = append(s.Required, key)
		}
	}
	for _, key := range required {
		if _, has := s.Properties.Get(key); has {
			s.Required = append(s.Required, key)
		}
	}
	return s
}

package config

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"carpool/internal/price"
)

// Layers in the order in which they apply; a later one wins.
const (
	layerDefault = iota
	layerFile
	layerEnv
	layerFlag
)

// origin is where a value came from.
type origin struct {
	layer        int
	source       string
	line, column int
}

// decoder writes layers of nodes into a Config and remembers where each value
// came from.
type decoder struct {
	config   *Config
	fields   []field
	byPath   map[string]field
	baseDir  string
	origins  map[string]origin
	problems Problems
	warnings []string

	layer  int
	source string
}

func newDecoder(baseDir string) *decoder {
	d := &decoder{config: new(Config), fields: fields(), baseDir: baseDir, origins: make(map[string]origin)}
	d.byPath = make(map[string]field, len(d.fields))
	for _, f := range d.fields {
		d.byPath[f.path] = f
	}
	return d
}

func (d *decoder) value(f field) reflect.Value {
	return reflect.ValueOf(d.config).Elem().FieldByIndex(f.index)
}

// problemAt reports a problem at a node of the layer being read.
func (d *decoder) problemAt(n *node, path, message string) {
	d.problems = append(d.problems, Problem{Source: d.source, Line: n.line, Column: n.column, Key: path, Message: message})
}

// problemOf reports a problem of a value by its key, at the place it came from.
func (d *decoder) problemOf(path, message string) {
	o := d.origins[path]
	d.problems = append(d.problems, Problem{Source: o.source, Line: o.line, Column: o.column, Key: path, Message: message})
}

// given reports whether a key was set by anything but its default.
func (d *decoder) given(path string) bool { return d.origins[path].layer > layerDefault }

// section reads a map into the section at path; the empty path is the whole file.
func (d *decoder) section(n *node, path string) {
	if n == nil || (n.kind == nullNode && path == "") {
		return
	}
	if n.kind == nullNode { // "node:" with every key commented out
		return
	}
	if n.kind != mapNode {
		d.problemAt(n, path, "expected a map of keys, found "+n.describe())
		return
	}
	for _, e := range n.entries {
		f, known := d.byPath[join(path, e.key)]
		switch {
		case !known || strings.Contains(e.key, "."):
			at := &node{line: e.line, column: e.column}
			d.problemAt(at, join(path, shorten(e.key)), "unknown key; "+d.suggest(path, e.key))
		case f.section:
			d.section(e.value, f.path)
		case e.value.kind == nullNode && f.typ.Kind() != reflect.Interface:
			d.problemAt(e.value, f.path, "has no value; give one or remove the line")
		default:
			d.assign(f, e.value)
		}
	}
}

// suggest says what may have been meant by an unknown key of a section.
func (d *decoder) suggest(path, key string) string {
	if path == "" {
		switch key {
		case "upstreams", "routes", "users", "keys", "teams", "aliases", "budgets":
			return "it belongs in the file named by the key resources (see 'carpool apply')"
		}
	}
	var siblings []string
	elsewhere := ""
	for _, f := range d.fields {
		parent, last := "", f.path
		if i := strings.LastIndexByte(f.path, '.'); i >= 0 {
			parent, last = f.path[:i], f.path[i+1:]
		}
		if parent == path {
			siblings = append(siblings, last)
		} else if strings.EqualFold(last, key) && elsewhere == "" {
			elsewhere = f.path
		}
	}
	if near, ok := nearest(key, siblings); ok {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if f, ok := d.byPath[key]; ok && path == "" {
		section, last, _ := strings.Cut(f.path, ".")
		return fmt.Sprintf("write the section %s with the key %s in it", section, last)
	}
	if elsewhere != "" {
		return fmt.Sprintf("did you mean %q?", elsewhere)
	}
	return "known keys here: " + strings.Join(siblings, ", ")
}

// setText sets a key from text, as environment, flags and defaults give it.
func (d *decoder) setText(f field, text string) {
	report := func(message string) {
		d.problems = append(d.problems, Problem{Source: d.source, Key: f.path, Message: message})
	}
	if !utf8.ValidString(text) {
		report("is not valid UTF-8")
		return
	}
	d.assign(f, textValue(f, text, report))
}

// textValue reads text as a value for f: lists may be separated by commas, maps
// written as name=value; both also in YAML's or JSON's own form.
func textValue(f field, text string, report func(string)) *node {
	kind := f.typ.Kind()
	if kind == reflect.String && f.typ != reflect.TypeFor[json.Number]() {
		return &node{kind: textNode, text: text}
	}
	text = strings.TrimSpace(text)
	composite := kind == reflect.Slice || kind == reflect.Map || kind == reflect.Interface || f.typ == reflect.TypeFor[*price.Rates]()
	if !composite {
		return scalar(text)
	}
	if strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		n, problems := parse([]byte(text), "")
		for _, p := range problems {
			report(p.Message)
		}
		if n == nil {
			return nil
		}
		n.forgetPosition()
		return n
	}
	out := &node{kind: listNode}
	if kind == reflect.Map && strings.Contains(text, "=") {
		out.kind = mapNode
	}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if out.kind == listNode {
			out.items = append(out.items, &node{kind: textNode, text: part})
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		out.entries = append(out.entries, entry{key: strings.TrimSpace(name), value: scalar(strings.TrimSpace(value))})
	}
	return out
}

func (n *node) forgetPosition() {
	n.line, n.column = 0, 0
	for _, item := range n.items {
		item.forgetPosition()
	}
	for i := range n.entries {
		n.entries[i].line, n.entries[i].column = 0, 0
		n.entries[i].value.forgetPosition()
	}
}

// assign converts a node to the type of its key and stores it.
func (d *decoder) assign(f field, n *node) {
	if n == nil {
		return
	}
	v := reflect.New(f.typ).Elem()
	if !d.convert(f, f.path, n, v) {
		return
	}
	if f.isPath && d.layer == layerFile {
		if p := v.String(); p != "" && !filepath.IsAbs(p) && d.baseDir != "" && !strings.HasPrefix(p, "~") {
			v.SetString(filepath.Join(d.baseDir, p))
		}
	}
	d.value(f).Set(v)
	d.remember(f.path, n)
}

func (d *decoder) remember(path string, n *node) {
	d.origins[path] = origin{layer: d.layer, source: d.source, line: n.line, column: n.column}
}

// convert stores n in v, which has one of the types that Config uses.
func (d *decoder) convert(f field, path string, n *node, v reflect.Value) bool {
	switch p := v.Addr().Interface().(type) {
	case *string:
		return d.text(f, path, n, p)
	case *Secret:
		return d.secret(path, n, p)
	case *bool:
		if n.kind != boolNode {
			d.problemAt(n, path, "expected true or false, found "+n.describe())
			return false
		}
		*p = n.text == "true"
		return true
	case *int:
		i, ok := d.integer(path, n)
		*p = int(i)
		return ok
	case *int64:
		i, ok := d.integer(path, n)
		*p = i
		return ok
	case **int64:
		i, ok := d.integer(path, n)
		*p = &i
		return ok
	case *time.Duration:
		return d.duration(path, n, p)
	case *Weight:
		return d.weight(path, n, p)
	case *[]string:
		return d.texts(f, path, n, p)
	case *map[string]string:
		return d.textMap(path, n, p)
	case *map[string]bool:
		return d.switches(path, n, p)
	case *any:
		return d.free(path, n, p)
	case *json.Number:
		return d.number(path, n, p)
	case *[]price.Rates:
		return records(d, f, path, n, p)
	case *[]price.Discount:
		return records(d, f, path, n, p)
	case **price.Rates:
		*p = new(price.Rates)
		return d.record(f, path, n, reflect.ValueOf(*p).Elem())
	}
	d.problemAt(n, path, "has a type that the loader does not know")
	return false
}

func (d *decoder) text(f field, path string, n *node, p *string) bool {
	if n.kind == textNode {
		*p = n.text
		return true
	}
	message := "expected text, found " + n.describe()
	switch {
	case len(f.enum) > 0:
		message = "expected one of " + strings.Join(f.enum, ", ") + "; found " + n.describe()
	case n.kind == boolNode || n.kind == numberNode:
		message += "; put it in quotes"
	}
	d.problemAt(n, path, message)
	return false
}

// secret never repeats what it found.
func (d *decoder) secret(path string, n *node, p *Secret) bool {
	if n.kind != textNode {
		d.problemAt(n, path, "expected text; put the value in quotes")
		return false
	}
	*p = Secret(n.text)
	return true
}

func (d *decoder) integer(path string, n *node) (int64, bool) {
	if n.kind != numberNode {
		message := "expected a whole number, found " + n.describe()
		if n.kind == textNode && isNumber(n.text) {
			message += "; remove the quotes"
		}
		d.problemAt(n, path, message)
		return 0, false
	}
	if i, err := strconv.ParseInt(n.text, 10, 64); err == nil {
		return i, true
	}
	// 1e6 and 5.0 are whole numbers too, to JSON Schema as to people; beyond 2^53 a
	// float no longer says which one.
	f, err := strconv.ParseFloat(n.text, 64)
	if err == nil && math.Abs(f) <= 1<<53 {
		if f == math.Trunc(f) && (f != 0 || strings.Trim(n.text, "-0.eE+") == "") {
			return int64(f), true
		}
		d.problemAt(n, path, "expected a whole number, found "+n.describe())
		return 0, false
	}
	d.problemAt(n, path, n.describe()+" is too large")
	return 0, false
}

func (d *decoder) duration(path string, n *node, p *time.Duration) bool {
	var err error
	switch n.kind {
	case numberNode:
		ms, ok := d.integer(path, n)
		if !ok {
			return false
		}
		*p, err = milliseconds(ms)
	case textNode:
		*p, err = parseDuration(n.text)
	default:
		d.problemAt(n, path, `expected a duration, found `+n.describe()+`; write milliseconds (30000) or a duration ("30s")`)
		return false
	}
	if err != nil {
		d.problemAt(n, path, n.describe()+" "+err.Error())
		return false
	}
	return true
}

func (d *decoder) weight(path string, n *node, p *Weight) bool {
	if n.kind != numberNode {
		d.problemAt(n, path, "expected a number, found "+n.describe())
		return false
	}
	w, err := parseWeight(n.text)
	if err != nil {
		d.problemAt(n, path, n.describe()+" "+err.Error())
		return false
	}
	*p = w
	return true
}

func (d *decoder) texts(f field, path string, n *node, p *[]string) bool {
	if n.kind != listNode {
		d.problemAt(n, path, "expected a list of texts, found "+n.describe())
		return false
	}
	ok := true
	out := make([]string, len(n.items))
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.remember(at, item)
		ok = d.text(f, at, item, &out[i]) && ok
	}
	*p = out
	return ok
}

// textMap takes numbers and booleans as the text they are written with: header
// values such as true are text in any case.
func (d *decoder) textMap(path string, n *node, p *map[string]string) bool {
	if n.kind != mapNode {
		d.problemAt(n, path, "expected a map of names to texts, found "+n.describe())
		return false
	}
	ok := true
	out := make(map[string]string, len(n.entries))
	for _, e := range n.entries {
		at := join(path, shorten(e.key))
		d.remember(at, e.value)
		switch e.value.kind {
		case textNode, numberNode, boolNode:
			out[e.key] = e.value.text
		case nullNode, listNode, mapNode:
			d.problemAt(e.value, at, "expected text, found "+e.value.describe())
			ok = false
		}
	}
	*p = out
	return ok
}

// switches reads a list of names that are on, or a map of names to booleans.
func (d *decoder) switches(path string, n *node, p *map[string]bool) bool {
	ok := true
	out := make(map[string]bool)
	switch n.kind {
	case listNode:
		for i, item := range n.items {
			if item.kind != textNode {
				d.problemAt(item, fmt.Sprintf("%s[%d]", path, i), "expected a name, found "+item.describe())
				ok = false
				continue
			}
			out[item.text] = true
		}
	case mapNode:
		for _, e := range n.entries {
			if e.value.kind != boolNode {
				d.problemAt(e.value, join(path, shorten(e.key)), "expected true or false, found "+e.value.describe())
				ok = false
				continue
			}
			out[e.key] = e.value.text == "true"
		}
	case nullNode, boolNode, numberNode, textNode:
		d.problemAt(n, path, "expected a list of names or a map of names to true or false, found "+n.describe())
		return false
	}
	*p = out
	return ok
}

// free keeps a list or a map as it is, made of map[string]any, []any, string,
// bool, int64, float64 and nil.
func (d *decoder) free(path string, n *node, p *any) bool {
	if n.kind != listNode && n.kind != mapNode {
		d.problemAt(n, path, "expected a list or a map, found "+n.describe())
		return false
	}
	*p = n.plain()
	return true
}

func (n *node) plain() any {
	switch n.kind {
	case boolNode:
		return n.text == "true"
	case numberNode:
		if i, err := strconv.ParseInt(n.text, 10, 64); err == nil {
			return i
		}
		if f, err := strconv.ParseFloat(n.text, 64); err == nil {
			return f
		}
		return n.text
	case textNode:
		return n.text
	case listNode:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			out[i] = item.plain()
		}
		return out
	case mapNode:
		out := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			out[e.key] = e.value.plain()
		}
		return out
	case nullNode:
	}
	return nil
}

package wire

import "strings"

// Field is one header field line.
type Field struct{ Name, Value string }

// Head is a list of header fields in order. Names are compared without regard to case.
type Head []Field

// Get returns the value of the first field of this name, or "".
func (h Head) Get(name string) string {
	for i := range h {
		if isField(h[i].Name, name) {
			return h[i].Value
		}
	}
	return ""
}

// Has reports whether there is a field of this name.
func (h Head) Has(name string) bool {
	for i := range h {
		if isField(h[i].Name, name) {
			return true
		}
	}
	return false
}

// Add appends a field.
func (h *Head) Add(name, value string) { *h = append(*h, Field{name, value}) }

// Set replaces the first field of this name in place, removes further ones, and appends when there is none.
func (h *Head) Set(name, value string) {
	kept, done := (*h)[:0], false
	for _, f := range *h {
		if !isField(f.Name, name) {
			kept = append(kept, f)
		} else if !done {
			kept, done = append(kept, Field{f.Name, value}), true
		}
	}
	if !done {
		kept = append(kept, Field{name, value})
	}
	*h = kept
}

// Filter returns a new Head with the fields that keep accepts.
func (h Head) Filter(keep func(Field) bool) Head {
	out := make(Head, 0, len(h)+4)
	for _, f := range h {
		if keep(f) {
			out = append(out, f)
		}
	}
	return out
}

// ConnectionNames returns the lower-case names that Connection fields list: fields that belong to this hop alone.
func (h Head) ConnectionNames() []string {
	var names []string
	for _, f := range h {
		if !isField(f.Name, "Connection") {
			continue
		}
		for name := range strings.SplitSeq(f.Value, ",") {
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// isField reports whether a field has a name, in whatever case. Names are ASCII, so equal ones have one length.
func isField(name, want string) bool { return len(name) == len(want) && strings.EqualFold(name, want) }

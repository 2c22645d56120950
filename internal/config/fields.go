package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
	"unicode"

	"carpool/internal/price"
)

// field is one key of the configuration, as the tags of Config describe it.
type field struct {
	path    string // server.port
	env     string // CARPOOL_SERVER_PORT; empty for sections
	index   []int
	typ     reflect.Type
	section bool
	def     string
	hasDef  bool
	shown   string
	doc     string
	enum    []string
	min     string
	max     string
	check   string
	isPath  bool
	synonym string
}

const envPrefix = "CARPOOL_"

// fields lists every key in the order of the structs, sections before their keys.
func fields() []field {
	var out []field
	collect(reflect.TypeFor[Config](), "", nil, &out)
	return out
}

func collect(t reflect.Type, prefix string, index []int, out *[]field) {
	for i := range t.NumField() {
		sf := t.Field(i)
		key := sf.Tag.Get("key")
		if key == "" {
			continue
		}
		def, hasDef := sf.Tag.Lookup("default")
		f := field{
			path:    join(prefix, key),
			index:   append(append([]int(nil), index...), i),
			typ:     sf.Type,
			section: isSection(sf.Type),
			def:     def,
			hasDef:  hasDef,
			shown:   sf.Tag.Get("shown"),
			doc:     sf.Tag.Get("doc"),
			min:     sf.Tag.Get("min"),
			max:     sf.Tag.Get("max"),
			check:   sf.Tag.Get("check"),
			isPath:  sf.Tag.Get("kind") == "path",
			synonym: sf.Tag.Get("synonym"),
		}
		if words := sf.Tag.Get("enum"); words != "" {
			f.enum = strings.Split(words, ",")
		}
		if !f.section {
			f.env = envName(f.path)
		}
		*out = append(*out, f)
		if f.section {
			collect(sf.Type, f.path, f.index, out)
		}
	}
}

func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct }

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// envName is the variable of a key: claudeCode.minVersion becomes
// CARPOOL_CLAUDE_CODE_MIN_VERSION.
func envName(path string) string { return envPrefix + upperSnake(path) }

func upperSnake(path string) string {
	var b strings.Builder
	lower := false
	for _, r := range path {
		switch {
		case r == '.':
			b.WriteByte('_')
			lower = false
			continue
		case unicode.IsUpper(r) && lower:
			b.WriteByte('_')
		}
		lower = !unicode.IsUpper(r)
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// typeName is the type of a key as the documentation calls it.
func (f field) typeName() string {
	if len(f.enum) > 0 {
		return strings.Join(f.enum, ", ")
	}
	switch f.typ {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Weight]():
		return "number"
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[[]string]():
		return "list of texts"
	case reflect.TypeFor[map[string]string]():
		return "map of texts"
	case reflect.TypeFor[map[string]bool]():
		return "list or map"
	case reflect.TypeFor[json.Number]():
		return "number"
	case reflect.TypeFor[[]price.Rates](), reflect.TypeFor[[]price.Discount]():
		return "list of maps"
	case reflect.TypeFor[*price.Rates]():
		return "map"
	}
	switch f.typ.Kind() {
	case reflect.Bool:
		return "true, false"
	case reflect.Int, reflect.Int64, reflect.Pointer:
		return "integer"
	case reflect.Interface:
		return "list or map"
	case reflect.Struct:
		return "section"
	default:
	}
	if f.isPath {
		return "path"
	}
	return "text"
}

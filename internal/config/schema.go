package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"carpool/internal/price"
)

// Schema is the JSON Schema (draft 2020-12) of the configuration file, for editors
// and for checks elsewhere. What it accepts is a little less than what Load does
// (an empty section, say), and rules between keys are not in it.
func Schema() ([]byte, error) {
	reflector := jsonschema.Reflector{
		FieldNameTag:               "key",
		Anonymous:                  true,
		DoNotReference:             true,
		ExpandedStruct:             true,
		RequiredFromJSONSchemaTags: true,
		Mapper:                     schemaOf,
	}
	schema := reflector.ReflectFromType(reflect.TypeFor[Config]())
	schema.Title = "Carpool configuration"
	for _, f := range fields() {
		target, err := lookup(schema, f.path)
		if err != nil {
			return nil, err
		}
		describe(target, f)
	}
	data, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot write the schema: %w", err)
	}
	return append(data, '\n'), nil
}

func lookup(s *jsonschema.Schema, path string) (*jsonschema.Schema, error) {
	for key := range strings.SplitSeq(path, ".") {
		if s.Properties == nil {
			return nil, fmt.Errorf("cannot find %s in the schema", path)
		}
		next, ok := s.Properties.Get(key)
		if !ok {
			return nil, fmt.Errorf("cannot find %s in the schema", path)
		}
		s = next
	}
	return s, nil
}

// schemaOf gives the types that are written in more than one way.
func schemaOf(t reflect.Type) *jsonschema.Schema {
	text := func() *jsonschema.Schema { return &jsonschema.Schema{Type: "string"} }
	switch t {
	case reflect.TypeFor[time.Duration]():
		zero := json.Number("0")
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "integer", Minimum: zero, Description: "milliseconds"},
			{Type: "string", Pattern: `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+$|^[0-9]+$`, Description: "a duration such as 30s, 1h30m or 7d"},
		}}
	case reflect.TypeFor[Weight]():
		return &jsonschema.Schema{Type: "number", Minimum: "0", Maximum: "1000", MultipleOf: "0.001"}
	case reflect.TypeFor[Secret]():
		return text()
	case reflect.TypeFor[map[string]bool]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "array", Items: text()},
			{Type: "object", AdditionalProperties: &jsonschema.Schema{Type: "boolean"}},
		}}
	case reflect.TypeFor[map[string]string]():
		return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{
			AnyOf: []*jsonschema.Schema{text(), {Type: "number"}, {Type: "boolean"}},
		}}
	case reflect.TypeFor[json.Number]():
		return &jsonschema.Schema{Type: "number", Minimum: "0"}
	case reflect.TypeFor[[]price.Rates](), reflect.TypeFor[[]price.Discount]():
		return &jsonschema.Schema{Type: "array", Items: recordSchema(t.Elem(), "model")}
	case reflect.TypeFor[price.Rates](): // prices.unknown; the library takes pointers off
		s := recordSchema(t)
		for _, key := range []string{"model", "upstream", "from", "upTo", "fast"} {
			s.Properties.Delete(key)
		}
		return s
	case reflect.TypeFor[any]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "array"}, {Type: "object"}}}
	}
	return nil
}

// describe adds what the tags say of a key.
func describe(s *jsonschema.Schema, f field) {
	s.Description = f.doc
	if f.env != "" {
		s.Description += " Environment variable: " + f.env + "."
	}
	if f.shown != "" {
		s.Description += " Default: " + f.shown + "."
	} else if f.hasDef {
		s.Default = plainDefault(f)
	}
	for _, word := range f.enum {
		s.Enum = append(s.Enum, word)
	}
	s.WriteOnly = f.typ == reflect.TypeFor[Secret]()
	if s.Type == "integer" {
		s.Minimum, s.Maximum = json.Number(f.min), json.Number(f.max)
	}
}

func plainDefault(f field) any {
	n := textValue(f, f.def, func(string) {})
	if n == nil {
		return nil
	}
	if n.kind == numberNode {
		return json.Number(n.text)
	}
	return n.plain()
}

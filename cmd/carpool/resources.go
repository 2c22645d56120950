package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"carpool/internal/policy"
)

// Bounds on a resource file. The parser's time grows faster than its input, and no organisation comes near.
const (
	maxResourceBytes   = 4 << 20
	maxResourceNesting = 64
)

// parseResources reads a resource file, YAML (also of several documents) or JSON. It is strict: what it does not know is
// an error that names file, line and column and what was probably meant. Names of secrets are left unresolved, and the
// resources are checked one by one but not against each other.
func parseResources(name string, data []byte) (r declared, err error) {
	defer func() {
		if recover() != nil { // the parser panics on some damaged files
			r, err = declared{}, fmt.Errorf("%s: cannot be read as YAML or JSON; check its syntax", name)
		}
	}()
	if err := checkText(name, data); err != nil {
		return r, err
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return r, resourceError(name, nil, err)
	}
	if err := checkWholeNumbers(name, file); err != nil {
		return r, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	for {
		var one policy.Resources
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r, resourceError(name, file, err)
		}
		r.Resources = mergeResources(r.Resources, one)
	}
	r.note(name, file)
	if err := r.Validate(); err != nil {
		return r, r.at(err)
	}
	return r, nil
}

// mergeResources appends b to a.
func mergeResources(a, b policy.Resources) policy.Resources {
	a.Teams = append(a.Teams, b.Teams...)
	a.Upstreams = append(a.Upstreams, b.Upstreams...)
	a.Aliases = append(a.Aliases, b.Aliases...)
	a.Routes = append(a.Routes, b.Routes...)
	a.Users = append(a.Users, b.Users...)
	a.Keys = append(a.Keys, b.Keys...)
	a.Budgets = append(a.Budgets, b.Budgets...)
	return a
}

// checkText keeps from the parser what is no text file or would take it very long.
func checkText(name string, data []byte) error {
	if len(data) > maxResourceBytes {
		return fmt.Errorf("%s: has more than %d MiB; split it and apply the parts", name, maxResourceBytes>>20)
	}
	line, depth := 1, 0
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1, r == 0:
			return fmt.Errorf("%s:%d: is not a text file in UTF-8", name, line)
		case r == '\n':
			line++
		case r == '[' || r == '{':
			depth++
		case r == ']' || r == '}':
			depth = max(0, depth-1)
		}
		if depth > maxResourceNesting {
			return fmt.Errorf("%s:%d: is nested more than %d levels deep", name, line, maxResourceNesting)
		}
		i += size
	}
	return nil
}

// checkWholeNumbers refuses fractions, which the decoder would cut off in silence.
func checkWholeNumbers(name string, file *ast.File) error {
	whole := map[string]bool{}
	wholeFields(reflect.TypeFor[policy.Resources](), whole)
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		for _, node := range ast.Filter(ast.MappingValueType, doc) {
			pair, ok := node.(*ast.MappingValueNode)
			if !ok {
				continue
			}
			number, isFloat := pair.Value.(*ast.FloatNode)
			if isFloat && whole[pair.Key.String()] && number.Value != math.Trunc(number.Value) {
				return fmt.Errorf("%s: must be a whole number, not %s", place(name, number.GetToken()), number.Token.Value)
			}
		}
	}
	return nil
}

// wholeFields collects the keys of integers in a type and in those it is made of.
func wholeFields(t reflect.Type, keys map[string]bool) {
	for field, of := range keyTypes(t) {
		if of.Kind() == reflect.Int || of.Kind() == reflect.Int64 {
			keys[field] = true
		}
		wholeFields(of, keys)
	}
}

// keyTypes maps the keys of a struct, or of a list of structs, to what they hold.
func keyTypes(t reflect.Type) map[string]reflect.Type {
	t = element(t)
	keys := map[string]reflect.Type{}
	if t.Kind() != reflect.Struct || t.PkgPath() != reflect.TypeFor[policy.Resources]().PkgPath() {
		return keys
	}
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		keys[name] = element(field.Type)
	}
	return keys
}

func element(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

// resourceError rewrites an error of the decoder for people. It never quotes the file beyond one word, because files hold
// credentials.
func resourceError(name string, file *ast.File, err error) error {
	wrong, ok := errors.AsType[yaml.Error](err)
	if !ok {
		return fmt.Errorf("%s: cannot be read as YAML or JSON; check its syntax", name)
	}
	at := place(name, wrong.GetToken())
	switch e := wrong.(type) {
	case *yaml.UnknownFieldError:
		return fmt.Errorf("%s: %s", at, unknownKey(file, e.Token))
	case *yaml.TypeError:
		return fmt.Errorf("%s: must be %s", at, kindName(e.DstType))
	case *yaml.UnexpectedNodeTypeError:
		return fmt.Errorf("%s: must be %s, not %s", at, nodeName(e.Expected), nodeName(e.Actual))
	case *yaml.OverflowError:
		return fmt.Errorf("%s: the number is too large", at)
	case *yaml.DuplicateKeyError:
		return fmt.Errorf("%s: the key %q is there twice", at, e.Token.Value)
	}
	return fmt.Errorf("%s: cannot be read as YAML or JSON: %s", at, wrong.GetMessage())
}

func place(name string, t *token.Token) string {
	if t == nil || t.Position == nil {
		return name
	}
	return fmt.Sprintf("%s:%d:%d", name, t.Position.Line, t.Position.Column)
}

func kindName(t reflect.Type) string {
	switch t.Kind() { //nolint:exhaustive // resources are made of these kinds
	case reflect.Int, reflect.Int64:
		return "a whole number such as 2000000 (-1: unlimited)"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		if t.Name() == "Time" {
			return "a time such as 2027-01-31T00:00:00Z"
		}
	}
	return "a mapping of keys to values"
}

func nodeName(t ast.NodeType) string {
	switch t { //nolint:exhaustive // all others say their own name
	case ast.MappingType, ast.MappingValueType:
		return "a mapping of keys to values"
	case ast.SequenceType:
		return "a list"
	case ast.StringType, ast.LiteralType:
		return "a text"
	case ast.IntegerType, ast.FloatType:
		return "a number"
	case ast.BoolType:
		return "true or false"
	}
	return "a " + strings.ToLower(t.String())
}

// unknownKey suggests a key that may stand in the section of the token.
func unknownKey(file *ast.File, at *token.Token) string {
	var known []string
	top := keyTypes(reflect.TypeFor[policy.Resources]())
	if of, nested := top[sectionOf(file, at)]; nested {
		known = slices.Sorted(maps.Keys(keyTypes(of)))
		for _, inner := range keyTypes(of) {
			known = append(known, slices.Sorted(maps.Keys(keyTypes(inner)))...)
		}
	} else {
		known = slices.Sorted(maps.Keys(top))
	}
	if best := nearest(at.Value, known); best != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", at.Value, best)
	}
	return fmt.Sprintf("unknown key %q; known: %s", at.Value, strings.Join(known, ", "))
}

// sectionOf is the top-level key under which a token stands, or "" for a top-level key itself.
func sectionOf(file *ast.File, at *token.Token) string {
	section := ""
	if file == nil {
		return section
	}
	for _, doc := range file.Docs {
		mapping, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			continue
		}
		for _, pair := range mapping.Values {
			key := pair.Key.GetToken()
			switch {
			case key.Position.Offset == at.Position.Offset:
				return ""
			case key.Position.Offset < at.Position.Offset:
				section = key.Value
			}
		}
	}
	return section
}

package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Print writes the effective configuration as YAML that Load accepts again, every
// key with its value. A secret written in the configuration itself is masked, one
// that came from a file or a variable is left out beside the name of its source.
func Print(c *Config) ([]byte, error) {
	var b bytes.Buffer
	if err := printSection(&b, reflect.ValueOf(c).Elem(), 0); err != nil {
		return nil, fmt.Errorf("cannot print the configuration: %w", err)
	}
	return b.Bytes(), nil
}

func printSection(b *bytes.Buffer, v reflect.Value, indent int) error {
	margin := strings.Repeat("  ", indent)
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		key, value := sf.Tag.Get("key"), v.Field(i)
		if key == "" || sf.Tag.Get("synonym") != "" || leftOut(v, sf.Name) {
			continue
		}
		if !isSection(sf.Type) {
			text, err := flow(value)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			fmt.Fprintf(b, "%s%s: %s\n", margin, key, text)
			continue
		}
		var inner bytes.Buffer
		if err := printSection(&inner, value, indent+1); err != nil {
			return fmt.Errorf("%s.%w", key, err)
		}
		if inner.Len() > 0 {
			fmt.Fprintf(b, "%s%s:\n%s", margin, key, inner.Bytes())
		}
	}
	return nil
}

// leftOut says whether a field has nothing to show: a nil value, or a secret that
// came from a file or a variable.
func leftOut(section reflect.Value, name string) bool {
	v := section.FieldByName(name)
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		if v.IsNil() {
			return true
		}
	default:
	}
	if v.Type() == reflect.TypeFor[json.Number]() {
		return v.Len() == 0
	}
	if v.Type() != reflect.TypeFor[Secret]() {
		return false
	}
	for _, form := range []string{"File", "Env"} {
		if other := section.FieldByName(name + form); other.IsValid() && other.String() != "" {
			return true
		}
	}
	return false
}

// flow writes a value on one line, in the part of YAML that is nearly JSON.
func flow(v reflect.Value) (string, error) {
	switch x := v.Interface().(type) {
	case Secret:
		return quote(x.String())
	case Weight:
		return x.String(), nil
	case time.Duration:
		if x%time.Millisecond != 0 || x < 0 {
			return quote(x.String())
		}
		return formatDuration(x), nil
	case json.Number:
		return x.String(), nil
	case nil:
		return "null", nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return flow(v.Elem())
	case reflect.String:
		return quote(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), nil
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), nil
	case reflect.Float64:
		data, err := json.Marshal(v.Float())
		return string(data), err
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			part, err := flow(v.Index(i))
			if err != nil {
				return "", err
			}
			parts[i] = part
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	case reflect.Map:
		return flowMap(v)
	case reflect.Struct:
		return flowRecord(v)
	default:
	}
	return "", fmt.Errorf("a value of type %s has no written form", v.Type())
}

func flowMap(v reflect.Value) (string, error) {
	values := make(map[string]reflect.Value, v.Len())
	for _, k := range v.MapKeys() {
		values[k.String()] = v.MapIndex(k)
	}
	parts := make([]string, 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name, err := quote(key)
		if err != nil {
			return "", err
		}
		value := "null"
		if item := values[key]; item.Kind() != reflect.Interface || !item.IsNil() {
			if value, err = flow(item); err != nil {
				return "", err
			}
		}
		parts = append(parts, name+": "+value)
	}
	return "{" + strings.Join(parts, ", ") + "}", nil
}

// quote leaves plain words as they are and writes everything else as a JSON
// string, which is a YAML string too.
func quote(s string) (string, error) {
	plain := s != "" && unicode.IsLetter(rune(s[0])) && !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || (!unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./", r))
	})
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		plain = false
	}
	if plain {
		return s, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return "", err
	}
	// DEL and the C1 controls are legal in JSON strings but not in YAML.
	var out strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if unicode.IsControl(r) || r == '\ufeff' {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	return out.String(), nil
}

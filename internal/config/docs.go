package config

import (
	"reflect"
	"strings"
)

// DocsTable is the documentation of every key as a Markdown table: key, type,
// default, environment variable, meaning.
func DocsTable() string {
	var b strings.Builder
	b.WriteString("| Key | Type | Default | Environment variable | Meaning |\n|---|---|---|---|---|\n")
	all := fields()
	for _, f := range all {
		if f.section {
			continue
		}
		meaning := f.doc
		for _, section := range all {
			if rest, inside := strings.CutPrefix(f.path, section.path+"."); inside && section.synonym != "" {
				meaning = "Another name of `" + section.synonym + "." + rest + "`."
			}
		}
		cells := []string{"`" + f.path + "`", f.typeName(), f.shownDefault(), "`" + f.env + "`", meaning}
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.String()
}

// shownDefault is the default for people: the value in code, words for what
// depends on something else, a dash for none.
func (f field) shownDefault() string {
	switch {
	case f.shown != "":
		return f.shown
	case f.hasDef:
		return "`" + f.def + "`"
	case f.typ.Kind() == reflect.Slice || f.typ.Kind() == reflect.Map:
		return "none"
	}
	return "–"
}

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"carpool/internal/policy"
)

// declared is the resources of files, with where they stand in them.
type declared struct {
	policy.Resources
	files  []string
	places map[string][]string // by kind and name, as errors begin: user "alice"
}

// note keeps the places of what a file declares.
func (d *declared) note(name string, file *ast.File) {
	d.files, d.places = append(d.files, name), map[string][]string{}
	for _, doc := range file.Docs {
		sections, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			continue
		}
		for _, section := range sections.Values {
			kind := strings.TrimSuffix(section.Key.GetToken().Value, "s")
			if kind == "aliase" {
				kind = "alias"
			}
			list, ok := section.Value.(*ast.SequenceNode)
			if !ok {
				continue
			}
			for _, item := range list.Values {
				resource, ok := item.(*ast.MappingNode)
				if !ok {
					continue
				}
				for _, field := range resource.Values {
					if at := field.Value.GetToken(); field.Key.GetToken().Value == "name" && at != nil {
						of := fmt.Sprintf("%s %q", kind, at.Value)
						d.places[of] = append(d.places[of], place(name, field.Key.GetToken()))
					}
				}
			}
		}
	}
}

// add appends what other files declare; what is declared twice is found by Validate.
func (d *declared) add(other declared) {
	d.Resources = mergeResources(d.Resources, other.Resources)
	d.files = append(d.files, other.files...)
	if d.places == nil {
		d.places = map[string][]string{}
	}
	for of, places := range other.places {
		d.places[of] = append(d.places[of], places...)
	}
}

// at puts before what is wrong with resources where they are declared: each by its line, where the error says which it is,
// and otherwise the files.
func (d *declared) at(err error) error {
	parts := strings.Split(err.Error(), "; ")
	for i, part := range parts {
		if at := d.placeOf(part); at != "" {
			parts[i] = at + ": " + part
		} else if i == 0 {
			parts[i] = strings.Join(d.files, ", ") + ": " + part
		}
	}
	return &placedError{strings.Join(parts, "; "), err}
}

func (d *declared) placeOf(wrong string) string {
	kind, rest, _ := strings.Cut(wrong, " ")
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return ""
	}
	places := d.places[kind+" "+quoted]
	switch {
	case len(places) == 0:
		return ""
	case strings.HasSuffix(wrong, "is declared twice"):
		return places[len(places)-1]
	}
	return places[0]
}

// placedError is an error that says where in a file its cause is.
type placedError struct {
	text string
	err  error
}

func (e *placedError) Error() string { return e.text }
func (e *placedError) Unwrap() error { return e.err }

package config

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The parser's time grows with the square of size and depth, so both are bounded
// before it runs. No sensible configuration comes near.
const (
	maxFileBytes = 128 << 10
	maxNesting   = 200
)

type nodeKind int

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	textNode
	listNode
	mapNode
)

// node is a value of the file with the place it stands at. Scalars keep their
// text as written, so that numbers are read exactly and only in decimal.
type node struct {
	kind         nodeKind
	text         string
	items        []*node
	entries      []entry
	line, column int
}

type entry struct {
	key          string
	line, column int
	value        *node
}

// describe says what was found, for messages.
func (n *node) describe() string {
	switch n.kind {
	case nullNode:
		return "nothing"
	case boolNode:
		return "the boolean " + n.text
	case numberNode:
		return "the number " + shorten(n.text)
	case textNode:
		return "the text " + strconv.Quote(shorten(n.text))
	case listNode:
		return "a list"
	case mapNode:
		return "a map"
	}
	return "something else"
}

func shorten(s string) string {
	if utf8.RuneCountInString(s) <= 60 {
		return s
	}
	return string([]rune(s)[:60]) + "…"
}

// scalar classifies plain text as YAML 1.2 does in its JSON subset: null,
// booleans and decimal numbers; everything else is text.
func scalar(text string) *node {
	switch {
	case text == "" || text == "~" || text == "null" || text == "Null" || text == "NULL":
		return &node{kind: nullNode}
	case text == "true" || text == "True" || text == "TRUE":
		return &node{kind: boolNode, text: "true"}
	case text == "false" || text == "False" || text == "FALSE":
		return &node{kind: boolNode, text: "false"}
	case isNumber(text):
		return &node{kind: numberNode, text: text}
	}
	return &node{kind: textNode, text: text}
}

// isNumber reports whether s is a number in the grammar of JSON.
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	mantissa, exponent := s, ""
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa, exponent = s[:i], s[i+1:]
		if exponent != "" && (exponent[0] == '+' || exponent[0] == '-') {
			exponent = exponent[1:]
		}
		if !digits(exponent) {
			return false
		}
	}
	whole, frac, dotted := strings.Cut(mantissa, ".")
	if !digits(whole) || (len(whole) > 1 && whole[0] == '0') {
		return false
	}
	return !dotted || digits(frac)
}

// parse reads one document of YAML or JSON. A nil node without problems is an
// empty document.
func parse(data []byte, source string) (n *node, problems Problems) {
	fail := func(line, column int, message string) (*node, Problems) {
		return nil, Problems{{Source: source, Line: line, Column: column, Message: message}}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(data) > maxFileBytes {
		return fail(0, 0, fmt.Sprintf("is larger than %d KiB; users, keys and upstreams belong in the file named by the key resources", maxFileBytes>>10))
	}
	if line, column, what := unreadable(data); what != "" {
		return fail(line, column, what)
	}
	// A panic of the parser on odd input is a syntax error to the operator; the
	// process that reloads its configuration must survive it.
	defer func() {
		if recover() != nil {
			n, problems = fail(0, 0, "cannot be read as YAML or JSON; check its syntax")
		}
	}()
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if e, ok := errors.AsType[yaml.Error](err); ok { // only its message: its long form quotes the file, secrets included
			line, column := position(e.GetToken())
			return fail(line, column, "cannot be read as YAML or JSON: "+e.GetMessage())
		}
		return fail(0, 0, "cannot be read as YAML or JSON; check its syntax")
	}
	return oneDocument(file, source)
}

func oneDocument(file *ast.File, source string) (*node, Problems) {
	c := converter{source: source}
	var root *node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if root != nil {
			line, column := position(doc.Body.GetToken())
			c.problem(line, column, "holds several documents; keep one and remove the '---' between them")
			break
		}
		root = c.convert(doc.Body, 0)
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return root, nil
}

// unreadable finds what the parser must not see: bytes that are not text, and
// nesting that would take it very long.
func unreadable(data []byte) (line, column int, what string) {
	line, column = 1, 0
	depth := 0
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		column++
		switch {
		case r == utf8.RuneError && size == 1:
			return line, column, "is not valid UTF-8; save the file as UTF-8"
		case r == 0:
			return line, column, "holds a zero byte; it is not a text file"
		case r == '\n':
			line, column = line+1, 0
		case r == '[' || r == '{':
			depth++
		case r == ']' || r == '}':
			depth = max(0, depth-1)
		}
		if depth > maxNesting {
			return line, column, fmt.Sprintf("is nested more than %d levels deep", maxNesting)
		}
		i += size
	}
	return 0, 0, ""
}

func position(t *token.Token) (line, column int) {
	if t == nil || t.Position == nil {
		return 0, 0
	}
	return t.Position.Line, t.Position.Column
}

// converter turns the parser's tree into nodes, refusing the parts of YAML that a
// configuration does not need and that hide what a file says.
type converter struct {
	source   string
	problems Problems
}

func (c *converter) problem(line, column int, message string) {
	c.problems = append(c.problems, Problem{Source: c.source, Line: line, Column: column, Message: message})
}

func (c *converter) convert(in ast.Node, depth int) *node {
	line, column := position(in.GetToken())
	out := &node{kind: nullNode}
	if depth > maxNesting {
		c.problem(line, column, fmt.Sprintf("is nested more than %d levels deep", maxNesting))
		return out
	}
	switch x := in.(type) {
	case *ast.MappingNode:
		out = c.mapping(x, depth)
		if x.GetToken().Type != token.MappingStartType && len(out.entries) > 0 {
			line, column = out.entries[0].line, out.entries[0].column
		}
	case *ast.SequenceNode:
		out = &node{kind: listNode}
		for _, item := range x.Values {
			out.items = append(out.items, c.convert(item, depth+1))
		}
	case *ast.StringNode:
		switch x.Token.Type {
		case token.SingleQuoteType, token.DoubleQuoteType:
			out = &node{kind: textNode, text: x.Value}
		default:
			out = scalar(x.Value)
		}
	case *ast.LiteralNode:
		out = &node{kind: textNode, text: x.Value.Value}
	case *ast.NullNode:
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out = scalar(x.GetToken().Value)
	case *ast.AnchorNode, *ast.AliasNode:
		c.problem(line, column, "anchors and aliases (& and *) are not supported; write the value out, or put it in quotes if it is text")
	case *ast.TagNode:
		c.problem(line, column, "tags ("+shorten(x.GetToken().Value)+") are not supported; remove it, and put text in quotes")
	default:
		c.problem(line, column, "is not supported here")
	}
	out.line, out.column = line, column
	return out
}

func (c *converter) mapping(in *ast.MappingNode, depth int) *node {
	out := &node{kind: mapNode}
	lines := make(map[string]int, len(in.Values))
	for _, pair := range in.Values {
		key := ast.Node(pair.Key)
		if explicit, ok := key.(*ast.MappingKeyNode); ok {
			key = explicit.Value
		}
		if key == nil {
			continue
		}
		line, column := position(key.GetToken())
		var name string
		switch k := key.(type) {
		case *ast.StringNode:
			name = k.Value
		case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.NullNode:
			name = k.GetToken().Value
		case *ast.MergeKeyNode:
			c.problem(line, column, "merge keys (<<) are not supported; write the values out")
			continue
		default:
			c.problem(line, column, "a key must be plain text")
			continue
		}
		if first, twice := lines[name]; twice {
			c.problem(line, column, fmt.Sprintf("the key %q is given twice, first on line %d; keep one", shorten(name), first))
			continue
		}
		lines[name] = line
		e := entry{key: name, line: line, column: column, value: &node{kind: nullNode, line: line, column: column}}
		if pair.Value != nil {
			e.value = c.convert(pair.Value, depth+1)
		}
		out.entries = append(out.entries, e)
	}
	return out
}

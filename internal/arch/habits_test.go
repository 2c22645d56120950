package arch

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryPackageHasADocComment(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment: say its purpose in one sentence in doc.go", p.ImportPath)
		}
	}
}

func TestArchitecturePageNamesEveryPackage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		short := strings.TrimPrefix(name, "internal/")
		if !mentions(page, name) && !mentions(page, short) {
			t.Errorf("docs/ARCHITECTURE.md does not name %s", name)
		}
	}
}

// mentions reports whether the page holds the name as a whole word.
func mentions(page []byte, name string) bool {
	for rest := page; ; {
		i := bytes.Index(rest, []byte(name))
		if i < 0 {
			return false
		}
		end := i + len(name)
		if (i == 0 || !wordByte(rest[i-1])) && (end == len(rest) || !wordByte(rest[end])) {
			return true
		}
		rest = rest[end:]
	}
}

func wordByte(c byte) bool {
	return c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// eachFile parses every Go file of the module.
func eachFile(t *testing.T, visit func(path string, source []byte, set *token.FileSet, file *ast.File)) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			path := filepath.Join(p.Dir, name)
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			set := token.NewFileSet()
			short, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			file, err := parser.ParseFile(set, short, source, parser.SkipObjectResolution|parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			visit(short, source, set, file)
		}
	}
}

func TestFilesAreFormatted(t *testing.T) {
	t.Parallel()
	eachFile(t, func(path string, source []byte, _ *token.FileSet, _ *ast.File) {
		formatted, err := format.Source(source)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if !bytes.Equal(formatted, source) {
			t.Errorf("%s is not formatted: run gofumpt -w", path)
		}
	})
}

func TestNoInit(t *testing.T) {
	t.Parallel()
	eachFile(t, func(_ string, _ []byte, set *token.FileSet, file *ast.File) {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init function: main wires everything", set.Position(f.Pos()))
			}
		}
	})
}

// TestTestsNeitherSleepNorSkip: a test that sleeps is slow or flaky (wait for the condition, or use testing/synctest), and one
// that skips tests nothing.
func TestTestsNeitherSleepNorSkip(t *testing.T) {
	t.Parallel()
	eachFile(t, func(path string, _ []byte, set *token.FileSet, file *ast.File) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok {
				x, _ := f.X.(*ast.Ident)
				switch {
				case f.Sel.Name == "Sleep" && x != nil && x.Name == "time":
					t.Errorf("%s: time.Sleep in a test", set.Position(call.Pos()))
				case f.Sel.Name == "Skip" || f.Sel.Name == "Skipf" || f.Sel.Name == "SkipNow":
					if x != nil && (x.Name == "t" || x.Name == "b" || x.Name == "tb" || x.Name == "f") {
						t.Errorf("%s: a test that skips", set.Position(call.Pos()))
					}
				}
			}
			return true
		})
	})
}

package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "carpool"

// order is the house from its foundation up: a package may import those before its own place, and its own sub-packages.
func order() []string {
	return []string{
		"anthropic", "price", "quota", "policy", "fleet", "config", "wire", "web", "upstream",
		"ledger", "cluster", "gateway", "node", "control", "reconcile", "sim", "connect",
	}
}

// upward names the imports that point down the list nevertheless, each with the reason why that is right.
func upward() map[string]string {
	return map[string]string{}
}

// forbidden are imports that the order allows and the design does not.
func forbidden() []ban {
	return []ban{
		{"gateway", "carpool/internal/fleet", "the request path does not know the fleet"},
		{"gateway", "carpool/internal/config", "the request path takes settings, not configuration"},
		{"control", "carpool/internal/node", "only cmd sees both halves"},
		{"node", "carpool/internal/control", "only cmd sees both halves"},
		{"sim", "carpool/", "the simulator shares no code with what it judges"},
		{"connect", "carpool/internal/sim", "only cmd starts the simulator"},
		{"gateway", "net/http", "the pipeline speaks wire types; net/http stands at its ends"},
		{"anthropic", "net/http", "pure: no I/O"},
		{"quota", "net/http", "pure: no I/O"},
		{"policy", "net/http", "nouns need no transport"},
		{"price", "net/http", "pure: no I/O"},
		{"anthropic", "os", "pure: no I/O"},
		{"quota", "os", "pure: no I/O"},
		{"price", "os", "pure: no I/O"},
		{"anthropic", "database/sql", "pure: no I/O"},
		{"quota", "database/sql", "pure: no I/O"},
		{"price", "database/sql", "pure: no I/O"},
	}
}

// ban forbids a room and its sub-packages an import; an import path that ends in "/" stands for everything below it.
type ban struct {
	room, path, reason string
}

func (b ban) hits(path string) bool {
	return path == b.path || strings.HasPrefix(path, strings.TrimSuffix(b.path, "/")+"/")
}

// sqlDrivers may be imported below sqlRooms only, by tests as well. The end-to-end tests change files behind the program's back.
func sqlDrivers() []string {
	return []string{"modernc.org/sqlite", "github.com/jackc/pgx", "github.com/lib/pq", "github.com/mattn/go-sqlite3"}
}

func sqlRooms() []string {
	return []string{"carpool/internal/ledger", "carpool/internal/control/store", "carpool/test/e2e"}
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	Dir          string
	ImportPath   string
	Name         string
	Doc          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// room is the package's place in the house: "control" for carpool/internal/control/store, "" outside of internal.
func (p pkg) room() string {
	rest, ok := strings.CutPrefix(p.ImportPath, module+"/internal/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func (p pkg) below(paths []string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		return p.ImportPath == path || strings.HasPrefix(p.ImportPath, path+"/")
	})
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", module+"/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestImportsPointUp(t *testing.T) {
	t.Parallel()
	rank := map[string]int{}
	for i, name := range order() {
		rank[name] = i
	}
	used := map[string]bool{}
	for _, p := range list(t) {
		room := p.room()
		if room == "" || room == "arch" {
			continue
		}
		mine, ok := rank[room]
		if !ok {
			t.Errorf("%s has no place in the house: add internal/%s to the order here and to docs/ARCHITECTURE.md", p.ImportPath, room)
			continue
		}
		for _, path := range p.Imports {
			if strings.HasPrefix(path, module+"/") && !strings.HasPrefix(path, module+"/internal/") {
				t.Errorf("%s imports %s: only rooms below internal may be imported", p.ImportPath, path)
				continue
			}
			other := pkg{ImportPath: path}.room()
			if other == "" || other == room {
				continue
			}
			if theirs, ok := rank[other]; ok && theirs < mine {
				continue
			}
			exception := room + " -> " + other
			if upward()[exception] != "" {
				used[exception] = true
				continue
			}
			t.Errorf("%s imports %s, which stands below it", p.ImportPath, path)
		}
	}
	for exception := range upward() {
		if !used[exception] {
			t.Errorf("exception %q is not used any more: remove it", exception)
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		for _, b := range forbidden() {
			if p.room() != b.room {
				continue
			}
			for _, path := range p.Imports {
				if b.hits(path) && (pkg{ImportPath: path}).room() != b.room {
					t.Errorf("%s imports %s: %s", p.ImportPath, path, b.reason)
				}
			}
		}
	}
}

func TestSQLDriversStayInTheirRooms(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if p.below(sqlRooms()) {
			continue
		}
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for _, driver := range sqlDrivers() {
				if path == driver || strings.HasPrefix(path, driver+"/") {
					t.Errorf("%s imports %s: SQL drivers belong to ledger and control/store", p.ImportPath, path)
				}
			}
		}
	}
}

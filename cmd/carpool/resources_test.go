package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

func TestParseResourcesErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"users:\n  - nme: x\n", `f:2:5: unknown key "nme"; did you mean "name"?`},
		{"users:\n  - {name: x, quota: {dayly: 1}}\n", `f:2:23: unknown key "dayly"; did you mean "daily"?`},
		{"users: []\nkeys:\n  - {name: a, usr: b}\n", `f:3:15: unknown key "usr"; did you mean "user"?`},
		{"everything: []\n", `f:1:1: unknown key "everything"; known: aliases, budgets, keys, routes, teams, upstreams, users`},
		{"Users: []\n", `f:1:1: unknown key "Users"; did you mean "users"?`},
		{"users:\n  - {name: a, disabled: yes}\n", "f:2:25: must be true or false"},
		{"users:\n  - name: [1]\n", "f:2:11: must be a text"},
		{"routes:\n  - models: '*'\n", "f:2:13: must be a list, not a text"},
		{"users:\n  -name: x\n", "f:2:8: must be a list, not a mapping of keys to values"},
		{"[1, 2]", "f:1:1: must be a mapping of keys to values, not a list"},
		{"hello", "f:1:1: must be a mapping of keys to values, not a text"},
		{"upstreams:\n - weight: 1.5\n", "f:2:12: must be a whole number, not 1.5"},
		{"users:\n  - name: a\n    name: b\n", `f:3:5: cannot be read as YAML or JSON: mapping key "name" already defined at [2:5]`},
		{"a: 'x\n", "f:1:4: cannot be read as YAML or JSON: could not find end character of single-quoted text"},
		{"a\x00b", "f:1: is not a text file in UTF-8"},
		{"\n\n\xff", "f:3: is not a text file in UTF-8"},
		{strings.Repeat("[", 100), "f:1: is nested more than 64 levels deep"},
		{strings.Repeat("#", maxResourceBytes+1), "f: has more than 4 MiB; split it and apply the parts"},
		{"users:\n  - name: a\n---\nusers:\n  - name: a\n", `f:5:5: user "a" is declared twice`},
		{"users: [{name: a, quota: {daily: 99999999999999999999}}]", "f:1:34: the number is too large"},
	} {
		_, err := parseResources("f", []byte(c.text))
		if err == nil || err.Error() != c.want {
			t.Errorf("%.60q:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestParseResources(t *testing.T) {
	r, err := parseResources("f", []byte("users:\n- {name: a, quota: {daily: 2e6}}\n---\nusers:\n- name: b\nkeys:\n- {name: k, user: a, key: 12345678901234567890, expiresAt: 2027-01-31}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Users) != 2 || *r.Users[0].Quota.Daily != 2_000_000 || r.Keys[0].Key != "12345678901234567890" || r.Keys[0].ExpiresAt.Year() != 2027 {
		t.Errorf("got %+v", r)
	}
	if r, err = parseResources("f", nil); err != nil || len(r.Users) != 0 {
		t.Errorf("an empty file gives %+v, %v", r, err)
	}
}

// FuzzParseResources holds that no file crashes the program, and that errors are one line that begins with the file's name.
func FuzzParseResources(f *testing.F) {
	archive, err := txtar.ParseFile(filepath.Join("testdata", "script", "apply.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		f.Add(file.Data)
	}
	for _, text := range []string{"{\"users\": [{\"name\": \"a\"}]}", "a: &x [*x]\n", "<<: {users: []}\n", "? [a]\n: b\n", "users: !!binary x\n", "users: [{name: *a}]", "users:\n- quota: {daily: .inf}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		_, err := parseResources("f", data)
		if err != nil && (!strings.HasPrefix(err.Error(), "f:") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %q", data, err)
		}
	})
}

func TestReadInput(t *testing.T) {
	dir := t.TempDir()
	a := &app{stdin: strings.NewReader("from standard input")}
	if data, err := a.readInput("-"); err != nil || string(data) != "from standard input" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := a.readInput(dir); err == nil || err.Error() != "cannot read "+dir+": is a directory" {
		t.Errorf("a folder gives %v", err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 17<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := a.readInput(large); err == nil || !strings.Contains(err.Error(), "more than 16 MiB") {
		t.Errorf("a large file gives %v", err)
	}
}

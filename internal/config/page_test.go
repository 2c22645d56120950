package config

import (
	"os"
	"strings"
	"testing"
)

// The handbook's page of keys is made from the same table as the checks; -update writes it again.
func TestHandbookPageIsCurrent(t *testing.T) {
	const path = "../../docs/configuration.md"
	want := `# Configuration

A server reads one file, YAML or JSON (` + "`carpool serve --config FILE`" + `), then environment variables, then flags; what comes later wins. Without a file
the defaults apply. An unknown key is an error. Durations are milliseconds (30000) or have a unit (30s, 1h30m, 7d). Relative paths in a file are
relative to its folder. Secrets can stand in a file of their own (…File) or in a variable (…Env).

` + "`carpool config check FILE`" + ` says what is understood, ` + "`carpool config print`" + ` what is in force, ` + "`carpool config schema`" + ` gives a JSON schema for editors.
The check reads the file of ` + "`resources`" + `, too, where it exists, and says which names lead out of it.
[Prices](prices.md) has a page of its own, with an example of the rows of ` + "`prices`" + `; a variable takes them in the same form, as in
` + "`CARPOOL_PRICES_DISCOUNTS='[{upstream: main, multiplier: 0.85}]'`" + `.
This file is for starting a server. Users, keys, upstreams and routes live in the server's store: see ` + "`carpool apply --help`" + `.

` + strings.TrimSpace(DocsTable()) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil { //nolint:gosec // a page of the handbook
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not current: go test ./internal/config -update", path)
	}
}

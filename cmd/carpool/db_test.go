package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"carpool/internal/config"
)

// The data folder is ./carpool-data where nobody says otherwise.
func TestDatabasesInARelativeFolder(t *testing.T) {
	const folder = "carpool-data"
	t.Chdir(t.TempDir())
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	c, l := (&site{t: t, folder: folder, now: time.Now()}).open(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	const books = folder + "/node.db"
	if err := os.Rename(books, "elsewhere"); err != nil {
		t.Fatal(err)
	}
	if status, _, problems := carpool(t, folder, "db", "migrate", "--dry-run"); status != 1 || !strings.Contains(problems, "there is no ledger "+books+"; if there was one, restore") {
		t.Errorf("without a ledger: %d %s", status, problems)
	}
	if err := os.Rename("elsewhere", books); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"backup --to copy.tar.gz", "verify", "migrate --dry-run", "migrate", "restore copy.tar.gz --yes", "verify"} {
		if status, out, problems := carpool(t, folder, append([]string{"db"}, strings.Fields(command)...)...); status != 0 {
			t.Errorf("%s: %d\n%s%s", command, status, out, problems)
		}
	}
}

// TestVerifyWithoutControl: what is wrong with control's database is said in one line that names its file.
func TestVerifyWithoutControl(t *testing.T) {
	s := newSite(t)
	r := s.start()
	r.spend("a")
	r.stop()
	cfg, err := config.Load(config.Options{DataDir: s.folder})
	if err != nil {
		t.Fatal(err)
	}
	path := s.path("control")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	torn := slices.Clone(whole)
	for at := len(torn) / 4096 / 2 * 4096; at < len(torn); at += 4096 { // not the schema
		copy(torn[at:], strings.Repeat("\xff", 64))
	}
	for _, c := range []struct {
		why     string
		content []byte
		want    string
	}{
		{"empty", nil, "integrity: control's database " + path + " is missing or empty; stop the server and restore a backup"},
		{"torn", torn, "integrity: control's database " + path + " is damaged: "},
		{"none", bytes.Repeat([]byte("no database "), 1000), "integrity: control's database " + path + " is damaged: file is not a database (26)"},
	} {
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		status, out, problems := carpool(t, s.folder, "db", "verify")
		lines := strings.Split(out, "\n")
		if status != 1 || !strings.HasPrefix(out, c.want) || strings.Contains(out, "\uFFFD") || len(lines) < 2 || !strings.HasPrefix(lines[1], "1 entries, ") {
			t.Errorf("%s: %d\n%s%s", c.why, status, out, problems)
		}
		if c.content == nil {
			continue // see checkWhole
		}
		if _, err := checkAtStart(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s, at the start: %v", c.why, err)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("node"), bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, _ := carpool(t, s.folder, "db", "verify"); status != 1 || !strings.HasPrefix(out, "integrity: the database "+s.path("node")+" cannot be read: ") {
		t.Errorf("the ledger: %d\n%s", status, out)
	}
}

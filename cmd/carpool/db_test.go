package main

import (
	"os"
	"strings"
	"testing"
	"time"
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

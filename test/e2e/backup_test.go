package e2e

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// TestBackupAndRestore: an archive made beside a server or of a stopped one brings its entries back, encrypted and into an
// empty folder, too; and what is wrong with an archive is told and changes nothing.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	archive := func(name string) string { return filepath.Join(dir, name) }
	identity := func(name string) (file, recipient string) {
		key, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(archive(name), []byte(key.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return archive(name), key.Recipient().String()
	}
	right, recipient := identity("right.txt")
	wrong, _ := identity("wrong.txt")

	g := serveIn(t, dir, sim.url, -1)
	g.spend(100)
	g.spend(200)
	g.settled(2)
	text := g.must("db", "backup", "--to", archive("running"))
	if !strings.Contains(text, "2 entries, not encrypted") || !strings.Contains(text, "needed to restore: "+filepath.Join(g.data, "master.key")+" and "+filepath.Join(g.data, "node.key")) {
		t.Errorf("it says %s", text)
	}
	if info, err := os.Stat(archive("running")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if r := g.run("db", "restore", archive("running"), "--yes"); r.code != 1 || !strings.Contains(r.stderr, "another server uses the data folder") {
		t.Errorf("beside a server: %d %s", r.code, r.stderr)
	}
	g.spend(300)
	g.settled(3)
	g.proc.kill()
	if text := g.must("db", "backup", "--to", archive("sealed"), "--with-keys", "--recipient", recipient); !strings.Contains(text, "encrypted") || strings.Contains(text, "Not in it") {
		t.Errorf("it says %s", text)
	}

	entries := func(want int64) {
		t.Helper()
		var v verified
		g = serveIn(t, dir, sim.url, -1) // settles what a killed server left
		g.proc.terminate()
		g.decode(&v, "db", "verify")
		if v.Entries != want || len(v.Findings) > 0 {
			t.Errorf("want %d entries: %+v", want, v)
		}
	}
	if text := g.must("db", "restore", archive("running"), "--yes"); !strings.Contains(text, "2 entries") || !strings.Contains(text, "What was there is in "+filepath.Join(g.data, "replaced-")) {
		t.Errorf("it says %s", text)
	}
	entries(2)

	whole, err := os.ReadFile(archive("running"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 0x10
	for name, data := range map[string][]byte{"cut": whole[:len(whole)-100], "flipped": flipped, "empty": nil} {
		if err := os.WriteFile(archive(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newer(t, g, archive("newer"))
	for _, c := range []struct {
		want string
		args []string
	}{
		{"is damaged", []string{archive("cut")}},
		{"is damaged", []string{archive("flipped")}},
		{"is damaged", []string{archive("empty")}},
		{"is encrypted; name the file", []string{archive("sealed")}},
		{"is encrypted for other keys", []string{archive("sealed"), "--identity", wrong}},
		{"has schema version 99999 and this Carpool knows", []string{archive("newer")}},
	} {
		r := g.run(append([]string{"db", "restore", "--yes"}, c.args...)...)
		if r.code != 1 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%v: %d %s", c.args, r.code, r.stderr)
		}
	}
	entries(2) // as it was

	if err := os.RemoveAll(g.data); err != nil {
		t.Fatal(err)
	}
	if text := g.must("db", "restore", archive("sealed"), "--identity", right, "--yes"); strings.Contains(text, "What was there") || strings.Contains(text, "Put ") {
		t.Errorf("it says %s", text)
	}
	entries(3)
}

// TestRestoreOnAnotherServer: a backup without keys is restored where a server has run that made keys of its own. It says
// which of them do not belong to it, and with the right ones everything is as it was.
func TestRestoreOnAnotherServer(t *testing.T) {
	t.Parallel()
	sim, there, here := startSim(t), t.TempDir(), t.TempDir()
	archive := filepath.Join(there, "archive")
	from := serveIn(t, there, sim.url, -1)
	from.spend(100)
	from.settled(1)
	from.must("db", "backup", "--to", archive)
	from.proc.terminate()
	g := serveIn(t, here, sim.url, -1)
	g.proc.terminate()

	text := g.must("db", "restore", archive, "--yes")
	for _, want := range []string{
		"1 entries", "Warning: master.key is not the key that the restored control.db was sealed with", "Warning: node.key is the key ", "developers' keys are refused",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q: %s", want, text)
		}
	}
	for _, name := range []string{"master.key", "node.key"} {
		key, err := os.ReadFile(filepath.Join(from.data, name))
		if err := errors.Join(err, os.WriteFile(filepath.Join(g.data, name), key, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if text := g.must("db", "restore", archive, "--yes"); strings.Contains(text, "Warning") {
		t.Errorf("with the right keys: %s", text)
	}
	g = serveIn(t, here, sim.url, -1)
	g.spend(200)
	g.settled(2)
	g.proc.terminate()
	var v verified
	if g.decode(&v, "db", "verify"); v.Entries != 2 || len(v.Findings) > 0 {
		t.Errorf("%+v", v)
	}
}

// TestRestoreOfCopies: the copies that a server makes at an interval are restored like an archive, both or one; after one the
// node delivers what control lacks.
func TestRestoreOfCopies(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1, "storage: {backupInterval: 1s}")
	copies := func(name string) []string {
		found, err := filepath.Glob(filepath.Join(g.data, "backups", name+"-*.db"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	g.spend(100)
	g.settled(1)
	began := time.Now().UTC().Format("20060102T150405.000Z")
	eventually(t, 20*time.Second, "a backup that began later", func() bool {
		found := copies("control")
		return len(found) > 0 && filepath.Base(found[len(found)-1]) > "control-"+began
	})
	g.proc.terminate()
	copied := copies("control")[len(copies("control"))-1]
	g = serveIn(t, dir, sim.url, -1)
	g.spend(200)
	g.spend(300)
	g.settled(3)
	g.proc.terminate()

	entries := func(want int64) {
		t.Helper()
		g = serveIn(t, dir, sim.url, -1)
		g.settled(int(want))
		g.proc.terminate()
		var v verified
		if g.decode(&v, "db", "verify"); v.Entries != want || len(v.Findings) > 0 {
			t.Errorf("want %d entries: %+v", want, v)
		}
	}
	if text := g.must("db", "restore", copied, "--only", "control", "--yes"); !strings.HasPrefix(text, "restored control.db\n") {
		t.Errorf("it says %s", text)
	}
	entries(3)

	whole, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	copy(damaged[len(damaged)/2:], bytes.Repeat([]byte{0xff}, 8192))
	for name, data := range map[string][]byte{"control-20261125T120000.000Z.db": whole, "control-20261125T120001.000Z.db": damaged, "other.db": whole} {
		write(t, filepath.Join(dir, name), string(data))
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"node-20261125T120000.000Z.db, of the same time; --only control restores", []string{"control-20261125T120000.000Z.db"}},
		{"--only control restores", []string{"control-20261125T120000.000Z.db", "--only", "node"}},
		{"control.db in the backup is damaged", []string{"control-20261125T120001.000Z.db", "--only", "control"}},
		{"only the copies that are called control-TIME.db and node-TIME.db", []string{"other.db"}},
	} {
		c.args[0] = filepath.Join(dir, c.args[0])
		if r := g.run(append([]string{"db", "restore", "--yes"}, c.args...)...); r.code != 1 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%v: %d %s", c.args, r.code, r.stderr)
		}
	}
	if r := g.run("db", "restore", "--yes", copied, "--only", "both"); r.code != 2 {
		t.Errorf("%d %s", r.code, r.stderr)
	}
	entries(3) // as it was

	if text := g.must("db", "restore", copied, "--yes"); !strings.HasPrefix(text, "restored node.db, control.db: 1 entries\n") {
		t.Errorf("it says %s", text)
	}
	entries(1)
}

// newer makes an archive of the stopped server's databases with a schema of the future.
func newer(t *testing.T, g *gateway, archive string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(g.data, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	change := func(statement string) {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	change(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
	g.must("db", "backup", "--to", archive)
	change(`DELETE FROM goose_db_version WHERE version_id = 99999`)
}

// TestMigrate: databases of an older Carpool are brought up to date by the command or by the server's start, after a backup
// that can be restored; those of a newer one are left alone.
func TestMigrate(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	g.spend(100)
	g.settled(1)
	if r := g.run("db", "migrate"); r.code != 1 || !strings.Contains(r.stderr, "another server uses the data folder") {
		t.Errorf("beside a server: %d %s", r.code, r.stderr)
	}
	g.proc.terminate()
	change := func(statements string) {
		t.Helper()
		db, err := sql.Open("sqlite", filepath.Join(g.data, "control.db"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.ExecContext(t.Context(), statements)
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	backups := func() []string {
		found, err := filepath.Glob(filepath.Join(g.data, "backups", "upgrade-*.tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	const older = `DROP TABLE budgets; DROP TABLE rollups; DROP TABLE removals; DELETE FROM goose_db_version WHERE version_id >= 4`
	change(older)
	if text := g.must("db", "migrate", "--dry-run"); !strings.Contains(text, "would migrate") || !strings.Contains(text, "from schema version 3 to ") || len(backups()) > 0 {
		t.Errorf("it says %s, and there are %v", text, backups())
	}
	if text := g.must("db", "migrate"); !strings.Contains(text, "00004_budgets") || len(backups()) != 1 || !strings.Contains(text, backups()[0]) {
		t.Errorf("it says %s, and there are %v", text, backups())
	}
	if text := g.must("db", "migrate"); !strings.Contains(text, "nothing to do") || len(backups()) != 1 {
		t.Errorf("it says %s, and there are %v", text, backups())
	}
	if text := g.must("db", "restore", backups()[0], "--yes"); !strings.Contains(text, "1 entries") || !strings.Contains(text, "of an older Carpool") {
		t.Errorf("it says %s", text)
	}
	g = serveIn(t, dir, sim.url, -1)
	g.proc.terminate()
	if len(backups()) != 2 {
		t.Errorf("the start made no backup: %v", backups())
	}
	var v verified
	if g.decode(&v, "db", "verify"); v.Entries != 1 || len(v.Findings) > 0 {
		t.Errorf("%+v", v)
	}
	// The last three stay, and those that somebody asked for.
	g.must("db", "backup")
	first := backups()[0]
	for range 2 {
		change(older)
		g.must("db", "migrate")
	}
	asked, err := filepath.Glob(filepath.Join(g.data, "backups", "carpool-*.tar.gz"))
	if kept := backups(); err != nil || len(asked) != 1 || len(kept) != 3 || kept[0] == first {
		t.Errorf("%v and %v are kept, the first was %s", kept, asked, first)
	}
	change(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
	if r := g.run("db", "migrate"); r.code != 1 || !strings.Contains(r.stderr, "has schema version 99999 and this Carpool knows up to") || len(backups()) != 3 {
		t.Errorf("a newer one: %d %s", r.code, r.stderr)
	}
}

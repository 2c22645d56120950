package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"carpool/internal/config"
	"carpool/internal/control"
	"carpool/internal/ledger"
)

// restored is the result of a restore.
type restored struct {
	Entries  int64    `json:"entries"`
	Restored []string `json:"restored"`
	Kept     string   `json:"kept,omitempty"` // folder of what was there before
	Missing  []string `json:"missing"`        // what the server needs besides
	Warnings []string `json:"warnings"`       // keys in the data folder that do not belong to what was restored
	Upgrade  bool     `json:"upgrade"`        // the backup has an older schema, of which only SQLite's integrity was checked
}

func newDBRestoreCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put the databases of a backup in the place of a server's",
		Long: `Put the databases of a backup in the place of those of a server, which must be stopped. A backup is an archive of
'carpool db backup' or of an upgrade, or one of the copies that storage.backupInterval makes: with either of them comes the
other database's of the same time. It is unpacked and verified first, and nothing is changed when anything is wrong with it.
What was there before is kept in a folder of the data folder. Keys are replaced only when an archive holds them.

--only restores one database and leaves the other. Either may be older: the node delivers again what control lacks and it
still has, and goes on after what control has.`,
		Example: `  carpool db restore carpool.tar.gz --data ./carpool-data
  carpool db restore carpool.tar.gz.age --identity key.txt --config carpool.yaml --yes
  carpool db restore carpool-data/backups/control-20261125T120000.000Z.db --only control --data ./carpool-data`,
		Args: arguments("FILE"),
	}
	identity := cmd.Flags().String("identity", "", "open an encrypted archive with the age private keys in `FILE`")
	only := cmd.Flags().String("only", "", "restore only this `DATABASE`: node or control")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *only != "" && *only != "node" && *only != "control" {
			return usagef("the flag --only does not take %q: it is node or control", *only)
		}
		identities, err := a.readIdentities(*identity)
		if err != nil {
			return err
		}
		cfg, err := a.loadConfig()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return fmt.Errorf("cannot make the data folder: %w", err)
		}
		unlock, err := lockFolder(cfg.DataDir)
		if err != nil {
			return err
		}
		defer unlock()                                         //nolint:errcheck // the process ends
		staged, err := os.MkdirTemp(cfg.DataDir, ".restore-*") // made with mode 0700
		if err != nil {
			return fmt.Errorf("cannot make a folder to unpack into: %w", err)
		}
		defer os.RemoveAll(staged) //nolint:errcheck // what is left there harms nobody
		result := restored{Missing: []string{}, Warnings: []string{}}
		if result.Restored, err = readBackup(args[0], staged, identities, *only); err != nil {
			return err
		}
		if err := result.verify(cmd.Context(), cfg, staged); err != nil {
			return err
		}
		if err := a.confirm(cmd, *yes, "Replace %s in %s by %s?", strings.Join(result.Restored, ", "), cfg.DataDir, result.from(args[0])); err != nil {
			return err
		}
		kept := filepath.Join(cfg.DataDir, "replaced-"+a.now().UTC().Format(backupStamp))
		if err := result.swap(cfg, staged, kept); err != nil {
			return err
		}
		for _, key := range []string{masterKey(cfg), nodeKey(cfg)} {
			if _, err := os.Stat(key); err != nil {
				result.Missing = append(result.Missing, key)
			}
		}
		return a.show(result, result.text)
	}
	return cmd
}

// readBackup unpacks a backup of either kind into a folder and returns the names of what it has of the databases, or of
// the one that only names.
func readBackup(path, folder string, identities []age.Identity, only string) ([]string, error) {
	if isDatabase(path) {
		return readCopies(path, folder, only)
	}
	names, err := readArchive(path, folder, identities)
	if err != nil || only == "" {
		return names, err
	}
	return slices.DeleteFunc(names, func(name string) bool {
		ofNode := name == archivedNodeKey || strings.HasPrefix(name, archivedNode)
		return ofNode != (only == "node")
	}), nil
}

// from says what is restored.
func (r *restored) from(path string) string {
	if r.holds(archivedNode) {
		return fmt.Sprintf("those of %s, with %d entries", path, r.Entries)
	}
	return "that of " + path
}

func (r *restored) holds(name string) bool { return slices.Contains(r.Restored, name) }

// verify looks whether the unpacked databases can be put in place. The node's was copied first, and prices may have
// changed, so that the ledger is verified against itself only.
func (r *restored) verify(ctx context.Context, cfg *config.Config, staged string) error {
	check := func(name string, have, know int64, damage []string) error {
		switch {
		case len(damage) > 0:
			return fmt.Errorf("%s in the backup is damaged: %s", name, damage[0])
		case have > know:
			return fmt.Errorf("%s in the backup has schema version %d and this Carpool knows up to %d; use the newer Carpool that wrote it", name, have, know)
		}
		r.Upgrade = r.Upgrade || have < know
		return nil
	}
	if r.holds(archivedControl) {
		policies, err := control.Inspect(ctx, filepath.Join(staged, archivedControl))
		if err != nil {
			return err
		}
		if err := check(archivedControl, policies.Schema.Have, policies.Schema.Known, policies.Damage); err != nil {
			return err
		}
		r.checkMasterKey(r.keyOf(archivedMasterKey, staged, masterKey(cfg)), policies)
	}
	if !r.holds(archivedNode) {
		return nil
	}
	books, err := ledger.Inspect(ctx, filepath.Join(staged, archivedNode))
	if err != nil {
		return err
	}
	if err := check(archivedNode, books.Schema.Have, books.Schema.Known, books.Damage); err != nil {
		return err
	}
	if r.Entries = books.Entries; len(books.Schema.Pending) > 0 {
		return nil
	}
	return r.verifyLedger(ctx, cfg, staged)
}

// keyOf is where a key is that the restored databases will be used with: the archive's, else the data folder's.
func (r *restored) keyOf(name, staged, place string) string {
	if r.holds(name) {
		return filepath.Join(staged, name)
	}
	return place
}

func (r *restored) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// checkMasterKey warns of a master key that control's database was not sealed with.
func (r *restored) checkMasterKey(path string, s control.Summary) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return // told as missing, and not made here
	}
	const do = "put the master.key of the server that was backed up in its place before the server starts"
	key, err := control.LoadMasterKey(path, nil)
	switch {
	case err != nil:
		r.warn("%v; %s", err, do)
	case !key.Fits(s):
		r.warn("%s is not the key that the restored control.db was sealed with: the server does not start with it, its credentials cannot be read and "+
			"developers' keys are refused; %s", archivedMasterKey, do)
	}
}

// checkNodeKey warns of a node's key in the data folder that the ledger was not signed with.
func (r *restored) checkNodeKey(path, signedWith string) {
	key, err := ledger.ReadKey(path)
	if errors.Is(err, fs.ErrNotExist) || signedWith == "" {
		return
	}
	const do = "put the node.key of the server that was backed up in its place before the server starts, if you have it"
	if err != nil {
		r.warn("%v; %s", err, do)
		return
	}
	if public, _ := key.Public().(ed25519.PublicKey); ledger.KeyID(public) != signedWith {
		r.warn("%s is the key %s, and the restored ledger was signed with %s: the next start signs with the former, and signed heads that were kept elsewhere are of another key then; %s",
			archivedNodeKey, ledger.KeyID(public), signedWith, do)
	}
}

// verifyLedger verifies an unpacked ledger with the key that came with it. That of the data folder may be another server's.
func (r *restored) verifyLedger(ctx context.Context, cfg *config.Config, staged string) error {
	audit := ledger.Audit{Node: cfg.Node.Name}
	if r.holds(archivedNodeKey) {
		key, err := ledger.ReadKey(filepath.Join(staged, archivedNodeKey))
		if err != nil {
			return err
		}
		audit.Key, _ = key.Public().(ed25519.PublicKey)
	}
	v, err := ledger.Verify(ctx, filepath.Join(staged, archivedNode), audit)
	if err != nil {
		return err
	}
	wrong := []error{}
	for _, f := range v.Findings {
		wrong = append(wrong, fmt.Errorf("%s: %s", f.Check, f.What))
	}
	if len(wrong) > 0 {
		return errors.Join(append(wrong, errors.New("the books in the backup are not as they should be; nothing was changed"))...)
	}
	if !r.holds(archivedNodeKey) {
		r.checkNodeKey(nodeKey(cfg), v.Key)
	}
	return nil
}

// move is a rename that can be taken back.
type move struct{ from, to string }

// swap moves what is in place into the folder kept, and what was unpacked into its place. When a step fails, those
// before are taken back.
func (r *restored) swap(cfg *config.Config, staged, kept string) (err error) {
	places := map[string]string{
		archivedNode: cfg.Storage.Path, archivedControl: cfg.Control.Store.Path, archivedMasterKey: masterKey(cfg), archivedNodeKey: nodeKey(cfg),
	}
	if err := os.Mkdir(kept, 0o700); err != nil {
		return fmt.Errorf("cannot make a folder for what is there: %w", err)
	}
	var done []move
	defer func() {
		if err == nil {
			return
		}
		err = fmt.Errorf("%w; nothing was changed", err)
		for _, m := range slices.Backward(done) {
			if back := os.Rename(m.to, m.from); back != nil {
				err = fmt.Errorf("%w, but %s, which belongs to %s", err, m.to, m.from)
			}
		}
		_ = os.Remove(kept) // empty again
	}()
	rename := func(from, to string) error {
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("cannot replace the databases: %w", err)
		}
		done = append(done, move{from, to})
		return nil
	}
	// One pair after the other: a server that starts after a crash in between finds one of the databases at least, and
	// does not begin anew.
	for _, name := range []string{archivedNode, archivedControl, archivedNodeKey, archivedMasterKey} {
		if !slices.Contains(r.Restored, name) {
			continue
		}
		place := places[name]
		old, err := partsOf(place)
		if err != nil {
			return err
		}
		for _, path := range old {
			if err := rename(path, filepath.Join(kept, filepath.Base(path))); err != nil {
				return err
			}
			r.Kept = kept
		}
		for _, part := range r.Restored {
			if rest, ok := strings.CutPrefix(part, name); ok {
				if err := rename(filepath.Join(staged, part), place+rest); err != nil {
					return err
				}
			}
		}
	}
	for _, path := range places {
		if err := syncFolder(filepath.Dir(path)); err != nil {
			return err
		}
	}
	if r.Kept == "" {
		return os.Remove(kept)
	}
	return nil
}

// partsOf lists a file and those beside it that begin with its name: of a database its write-ahead log, its journal and
// its signed head. A lock is no part.
func partsOf(path string) (parts []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot look for what is there: %w", err)
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path))
		if ok && rest != ".lock" && (rest == "" || rest[0] == '.' || rest[0] == '-') {
			parts = append(parts, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return parts, nil
}

func (r *restored) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "restored %s", strings.Join(r.Restored, ", "))
	if r.holds(archivedNode) {
		fmt.Fprintf(&text, ": %d entries", r.Entries)
	}
	text.WriteString("\n")
	if r.Kept != "" {
		fmt.Fprintf(&text, "What was there is in %s.\n", r.Kept)
	}
	if r.Upgrade {
		text.WriteString("The backup is of an older Carpool: the next start brings it up to date, and carpool db verify verifies it then.\n")
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(&text, "Warning: %s.\n", warning)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(&text, "Put %s back before the server starts.\n", strings.Join(r.Missing, " and "))
	}
	return text.String()
}

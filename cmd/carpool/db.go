package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"carpool/internal/config"
	"carpool/internal/control"
	"carpool/internal/ledger"
	"carpool/internal/price"
)

func newDBCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "db",
		Short:   "Verify, back up, restore and migrate the databases of a server",
		Example: "  carpool db verify --config carpool.yaml\n  carpool db backup --to carpool.tar.gz",
	}
	cmd.AddCommand(newDBVerifyCommand(a), newDBBackupCommand(a), newDBRestoreCommand(a), newDBMigrateCommand(a))
	return cmd
}

// masterKey is control's key in the data folder.
func masterKey(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "master.key") }

// nodeKey is the node's key in the data folder.
func nodeKey(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "node.key") }

// errUnverified is the result of a verification that found something.
var errUnverified = errors.New("the books are not as they should be; see docs/reliability.md")

func newDBVerifyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that the books are whole, unchanged and add up",
		Long: `Check the databases of a server, which may be running: that SQLite finds both whole, that no entry of the ledger
was changed, removed or moved (each has the hash of the one before it, and the newest is signed), that every quota
counter is what its entries add up to, that what an entry costs follows from its usage, and that control has the
same entries, or roll-ups of them that add up. Nothing is changed. The exit status is 1 when anything is wrong; each
finding says what to do.

The files are read directly, so this runs on the server's machine with --config or --data. With --head the ledger is also
compared with a copy of node.db.head that was kept elsewhere: it must still have all entries up to that one, as they were.`,
		Example: "  carpool db verify --data ./carpool-data\n  carpool db verify --config /etc/carpool/carpool.yaml --output json\n" +
			"  carpool db verify --data ./carpool-data --head /elsewhere/node.db.head",
		Args: arguments(),
	}
	head := cmd.Flags().String("head", "", "compare with the signed head in `FILE`, a copy of node.db.head that was kept elsewhere")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := a.loadConfig()
		if err != nil {
			return err
		}
		var kept string
		if *head != "" {
			text, err := os.ReadFile(*head)
			if err != nil {
				return plainFileError(err)
			}
			if kept = string(text); kept == "" {
				return fmt.Errorf("the file %s is empty, and no signed head", *head)
			}
		}
		result, err := verifyBooks(cmd.Context(), cfg, kept, nil)
		if err != nil {
			return err
		}
		if err := a.show(result, func() string { return verifiedText(result) }); err != nil {
			return err
		}
		if len(result.Findings) > 0 {
			return errUnverified
		}
		return nil
	}
	return cmd
}

// verifyBooks verifies the ledger against itself, a signed head that may be "", and control's database, with pauses that may
// be nil.
func verifyBooks(ctx context.Context, cfg *config.Config, kept string, pause func(context.Context) error) (v *ledger.Verified, err error) {
	audit, err := auditOf(cfg)
	if err != nil {
		return nil, err
	}
	audit.Kept, audit.Pause = kept, pause
	var books *control.Books // nil: what control has cannot be read
	var findings []ledger.Finding
	if path := cfg.Control.Store.Path; filled(path) {
		opened, wrong := control.OpenBooks(ctx, path) // first: the ledger has all that control has
		if wrong != nil {
			return nil, wrong
		}
		defer func() { err = errors.Join(err, opened.Close()) }()
		var whole bool
		if whole, findings, err = verifyControl(ctx, opened, path); err != nil {
			return nil, err
		}
		if whole {
			books, audit.Copy = opened, opened
		}
	} else {
		findings = []ledger.Finding{{Check: "integrity", What: "control's database " + path + " is missing or empty", Do: restoreBackup}}
	}
	lost, err := lostLedger(ctx, cfg, books)
	if err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		v = &ledger.Verified{Findings: lost}
	} else if v, err = ledger.Verify(ctx, cfg.Storage.Path, audit); err != nil {
		return nil, err
	}
	v.Findings = orEmpty(append(v.Findings, findings...))
	return v, nil
}

// auditOf says what the ledger is verified against beside control's database.
func auditOf(cfg *config.Config) (ledger.Audit, error) {
	prices, err := price.New(cfg.Prices.Overlay())
	if err != nil {
		return ledger.Audit{}, fmt.Errorf("prices: %w", err)
	}
	audit := ledger.Audit{Node: cfg.Node.Name, Cost: func(e *ledger.Entry) (int64, bool) {
		r, whole := e.PriceRequest()
		if !whole || e.PriceVersion != prices.Version() {
			return 0, false
		}
		return prices.Cost(e.StartedAt, r).Total, true
	}}
	key, err := ledger.ReadKey(nodeKey(cfg))
	switch {
	case err == nil:
		audit.Key, _ = key.Public().(ed25519.PublicKey)
	case !errors.Is(err, fs.ErrNotExist):
		return ledger.Audit{}, err
	}
	return audit, nil
}

const restoreBackup = "stop the server and restore a backup with carpool db restore"

// verifyControl verifies what needs nothing but control's database, and reports whether that is whole.
func verifyControl(ctx context.Context, books *control.Books, path string) (whole bool, findings []ledger.Finding, err error) {
	damage, err := books.Damage(ctx)
	if err != nil || len(damage) > 0 {
		return false, ofControl(path, damage), err
	}
	drift, err := books.RollupDrift(ctx)
	if err != nil {
		return false, nil, err
	}
	if drift != (control.Drift{}) {
		findings = append(findings, ledger.Finding{
			Check: "rollups", What: fmt.Sprintf("control's roll-ups have %+d requests, %+d tokens and %+d micro-dollars against the entries that they are made of",
				drift.Requests, drift.Tokens, drift.Cost),
			Do: "compare with a backup of control's database; somebody or something changed it",
		})
	}
	return true, findings, nil
}

func verifiedText(v *ledger.Verified) string {
	var text strings.Builder
	for _, f := range v.Findings {
		fmt.Fprintf(&text, "%s: %s; %s\n", f.Check, printable(f.What), f.Do)
	}
	signed := "not signed"
	if v.Key != "" {
		signed = "signed up to entry " + strconv.FormatInt(v.Signed, 10) + " with the key " + v.Key
	}
	result := "nothing is wrong"
	if n := len(v.Findings); n > 0 {
		result = countOf(n, "finding")
	}
	fmt.Fprintf(&text, "%d entries, %d in the chain, %d priced again, %d compared with control, %d counters, %d open: %s\n",
		v.Entries, v.Chained, v.Priced, v.Compared, v.Counters, v.Open, result)
	if v.Hash != "" {
		fmt.Fprintf(&text, "head %d %s, %s\n", v.LastSeq, v.Hash, signed)
	}
	return text.String()
}

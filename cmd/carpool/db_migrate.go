package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/config"
	"carpool/internal/control"
	"carpool/internal/ledger"
)

// migration is what there is to do for one of the databases.
type migration struct {
	Database string   `json:"database"`
	From     int64    `json:"from"`
	To       int64    `json:"to"`
	Steps    []string `json:"steps"`
}

// migrated is the result of a migration.
type migrated struct {
	Backup     string      `json:"backup,omitempty"`
	DryRun     bool        `json:"dryRun"`
	Migrations []migration `json:"migrations"`
}

func newDBMigrateCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring both databases up to date with this Carpool",
		Long: `Bring the schemas of both databases of a stopped server up to date with this Carpool, after a backup into the folder
backups of the data folder, which 'carpool db restore' takes back; the last three of these are kept. A server does the
same when it starts. Databases that a newer Carpool wrote are refused.`,
		Example: "  carpool db migrate --dry-run --config carpool.yaml\n  carpool db migrate --config carpool.yaml",
		Args:    arguments(),
	}
	dryRun := cmd.Flags().Bool("dry-run", false, "only say what would be done")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := a.loadConfig()
		if err != nil {
			return err
		}
		if _, err := os.Stat(cfg.DataDir); err != nil {
			return fmt.Errorf("there is nothing to migrate: %w", err)
		}
		unlock, err := lockFolder(cfg.DataDir)
		if err != nil {
			return err
		}
		defer unlock() //nolint:errcheck // the process ends
		result := migrated{DryRun: *dryRun}
		if result.Migrations, err = dueMigrations(cmd.Context(), cfg); err != nil {
			return err
		}
		if len(result.Migrations) > 0 && !*dryRun {
			if result.Backup, err = backUpClosed(cmd.Context(), cfg, a.now()); err != nil {
				return err
			}
			if err := errors.Join(ledger.Migrate(cmd.Context(), cfg.Storage.Path), control.Migrate(cmd.Context(), cfg.Control.Store.Path)); err != nil {
				return fmt.Errorf("%w; the databases as they were are in %s", err, result.Backup)
			}
			if err := pruneUpgrades(cfg); err != nil {
				return err
			}
		}
		return a.show(result, result.text)
	}
	return cmd
}

// dueMigrations lists what there is to do. It refuses databases of a newer Carpool.
func dueMigrations(ctx context.Context, cfg *config.Config) ([]migration, error) {
	books, err := ledger.ReadSchema(ctx, cfg.Storage.Path)
	if err != nil {
		return nil, err
	}
	policies, err := control.ReadSchema(ctx, cfg.Control.Store.Path)
	if err != nil {
		return nil, err
	}
	due := []migration{}
	for _, m := range []migration{
		{cfg.Storage.Path, books.Have, books.Known, books.Pending},
		{cfg.Control.Store.Path, policies.Have, policies.Known, policies.Pending},
	} {
		if m.From > m.To {
			return nil, fmt.Errorf("%s has schema version %d and this Carpool knows up to %d; run the newer Carpool that wrote it", m.Database, m.From, m.To)
		}
		if len(m.Steps) > 0 {
			due = append(due, m)
		}
	}
	return due, nil
}

// archivedUpgrade begins the name of an archive that is made before an upgrade, apart from those that somebody asked for.
const archivedUpgrade = "upgrade"

// backUpClosed archives both databases of a data folder that the caller has locked before they are upgraded, and returns
// the archive's path.
func backUpClosed(ctx context.Context, cfg *config.Config, now time.Time) (path string, err error) {
	folder, err := copyClosed(ctx, cfg)
	if folder != "" {
		defer os.RemoveAll(folder) //nolint:errcheck // a copy too many harms nobody
	}
	if err != nil {
		return "", err
	}
	files, err := new(backedUp).choose(cfg, folder, false)
	if err != nil {
		return "", err
	}
	path = archiveIn(cfg, archivedUpgrade, now.UTC().Format(backupStamp))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("cannot make the folder of backups: %w", err)
	}
	_, err = writeArchive(path, files, nil)
	return path, err
}

// pruneUpgrades removes the oldest archives that were made before upgrades. It is for after an upgrade: one that fails again
// and again must not push out the archive of how things were before the first time.
func pruneUpgrades(cfg *config.Config) error {
	return keepNewest(filepath.Dir(archiveIn(cfg, archivedUpgrade, "")), archivedUpgrade+"-", ".tar.gz", keptUpgrades)
}

// backUpBeforeUpgrade makes a backup when the opening of the databases will change their schemas.
func (a *app) backUpBeforeUpgrade(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	for _, path := range []string{cfg.Storage.Path, cfg.Control.Store.Path} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil // a new data folder, or one that lost the database that the other one fills again
		}
	}
	due, err := dueMigrations(ctx, cfg)
	if err != nil || len(due) == 0 {
		return nil //nolint:nilerr // what is wrong with a file, its opening says better
	}
	path, err := backUpClosed(ctx, cfg, a.now())
	if err != nil {
		return fmt.Errorf("cannot make the backup before the upgrade: %w", err)
	}
	log.InfoContext(ctx, "made a backup before the upgrade of the databases", slog.String("path", path))
	return nil
}

func (m *migrated) text() string {
	if len(m.Migrations) == 0 {
		return "nothing to do: both databases are up to date\n"
	}
	var text strings.Builder
	verb := "migrated"
	if m.DryRun {
		verb = "would migrate"
	}
	for _, one := range m.Migrations {
		fmt.Fprintf(&text, "%s %s from schema version %d to %d: %s\n", verb, one.Database, one.From, one.To, strings.Join(one.Steps, ", "))
	}
	if m.Backup != "" {
		fmt.Fprintf(&text, "The databases as they were are in %s.\n", m.Backup)
	}
	return text.String()
}

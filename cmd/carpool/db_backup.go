package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/config"
	"carpool/internal/control"
	"carpool/internal/ledger"
)

// backedUp is the result of a backup.
type backedUp struct {
	Path      string   `json:"path"`
	Bytes     int64    `json:"bytes"`
	Entries   int64    `json:"entries"`
	Encrypted bool     `json:"encrypted"`
	Files     []string `json:"files"`
	Without   []string `json:"without"` // what a restore needs besides
}

func newDBBackupCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write both databases into one archive",
		Long: `Write both databases of a server, which may be running, into one archive (tar.gz): the node's first, then control's,
so that control knows what the node does. With --recipient it is encrypted for the holders of these age keys.

The keys of the data folder stay out unless --with-keys is given: master.key, without which the credentials in control's
database cannot be read, and node.key, which signs the ledger. Keep copies of them elsewhere; a restore into an empty
data folder needs them. The configuration is not in it either.`,
		Example: "  carpool db backup --to /backup/carpool.tar.gz\n  carpool db backup --config /etc/carpool/carpool.yaml --with-keys --recipient age1…",
		Args:    arguments(),
	}
	to := cmd.Flags().String("to", "", "write the archive to `FILE` (default: backups/carpool-TIME.tar.gz in the data folder)")
	keys := cmd.Flags().StringArray("recipient", nil, "encrypt for the age public `KEY`; may be repeated")
	withKeys := cmd.Flags().Bool("with-keys", false, "put master.key and node.key into the archive: whoever reads it can read everything")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		recipients, err := readRecipients(*keys)
		if err != nil {
			return err
		}
		cfg, err := a.loadConfig()
		if err != nil {
			return err
		}
		path := *to
		if path == "" {
			path = archiveIn(cfg, "carpool", a.now().UTC().Format(backupStamp))
			if len(recipients) > 0 {
				path += ".age"
			}
		}
		result := backedUp{Path: path, Encrypted: len(recipients) > 0, Files: []string{}, Without: []string{}}
		folder, err := copyDatabases(cmd.Context(), cfg)
		if folder != "" {
			defer os.RemoveAll(folder) //nolint:errcheck // a copy too many harms nobody
		}
		if err != nil {
			return err
		}
		files, err := result.choose(cfg, folder, *withKeys)
		if err != nil {
			return err
		}
		summary, err := ledger.Inspect(cmd.Context(), filepath.Join(folder, archivedNode))
		if err != nil {
			return err
		}
		if len(summary.Damage) > 0 {
			return fmt.Errorf("the ledger is damaged, so it was not backed up: %s; see carpool db verify", summary.Damage[0])
		}
		result.Entries = summary.Entries
		if *to == "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return fmt.Errorf("cannot make the folder of backups: %w", err)
			}
		}
		if result.Bytes, err = writeArchive(path, files, recipients); err != nil {
			return err
		}
		return a.show(result, result.text)
	}
	return cmd
}

// archiveIn is the path of an archive in the folder of backups.
func archiveIn(cfg *config.Config, name, stamp string) string {
	return filepath.Join(cfg.DataDir, "backups", name+"-"+stamp+".tar.gz")
}

// choose lists what goes into the archive.
func (b *backedUp) choose(cfg *config.Config, folder string, withKeys bool) ([]archiveFile, error) {
	copies, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("cannot read the copies: %w", err)
	}
	var files []archiveFile
	for _, c := range copies {
		if archivedName.MatchString(c.Name()) {
			files = append(files, archiveFile{c.Name(), filepath.Join(folder, c.Name())})
		}
	}
	for _, key := range []archiveFile{{archivedMasterKey, masterKey(cfg)}, {archivedNodeKey, nodeKey(cfg)}} {
		if _, err := os.Stat(key.path); withKeys && err == nil {
			files = append(files, key)
		} else {
			b.Without = append(b.Without, key.path)
		}
	}
	for _, f := range files {
		b.Files = append(b.Files, f.name)
	}
	return files, nil
}

func (b *backedUp) text() string {
	var text strings.Builder
	sealed := "not encrypted"
	if b.Encrypted {
		sealed = "encrypted"
	}
	fmt.Fprintf(&text, "%s: %d bytes, %d entries, %s\n", b.Path, b.Bytes, b.Entries, sealed)
	if len(b.Without) > 0 {
		fmt.Fprintf(&text, "Not in it, and needed to restore: %s. Keep copies elsewhere.\n", strings.Join(b.Without, " and "))
	}
	if slices.Contains(b.Files, archivedMasterKey) && !b.Encrypted {
		text.WriteString("It holds master.key: whoever reads it can read every credential.\n")
	}
	return text.String()
}

// copyDatabases copies both databases into a new folder, which the caller removes: through the server when one runs,
// which knows what is not in the files yet, else from the files.
func copyDatabases(ctx context.Context, cfg *config.Config) (folder string, err error) {
	if _, err := os.Stat(cfg.Control.Store.Path); err != nil {
		return "", fmt.Errorf("there is nothing to back up: %w", err)
	}
	unlock, err := lockFolder(cfg.DataDir)
	if errors.Is(err, errFolderInUse) {
		return askForCopy(ctx, cfg)
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return copyClosed(ctx, cfg)
}

// copyClosed copies both databases of a data folder that the caller has locked.
func copyClosed(ctx context.Context, cfg *config.Config) (folder string, err error) {
	if folder, err = makeCopyFolder(cfg); err != nil {
		return "", err
	}
	if err := ledger.CopyClosed(ctx, cfg.Storage.Path, filepath.Join(folder, archivedNode)); err != nil {
		return folder, err
	}
	return folder, control.CopyClosed(ctx, cfg.Control.Store.Path, filepath.Join(folder, archivedControl))
}

func makeCopyFolder(cfg *config.Config) (string, error) {
	folder, err := os.MkdirTemp(cfg.DataDir, ".copy-*") // made with mode 0700
	if err != nil {
		return "", fmt.Errorf("cannot make a folder for the copies: %w", err)
	}
	return folder, nil
}

// copyPath is where a server makes copies for a command on the same machine. It is served on the socket only.
const copyPath = "/copy"

// serveCopy copies both databases into a new folder of the data folder and answers with its path, or with an error.
func (s *standalone) serveCopy(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "POST it", http.StatusMethodNotAllowed)
		return
	}
	folder, err := s.copyInto(r.Context())
	if err != nil {
		s.log.ErrorContext(r.Context(), "cannot make a backup", slog.String("error", err.Error()))
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if err := json.NewEncoder(w).Encode(folder); err != nil {
		_ = os.RemoveAll(folder) // nobody knows of it
	}
}

func (s *standalone) copyInto(ctx context.Context) (string, error) {
	folder, err := makeCopyFolder(s.cfg)
	if err != nil {
		return "", err
	}
	err = s.ledger.Backup(ctx, filepath.Join(folder, archivedNode))
	if err == nil {
		err = s.control.Backup(ctx, filepath.Join(folder, archivedControl))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(folder))
	}
	return folder, nil
}

// askForCopy has the running server make the copies.
func askForCopy(ctx context.Context, cfg *config.Config) (folder string, err error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("cannot have the running server copy its databases: %w", err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socketPath(cfg))
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://carpool"+copyPath, http.NoBody)
	if err != nil {
		return fail(err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fail(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return fail(err)
	}
	if response.StatusCode != http.StatusOK {
		return fail(errors.New(strings.TrimSpace(string(body))))
	}
	if err := json.Unmarshal(body, &folder); err != nil {
		return fail(err)
	}
	// The server may have been started elsewhere; the folder is in the data folder that both mean.
	return filepath.Join(cfg.DataDir, filepath.Base(folder)), nil
}

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// keptBackups is how many copies of each database are kept, and keptUpgrades how many of the archives that are made before an upgrade.
const (
	keptBackups  = 7
	keptUpgrades = 3
)

// copyName is how a copy of storage.backupInterval is called: its database and its time.
var copyName = regexp.MustCompile(`^(node|control)-(\d{8}T\d{6}\.\d{3}Z)\.db$`)

// keepNewest removes all but the newest of the files in a folder that begin and end so and have their time in between.
func keepNewest(folder, begin, end string, keep int) error {
	found, err := os.ReadDir(folder) // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot list the backups: %w", err)
	}
	found = slices.DeleteFunc(found, func(e fs.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), begin) || !strings.HasSuffix(e.Name(), end)
	})
	for len(found) > keep {
		if err := os.Remove(filepath.Join(folder, found[0].Name())); err != nil {
			return fmt.Errorf("cannot remove an old backup: %w", err)
		}
		found = found[1:]
	}
	return nil
}

// isDatabase reports whether a file begins like one of SQLite.
func isDatabase(path string) bool {
	const begin = "SQLite format 3\x00"
	file, err := os.Open(path) //nolint:gosec // the operator's own path
	if err != nil {
		return false // the one who reads it says so better
	}
	defer file.Close()
	head := make([]byte, len(begin))
	_, err = io.ReadFull(file, head)
	return err == nil && string(head) == begin
}

// readCopies copies a copy of storage.backupInterval and the one of the other database that was made with it into a folder,
// under the names that they have in an archive, and returns these. Only one of the two it takes where only is its name.
func readCopies(path, folder, only string) (names []string, err error) {
	parts := copyName.FindStringSubmatch(filepath.Base(path))
	if parts == nil {
		return nil, fmt.Errorf("%s is a database; of those, only the copies that are called control-TIME.db and node-TIME.db can be restored", path)
	}
	for _, name := range []string{archivedNode, archivedControl} {
		kind := strings.TrimSuffix(name, ".db")
		if only != "" && only != kind {
			continue
		}
		from := filepath.Join(filepath.Dir(path), kind+"-"+parts[2]+".db")
		in, err := os.Open(from) //nolint:gosec // beside the operator's own path
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no %s, of the same time; --only %s restores one database and leaves the other", from, parts[1])
		}
		if err != nil {
			return nil, plainFileError(err)
		}
		if err := errors.Join(unpackFile(in, filepath.Join(folder, name)), in.Close()); err != nil {
			return nil, fmt.Errorf("cannot copy %s: %w", from, err)
		}
		names = append(names, name)
	}
	return names, nil
}

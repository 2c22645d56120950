package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// backupStamp is the layout of the time (UTC) in a copy's name.
const backupStamp = "20060102T150405.000Z"

// backUp copies the databases into the folder backups of the data folder, until ctx ends: at each interval, the first time
// an interval after the newest copy, so that a server that is often restarted makes backups too.
func (s *standalone) backUp(ctx context.Context, now func() time.Time) {
	interval := s.cfg.Storage.BackupInterval
	timer := time.NewTimer(untilBackup(s.backups(), interval, now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(interval)
		if err := s.backUpOnce(ctx, now()); err != nil && ctx.Err() == nil {
			s.log.Error("cannot make a backup", slog.String("error", err.Error()))
		}
	}
}

func (s *standalone) backups() string { return filepath.Join(s.cfg.DataDir, "backups") }

// untilBackup returns how long it is until the next backup is due: at once when there is none. It goes by the copies of
// control's database, which are made last.
func untilBackup(folder string, interval time.Duration, now time.Time) time.Duration {
	copies, err := filepath.Glob(filepath.Join(folder, "control-*.db"))
	if err != nil {
		return 0
	}
	var newest time.Time
	for _, path := range copies {
		stamp := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "control-"), ".db")
		if at, err := time.Parse(backupStamp, stamp); err == nil && at.After(newest) {
			newest = at
		}
	}
	return min(max(interval-now.Sub(newest), 0), interval) // a copy from the future does not put it off
}

// backUpOnce copies the node's database first: in a pair that is restored, control then knows at least what the node does,
// and nothing has to be delivered again.
func (s *standalone) backUpOnce(ctx context.Context, now time.Time) error {
	folder := s.backups()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of backups: %w", err)
	}
	stamp := now.UTC().Format(backupStamp)
	return errors.Join(
		copyDatabase(ctx, folder, "node", stamp, s.ledger.Backup),
		copyDatabase(ctx, folder, "control", stamp, s.control.Backup))
}

// copyDatabase writes one copy under a name that is complete only when the copy is, and removes the oldest ones.
func copyDatabase(ctx context.Context, folder, name, stamp string, write func(context.Context, string) error) error {
	unfinished := filepath.Join(folder, name+".unfinished")
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("cannot remove an unfinished backup: %w", err)
	}
	file, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // in the data folder
	if err != nil {
		return fmt.Errorf("cannot make a backup: %w", err)
	}
	if err := errors.Join(file.Close(), write(ctx, unfinished)); err != nil {
		return errors.Join(err, os.Remove(unfinished))
	}
	if err := os.Rename(unfinished, filepath.Join(folder, name+"-"+stamp+".db")); err != nil {
		return fmt.Errorf("cannot finish a backup: %w", err)
	}
	return keepNewest(folder, name+"-", ".db", keptBackups)
}

//go:build !windows

package ledger

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes an exclusive lock on f that ends with the process, or returns errLocked.
func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// unlock ends the lock also where a process that is being made has f for a moment, as all that a fork copies.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

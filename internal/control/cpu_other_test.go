//go:build !windows

package control_test

import (
	"syscall"
	"testing"
	"time"
)

// processorTime returns what this process has used, its own and the system's on its behalf.
func processorTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

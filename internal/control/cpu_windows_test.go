package control_test

import (
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// processorTime returns what this process has used, its own and the system's on its behalf.
func processorTime(t testing.TB) time.Duration {
	var created, ended, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(windows.CurrentProcess(), &created, &ended, &kernel, &user); err != nil {
		t.Fatal(err)
	}
	hundreds := func(f windows.Filetime) int64 { return int64(f.HighDateTime)<<32 + int64(f.LowDateTime) }
	return time.Duration(hundreds(kernel)+hundreds(user)) * 100
}

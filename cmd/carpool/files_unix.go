//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// openFiles is how many files the process may have open. The Go runtime has raised the soft limit to the hard one by now.
func openFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || uint64(limit.Cur) > 1<<30 {
		return fallbackFiles
	}
	return int(limit.Cur)
}

// terminalWidth is how many characters fit into a line of the terminal that a file is; 0 when it is none.
func terminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ) //nolint:gosec // a descriptor is small
	if err != nil {
		return 0
	}
	return int(size.Col)
}

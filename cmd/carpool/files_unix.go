//go:build unix

package main

import "golang.org/x/sys/unix"

// openFiles is how many files the process may have open. The Go runtime has raised the soft limit to the hard one by now.
func openFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || uint64(limit.Cur) > 1<<30 {
		return fallbackFiles
	}
	return int(limit.Cur)
}

//go:build !unix

package main

import "os"

// openFiles is how many files the process may have open; there is no such limit here, but memory has one.
func openFiles() int { return fallbackFiles }

// terminalWidth is not known here.
func terminalWidth(*os.File) int { return 0 }

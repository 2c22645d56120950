//go:build !unix

package main

// openFiles is how many files the process may have open; there is no such limit here, but memory has one.
func openFiles() int { return fallbackFiles }

//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: only on Linux: processor time and memory are read from /proc")
	os.Exit(1)
}

//go:build !race

package wire

func tellWrite() {}

func tellRead(uintptr) {}

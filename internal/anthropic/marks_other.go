//go:build !amd64

package anthropic

// mark is markPortable.
func mark(text []byte, marks []uint64) { markPortable(text, marks) }

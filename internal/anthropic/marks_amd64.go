package anthropic

import "golang.org/x/sys/cpu"

// mark is markPortable, faster where the processor allows.
func mark(text []byte, marks []uint64) {
	switch {
	case len(marks) == 0:
	case cpu.X86.HasAVX2:
		markAVX2(&text[0], &marks[0], len(marks))
	default:
		markPortable(text, marks)
	}
}

// markAVX2 sets n marks from as many windows of text.
//
//go:noescape
func markAVX2(text *byte, marks *uint64, n int)

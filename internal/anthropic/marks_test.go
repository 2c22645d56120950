package anthropic

import (
	"slices"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestMarks: each byte that needs care in a string is marked and no other one, by every way to do it.
func TestMarks(t *testing.T) {
	t.Parallel()
	ways := map[string]func([]byte, []uint64){"this processor": mark, "portable": markPortable}
	hold := func(t rapid.TB, text []byte) {
		t.Helper()
		want := make([]uint64, len(text)/window)
		for i, c := range text {
			if c == '"' || c == '\\' || c < ' ' || c >= utf8.RuneSelf {
				want[i/window] |= 1 << (i % window)
			}
		}
		for name, f := range ways {
			got := make([]uint64, len(want))
			if f(text, got); !slices.Equal(got, want) {
				t.Fatalf("%s: %q: %x, want %x", name, text, got, want)
			}
		}
	}
	for c := range 256 { // next to others that a sum could spill into
		for _, other := range []byte{0, 'a', '!', '"', '\\', 0x7f, 0x80, 0xff} {
			text := slices.Repeat([]byte{byte(c), other, other}, window)
			hold(t, text)
		}
	}
	hold(t, nil)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, windows).Draw(t, "windows")
		hold(t, rapid.SliceOfN(rapid.Byte(), n*window, n*window).Draw(t, "text"))
	})
}

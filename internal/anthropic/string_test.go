package anthropic

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// aligned puts raw into strings such that it begins at every place of a window, with much and with little behind it, and holds what Peek
// says against independent readers.
func aligned(t *testing.T, raw []byte) {
	for _, behind := range []int{0, 5, 200} {
		for before := range 2*window + 3 {
			body := fmt.Appendf(nil, `{"model":"m","a":"","messages":{"b":"%s%s%s","c":"d"}}`, strings.Repeat("x", before), raw, strings.Repeat("y", behind))
			holdAgainstReaders(t, body)
		}
	}
}

func holdAgainstReaders(t *testing.T, body []byte) {
	t.Helper()
	_, err := Peek(body)
	valid := json.Valid(body) && utf8.Valid(body)
	if !valid && err == nil || valid && err != nil && strings.Contains(err.Error(), "not valid JSON") {
		t.Fatalf("%q: valid %v, but %v", body, valid, err)
	}
}

func TestStrings(t *testing.T) {
	for _, raw := range []string{
		"", " ", "!", "#", "[", "]", "\x7f", `\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\u00e9`, `\uD83D\uDE00`, `\ud800`, `\\\\\"`, `\n\n\n\n`,
		"é", "\u0080", "\u07ff", "\u0800", "→", "\ud7ff", "\ue000", "\uffff", "𐀀", "😀", "\U0010ffff", "é→😀é→😀", "文文文文文文", "😀😀😀", `é\n→\"😀\\`,
		// and what is refused
		"\x00", "\x1f", "\n", `"`, `\`, `\x`, `\a`, `\ `, `\é`, `\u`, `\u1`, `\u12`, `\u123`, `\u123g`, `\u123é`, `\\\`,
		"\x80", "\xbf", "\xff", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3\x28", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x86", "\xe2\x28\xa1", "\xed\xa0\x80",
		"\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "é\x80", "→\x80", "😀\x80", "文\xe6\x96",
	} {
		aligned(t, []byte(raw))
	}
}

// Whatever place of a window a fault stands at, the error says where it is.
func TestStringErrorOffset(t *testing.T) {
	for raw, what := range map[string]string{
		`\x`: "invalid escape", "\x01": "unescaped control character 0x01 in a string", "\xff": "invalid UTF-8", "文\xe6\x96": "invalid UTF-8",
	} {
		for before := range 3 * window {
			head := `{"model":"m","x":"` + strings.Repeat("→", before%5) + strings.Repeat(`\n`, before%7) + strings.Repeat("x", before)
			at := len(head) + len(raw) - len(strings.TrimPrefix(raw, "文"))
			_, err := Peek([]byte(head + raw + strings.Repeat("y", 100) + `"}`))
			if want := fmt.Sprintf("%s at byte %d.", what, at); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q after %d bytes: %v, want %s", raw, before, err, want)
			}
		}
	}
}

// Names that matter are found in every spelling, at every place of a window.
func TestNamesInWindows(t *testing.T) {
	long := strings.Repeat("A", 600)
	for _, name := range []string{"cache_control", `cache\u005fcontrol`, `\u0063\u0061che_control`} {
		for _, data := range []string{"data", `d\u0061ta`, `\u0064\u0061\u0074\u0061`} {
			for before := range 2 * window {
				head := `{"model":"m","messages":[{"x":"` + strings.Repeat("x", before) + `","` + data + `":"` + long + `","` + name + `":{}`
				r, err := Peek([]byte(head + `},{}]}`))
				if err != nil || r.Media != len(long) || r.CachedPrefix != len(head)+1 {
					t.Fatalf("%s and %s after %d bytes: %+v, %v", name, data, before, r, err)
				}
			}
		}
	}
	for _, name := range []string{"cache_contro", "cache_controls", `cache_contro\u004c`, `cache\n`, `cache_control\u0000`, "cache-control", "Cache_control", `cache_contro\\`, `\/ache_control`} {
		r, err := Peek([]byte(`{"model":"m","messages":[{"` + name + `":{}}]}`))
		if err != nil || r.CachedPrefix != 0 {
			t.Errorf("%s is taken for cache_control: %+v, %v", name, r, err)
		}
	}
}

// FuzzStrings holds strings against independent readers, at any place of a window.
func FuzzStrings(f *testing.F) {
	for i, raw := range []string{"é→😀", `\n\"\\\u00e9`, "\xed\xa0\x80", `\\\`, "文\xe6\x96", "a\x1f"} {
		f.Add([]byte(raw), uint8(10*i), uint8(90))
	}
	f.Fuzz(func(t *testing.T, raw []byte, before, behind uint8) {
		holdAgainstReaders(t, fmt.Appendf(nil, `{"model":"m","x":"%s%s%s"}`, strings.Repeat("x", int(before)), raw, strings.Repeat("y", int(behind))))
	})
}

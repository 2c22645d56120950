package sim

import (
	"crypto/sha256"
	"strconv"
)

const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// toolMark opens every tool_use id of the simulator; the step and the tool's place in it follow as base 58 digits, so that the
// conversation itself says how far its script has come.
const toolMark = "toolu_01Sim"

// ident returns prefix and n characters that depend on the seed, the kind and the number alone.
func ident(prefix string, n int, seed []byte, kind string, number int) string {
	h := sha256.New()
	_, _ = h.Write(seed)
	_, _ = h.Write([]byte(kind + strconv.Itoa(number)))
	sum := h.Sum(nil)
	out := make([]byte, 0, len(prefix)+n)
	out = append(out, prefix...)
	for i := range n {
		out = append(out, base58[int(sum[i%len(sum)])%len(base58)])
	}
	return string(out)
}

func toolID(seed []byte, step, index int) string {
	at := string([]byte{
		base58[step/58%58], base58[step%58],
		base58[index/58%58], base58[index%58],
	})
	return ident(toolMark+at, 15, seed, "tool", step*maxParallel+index)
}

// toolStep returns the step that a tool_use id of the simulator belongs to.
func toolStep(id string) (step int, ok bool) {
	if len(id) != len(toolMark)+4+15 || id[:len(toolMark)] != toolMark {
		return 0, false
	}
	hi, lo := digit58(id[len(toolMark)]), digit58(id[len(toolMark)+1])
	if hi < 0 || lo < 0 {
		return 0, false
	}
	return hi*58 + lo, true
}

func digit58(c byte) int {
	for i := range len(base58) {
		if base58[i] == c {
			return i
		}
	}
	return -1
}

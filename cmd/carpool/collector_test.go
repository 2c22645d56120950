package main

import "testing"

func TestGarbagePercent(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, 8 << 20: 400, 20 << 20: 160, 31 << 20: 100, 32 << 20: 100, 1 << 34: 100} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MB alive: %d percent, want %d", live>>20, got, want)
		}
	}
}

package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	// garbageRoom is how much garbage may gather before it is collected, even when little is alive: a gateway whose live memory is
	// a few megabytes would otherwise collect many times a second under load. Above it Go's usual rule holds, as much garbage as
	// there is memory alive.
	garbageRoom = 32 << 20
	// mostGarbage, in percent of what is alive, bounds that for a process that has hardly begun.
	mostGarbage = 800
)

// collectPatiently has the garbage collector work less often while little memory is alive, until stop is called. It looks at
// each collection's outcome. An operator's GOGC has precedence.
func collectPatiently(gogc string) (stop func()) {
	if gogc != "" {
		return func() {}
	}
	var over atomic.Bool
	percent := 100
	debug.SetGCPercent(percent)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var next func()
	next = func() {
		if over.Load() {
			return
		}
		metrics.Read(live)
		if want := garbagePercent(live[0].Value.Uint64()); want != percent {
			percent = want
			debug.SetGCPercent(want)
		}
		afterCollection(next)
	}
	afterCollection(next)
	return func() {
		over.Store(true)
		debug.SetGCPercent(100)
	}
}

// garbagePercent is the percentage that leaves garbageRoom, in steps of tens, so that it does not change all the time.
func garbagePercent(live uint64) int {
	percent := garbageRoom * 100 / max(live, 1)
	return int(min(max(percent/10*10, 100), mostGarbage)) //nolint:gosec // at most mostGarbage
}

// afterCollection calls f once after the next collection.
func afterCollection(f func()) {
	mark := new([16]byte) // too large for the allocator to put it together with what lives longer
	runtime.SetFinalizer(mark, func(*[16]byte) { f() })
}

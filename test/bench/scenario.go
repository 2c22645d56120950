//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pattern is when requests are sent.
type pattern int

const (
	closed pattern = iota // each connection sends its next request when the last one is answered
	open                  // at appointed times, whatever became of the earlier ones
	slow                  // each connection has one long stream
)

// load is what one measurement sends.
type load struct {
	name     string // S5-500k belongs to scenario S5
	title    string // of its rows in the table; %d is how many connections, or requests a second
	pattern  pattern
	body     int // bytes of a request
	events   int // content_block_delta events of an answer; 0: an answer in JSON
	every    time.Duration
	conns    int
	rate     int           // requests a second; 0 unless open
	warm     time.Duration // slow: over which the streams are opened
	window   time.Duration
	measures []measure
}

func (l *load) scenario() string {
	name, _, _ := strings.Cut(l.name, "-")
	return name
}

// settle is how long a slow load waits between the opening of the last stream and the window.
const settle = time.Second

func loads() []load {
	const kb = 1 << 10
	all := []load{
		{
			name: "S1", title: "1 KB request, answer of 1 KB in JSON, %d connections",
			body: kb, conns: 32, warm: 2 * time.Second, window: 5 * time.Second,
			measures: []measure{perRequest(), perSecond()},
		},
		{
			name: "S2", title: "100 KB request, stream of 200 events without delay, %d connections",
			body: 100 * kb, events: 200, conns: 32, warm: 2 * time.Second, window: 5 * time.Second,
			measures: []measure{perRequest(), perSecond()},
		},
		{
			name: "S3", title: "%d open streams, 30 KB requests, one event a second each", pattern: slow,
			body: 30 * kb, every: time.Second, conns: 2000, warm: 3 * time.Second, window: 10 * time.Second,
			measures: []measure{perEvent(), perStream()},
		},
		{
			name: "S4", title: "%d requests a second of 100 KB, stream of 50 events", pattern: open,
			body: 100 * kb, events: 50, conns: 1500, rate: 500, warm: 2 * time.Second, window: 6 * time.Second,
			measures: []measure{perRequest(), firstByte(50), firstByte(99)},
		},
	}
	for _, upload := range []struct {
		name, title string
		body, conns int
	}{
		{"S5-30k", "30 KB", 30 * kb, 16},
		{"S5-100k", "100 KB", 100 * kb, 16},
		{"S5-500k", "500 KB", 500 * kb, 8},
		{"S5-5m", "5 MB", 5 << 20, 4},
	} {
		all = append(all, load{
			name: upload.name, title: upload.title + " request, answer of 1 KB in JSON, %d connections",
			body: upload.body, conns: upload.conns, warm: time.Second / 2, window: 5 * time.Second / 2,
			measures: []measure{perRequest()},
		})
	}
	return all
}

// choose returns the loads of the named scenarios, small ones for a smoke run if quick. A process may have files open files.
func choose(names []string, quick bool, files int) ([]load, error) {
	var chosen []load
	all := loads()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(l load) bool { return l.scenario() == name }) {
			return nil, fmt.Errorf("no scenario %q; known: S1 to S5", name)
		}
	}
	for _, l := range all {
		if !slices.Contains(names, l.scenario()) {
			continue
		}
		if quick {
			l.conns, l.rate = min(l.conns, 40), min(l.rate, 100)
			l.warm, l.window, l.every = 100*time.Millisecond, 200*time.Millisecond, l.every/10
		}
		l.conns = min(l.conns, max(1, (files-spareFiles)/2)) // client and upstream are one process
		if l.pattern == slow {
			l.events = int((l.warm+settle+l.window)/l.every) + 2
		}
		l.title = fmt.Sprintf(l.title, cmp.Or(l.rate, l.conns))
		chosen = append(chosen, l)
	}
	return chosen, nil
}

// measure is a row of the table.
type measure struct {
	name    string
	process bool    // of the proxy's processes: there is none to measure where nothing is in between
	added   bool    // compared with direct by difference, not with the reverse proxy by ratio
	unit    float64 // by which of is divided
	of      func(*result) float64
}

func perRequest() measure {
	return measure{name: "processor time per request, µs", process: true, unit: 1, of: func(r *result) float64 { return r.CPUPerRequest }}
}

func perEvent() measure {
	return measure{name: "processor time per event, µs", process: true, unit: 1, of: func(r *result) float64 { return r.CPUPerEvent }}
}

func perStream() measure {
	return measure{name: "memory per stream at the peak, KB", process: true, unit: 1 << 10, of: func(r *result) float64 { return r.MemoryPerStream }}
}

func perSecond() measure {
	return measure{name: "requests per second", unit: 1, of: func(r *result) float64 { return r.PerSecond }}
}

func firstByte(percent int) measure {
	name := fmt.Sprintf("first byte, %dth percentile, ms", percent)
	if percent == 50 {
		name = "first byte, median, ms"
	}
	return measure{name: name, added: true, unit: 1000, of: func(r *result) float64 {
		if percent == 50 {
			return r.FirstByteP50
		}
		return r.FirstByteP99
	}}
}

// concerns reports whether any measure of the load can be taken of a target.
func (l *load) concerns(t *target) bool {
	return slices.ContainsFunc(l.measures, func(m measure) bool { return t.command != nil || !m.process })
}

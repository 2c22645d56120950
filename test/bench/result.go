//go:build linux

package main

import (
	"runtime"
	"slices"
	"time"
)

// result is one measurement. Times are microseconds, sizes bytes.
type result struct {
	Load    string    `json:"load"`
	Target  string    `json:"target"`
	Round   int       `json:"round"`
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`          // of the window
	Sent    int64     `json:"sent"`             // requests, those of the warm-up included
	Booked  int64     `json:"booked,omitempty"` // entries in Carpool's ledger
	Errors  int64     `json:"errors"`
	Sample  string    `json:"errorSample,omitempty"` // the first of them

	Answers         int64   `json:"answers"` // complete within the window
	PerSecond       float64 `json:"perSecond"`
	CPUSeconds      float64 `json:"cpuSeconds"`
	OthersPercent   float64 `json:"othersPercent"` // of the machine's processors, used by what has no part in this
	CPUPerRequest   float64 `json:"cpuPerRequest,omitempty"`
	CPUPerEvent     float64 `json:"cpuPerEvent,omitempty"`
	MemoryStart     int64   `json:"memoryStart"`
	MemoryPeak      int64   `json:"memoryPeak"`
	MemoryPerStream float64 `json:"memoryPerStream,omitempty"`
	FirstByteP50    float64 `json:"firstByteP50,omitempty"`
	FirstByteP99    float64 `json:"firstByteP99,omitempty"`
}

// fill derives the figures from what was counted.
func (res *result) fill(r *run, begin, end point) {
	res.Errors, res.Sample = r.errors.Load(), r.sample
	res.Seconds = end.at.Sub(begin.at).Seconds()
	res.Answers = end.answers - begin.answers
	res.PerSecond = float64(res.Answers) / res.Seconds
	res.FirstByteP50, res.FirstByteP99 = percentile(r.first, 50), percentile(r.first, 99)
	res.OthersPercent = max(0, 100*(end.others-begin.others).Seconds()/res.Seconds/float64(runtime.NumCPU()))
	cpu := end.cpu - begin.cpu
	res.CPUSeconds = cpu.Seconds()
	if r.load.pattern == slow {
		res.CPUPerEvent = per(cpu, float64(end.bytes-begin.bytes)/float64(r.exchanges[0].event))
		res.MemoryPerStream = float64(res.MemoryPeak-res.MemoryStart) / float64(r.load.conns)
		return
	}
	res.CPUPerRequest = per(cpu, float64(res.Answers))
}

// per is microseconds per thing; 0 of none.
func per(cpu time.Duration, things float64) float64 {
	if things == 0 {
		return 0
	}
	return float64(cpu) / float64(time.Microsecond) / things
}

// percentile sorts the durations and returns the one at q percent in microseconds; 0 of none.
func percentile(d []time.Duration, q int) float64 {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return float64(d[min(len(d)-1, len(d)*q/100)]) / float64(time.Microsecond)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

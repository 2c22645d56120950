//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// line shows one measurement, as progress.
func (l *load) line(r *result) string {
	parts := []string{fmt.Sprintf("%s, round %d, %s", r.Load, r.Round, r.Target)}
	for _, m := range l.measures {
		if v := m.of(r) / m.unit; v != 0 {
			parts = append(parts, m.name+": "+digits(v))
		}
	}
	if r.Errors > 0 {
		parts = append(parts, fmt.Sprintf("%d errors: %s", r.Errors, r.Sample))
	}
	return strings.Join(parts, "; ")
}

// report writes the table: a row for each measure of each load, a column for each target, in each cell the median over the
// rounds, with what it is compared with.
func report(w io.Writer, loads []load, targets []target, results []result) {
	fmt.Fprintf(w, "| Load | Measure |%s\n|---|---|%s\n", columns(targets, func(t *target) string { return t.name }), strings.Repeat("---|", len(targets)))
	for i := range loads {
		l := &loads[i]
		title := l.title
		for _, m := range l.measures {
			of := func(name string) float64 {
				var v []float64
				for i := range results {
					if r := &results[i]; r.Load == l.name && r.Target == name {
						v = append(v, m.of(r)/m.unit)
					}
				}
				return median(v)
			}
			fmt.Fprintf(w, "| %s | %s |%s\n", title, m.name, columns(targets, func(t *target) string { return m.cell(of, t) }))
			title = ""
		}
	}
	all := func(show func([]*result) string) string {
		return columns(targets, func(t *target) string {
			var own []*result
			for i := range results {
				if r := &results[i]; r.Target == t.name {
					own = append(own, r)
				}
			}
			return show(own)
		})
	}
	fmt.Fprintf(w, "| all | requests, errors |%s\n", all(func(own []*result) string {
		var sent, failed int64
		for _, r := range own {
			sent, failed = sent+r.Sent, failed+r.Errors
		}
		return fmt.Sprintf("%d, %d", sent, failed)
	}))
	fmt.Fprintf(w, "|  | processors busy with other work, %% |%s\n", all(func(own []*result) string {
		var v []float64
		for _, r := range own {
			v = append(v, r.OthersPercent)
		}
		return fmt.Sprintf("%.0f", median(v))
	}))
}

func columns(targets []target, cell func(*target) string) string {
	var b strings.Builder
	for i := range targets {
		fmt.Fprintf(&b, " %s |", cell(&targets[i]))
	}
	return b.String()
}

// cell shows a target's value and in parentheses its ratio to the reverse proxy's, or what it adds to direct's.
func (m *measure) cell(of func(string) float64, t *target) string {
	v := of(t.name)
	switch {
	case v == 0:
		return "–"
	case m.added && t.name != direct && of(direct) > 0:
		return fmt.Sprintf("%s (%+.2f)", digits(v), v-of(direct))
	case !m.added && t.name != reverseProxy && of(reverseProxy) > 0:
		return fmt.Sprintf("%s (%.2f)", digits(v), v/of(reverseProxy))
	default:
		return digits(v)
	}
}

// digits shows three of them, as more would be noise.
func digits(v float64) string {
	return fmt.Sprintf("%.*f", max(0, 2-int(math.Floor(math.Log10(max(v, 0.01))))), v)
}

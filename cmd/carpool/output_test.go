package main

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	table := newTable("NAME", ">TOKENS", "NOTE")
	if got := table.orNone("Nothing."); got != "Nothing.\n" {
		t.Errorf("an empty table is %q", got)
	}
	table.row("alice", "1,200", "")
	table.row("zoë", "7", "\x1b[31mred\u202e")
	table.total = []string{"total", "1,207", ""}
	want := "NAME   TOKENS  NOTE\n" +
		"alice   1,200  -\n" +
		"zoë         7  \uFFFD[31mred\uFFFD\n" +
		"total   1,207\n"
	if got := table.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestTableFits(t *testing.T) {
	build := func() *table {
		t := newTable("NAME", ">FIRST", ">SECOND", ">COST")
		t.row("alice", "1,000", "2", "$1.00")
		t.total = []string{"total", "1,000", "", "$1.00"}
		return t
	}
	for width, want := range map[int]string{
		0:  "NAME   FIRST  SECOND   COST",
		27: "NAME   FIRST  SECOND   COST",
		26: "NAME   FIRST   COST",
		19: "NAME   FIRST   COST",
		18: "NAME    COST",
		5:  "NAME    COST", // not less than what matters
	} {
		table := build()
		left := table.fit(width, "SECOND", "ABSENT", "FIRST")
		if got, _, _ := strings.Cut(table.String(), "\n"); got != want || left != (width > 0 && width < 27) {
			t.Errorf("%d: %q, want %q", width, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", -1234567: "-1,234,567", 40_000_000: "40,000,000"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %q; want %q", n, got, want)
		}
	}
}

func TestMilliseconds(t *testing.T) {
	for ms, want := range map[float64]string{0: "0 ms", 850.4: "850 ms", 999.6: "1.0 s", 2400: "2.4 s", 59_949: "59.9 s", 59_999: "1m0s", 192_300: "3m12s"} {
		if got := milliseconds(ms); got != want {
			t.Errorf("milliseconds(%v) = %q; want %q", ms, got, want)
		}
	}
}

func TestRelative(t *testing.T) {
	now := time.Date(2026, 11, 23, 7, 30, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		0: "just now", 30 * time.Second: "30s ago", 90 * time.Second: "1m ago", 47 * time.Hour: "47h ago", 72 * time.Hour: "3d ago",
		-90 * time.Minute: "in 1h", -60 * 24 * time.Hour: "in 60d",
	} {
		if got := relative(now, now.Add(-ago)); got != want {
			t.Errorf("relative(%v) = %q; want %q", ago, got, want)
		}
	}
	if got := moment(now, time.Time{}); got != "" {
		t.Errorf("no moment is %q", got)
	}
	if got, want := moment(now, now.Add(-2*time.Hour)), "2026-11-23 05:30 UTC (2h ago)"; got != want {
		t.Errorf("moment = %q; want %q", got, want)
	}
}

func TestPercent(t *testing.T) {
	for share, want := range map[float64]string{0: "0.0%", 0.5: "50.0%", 0.99999: "99.9%", 1: "100.0%"} {
		if got := percent(share); got != want {
			t.Errorf("percent(%v) = %q; want %q", share, got, want)
		}
	}
}

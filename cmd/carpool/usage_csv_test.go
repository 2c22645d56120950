package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carpool/internal/control"
	"carpool/internal/fleet"
)

// The columns of CSV are a promise: each has its value, each is in docs/reports.md, and those of the first version are
// where they were.
func TestColumns(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reports.md"))
	if err != nil {
		t.Fatal(err)
	}
	const (
		entries = "startedAt id node user team key endpoint modelAsked modelServed upstream outcome status errorType inputTokens outputTokens " +
			"cacheReadTokens cacheWriteTokens thinkingTokens quotaTokens fileOperations firstByteMs durationMs sessionId clientVersion"
		groups = "user requests errors inputTokens outputTokens cacheReadTokens cacheWriteTokens thinkingTokens quotaTokens fileOperations " +
			"averageDurationMs averageFirstByteMs firstAt lastAt"
	)
	for _, table := range []struct {
		columns, cells []string
		first          string
	}{
		{entryColumns(), entryCells(new(fleet.Entry)), entries},
		{groupColumns("user"), groupCells(&control.UsageGroup{Groups: []string{"alice"}}), groups},
		{groupColumns("user,model"), groupCells(&control.UsageGroup{Groups: []string{"alice", "claude-a"}}), strings.Replace(groups, "user ", "user model ", 1)},
	} {
		if len(table.columns) != len(table.cells) {
			t.Errorf("%d columns have %d values", len(table.columns), len(table.cells))
		}
		if !strings.HasPrefix(strings.Join(table.columns, " "), table.first+" ") {
			t.Errorf("the columns are %v", table.columns)
		}
		for _, name := range table.columns {
			if !strings.Contains(string(page), "`"+name+"`") {
				t.Errorf("docs/reports.md does not describe %s", name)
			}
		}
	}
}

func TestDollars(t *testing.T) {
	for micro, want := range map[int64]string{
		0: "$0.00", 1: "$0.000001", 9_999: "$0.009999", 10_000: "$0.0100", 123_449: "$0.1234", 999_949: "$0.9999", 999_950: "$1.00", 1_000_000: "$1.00",
		1_234_567_890: "$1,234.57", -5: "-$0.000005", -2_500_000: "-$2.50", 9_223_372_036_854_775_807: "$9,223,372,036,854.78",
		-9_223_372_036_854_775_808: "-$9,223,372,036,854.78",
	} {
		if got := dollars(micro); got != want {
			t.Errorf("%d: %s, want %s", micro, got, want)
		}
	}
}

func TestCompact(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1.0k", 99_949: "99.9k", 99_950: "100k", 999_499: "999k", 999_500: "1.0M", 99_949_999: "99.9M", 123_456_789: "123M",
		1_500_000_000: "1.5G", -7: "-7",
	} {
		if got := compact(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

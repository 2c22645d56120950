package main

import (
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"carpool/internal/control"
	"carpool/internal/policy"
)

func TestBudgetsFitTheTerminal(t *testing.T) {
	now := time.Date(2026, 11, 25, 18, 0, 0, 0, time.UTC)
	resets := now.Add(6 * time.Hour)
	budget := func(name, amount, window string, rolling bool, state control.BudgetState) control.Budget {
		return control.Budget{
			BudgetSpec: policy.BudgetSpec{Name: name, Scope: "team/platform", Amount: amount, Window: window, Mode: "strict", Rolling: rolling},
			State:      []control.BudgetState{state},
		}
	}
	budgets := []control.Budget{
		budget("alice-day", "5 USD", "day", false, control.BudgetState{Subject: "user/alice", Unit: "USD", Amount: 5_000_000, Used: 1_250_000, Remaining: 3_750_000, ResetsAt: &resets}),
		budget("platform", "2M tokens", "14days", true, control.BudgetState{Subject: "team/platform", Unit: "tokens", Amount: 2_000_000, Remaining: 2_000_000}),
	}
	a := &app{width: 80, stderr: io.Discard, now: func() time.Time { return now }}
	text := a.budgetTable(budgets)
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > a.width {
			t.Errorf("%d wide: %s", n, line)
		}
	}
	if strings.Contains(text, "OVERDRAFT") {
		t.Errorf("no budget has an overdraft:\n%s", text)
	}
	budgets[0].Overdraft = "1 USD"
	budgets[0].State[0].Remaining += 1_000_000
	text = a.budgetTable(budgets)
	if !strings.Contains(text, "OVERDRAFT") || !strings.Contains(text, "1.00 USD") || !strings.Contains(text, "4.75 USD") {
		t.Errorf("what is left is more than the amount, without a reason:\n%s", text)
	}
	a.width = 0
	text = a.budgetTable(budgets)
	if !strings.Contains(text, "14 days, rolling") || !strings.HasSuffix(text, "2,000,000 tokens  -\n") {
		t.Errorf("an unused rolling budget frees nothing:\n%s", text)
	}
}

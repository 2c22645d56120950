package control_test

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

func TestBudgets(t *testing.T) {
	everyway(t, func(t *testing.T, p *plant, n *standIn, c *control.Client) {
		ctx := t.Context()
		must[control.User](t)(c.CreateUser(ctx, policy.UserSpec{Name: "alice", Team: "platform"}))
		spec := policy.BudgetSpec{Name: "alice-day", Scope: "user/alice", Amount: "5 USD", Window: "day", Mode: "strict", WarnAt: []int{50}}
		reset := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
		n.mu.Lock()
		n.spent = fleet.BudgetsUsage{
			"alice-day": {{Subject: "user/alice", Used: 3_000_000, Reserved: 500_000, ResetsAt: reset}},
			"each":      {{Subject: "user/bob", Used: 9, ResetsAt: quota.Never()}, {Subject: "user/alice", Used: 1, ResetsAt: quota.Never()}},
		}
		n.mu.Unlock()
		made := must[control.Budget](t)(c.CreateBudget(ctx, spec))
		want := []control.BudgetState{{Subject: "user/alice", Unit: "USD", Amount: 5_000_000, Used: 3_000_000, Reserved: 500_000, Remaining: 1_500_000, ResetsAt: &reset}}
		if !reflect.DeepEqual(made.BudgetSpec, spec) || !reflect.DeepEqual(made.State, want) {
			t.Errorf("%+v", made)
		}
		if got := n.snapshot(t).Budgets(); len(got) != 1 || got[0].Name != "alice-day" || !got[0].Strict {
			t.Errorf("the node serves by %+v", got)
		}
		_, err := c.CreateBudget(ctx, spec)
		status(t, err, http.StatusConflict, `there is a budget "alice-day" already`)
		_, err = c.CreateBudget(ctx, policy.BudgetSpec{Name: "x", Scope: "team/nobody", Amount: "5 USD", Window: "day"})
		status(t, err, http.StatusUnprocessableEntity, `budget "x": there is no team "nobody"`)
		must[control.Budget](t)(c.CreateBudget(ctx, policy.BudgetSpec{Name: "each", Scope: "team/platform", PerMember: true, Amount: "5 tokens", Window: "lifetime"}))
		list := must[[]control.Budget](t)(c.Budgets(ctx))
		if len(list) != 2 || list[1].Mode != "fair" || len(list[1].State) != 2 || list[1].State[0].Subject != "user/alice" || list[1].State[0].ResetsAt != nil || list[1].State[1].Remaining != 0 {
			t.Errorf("%+v", list)
		}
		amount, overdraft := "8 USD", "1 USD"
		changed := must[control.Budget](t)(c.UpdateBudget(ctx, "alice-day", control.BudgetPatch{Amount: &amount, Overdraft: &overdraft, WarnAt: &[]int{}}))
		if changed.Amount != amount || changed.Scope != "user/alice" || changed.State[0].Remaining != 5_500_000 || len(changed.WarnAt) != 0 {
			t.Errorf("%+v", changed)
		}
		none, tokens := "0 USD", "9 tokens"
		if changed = must[control.Budget](t)(c.UpdateBudget(ctx, "alice-day", control.BudgetPatch{Overdraft: &none})); changed.Overdraft != "" {
			t.Errorf("an overdraft of nothing stays: %+v", changed)
		}
		must[control.Budget](t)(c.UpdateBudget(ctx, "alice-day", control.BudgetPatch{Amount: &tokens, Overdraft: &none}))
		must[control.Budget](t)(c.UpdateBudget(ctx, "alice-day", control.BudgetPatch{Amount: &tokens}))
		bad := "much"
		_, err = c.UpdateBudget(ctx, "alice-day", control.BudgetPatch{Amount: &bad})
		status(t, err, http.StatusUnprocessableEntity, `"much" is no amount`)
		_, err = c.UpdateBudget(ctx, "nothing", control.BudgetPatch{Amount: &amount})
		status(t, err, http.StatusNotFound, `"nothing"`)
		must[control.NewKey](t)(c.CreateKey(ctx, policy.KeySpec{Name: "laptop", User: "alice"}))
		for _, name := range []string{"life", "laptop-day"} {
			b := policy.BudgetSpec{Name: name, Scope: "user/alice", Amount: "5 USD", Window: "lifetime"}
			if name == "laptop-day" {
				b.Scope = "key/laptop"
			}
			must[control.Budget](t)(c.CreateBudget(ctx, b))
		}
		status(t, c.DeleteUser(ctx, "alice"), http.StatusConflict, `user "alice" still has budgets: alice-day, life; remove them first`)
		status(t, c.DeleteKey(ctx, "laptop"), http.StatusConflict, `key "laptop" still has budgets: laptop-day; remove them first`)
		if err := c.DeleteBudget(ctx, "life"); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteBudget(ctx, "alice-day"); err != nil {
			t.Fatal(err)
		}
		_, err = c.Budget(ctx, "alice-day")
		status(t, err, http.StatusNotFound, `"alice-day"`)
		status(t, c.DeleteUser(ctx, "alice"), http.StatusConflict, `key "laptop" still has budgets: laptop-day`)
		if err := c.DeleteBudget(ctx, "laptop-day"); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteUser(ctx, "alice"); err != nil {
			t.Error(err)
		}
		status(t, c.DeleteTeam(ctx, "platform"), http.StatusConflict, `team "platform" still has budgets: each; remove them first`)
	})
}

func TestBudgetsOfAFile(t *testing.T) {
	p := open(t, t.TempDir())
	p.startNode(t, "n1")
	r := policy.Resources{
		Users:   []policy.UserSpec{{Name: "alice"}},
		Budgets: []policy.BudgetSpec{{Name: "alice-day", Scope: "user/alice", Amount: "5 USD", Window: "day", Message: "Ask Carol."}},
	}
	for _, want := range []string{control.ActionCreated, control.ActionUnchanged} {
		result := must[control.ApplyResult](t)(p.Apply(t.Context(), r, false))
		if got := result.Changes[1]; got.Kind != "budget" || got.Name != "alice-day" || got.Action != want {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	r.Budgets[0].Message = "" // what is left out is not meant
	if result := must[control.ApplyResult](t)(p.Apply(t.Context(), r, false)); result.Changes[1].Action != control.ActionUpdated {
		t.Errorf("%+v", result.Changes[1])
	}
	if b := must[control.Budget](t)(p.socket.Budget(t.Context(), "alice-day")); b.Message != "" {
		t.Errorf("%+v", b)
	}
}

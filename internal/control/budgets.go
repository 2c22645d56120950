package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

func (a *api) addBudgets() {
	const tag, path = "budgets", "/admin/v1/budgets"
	operation(a, huma.Operation{
		OperationID: "list-budgets", Method: http.MethodGet, Path: path, Summary: "All budgets, with what is used of them", Tags: []string{tag},
	}, func(ctx context.Context, _ *struct{}) (List[Budget], error) {
		return List[Budget]{Items: a.c.budgets(ctx, a.c.state().Budgets)}, nil
	})
	operation(a, huma.Operation{
		OperationID: "create-budget", Method: http.MethodPost, Path: path, Summary: "Make a budget", Tags: []string{tag},
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *withBody[policy.BudgetSpec]) (Budget, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Budgets, in.Body.Name) != nil {
				return exists("budget", in.Body.Name)
			}
			_, err := e.applyBudget(ctx, in.Body)
			return err
		})
		if err != nil {
			return Budget{}, err
		}
		return a.c.budget(ctx, in.Body.Name)
	})
	operation(a, huma.Operation{
		OperationID: "get-budget", Method: http.MethodGet, Path: path + "/{name}", Summary: "One budget, with what is used of it", Tags: []string{tag},
	}, func(ctx context.Context, in *byName) (Budget, error) { return a.c.budget(ctx, in.Name) })
	operation(a, huma.Operation{
		OperationID: "update-budget", Method: http.MethodPatch, Path: path + "/{name}", Summary: "Change a budget", Tags: []string{tag},
		Description: "What was used stays used, unless the scope, the unit or the window is changed: then nothing is.",
	}, func(ctx context.Context, in *byNameWithBody[BudgetPatch]) (Budget, error) {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			old := find(e.state.Budgets, in.Name)
			if old == nil {
				return notFound("budget", in.Name)
			}
			_, err := e.applyBudget(ctx, in.Body.on(*old))
			return err
		})
		if err != nil {
			return Budget{}, err
		}
		return a.c.budget(ctx, in.Name)
	})
	removal(a, huma.Operation{
		OperationID: "delete-budget", Method: http.MethodDelete, Path: path + "/{name}", Summary: "Remove a budget", Tags: []string{tag},
	}, func(ctx context.Context, in *byName) error {
		_, err := a.c.change(ctx, func(ctx context.Context, e *edit) error {
			if find(e.state.Budgets, in.Name) == nil {
				return notFound("budget", in.Name)
			}
			e.state.Budgets = drop(e.state.Budgets, in.Name)
			e.note(actionDeleted, "budget", in.Name, "")
			return e.tx.DeleteBudget(ctx, in.Name)
		})
		return err
	})
}

// applyBudget makes the budget or replaces it: a budget is one statement, of which every part counts.
func (e *edit) applyBudget(ctx context.Context, spec policy.BudgetSpec) (action string, err error) {
	if err := spec.Validate(); err != nil {
		return "", invalid(err)
	}
	spec.Mode = cmp.Or(spec.Mode, policy.ModeFair)
	if overdraft, _, err := policy.ParseAmount(spec.Overdraft); err == nil && overdraft == 0 {
		spec.Overdraft = ""
	}
	action, budget := ActionUpdated, policy.BudgetSpec{Name: spec.Name}
	if old := find(e.state.Budgets, spec.Name); old != nil {
		budget = *old
	} else {
		action = ActionCreated
	}
	var d diff
	for _, text := range []struct {
		name  string
		field *string
		to    string
	}{
		{"scope", &budget.Scope, spec.Scope},
		{"amount", &budget.Amount, spec.Amount},
		{"window", &budget.Window, spec.Window},
		{"mode", &budget.Mode, spec.Mode},
		{"timeZone", &budget.TimeZone, spec.TimeZone},
		{"overdraft", &budget.Overdraft, spec.Overdraft},
		{"message", &budget.Message, spec.Message},
	} {
		set(&d, text.name, text.field, text.to)
	}
	set(&d, "rolling", &budget.Rolling, spec.Rolling)
	set(&d, "soft", &budget.Soft, spec.Soft)
	set(&d, "perMember", &budget.PerMember, spec.PerMember)
	if !slices.Equal(budget.WarnAt, spec.WarnAt) {
		set(&d, "warnAt", &budget.WarnAt, spec.WarnAt)
	}
	if action == ActionUpdated && d.none() {
		return ActionUnchanged, nil
	}
	e.state.Budgets = put(e.state.Budgets, budget)
	e.note(action, "budget", budget.Name, d.String())
	return action, e.tx.PutBudget(ctx, budget)
}

// checkNoBudgets refuses to remove whose budgets there are: they would bound nobody.
func (e *edit) checkNoBudgets(scope policy.Scope) error {
	var budgets []string
	for _, b := range e.state.Budgets {
		if b.Scope == scope.String() {
			budgets = append(budgets, b.Name)
		}
	}
	if len(budgets) == 0 {
		return nil
	}
	return refuse(http.StatusConflict, "%s %q still has budgets: %s; remove them first", scope.Kind, scope.Name, some(budgets))
}

// on returns the budget that a patch makes of another.
func (p BudgetPatch) on(b policy.BudgetSpec) policy.BudgetSpec {
	for _, text := range []struct{ to, from *string }{
		{&b.Scope, p.Scope},
		{&b.Amount, p.Amount},
		{&b.Window, p.Window},
		{&b.Mode, p.Mode},
		{&b.TimeZone, p.TimeZone},
		{&b.Overdraft, p.Overdraft},
		{&b.Message, p.Message},
	} {
		if text.from != nil {
			*text.to = *text.from
		}
	}
	for _, truth := range []struct{ to, from *bool }{{&b.Rolling, p.Rolling}, {&b.Soft, p.Soft}, {&b.PerMember, p.PerMember}} {
		if truth.from != nil {
			*truth.to = *truth.from
		}
	}
	if p.WarnAt != nil {
		b.WarnAt = *p.WarnAt
	}
	return b
}

func (c *Control) budget(ctx context.Context, name string) (Budget, error) {
	spec := find(c.state().Budgets, name)
	if spec == nil {
		return Budget{}, notFound("budget", name)
	}
	return c.budgets(ctx, []policy.BudgetSpec{*spec})[0], nil
}

// budgets adds to budgets what is used of them, summed over the connected nodes. Without an answer of theirs it stays absent.
func (c *Control) budgets(ctx context.Context, specs []policy.BudgetSpec) []Budget {
	budgets := make([]Budget, len(specs))
	var args fleet.BudgetArgs
	for i, spec := range specs {
		budgets[i].BudgetSpec = spec
		args.Budgets = append(args.Budgets, spec.Name)
	}
	if len(specs) == 0 {
		return budgets
	}
	parts, err := c.budgetParts(ctx, args)
	if err != nil {
		c.options.Log.WarnContext(ctx, "cannot tell what is used of budgets", slog.Any("error", err))
		return budgets
	}
	compiled := map[string]*policy.Budget{}
	for _, b := range c.current.Load().snapshot.Budgets() {
		compiled[b.Name] = b
	}
	for i := range budgets {
		budgets[i].State = []BudgetState{}
		b := compiled[budgets[i].Name]
		if b == nil { // removed meanwhile
			continue
		}
		for _, part := range parts[b.Name] {
			state := BudgetState{Subject: part.Subject, Unit: string(b.Unit), Amount: b.Amount, Used: part.Used, Reserved: part.Reserved}
			state.Remaining = max(b.Limit()-part.Used-part.Reserved, 0)
			if part.ResetsAt.Before(quota.Never()) && (part.Used > 0 || !b.Span.Rolling) {
				state.ResetsAt = &part.ResetsAt
			}
			budgets[i].State = append(budgets[i].State, state)
		}
	}
	return budgets
}

// budgetParts sums up what the nodes say, by budget and subject.
func (c *Control) budgetParts(ctx context.Context, args fleet.BudgetArgs) (map[string][]fleet.BudgetUsage, error) {
	answers, _, err := c.askAll(ctx, askWait, fleet.CommandBudgetUsage, args)
	if err != nil {
		return nil, err
	}
	sums := map[string][]fleet.BudgetUsage{}
	for _, answer := range answers {
		var usage fleet.BudgetsUsage
		if err := json.Unmarshal(answer, &usage); err != nil {
			return nil, fmt.Errorf("cannot understand a node's use of budgets: %w", err)
		}
		for name, parts := range usage {
			for _, part := range parts {
				same := func(other fleet.BudgetUsage) bool { return other.Subject == part.Subject }
				if i := slices.IndexFunc(sums[name], same); i >= 0 {
					sums[name][i].Used = quota.Add(sums[name][i].Used, part.Used)
					sums[name][i].Reserved = quota.Add(sums[name][i].Reserved, part.Reserved)
				} else {
					sums[name] = append(sums[name], part)
				}
			}
		}
	}
	for _, parts := range sums {
		slices.SortFunc(parts, func(a, b fleet.BudgetUsage) int { return cmp.Compare(a.Subject, b.Subject) })
	}
	return sums, nil
}

package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

// The quota windows.
const (
	windowDaily   = "daily"
	windowMonthly = "monthly"
	windowAll     = "all"
)

func (a *api) addQuotas() {
	const tag, path = "quotas", "/admin/v1/quotas"
	operation(a, huma.Operation{
		OperationID: "list-quotas", Method: http.MethodGet, Path: path, Summary: "State of all users' quotas", Tags: []string{tag},
		Errors: []int{http.StatusServiceUnavailable},
	}, func(ctx context.Context, _ *struct{}) (List[QuotaState], error) {
		states, err := a.c.quotas(ctx, nil)
		return List[QuotaState]{Items: states}, err
	})
	operation(a, huma.Operation{
		OperationID: "get-quota", Method: http.MethodGet, Path: path + "/{name}", Summary: "State of a user's quota", Tags: []string{tag},
		Errors: []int{http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *byName) (QuotaState, error) {
		if find(a.c.state().Users, in.Name) == nil {
			return QuotaState{}, notFound("user", in.Name)
		}
		states, err := a.c.quotas(ctx, []string{in.Name})
		if err != nil || len(states) == 0 {
			return QuotaState{}, cmp.Or(err, notFound("user", in.Name))
		}
		return states[0], nil
	})
	operation(a, huma.Operation{
		OperationID: "reset-quota", Method: http.MethodPost, Path: path + "/{name}/reset", Tags: []string{tag},
		Summary: "Set a user's quota windows to nothing used", Errors: []int{http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *byNameWithBody[*QuotaWindow]) (QuotaResetResult, error) {
		window := windowAll
		if in.Body != nil {
			window = in.Body.Window
		}
		return a.c.resetQuota(ctx, in.Name, window)
	})
	operation(a, huma.Operation{
		OperationID: "reset-quotas", Method: http.MethodPost, Path: "/admin/reset-quota", Tags: []string{tag},
		Summary:     "Set the quota windows of one user or of all to nothing used",
		Description: "Without a body, or without its member user, all users are meant. A user that is null or empty is refused.", Errors: []int{http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *withBody[*QuotaReset]) (QuotaResetResult, error) {
		user, window := "", windowAll
		if in.Body != nil {
			if user, window = in.Body.User.name, in.Body.Window; in.Body.User.given && user == "" {
				return QuotaResetResult{}, refuse(http.StatusUnprocessableEntity, "user is empty: name one, or leave the member out to reset every user")
			}
		}
		return a.c.resetQuota(ctx, user, window)
	})
}

// addUsage fills in the users' usage when wanted. Without an answer of the nodes it stays absent.
func (c *Control) addUsage(ctx context.Context, wanted bool, users []User) error {
	if !wanted || len(users) == 0 {
		return nil
	}
	var names []string
	if len(users) == 1 {
		names = []string{users[0].Name}
	}
	states, err := c.quotas(ctx, names)
	if err != nil {
		c.options.Log.WarnContext(ctx, "cannot tell the users' usage", slog.Any("error", err))
		return nil //nolint:nilerr // users are the answer, their usage is an addition
	}
	usage := make(map[string]*fleet.UserQuota, len(states))
	for i := range states {
		usage[states[i].User] = &states[i].UserQuota
	}
	for i := range users {
		users[i].Usage = usage[users[i].Name]
	}
	return nil
}

// quotas returns the state of the named users' quotas, or of all, in the order of names, summed over the connected nodes.
func (c *Control) quotas(ctx context.Context, names []string) ([]QuotaState, error) {
	answers, asked, err := c.askAll(ctx, askWait, fleet.CommandQuotaUsage, fleet.QuotaArgs{Users: names})
	if asked == 0 {
		return nil, refuse(http.StatusServiceUnavailable, "no node is connected that could say what was used; try again")
	}
	if err != nil {
		return nil, refuse(http.StatusServiceUnavailable, "cannot tell what was used: %s", err.Error())
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	now := c.current.Load()
	resets := resetTimes(c.options.Now().In(now.snapshot.Location))
	sums := map[string]*QuotaState{}
	states := []QuotaState{}
	for _, u := range now.snapshot.Users() {
		if len(names) > 0 && !wanted[u.Name] {
			continue
		}
		sums[u.Name] = &QuotaState{User: u.Name, UserQuota: fleet.UserQuota{
			Daily:   fleet.WindowUsage{Limit: u.Quota.Daily, ResetsAt: resets[0]},
			Monthly: fleet.WindowUsage{Limit: u.Quota.Monthly, ResetsAt: resets[1]},
		}}
	}
	for _, answer := range answers {
		var usage fleet.QuotaUsage
		if err := json.Unmarshal(answer, &usage); err != nil {
			return nil, fmt.Errorf("cannot understand a node's quota usage: %w", err)
		}
		for name, windows := range usage {
			if sum := sums[name]; sum != nil {
				addWindow(&sum.Daily, windows.Daily)
				addWindow(&sum.Monthly, windows.Monthly)
			}
		}
	}
	for _, u := range now.snapshot.Users() {
		if sum := sums[u.Name]; sum != nil {
			sum.Daily.Remaining, sum.Monthly.Remaining = remaining(sum.Daily), remaining(sum.Monthly)
			states = append(states, *sum)
		}
	}
	return states, nil
}

func addWindow(sum *fleet.WindowUsage, part fleet.WindowUsage) {
	sum.Used, sum.Reserved = quota.Add(sum.Used, part.Used), quota.Add(sum.Reserved, part.Reserved)
}

func remaining(w fleet.WindowUsage) int64 {
	if w.Limit == policy.Unlimited {
		return policy.Unlimited
	}
	return max(0, w.Limit-quota.Add(w.Used, w.Reserved))
}

// resetTimes returns when the day and the month end in now's zone.
func resetTimes(now time.Time) [2]time.Time {
	year, month, day := now.Date()
	return [2]time.Time{
		time.Date(year, month, day+1, 0, 0, 0, 0, now.Location()).UTC(),
		time.Date(year, month+1, 1, 0, 0, 0, 0, now.Location()).UTC(),
	}
}

// resetQuota resets windows of one user, or of all when name is empty, on all connected nodes.
func (c *Control) resetQuota(ctx context.Context, name, window string) (QuotaResetResult, error) {
	result := QuotaResetResult{Reset: []string{}, Windows: []string{windowDaily, windowMonthly}}
	if window == windowDaily || window == windowMonthly {
		result.Windows = []string{window}
	}
	args := fleet.QuotaArgs{Windows: result.Windows}
	state := c.state()
	if name == "" {
		for _, u := range state.Users {
			result.Reset = append(result.Reset, u.Name)
		}
	} else {
		if find(state.Users, name) == nil {
			return QuotaResetResult{}, notFound("user", name)
		}
		args.Users, result.Reset = []string{name}, []string{name}
	}
	_, asked, err := c.askAll(ctx, resetWait, fleet.CommandQuotaReset, args)
	if asked == 0 {
		return QuotaResetResult{}, refuse(http.StatusServiceUnavailable, "no node is connected that could reset the quota; try again")
	}
	if err != nil {
		return QuotaResetResult{}, refuse(http.StatusServiceUnavailable, "cannot reset the quota everywhere: %s", err.Error())
	}
	_, err = c.commit(ctx, func(_ context.Context, e *edit) error {
		e.quiet = true
		e.note(actionReset, "quota", name, "windows: "+show(result.Windows))
		return nil
	})
	return result, err
}

// forgetQuota lets a new user of a removed one's name, by which nodes count, begin with nothing used. The removal stands even if a
// node does not hear of it.
func (c *Control) forgetQuota(ctx context.Context, name string) {
	_, asked, err := c.askAll(ctx, resetWait, fleet.CommandQuotaReset, fleet.QuotaArgs{Users: []string{name}})
	if asked == 0 || err != nil {
		c.options.Log.WarnContext(ctx, "a removed user's quota was not reset; a new user of this name would go on with it",
			slog.String("user", name), slog.Int("nodes", asked), slog.Any("error", err))
	}
}

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/control"
)

func newSessionCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "Show sessions of Claude Code and what their agents cost",
		Long: `Show sessions of Claude Code: what each cost, and how that divides among the main agent and the sub-agents it
spawned. Requests that name no session are in none.`,
		Example: "  carpool session list --since today\n  carpool session show 5f0c3c1e",
	}
	cmd.AddCommand(newSessionListCommand(a), newSessionShowCommand(a))
	return cmd
}

func newSessionListCommand(a *app) *cobra.Command {
	var q control.SessionQuery
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List sessions, those used last first",
		Example: "  carpool session list --since today\n  carpool session list --user alice --limit 10 --output json",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("limit") && q.Limit < 1 {
				return usagef("the flag --limit must be 1 or more")
			}
			return a.withClient(func(c *control.Client) (err error) {
				if q.Since, err = a.serverTime(cmd.Context(), c, "since", q.Since); err != nil {
					return err
				}
				if q.Until, err = a.serverTime(cmd.Context(), c, "until", q.Until); err != nil {
					return err
				}
				sessions, err := c.Sessions(cmd.Context(), q)
				if err != nil {
					return err
				}
				if err := checkNames(cmd.Context(), c, int64(len(sessions.Items)), control.UsageQuery{User: q.User, Team: q.Team}, ""); err != nil {
					return err
				}
				a.noteKept(sessions.KeptFrom)
				return a.show(sessions.Items, func() string { return a.sessionsText(sessions.Items) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Since, "since", "", sinceHelp)
	flags.StringVar(&q.Until, "until", "", untilHelp)
	flags.StringVar(&q.User, "user", "", "only this `USER`")
	flags.StringVar(&q.Team, "team", "", "only this `TEAM`")
	flags.IntVar(&q.Limit, "limit", 0, "at most this `NUMBER` of sessions (default 50)")
	return cmd
}

func (a *app) sessionsText(sessions []control.Session) string {
	t := newTable("LAST", "USER", "SESSION", ">TIME", ">AGENTS", ">REQUESTS", ">COST")
	var unpriced, estimated int64
	for _, s := range sessions {
		user := s.User
		if s.Users > 1 {
			user += fmt.Sprintf(" +%d", s.Users-1)
		}
		t.row(relative(a.now(), s.LastAt), user, s.ID, lasted(s.DurationMs), number(s.Agents), number(s.Requests), sumCost(s.UsageTotals))
		unpriced, estimated = unpriced+s.Unpriced, estimated+s.Estimated
	}
	return a.narrow(t, "AGENTS", "TIME", "USER").orNone("No sessions.") + costNotes(unpriced, estimated)
}

// lasted writes how long something was going on, which may be days. Nothing that is known lasts no time: of what the server's
// end cut off nobody knows how long it took.
func lasted(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case ms <= 0:
		return ""
	case d < time.Hour:
		return milliseconds(float64(ms))
	case d < 100*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func newSessionShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show what each agent of a session cost",
		Long: `Show the agents of a session as a tree, with their requests, tokens and costs. The beginning of the session's ID
is enough when no other session begins so. TREE is what an agent and all below it cost. Sub-agents of Claude Code before
2.1 do not say who they are: theirs are the main agent's requests.

carpool usage --session ID lists the requests one by one.`,
		Example:           "  carpool session show 5f0c3c1e\n  carpool session show 5f0c3c1e --output json",
		Args:              arguments("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				session, err := c.Session(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(session, func() string { return a.sessionText(session) })
			})
		},
	}
}

func (a *app) sessionText(s control.SessionDetail) string {
	var f fields
	f.add("Session", s.ID)
	f.add("User", s.User)
	if s.Users > 1 {
		f.add("Other users", number(s.Users-1)+" with the same session id")
	}
	f.add("First request", moment(a.now(), s.FirstAt))
	f.add("Last request", moment(a.now(), s.LastAt))
	f.add("Duration", lasted(s.DurationMs))
	f.add("Requests", number(s.Requests))
	f.add("Cost", sumCost(s.UsageTotals))
	f.add("Cache reads", percent(cacheReadShare(s.UsageTotals))+" of the tokens of prompts, "+dollars(s.CacheSavingsMicroUSD)+" saved")

	agents := newTable("AGENT", ">TIME", ">REQUESTS", ">INPUT", ">OUTPUT", ">READ", ">WRITE", ">COST", ">TREE")
	models := map[string]*control.UsageTotals{}
	var order []string
	drawn := branches(s.Tree)
	for i, g := range s.Tree {
		unpriced, estimated := uncertain(s.Tree[i:])
		agents.row(drawn[i]+agentName(g), lasted(g.DurationMs), number(g.Requests), compact(g.InputTokens), compact(g.OutputTokens),
			compact(g.CacheReadTokens), compact(g.CacheWriteTokens), sumCost(g.UsageTotals), marked(g.TreeMicroUSD, unpriced, estimated))
		for _, m := range g.Models {
			sum := models[m.Model]
			if sum == nil {
				sum = &control.UsageTotals{}
				models[m.Model], order = sum, append(order, m.Model)
			}
			sum.Requests += m.Requests
			sum.InputTokens += m.InputTokens
			sum.OutputTokens += m.OutputTokens
			sum.CacheReadTokens += m.CacheReadTokens
			sum.CacheWriteTokens += m.CacheWriteTokens
			sum.CostMicroUSD += m.CostMicroUSD
			sum.Unpriced += m.Unpriced
			sum.Estimated += m.Estimated
		}
	}
	byModel := newTable("MODEL", ">REQUESTS", ">INPUT", ">OUTPUT", ">READ", ">WRITE", ">COST")
	for _, name := range order {
		m := models[name]
		byModel.row(name, number(m.Requests), compact(m.InputTokens), compact(m.OutputTokens), compact(m.CacheReadTokens),
			compact(m.CacheWriteTokens), sumCost(*m))
	}
	a.narrow(agents, "TIME", "WRITE", "REQUESTS")
	return f.String() + "\n" + agents.String() + "\n" + byModel.String() + costNotes(s.Unpriced, s.Estimated)
}

// uncertain says what is in the cost of the first agent of a tree and all below it.
func uncertain(tree []control.SessionAgent) (unpriced, estimated bool) {
	for i, g := range tree {
		if i > 0 && g.Depth <= tree[0].Depth {
			break
		}
		unpriced, estimated = unpriced || g.Unpriced > 0, estimated || g.Estimated > 0
	}
	return unpriced, estimated
}

// branches draws the tree that agents hang on, the way they are listed: each below the one that spawned it. Deep below, the
// indentation stops to grow.
func branches(tree []control.SessionAgent) []string {
	const most = 6
	drawn, follows := make([]string, len(tree)), map[int]bool{} // at which depths another one follows
	for i, g := range slices.Backward(tree) {
		var line strings.Builder
		for depth := 1; depth < min(g.Depth, most); depth++ {
			line.WriteString(branch(follows[depth], "│ ", "  "))
		}
		if g.Depth > 0 {
			line.WriteString(branch(follows[g.Depth], "├ ", "└ "))
		}
		drawn[i] = line.String()
		maps.DeleteFunc(follows, func(depth int, _ bool) bool { return depth > g.Depth })
		follows[g.Depth] = true
	}
	return drawn
}

func branch(follows bool, another, last string) string {
	if follows {
		return another
	}
	return last
}

func agentName(g control.SessionAgent) string {
	const length = 20
	id := []rune(cmp.Or(g.ID, "main"))
	if len(id) > length {
		id = append(id[:length-1], '…')
	}
	return string(id)
}

func cacheReadShare(s control.UsageTotals) float64 {
	if prompt := s.InputTokens + s.CacheReadTokens + s.CacheWriteTokens; prompt > 0 {
		return float64(s.CacheReadTokens) / float64(prompt)
	}
	return 0
}

// compact writes a number of tokens in at most six characters: 999, 1.2k, 345k, 12.3M.
func compact(n int64) string {
	switch v := float64(n); {
	case n < 1000:
		return number(n)
	case v < 99_950:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v < 999_500:
		return fmt.Sprintf("%.0fk", v/1e3)
	case v < 99_950_000:
		return fmt.Sprintf("%.1fM", v/1e6)
	case v < 999_500_000:
		return fmt.Sprintf("%.0fM", v/1e6)
	}
	return fmt.Sprintf("%.1fG", float64(n)/1e9)
}

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

func newReportCommand(a *app) *cobra.Command {
	var q control.ReportQuery
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Show the Claude Code report of a time range",
		Long: `Show how Claude Code was used in a time range: requests, success rate, response time, the tools that answers
called, client versions, models, tokens, what they cost, and what caching did about it.`,
		Example: "  carpool report --since 7d\n  carpool report --since 2026-11-01 --until 2026-12-01 --team platform --output json",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) (err error) {
				if q.Since, err = a.serverTime(cmd.Context(), c, "since", q.Since); err != nil {
					return err
				}
				if q.Until, err = a.serverTime(cmd.Context(), c, "until", q.Until); err != nil {
					return err
				}
				report, err := c.Report(cmd.Context(), q)
				if err != nil {
					return err
				}
				if err := checkNames(cmd.Context(), c, report.TotalRequests, control.UsageQuery{User: q.User, Team: q.Team}, ""); err != nil {
					return err
				}
				a.noteKept(report.KeptFrom)
				return a.show(report, func() string { return a.reportText(report) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Since, "since", "", sinceHelp)
	flags.StringVar(&q.Until, "until", "", untilHelp)
	flags.StringVar(&q.User, "user", "", "only this `USER`")
	flags.StringVar(&q.Team, "team", "", "only this `TEAM`")
	return cmd
}

func (a *app) reportText(r control.Report) string {
	var f fields
	f.add("Range", a.span(r.From, r.To))
	f.add("Requests", number(r.TotalRequests))
	if r.TotalRequests == 0 {
		return f.String()
	}
	f.add("Success rate", percent(r.SuccessRate))
	f.add("Response time", milliseconds(r.AverageResponseTime)+" on average")
	f.add("First byte", milliseconds(r.AverageFirstByte)+" on average, both over requests with an answer")
	f.add("Users", number(r.ActiveUsers))
	f.add("Sessions", number(r.Sessions))
	f.add("File operations", number(r.FileOperations))

	f.add("Cost", marked(r.Cost.MicroUSD, r.Cost.Unpriced > 0, r.Cost.Estimated > 0))
	f.add("Cache reads", percent(r.Cost.CacheReadShare)+" of the tokens of prompts")
	f.add("Cache savings", dollars(r.Cost.CacheSavingsMicroUSD)+" against the same without a cache")

	tokens := newTable("TOKENS", ">COUNT")
	tokens.row("input", number(r.TokenUsage.Input))
	tokens.row("output", number(r.TokenUsage.Output))
	tokens.row("  of it thinking", number(r.TokenUsage.Thinking))
	tokens.row("cache read", number(r.TokenUsage.CacheRead))
	tokens.row("cache write", number(r.TokenUsage.CacheWrite))
	tokens.row("total", number(r.TokenUsage.Total))
	tokens.row("counted by quotas", number(r.TokenUsage.Quota))

	models := newTable("MODEL", ">REQUESTS", ">INPUT", ">OUTPUT", ">COST")
	for _, m := range r.Models {
		models.row(m.Model, number(m.Count), number(m.Input), number(m.Output), marked(m.CostMicroUSD, m.Unpriced > 0, m.Estimated > 0))
	}
	tools := newTable("TOOL", ">CALLS")
	for _, t := range r.TopTools {
		tools.row(t.Name, number(t.Count))
	}
	versions := newTable("CLIENT VERSION", ">REQUESTS", ">SHARE")
	for _, v := range r.VersionDistribution {
		versions.row(v.Version, number(v.Count), percent(v.Share))
	}
	outcomes := newTable("OUTCOME", ">REQUESTS")
	for _, name := range slices.SortedFunc(maps.Keys(r.Outcomes), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Outcomes[b], r.Outcomes[a]), cmp.Compare(a, b))
	}) {
		outcomes.row(strings.ReplaceAll(name, "_", " "), number(r.Outcomes[name]))
	}
	var text strings.Builder
	text.WriteString(f.String())
	for _, t := range []*table{tokens, models, tools, versions, outcomes} {
		if len(t.rows) > 0 {
			text.WriteString("\n" + t.String())
		}
	}
	text.WriteString(costNotes(r.Cost.Unpriced, r.Cost.Estimated))
	return text.String()
}

func (a *app) span(from, to *time.Time) string {
	at := func(t *time.Time, open string) string {
		if t == nil {
			return open
		}
		return t.In(a.now().Location()).Format("2006-01-02 15:04 MST")
	}
	return at(from, "the beginning") + " to " + at(to, "now")
}

// percent writes a share of 0 to 1 with one decimal; 100.0% only when it is all.
func percent(share float64) string {
	if share < 1 && share > 0.9994 {
		share = 0.999
	}
	return fmt.Sprintf("%.1f%%", 100*share)
}

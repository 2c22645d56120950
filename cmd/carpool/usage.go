package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/fleet"
)

// groupings are the values of --group-by.
func groupings() []string {
	return []string{"none", "user", "team", "key", "model", "upstream", "session", "version", "day", "hour"}
}

const (
	sinceHelp = "from `WHEN` on: 90m, 24h, 7d, today, yesterday, a date or a time"
	untilHelp = "up to `WHEN`, in the same forms; a date itself is left out"
)

func newUsageCommand(a *app) *cobra.Command {
	var q control.UsageQuery
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show requests and tokens, one by one or summed",
		Long: `Show requests and tokens, one by one (newest first) or summed by --group-by. The totals are over everything
selected, whatever the limit. Dates are in the server's time zone, the one that quotas are counted in.`,
		Example: `  carpool usage --since today
  carpool usage --since 7d --group-by user
  carpool usage --since 2026-11-01 --until 2026-12-01 --group-by day --output csv
  carpool usage --user alice --model claude-opus-4-1 --limit 20 --output json`,
		Args:        arguments(),
		Annotations: map[string]string{formatsAnnotation: formatCSV},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.GroupBy != "" && !slices.Contains(groupings(), q.GroupBy) {
				return usagef("the flag --group-by does not take %q: it is one of %s", q.GroupBy, strings.Join(groupings(), ", "))
			}
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
				usage, err := c.Usage(cmd.Context(), q)
				if err != nil {
					return err
				}
				if err := a.showUsage(usage); err != nil {
					return err
				}
				a.noteStranger(cmd.Context(), c, q.User, usage.Totals.Requests)
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Since, "since", "", sinceHelp)
	flags.StringVar(&q.Until, "until", "", untilHelp)
	flags.StringVar(&q.User, "user", "", "only this `USER`")
	flags.StringVar(&q.Team, "team", "", "only this `TEAM`")
	flags.StringVar(&q.Key, "key", "", "only this key, by `NAME` or public id")
	flags.StringVar(&q.Model, "model", "", "only this `MODEL`, as asked for, sent or served")
	flags.StringVar(&q.Session, "session", "", "only this session, by its `ID`")
	flags.StringVar(&q.Endpoint, "endpoint", "", "only this `ENDPOINT`: messages, count_tokens or all (default messages)")
	flags.StringVar(&q.GroupBy, "group-by", "", "sum by `WHAT`: "+strings.Join(groupings()[1:], ", "))
	flags.IntVar(&q.Limit, "limit", 0, "at most this `NUMBER` of rows (default 50 requests or 1000 groups)")
	flags.StringVarP(&a.output, "output", "o", formatTable, "print as `FORMAT`: table, json or csv")
	cmd.AddCommand(newRepriceCommand(a))
	return cmd
}

// noteStranger says that nothing was found because there is no such user. A user who was removed is still in the books.
func (a *app) noteStranger(ctx context.Context, c *control.Client, user string, found int64) {
	if user == "" || found > 0 {
		return
	}
	if _, err := c.User(ctx, user, false); control.IsNotFound(err) {
		a.note("There is no user %s.", user)
	}
}

func (a *app) showUsage(u control.Usage) error {
	u.Rows = orEmpty(u.Rows)
	if a.output == formatCSV {
		text, err := usageCSV(u).csv()
		if err != nil {
			return err
		}
		return a.print(text)
	}
	if err := a.show(u, func() string { return a.usageText(u) }); err != nil || a.output == formatJSON {
		return err
	}
	if shown := int64(len(u.Rows)); !grouped(u) && shown > 0 && shown < u.Totals.Requests {
		a.note("The newest %s of %s requests; --limit shows more, --group-by sums.", number(shown), number(u.Totals.Requests))
	}
	return nil
}

func grouped(u control.Usage) bool { return u.GroupBy != "" && u.GroupBy != "none" }

func (a *app) usageText(u control.Usage) string {
	if u.Totals.Requests == 0 {
		return "No requests.\n"
	}
	if grouped(u) {
		return groupTable(u).String()
	}
	t := newTable("TIME", "USER", "KEY", "MODEL", "RESULT", ">INPUT", ">OUTPUT", ">CACHE READ", ">CACHE WRITE", ">DURATION")
	for _, row := range u.Rows {
		if e := row.Entry; e != nil {
			t.row(relative(a.now(), e.StartedAt), e.User, e.KeyName, modelOf(e), result(e), number(e.InputTokens), number(e.OutputTokens),
				number(e.CacheReadTokens), number(e.CacheWrite5mTokens+e.CacheWrite1hTokens), milliseconds(float64(e.Duration)))
		}
	}
	t.total = []string{
		"total", "", "", "", countOf(int(u.Totals.Requests), "request"), number(u.Totals.InputTokens), number(u.Totals.OutputTokens),
		number(u.Totals.CacheReadTokens), number(u.Totals.CacheWriteTokens), "",
	}
	return t.String()
}

func groupTable(u control.Usage) *table {
	t := newTable(strings.ToUpper(u.GroupBy), ">REQUESTS", ">ERRORS", ">INPUT", ">OUTPUT", ">CACHE READ", ">CACHE WRITE", ">QUOTA", ">AVG TIME")
	row := func(name string, s control.UsageTotals) {
		t.row(name, number(s.Requests), number(s.Errors), number(s.InputTokens), number(s.OutputTokens), number(s.CacheReadTokens),
			number(s.CacheWriteTokens), number(s.QuotaTokens), milliseconds(s.AverageDurationMs))
	}
	for _, r := range u.Rows {
		if r.Group != nil {
			row(r.Group.Group, r.Group.UsageTotals)
		}
	}
	row("total", u.Totals)
	return t
}

// modelOf is the model that answered, or the one that was asked for.
func modelOf(e *fleet.Entry) string {
	if e.ModelServed != "" {
		return e.ModelServed
	}
	return e.ModelAsked
}

// result says how an exchange ended: ok, or what went wrong.
func result(e *fleet.Entry) string {
	switch {
	case e.Outcome == fleet.OutcomeFinished:
		return "ok"
	case e.Status >= 400:
		return strings.TrimSpace(strconv.Itoa(e.Status) + " " + e.ErrorType)
	}
	return strings.ReplaceAll(string(e.Outcome), "_", " ")
}

// usageCSV has one row for each row of the answer, with the names and units of the JSON form.
func usageCSV(u control.Usage) *table {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	if grouped(u) {
		t := newTable(u.GroupBy, "requests", "errors", "inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "thinkingTokens",
			"quotaTokens", "fileOperations", "averageDurationMs", "averageFirstByteMs", "firstAt", "lastAt")
		for _, r := range u.Rows {
			if g := r.Group; g != nil {
				t.row(cell(g.Group), n(g.Requests), n(g.Errors), n(g.InputTokens), n(g.OutputTokens), n(g.CacheReadTokens), n(g.CacheWriteTokens),
					n(g.ThinkingTokens), n(g.QuotaTokens), n(g.FileOperations), fmt.Sprintf("%.1f", g.AverageDurationMs),
					fmt.Sprintf("%.1f", g.AverageFirstByteMs), utc(g.FirstAt), utc(g.LastAt))
			}
		}
		return t
	}
	t := newTable("startedAt", "id", "node", "user", "team", "key", "endpoint", "modelAsked", "modelServed", "upstream", "outcome", "status", "errorType",
		"inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "thinkingTokens", "quotaTokens", "fileOperations", "firstByteMs",
		"durationMs", "sessionId", "clientVersion")
	for _, r := range u.Rows {
		if e := r.Entry; e != nil {
			t.row(utc(e.StartedAt), e.ID, cell(e.Node), cell(e.User), cell(e.Team), cell(e.KeyName), e.Endpoint, cell(e.ModelAsked), cell(e.ModelServed),
				cell(e.Upstream), string(e.Outcome), strconv.Itoa(e.Status), cell(e.ErrorType), n(e.InputTokens), n(e.OutputTokens), n(e.CacheReadTokens),
				n(e.CacheWrite5mTokens+e.CacheWrite1hTokens), n(e.ThinkingTokens), n(e.QuotaTokens), n(e.FileOperations), n(e.FirstByte),
				n(e.Duration), cell(e.SessionID), cell(e.ClientVersion))
		}
	}
	return t
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// cell keeps text that clients have sent from being taken for a formula by a spreadsheet.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

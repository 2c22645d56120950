package main

import (
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// groupings are the values of --group-by.
func groupings() []string {
	return []string{"none", "user", "team", "key", "model", "upstream", "session", "agent", "version", "day", "hour"}
}

// endpoints are the values of --endpoint.
func endpoints() []string {
	return []string{policy.EndpointMessages, policy.EndpointCountTokens, endpointAll}
}

const endpointAll = "all"

const (
	sinceHelp = "from `WHEN` on: 90m, 24h, 7d, today, yesterday, a date or a time"
	untilHelp = "up to `WHEN`, in the same forms; a date itself is left out"
)

func newUsageCommand(a *app) *cobra.Command {
	var q control.UsageQuery
	var all bool
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show requests, tokens and costs, one by one or summed",
		Long: `Show requests, tokens and what they cost, one by one (newest first) or summed by --group-by. The totals are over
everything selected, whatever the limit; --all shows everything. Dates are in the server's time zone, the one that quotas
are counted in. Requests older than control.store.retention are in the sums only.

An amount with * is partly of requests without a price, one with ~ partly of requests that ended before all was reported.
JSON and CSV have costs in micro-dollars, millionths of a US dollar. docs/reports.md describes their fields.`,
		Example: `  carpool usage --since today
  carpool usage --since 7d --group-by user
  carpool usage --since 2026-11-01 --until 2026-12-01 --group-by day,team --output csv
  carpool usage --since 30d --all --output csv > usage.csv
  carpool usage --user alice --model claude-opus-4-1 --limit 20 --output json`,
		Args:        arguments(),
		Annotations: map[string]string{formatsAnnotation: formatCSV},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkGroupings(q.GroupBy); err != nil {
				return err
			}
			if q.Endpoint != "" && !slices.Contains(endpoints(), q.Endpoint) {
				return usagef("the flag --endpoint does not take %q: it is one of %s", q.Endpoint, strings.Join(endpoints(), ", "))
			}
			if cmd.Flags().Changed("limit") && q.Limit < 1 {
				return usagef("the flag --limit must be 1 or more")
			}
			if all && q.Limit != 0 {
				return usagef("the flags --all and --limit exclude each other")
			}
			return a.withClient(func(c *control.Client) (err error) {
				if q.Since, err = a.serverTime(cmd.Context(), c, "since", q.Since); err != nil {
					return err
				}
				if q.Until, err = a.serverTime(cmd.Context(), c, "until", q.Until); err != nil {
					return err
				}
				if all && q.GroupBy != "" && q.GroupBy != "none" {
					q.Limit = maxGroups
				}
				if q.Session != "" {
					if q.Session, err = wholeSession(cmd.Context(), c, q.Session); err != nil {
						return err
					}
				}
				usage, err := c.Usage(cmd.Context(), q)
				if err != nil {
					return err
				}
				if err := checkNames(cmd.Context(), c, usage.Totals.Requests, q, ""); err != nil {
					return err
				}
				a.noteKept(usage.KeptFrom)
				if all && !grouped(usage) {
					return a.exportEntries(usage, c.Entries(cmd.Context(), q))
				}
				return a.showUsage(usage)
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
	flags.StringVar(&q.Session, "session", "", "only this session, by its `ID` or the beginning of it")
	flags.StringVar(&q.Endpoint, "endpoint", "", "only this `ENDPOINT`: messages, count_tokens or all (default messages)")
	flags.StringVar(&q.GroupBy, "group-by", "", "sum by `WHAT`: one or several, with commas, of "+strings.Join(groupings()[1:], ", "))
	flags.IntVar(&q.Limit, "limit", 0, "at most this `NUMBER` of rows (default 50 requests or 1000 groups)")
	flags.BoolVar(&all, "all", false, "all rows")
	flags.StringVarP(&a.output, "output", "o", formatTable, "print as `FORMAT`: table, json or csv")
	cmd.AddCommand(newRepriceCommand(a))
	return cmd
}

// checkGroupings refuses what --group-by does not take.
func checkGroupings(by string) error {
	if by == "" {
		return nil
	}
	names := strings.Split(by, ",")
	for i, name := range names {
		switch {
		case !slices.Contains(groupings(), name):
			return usagef("the flag --group-by does not take %q: it is one of %s, or several of them with commas", name, strings.Join(groupings(), ", "))
		case name == groupings()[0] && len(names) > 1:
			return usagef("the flag --group-by takes none only alone")
		case slices.Contains(names[:i], name):
			return usagef("the flag --group-by has %s twice", name)
		}
	}
	return nil
}

// noteKept says what the answer to a question cannot have, where the server keeps only roll-ups of its older requests.
func (a *app) noteKept(from *time.Time) {
	if from != nil {
		a.note("Of requests before %s only sums by the hour are kept: single requests, sessions, agents and tools begin there.",
			from.In(a.now().Location()).Format("2006-01-02 15:04 MST"))
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

// maxGroups is the largest limit that the admin API takes.
const maxGroups = 1_000_000

// exportEntries prints all exchanges as they come from the server; only a table needs all of them at once.
func (a *app) exportEntries(u control.Usage, entries iter.Seq2[fleet.Entry, error]) error {
	u.Rows = []control.UsageRow{}
	switch a.output {
	case formatCSV:
		return a.printCSV(entries)
	case formatJSON:
		return a.printRows(u, entries)
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		u.Rows = append(u.Rows, control.UsageRow{Entry: &e})
	}
	return a.print(a.usageText(u))
}

// took is how long an exchange took; of one that the server's end cut off it may be unknown.
func took(e *fleet.Entry) string {
	if e.Outcome == fleet.OutcomeCrashed && e.Duration == 0 {
		return ""
	}
	return milliseconds(float64(e.Duration))
}

func grouped(u control.Usage) bool { return u.GroupBy != "" && u.GroupBy != "none" }

func (a *app) usageText(u control.Usage) string {
	if u.Totals.Requests == 0 {
		return "No requests.\n"
	}
	if grouped(u) {
		return a.narrow(groupTable(u), "AVG TIME", "QUOTA", "ERRORS", "CACHE WRITE", "CACHE READ", "INPUT").String() + costNotes(u.Totals.Unpriced, u.Totals.Estimated)
	}
	t := newTable("TIME", "USER", "KEY", "MODEL", "RESULT", ">INPUT", ">OUTPUT", ">CACHE READ", ">CACHE WRITE", ">DURATION", ">COST")
	for _, row := range u.Rows {
		if e := row.Entry; e != nil {
			t.row(relative(a.now(), e.StartedAt), e.User, e.KeyName, modelOf(e), result(e), number(e.InputTokens), number(e.OutputTokens),
				number(e.CacheReadTokens), number(e.CacheWrite5mTokens+e.CacheWrite1hTokens), took(e), entryCost(e))
		}
	}
	t.total = []string{
		"total", "", "", "", countOf(int(u.Totals.Requests), "request"), number(u.Totals.InputTokens), number(u.Totals.OutputTokens),
		number(u.Totals.CacheReadTokens), number(u.Totals.CacheWriteTokens), "", sumCost(u.Totals),
	}
	a.narrow(t, "KEY", "DURATION", "CACHE WRITE", "CACHE READ", "INPUT", "RESULT", "USER")
	return t.String() + costNotes(u.Totals.Unpriced, u.Totals.Estimated)
}

func groupTable(u control.Usage) *table {
	by := strings.Split(strings.ToUpper(u.GroupBy), ",")
	t := newTable(append(by, ">REQUESTS", ">ERRORS", ">INPUT", ">OUTPUT", ">CACHE READ", ">CACHE WRITE", ">QUOTA", ">AVG TIME", ">COST")...)
	cells := func(names []string, s control.UsageTotals) []string {
		return append(slices.Clip(names), number(s.Requests), number(s.Errors), number(s.InputTokens), number(s.OutputTokens), number(s.CacheReadTokens),
			number(s.CacheWriteTokens), number(s.QuotaTokens), milliseconds(s.AverageDurationMs), sumCost(s))
	}
	for _, r := range u.Rows {
		if r.Group != nil {
			t.row(cells(r.Group.Groups, r.Group.UsageTotals)...)
		}
	}
	t.total = cells(append([]string{"total"}, make([]string, len(by)-1)...), u.Totals)
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

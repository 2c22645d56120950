package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/control"
)

func newRepriceCommand(a *app) *cobra.Command {
	var q control.RepriceQuery
	cmd := &cobra.Command{
		Use:   "reprice --since WHEN",
		Short: "Show what requests would have cost",
		Long: `Show what requests would have cost, beside what they are booked with. The prices are those that are published and
configured now: of the day of each request, of another day (--as-of), or those of another model (--model). The books do
not change. JSON and CSV have the amounts in micro-dollars, millionths of a US dollar.`,
		Example: `  carpool usage reprice --since 30d
  carpool usage reprice --since 2026-10-01 --until 2026-11-01 --as-of 2026-11-09
  carpool usage reprice --since 7d --model claude-sonnet-5-5 --output csv`,
		Args:        arguments(),
		Annotations: map[string]string{formatsAnnotation: formatCSV},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Since == "" {
				return usagef("the flag --since is missing: from when on?")
			}
			if q.AsOf != "" && q.Model != "" {
				return usagef("the flags --as-of and --model exclude each other")
			}
			if q.AsOf != "" {
				if _, err := time.Parse(time.DateOnly, q.AsOf); err != nil {
					return usagef("the flag --as-of does not take %q: it is a date such as 2026-12-01", q.AsOf)
				}
			}
			return a.withClient(func(c *control.Client) (err error) {
				if q.Since, err = a.serverTime(cmd.Context(), c, "since", q.Since); err != nil {
					return err
				}
				if q.Until, err = a.serverTime(cmd.Context(), c, "until", q.Until); err != nil {
					return err
				}
				answer, err := c.Reprice(cmd.Context(), q)
				if err != nil {
					return err
				}
				if err := checkNames(cmd.Context(), c, answer.Totals.Requests, control.UsageQuery{User: q.User, Team: q.Team}, ""); err != nil {
					return err
				}
				a.noteKept(answer.KeptFrom)
				a.noteUnpriced(q.Model, answer.KnownModels)
				if a.output == formatCSV {
					text, err := repriceCSV(answer).csv()
					if err != nil {
						return err
					}
					return a.print(text)
				}
				return a.show(answer, func() string { return repriceText(answer) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Since, "since", "", sinceHelp)
	flags.StringVar(&q.Until, "until", "", untilHelp)
	flags.StringVar(&q.User, "user", "", "only this `USER`")
	flags.StringVar(&q.Team, "team", "", "only this `TEAM`")
	flags.StringVar(&q.AsOf, "as-of", "", "by the prices of this `DATE` (UTC)")
	flags.StringVar(&q.Model, "model", "", "as if this `MODEL` had answered")
	flags.StringVarP(&a.output, "output", "o", formatTable, "print as `FORMAT`: table, json or csv")
	return cmd
}

// noteUnpriced says that a model is repriced by the rule for unknown ones, which a misspelt one would be without a word. known are the
// models that have a price, none when the model has one.
func (a *app) noteUnpriced(model string, known []string) {
	if len(known) == 0 {
		return
	}
	guess := ""
	if best := nearest(model, known); best != "" {
		guess = fmt.Sprintf(" Did you mean %q?", best)
	}
	a.note("There is no price of the model %q: all is repriced by the rule for models without one.%s", model, guess)
}

func repriceText(r control.Repricing) string {
	if r.Totals.Requests == 0 {
		return "No requests.\n"
	}
	t := newTable("MODEL", ">REQUESTS", ">BOOKED", ">REPRICED", ">DIFFERENCE")
	row := func(name string, s control.RepricedTotals) []string {
		return []string{name, number(s.Requests), dollars(s.Booked), dollars(s.Repriced), dollars(s.Difference)}
	}
	for _, m := range r.Models {
		t.row(row(m.Model, m.RepricedTotals)...)
	}
	t.total = row("total", r.Totals)
	var notes strings.Builder
	for _, note := range []struct {
		n    int64
		text string
	}{
		{r.Totals.Unpriced, "without a price: repriced by the rule for that"},
		{r.Totals.Inexact, "of several models whose shares are not known: all is repriced as the answering model's"},
	} {
		if note.n > 0 {
			fmt.Fprintf(&notes, "%s %s.\n", countOf(int(note.n), "request"), note.text)
		}
	}
	if notes.Len() > 0 {
		return t.String() + "\n" + notes.String()
	}
	return t.String()
}

func repriceCSV(r control.Repricing) *table {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	t := newTable("model", "requests", "bookedMicroUsd", "repricedMicroUsd", "differenceMicroUsd", "unpriced", "inexact")
	for _, m := range r.Models {
		t.row(cell(m.Model), n(m.Requests), n(m.Booked), n(m.Repriced), n(m.Difference), n(m.Unpriced), n(m.Inexact))
	}
	return t
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"carpool/internal/control"
	"carpool/internal/policy"
	"carpool/internal/reconcile"
)

// matching is the JSON of a comparison with the CLI's telemetry.
type matching struct {
	From        time.Time              `json:"from,omitzero"`
	To          time.Time              `json:"to,omitzero"`
	Tolerance   float64                `json:"tolerance"`
	Events      int                    `json:"events"`
	Matched     int64                  `json:"matched"`
	Differences []reconcile.Difference `json:"differences"`
}

func (a *app) reconcileRequests(ctx context.Context, c *control.Client, f *reconcileFlags, tolerance float64) error {
	data, err := a.readInput(f.otel)
	if err != nil {
		return err
	}
	events, err := reconcile.ReadTelemetry(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", displayName(f.otel), err)
	}
	if len(events) == 0 {
		return fmt.Errorf("there is no claude_code.api_request event in %s", displayName(f.otel))
	}
	m := matching{Tolerance: tolerance, Events: len(events)}
	query := control.UsageQuery{User: f.user, Endpoint: policy.EndpointMessages}
	if from, to, ok := reconcile.Range(events); ok {
		m.From, m.To = from, to
		query.Since, query.Until = from.Format(time.RFC3339Nano), to.Format(time.RFC3339Nano)
	}
	if f.since != "" {
		if query.Since, err = a.serverTime(ctx, c, "since", f.since); err != nil {
			return err
		}
	}
	if f.until != "" {
		if query.Until, err = a.serverTime(ctx, c, "until", f.until); err != nil {
			return err
		}
	}
	question := query
	question.Limit = 1
	answer, err := c.Usage(ctx, question)
	if err != nil {
		return err
	}
	a.noteKept(answer.KeptFrom)
	match := reconcile.NewMatching(events, tolerance)
	var found int64
	for e, err := range c.Entries(ctx, query) {
		if err != nil {
			return err
		}
		if f.upstream == "" || e.Upstream == f.upstream {
			found++
			match.Add(&e)
		}
	}
	if err := checkNames(ctx, c, found, control.UsageQuery{User: f.user}, f.upstream); err != nil {
		return err
	}
	m.Matched, m.Differences = match.Matched, orEmpty(match.Differences())
	if err := a.show(m, func() string { return matchingText(&m) }); err != nil {
		return err
	}
	if n := len(m.Differences); n > 0 {
		return fmt.Errorf("drift: ledger and telemetry do not agree about %s", countOf(n, "request"))
	}
	return nil
}

// mostShown is how many differences a table shows; JSON has all.
const mostShown = 100

func matchingText(m *matching) string {
	var onlyLedger, onlyTelemetry, different int
	t := newTable("REQUEST", "WHAT", ">LEDGER", ">TELEMETRY")
	for i := range m.Differences {
		d := &m.Differences[i]
		shown := i < mostShown
		switch {
		case d.Ledger == nil:
			onlyTelemetry++
			if shown {
				t.row(d.RequestID, "only in the telemetry", "", number(d.Telemetry.Tokens()))
			}
		case d.Telemetry == nil:
			onlyLedger++
			if shown {
				t.row(d.RequestID, "only in the ledger", number(d.Ledger.Tokens()), "")
			}
		default:
			different++
			for _, name := range d.Differs {
				if shown {
					ours, theirs := differing(d, name)
					t.row(d.RequestID, name, ours, theirs)
				}
			}
		}
	}
	var f fields
	f.add("Events", number(m.Events))
	f.add("In both", number(m.Matched))
	f.add("Different", number(different))
	f.add("Only in the telemetry", number(onlyTelemetry))
	f.add("Only in the ledger", number(onlyLedger))
	text := f.String()
	if len(t.rows) > 0 {
		text += "\n" + t.String()
	}
	if more := len(m.Differences) - mostShown; more > 0 {
		text += fmt.Sprintf("\nand %s more; --output json has them all\n", countOf(more, "request"))
	}
	return text
}

func differing(d *reconcile.Difference, name string) (ledger, telemetry string) {
	switch name {
	case "model":
		return d.Ledger.Model, d.Telemetry.Model
	case "inputTokens":
		return number(d.Ledger.Input), number(d.Telemetry.Input)
	case "outputTokens":
		return number(d.Ledger.Output), number(d.Telemetry.Output)
	case "cacheReadTokens":
		return number(d.Ledger.CacheRead), number(d.Telemetry.CacheRead)
	case "cacheWriteTokens":
		return number(d.Ledger.CacheNew), number(d.Telemetry.CacheNew)
	}
	return dollars(d.Ledger.MicroUSD), dollars(d.Telemetry.MicroUSD)
}

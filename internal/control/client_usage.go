package control

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"carpool/internal/fleet"
)

// Usage returns totals with rows of groups or exchanges.
func (c *Client) Usage(ctx context.Context, q UsageQuery) (Usage, error) {
	values := q.values()
	if q.GroupBy != "" {
		values.Set("groupBy", q.GroupBy)
	}
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	return call[Usage](ctx, c, http.MethodGet, "/admin/v1/usage", values, nil)
}

func (q *UsageQuery) values() url.Values {
	return query("since", q.Since, "until", q.Until, "user", q.User, "team", q.Team, "key", q.Key, "model", q.Model,
		"session", q.Session, "endpoint", q.Endpoint)
}

// entriesPerPage keeps an answer to a few megabytes.
const entriesPerPage = 2000

// Entries returns all exchanges that a query selects, newest first, asking for them page by page. GroupBy and Limit do not
// count. An error is the last thing it yields.
func (c *Client) Entries(ctx context.Context, q UsageQuery) iter.Seq2[fleet.Entry, error] {
	return func(yield func(fleet.Entry, error) bool) {
		values := q.values()
		values.Set("limit", strconv.Itoa(entriesPerPage))
		for {
			page, err := call[EntriesPage](ctx, c, http.MethodGet, "/admin/v1/entries", values, nil)
			if err != nil {
				yield(fleet.Entry{}, err)
				return
			}
			for i := range page.Entries {
				if !yield(page.Entries[i], nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			values.Set("after", page.Next)
		}
	}
}

// Billing returns what the Claude API was used for by UTC day and model; upstream "" is all of them.
func (c *Client) Billing(ctx context.Context, from, to time.Time, upstream string) ([]BillingRow, error) {
	return list[BillingRow](ctx, c, "/admin/v1/billing", query("since", from.UTC().Format(time.RFC3339Nano),
		"until", to.UTC().Format(time.RFC3339Nano), "upstream", upstream))
}

// Sessions returns the sessions of Claude Code that exchanges name, those used last first.
func (c *Client) Sessions(ctx context.Context, q SessionQuery) (Sessions, error) {
	values := query("since", q.Since, "until", q.Until, "user", q.User, "team", q.Team)
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	return call[Sessions](ctx, c, http.MethodGet, "/admin/v1/sessions", values, nil)
}

// Session returns one session with its agents, by its id or a beginning of it that no other session has.
func (c *Client) Session(ctx context.Context, id string) (SessionDetail, error) {
	return call[SessionDetail](ctx, c, http.MethodGet, "/admin/v1/sessions/"+url.PathEscape(id), nil, nil)
}

// Report returns the Claude Code report.
func (c *Client) Report(ctx context.Context, q ReportQuery) (Report, error) {
	values := query("since", q.Since, "until", q.Until, "user", q.User, "team", q.Team)
	return call[Report](ctx, c, http.MethodGet, "/admin/v1/report", values, nil)
}

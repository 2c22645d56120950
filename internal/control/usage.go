package control

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/control/store"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// What usage can be grouped by besides the store's dimensions.
const (
	groupNone  = "none"
	groupDay   = "day"
	groupHour  = "hour"
	groupAgent = "agent"
)

// How many rows an answer has.
const (
	defaultEntries = 50
	maxEntries     = 10_000
	defaultGroups  = 1000
)

// Range selects exchanges by time and by who made them.
type Range struct {
	Since string `query:"since" doc:"Start: RFC 3339 time, date in the configured time zone, or an age like 24h or 7d" example:"7d"`
	Until string `query:"until" doc:"End, exclusive, in the same forms"`
	User  string `query:"user"`
	Team  string `query:"team"`
}

// Selection selects exchanges by everything that they can be selected by.
type Selection struct {
	Range
	Key      string `query:"key" doc:"Name or public id"`
	Model    string `query:"model" doc:"Asked, sent or served"`
	Session  string `query:"session"`
	Endpoint string `query:"endpoint" enum:"messages,count_tokens,all" default:"messages"`
}

type usageInput struct {
	Selection
	GroupBy []string `query:"groupBy" enum:"none,user,team,key,model,upstream,session,agent,version,day,hour" uniqueItems:"true" doc:"What a row stands for, several with commas between them; none or nothing: one exchange" example:"user,model"`
	Limit   int      `query:"limit" minimum:"1" maximum:"1000000" doc:"Rows; default 50 exchanges or 1000 groups. At most 10000 exchanges; /admin/v1/entries has all of them"`
}

func (a *api) addUsage() {
	operation(a, huma.Operation{
		OperationID: "get-usage", Method: http.MethodGet, Path: "/admin/v1/usage", Summary: "What was used", Tags: []string{"usage"},
	}, func(ctx context.Context, in *usageInput) (Usage, error) { return a.c.usage(ctx, in) })
	operation(a, huma.Operation{
		OperationID: "list-entries", Method: http.MethodGet, Path: "/admin/v1/entries", Summary: "All exchanges, page by page", Tags: []string{"usage"},
	}, func(ctx context.Context, in *entriesInput) (EntriesPage, error) { return a.c.entries(ctx, in) })
	operation(a, huma.Operation{
		OperationID: "get-billing", Method: http.MethodGet, Path: "/admin/v1/billing", Tags: []string{"usage"},
		Summary: "What the Claude API was used for by UTC day and model, as Anthropic reports it",
	}, func(ctx context.Context, in *billingInput) (List[BillingRow], error) {
		rows, err := a.c.billing(ctx, in)
		return List[BillingRow]{Items: rows}, err
	})
	operation(a, huma.Operation{
		OperationID: "get-report", Method: http.MethodGet, Path: "/admin/v1/report", Summary: "The Claude Code report", Tags: []string{"usage"},
	}, func(ctx context.Context, in *Range) (Report, error) { return a.c.report(ctx, in) })
}

// flush lets the connected nodes deliver what they settled, so that an answer includes it.
func (c *Control) flush(ctx context.Context) {
	if _, _, err := c.askAll(ctx, flushWait, fleet.CommandFlush, nil); err != nil {
		c.options.Log.WarnContext(ctx, "an answer may lack the latest usage", slog.Any("error", err))
	}
}

// filter turns a range into a store filter.
func (c *Control) filter(in *Range) (f store.Filter, err error) {
	now := c.options.Now()
	if f.Since, err = parseTime(in.Since, now, c.location()); err != nil {
		return f, refuse(http.StatusUnprocessableEntity, "since: %s", err.Error())
	}
	if f.Until, err = parseTime(in.Until, now, c.location()); err != nil {
		return f, refuse(http.StatusUnprocessableEntity, "until: %s", err.Error())
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Since.After(f.Until) {
		return f, refuse(http.StatusUnprocessableEntity, "since (%s) is after until (%s)", f.Since.Format(time.RFC3339), f.Until.Format(time.RFC3339))
	}
	f.User, f.Team = in.User, in.Team
	return f, nil
}

// parseTime reads an RFC 3339 time, a date in a zone, or an age before now in Go's notation or in days or weeks. Empty
// is the zero time.
func parseTime(text string, now time.Time, zone *time.Location) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	// A plus sign that nobody escaped arrives as a space.
	if at, err := time.Parse(time.RFC3339, strings.ReplaceAll(text, " ", "+")); err == nil {
		return representable(text, at)
	}
	if at, err := time.ParseInLocation(time.DateOnly, text, zone); err == nil {
		return representable(text, at)
	}
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return representable(text, now.Add(-age))
	}
	if len(text) > 1 && len(text) <= 6 {
		if n, err := strconv.ParseUint(text[:len(text)-1], 10, 16); err == nil {
			switch text[len(text)-1] {
			case 'd':
				return representable(text, now.AddDate(0, 0, -int(n)))
			case 'w':
				return representable(text, now.AddDate(0, 0, -7*int(n)))
			}
		}
	}
	return time.Time{}, errTimeForm(text)
}

// representable keeps times within what the store can hold and JSON can say.
func representable(text string, at time.Time) (time.Time, error) {
	at = at.UTC()
	if at.Year() < 1 || at.Year() > 9999 {
		return time.Time{}, errTimeForm(text)
	}
	return at, nil
}

type errTimeForm string

func (e errTimeForm) Error() string {
	return strconv.Quote(string(e)) + " is not a time; use one like 2026-11-23T08:00:00Z, a date like 2026-11-23, or an age like 24h or 7d"
}

func (c *Control) selection(in *Selection) (store.Filter, error) {
	f, err := c.filter(&in.Range)
	f.Key, f.Model, f.Session = in.Key, in.Model, in.Session
	if in.Endpoint != windowAll {
		f.Endpoint = in.Endpoint
	}
	return f, err
}

func (c *Control) usage(ctx context.Context, in *usageInput) (Usage, error) {
	f, err := c.selection(&in.Selection)
	if err != nil {
		return Usage{}, err
	}
	by := in.GroupBy
	switch single := slices.Contains(by, groupNone); {
	case single && len(by) > 1:
		return Usage{}, refuse(http.StatusUnprocessableEntity, "groupBy: %s goes with nothing else", groupNone)
	case single:
		by = nil
	}
	if len(by) == 0 && in.Limit > maxEntries {
		return Usage{}, refuse(http.StatusUnprocessableEntity, "limit: at most %d exchanges; /admin/v1/entries has all of them", maxEntries)
	}
	c.flush(ctx)
	answer := Usage{From: maybe(f.Since), To: maybe(f.Until), GroupBy: cmp.Or(strings.Join(by, ","), groupNone), Rows: []UsageRow{}}
	groups, err := c.groups(ctx, f, by)
	if err != nil {
		return Usage{}, err
	}
	var totals store.Sum
	for _, g := range groups {
		totals.Add(g)
	}
	answer.Totals = totalsOf(totals)
	if answer.KeptFrom, err = c.keptFrom(ctx, f.Since); err != nil {
		return Usage{}, err
	}
	if len(by) == 0 {
		entries, err := c.store.Entries(ctx, f, store.Position{}, cmp.Or(in.Limit, defaultEntries))
		if err != nil {
			return Usage{}, err
		}
		for i := range entries {
			answer.Rows = append(answer.Rows, UsageRow{Entry: &entries[i]})
		}
		return answer, nil
	}
	for _, g := range limited(groups, by, cmp.Or(in.Limit, defaultGroups)) {
		row := &UsageGroup{Groups: g.Groups[:len(by)], UsageTotals: totalsOf(g), FirstAt: g.FirstAt, LastAt: g.LastAt}
		if len(g.Groups) > len(by) {
			row.Parent = g.Groups[len(by)]
		}
		row.Group = strings.Join(row.Groups, ", ")
		answer.Rows = append(answer.Rows, UsageRow{Group: row})
	}
	return answer, nil
}

// limited keeps the largest groups, or the latest days or hours.
func limited(groups []store.Sum, by []string, limit int) []store.Sum {
	switch over := len(groups) - limit; {
	case over <= 0:
		return groups
	case timeLayout(by) != "":
		return groups[over:]
	}
	return groups[:limit]
}

// dimension returns the store's dimension of a group name.
func dimension(groupBy string) store.Dimension {
	switch groupBy {
	case "user":
		return store.ByUser
	case "team":
		return store.ByTeam
	case "key":
		return store.ByKey
	case "model":
		return store.ByModel
	case "upstream":
		return store.ByUpstream
	case "session":
		return store.BySession
	case groupAgent:
		return store.ByAgent
	case "version":
		return store.ByVersion
	}
	return store.ByQuarter
}

// layoutOf returns how a group of days or hours is written, "" for other groups.
func layoutOf(groupBy string) string {
	switch groupBy {
	case groupDay:
		return time.DateOnly
	case groupHour:
		return "2006-01-02T15:00-07:00"
	}
	return ""
}

// timeLayout returns the layout of the finest stretch of time among groups, "" when there is none.
func timeLayout(by []string) string {
	switch {
	case slices.Contains(by, groupHour):
		return layoutOf(groupHour)
	case slices.Contains(by, groupDay):
		return layoutOf(groupDay)
	}
	return ""
}

// groups returns all groups, largest first, days and hours in their order before that. Agents have a further group, their parent.
func (c *Control) groups(ctx context.Context, f store.Filter, by []string) ([]store.Sum, error) {
	dimensions := make([]store.Dimension, len(by), len(by)+1)
	for i, name := range by {
		dimensions[i] = dimension(name)
	}
	if slices.Contains(by, groupAgent) {
		dimensions = append(dimensions, store.ByParent)
	}
	sums, err := c.store.Sums(ctx, f, dimensions...)
	if err != nil || timeLayout(by) == "" {
		return sums, err
	}
	// The database does not know time zones; whole quarter hours make up every zone's hours and days.
	slices.SortFunc(sums, func(a, b store.Sum) int { return a.FirstAt.Compare(b.FirstAt) })
	order := map[string]int{} // of days or hours, whose names do not sort when the clock is put back
	at := func(s store.Sum) string { return s.FirstAt.In(c.location()).Format(timeLayout(by)) }
	for _, s := range sums {
		if _, known := order[at(s)]; !known {
			order[at(s)] = len(order)
		}
	}
	merged := regroup(sums, func(s store.Sum) []string {
		groups := slices.Clone(s.Groups)
		for i, name := range by {
			if layout := layoutOf(name); layout != "" {
				groups[i] = s.FirstAt.In(c.location()).Format(layout)
			}
		}
		return groups
	})
	slices.SortFunc(merged, func(a, b store.Sum) int {
		return cmp.Or(cmp.Compare(order[at(a)], order[at(b)]), cmp.Compare(b.Tokens(), a.Tokens()), cmp.Compare(b.Requests, a.Requests),
			slices.Compare(a.Groups, b.Groups))
	})
	return merged, nil
}

// regroup merges sums into those of other groups, in the order of their first.
func regroup(sums []store.Sum, groups func(store.Sum) []string) []store.Sum {
	var merged []store.Sum
	at := map[string]int{}
	for _, s := range sums {
		to := groups(s)
		name := fmt.Sprintf("%q", to)
		i, ok := at[name]
		if !ok {
			i, at[name] = len(merged), len(merged)
			merged = append(merged, store.Sum{Groups: to})
		}
		merged[i].Add(s)
	}
	return merged
}

func totalsOf(s store.Sum) UsageTotals {
	return UsageTotals{
		Requests: s.Requests, Errors: s.Errors,
		InputTokens: s.Input, OutputTokens: s.Output, CacheReadTokens: s.CacheRead,
		CacheWriteTokens: s.CacheWrite5m + s.CacheWrite1h, CacheWrite5mTokens: s.CacheWrite5m, CacheWrite1hTokens: s.CacheWrite1h,
		ThinkingTokens: s.Thinking, QuotaTokens: s.Quota, WebSearches: s.WebSearches, FileOperations: s.FileOperations,
		RequestBytes: s.RequestBytes, ResponseBytes: s.ResponseBytes,
		AverageDurationMs: average(s.Duration, s.Answered), AverageFirstByteMs: average(s.FirstByte, s.Answered),
		CostMicroUSD: s.Cost, CacheSavingsMicroUSD: s.CacheSavings, Unpriced: s.Unpriced, Estimated: s.Estimated,
	}
}

func average(sum, n int64) float64 {
	if n == 0 {
		return 0
	}
	return float64(sum) / float64(n)
}

func maybe(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

const (
	reportTools = 20
	reportRows  = 100
)

func (c *Control) report(ctx context.Context, in *Range) (Report, error) {
	f, err := c.filter(in)
	if err != nil {
		return Report{}, err
	}
	f.Endpoint = policy.EndpointMessages
	c.flush(ctx)
	r := Report{
		From: maybe(f.Since), To: maybe(f.Until), TopTools: []ReportCount{}, VersionDistribution: []ReportVersion{},
		Models: []ReportModel{}, Outcomes: map[string]int64{},
	}
	sums, err := c.store.Sums(ctx, f, store.ByVersion, store.ByModel, store.ByOutcome)
	if err != nil {
		return Report{}, err
	}
	var all store.Sum
	for _, s := range sums {
		all.Add(s)
	}
	r.TotalRequests, r.FileOperations = all.Requests, all.FileOperations
	r.SuccessRate = average(all.Requests-all.Errors, all.Requests)
	r.AverageResponseTime, r.AverageFirstByte = average(all.Duration, all.Answered), average(all.FirstByte, all.Answered)
	r.TokenUsage = ReportTokens{
		Input: all.Input, Output: all.Output, CacheRead: all.CacheRead,
		CacheWrite: all.CacheWrite5m + all.CacheWrite1h, CacheWrite5m: all.CacheWrite5m, CacheWrite1h: all.CacheWrite1h,
		Thinking: all.Thinking, Quota: all.Quota,
		Total: all.Input + all.Output + all.CacheRead + all.CacheWrite5m + all.CacheWrite1h,
	}
	r.Cost = ReportCost{
		MicroUSD: all.Cost, CacheSavingsMicroUSD: all.CacheSavings, Unpriced: all.Unpriced, Estimated: all.Estimated,
		CacheReadShare: average(all.CacheRead, all.Prompt()),
	}
	if r.ActiveUsers, r.Sessions, err = c.store.Distinct(ctx, f); err != nil {
		return Report{}, err
	}
	if r.KeptFrom, err = c.keptFrom(ctx, f.Since); err != nil {
		return Report{}, err
	}
	r.distribute(sums)
	tools, err := c.store.Tools(ctx, f, reportTools)
	if err != nil {
		return Report{}, err
	}
	for _, t := range tools {
		r.TopTools = append(r.TopTools, ReportCount(t))
	}
	return r, nil
}

// distribute fills in the distributions from sums by version, model and outcome.
func (r *Report) distribute(sums []store.Sum) {
	part := func(i int) []store.Sum {
		merged := regroup(sums, func(s store.Sum) []string { return s.Groups[i : i+1] })
		slices.SortFunc(merged, func(a, b store.Sum) int {
			return cmp.Or(cmp.Compare(b.Requests, a.Requests), slices.Compare(a.Groups, b.Groups))
		})
		return merged[:min(len(merged), reportRows)]
	}
	for _, v := range part(0) {
		r.VersionDistribution = append(r.VersionDistribution, ReportVersion{v.Groups[0], v.Requests, average(v.Requests, r.TotalRequests)})
	}
	for _, m := range part(1) {
		r.Models = append(r.Models, ReportModel{m.Groups[0], m.Requests, m.Input, m.Output, m.Cost, m.Unpriced, m.Estimated})
	}
	for _, o := range part(2) {
		r.Outcomes[o.Groups[0]] = o.Requests
	}
}

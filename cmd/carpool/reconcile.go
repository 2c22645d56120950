package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/reconcile"
)

const (
	fromAPI          = "API"
	defaultAdminKey  = "ANTHROPIC_ADMIN_KEY"
	defaultTolerance = "0.5%"
)

// reconcileFlags say with what the books are compared.
type reconcileFlags struct {
	from, otel          string
	since, until        string
	upstream, workspace string
	user                string
	keyEnv, keyFile     string
	apiURL, tolerance   string
}

func newReconcileCommand(a *app) *cobra.Command {
	var f reconcileFlags
	cmd := &cobra.Command{
		Use:   "reconcile (--from FILE|API | --otel FILE)",
		Short: "Compare the books with Anthropic's report or the CLI's telemetry",
		Long: `Compare the books with what others say about the same requests.

--from takes Anthropic's Usage and Cost report and prints the drift by UTC day and model, in tokens of each class and in
dollars. API asks for it, with an Admin key from the environment variable ` + defaultAdminKey + ` or --admin-key-file; a FILE
holds saved answers of the two endpoints, one after the other. Without --since it is about the last seven whole days.

--otel takes a FILE of the CLI's own telemetry (claude_code.api_request events as JSON lines, or the file that an
OpenTelemetry collector writes), joins it by request ids and prints the requests that are in one and not in the other, and
those that differ.

The exit status is 0 when everything is within --tolerance, a share of the larger side, and 1 when it is not. The requests
of telemetry must have the same tokens; the tolerance is for their costs, which are the client's estimates.
docs/reports.md says what drift is to be expected.`,
		Example: `  carpool reconcile --from API
  carpool reconcile --from API --since 2026-11-01 --until 2026-12-01 --admin-key-file admin.key --output json
  carpool reconcile --from report.json --tolerance 0
  carpool reconcile --otel telemetry.jsonl --user alice`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			tolerance, err := parseShare(f.tolerance)
			if err != nil {
				return usagef("the flag --tolerance does not take %q: %s", f.tolerance, err)
			}
			if (f.from == "") == (f.otel == "") {
				return usagef("give one of --from and --otel")
			}
			switch { // a filter that is not applied would be a wrong answer
			case f.from != "" && f.user != "":
				return usagef("--user is for --otel: the report does not know users")
			case f.otel != "" && f.workspace != "":
				return usagef("--workspace is for --from: telemetry does not know workspaces")
			}
			return a.withClient(func(c *control.Client) error {
				if f.otel != "" {
					return a.reconcileRequests(cmd.Context(), c, &f, tolerance)
				}
				return a.reconcileReport(cmd.Context(), c, &f, tolerance)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "the Usage and Cost report: API, or a `FILE` of its answers (- is standard input)")
	flags.StringVar(&f.otel, "otel", "", "a `FILE` of the CLI's telemetry")
	flags.StringVar(&f.since, "since", "", "from `WHEN` on; with --from API, UTC days")
	flags.StringVar(&f.until, "until", "", "up to `WHEN`; a date itself is left out")
	flags.StringVar(&f.upstream, "upstream", "", "only what this `UPSTREAM` served")
	flags.StringVar(&f.workspace, "workspace", "", "with --from, only what the report says of this workspace, by its `ID`")
	flags.StringVar(&f.user, "user", "", "with --otel, only requests of this `USER`")
	flags.StringVar(&f.keyEnv, "admin-key-env", defaultAdminKey, "environment `VARIABLE` that holds the Admin key")
	flags.StringVar(&f.keyFile, "admin-key-file", "", "`FILE` that holds the Admin key")
	flags.StringVar(&f.apiURL, "api-url", "https://api.anthropic.com", "`URL` of the Admin API without /v1")
	flags.StringVar(&f.tolerance, "tolerance", defaultTolerance, "largest `SHARE` that is no drift")
	return cmd
}

// parseShare reads 0.5% or 0.005.
func parseShare(text string) (float64, error) {
	digits, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(digits, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share >= 0 && share <= 1) {
		return 0, errors.New("it is a share such as 0.5% or 0.005")
	}
	return share, nil
}

// drift is the JSON of a comparison with the report.
type drift struct {
	From      time.Time       `json:"from"`
	To        time.Time       `json:"to"`
	Tolerance float64         `json:"tolerance"`
	Within    bool            `json:"within"`
	Usage     bool            `json:"comparesTokens"`
	Cost      bool            `json:"comparesCost"`
	Rows      []reconcile.Row `json:"rows"`
}

func (a *app) reconcileReport(ctx context.Context, c *control.Client, f *reconcileFlags, tolerance float64) error {
	report, err := a.usageReport(ctx, f)
	if err != nil {
		return err
	}
	billing, err := c.Billing(ctx, report.From, report.To, f.upstream)
	if err != nil {
		return err
	}
	if err := checkNames(ctx, c, int64(len(billing)), control.UsageQuery{}, f.upstream); err != nil {
		return err
	}
	d := drift{From: report.From, To: report.To, Tolerance: tolerance, Usage: report.Usage, Cost: report.Cost, Within: true}
	d.Rows = orEmpty(reconcile.Compare(booksOf(billing), report, tolerance))
	beyond := 0
	for i := range d.Rows {
		if !d.Rows[i].Within {
			beyond++
		}
	}
	d.Within = beyond == 0
	if err := a.show(d, func() string { return driftText(&d) }); err != nil {
		return err
	}
	if beyond > 0 {
		return fmt.Errorf("drift: %d of %s beyond the tolerance of %s", beyond, countOf(len(d.Rows), "line"), f.tolerance)
	}
	return nil
}

// usageReport reads the report from where the flags say.
func (a *app) usageReport(ctx context.Context, f *reconcileFlags) (*reconcile.Report, error) {
	if f.from != fromAPI {
		if f.since != "" || f.until != "" {
			return nil, usagef("--since and --until are for --from API: a file is about the days that it has")
		}
		data, err := a.readInput(f.from)
		if err != nil {
			return nil, err
		}
		report, err := reconcile.ReadReport(bytes.NewReader(data), f.workspace)
		if err != nil {
			return nil, fmt.Errorf("cannot use %s: %w", displayName(f.from), err)
		}
		return report, nil
	}
	key, err := a.adminKey(f)
	if err != nil {
		return nil, err
	}
	now := a.now().UTC()
	today := now.Truncate(24 * time.Hour)
	from, to := today.AddDate(0, 0, -7), today
	for _, flag := range []struct {
		name, text string
		at         *time.Time
	}{{"since", f.since, &from}, {"until", f.until, &to}} {
		if flag.text == "" {
			continue
		}
		at, err := parsePast(flag.text, now)
		if err != nil {
			return nil, usagef("the flag --%s does not take %q: %s", flag.name, flag.text, err)
		}
		*flag.at = at.UTC().Truncate(24 * time.Hour)
	}
	if !from.Before(to) {
		return nil, usagef("there is no whole UTC day between --since and --until")
	}
	api := reconcile.API{URL: f.apiURL, Key: key, HTTP: &http.Client{Timeout: time.Minute}}
	defer api.HTTP.CloseIdleConnections()
	return api.Fetch(ctx, from, to, f.workspace)
}

// adminKey reads the Admin key, which is not taken from the command line: others can see that.
func (a *app) adminKey(f *reconcileFlags) (string, error) {
	if f.keyFile != "" {
		data, err := os.ReadFile(f.keyFile)
		if err != nil {
			return "", plainFileError(err)
		}
		if key := strings.Fields(string(data)); len(key) == 1 {
			return key[0], nil
		}
		return "", fmt.Errorf("the file %s should hold the Admin key and nothing else", f.keyFile)
	}
	if key, _ := a.getenv(f.keyEnv); key != "" {
		return key, nil
	}
	return "", fmt.Errorf("the environment variable %s is not set: export it with an Admin key (sk-ant-admin…), or use --admin-key-file", f.keyEnv)
}

func booksOf(billing []control.BillingRow) map[reconcile.Line]reconcile.Books {
	books := map[reconcile.Line]reconcile.Books{}
	for _, row := range billing {
		day, _ := time.Parse(time.DateOnly, row.Day) // the server wrote it so
		line := reconcile.NewLine(day, row.Model)
		b := books[line]
		b.Add(reconcile.Amounts{
			Input: row.InputTokens, Output: row.OutputTokens, CacheRead: row.CacheReadTokens, CacheWrite5m: row.CacheWrite5mTokens,
			CacheWrite1h: row.CacheWrite1hTokens, WebSearches: row.WebSearches, MicroUSD: row.CostMicroUSD,
		})
		b.SearchMicroUSD += row.WebSearchMicroUSD
		b.Requests, b.Estimated, b.Unpriced, b.Mixed = b.Requests+row.Requests, b.Estimated+row.Estimated, b.Unpriced+row.Unpriced, b.Mixed+row.Mixed
		books[line] = b
	}
	return books
}

func driftText(d *drift) string {
	var f fields
	f.add("Days", d.From.Format(time.DateOnly)+" to "+d.To.Add(-time.Second).Format(time.DateOnly)+" UTC")
	f.add("Tolerance", strconv.FormatFloat(100*d.Tolerance, 'g', 6, 64)+"% of the larger side")
	if len(d.Rows) == 0 {
		return f.String() + "\nNeither the books nor the report have anything.\n"
	}
	t := newTable("DAY", "MODEL", "WHAT", ">LEDGER", ">REPORT", ">DRIFT")
	var ledger, report, estimated, unpriced int64
	for i := range d.Rows {
		r := &d.Rows[i]
		ledger, report = ledger+r.Ledger.MicroUSD, report+r.Report.MicroUSD
		estimated, unpriced = estimated+r.Ledger.Estimated, unpriced+r.Ledger.Unpriced
		if d.Usage {
			ours, theirs := r.Ledger.Tokens(), r.Report.Tokens()
			t.row(r.Day, r.Model, "tokens", number(ours), number(theirs), signed(ours-theirs, number[int64]))
			for _, class := range r.Classes() {
				if class.Ledger != class.Report {
					t.row(r.Day, r.Model, "  "+class.Name, number(class.Ledger), number(class.Report), signed(class.Ledger-class.Report, number[int64]))
				}
			}
		}
		if d.Cost {
			t.row(r.Day, r.Model, "cost", marked(r.Ledger.MicroUSD, r.Ledger.Unpriced > 0, r.Ledger.Estimated > 0), dollars(r.Report.MicroUSD), signed(r.Drift.MicroUSD, dollars))
		}
	}
	if d.Cost {
		t.total = []string{"total", "", "cost", marked(ledger, unpriced > 0, estimated > 0), dollars(report), signed(ledger-report, dollars)}
	}
	text := f.String() + "\n" + t.String() + costNotes(unpriced, estimated) + mixedNotes(d.Rows)
	var beyond strings.Builder
	for i := range d.Rows {
		if r := &d.Rows[i]; !r.Within {
			fmt.Fprintf(&beyond, "  %s %s by %s\n", r.Day, printable(r.Model), percent(r.Largest))
		}
	}
	if beyond.Len() == 0 {
		return text + "\nEverything is within the tolerance.\n"
	}
	return text + "\nBeyond the tolerance:\n" + beyond.String()
}

// mixedNotes says where the books cannot be expected to agree with a report by model, and why.
func mixedNotes(rows []reconcile.Row) string {
	var text strings.Builder
	for i := range rows {
		if r := &rows[i]; r.Ledger.Mixed > 0 {
			fmt.Fprintf(&text, "  %s %s in %s\n", r.Day, printable(r.Model), countOf(int(r.Ledger.Mixed), "request"))
		}
	}
	if text.Len() == 0 {
		return ""
	}
	return "\nOther models took part in answers of these, an advisor or one that was replaced by a fallback:\n" + text.String() +
		"The books have all of such a request with the model that answered, the report with each model its own.\n"
}

// signed writes a difference with its sign.
func signed(n int64, write func(int64) string) string {
	if n > 0 {
		return "+" + write(n)
	}
	return write(n)
}

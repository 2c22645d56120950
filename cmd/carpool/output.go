package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// The values of --output.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatCSV   = "csv"
)

// formatsAnnotation names the formats of a command that has others than table and json.
const formatsAnnotation = "formats"

func (a *app) checkOutput(cmd *cobra.Command) error {
	formats := []string{formatTable, formatJSON}
	if more := cmd.Annotations[formatsAnnotation]; more != "" {
		formats = append(formats, more)
	}
	if !slices.Contains(formats, a.output) {
		return usagef("the flag --output does not take %q here: it is one of %s", a.output, strings.Join(formats, ", "))
	}
	return nil
}

// show prints a result: the value as JSON, or what human makes of it.
func (a *app) show(value any, human func() string) error {
	if a.output == formatJSON {
		return a.showJSON(value)
	}
	return a.print(human())
}

// done confirms a change in one line, or as JSON the value that it left behind.
func (a *app) done(value any, format string, args ...any) error {
	return a.show(value, func() string { return fmt.Sprintf(format, args...) + "\n" })
}

func (a *app) showJSON(value any) error {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("cannot write JSON: %w", err)
	}
	return a.print(out.String())
}

func (a *app) print(text string) error {
	if _, err := a.stdout.Write([]byte(text)); err != nil {
		return fmt.Errorf("cannot write to standard output: %w", err)
	}
	return nil
}

// narrow makes a table fit the terminal and says so when that costs columns.
func (a *app) narrow(t *table, columns ...string) *table {
	if t.fit(a.width, columns...) {
		a.note("Some columns are left out to fit; a wider terminal or --output json has them.")
	}
	return t
}

// note writes a remark for people to standard error.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

// orEmpty makes JSON arrays out of nil slices.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// table is rows of text under upper-case headers. Columns are separated by two spaces, those marked in right hold numbers.
type table struct {
	headers []string
	right   []bool
	rows    [][]string
	total   []string // a last row whose empty cells stay empty; nil is none
}

// newTable takes the headers; one that begins with ">" is aligned to the right.
func newTable(headers ...string) *table {
	t := &table{}
	for _, h := range headers {
		name, right := strings.CutPrefix(h, ">")
		t.headers, t.right = append(t.headers, name), append(t.right, right)
	}
	return t
}

// row adds a row; empty cells are shown as "-".
func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// fit leaves columns out, the named ones in their order, until rows fit into a width; width 0 has room for all. It reports
// whether any was left out.
func (t *table) fit(width int, columns ...string) (left bool) {
	for _, name := range columns {
		_, widths := t.layout()
		total := 2 * (len(widths) - 1)
		for _, w := range widths {
			total += w
		}
		if width == 0 || total <= width {
			break
		}
		left = t.leaveOut(name) || left
	}
	return left
}

// leaveOut takes a column away. It reports whether there was one of this name.
func (t *table) leaveOut(column string) bool {
	at := slices.Index(t.headers, column)
	if at < 0 {
		return false
	}
	t.headers, t.right = slices.Delete(t.headers, at, at+1), slices.Delete(t.right, at, at+1)
	for i := range t.rows {
		t.rows[i] = slices.Delete(t.rows[i], at, at+1)
	}
	if t.total != nil {
		t.total = slices.Delete(t.total, at, at+1)
	}
	return true
}

// layout returns the lines as they are shown, and how wide their columns are.
func (t *table) layout() (lines [][]string, widths []int) {
	lines = [][]string{t.headers}
	for _, row := range t.rows {
		line := make([]string, len(row))
		for i, cell := range row {
			line[i] = orDash(printable(cell))
		}
		lines = append(lines, line)
	}
	if t.total != nil {
		lines = append(lines, t.total)
	}
	widths = make([]int, len(t.headers))
	for _, row := range lines {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return lines, widths
}

// String renders the table with its headers.
func (t *table) String() string {
	lines, widths := t.layout()
	var out strings.Builder
	for _, row := range lines {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if t.right[i] {
				cell, pad = pad+cell, ""
			}
			if i > 0 {
				line.WriteString("  ")
			}
			line.WriteString(cell + pad)
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return out.String()
}

// orNone renders the table, or a sentence where there is nothing to show.
func (t *table) orNone(none string) string {
	if len(t.rows) == 0 {
		return none + "\n"
	}
	return t.String()
}

// csv renders the table for spreadsheets and scripts.
func (t *table) csv() (string, error) {
	var out strings.Builder
	w := csv.NewWriter(&out)
	if err := w.WriteAll(append([][]string{t.headers}, t.rows...)); err != nil {
		return "", fmt.Errorf("cannot write CSV: %w", err)
	}
	return out.String(), nil
}

// fields is one thing shown in detail: a name and a value a line.
type fields [][2]string

func (f *fields) add(name, value string) { *f = append(*f, [2]string{name, value}) }

func (f *fields) String() string {
	width := 0
	for _, pair := range *f {
		width = max(width, utf8.RuneCountInString(pair[0]))
	}
	var out strings.Builder
	for _, pair := range *f {
		fmt.Fprintf(&out, "%-*s  %s\n", width, pair[0], orDash(printable(pair[1])))
	}
	return out.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printable replaces control and formatting characters: some of what is shown (versions, models, tools) was sent by
// clients and must not steer the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// number writes an integer with thousands separators.
func number[T ~int | ~int64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	var out strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			out.WriteByte(',')
		}
		out.WriteRune(d)
	}
	return sign + out.String()
}

// milliseconds writes a duration as people say it: 850 ms, 2.4 s, 3m12s.
func milliseconds(ms float64) string {
	switch {
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 59_950:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return (time.Duration(math.Round(ms/1000)) * time.Second).String()
}

// relative writes a time as its distance from now.
func relative(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	if d < 0 {
		return "in " + distanceInTime(-d)
	}
	if d < 5*time.Second {
		return "just now"
	}
	return distanceInTime(d) + " ago"
}

func distanceInTime(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// moment writes a time in the zone of now with its distance: 2026-11-23 07:03 UTC (2h ago).
func moment(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(now.Location()).Format("2006-01-02 15:04 MST") + " (" + relative(now, t) + ")"
}

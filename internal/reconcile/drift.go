package reconcile

import (
	"cmp"
	"maps"
	"slices"
)

// Books is what the ledger has of a line.
type Books struct {
	Amounts
	Requests  int64 `json:"requests"`
	Estimated int64 `json:"estimated"` // of the requests; their usage is not all reported
	Unpriced  int64 `json:"unpriced"`  // of the requests
	Mixed     int64 `json:"mixed"`     // of the requests; other models took part, which the report counts with those

	SearchMicroUSD int64 `json:"webSearchMicroUsd"` // of the cost, what web searches cost
}

// Row compares a line.
type Row struct {
	Line
	Ledger  Books   `json:"ledger"`
	Report  Amounts `json:"report"`
	Drift   Amounts `json:"drift"`        // the ledger's less the report's
	Within  bool    `json:"within"`       // the tolerance
	Largest float64 `json:"largestShare"` // of a drift, of the larger side
}

// Class is one class of usage of a row.
type Class struct {
	Name           string
	Ledger, Report int64
}

// Classes are the classes of usage, dollars excepted.
func (r *Row) Classes() []Class {
	return []Class{
		{"input", r.Ledger.Input, r.Report.Input},
		{"output", r.Ledger.Output, r.Report.Output},
		{"cache read", r.Ledger.CacheRead, r.Report.CacheRead},
		{"write 5m", r.Ledger.CacheWrite5m, r.Report.CacheWrite5m},
		{"write 1h", r.Ledger.CacheWrite1h, r.Report.CacheWrite1h},
		{"searches", r.Ledger.WebSearches, r.Report.WebSearches},
	}
}

// Compare compares the books with a report, in the order of days and models. What differs by more than a share of the
// larger side is not within the tolerance. The ledger rounds the cost of each request to micro-dollars and the report does
// not: half a micro-dollar for each request is no drift. Of what the report has nothing (tokens, or dollars), nothing is
// compared. Where the report has the cost of web searches on a line of its own, so have the rows those of the books.
func Compare(books map[Line]Books, report *Report, tolerance float64) []Row {
	books = searchesApart(books, report)
	lines := map[Line]bool{}
	for line := range books {
		lines[line] = true
	}
	for line := range report.Lines {
		lines[line] = true
	}
	rows := make([]Row, 0, len(lines))
	for line := range lines {
		row := Row{Line: line, Ledger: books[line], Report: report.Lines[line], Within: true}
		ledger, reported, drift := row.Ledger.all(), row.Report.all(), row.Drift.all()
		for i := range drift {
			isCost := i == len(drift)-1
			if (isCost && !report.Cost) || (!isCost && !report.Usage) {
				continue
			}
			*drift[i] = *ledger[i] - *reported[i]
			off := max(*drift[i], -*drift[i])
			if isCost && off <= (row.Ledger.Requests+1)/2 {
				continue
			}
			if off == 0 {
				continue
			}
			share := float64(off) / float64(max(*ledger[i], *reported[i]))
			row.Largest = max(row.Largest, share)
			row.Within = row.Within && share <= tolerance
		}
		if row.Ledger.Amounts != (Amounts{}) || row.Report != (Amounts{}) {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Model, b.Model)) })
	return rows
}

// searchesApart takes the cost of web searches out of the lines of models on the days on which the report cannot do otherwise, because it
// does not say which models made them.
func searchesApart(books map[Line]Books, report *Report) map[Line]Books {
	apart := maps.Clone(books)
	for line, b := range books {
		searches := Line{line.Day, webSearch}
		if _, reported := report.Lines[searches]; b.SearchMicroUSD == 0 || (report.Usage && !reported) {
			continue
		}
		all := apart[searches]
		all.MicroUSD, all.SearchMicroUSD = all.MicroUSD+b.SearchMicroUSD, all.SearchMicroUSD+b.SearchMicroUSD
		apart[searches] = all
		b.MicroUSD, b.SearchMicroUSD = b.MicroUSD-b.SearchMicroUSD, 0
		apart[line] = b
	}
	return apart
}

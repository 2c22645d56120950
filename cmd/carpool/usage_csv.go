package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
)

// The columns of CSV have the names and units of the JSON form. New ones come at the end, so that scripts may count on
// positions; docs/reports.md describes them.

func groupColumns(by string) []string {
	return append(strings.Split(by, ","), "requests", "errors", "inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "thinkingTokens",
		"quotaTokens", "fileOperations", "averageDurationMs", "averageFirstByteMs", "firstAt", "lastAt",
		"cacheWrite5mTokens", "cacheWrite1hTokens", "webSearches", "costMicroUsd", "cacheSavingsMicroUsd", "unpriced", "estimated", "parent")
}

func groupCells(g *control.UsageGroup) []string {
	n, cells := decimal, []string{}
	for _, group := range g.Groups {
		cells = append(cells, cell(group))
	}
	return append(cells, n(g.Requests), n(g.Errors), n(g.InputTokens), n(g.OutputTokens), n(g.CacheReadTokens), n(g.CacheWriteTokens),
		n(g.ThinkingTokens), n(g.QuotaTokens), n(g.FileOperations), fmt.Sprintf("%.1f", g.AverageDurationMs),
		fmt.Sprintf("%.1f", g.AverageFirstByteMs), utc(g.FirstAt), utc(g.LastAt),
		n(g.CacheWrite5mTokens), n(g.CacheWrite1hTokens), n(g.WebSearches), n(g.CostMicroUSD), n(g.CacheSavingsMicroUSD),
		n(g.Unpriced), n(g.Estimated), cell(g.Parent))
}

func entryColumns() []string {
	return []string{
		"startedAt", "id", "node", "user", "team", "key", "endpoint", "modelAsked", "modelServed", "upstream", "outcome", "status", "errorType",
		"inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "thinkingTokens", "quotaTokens", "fileOperations", "firstByteMs",
		"durationMs", "sessionId", "clientVersion",
		"seq", "keyId", "modelSent", "cacheWrite5mTokens", "cacheWrite1hTokens", "webSearches", "costMicroUsd", "cacheSavingsMicroUsd",
		"unpriced", "estimated", "uncharged", "priceRule", "priceVersion", "provider", "location", "serviceTier", "speed", "inferenceGeo",
		"agentId", "parentAgentId", "requestClass", "messageId", "upstreamRequestId", "clientRequestId",
	}
}

func entryCells(e *fleet.Entry) []string {
	n, yes := decimal, strconv.FormatBool
	return []string{
		utc(e.StartedAt), e.ID, cell(e.Node), cell(e.User), cell(e.Team), cell(e.KeyName), e.Endpoint, cell(e.ModelAsked), cell(e.ModelServed),
		cell(e.Upstream), string(e.Outcome), strconv.Itoa(e.Status), cell(e.ErrorType), n(e.InputTokens), n(e.OutputTokens), n(e.CacheReadTokens),
		n(e.CacheWrite5mTokens + e.CacheWrite1hTokens), n(e.ThinkingTokens), n(e.QuotaTokens), n(e.FileOperations), n(e.FirstByte),
		n(e.Duration), cell(e.SessionID), cell(e.ClientVersion),
		n(e.Seq), cell(e.KeyID), cell(e.ModelSent), n(e.CacheWrite5mTokens), n(e.CacheWrite1hTokens), n(e.WebSearches), n(e.Cost), n(e.CacheSavings),
		yes(e.Unpriced), yes(e.Estimated), yes(e.Uncharged), cell(e.PriceRule), cell(e.PriceVersion), cell(e.Provider), cell(e.Location),
		cell(e.ServiceTier), cell(e.Speed), cell(e.InferenceGeo),
		cell(e.AgentID), cell(e.ParentAgentID), cell(e.RequestClass), cell(e.MessageID), cell(e.UpstreamRequestID), cell(e.ClientRequestID),
	}
}

// usageCSV has one row for each row of the answer.
func usageCSV(u control.Usage) *table {
	if grouped(u) {
		t := newTable(groupColumns(u.GroupBy)...)
		for _, r := range u.Rows {
			if r.Group != nil {
				t.row(groupCells(r.Group)...)
			}
		}
		return t
	}
	t := newTable(entryColumns()...)
	for _, r := range u.Rows {
		if r.Entry != nil {
			t.row(entryCells(r.Entry)...)
		}
	}
	return t
}

// printCSV prints a row for each exchange, as they come.
func (a *app) printCSV(entries iter.Seq2[fleet.Entry, error]) error {
	out := bufio.NewWriter(a.stdout)
	w := csv.NewWriter(out)
	_ = w.Write(entryColumns()) // an error stays and Flush has it
	for e, err := range entries {
		if err != nil {
			return err
		}
		_ = w.Write(entryCells(&e))
	}
	w.Flush()
	if err := errors.Join(w.Error(), out.Flush()); err != nil {
		return fmt.Errorf("cannot write to standard output: %w", err)
	}
	return nil
}

// printRows prints the JSON of a usage whose rows are these exchanges, one a line, as they come.
func (a *app) printRows(u control.Usage, entries iter.Seq2[fleet.Entry, error]) error {
	frame, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("cannot write JSON: %w", err)
	}
	out := bufio.NewWriter(a.stdout)
	_, _ = out.Write(bytes.TrimSuffix(frame, []byte("]}"))) // rows are the last field; an error stays and Flush has it
	separator := "\n"
	for e, err := range entries {
		if err != nil {
			return err
		}
		row, err := json.Marshal(&e)
		if err != nil {
			return fmt.Errorf("cannot write JSON: %w", err)
		}
		_, _ = out.WriteString(separator)
		_, _ = out.Write(row)
		separator = ",\n"
	}
	_, _ = out.WriteString("\n]}\n")
	if err := out.Flush(); err != nil {
		return fmt.Errorf("cannot write to standard output: %w", err)
	}
	return nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// cell keeps text that clients have sent from being taken for a formula by a spreadsheet.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

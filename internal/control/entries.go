package control

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"carpool/internal/control/store"
	"carpool/internal/fleet"
)

type entriesInput struct {
	Selection
	After string `query:"after" doc:"What the page before says as next; the other parameters must be the same"`
	Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"Exchanges on a page"`
}

// entries answers one page. What is settled while somebody turns the pages is newer than all of them.
func (c *Control) entries(ctx context.Context, in *entriesInput) (EntriesPage, error) {
	f, err := c.selection(&in.Selection)
	if err != nil {
		return EntriesPage{}, err
	}
	var after store.Position
	if in.After == "" {
		c.flush(ctx)
	} else if after, err = parsePosition(in.After); err != nil {
		return EntriesPage{}, err
	}
	limit := cmp.Or(in.Limit, defaultGroups)
	entries, err := c.store.Entries(ctx, f, after, limit+1)
	if err != nil {
		return EntriesPage{}, err
	}
	page := EntriesPage{Entries: entries[:min(limit, len(entries)):len(entries)]}
	if len(entries) > limit {
		page.Next = formatPosition(store.After(&entries[limit-1]))
	}
	if page.Entries == nil {
		page.Entries = []fleet.Entry{}
	}
	page.KeptFrom, err = c.keptFrom(ctx, f.Since)
	return page, err
}

func formatPosition(p store.Position) string {
	return strconv.FormatInt(p.StartedAt.UnixMicro(), 10) + "." + strconv.FormatInt(p.Seq, 10) + "." + p.Node
}

func parsePosition(text string) (store.Position, error) {
	at, rest, _ := strings.Cut(text, ".")
	seq, node, whole := strings.Cut(rest, ".")
	micros, err := strconv.ParseInt(at, 10, 64)
	number, wrong := strconv.ParseInt(seq, 10, 64)
	if err != nil || wrong != nil || !whole {
		return store.Position{}, refuse(http.StatusUnprocessableEntity, "after: %q is not what a page says as next", text)
	}
	return store.Position{StartedAt: time.UnixMicro(micros).UTC(), Seq: number, Node: node}, nil
}

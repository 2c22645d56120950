package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// How many models a page has, as the API has it.
const (
	pageDefault = 20
	pageMost    = 1000
)

// modelPage is a page of the API's list of models.
type modelPage struct {
	Data    []json.RawMessage `json:"data"`
	HasMore bool              `json:"has_more"`
	FirstID *string           `json:"first_id"`
	LastID  *string           `json:"last_id"`
}

type usableModel struct {
	id     string
	object json.RawMessage
}

func (g *Gateway) listModels(ctx context.Context, w wire.Writer, r *web.Request) error {
	caller, snapshot, err := g.authenticate(r)
	if err != nil {
		return err
	}
	cut, err := parsePaging(r.Query)
	if err != nil {
		return err
	}
	models, more, err := cut.page(g.usableModels(ctx, snapshot, caller))
	if err != nil {
		return err
	}
	page := modelPage{Data: make([]json.RawMessage, 0, len(models)), HasMore: more}
	for _, m := range models {
		page.Data = append(page.Data, m.object)
	}
	if n := len(models); n > 0 {
		page.FirstID, page.LastID = &models[0].id, &models[n-1].id
	}
	return writeJSON(w, r, page)
}

// paging is the part of a list that a client asks for: so many after one id or before another.
type paging struct {
	limit         int
	after, before string
}

func parsePaging(query string) (paging, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return paging{}, anthropic.ErrInvalidRequest("The query cannot be read.")
	}
	p := paging{limit: pageDefault, after: values.Get("after_id"), before: values.Get("before_id")}
	if text := values.Get("limit"); text != "" {
		if p.limit, err = strconv.Atoi(text); err != nil {
			return p, anthropic.ErrInvalidRequest("limit: Input should be a valid integer, unable to parse string as an integer")
		}
		if p.limit < 1 || p.limit > pageMost {
			return p, anthropic.ErrInvalidRequest(fmt.Sprintf("limit: Input should be between 1 and %d", pageMost))
		}
	}
	if p.after != "" && p.before != "" {
		return p, anthropic.ErrInvalidRequest("Only one of `before_id` and `after_id` can be used.")
	}
	return p, nil
}

// page returns the models asked for, and whether there are more in that direction.
func (p paging) page(models []usableModel) (page []usableModel, more bool, err error) {
	at := func(field, id string) int {
		i := slices.IndexFunc(models, func(m usableModel) bool { return anthropic.NormalizeModel(m.id) == anthropic.NormalizeModel(id) })
		if i < 0 {
			err = anthropic.ErrInvalidRequest(field + ": " + shorten(id) + " is no model of this list")
		}
		return i
	}
	switch {
	case p.before != "":
		i := max(at("before_id", p.before), 0)
		return models[max(i-p.limit, 0):i], i > p.limit, err
	case p.after != "":
		models = models[at("after_id", p.after)+1:]
	}
	return models[:min(p.limit, len(models))], len(models) > p.limit, err
}

func (g *Gateway) showModel(ctx context.Context, w wire.Writer, r *web.Request, id string) error {
	caller, snapshot, err := g.authenticate(r)
	if err != nil {
		return err
	}
	if plain, err := url.PathUnescape(id); err == nil {
		id = plain
	}
	models := g.usableModels(ctx, snapshot, caller)
	for _, m := range models {
		if anthropic.NormalizeModel(m.id) == anthropic.NormalizeModel(id) {
			return writeJSON(w, r, m.object)
		}
	}
	return anthropic.ErrModelNotFound(shorten(id), snapshot.PermittedModels(caller))
}

// usableModels returns the models a caller may use: those that the policy names outright, and those that the upstreams of
// the user's routes list.
func (g *Gateway) usableModels(ctx context.Context, s *policy.Snapshot, c policy.Caller) []usableModel {
	var models []usableModel
	seen := map[string]bool{}
	add := func(id string, object json.RawMessage) {
		if key := anthropic.NormalizeModel(id); !seen[key] {
			seen[key] = true
			models = append(models, usableModel{id, object})
		}
	}
	described := map[string]json.RawMessage{}
	var listed []string
	upstreams := slices.DeleteFunc(s.Upstreams(), func(up *policy.Upstream) bool { return up.Disabled })
	var asked sync.WaitGroup // side by side: the CLI waits three seconds for all of them
	for _, up := range upstreams {
		asked.Go(func() { g.pool.Models(ctx, up) })
	}
	asked.Wait()
	for _, up := range upstreams {
		known, _ := g.pool.Models(ctx, up)
		for _, m := range known {
			target, ok := s.Resolve(c, m.ID)
			if !ok || !slices.Contains(target.Upstreams, up) {
				continue
			}
			if _, again := described[anthropic.NormalizeModel(m.ID)]; !again {
				described[anthropic.NormalizeModel(m.ID)] = m.Object
				listed = append(listed, m.ID)
			}
		}
	}
	for _, id := range s.NamedModels(c) {
		if _, ok := described[id]; !ok {
			add(id, describe(id))
		}
	}
	for _, id := range listed {
		add(id, described[anthropic.NormalizeModel(id)])
	}
	return models
}

// describe stands for the description that no upstream gives.
func describe(id string) json.RawMessage {
	object, _ := json.Marshal(map[string]string{"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"}) // strings always marshal
	return object
}

// writeJSON answers with one of the gateway's own objects.
func writeJSON(w wire.Writer, r *web.Request, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return anthropic.ErrInternal(err)
	}
	body = append(body, '\n') // people look at it in a terminal
	head := wire.Head{
		{Name: "Content-Type", Value: "application/json"},
		{Name: "Request-Id", Value: r.ID},
		{Name: "Content-Length", Value: strconv.Itoa(len(body))},
		{Name: "Cache-Control", Value: "no-store"},
	}
	if err := w.Begin(200, head); err != nil || strings.EqualFold(r.Method, "HEAD") {
		return err
	}
	_, err = w.Write(body)
	return err
}

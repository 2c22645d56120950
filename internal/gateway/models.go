package gateway

import (
	"context"
	"encoding/json"
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

// modelPage is the API's list of models. It is always complete in one page.
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
	models := g.usableModels(ctx, snapshot, caller)
	page := modelPage{Data: make([]json.RawMessage, 0, len(models))}
	for _, m := range models {
		page.Data = append(page.Data, m.object)
	}
	if n := len(models); n > 0 {
		page.FirstID, page.LastID = &models[0].id, &models[n-1].id
	}
	return writeJSON(w, r, page)
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

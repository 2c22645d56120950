package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"time"

	"carpool/internal/policy"
	"carpool/internal/wire"
)

const (
	modelsTimeout = 2500 * time.Millisecond // the CLI waits three seconds
	modelsFresh   = 10 * time.Minute
	modelsRetry   = 30 * time.Second
	maxModelsBody = 4 << 20
)

// Model is one model of an upstream's list.
type Model struct {
	ID     string
	Object json.RawMessage // the upstream's whole description of it
}

// modelList is what is known of an upstream's models. done is closed when the first look is over.
type modelList struct {
	done     chan struct{}
	identity identity // the list is void when the upstream becomes another one
	models   []Model
	known    bool
	next     time.Time
	busy     bool
}

// Models returns an upstream's models; known is false when it has no list or could not be asked. The answer comes from
// memory and is renewed in the background; only the first call waits, at most 2.5 seconds.
func (p *Pool) Models(ctx context.Context, u *policy.Upstream) (models []Model, known bool) {
	p.mu.Lock()
	list, ok := p.models[u.Name]
	if id := identityOf(u); !ok || list.identity != id {
		list = &modelList{done: make(chan struct{}), identity: id}
		p.models[u.Name] = list
	}
	if !list.busy && !p.now().Before(list.next) {
		list.busy = true
		p.tasks.Go(func() { p.renewModels(context.WithoutCancel(ctx), u, list) })
	}
	p.mu.Unlock()
	select {
	case <-list.done:
	case <-ctx.Done():
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return list.models, list.known
}

func (p *Pool) renewModels(ctx context.Context, u *policy.Upstream, list *modelList) {
	ctx, stop := context.WithTimeout(ctx, modelsTimeout)
	defer stop()
	models, err := p.fetchModels(ctx, u)
	p.mu.Lock()
	defer p.mu.Unlock()
	list.busy = false
	if err != nil {
		p.log.Warn("cannot list an upstream's models", slog.String("upstream", u.Name), slog.String("error", err.Error()))
		list.next = p.now().Add(modelsRetry)
	} else {
		list.models, list.known, list.next = models, true, p.now().Add(modelsFresh)
	}
	select {
	case <-list.done:
	default:
		close(list.done)
	}
}

func (p *Pool) fetchModels(ctx context.Context, u *policy.Upstream) ([]Model, error) {
	address, err := url.Parse(u.BaseURL + "/v1/models?limit=1000")
	if err != nil {
		return nil, fmt.Errorf("cannot build the address: %w", err)
	}
	head := wire.Head{{Name: "Accept", Value: "application/json"}, {Name: "Anthropic-Version", Value: "2023-06-01"}}
	addCredential(&head, u)
	response, _, err := p.client.Do(ctx, &wire.Outgoing{Method: "GET", URL: address, Head: head})
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxModelsBody))
	if err != nil {
		return nil, fmt.Errorf("cannot read the list: %w", err)
	}
	if response.Status != 200 {
		return nil, errors.New(said(response.Status, response.Head, body))
	}
	var page struct {
		Data []json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, fmt.Errorf("cannot read the list: %w", err)
	}
	models := make([]Model, 0, len(page.Data))
	for _, object := range page.Data {
		var m struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(object, &m) == nil && m.ID != "" {
			models = append(models, Model{m.ID, object})
		}
	}
	return models, nil
}

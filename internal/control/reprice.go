package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/price"
	"carpool/internal/quota"
)

// RepriceQuery selects exchanges and says what they are to be priced by.
type RepriceQuery struct {
	Since, Until, User, Team string
	AsOf                     string // day, UTC, whose prices are taken; empty: the day of each exchange
	Model                    string // that answers instead
}

// Repricing is what exchanges would have cost, beside what they are booked with.
type Repricing struct {
	From         *time.Time      `json:"from,omitempty"`
	To           *time.Time      `json:"to,omitempty"`
	AsOf         *time.Time      `json:"asOf,omitempty" doc:"The instant whose prices were taken; absent: the start of each exchange"`
	Model        string          `json:"model,omitempty" doc:"The model that was taken to have answered"`
	KnownModels  []string        `json:"knownModels,omitempty" doc:"Present when there is no price of the model: those that have one. All was repriced by the rule for models without a price"`
	PriceVersion string          `json:"priceVersion" doc:"Of the table that was used"`
	KeptFrom     *time.Time      `json:"keptFrom,omitempty" doc:"Present when the range reaches before it: exchanges that began earlier are not kept one by one, and left out here"`
	Totals       RepricedTotals  `json:"totals"`
	Models       []RepricedModel `json:"models" nullable:"false" doc:"By the model that answered, the dearest first"`
}

// RepricedModel is the exchanges that one model answered.
type RepricedModel struct {
	Model string `json:"model"`
	RepricedTotals
}

// RepricedTotals adds up what is booked and what it would be.
type RepricedTotals struct {
	Requests   int64 `json:"requests"`
	Booked     int64 `json:"bookedMicroUsd" doc:"What is in the books"`
	Repriced   int64 `json:"repricedMicroUsd" doc:"What it would have cost"`
	Difference int64 `json:"differenceMicroUsd" doc:"How much more than in the books"`
	Unpriced   int64 `json:"unpriced" doc:"Requests without a price, whose repriced cost follows the rule for that"`
	Inexact    int64 `json:"inexact" doc:"Requests of several models whose shares are not stored: all is priced as the answering model's"`
}

func (t *RepricedTotals) add(o RepricedTotals) {
	t.Requests += o.Requests
	t.Booked, t.Repriced = quota.Add(t.Booked, o.Booked), quota.Add(t.Repriced, o.Repriced)
	t.Difference = t.Repriced - t.Booked
	t.Unpriced += o.Unpriced
	t.Inexact += o.Inexact
}

type repriceInput struct {
	Since string `query:"since" required:"true" doc:"Start: RFC 3339 time, date in the configured time zone, or an age like 24h or 7d" example:"7d"`
	Until string `query:"until" doc:"End, exclusive, in the same forms"`
	User  string `query:"user"`
	Team  string `query:"team"`
	AsOf  string `query:"asOf" doc:"Take the prices of this day (UTC) instead of those of each exchange's start" example:"2026-12-01"`
	Model string `query:"model" doc:"As if this model had answered, at standard speed; not together with asOf" example:"claude-sonnet-5"`
}

func (a *api) addReprice() {
	operation(a, huma.Operation{
		OperationID: "get-repricing", Method: http.MethodGet, Path: "/admin/v1/usage/reprice", Summary: "What it would have cost", Tags: []string{"usage"},
		Description: "Prices what was used again, by the prices that are configured now, and changes nothing.",
	}, func(ctx context.Context, in *repriceInput) (Repricing, error) { return a.c.reprice(ctx, in) })
}

func (c *Control) reprice(ctx context.Context, in *repriceInput) (Repricing, error) {
	f, err := c.filter(&Range{in.Since, in.Until, in.User, in.Team})
	if err != nil {
		return Repricing{}, err
	}
	f.Endpoint = policy.EndpointMessages
	prices := c.current.Load().snapshot.Prices
	answer := Repricing{From: maybe(f.Since), To: maybe(f.Until), Model: in.Model, PriceVersion: prices.Version(), Models: []RepricedModel{}}
	switch {
	case in.AsOf != "" && in.Model != "":
		return Repricing{}, refuse(http.StatusUnprocessableEntity, "asOf and model exclude each other")
	case in.AsOf != "":
		at, err := parseTime(in.AsOf, c.options.Now(), time.UTC)
		if err != nil {
			return Repricing{}, refuse(http.StatusUnprocessableEntity, "asOf: %s", err.Error())
		}
		answer.AsOf = &at
	}
	if in.Model != "" && !prices.Knows(in.Model) {
		answer.KnownModels = prices.Models()
	}
	c.flush(ctx)
	models := map[string]*RepricedTotals{}
	for e, err := range c.store.Costs(ctx, f) {
		if err != nil {
			return Repricing{}, err
		}
		model := cmp.Or(e.ModelServed, e.ModelSent, e.ModelAsked)
		if models[model] == nil {
			models[model] = &RepricedTotals{}
		}
		models[model].add(repriced(prices, e, answer.AsOf, in.Model))
	}
	for model, t := range models {
		answer.Models = append(answer.Models, RepricedModel{model, *t})
		answer.Totals.add(*t)
	}
	if answer.KeptFrom, err = c.keptFrom(ctx, f.Since); err != nil {
		return Repricing{}, err
	}
	slices.SortFunc(answer.Models, func(a, b RepricedModel) int {
		return cmp.Or(cmp.Compare(b.Booked, a.Booked), cmp.Compare(b.Repriced, a.Repriced), cmp.Compare(a.Model, b.Model))
	})
	return answer, nil
}

// repriced prices one exchange again, at an instant or else its start, and as answered by model where that is not empty.
func repriced(prices *price.Table, e *fleet.Entry, asOf *time.Time, model string) RepricedTotals {
	t := RepricedTotals{Requests: 1, Booked: e.Cost}
	r, whole := e.PriceRequest()
	if r.Free() {
		return t
	}
	at := e.StartedAt
	if asOf != nil {
		at = *asOf
	}
	if model != "" {
		r = r.As(model)
	} else if !whole {
		t.Inexact = 1
	}
	cost := prices.Cost(at, r)
	t.Repriced = cost.Total
	if cost.Unpriced {
		t.Unpriced = 1
	}
	return t
}

// Reprice returns what exchanges would have cost.
func (c *Client) Reprice(ctx context.Context, q RepriceQuery) (Repricing, error) {
	values := query("since", q.Since, "until", q.Until, "user", q.User, "team", q.Team, "asOf", q.AsOf, "model", q.Model)
	return call[Repricing](ctx, c, http.MethodGet, "/admin/v1/usage/reprice", values, nil)
}

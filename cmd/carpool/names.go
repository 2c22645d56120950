package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"carpool/internal/control"
	"carpool/internal/policy"
)

// checkNames refuses a question that found nothing because it names what there is not. Who was removed is still in the books, and a model
// that nobody used yet may have a price or an alias. Of the query only the names count.
func checkNames(ctx context.Context, c *control.Client, found int64, q control.UsageQuery, upstream string) error {
	if found > 0 {
		return nil
	}
	for _, name := range []struct {
		text   string
		booked control.UsageQuery // everything of that name
		exists func() error
	}{
		{q.User, control.UsageQuery{User: q.User}, func() error { _, err := c.User(ctx, q.User, false); return err }},
		{q.Team, control.UsageQuery{Team: q.Team}, func() error { _, err := c.Team(ctx, q.Team); return err }},
		{q.Key, control.UsageQuery{Key: q.Key}, func() error { _, err := c.Key(ctx, q.Key); return err }},
		{q.Model, control.UsageQuery{Model: q.Model}, func() error { return modelExists(ctx, c, q.Model) }},
		{upstream, control.UsageQuery{GroupBy: "upstream", Limit: maxGroups}, func() error { _, err := c.Upstream(ctx, upstream); return err }},
	} {
		if name.text == "" {
			continue
		}
		missing := name.exists()
		if missing == nil {
			continue
		}
		if !control.IsNotFound(missing) {
			return missing
		}
		name.booked.Endpoint = endpointAll
		booked, err := c.Usage(ctx, name.booked)
		if err != nil {
			return err
		}
		isIt := func(r control.UsageRow) bool { return r.Group != nil && r.Group.Group == name.text }
		if booked.Totals.Requests == 0 || (name.booked.GroupBy != "" && !slices.ContainsFunc(booked.Rows, isIt)) {
			return missing
		}
	}
	return nil
}

// modelExists returns an error that is not found when a model has neither a price nor is an alias.
func modelExists(ctx context.Context, c *control.Client, model string) error {
	aliases, err := c.Aliases(ctx)
	if err != nil || slices.ContainsFunc(aliases, func(a policy.AliasSpec) bool { return a.Name == model }) {
		return err
	}
	prices, err := c.Reprice(ctx, control.RepriceQuery{Since: "0s", Model: model})
	if err != nil || len(prices.KnownModels) == 0 {
		return err
	}
	text := fmt.Sprintf("there is no model %q", model)
	if best := nearest(model, prices.KnownModels); best != "" {
		text += fmt.Sprintf("; did you mean %q?", best)
	}
	return &control.APIError{Status: http.StatusNotFound, Detail: text}
}

// wholeSession is the id of the session that begins so. One that only counted tokens is known to the books alone.
func wholeSession(ctx context.Context, c *control.Client, prefix string) (string, error) {
	session, missing := c.Session(ctx, prefix)
	if missing == nil || !control.IsNotFound(missing) {
		return session.ID, missing
	}
	booked, err := c.Usage(ctx, control.UsageQuery{Session: prefix, Endpoint: endpointAll, Limit: 1})
	if err != nil {
		return "", err
	}
	if booked.Totals.Requests == 0 {
		return "", missing
	}
	return prefix, nil
}

package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

// completeTimeout is how long a shell may wait for names after <Tab>.
const completeTimeout = 2 * time.Second

// lister returns the names of all things of one kind.
type lister func(context.Context, *control.Client) ([]string, error)

// listers are the kinds of things, by the command that manages them.
func listers() map[string]lister {
	return map[string]lister{
		"user": func(ctx context.Context, c *control.Client) ([]string, error) {
			users, err := c.Users(ctx, false)
			return namesOf(users, func(u control.User) string { return u.Name }), err
		},
		"team": func(ctx context.Context, c *control.Client) ([]string, error) {
			teams, err := c.Teams(ctx)
			return namesOf(teams, func(t control.Team) string { return t.Name }), err
		},
		"key": func(ctx context.Context, c *control.Client) ([]string, error) {
			keys, err := c.Keys(ctx, "")
			return namesOf(keys, func(k control.Key) string { return k.Name }), err
		},
		"upstream": func(ctx context.Context, c *control.Client) ([]string, error) {
			upstreams, err := c.Upstreams(ctx)
			return namesOf(upstreams, func(u control.Upstream) string { return u.Name }), err
		},
		"route": func(ctx context.Context, c *control.Client) ([]string, error) {
			routes, err := c.Routes(ctx)
			return namesOf(routes, func(r policy.RouteSpec) string { return r.Name }), err
		},
		"alias": func(ctx context.Context, c *control.Client) ([]string, error) {
			aliases, err := c.Aliases(ctx)
			return namesOf(aliases, func(a policy.AliasSpec) string { return a.Name }), err
		},
		"budget": func(ctx context.Context, c *control.Client) ([]string, error) {
			budgets, err := c.Budgets(ctx)
			return namesOf(budgets, func(b control.Budget) string { return b.Name }), err
		},
		"token": func(ctx context.Context, c *control.Client) ([]string, error) {
			tokens, err := c.Tokens(ctx)
			return namesOf(tokens, func(t control.Token) string { return t.Name }), err
		},
	}
}

func namesOf[T any](items []T, name func(T) string) []string {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = name(item)
	}
	return names
}

// complete completes the arguments and flags of a command, and of all below it, that name things which the server has.
func (a *app) complete(cmd *cobra.Command, kinds map[string]lister) {
	for _, sub := range cmd.Commands() {
		a.complete(sub, kinds)
	}
	if cmd.HasSubCommands() || !cmd.HasParent() {
		return
	}
	kind, group := cmd.Parent().Name(), cmd.Parent().Parent()
	if kind == "quota" {
		kind = "user"
	}
	if list, ok := kinds[kind]; ok && group != nil && cmd.ValidArgsFunction == nil {
		switch cmd.Name() {
		case "show", "set", "disable", "enable", "remove", "rotate", "reset":
			cmd.ValidArgsFunction = a.names(list, 1)
		}
	}
	for name, list := range kinds {
		if flag := cmd.LocalFlags().Lookup(name); flag != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, a.names(list, 0)) // fails only where there is no such flag
		}
	}
}

// names completes with the names of a kind, for the first most arguments (0: a flag). A server that cannot be asked
// completes nothing: <Tab> is no place for errors.
func (a *app) names(list lister, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		_ = a.withClient(func(c *control.Client) (err error) {
			names, err = list(ctx, c)
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

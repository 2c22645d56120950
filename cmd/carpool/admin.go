package main

import (
	"github.com/spf13/cobra"

	"carpool/internal/control"
)

func newAdminCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "admin",
		Short:   "Manage access to the admin API over the network",
		Example: "  carpool admin token add ci",
	}
	token := &cobra.Command{
		Use:     "token",
		Short:   "Manage administrators' tokens",
		Long:    "Manage administrators' tokens. Only a hash is stored; a token is shown once, when it is made.",
		Example: "  carpool admin token add ci\n  carpool admin token list",
	}
	token.AddCommand(newTokenAddCommand(a), newTokenListCommand(a), newTokenRemoveCommand(a))
	cmd.AddCommand(token)
	return cmd
}

func newTokenAddCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "add NAME",
		Short:   "Make a token and show it once",
		Long:    "Make a token. It is the only thing on standard output, and it is not shown again.",
		Example: "  carpool admin token add ci\n  CARPOOL_TOKEN=$(carpool admin token add ci 2>/dev/null)",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				token, err := c.CreateToken(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.show(token, func() string { return token.Secret + "\n" }); err != nil || a.output == formatJSON {
					return err
				}
				a.note("token %s added. Keep it now: it is not shown again. To administer from another machine:", token.Name)
				a.note("")
				a.note("  export CARPOOL_URL=%s", a.baseURL())
				a.note("  export CARPOOL_TOKEN=%s", token.Secret)
				return nil
			})
		},
	}
}

func newTokenListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List administrators' tokens",
		Example: "  carpool admin token list",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				tokens, err := c.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(orEmpty(tokens), func() string {
					t := newTable("NAME", "ID", "ADDED", "BY", "LAST USED")
					for _, token := range tokens {
						t.row(token.Name, token.ID, relative(a.now(), token.CreatedAt), token.CreatedBy, a.since(token.LastUsedAt, "never"))
					}
					return t.orNone("There are no tokens. Add one with: carpool admin token add NAME")
				})
			})
		},
	}
}

func newTokenRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a token",
		Example: "  carpool admin token remove ci",
		Aliases: []string{"rm"},
		Args:    arguments("NAME"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove token %s?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.removed("token", args[0])
		})
	}
	return cmd
}

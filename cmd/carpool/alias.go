package main

import (
	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

func newAliasCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "alias",
		Short:   "Manage further names of models",
		Example: "  carpool alias set fast claude-haiku-4-5\n  carpool alias list",
	}
	cmd.AddCommand(newAliasSetCommand(a), newAliasListCommand(a), newAliasRemoveCommand(a))
	return cmd
}

func newAliasSetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "set NAME MODEL",
		Short:   "Make or change an alias",
		Example: "  carpool alias set fast claude-haiku-4-5",
		Args:    arguments("NAME", "MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := policy.AliasSpec{Name: args[0], Model: args[1]}
			if err := spec.Validate(); err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error {
				alias, err := c.SetAlias(cmd.Context(), spec.Name, spec.Model)
				if err != nil {
					return err
				}
				return a.done(alias, "alias %s stands for %s", alias.Name, alias.Model)
			})
		},
	}
}

func newAliasListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List aliases",
		Example: "  carpool alias list",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				aliases, err := c.Aliases(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(orEmpty(aliases), func() string {
					t := newTable("ALIAS", "MODEL")
					for _, alias := range aliases {
						t.row(alias.Name, alias.Model)
					}
					return t.orNone("There are no aliases. Add one with: carpool alias set NAME MODEL")
				})
			})
		},
	}
}

func newAliasRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove an alias",
		Example: "  carpool alias remove fast",
		Aliases: []string{"rm"},
		Args:    arguments("NAME"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove alias %s?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteAlias(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.removed("alias", args[0])
		})
	}
	return cmd
}

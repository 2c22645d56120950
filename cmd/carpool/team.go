package main

import (
	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

func newTeamCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "team",
		Short:   "Manage teams and their limits",
		Example: "  carpool team add platform --tokens-per-minute 2M\n  carpool user set alice --team platform",
	}
	cmd.AddCommand(newTeamAddCommand(a), newTeamListCommand(a), newTeamShowCommand(a), newTeamSetCommand(a), newTeamRemoveCommand(a))
	return cmd
}

func newTeamAddCommand(a *app) *cobra.Command {
	var f limitFlags
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a team",
		Long:    "Add a team. Its limits are for all of its users together.",
		Example: "  carpool team add platform\n  carpool team add contractors --in-flight 32 --tokens-per-minute 2M",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := f.spec()
			if err != nil {
				return err
			}
			spec := policy.TeamSpec{Name: args[0], Limits: limits}
			if err := spec.Validate(); err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error {
				team, err := c.CreateTeam(cmd.Context(), spec)
				if err != nil {
					return err
				}
				return a.done(team, "team %s added", team.Name)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newTeamShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a team with its limits",
		Example: "  carpool team show platform",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				team, err := c.Team(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(team, func() string {
					var f fields
					f.add("Name", team.Name)
					f.add("Users", number(team.Users))
					addLimits(&f, team.Limits)
					f.add("Added", moment(a.now(), team.CreatedAt))
					return f.String()
				})
			})
		},
	}
}

func newTeamSetCommand(a *app) *cobra.Command {
	var f limitFlags
	cmd := &cobra.Command{
		Use:     "set NAME",
		Short:   "Change the limits of a team",
		Long:    "Change the limits of a team, which are for all of its users together. What no flag names stays as it is.",
		Example: "  carpool team set platform --in-flight 64\n  carpool team set platform --tokens-per-minute 0",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := f.patch()
			if err != nil {
				return err
			}
			if limits == nil {
				return nothingToChange(cmd)
			}
			return a.withClient(func(c *control.Client) error {
				team, err := c.UpdateTeam(cmd.Context(), args[0], control.TeamPatch{Limits: limits})
				if err != nil {
					return err
				}
				return a.done(team, "team %s changed", team.Name)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newTeamListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List teams",
		Example: "  carpool team list",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				teams, err := c.Teams(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(orEmpty(teams), func() string {
					t := newTable("NAME", ">USERS", "ADDED")
					for _, team := range teams {
						t.row(team.Name, number(team.Users), relative(a.now(), team.CreatedAt))
					}
					return t.orNone("There are no teams. Add one with: carpool team add NAME")
				})
			})
		},
	}
}

func newTeamRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a team without users",
		Example: "  carpool team remove platform",
		Aliases: []string{"rm"},
		Args:    arguments("NAME"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove team %s?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteTeam(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.removed("team", args[0])
		})
	}
	return cmd
}

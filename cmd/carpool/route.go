package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

func newRouteCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "route",
		Short: "Manage which upstreams serve which models for whom",
		Long: `Manage which upstreams serve which models for whom. Of several routes that fit a request, the one
with the most specific model pattern is used, and among equals one that names the user or team.`,
		Example: "  carpool route add default --upstream main\n  carpool route add opus --model 'claude-opus-*' --upstream big --team platform",
	}
	cmd.AddCommand(newRouteAddCommand(a), newRouteListCommand(a), newRouteShowCommand(a), newRouteSetCommand(a), newRouteRemoveCommand(a))
	return cmd
}

// registerRouteFlags binds the lists that make a route.
func registerRouteFlags(cmd *cobra.Command, spec *policy.RouteSpec) {
	flags := cmd.Flags()
	flags.StringSliceVar(&spec.Upstreams, "upstream", nil, "`NAME` of an upstream that serves the models; may be repeated")
	flags.StringSliceVar(&spec.Models, "model", nil, "model id or `PATTERN` in which * stands for any text; may be repeated (default all)")
	flags.StringSliceVar(&spec.Users, "user", nil, "only for this `USER`; may be repeated; all ends the condition")
	flags.StringSliceVar(&spec.Teams, "team", nil, "only for this `TEAM`; may be repeated; all ends the condition")
}

// routeLists puts empty lists in the place of the word all.
func routeLists(spec *policy.RouteSpec) error {
	return errors.Join(all("model", &spec.Models), all("user", &spec.Users), all("team", &spec.Teams))
}

func newRouteAddCommand(a *app) *cobra.Command {
	var spec policy.RouteSpec
	cmd := &cobra.Command{
		Use:     "add NAME --upstream UPSTREAM",
		Short:   "Add a route",
		Example: "  carpool route add default --upstream main\n  carpool route add trial --upstream second --model 'claude-haiku-*' --user alice",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Name = args[0]
			if err := routeLists(&spec); err != nil {
				return err
			}
			if len(spec.Upstreams) == 0 {
				return usagef("%s needs --upstream NAME: where do the requests go?", shortPath(cmd))
			}
			if err := spec.Validate(); err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error {
				route, err := c.CreateRoute(cmd.Context(), spec)
				if err != nil {
					return err
				}
				return a.done(route, "route %s added", route.Name)
			})
		},
	}
	registerRouteFlags(cmd, &spec)
	return cmd
}

func newRouteListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List routes",
		Example: "  carpool route list",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				routes, err := c.Routes(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(orEmpty(routes), func() string {
					t := newTable("NAME", "MODELS", "UPSTREAMS", "FOR")
					for _, r := range routes {
						t.row(r.Name, routeModels(r), strings.Join(r.Upstreams, ", "), routeAudience(r))
					}
					return t.orNone("There are no routes. Add one with: carpool route add default --upstream NAME")
				})
			})
		},
	}
}

func routeModels(r policy.RouteSpec) string {
	if len(r.Models) == 0 {
		return "*"
	}
	return strings.Join(r.Models, ", ")
}

func routeAudience(r policy.RouteSpec) string {
	var who []string
	for _, u := range r.Users {
		who = append(who, "user "+u)
	}
	for _, t := range r.Teams {
		who = append(who, "team "+t)
	}
	if who == nil {
		return "everybody"
	}
	return strings.Join(who, ", ")
}

func newRouteShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a route",
		Example: "  carpool route show default",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				r, err := c.Route(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(r, func() string {
					var f fields
					f.add("Name", r.Name)
					f.add("Models", routeModels(r))
					f.add("Upstreams", strings.Join(r.Upstreams, ", "))
					f.add("For", routeAudience(r))
					return f.String()
				})
			})
		},
	}
}

func newRouteSetCommand(a *app) *cobra.Command {
	var spec policy.RouteSpec
	cmd := &cobra.Command{
		Use:     "set NAME",
		Short:   "Change a route",
		Long:    "Change a route. A flag replaces the whole list that it is about, and the word all ends the\ncondition; other lists stay.",
		Example: "  carpool route set default --upstream main,second\n  carpool route set opus --user all --team platform",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch control.RoutePatch
			if err := routeLists(&spec); err != nil {
				return err
			}
			if cmd.Flags().Changed("upstream") {
				patch.Upstreams = &spec.Upstreams
			}
			if cmd.Flags().Changed("model") {
				patch.Models = &spec.Models
			}
			if cmd.Flags().Changed("user") {
				patch.Users = &spec.Users
			}
			if cmd.Flags().Changed("team") {
				patch.Teams = &spec.Teams
			}
			if patch == (control.RoutePatch{}) {
				return nothingToChange(cmd)
			}
			return a.withClient(func(c *control.Client) error {
				route, err := c.UpdateRoute(cmd.Context(), args[0], patch)
				if err != nil {
					return err
				}
				return a.done(route, "route %s changed", route.Name)
			})
		},
	}
	registerRouteFlags(cmd, &spec)
	return cmd
}

func newRouteRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a route",
		Example: "  carpool route remove default",
		Aliases: []string{"rm"},
		Args:    arguments("NAME"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove route %s?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteRoute(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.removed("route", args[0])
		})
	}
	return cmd
}

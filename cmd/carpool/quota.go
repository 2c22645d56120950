package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
)

func newQuotaCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "quota",
		Short:   "Show, change and reset users' token quotas",
		Example: "  carpool quota show alice\n  carpool quota set alice --daily 5M\n  carpool quota reset alice --window daily",
	}
	cmd.AddCommand(newQuotaShowCommand(a), newQuotaListCommand(a), newQuotaSetCommand(a), newQuotaResetCommand(a))
	return cmd
}

func newQuotaShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show USER",
		Short:   "Show a user's quota and what is left of it",
		Example: "  carpool quota show alice",
		Args:    arguments("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				q, err := c.Quota(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(q, func() string {
					t := newTable("WINDOW", ">LIMIT", ">USED", ">RESERVED", ">LEFT", ">USED %", "RESETS")
					row := func(name string, w fleet.WindowUsage) {
						t.row(name, amount(w.Limit), number(w.Used), number(w.Reserved), amount(w.Remaining), percentUsed(w), relative(a.now(), w.ResetsAt))
					}
					row("daily", q.Daily)
					row("monthly", q.Monthly)
					return t.String()
				})
			})
		},
	}
}

// percentUsed is the used part of a window, or nothing where there is no limit.
func percentUsed(w fleet.WindowUsage) string {
	switch w.Limit {
	case policy.Unlimited:
		return ""
	case 0:
		return "100%"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(w.Used)/float64(w.Limit))
}

func newQuotaListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List all users' quotas",
		Example: "  carpool quota list",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				quotas, err := c.Quotas(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(orEmpty(quotas), func() string {
					t := newTable("USER", ">TODAY", ">DAILY", ">LEFT", ">MONTH", ">MONTHLY", ">LEFT")
					for _, q := range quotas {
						t.row(q.User, number(q.Daily.Used), amount(q.Daily.Limit), amount(q.Daily.Remaining),
							number(q.Monthly.Used), amount(q.Monthly.Limit), amount(q.Monthly.Remaining))
					}
					return t.orNone("There are no users. Add one with: carpool user add NAME")
				})
			})
		},
	}
}

func newQuotaSetCommand(a *app) *cobra.Command {
	var f userFlags
	cmd := &cobra.Command{
		Use:     "set USER",
		Short:   "Change a user's quota",
		Long:    "Change a user's quota. What was used stays used; a window that no flag names stays as it is.",
		Example: "  carpool quota set alice --daily 2M --monthly 40M\n  carpool quota set alice --daily unlimited --monthly default",
		Args:    arguments("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch := control.UserPatch{Quota: f.quotaPatch()}
			if patch.Quota == nil {
				return nothingToChange(cmd)
			}
			return a.withClient(func(c *control.Client) error {
				user, err := c.UpdateUser(cmd.Context(), args[0], patch)
				if err != nil {
					return err
				}
				return a.done(user, "quota of %s: %s a day, %s a month", user.Name, amount(user.Quota.Daily), amount(user.Quota.Monthly))
			})
		},
	}
	f.registerQuota(cmd)
	return cmd
}

func newQuotaResetCommand(a *app) *cobra.Command {
	var window string
	var all bool
	cmd := &cobra.Command{
		Use:     "reset USER",
		Short:   "Set what a user has used of the quota to nothing",
		Long:    "Set what a user, or every user, has used in the current windows to nothing. The books keep what was used.",
		Example: "  carpool quota reset alice\n  carpool quota reset alice --window daily\n  carpool quota reset --all",
		Args:    arguments("[USER]"),
	}
	yes := yesFlag(cmd)
	cmd.Flags().StringVar(&window, "window", "all", "`WINDOW` to reset: daily, monthly or all")
	cmd.Flags().BoolVar(&all, "all", false, "reset every user")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		user := ""
		switch {
		case len(args) == 0 && !all:
			return usagef("%s needs USER, or --all for every user", shortPath(cmd))
		case len(args) > 0 && all:
			return usagef("%s takes USER or --all, not both", shortPath(cmd))
		case len(args) > 0:
			user = args[0]
		}
		if !slices.Contains([]string{"daily", "monthly", "all"}, window) {
			return usagef("the flag --window does not take %q: it is daily, monthly or all", window)
		}
		return a.withClient(func(c *control.Client) error {
			if all {
				if err := a.confirm(cmd, *yes, "Reset the quota windows of every user?"); err != nil {
					return err
				}
			}
			if all {
				result, err := c.ResetQuotas(cmd.Context(), window)
				if err != nil {
					return err
				}
				return a.done(result, "quota of %s users reset", number(len(result.Reset)))
			}
			result, err := c.ResetQuota(cmd.Context(), user, window)
			if err != nil {
				return err
			}
			return a.done(result, "quota of %s reset", user)
		})
	}
	return cmd
}

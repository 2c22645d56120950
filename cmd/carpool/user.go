package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

func newUserCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "user",
		Short:   "Manage users, their quotas and limits",
		Example: "  carpool user add alice --team platform --daily 2M --monthly 40M\n  carpool user list",
	}
	cmd.AddCommand(newUserAddCommand(a), newUserListCommand(a), newUserShowCommand(a), newUserSetCommand(a),
		newUserSwitchCommand(a, "disable", "Refuse all keys of a user", true),
		newUserSwitchCommand(a, "enable", "Accept the keys of a user again", false),
		newUserRemoveCommand(a))
	return cmd
}

// userFlags are the properties of a user that add and set have in common.
type userFlags struct {
	team           string
	daily, monthly tokensFlag
	limits         limitFlags
}

func (f *userFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.team, "team", "", "`TEAM` of the user, made when it does not exist")
	f.registerQuota(cmd)
	f.limits.register(cmd)
}

func (f *userFlags) registerQuota(cmd *cobra.Command) {
	cmd.Flags().Var(&f.daily, "daily", "quota a calendar day in `TOKENS`: 500000, 40k, 2M, unlimited or default")
	cmd.Flags().Var(&f.monthly, "monthly", "quota a calendar month in `TOKENS`, in the same forms")
}

// quotaPatch is the change to the quota, or nil when no flag asks for one.
func (f *userFlags) quotaPatch() *control.QuotaPatch {
	if !f.daily.set && !f.monthly.set {
		return nil
	}
	return &control.QuotaPatch{Daily: f.daily.change(), Monthly: f.monthly.change()}
}

func newUserAddCommand(a *app) *cobra.Command {
	var f userFlags
	var disabled bool
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a user",
		Long:    "Add a user. What is not given follows the server's defaults. The user needs a key next: see 'carpool key add'.",
		Example: "  carpool user add alice\n  carpool user add bob --team platform --daily 2M --monthly unlimited --in-flight 8",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := f.limits.spec()
			if err != nil {
				return err
			}
			spec := policy.UserSpec{Name: args[0], Team: f.team, Disabled: disabled, Limits: limits}
			if f.daily.value != nil || f.monthly.value != nil {
				spec.Quota = &policy.QuotaSpec{Daily: f.daily.value, Monthly: f.monthly.value}
			}
			if err := spec.Validate(); err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error {
				user, err := c.CreateUser(cmd.Context(), spec)
				if err != nil {
					return err
				}
				return a.done(user, "user %s added", user.Name)
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&disabled, "disabled", false, "refuse the user's keys until 'carpool user enable'")
	return cmd
}

func newUserListCommand(a *app) *cobra.Command {
	var team string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List users with what they used of their quotas",
		Example: "  carpool user list\n  carpool user list --team platform --output json",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				all, err := c.Users(cmd.Context(), true)
				if err != nil {
					return err
				}
				users := []control.User{}
				for _, u := range all {
					if team == "" || u.Team == team {
						users = append(users, u)
					}
				}
				return a.show(users, func() string { return userTable(users) })
			})
		},
	}
	cmd.Flags().StringVar(&team, "team", "", "only users of this `TEAM`")
	return cmd
}

func userTable(users []control.User) string {
	t := newTable("NAME", "TEAM", "STATUS", ">KEYS", ">TODAY", ">DAILY", ">MONTH", ">MONTHLY")
	for _, u := range users {
		today, month := "", ""
		if u.Usage != nil {
			today, month = number(u.Usage.Daily.Used), number(u.Usage.Monthly.Used)
		}
		t.row(u.Name, u.Team, status(u.Disabled), number(u.Keys), today, amount(u.Quota.Daily), month, amount(u.Quota.Monthly))
	}
	return t.orNone("There are no users. Add one with: carpool user add NAME")
}

func status(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "active"
}

func newUserShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a user with quota and keys",
		Example: "  carpool user show alice",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				user, err := c.User(cmd.Context(), args[0], true)
				if err != nil {
					return err
				}
				keys, err := c.Keys(cmd.Context(), user.Name)
				if err != nil {
					return err
				}
				shown := struct {
					control.User
					KeyList []control.Key `json:"keyList"`
				}{user, orEmpty(keys)}
				return a.show(shown, func() string { return a.userDetails(user, keys) })
			})
		},
	}
}

func (a *app) userDetails(u control.User, keys []control.Key) string {
	var f fields
	f.add("Name", u.Name)
	f.add("Team", u.Team)
	f.add("Status", status(u.Disabled))
	f.add("Daily quota", a.quotaLine(u.Quota.Daily, u.OwnQuota.Daily == nil, u.Usage != nil, func() (int64, int64, string) {
		return u.Usage.Daily.Used, u.Usage.Daily.Remaining, relative(a.now(), u.Usage.Daily.ResetsAt)
	}))
	f.add("Monthly quota", a.quotaLine(u.Quota.Monthly, u.OwnQuota.Monthly == nil, u.Usage != nil, func() (int64, int64, string) {
		return u.Usage.Monthly.Used, u.Usage.Monthly.Remaining, relative(a.now(), u.Usage.Monthly.ResetsAt)
	}))
	addLimits(&f, u.Limits)
	f.add("Added", moment(a.now(), u.CreatedAt))
	if len(keys) == 0 {
		f.add("Keys", "none; add one with: carpool key add NAME --user "+u.Name)
		return f.String()
	}
	return f.String() + "\n" + a.keyTable(keys)
}

// quotaLine is one window in a line: what is used of it, what is left, and when it starts anew.
func (a *app) quotaLine(limit int64, byDefault, known bool, usage func() (used, remaining int64, resets string)) string {
	text := amount(limit)
	if byDefault {
		text += " (default)"
	}
	if !known {
		return text
	}
	used, remaining, resets := usage()
	text += fmt.Sprintf(", %s used", number(used))
	if limit != policy.Unlimited {
		text += fmt.Sprintf(", %s left", number(remaining))
	}
	return text + ", resets " + resets
}

func newUserSetCommand(a *app) *cobra.Command {
	var f userFlags
	var noTeam bool
	cmd := &cobra.Command{
		Use:     "set NAME",
		Short:   "Change a user",
		Long:    "Change a user. What no flag names stays as it is.",
		Example: "  carpool user set alice --daily 5M\n  carpool user set alice --daily default --no-team",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := f.limits.patch()
			if err != nil {
				return err
			}
			patch := control.UserPatch{Quota: f.quotaPatch(), Limits: limits}
			if cmd.Flags().Changed("team") || noTeam {
				if noTeam && f.team != "" {
					return usagef("give one of --team and --no-team")
				}
				patch.Team = &f.team
			}
			if patch == (control.UserPatch{}) {
				return nothingToChange(cmd)
			}
			return a.withClient(func(c *control.Client) error {
				user, err := c.UpdateUser(cmd.Context(), args[0], patch)
				if err != nil {
					return err
				}
				return a.done(user, "user %s changed", user.Name)
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&noTeam, "no-team", false, "take the user out of the team")
	return cmd
}

func nothingToChange(cmd *cobra.Command) error {
	return usagef("%s needs a flag that says what to change; see '%s --help'", shortPath(cmd), cmd.CommandPath())
}

func newUserSwitchCommand(a *app, verb, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " NAME",
		Short:   short,
		Example: "  carpool user " + verb + " alice",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				user, err := c.UpdateUser(cmd.Context(), args[0], control.UserPatch{Disabled: &disabled})
				if err != nil {
					return err
				}
				return a.done(user, "user %s %sd", user.Name, verb)
			})
		},
	}
}

func newUserRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a user and its keys",
		Long: `Remove a user and its keys. What the user has used stays in the books, which go by name: a new user
of this name shows it as its own. Its quota begins with nothing used.`,
		Example: "  carpool user remove alice\n  carpool user remove alice --yes",
		Aliases: []string{"rm"},
		Args:    arguments("NAME"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove user %s with all its keys?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteUser(cmd.Context(), args[0]); err != nil {
				return err
			}
			a.note("What %s used stays in the books under this name; the quota of a new user of this name begins with nothing used.", args[0])
			return a.removed("user", args[0])
		})
	}
	return cmd
}

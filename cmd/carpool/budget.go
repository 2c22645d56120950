package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

func newBudgetCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "budget",
		Short: "Manage budgets of the organization, teams, users and keys",
		Long: `Manage budgets: amounts of dollars or tokens for a window of time, of the organization, a team, a user or a key.
A request must fit into all budgets that concern it.`,
		Example: "  carpool budget add alice-day --scope user/alice --amount '5 USD' --window day --mode strict\n  carpool budget list",
	}
	cmd.AddCommand(newBudgetAddCommand(a), newBudgetListCommand(a), newBudgetShowCommand(a), newBudgetSetCommand(a), newBudgetRemoveCommand(a))
	return cmd
}

// budgetFlags are a budget's properties.
type budgetFlags struct{ spec policy.BudgetSpec }

// registerClearable adds the flags of which some take an empty text to put back the default.
func (f *budgetFlags) registerClearable(cmd *cobra.Command) {
	f.register(cmd)
	for name, cleared := range map[string]string{
		"time-zone": "'' puts it back", "warn-at": "'' puts them back", "overdraft": "'' takes it away", "message": "'' takes it away",
	} {
		flag := cmd.Flags().Lookup(name)
		flag.Usage += "; " + cleared
		flag.Annotations = map[string][]string{clearableAnnotation: {"true"}}
	}
}

func (f *budgetFlags) register(cmd *cobra.Command) {
	flags, s := cmd.Flags(), &f.spec
	flags.StringVar(&s.Scope, "scope", "", "whose it is, a `SCOPE`: organization, team/NAME, user/NAME or key/NAME")
	flags.StringVar(&s.Amount, "amount", "", "how much, an `AMOUNT`: '5 USD', '0.25 USD', '2M tokens'")
	flags.StringVar(&s.Window, "window", "", "for what time, a `WINDOW`: hour, day, week, month, lifetime, '14 days'")
	flags.StringVar(&s.Mode, "mode", "", "what a request reserves: `MODE` strict is the most that it can cost, fair what it will probably cost")
	flags.StringVar(&s.TimeZone, "time-zone", "", "`ZONE` of the calendar, like Europe/Berlin; default is the server's")
	flags.BoolVar(&s.Rolling, "rolling", false, "the window is the time of that length that ends now")
	flags.Var(&percentsFlag{list: &s.WarnAt}, "warn-at", "`PERCENTAGES` of the amount at which is warned; default 75,95")
	flags.BoolVar(&s.Soft, "soft", false, "only warn, and refuse nothing")
	flags.StringVar(&s.Overdraft, "overdraft", "", "how much more than the amount is admitted, an `AMOUNT`")
	flags.BoolVar(&s.PerMember, "per-member", false, "each user of the team has the amount, instead of all together")
	flags.StringVar(&s.Message, "message", "", "`TEXT` at the end of refusals: whom to ask for more")
}

// checkMode says what both commands take; for one of them the server would speak of its JSON.
func (f *budgetFlags) checkMode() error {
	switch f.spec.Mode {
	case "", policy.ModeStrict, policy.ModeFair:
		return nil
	}
	return usagef("the flag --mode does not take %q: it is one of %s, %s", f.spec.Mode, policy.ModeStrict, policy.ModeFair)
}

// termsOf is a budget in a few words.
func termsOf(b control.Budget) string {
	scope := b.Scope
	if b.PerMember {
		scope = "each member of " + scope
	}
	if b.Window == string(quota.Lifetime) {
		return fmt.Sprintf("%s in all for %s", b.Amount, scope)
	}
	return fmt.Sprintf("%s per %s for %s", b.Amount, windowOf(b), scope)
}

func newBudgetAddCommand(a *app) *cobra.Command {
	var f budgetFlags
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a budget",
		Example: "  carpool budget add alice-day --scope user/alice --amount '5 USD' --window day --mode strict\n" +
			"  carpool budget add platform --scope team/platform --amount '2000 USD' --window month --time-zone Europe/Berlin\n" +
			"  carpool budget add each --scope team/platform --per-member --amount '2000000 tokens' --window day --rolling",
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.spec.Name = args[0]
			if err := f.checkMode(); err != nil {
				return err
			}
			if err := f.spec.Validate(); err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error {
				b, err := c.CreateBudget(cmd.Context(), f.spec)
				if err != nil {
					return err
				}
				return a.done(b, "budget %s added: %s", b.Name, termsOf(b))
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newBudgetListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List budgets and what is left of them",
		Long:    "List budgets and what is left of them: of the amount and the overdraft, what is neither used nor reserved by running requests.",
		Example: "  carpool budget list",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				budgets, err := c.Budgets(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(orEmpty(budgets), func() string { return a.budgetTable(budgets) })
			})
		},
	}
}

func (a *app) budgetTable(budgets []control.Budget) string {
	t := newTable("NAME", "OF", "WINDOW", "MODE", ">AMOUNT", ">OVERDRAFT", ">USED", ">RESERVED", ">LEFT", "RESETS")
	overdraft := false
	for _, b := range budgets {
		overdraft = overdraft || b.Overdraft != ""
		if len(b.State) == 0 {
			t.row(b.Name, b.Scope, windowOf(b), modeOf(b), amountOf(b.Amount), amountOf(b.Overdraft), "", "", "", "")
		}
		for _, s := range b.State {
			t.row(append([]string{b.Name, s.Subject, windowOf(b), modeOf(b)}, a.amounts(b, s)...)...)
		}
	}
	if !overdraft {
		t.leaveOut("OVERDRAFT")
	}
	return a.narrow(t, "RESERVED", "MODE", "RESETS", "WINDOW", "OF").
		orNone("There are no budgets. Add one with: carpool budget add NAME --scope user/NAME --amount '5 USD' --window day")
}

// windowOf is a budget's window in the words for it, however it was written.
func windowOf(b control.Budget) string {
	window := b.Window
	if span, err := quota.ParseSpan(window); err == nil {
		window = span.String()
	}
	if b.Rolling {
		window += ", rolling"
	}
	return window
}

func modeOf(b control.Budget) string {
	if b.Soft {
		return "soft"
	}
	return b.Mode
}

// amounts are the cells of a budget's state: amount, overdraft, used, reserved, left of both, resets.
func (a *app) amounts(b control.Budget, s control.BudgetState) []string {
	of := func(n int64) string { return formatAmount(n, policy.Unit(s.Unit)) }
	resets := ""
	switch {
	case s.ResetsAt != nil:
		resets = relative(a.now(), *s.ResetsAt)
	case !b.Rolling:
		resets = "never"
	}
	return []string{of(s.Amount), amountOf(b.Overdraft), of(s.Used), of(s.Reserved), of(s.Remaining), resets}
}

// amountOf is an amount as it is shown, however it was written.
func amountOf(text string) string {
	n, unit, err := policy.ParseAmount(text)
	if err != nil {
		return text
	}
	return formatAmount(n, unit)
}

func formatAmount(n int64, unit policy.Unit) string {
	if unit == policy.Tokens {
		return number(n) + " tokens"
	}
	return policy.FormatAmount(n, unit)
}

func newBudgetShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a budget and what is left of it",
		Example: "  carpool budget show alice-day",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				b, err := c.Budget(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(b, func() string { return a.budgetText(b) })
			})
		},
	}
}

func (a *app) budgetText(b control.Budget) string {
	var f fields
	f.add("Name", b.Name)
	scope := b.Scope
	if b.PerMember {
		scope += ", each member"
	}
	f.add("Scope", scope)
	f.add("Amount", b.Amount)
	f.add("Window", windowOf(b))
	f.add("Mode", modeOf(b))
	for _, part := range [][2]string{{"Time zone", b.TimeZone}, {"Overdraft", b.Overdraft}, {"Warns at", percentages(b.WarnAt)}, {"Message", b.Message}} {
		if part[1] != "" {
			f.add(part[0], part[1])
		}
	}
	if len(b.State) == 0 {
		return f.String()
	}
	t := newTable("OF", ">AMOUNT", ">OVERDRAFT", ">USED", ">RESERVED", ">LEFT", "RESETS")
	for _, s := range b.State {
		t.row(append([]string{s.Subject}, a.amounts(b, s)...)...)
	}
	if b.Overdraft == "" {
		t.leaveOut("OVERDRAFT")
	}
	return f.String() + "\n" + a.narrow(t, "RESERVED", "RESETS").String()
}

func percentages(of []int) string {
	var parts []string
	for _, p := range of {
		parts = append(parts, strconv.Itoa(p)+"%")
	}
	return strings.Join(parts, ", ")
}

func newBudgetSetCommand(a *app) *cobra.Command {
	var f budgetFlags
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a budget",
		Long: `Change a budget. What no flag names stays as it is, and '' clears a message, an overdraft, a time zone or thresholds.
What was used stays used, unless the scope, the unit or the window is changed: then nothing is.`,
		Example: "  carpool budget set alice-day --amount '8 USD'\n  carpool budget set alice-day --mode fair --overdraft '1 USD'\n  carpool budget set alice-day --message ''",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.checkMode(); err != nil {
				return err
			}
			patch, changes := f.patch(cmd)
			if !changes {
				return nothingToChange(cmd)
			}
			return a.withClient(func(c *control.Client) error {
				b, err := c.UpdateBudget(cmd.Context(), args[0], patch)
				if err != nil {
					return err
				}
				return a.done(b, "budget %s changed: %s", b.Name, termsOf(b))
			})
		},
	}
	f.registerClearable(cmd)
	return cmd
}

// patch returns the change that the flags ask for.
func (f *budgetFlags) patch(cmd *cobra.Command) (p control.BudgetPatch, changes bool) {
	given := cmd.Flags().Changed
	s := &f.spec
	for _, text := range []struct {
		flag  string
		to    **string
		value *string
	}{
		{"scope", &p.Scope, &s.Scope},
		{"amount", &p.Amount, &s.Amount},
		{"window", &p.Window, &s.Window},
		{"mode", &p.Mode, &s.Mode},
		{"time-zone", &p.TimeZone, &s.TimeZone},
		{"overdraft", &p.Overdraft, &s.Overdraft},
		{"message", &p.Message, &s.Message},
	} {
		if given(text.flag) {
			*text.to, changes = text.value, true
		}
	}
	for _, truth := range []struct {
		flag  string
		to    **bool
		value *bool
	}{{"rolling", &p.Rolling, &s.Rolling}, {"soft", &p.Soft, &s.Soft}, {"per-member", &p.PerMember, &s.PerMember}} {
		if given(truth.flag) {
			*truth.to, changes = truth.value, true
		}
	}
	if given("warn-at") {
		p.WarnAt, changes = &s.WarnAt, true
	}
	return p, changes
}

func newBudgetRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a budget",
		Example: "  carpool budget remove alice-day",
		Aliases: []string{"rm"},
		Args:    arguments("NAME"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove budget %s? What it bounds is bounded no longer.", args[0]); err != nil {
				return err
			}
			if err := c.DeleteBudget(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.removed("budget", args[0])
		})
	}
	return cmd
}

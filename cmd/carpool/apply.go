package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"carpool/internal/control"
)

func newApplyCommand(a *app) *cobra.Command {
	var files []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make upstreams, routes, users, keys and budgets as files say",
		Long: `Make teams, upstreams, aliases, routes, users, keys and budgets as files say, all of them or none.
Applying the same again changes nothing, and what the files do not name is left alone.
A route and a budget are replaced as a whole: what the files leave out of them is at its default.

Credentials named by apiKeyEnv and apiKeyFile are read here, not on the server. A key
without a text is generated when it does not exist yet and printed this once.`,
		Example: `  carpool apply -f team.yaml --dry-run
  carpool apply -f upstreams.yaml -f users.yaml
  carpool apply -f - <<END
  upstreams:
    - {name: main, baseUrl: https://api.anthropic.com, apiKeyEnv: ANTHROPIC_API_KEY}
  routes:
    - {name: default, models: ["*"], upstreams: [main]}
  users:
    - {name: alice, team: platform, quota: {daily: 2000000, monthly: 40000000}}
  keys:
    - {name: alice-laptop, user: alice}
  budgets:
    - {name: alice-day, scope: user/alice, amount: 5 USD, window: day}
  END`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("%s needs -f FILE; '-' is standard input", shortPath(cmd))
			}
			resources, err := interruptible(cmd.Context(), func() (declared, error) { return a.readResources(files) })
			if err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error {
				result, err := c.Apply(cmd.Context(), resources.Resources, dryRun)
				if err != nil {
					return refusedAt(resources, err)
				}
				return a.showApplied(result)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "`FILE` to apply, YAML or JSON; '-' is standard input; may be repeated")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change")
	return cmd
}

// readResources reads files into one set and resolves the credentials that they name.
func (a *app) readResources(files []string) (all declared, err error) {
	for _, name := range files {
		data, err := a.readInput(name)
		if err != nil {
			return all, err
		}
		one, err := parseResources(displayName(name), data)
		if err != nil {
			return all, err
		}
		all.add(one)
	}
	if err := all.Validate(); err != nil {
		return all, all.at(err)
	}
	if all.Resources, err = all.ResolveSecrets(a.getenv, os.ReadFile); err != nil {
		return all, all.at(err)
	}
	return all, nil
}

// refusedAt says where in the files is what a server refuses; other errors are not about them.
func refusedAt(resources declared, err error) error {
	refused, ok := errors.AsType[*control.APIError](err)
	if ok && slices.Contains([]int{http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity}, refused.Status) {
		return resources.at(err)
	}
	return err
}

func (a *app) showApplied(result control.ApplyResult) error {
	generated := false
	human := func() string {
		var out strings.Builder
		counts := map[string]int{}
		would := ""
		if result.DryRun {
			would = "would be "
		}
		for _, change := range result.Changes {
			counts[change.Action]++
			if change.Action == control.ActionUnchanged {
				continue
			}
			fmt.Fprintf(&out, "%s %s %s%s", change.Kind, change.Name, would, change.Action)
			if change.Key != "" {
				generated = true
				out.WriteString(": " + change.Key)
			}
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "%d created, %d updated, %d unchanged", counts[control.ActionCreated], counts[control.ActionUpdated], counts[control.ActionUnchanged])
		if result.DryRun {
			out.WriteString(" (dry run: nothing was changed)")
		}
		return out.String() + "\n"
	}
	if err := a.show(result, human); err != nil {
		return err
	}
	if generated {
		a.note("Keep the keys now: they are not shown again.")
	}
	return nil
}

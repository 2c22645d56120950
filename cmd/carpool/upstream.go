package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

func newUpstreamCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "upstream",
		Short:   "Manage provider endpoints and their credentials",
		Example: "  carpool upstream add main --api-key-env ANTHROPIC_API_KEY\n  carpool upstream set main --weight 3",
	}
	cmd.AddCommand(newUpstreamAddCommand(a), newUpstreamListCommand(a), newUpstreamShowCommand(a), newUpstreamSetCommand(a),
		newUpstreamSwitchCommand(a, "disable", "Send an upstream no more requests", true),
		newUpstreamSwitchCommand(a, "enable", "Send requests to a disabled upstream again", false),
		newUpstreamRemoveCommand(a))
	return cmd
}

// upstreamFlags are the properties of an upstream that add and set have in common.
type upstreamFlags struct {
	spec      policy.UpstreamSpec
	fromStdin bool
	models    []string
}

func (f *upstreamFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.spec.BaseURL, "base-url", "", "`URL` of the endpoint without /v1, like "+policy.DefaultBaseURL)
	flags.StringVar(&f.spec.APIKeyEnv, "api-key-env", "", "environment `VARIABLE` here that holds the credential")
	flags.StringVar(&f.spec.APIKeyFile, "api-key-file", "", "`FILE` here that holds the credential")
	flags.BoolVar(&f.fromStdin, "api-key-stdin", false, "read the credential from standard input")
	flags.StringVar(&f.spec.APIKey, "api-key", "", "the credential itself, a `KEY` that others can see in the process list")
	flags.StringVar(&f.spec.Auth, "auth", "", "`HEADER` that carries the credential: x-api-key or bearer")
	flags.IntVar(&f.spec.Weight, "weight", 0, "share of the requests among upstreams of the same priority, a `NUMBER` from 1 on")
	flags.IntVar(&f.spec.Priority, "priority", 0, "lower is used first, a `NUMBER`")
	flags.IntVar(&f.spec.MaxInFlight, "max-in-flight", 0, "requests at the same time, a `NUMBER`; more wait briefly or go elsewhere; 0 is no cap")
	flags.StringArrayVar(&f.models, "model", nil, "`ASKED=SENT`: the upstream knows a model by another name; may be repeated")
}

// complete reads the credential and the models and checks everything. What no flag names stays empty.
func (f *upstreamFlags) complete(a *app, cmd *cobra.Command, name string) (policy.UpstreamSpec, error) {
	spec := f.spec
	spec.Name = name
	given := 0
	for _, flag := range []string{"api-key-env", "api-key-file", "api-key-stdin", "api-key"} {
		if cmd.Flags().Changed(flag) {
			given++
		}
	}
	if given > 1 {
		return spec, usagef("give one of --api-key-env, --api-key-file, --api-key-stdin and --api-key")
	}
	if cmd.Flags().Changed("weight") && spec.Weight < 1 {
		return spec, usagef("the flag --weight must be 1 or more; to send no requests use: carpool upstream disable %s", name)
	}
	if spec.MaxInFlight < 0 {
		return spec, usagef("the flag --max-in-flight does not take %d: it must not be negative; 0 is no cap", spec.MaxInFlight)
	}
	var err error
	if spec.Models, err = f.modelMap(); err != nil {
		return spec, err
	}
	if err := f.readCredential(cmd.Context(), a, &spec); err != nil {
		return spec, err
	}
	if given > 0 && spec.APIKey == "" {
		return spec, usagef("the credential is empty")
	}
	return spec, spec.Validate()
}

func (f *upstreamFlags) modelMap() (map[string]string, error) {
	if len(f.models) == 0 {
		return nil, nil
	}
	models := make(map[string]string, len(f.models))
	for _, pair := range f.models {
		asked, sent, err := splitPair(pair, "ASKED=SENT (--model)")
		if err != nil {
			return nil, err
		}
		models[asked] = sent
	}
	return models, nil
}

func (f *upstreamFlags) readCredential(ctx context.Context, a *app, spec *policy.UpstreamSpec) (err error) {
	switch {
	case f.fromStdin:
		spec.APIKey, err = a.readSecret(ctx, "the credential")
	case spec.APIKeyEnv != "":
		value, ok := a.getenv(spec.APIKeyEnv)
		if spec.APIKey = strings.TrimSpace(value); spec.APIKey == "" {
			return missingVariable(spec.APIKeyEnv, ok)
		}
	case spec.APIKeyFile != "":
		data, err := os.ReadFile(spec.APIKeyFile)
		if err != nil {
			return plainFileError(err)
		}
		if spec.APIKey = strings.TrimSpace(string(data)); spec.APIKey == "" {
			return fmt.Errorf("the file %s is empty: it should hold the credential", spec.APIKeyFile)
		}
	case spec.APIKey != "":
		a.note("carpool: warning: a credential after --api-key is visible in the process list and the shell's history; prefer --api-key-env, --api-key-file or --api-key-stdin")
	}
	spec.APIKeyEnv, spec.APIKeyFile = "", ""
	return err
}

func missingVariable(name string, set bool) error {
	if set {
		return fmt.Errorf("the environment variable %s is empty: it should hold the credential", name)
	}
	return fmt.Errorf("the environment variable %s is not set: export it, or use --api-key-file or --api-key-stdin", name)
}

func newUpstreamAddCommand(a *app) *cobra.Command {
	var f upstreamFlags
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add an upstream",
		Long: `Add an upstream: a provider endpoint with one credential. The credential is sent to the server,
stored encrypted and never shown again. Requests reach an upstream through a route: see 'carpool route add'.

Without further flags it is ` + policy.DefaultBaseURL + ` with the header x-api-key, weight 1, priority 0.`,
		Example: `  carpool upstream add main --api-key-env ANTHROPIC_API_KEY
  carpool upstream add proxy --base-url https://llm.example.com --api-key-file key.txt --auth bearer --priority 1
  pass show anthropic | carpool upstream add second --api-key-stdin --model claude-opus-4-1=opus-internal`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.complete(a, cmd, args[0])
			if err != nil {
				return err
			}
			if spec.APIKey == "" {
				return usagef("%s needs a credential: give --api-key-env VARIABLE, --api-key-file FILE or --api-key-stdin", shortPath(cmd))
			}
			return a.withClient(func(c *control.Client) error {
				upstream, err := c.CreateUpstream(cmd.Context(), spec)
				if err != nil {
					return err
				}
				if err := a.done(upstream, "upstream %s added", upstream.Name); err != nil {
					return err
				}
				return a.hintRoute(cmd, c, upstream.Name)
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.spec.Provider, "provider", policy.ProviderAnthropic, "`DIALECT` of the endpoint")
	cmd.Flags().BoolVar(&f.spec.Disabled, "disabled", false, "send it no requests until 'carpool upstream enable'")
	return cmd
}

// hintRoute says what is missing when no route leads to a new upstream. Being unable to say it is no error.
func (a *app) hintRoute(cmd *cobra.Command, c *control.Client, name string) error {
	routes, err := c.Routes(cmd.Context())
	if err == nil && len(routes) == 0 {
		a.note("No route leads to it yet. For all models: carpool route add default --upstream %s", name)
	}
	return nil
}

func newUpstreamListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List upstreams",
		Example: "  carpool upstream list",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				upstreams, err := c.Upstreams(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(orEmpty(upstreams), func() string {
					t := newTable("NAME", "PROVIDER", "BASE URL", "CREDENTIAL", ">PRIORITY", ">WEIGHT", ">IN FLIGHT", "STATUS", "HEALTH")
					for _, u := range upstreams {
						t.row(u.Name, u.Provider, u.BaseURL, u.Credential, number(u.Priority), number(u.Weight), limit(int64(u.MaxInFlight)), status(u.Disabled), healthText(u))
					}
					return a.narrow(t, "IN FLIGHT", "PROVIDER", "WEIGHT", "PRIORITY", "CREDENTIAL").orNone("There are no upstreams. Add one with: carpool upstream add NAME --api-key-env ANTHROPIC_API_KEY")
				})
			})
		},
	}
}

func newUpstreamShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show an upstream; never its credential",
		Example: "  carpool upstream show main",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				u, err := c.Upstream(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(u, func() string { return a.upstreamDetails(u) })
			})
		},
	}
}

// healthText says whether an upstream is asked, or why it or a model of it is not and for how long; "" when nobody knows.
func healthText(u control.Upstream) string {
	if u.Health != control.HealthCooling {
		return u.Health
	}
	causes := make([]string, 0, len(u.Cooling))
	for _, c := range u.Cooling {
		text := fmt.Sprintf("%s %ds", c.Cause, c.Seconds)
		if c.Model != "" {
			text += " (" + c.Model + ")"
		}
		causes = append(causes, text)
	}
	return u.Health + ": " + strings.Join(causes, ", ")
}

func (a *app) upstreamDetails(u control.Upstream) string {
	var f fields
	f.add("Name", u.Name)
	f.add("Provider", u.Provider)
	f.add("Base URL", u.BaseURL)
	f.add("Credential", u.Credential+" as "+u.Auth)
	f.add("Priority", number(u.Priority))
	f.add("Weight", number(u.Weight))
	f.add("Requests at once", limit(int64(u.MaxInFlight)))
	f.add("Status", status(u.Disabled))
	if !u.Disabled {
		f.add("Health", cmp.Or(healthText(u), "not known"))
	}
	f.add("Added", moment(a.now(), u.CreatedAt))
	f.add("Changed", moment(a.now(), u.UpdatedAt))
	for _, asked := range slices.Sorted(maps.Keys(u.Models)) {
		f.add("Model", asked+" is sent as "+u.Models[asked])
	}
	return f.String()
}

func newUpstreamSetCommand(a *app) *cobra.Command {
	var f upstreamFlags
	var noModels bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change an upstream",
		Long:  "Change an upstream. What no flag names stays as it is; --model replaces all model names.",
		Example: `  carpool upstream set main --api-key-env NEW_ANTHROPIC_API_KEY
  carpool upstream set main --weight 3 --priority 1
  carpool upstream set main --no-models`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.complete(a, cmd, args[0])
			if err != nil {
				return err
			}
			if noModels && spec.Models != nil {
				return usagef("give one of --model and --no-models")
			}
			patch, err := upstreamPatch(cmd, &spec, noModels)
			if err != nil {
				return err
			}
			return a.changeUpstream(cmd, args[0], patch, "changed")
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&noModels, "no-models", false, "send all model names unchanged")
	return cmd
}

func upstreamPatch(cmd *cobra.Command, spec *policy.UpstreamSpec, noModels bool) (control.UpstreamPatch, error) {
	var patch control.UpstreamPatch
	changed := cmd.Flags().Changed
	if changed("base-url") {
		patch.BaseURL = &spec.BaseURL
	}
	if spec.APIKey != "" {
		patch.APIKey = &spec.APIKey
	}
	if changed("auth") {
		patch.Auth = &spec.Auth
	}
	if changed("weight") {
		patch.Weight = &spec.Weight
	}
	if changed("priority") {
		patch.Priority = &spec.Priority
	}
	if changed("max-in-flight") {
		patch.MaxInFlight = &spec.MaxInFlight
	}
	switch {
	case noModels:
		patch.Models = &map[string]string{}
	case spec.Models != nil:
		patch.Models = &spec.Models
	}
	if patch == (control.UpstreamPatch{}) {
		return patch, nothingToChange(cmd)
	}
	return patch, nil
}

func (a *app) changeUpstream(cmd *cobra.Command, name string, patch control.UpstreamPatch, done string) error {
	return a.withClient(func(c *control.Client) error {
		upstream, err := c.UpdateUpstream(cmd.Context(), name, patch)
		if err != nil {
			return err
		}
		return a.done(upstream, "upstream %s %s", upstream.Name, done)
	})
}

func newUpstreamSwitchCommand(a *app, verb, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " NAME",
		Short:   short,
		Example: "  carpool upstream " + verb + " main",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeUpstream(cmd, args[0], control.UpstreamPatch{Disabled: &disabled}, verb+"d")
		},
	}
}

func newUpstreamRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove an upstream that no route names",
		Example: "  carpool upstream remove main",
		Aliases: []string{"rm"},
		Args:    arguments("NAME"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove upstream %s with its credential?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteUpstream(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.removed("upstream", args[0])
		})
	}
	return cmd
}

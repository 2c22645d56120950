package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/control"
	"carpool/internal/policy"
)

func newKeyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Manage developers' API keys",
		Long: `Manage developers' API keys. Only a hash of a key is stored; the key itself is shown once,
when it is made. Commands take a key's name or its public id.`,
		Example: "  carpool key add alice-laptop --user alice\n  carpool key rotate alice-laptop --grace 24h",
	}
	cmd.AddCommand(newKeyAddCommand(a), newKeyListCommand(a), newKeyShowCommand(a), newKeySetCommand(a),
		newKeySwitchCommand(a, "disable", "Refuse a key", true),
		newKeySwitchCommand(a, "enable", "Accept a disabled key again", false),
		newKeyRotateCommand(a), newKeyRemoveCommand(a))
	return cmd
}

func newKeyAddCommand(a *app) *cobra.Command {
	var user, expires string
	var given bool
	limits := limitFlags{defaults: true}
	var scope scopeFlags
	cmd := &cobra.Command{
		Use:   "add NAME --user USER",
		Short: "Make a key for a user and show it once",
		Long: `Make a key for a user. The key is the only thing on standard output; how a developer uses it
is explained on standard error. It is not shown again.`,
		Example: `  carpool key add alice-laptop --user alice
  carpool key add ci --user build --expires 90d --model 'claude-haiku-*' --address 10.0.0.0/8
  KEY=$(carpool key add alice-laptop --user alice 2>/dev/null)`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if user == "" {
				return usagef("%s needs --user USER: whose key is it?", shortPath(cmd))
			}
			spec := policy.KeySpec{Name: args[0], User: user}
			var err error
			if spec.Scope, err = scope.spec(); err != nil {
				return err
			}
			if spec.Limits, err = limits.ownSpec(); err != nil {
				return err
			}
			if cmd.Flags().Changed("expires") {
				if spec.ExpiresAt, err = parseExpiry(expires, a.now()); err != nil {
					return usagef("the flag --expires does not take %q: %s", expires, err)
				}
			}
			if given {
				if spec.Key, err = a.readSecret(cmd.Context(), "the key"); err != nil {
					return err
				}
			}
			if err := spec.Validate(); err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error {
				key, err := c.CreateKey(cmd.Context(), spec)
				if err != nil {
					return err
				}
				return a.showNewKey(key, fmt.Sprintf("key %s of user %s added", key.Name, key.User))
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "`USER` who owns the key")
	cmd.Flags().StringVar(&expires, "expires", "never", "`WHEN` the key stops working: 90d, 12h, a date or never")
	limits.register(cmd)
	scope.register(cmd)
	cmd.Flags().BoolVar(&given, "key-stdin", false, "take a key of your own (20 or more characters) from standard input")
	return cmd
}

// readSecret reads one secret from standard input.
func (a *app) readSecret(ctx context.Context, what string) (string, error) {
	if a.interactive {
		a.note("Paste %s and end with Ctrl-D:", what)
	}
	data, err := interruptible(ctx, func() ([]byte, error) { return a.readInput("-") })
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", fmt.Errorf("standard input is empty: it should hold %s", what)
	}
	return secret, nil
}

// showNewKey prints a key alone on standard output, where a script takes it, and what to do with it on standard error.
func (a *app) showNewKey(key control.NewKey, what string) error {
	if err := a.show(key, func() string { return key.Secret + "\n" }); err != nil {
		return err
	}
	if a.output == formatJSON {
		return nil
	}
	secret := key.Secret
	if !a.shown { // it went to a file or a program, and what is read here may be kept in a log
		secret = "…   (what went to standard output)"
	}
	a.note("%s. Keep the key now: it is not shown again. With it, the developer sets", what)
	a.note("")
	a.note("  export ANTHROPIC_BASE_URL=%s", a.baseURL())
	a.note("  export ANTHROPIC_AUTH_TOKEN=%s", secret)
	a.note("")
	a.note("and starts claude.")
	return nil
}

func newKeyListCommand(a *app) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List keys with their last use",
		Example: "  carpool key list\n  carpool key list --user alice",
		Aliases: []string{"ls"},
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				keys, err := c.Keys(cmd.Context(), user)
				if err != nil {
					return err
				}
				return a.show(orEmpty(keys), func() string { return a.keyTable(keys) })
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "only keys of this `USER`")
	return cmd
}

func (a *app) keyTable(keys []control.Key) string {
	t := newTable("KEY", "USER", "ID", "STATUS", "ADDED", "LAST USED", "EXPIRES")
	for _, k := range keys {
		t.row(k.Name, k.User, k.ID, keyStatus(k), relative(a.now(), k.CreatedAt), a.since(k.LastUsedAt, "never"), a.since(k.ExpiresAt, "never"))
	}
	return t.orNone("There are no keys. Add one with: carpool key add NAME --user USER")
}

func keyStatus(k control.Key) string {
	if k.Expired && !k.Disabled {
		return "expired"
	}
	return status(k.Disabled)
}

// since writes a time that may be absent as its distance from now.
func (a *app) since(t *time.Time, absent string) string {
	if t == nil || t.IsZero() {
		return absent
	}
	return relative(a.now(), *t)
}

func newKeyShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show KEY",
		Short:   "Show what is known of a key; never the key itself",
		Example: "  carpool key show alice-laptop",
		Args:    arguments("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				key, err := c.Key(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(key, func() string { return a.keyDetails(key) })
			})
		},
	}
}

func (a *app) keyDetails(k control.Key) string {
	at := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return moment(a.now(), *t)
	}
	var f fields
	f.add("Name", k.Name)
	f.add("User", k.User)
	f.add("Public id", k.ID)
	f.add("Status", keyStatus(k))
	f.add("Added", moment(a.now(), k.CreatedAt))
	f.add("Last used", at(k.LastUsedAt))
	f.add("Expires", at(k.ExpiresAt))
	addLimitsInForce(&f, k.Limits, k.OwnLimits)
	addScope(&f, k.Scope)
	if k.GraceUntil != nil && k.GraceUntil.After(a.now()) {
		f.add("Old key works until", moment(a.now(), *k.GraceUntil))
	}
	return f.String()
}

func newKeySetCommand(a *app) *cobra.Command {
	var expires string
	limits := limitFlags{defaults: true}
	var scope scopeFlags
	cmd := &cobra.Command{
		Use:   "set KEY",
		Short: "Change when a key stops working, its limits and what it may be used for",
		Long: `Change a key. What no flag names stays as it is. --model, --endpoint and --address replace the
whole list that they are about, and the word all ends the condition. A limit that is default
follows the server's claudeCode.defaultLimits.`,
		Example: `  carpool key set ci --expires 90d
  carpool key set ci --expires never --in-flight 4
  carpool key set ci --model 'claude-haiku-*' --address all`,
		Args: arguments("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch control.KeyPatch
			var err error
			if patch.Scope, err = scope.patch(cmd); err != nil {
				return err
			}
			if patch.Limits, err = limits.ownPatch(); err != nil {
				return err
			}
			if cmd.Flags().Changed("expires") {
				at, err := parseExpiry(expires, a.now())
				if err != nil {
					return usagef("the flag --expires does not take %q: %s", expires, err)
				}
				patch.ExpiresAt = control.ToDefault[time.Time]()
				if at != nil {
					patch.ExpiresAt = control.To(*at)
				}
			}
			if patch == (control.KeyPatch{}) {
				return nothingToChange(cmd)
			}
			return a.changeKey(cmd, args[0], patch, "changed")
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "", "`WHEN` the key stops working: 90d, 12h, a date or never")
	limits.register(cmd)
	scope.register(cmd)
	return cmd
}

func (a *app) changeKey(cmd *cobra.Command, name string, patch control.KeyPatch, done string) error {
	return a.withClient(func(c *control.Client) error {
		key, err := c.UpdateKey(cmd.Context(), name, patch)
		if err != nil {
			return err
		}
		return a.done(key, "key %s %s", key.Name, done)
	})
}

func newKeySwitchCommand(a *app, verb, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " KEY",
		Short:   short,
		Example: "  carpool key " + verb + " alice-laptop",
		Args:    arguments("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKey(cmd, args[0], control.KeyPatch{Disabled: &disabled}, verb+"d")
		},
	}
}

func newKeyRotateCommand(a *app) *cobra.Command {
	var grace string
	cmd := &cobra.Command{
		Use:     "rotate KEY",
		Short:   "Give a key a new secret and show it once",
		Long:    "Give a key a new secret and show it once. The old one stops working at once, or after --grace.",
		Example: "  carpool key rotate alice-laptop\n  carpool key rotate alice-laptop --grace 24h",
		Args:    arguments("KEY"),
	}
	yes := yesFlag(cmd)
	cmd.Flags().StringVar(&grace, "grace", "0s", "`PERIOD` for which the old secret goes on working, such as 24h or 7d (at most 30d)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		period, ok := parsePeriod(grace)
		if !ok || period > 30*24*time.Hour {
			return usagef("the flag --grace does not take %q: it is a period such as 24h or 7d, at most 30d", grace)
		}
		return a.withClient(func(c *control.Client) error {
			if period < time.Second {
				if err := a.confirm(cmd, *yes, "Rotate key %s? The old one stops working at once.", args[0]); err != nil {
					return err
				}
			}
			key, err := c.RotateKey(cmd.Context(), args[0], period)
			if err != nil {
				return err
			}
			return a.showNewKey(key, fmt.Sprintf("key %s of user %s rotated", key.Name, key.User))
		})
	}
	return cmd
}

func newKeyRemoveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove KEY",
		Short:   "Remove a key",
		Long:    "Remove a key. What was used with it stays in the books.",
		Example: "  carpool key remove alice-laptop",
		Aliases: []string{"rm"},
		Args:    arguments("KEY"),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withClient(func(c *control.Client) error {
			if err := a.confirm(cmd, *yes, "Remove key %s?", args[0]); err != nil {
				return err
			}
			if err := c.DeleteKey(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.removed("key", args[0])
		})
	}
	return cmd
}

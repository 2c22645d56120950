package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"carpool/internal/config"
)

func newConfigCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Check, print and describe the server's configuration",
		Example: "  carpool config check carpool.yaml\n  carpool config print --config carpool.yaml",
	}
	cmd.AddCommand(newConfigCheckCommand(a), newConfigPrintCommand(a), newConfigSchemaCommand(a), newConfigReferenceCommand(a))
	return cmd
}

// configFor is configOptions with a file that may also be given as an argument.
func (a *app) configFor(args []string) (config.Options, error) {
	options := a.configOptions()
	if len(args) > 0 {
		if a.configFile != "" {
			return options, usagef("give the file once: as an argument or after --config")
		}
		options.File = args[0]
	}
	return options, nil
}

// checked is the JSON of a check.
type checked struct {
	Valid    bool      `json:"valid"`
	File     string    `json:"file,omitempty"`
	Warnings []string  `json:"warnings"`
	Problems []problem `json:"problems"`
}

// problem is the JSON of a config.Problem.
type problem struct {
	Source  string `json:"source,omitempty"` // path of the file, name of the variable or of the flag
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

func newConfigCheckCommand(a *app) *cobra.Command {
	var files bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration and say what was understood",
		Long: `Check a configuration (the file, the CARPOOL_… variables and the defaults together) and say what was understood.
The folders and files that it names need not exist here; --files checks them too. The file of resources is
checked where it exists, without asking a server: what it refers to and does not declare is a warning.`,
		Example: "  carpool config check carpool.yaml\n  carpool config check --config /etc/carpool/carpool.yaml --files",
		Args:    arguments("[FILE]"),
		RunE: func(_ *cobra.Command, args []string) error {
			options, err := a.configFor(args)
			if err != nil {
				return err
			}
			options.CheckFiles = files
			cfg, err := config.Load(options)
			if err != nil {
				return a.configWrong(options.File, err)
			}
			warnings, err := a.checkResources(cfg, files)
			warnings = append(missingFiles(cfg), warnings...)
			if err != nil {
				return a.configWrong(options.File, config.Problems{{Source: cfg.File(), Key: "resources", Message: err.Error()}})
			}
			result := checked{true, cfg.File(), orEmpty(append(cfg.Warnings(), warnings...)), []problem{}}
			return a.show(result, func() string {
				var text strings.Builder
				text.WriteString(cfg.Summary())
				for _, w := range warnings {
					text.WriteString("warning: " + w + "\n")
				}
				return text.String()
			})
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "also check the certificates, secrets and resources that it names")
	return cmd
}

// missingFiles warns of files without which the server will not start.
func missingFiles(cfg *config.Config) (warnings []string) {
	for _, f := range []struct{ key, path string }{
		{"server.tls.certFile", cfg.Server.TLS.CertFile}, {"server.tls.keyFile", cfg.Server.TLS.KeyFile}, {"admin.tokenFile", cfg.Admin.TokenFile},
	} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
			warnings = append(warnings, f.key+": "+f.path+" does not exist here; the server will need it")
		}
	}
	return warnings
}

// checkResources checks a file of resources as far as that is possible without a server. Unless its files are meant, too, neither it
// nor the credentials that it names need to be here.
func (a *app) checkResources(cfg *config.Config, files bool) (warnings []string, err error) {
	path := cfg.Resources
	if path == "" {
		return nil, nil
	}
	var resources declared
	switch _, missing := os.Stat(path); {
	case files:
		resources, err = a.readResources([]string{path})
	case errors.Is(missing, fs.ErrNotExist):
		return []string{"resources: " + path + " does not exist here and was not checked"}, nil
	default:
		var data []byte
		if data, err = a.readInput(path); err == nil {
			resources, err = parseResources(path, data)
		}
	}
	if err != nil {
		return nil, err
	}
	warn := func(who, kind, name string, declared []string) {
		text := fmt.Sprintf("%s the %s %q, which %s does not declare: the server must have it already", who, kind, name, path)
		if best := nearest(name, declared); best != "" {
			text += fmt.Sprintf("; did you mean %q?", best)
		}
		warnings = append(warnings, text)
	}
	for _, ref := range resources.Undeclared() {
		warn(fmt.Sprintf("resources: %s %q names", ref.Of, ref.OfName), ref.Kind, ref.Name, ref.Declared)
	}
	var upstreams []string
	for _, u := range resources.Upstreams {
		upstreams = append(upstreams, u.Name)
	}
	for _, name := range cfg.Prices.Overlay().Upstreams() {
		if !slices.Contains(upstreams, name) {
			warn("prices: names", "upstream", name, upstreams)
		}
	}
	return warnings, nil
}

// configWrong reports what is wrong with a configuration, as JSON when that was asked for.
func (a *app) configWrong(file string, err error) error {
	problems, ok := errors.AsType[config.Problems](err)
	if !ok || a.output != formatJSON {
		return err
	}
	result := checked{File: file, Warnings: []string{}}
	for _, p := range problems {
		result.Problems = append(result.Problems, problem(p))
	}
	if err := a.showJSON(result); err != nil {
		return err
	}
	return fmt.Errorf("the configuration has %s", countOf(len(problems), "problem"))
}

func countOf(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return number(n) + " " + thing + "s"
}

func newConfigPrintCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "print [FILE]",
		Short:   "Print the configuration in force, with all defaults",
		Long:    "Print the configuration in force as YAML: the file, the CARPOOL_… variables and the defaults together. Secrets are masked.",
		Example: "  carpool config print carpool.yaml\n  CARPOOL_SERVER_PORT=9000 carpool config print",
		Args:    arguments("[FILE]"),
		RunE: func(_ *cobra.Command, args []string) error {
			options, err := a.configFor(args)
			if err != nil {
				return err
			}
			cfg, err := config.Load(options)
			if err != nil {
				return err
			}
			text, err := config.Print(cfg)
			if err != nil {
				return fmt.Errorf("cannot print the configuration: %w", err)
			}
			if a.output != formatJSON {
				return a.print(string(text))
			}
			data, err := yaml.YAMLToJSON(text)
			if err != nil {
				return fmt.Errorf("cannot print the configuration as JSON: %w", err)
			}
			return a.showJSON(json.RawMessage(data))
		},
	}
}

func newConfigSchemaCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON schema of the configuration, for editors",
		Example: "  carpool config schema > carpool.schema.json",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			schema, err := config.Schema()
			if err != nil {
				return fmt.Errorf("cannot make the schema: %w", err)
			}
			return a.showJSON(json.RawMessage(schema))
		},
	}
}

func newConfigReferenceCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "reference",
		Short:   "Print a table of all keys, as Markdown",
		Example: "  carpool config reference | less",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			return a.print(config.DocsTable())
		},
	}
}

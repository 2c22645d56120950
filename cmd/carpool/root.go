package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"carpool/internal/config"
)

// Exit statuses. A usage error is one that the command line alone shows to be wrong.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells report it
)

// The groups of the root help.
const (
	groupRun        = "run"
	groupAdminister = "administer"
	groupInspect    = "inspect"
)

// app is one invocation: what the process was given and what the global flags say. Commands take everything from it, so
// that a test can run them in its own process.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string // as os.Environ gives it
	now            func() time.Time
	width          int  // of the terminal that standard output is; 0: it is none
	interactive    bool // a person sits at standard input and standard error and can be asked
	shown          bool // standard output is a terminal

	configFile string // --config
	dataDir    string // --data
	output     string // --output: one of the formats below

	helpless error // help was asked for about a command that there is not
}

// run executes one command line and returns the exit status. It never panics on bad input and writes errors as lines
// `carpool: …` to standard error.
func run(ctx context.Context, args []string, a *app) int {
	root := newRootCommand(a) //nolint:contextcheck // commands take theirs from ExecuteContext
	root.SetArgs(args)
	err := cmp.Or(root.ExecuteContext(ctx), a.helpless)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		if a.interactive {
			fmt.Fprintln(a.stderr) // the terminal stands behind ^C
		}
		return exitInterrupted
	}
	a.report(err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}

// report writes an error, one line for each of its lines.
func (a *app) report(err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(a.stderr, "carpool: "+strings.TrimRight(line, "\n"))
	}
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "carpool",
		Short: "A self-hosted gateway for Claude Code",
		Long: `Carpool is a self-hosted gateway for Claude Code. It authenticates developers, keeps them
inside their quotas and budgets, forwards their requests to your own model credentials and
accounts for every token.

The commands that administer a server reach it through the Unix socket in its data folder
(--data or --config), or over the network when CARPOOL_URL and CARPOOL_TOKEN are set.`,
		Example: `  carpool demo                       try everything on this machine, nothing to install
  carpool serve --data ./carpool-data
  carpool upstream add main --api-key-env ANTHROPIC_API_KEY
  carpool user add alice --daily 2M --monthly 40M
  carpool key add alice-laptop --user alice
  carpool budget add alice-day --scope user/alice --amount '5 USD' --window day
  carpool usage --since 7d --group-by user`,
		SilenceErrors: true, SilenceUsage: true, // run reports errors, and a usage dump would bury them
		Version: readBuildInfo().Version,
	}
	root.SetVersionTemplate(readBuildInfo().line())
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupAdminister, Title: "Administer:"},
		&cobra.Group{ID: groupInspect, Title: "Inspect:"},
	)
	flags := root.PersistentFlags()
	flags.StringVar(&a.configFile, "config", "", "the server's configuration `FILE`, YAML or JSON")
	flags.StringVar(&a.dataDir, "data", "", "the server's data `DIR` (default as configured, else ./carpool-data)")
	flags.StringVarP(&a.output, "output", "o", formatTable, "print as `FORMAT`: table or json")
	flags.BoolP("help", "h", false, "show help")
	root.Flags().Bool("version", false, "show the version")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkGiven(cmd); err != nil {
			return err
		}
		return a.checkOutput(cmd)
	}

	addGroup(root, groupRun, runCommands(a)...)
	addGroup(root, groupAdminister,
		newUserCommand(a), newTeamCommand(a), newKeyCommand(a), newBudgetCommand(a), newUpstreamCommand(a), newRouteCommand(a),
		newAliasCommand(a), newQuotaCommand(a), newAdminCommand(a), newApplyCommand(a))
	addGroup(root, groupInspect,
		newUsageCommand(a), newReportCommand(a), newSessionCommand(a), newReconcileCommand(a), newDBCommand(a), newConfigCommand(a),
		newVersionCommand(a))
	root.AddCommand(newDocsCommand(a))
	root.SetHelpCommand(newHelpCommand())
	root.SetCompletionCommandGroupID(groupInspect)
	root.InitDefaultCompletionCmd()
	root.SetUsageTemplate(usageTemplate)
	a.helpTruly(root)
	strict(root)
	a.complete(root, listers())
	return root
}

func addGroup(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// getenv looks a variable up in the environment of this invocation.
func (a *app) getenv(name string) (string, bool) {
	for _, pair := range slices.Backward(a.env) { // the last one wins, as in os/exec
		if key, value, ok := strings.Cut(pair, "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// loadConfig reads the configuration that the global flags and the environment name. Files that it mentions are not
// looked at: a client command has no business with the server's certificates.
func (a *app) loadConfig() (*config.Config, error) {
	return config.Load(a.configOptions())
}

// configOptions says where the configuration is: --config or else CARPOOL_CONFIG, and --data over both.
func (a *app) configOptions() config.Options {
	file := a.configFile
	if file == "" {
		file, _ = a.getenv("CARPOOL_CONFIG")
	}
	return config.Options{File: file, DataDir: a.dataDir, Env: a.env}
}

// socketName is the administration socket in the data folder. Whoever may enter that folder may administer.
const socketName = "carpool.sock"

// socketPath is where the server of this data folder listens for administration.
func socketPath(cfg *config.Config) string { return filepath.Join(cfg.DataDir, socketName) }

// readInput reads a file named on the command line; "-" is standard input. The size is bounded so that a wrong name
// (a device, an archive) fails at once.
func (a *app) readInput(name string) ([]byte, error) {
	const most = 16 << 20
	in := a.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, plainFileError(err)
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, plainFileError(err)
	}
	if len(data) > most {
		return nil, fmt.Errorf("%s has more than 16 MiB", displayName(name))
	}
	return data, nil
}

func displayName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// plainFileError turns "open x: no such file or directory" into words for people.
func plainFileError(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("cannot read %s: %w", path.Path, path.Err)
	}
	return fmt.Errorf("cannot read standard input: %w", err)
}

package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is a command line that is wrong in itself; it ends with exit status 2.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// strict gives a command and all below it our own checks: unknown commands and flags, and missing or surplus arguments,
// become usage errors of one line that say what to type instead.
func strict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(flagError)
	cmd.DisableFlagsInUseLine = !cmd.HasAvailableLocalFlags()
	if cmd.HasSubCommands() && cmd.Run == nil && cmd.RunE == nil {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		}
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
			names = append(names, sub.Aliases...)
		}
	}
	if best := nearest(name, names); best != "" {
		return usagef("unknown command %q for %q; did you mean %q?", name, cmd.CommandPath(), cmd.CommandPath()+" "+best)
	}
	return usagef("unknown command %q for %q; see '%s --help'", name, cmd.CommandPath(), cmd.CommandPath())
}

func flagError(cmd *cobra.Command, err error) error {
	// A misspelt command followed by flags fails at the flags first; the command is what to speak about.
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return unknownCommand(cmd, words[0])
	}
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(cmd, unknown.GetSpecifiedName())
	case errors.As(err, &missing):
		return usagef("the flag %s needs a value: %s", dashed(missing.GetSpecifiedName()), flagHelp(missing.GetFlag()))
	case errors.As(err, &invalid):
		return usagef("the flag --%s does not take %q: %s", invalid.GetFlag().Name, invalid.GetValue(), plainValueError(invalid))
	}
	return usagef("%s; see '%s --help'", err, cmd.CommandPath())
}

func unknownFlag(cmd *cobra.Command, name string) error {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if best := nearest(name, names); best != "" && len(name) > 1 {
		return usagef("unknown flag %s for %q; did you mean --%s?", dashed(name), cmd.CommandPath(), best)
	}
	return usagef("unknown flag %s for %q; see '%s --help'", dashed(name), cmd.CommandPath(), cmd.CommandPath())
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func flagHelp(flag *pflag.Flag) string {
	value, usage := pflag.UnquoteUsage(flag)
	return fmt.Sprintf("--%s %s (%s)", flag.Name, value, usage)
}

// plainValueError drops the library's wording around the reason that our own flag types give.
func plainValueError(err *pflag.InvalidValueError) string {
	reason := errors.Unwrap(err)
	if reason == nil {
		return err.Error()
	}
	text := reason.Error()
	if strings.HasPrefix(text, "strconv.") || strings.HasPrefix(text, "parsing ") {
		return "it must be a whole number"
	}
	return text
}

// arguments checks the number of arguments and names the first one that is missing: arguments("NAME") takes exactly one,
// a trailing "…" on the last name allows any further ones, and square brackets make one optional.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for i, arg := range args {
			if len(names) > 0 && strings.TrimSpace(arg) == "" {
				name := strings.Trim(names[min(i, len(names)-1)], "[]…")
				return usagef("%s: %s is empty: is a variable not set?", shortPath(cmd), name)
			}
		}
		for i, name := range names {
			if i >= len(args) && !strings.HasPrefix(name, "[") {
				return usagef("%s needs %s: %s", shortPath(cmd), strings.TrimSuffix(name, "…"), cmd.UseLine())
			}
		}
		many := len(names) > 0 && strings.Contains(names[len(names)-1], "…")
		if len(args) > len(names) && !many && cmd.HasSubCommands() {
			return unknownCommand(cmd, args[len(names)])
		}
		if len(args) > len(names) && !many {
			return usagef("%s does not take %q: %s", shortPath(cmd), args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// clearableAnnotation marks a flag that takes an empty value, which clears what was there.
const clearableAnnotation = "clearable"

// checkGiven refuses flags that are given with an empty value: where a variable is not set in a script, a command would
// otherwise mean everything, or everybody.
func checkGiven(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.String() == "" && f.Annotations[clearableAnnotation] != nil {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			if values = list.GetSlice(); len(values) == 0 {
				values = []string{""}
			}
		}
		for _, value := range values {
			if err == nil && strings.TrimSpace(value) == "" {
				err = usagef("the flag --%s is empty: is a variable not set?", f.Name)
			}
		}
	})
	return err
}

// shortPath is a command without the program's name, which begins every error line anyway.
func shortPath(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// maxDistance is from where on two words have nothing to do with each other.
const maxDistance = 5

// nearest returns the candidate that name was probably meant to be, or "".
func nearest(name string, candidates []string) string {
	best, least := "", min(2+len(name)/4, maxDistance)
	for _, c := range candidates {
		d := distance(strings.ToLower(name), strings.ToLower(c))
		if len(name) > 2 && strings.HasPrefix(c, name) {
			d = 1
		}
		if d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours between two short words.
func distance(a, b string) int {
	if max(len(a), len(b)) > 64 {
		return maxDistance
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := 1
			if a[i-1] == b[j-1] {
				replace = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// listenError says why an address cannot be listened on and what to do.
func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen on %s: another program uses this port; end it or choose another one (port 0 takes any)", address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("cannot listen on %s: permission denied; ports below 1024 need a privilege, choose a higher one", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cannot listen on %s: this machine does not have that address", address)
	}
	if wrapped, ok := errors.AsType[*net.OpError](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("cannot listen on %s: %w", address, err)
}

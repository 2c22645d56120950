package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newDocsCommand is for packagers: it writes the help texts as files.
func newDocsCommand(a *app) *cobra.Command {
	var date int64
	cmd := &cobra.Command{
		Use:    "docs man|markdown DIR",
		Short:  "Write the manual pages of all commands into a folder",
		Hidden: true,
		Args:   arguments("man|markdown", "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "man" && args[0] != "markdown" {
				return usagef("docs writes man or markdown, not %q", args[0])
			}
			if err := os.MkdirAll(args[1], 0o755); err != nil { //nolint:gosec // manual pages are for everybody
				return fmt.Errorf("cannot make the folder: %w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			var err error
			if args[0] == "markdown" {
				err = doc.GenMarkdownTree(root, args[1])
			} else {
				when := time.Unix(date, 0).UTC()
				err = doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &when, Source: "Carpool"}, args[1])
			}
			if err != nil {
				return fmt.Errorf("cannot write the pages: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&date, "date", 0, "date of the pages in `SECONDS` since 1970, for reproducible packages")
	return cmd
}

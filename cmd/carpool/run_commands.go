package main

import "github.com/spf13/cobra"

// runCommands are the commands that start servers.
func runCommands(a *app) []*cobra.Command {
	return []*cobra.Command{newDemoCommand(a), newServeCommand(a), newSimCommand(a)}
}

package cli

import "github.com/spf13/cobra"

// newConfig builds `brindle config`.
func newConfig(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Look after settings", GroupID: "look"}
	c.AddCommand(newConfigShow(e))
	c.AddCommand(contextCommands(e)...)
	return c
}

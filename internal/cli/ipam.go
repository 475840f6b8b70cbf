package cli

import "github.com/spf13/cobra"

// newIPAM builds `brindle ipam`.
func newIPAM(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "ipam", Short: "Look after addresses", GroupID: "look"}
	return c
}

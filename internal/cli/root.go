// Package cli is the command line: it reads flags, calls the packages that do
// the work, and prints. It owns the flag library.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Env is what of the process a command may touch.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Environ        func() []string
	Terminal       bool   // standard output is a terminal
	Executable     string // path of this program, for the programs it starts
	Build          string // version and commit
}

// ExitError ends the program with a status of its own. Its Err may be nil:
// then everything has been said already.
type ExitError struct {
	Status int
	Err    error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Run carries out one command line and returns the exit status of the
// process: 0, or 1 after an error was printed, unless the command has a
// status of its own.
func Run(ctx context.Context, e *Env, args []string) int {
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit *ExitError
	if !errors.As(err, &exit) {
		exit = &ExitError{Status: 1, Err: err}
	}
	if exit.Err != nil {
		fmt.Fprintf(e.Stderr, "brindle: %s\n", clean(exit.Err.Error()))
	}
	return exit.Status
}

// newRoot builds the tree of commands.
func newRoot(e *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "brindle",
		Short: "Layer-3 networking and network security for containers, virtual machines and hosts",
		Long: `Brindle gives every workload a real IP address, makes the host its router, and
lets routes travel by BGP. Start with a network on this machine:

  sudo brindle lab up`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddGroup(
		&cobra.Group{ID: "resources", Title: "Resources:"},
		&cobra.Group{ID: "look", Title: "Look after the network:"},
		&cobra.Group{ID: "run", Title: "Run it:"},
	)
	root.AddCommand(newLab(e), newVersion(e), newAgent(e))
	return root
}

// newVersion prints what was built.
func newVersion(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", GroupID: "run", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(e.Stdout, "brindle", e.Build)
			return err
		},
	}
}

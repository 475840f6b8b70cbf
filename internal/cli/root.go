// Package cli is the command line: it reads flags, calls the packages that do
// the work, and prints. It owns the flag library.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// Env is what of the process a command may touch.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Environ        func() []string
	Terminal       bool   // standard output is a terminal
	ErrTerminal    bool   // standard error is one
	Executable     string // path of this program, for the programs it starts
	Build          string // version and commit
	// Restart replaces this process by a new one of the same program, arguments
	// and environment. It returns only if that fails.
	Restart func() error
	// Open connects to the datastore; nil is etcd.New.
	Open func(etcd.Config) (Datastore, error)
	// CalicoctlFile is where calicoctl's own file is; "" is where it looks.
	CalicoctlFile string

	jsonErrors bool   // what goes wrong is told in JSON
	command    string // that is carried out, such as "brindle apply"
}

// Datastore is a datastore that a command has opened, and closes.
type Datastore interface {
	store.Driver
	io.Closer
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
// status of its own. Data goes to standard output, everything else to
// standard error, in JSON if the command line asks for JSON.
func Run(ctx context.Context, e *Env, args []string) int {
	own := *e
	e = &own
	root := newRoot(e)
	root.SetArgs(append([]string{}, shortLogLevel(args)...)) // of nil the library makes those of the process
	root.PersistentPreRun = func(c *cobra.Command, _ []string) {
		e.jsonErrors, e.command = asksJSON(c, args), c.CommandPath()
	}
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	e.jsonErrors = asksJSON(c, args)
	var exit *ExitError
	if !errors.As(err, &exit) {
		exit = &ExitError{Status: 1, Err: err}
	}
	if exit.Err != nil {
		tell(e, exit)
	}
	return exit.Status
}

// shortLogLevel spells out the -l that calicoctl has in front of its commands;
// behind them it may have another meaning.
func shortLogLevel(args []string) []string {
	if len(args) > 0 && strings.HasPrefix(args[0], "-l") {
		if args[0] == "-l" {
			return append([]string{"--log-level"}, args[1:]...)
		}
		return append([]string{"--log-level=" + strings.TrimPrefix(args[0][2:], "=")}, args[1:]...)
	}
	return args
}

// addGlobal adds the flags that every command has.
func addGlobal(c *cobra.Command) {
	f := c.PersistentFlags()
	f.Bool("allow-version-mismatch", false, "accepted for calicoctl's sake: no version of the cluster has to match")
	f.String("log-level", "", "accepted for calicoctl's sake: these commands keep no log")
	_ = f.MarkHidden("log-level") // it was added above
}

// addLogLevel adds -l, as calicoctl has it behind its commands too, where -l
// has no other meaning. The lab is no part of calicoctl, and runs commands that
// have a -l of their own.
func addLogLevel(c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Name() == "lab" {
			continue
		}
		if f := sub.Flags(); f.ShorthandLookup("l") == nil && f.Lookup("log-level") == nil && sub.PersistentFlags().Lookup("log-level") == nil {
			f.StringP("log-level", "l", "", "accepted for calicoctl's sake: these commands keep no log")
			_ = f.MarkHidden("log-level") // it was added above
		}
		addLogLevel(sub)
	}
}

// newRoot builds the tree of commands.
func newRoot(e *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "brindle",
		Short: "Layer-3 networking and network security for containers, virtual machines and hosts",
		Long: `Brindle gives every workload a real IP address, makes the host its router, and
lets routes travel by BGP. Start with a network on this machine:

  sudo brindle lab up`,
		Version: e.Build, SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true,
	}
	addGlobal(root)
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	root.AddGroup(
		&cobra.Group{ID: "resources", Title: "Resources:"},
		&cobra.Group{ID: "look", Title: "Look after the network:"},
		&cobra.Group{ID: "run", Title: "Run it:"},
	)
	root.AddCommand(
		newGet(e), newApply(e), newCreate(e), newReplace(e), newDelete(e), newPatch(e), newLabel(e), newDiff(e), newValidate(e), newConvert(e), newKinds(e),
		newExplain(e), newHistory(e), newSimulate(e), newPolicy(e), newIPAM(e), newNode(e), newCluster(e), newBGP(e), newConfig(e), newDatastore(e),
		newLab(e), newAgent(e), newServer(e), newCNI(e), newVersion(e),
	)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: see `%s --help`", err, c.CommandPath())
	})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	mendShells(e, root)
	refuseStrangers(root)
	completeEverywhere(e, root)
	addLogLevel(root)
	return root
}

// groupMark is on commands that only hold others.
const groupMark = "group"

// refuseStrangers makes a mistyped subcommand an error at every level. Without
// it, a script that mistypes one gets the help and success.
func refuseStrangers(c *cobra.Command) {
	for _, sub := range c.Commands() {
		refuseStrangers(sub)
	}
	if c.Runnable() || !c.HasSubCommands() {
		return
	}
	c.Annotations = map[string]string{groupMark: "yes"}
	c.Args, c.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		msg := fmt.Sprintf("there is no command %q in `%s`", args[0], c.CommandPath())
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%s: did you mean %s?", msg, strings.Join(near, " or "))
		}
		return fmt.Errorf("%s: see `%s --help`", msg, c.CommandPath())
	}
}

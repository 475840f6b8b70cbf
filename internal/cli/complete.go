package cli

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// How long a shell waits for names, and how many it gets.
const (
	completeTimeout = 2 * time.Second
	completeMost    = 1000
)

// completer offers a shell what may stand at a place: kinds, and what is in
// the datastore. It says nothing about what goes wrong: a shell could not show
// it.
type completer struct {
	e         *Env
	ds        *datastoreFlags
	namespace *string
	most      int // names; 0: any number
}

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// args offers kinds, then names of that kind.
func (c completer) args(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	const done = cobra.ShellCompDirectiveNoFileComp
	kindName, namePrefix, slash := strings.Cut(prefix, "/")
	if len(args) == 0 && !slash {
		return completeKinds(cmd, args, prefix)
	}
	if len(args) > 0 && strings.Contains(args[0], "/") != slash {
		return nil, done
	}
	given := args
	if !slash {
		kindName, namePrefix, given = args[0], prefix, args[1:]
	}
	if kind, ok := v3.LookupKind(kindName); ok && (c.most == 0 || len(given) < c.most) {
		out := c.names(cmd.Context(), kind, namePrefix)
		for i := range out {
			if slash {
				out[i] = kindName + "/" + out[i]
			}
		}
		return slices.DeleteFunc(out, func(name string) bool { return slices.Contains(given, name) }), done
	}
	return nil, done
}

// ask opens the datastore for a moment.
func (c completer) ask(ctx context.Context, f func(context.Context, *session)) {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	db, err := c.ds.connect(c.e)
	if err != nil {
		return
	}
	defer db.close()
	f(ctx, db)
}

// names lists names of a kind that begin with a prefix.
func (c completer) names(ctx context.Context, kind v3.KindInfo, prefix string) []string {
	var out []string
	c.ask(ctx, func(ctx context.Context, db *session) {
		out, _ = db.Names(ctx, kind, in1(kind, *c.namespace), prefix, completeMost) // see completer
	})
	return slices.DeleteFunc(out, func(name string) bool { return word(name) != name })
}

// namespaces offers those in which there are objects of the kind that is named.
func (c completer) namespaces(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	const done = cobra.ShellCompDirectiveNoFileComp
	if len(args) == 0 {
		return nil, done
	}
	kindName, _, _ := strings.Cut(args[0], "/")
	kind, ok := v3.LookupKind(kindName)
	if !ok || !kind.Namespaced {
		return nil, done
	}
	found := map[string]bool{}
	c.ask(cmd.Context(), func(ctx context.Context, db *session) {
		_ = db.Pages(ctx, kind, "", func(list client.Listing) error { // see completer
			for _, o := range list.Objects {
				if ns := o.Meta().Namespace; strings.HasPrefix(ns, prefix) && word(ns) == ns {
					found[ns] = true
				}
			}
			return nil
		})
	})
	return slices.Sorted(maps.Keys(found)), done
}

// addTo adds what completes a command's arguments and flags.
func (c completer) addTo(cmd *cobra.Command) {
	cmd.ValidArgsFunction = c.args
	completeFlag(cmd, "namespace", c.namespaces)
}

// completeEverywhere sets how flags are completed that many commands have.
func completeEverywhere(e *Env, c *cobra.Command) {
	completeFlag(c, "context", completeContexts(e))
	for _, sub := range c.Commands() {
		completeEverywhere(e, sub)
	}
}

// completeFlag sets how a flag's value is completed, if the command has it.
func completeFlag(cmd *cobra.Command, flag string, f completion) {
	if cmd.Flags().Lookup(flag) != nil {
		_ = cmd.RegisterFlagCompletionFunc(flag, f) // the flag is there, and has none yet
	}
}

// mendShells has the scripts for zsh and fish complete -o custom-columns=NAME.
// The library's take what begins with "-" in the middle of that word for a flag,
// and offer it twice.
func mendShells(e *Env, root *cobra.Command) {
	scripts := map[string]func(w io.Writer, described bool) error{
		"zsh": func(w io.Writer, described bool) error {
			if described {
				return root.GenZshCompletion(w)
			}
			return root.GenZshCompletionNoDesc(w)
		},
		"fish": root.GenFishCompletion,
	}
	for name, print := range scripts {
		c, _, err := root.Find([]string{"completion", name})
		if err != nil {
			continue // a library without it has nothing to mend
		}
		c.RunE = func(c *cobra.Command, _ []string) error {
			short, _ := c.Flags().GetBool("no-descriptions") // it has that flag
			var script bytes.Buffer
			if err := print(&script, !short); err != nil {
				return err
			}
			_, err := e.Stdout.Write(bytes.Replace(script.Bytes(), []byte(`'-.*='`), []byte(`'^-.*='`), 1))
			return err
		}
	}
}

// oneOf offers given words.
func oneOf(words ...string) completion {
	return func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		directive := cobra.ShellCompDirectiveNoFileComp
		out := withPrefix(words, prefix)
		if len(out) == 1 && strings.HasSuffix(out[0], "=") {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return out, directive
	}
}

func withPrefix(words []string, prefix string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, prefix) })
}

// completeOutput offers the formats of get, and the columns of the kind that is
// named.
func completeOutput(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	list, isColumns := strings.CutPrefix(prefix, "custom-columns=")
	if strings.HasPrefix(prefix, "go-template-file=") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if !isColumns {
		return oneOf("json", "yaml", "wide", "name", "custom-columns=", "go-template=", "go-template-file=")(cmd, args, prefix)
	}
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	kindName, _, _ := strings.Cut(args[0], "/")
	kind, _ := v3.LookupKind(kindName) // none has no columns
	given, last := "", list
	if i := strings.LastIndexByte(list, ','); i >= 0 {
		given, last = list[:i+1], list[i+1:]
	}
	var out []string
	for _, c := range columnsOf(kind.Kind) {
		if strings.HasPrefix(c.name, strings.ToUpper(last)) {
			out = append(out, "custom-columns="+given+c.name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeContexts offers the names of contexts.
func completeContexts(e *Env) completion {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		c, err := readContexts(e)
		if err != nil || len(args) > 0 && cmd.HasParent() && cmd.Parent().Name() == "config" { // that takes one
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, x := range c.Contexts {
			if word(x.Name) == x.Name {
				names = append(names, x.Name)
			}
		}
		return withPrefix(names, prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

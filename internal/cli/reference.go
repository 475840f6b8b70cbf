package cli

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Reference writes the page of the reference that lists every command and
// flag, from the tree of commands itself.
func Reference() string {
	e := &Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" }, Environ: func() []string { return nil }}
	var b strings.Builder
	b.WriteString(`# Commands

Generated from the tree of commands in internal/cli; a test keeps it true. Data goes to standard output, everything else to standard error. The exit status is 0 after success and 1 after a failure, unless the command says otherwise. With ` + "`-o json`" + ` errors and warnings are JSON too: on standard error, one object a line, ` + "`{\"error\": …, \"exitStatus\": …, \"fields\": […]}` or `{\"warning\": …}`" + `.

Every command takes ` + "`--allow-version-mismatch` and `-l`, `--log-level`" + `, which calicoctl has, and does nothing about them: no version of the cluster has to match, and these commands keep no log. (Behind ` + "`get`, `-l`" + ` is the selector of labels.)
`)
	store := &cobra.Command{Use: "x"}
	new(datastoreFlags).addClient(store)
	b.WriteString("\n## The datastore\n\nEvery command that reads or writes the datastore has these flags.\n")
	flagTable(&b, store, nil)
	describe := func(c *cobra.Command) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", c.CommandPath(), c.Short)
		if c.Long != "" && c.HasParent() && c.Long != c.Short+".\n" {
			b.WriteString(strings.TrimPrefix(strings.TrimSpace(c.Long), c.Short+".\n\n") + "\n\n")
		}
		if c.Runnable() && !isGroup(c) {
			fmt.Fprintf(&b, "Usage: `%s`\n", c.UseLine())
		}
		if c.Example != "" {
			b.WriteString("\n```text\n" + c.Example + "\n```\n")
		}
		flagTable(&b, c, flagsOf(store))
	}
	walk(newRoot(e), describe)
	return b.String()
}

// walk visits every command that users are to know, sorted as in the help.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	if c.Hidden || c.Name() == "help" || c.HasParent() && c.Parent().Name() == "completion" {
		return
	}
	if c.HasParent() {
		visit(c)
	}
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}

// isGroup reports whether a command only holds others.
func isGroup(c *cobra.Command) bool {
	return c.HasSubCommands() && c.Annotations[groupMark] != ""
}

// flagNames finds the names of flags in a usage text.
var flagNames = regexp.MustCompile(`(?m)^ +(?:-[a-zA-Z], )?--([a-z0-9-]+)`)

// flagsOf lists the names of a command's own flags that users are to know.
func flagsOf(c *cobra.Command) []string {
	var out []string
	for _, m := range flagNames.FindAllStringSubmatch(c.LocalFlags().FlagUsages(), -1) {
		if m[1] != "help" {
			out = append(out, m[1])
		}
	}
	return out
}

// flagTable lists a command's own flags but for some that are listed elsewhere.
func flagTable(b *strings.Builder, c *cobra.Command, elsewhere []string) {
	all := flagsOf(c)
	names := slices.DeleteFunc(slices.Clone(all), func(name string) bool {
		return c.LocalFlags().Lookup("etcd-endpoints") != nil && slices.Contains(elsewhere, name)
	})
	if len(names) < len(all) {
		b.WriteString("\nIt has the flags of [the datastore](#the-datastore).\n")
	}
	if len(names) == 0 {
		return
	}
	b.WriteString("\n| flag | value | default | what |\n|---|---|---|---|\n")
	for _, name := range names {
		f := c.LocalFlags().Lookup(name)
		title := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			title = "`-" + f.Shorthand + "`, " + title
		}
		kind, def := f.Value.Type(), ""
		if kind == "stringArray" {
			kind = "string, repeated"
		}
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" {
			def = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", title, kind, def, strings.ReplaceAll(f.Usage, "|", "\\|"))
	}
}

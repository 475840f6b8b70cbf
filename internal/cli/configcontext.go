package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
)

// contextCommands build the commands that look after contexts.
func contextCommands(e *Env) []*cobra.Command {
	return []*cobra.Command{newUseContext(e), newGetContexts(e), newCurrentContext(e), newSetContext(e), newDeleteContext(e)}
}

// newUseContext builds `brindle config use`.
func newUseContext(e *Env) *cobra.Command {
	none := false
	c := &cobra.Command{
		Use: "use NAME", Aliases: []string{"use-context"}, Short: "Choose the context that is meant when nothing else is said",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeContexts(e),
		Example: "  brindle config use production\n  brindle config use --none",
		RunE: func(_ *cobra.Command, args []string) error {
			if none == (len(args) == 1) {
				return errors.New("give the name of a context, or --none")
			}
			c, err := readContexts(e)
			if err != nil {
				return err
			}
			c.Current = ""
			if len(args) == 1 {
				if _, err := c.find(args[0]); err != nil {
					return err
				}
				c.Current = args[0]
			}
			if err := c.write(); err != nil {
				return err
			}
			if none {
				_, err = fmt.Fprintln(e.Stdout, "No context is current now.")
			} else {
				_, err = fmt.Fprintf(e.Stdout, "Switched to context %q.\n", c.Current)
			}
			return err
		},
	}
	c.Flags().BoolVar(&none, "none", false, "none: environment and calicoctl's file count again")
	return c
}

// newGetContexts builds `brindle config get-contexts`.
func newGetContexts(e *Env) *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use: "get-contexts", Short: "List the contexts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := readContexts(e)
			if err != nil {
				return err
			}
			switch output {
			case "":
			case "json":
				return writeJSON(e.Stdout, c)
			case "name":
				for _, x := range c.Contexts {
					fmt.Fprintln(e.Stdout, word(x.Name))
				}
				return nil
			default:
				return fmt.Errorf("output format %q: must be json, name, or nothing for a table", output)
			}
			t := table{header: []string{"CURRENT", "NAME", "ENDPOINTS", "PREFIX", "USER"}}
			for _, x := range c.Contexts {
				t.add(yesNo(x.Name == c.Current, "*", ""), x.Name, x.Endpoints, x.Prefix, x.Username)
			}
			t.print(e.Stdout)
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, name, or nothing for a table")
	return c
}

// newCurrentContext builds `brindle config current-context`.
func newCurrentContext(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "current-context", Short: "Print the name of the current context", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := readContexts(e)
			if err != nil {
				return err
			}
			if c.Current == "" {
				return errors.New("no context is current")
			}
			_, err = fmt.Fprintln(e.Stdout, word(c.Current))
			return err
		},
	}
}

// newSetContext builds `brindle config set-context`.
func newSetContext(e *Env) *cobra.Command {
	var given contextInfo
	c := &cobra.Command{
		Use: "set-context NAME", Short: "Add a context, or change what is given of one",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeContexts(e),
		Long: `Add a context, or change what is given of one. A password is never given here:
it is in a file that the context names, or in ETCD_PASSWORD.`,
		Example: "  brindle config set-context production --etcd-endpoints https://192.0.2.1:2379 --etcd-ca ca.pem --etcd-cert me.pem --etcd-key me-key.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := readContexts(e)
			if err != nil {
				return err
			}
			x, err := c.find(args[0])
			did := "Changed"
			if err != nil {
				did = "Added"
				c.Contexts = append(c.Contexts, contextInfo{Name: args[0]})
				x = &c.Contexts[len(c.Contexts)-1]
			}
			if err := x.take(cmd, &given); err != nil {
				return err
			}
			if err := c.write(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.Stdout, "%s context %q.\n", did, args[0])
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&given.Endpoints, "etcd-endpoints", "", "URLs of etcd, with commas: https://host:2379 or unix:///path")
	f.StringVar(&given.Prefix, "etcd-prefix", "", "put before every key, to share one etcd between networks")
	f.StringVar(&given.CAFile, "etcd-ca", "", "file with the certificates to trust")
	f.StringVar(&given.CertFile, "etcd-cert", "", "file with the client's certificate")
	f.StringVar(&given.KeyFile, "etcd-key", "", "file with its key")
	f.StringVar(&given.Username, "etcd-username", "", "user")
	f.StringVar(&given.PasswordFile, "etcd-password-file", "", "file with the user's password")
	return c
}

// take takes over what was given by flags. Names of files are kept in full.
func (x *contextInfo) take(c *cobra.Command, given *contextInfo) error {
	for _, f := range []struct {
		flag   string
		from   string
		to     *string
		isFile bool
	}{
		{"etcd-endpoints", given.Endpoints, &x.Endpoints, false}, {"etcd-prefix", given.Prefix, &x.Prefix, false},
		{"etcd-ca", given.CAFile, &x.CAFile, true}, {"etcd-cert", given.CertFile, &x.CertFile, true}, {"etcd-key", given.KeyFile, &x.KeyFile, true},
		{"etcd-username", given.Username, &x.Username, false}, {"etcd-password-file", given.PasswordFile, &x.PasswordFile, true},
	} {
		if !c.Flags().Changed(f.flag) {
			continue
		}
		*f.to = f.from
		if f.isFile && f.from != "" {
			full, err := filepath.Abs(f.from)
			if err != nil {
				return fmt.Errorf("--%s: %w", f.flag, err)
			}
			*f.to = full
		}
	}
	return nil
}

// newDeleteContext builds `brindle config delete-context`.
func newDeleteContext(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "delete-context NAME", Short: "Forget a context", Args: cobra.ExactArgs(1), ValidArgsFunction: completeContexts(e),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readContexts(e)
			if err != nil {
				return err
			}
			if _, err := c.find(args[0]); err != nil {
				return err
			}
			c.Contexts = slices.DeleteFunc(c.Contexts, func(x contextInfo) bool { return x.Name == args[0] })
			if c.Current == args[0] {
				c.Current = ""
			}
			if err := c.write(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.Stdout, "Deleted context %q.\n", args[0])
			return err
		},
	}
}

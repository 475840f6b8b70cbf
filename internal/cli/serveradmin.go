package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/server"
	"github.com/brindle-net/brindle/internal/store/embedded"
)

// kinds of certificates and users, as completion offers them.
var (
	certKinds = []cobra.Completion{server.MemberCert, embedded.HostUser, embedded.ClientUser}
	userKinds = []cobra.Completion{embedded.HostUser, embedded.ClientUser}
)

// firstOf completes the first argument from a list.
func firstOf(words []cobra.Completion) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// notRunning adds what to do when no server runs.
func notRunning(err error) error {
	if errors.Is(err, server.ErrNotRunning) {
		return fmt.Errorf("%w: run this on a member, and name its folder with --data-dir if it is not the default", err)
	}
	return err
}

// newMembers builds `brindle server members`.
func newMembers(e *Env, o *serverOptions) *cobra.Command {
	c := &cobra.Command{Use: "members", Short: "Show and change which servers are members"}
	output := ""
	list := &cobra.Command{
		Use: "list", Short: "Show all members, and who leads", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			members, err := server.Members(c.Context(), o.dir)
			if err != nil {
				return notRunning(err)
			}
			if output == "json" {
				return writeJSON(e.Stdout, members)
			}
			w := tabwriter.NewWriter(e.Stdout, 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tID\tPEER\tCLIENTS\tROLE")
			for _, m := range members {
				role := yesNo(m.Leader, "leader", "member")
				name := m.Name
				if name == "" {
					name, role = "-", "never started"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", word(name), m.ID, word(m.Peer), word(strings.Join(m.Clients, ",")), role+yesNo(m.Self, ", here", ""))
			}
			return w.Flush()
		},
	}
	jsonOutput(list, &output)
	c.AddCommand(list, newMemberAdd(e, o), newMemberRemove(e, o))
	return c
}

func newMemberAdd(e *Env, o *serverOptions) *cobra.Command {
	return &cobra.Command{
		Use: "add NAME=https://ADDRESS:PORT", Short: "Tell the cluster of a member that is to join", Args: cobra.ExactArgs(1),
		Long: `Tell the cluster of a member that is to join. Then start it, with an empty data
folder, with --join and with all members in --peers. One that lost its disk is
removed first; its name and address may be used again.`,
		Example: `  brindle server members add b=https://192.0.2.2:2380`,
		RunE: func(c *cobra.Command, args []string) error {
			peers, err := embedded.ParsePeers(args[0])
			if err == nil && len(peers) != 1 {
				err = errors.New("one member at a time: each must have joined before the next is added")
			}
			if err != nil {
				return err
			}
			if err := server.AddMember(c.Context(), o.dir, peers[0]); err != nil {
				return notRunning(err)
			}
			all := []string{}
			members, err := server.Members(c.Context(), o.dir)
			for _, m := range members {
				if m.Name != "" {
					all = append(all, m.Name+"="+m.Peer)
				}
			}
			all = append(all, peers[0].Name+"="+peers[0].URL)
			fmt.Fprintf(e.Stdout, "Successfully added member %s. Start it with an empty folder:\n  brindle server --name %s --join --peers %s\n", peers[0].Name, peers[0].Name, strings.Join(all, ","))
			return err
		},
	}
}

func newMemberRemove(e *Env, o *serverOptions) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME|ID", Short: "Take a member out of the cluster", Args: cobra.ExactArgs(1),
		Long: `Take a member out of the cluster: one that is lost for good, or is to be replaced.
Its data is of no use afterwards.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := server.RemoveMember(c.Context(), o.dir, args[0]); err != nil {
				return notRunning(err)
			}
			_, err := fmt.Fprintf(e.Stdout, "Successfully removed member %s\n", args[0])
			return err
		},
	}
}

func jsonOutput(c *cobra.Command, to *string) {
	c.Flags().StringVarP(to, "output", "o", "", "json, or nothing for a table")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *to != "" && *to != "json" {
			return fmt.Errorf("output format %q: must be json, or nothing for a table", *to)
		}
		return nil
	}
}

// newUsers builds `brindle server users`.
func newUsers(e *Env, o *serverOptions) *cobra.Command {
	c := &cobra.Command{
		Use: "users", Short: "Show and change who is let in over TCP",
		Long: `Show and change who is let in over TCP, by the name in the certificate. A host
reads what an agent needs, and writes its own objects only; a client may read and
write everything but members and users. On a server that runs without --certs the
list has no effect: there each certificate of the authority may do everything.`,
	}
	output := ""
	list := &cobra.Command{
		Use: "list", Short: "Show who is let in", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			users, err := server.Users(c.Context(), o.dir)
			if err != nil {
				return notRunning(err)
			}
			if output == "json" {
				return writeJSON(e.Stdout, users)
			}
			w := tabwriter.NewWriter(e.Stdout, 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "KIND\tNAME")
			for _, u := range users {
				fmt.Fprintf(w, "%s\t%s\n", u.Kind, u.Name)
			}
			return w.Flush()
		},
	}
	jsonOutput(list, &output)
	c.AddCommand(list,
		newUserChange(e, o, &cobra.Command{
			Use: "add host|client NAME", Short: "Let a host or a client in",
			Long: `Let in who has a certificate made by "brindle server certs" for the same name.
The name of a host is that of its Node. Again, it brings the rights of a user up
to date.`,
		}, "added", server.AddUser),
		newUserChange(e, o, &cobra.Command{Use: "remove host|client NAME", Short: "Shut a host or a client out, at once"}, "removed", server.RemoveUser))
	return c
}

// newUserChange completes a command that changes one user.
func newUserChange(e *Env, o *serverOptions, c *cobra.Command, done string, change func(context.Context, string, embedded.User) error) *cobra.Command {
	c.Args, c.ValidArgsFunction = cobra.ExactArgs(2), firstOf(userKinds)
	c.RunE = func(c *cobra.Command, args []string) error {
		u := embedded.User{Kind: args[0], Name: args[1]}
		if err := u.Check(); err != nil {
			return err
		}
		if err := change(c.Context(), o.dir, u); err != nil {
			return notRunning(err)
		}
		_, err := fmt.Fprintf(e.Stdout, "Successfully %s %s %s\n", done, u.Kind, u.Name)
		return err
	}
	return c
}

// newCerts builds `brindle server certs`.
func newCerts(e *Env) *cobra.Command {
	certs := server.Certs{Dir: defaultCertsDir}
	c := &cobra.Command{
		Use: "certs", Short: "Make the certificates of members, hosts and clients",
		Long: `Make an authority, and certificates that it signs. Do this on one machine, which
keeps ca.key, and copy to each other machine ca.crt and its own two files.`,
		Example: `  brindle server certs init
  brindle server certs member a --address 192.0.2.1
  brindle server certs host h1
  brindle server certs list`,
	}
	c.PersistentFlags().StringVar(&certs.Dir, "dir", certs.Dir, "folder for the certificates, for root alone")
	init := &cobra.Command{
		Use: "init", Short: "Make the authority; one that is there is never replaced", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			made, err := certs.Init()
			return printMade(e, made, err)
		},
	}
	for _, kind := range certKinds {
		c.AddCommand(newCertKind(e, &certs, kind))
	}
	var life time.Duration
	renew := &cobra.Command{
		Use: "renew member|host|client NAME", Short: "Make a certificate anew, with a new key, for the same names", Args: cobra.ExactArgs(2),
		Long: `Make a certificate anew, with a new key, for the same names. Copy both files to
where the old ones are: they are read at each new connection, nothing restarts.`,
		ValidArgsFunction: firstOf(certKinds),
		RunE: func(_ *cobra.Command, args []string) error {
			made, err := certs.Renew(args[0], args[1], life)
			return printMade(e, made, err)
		},
	}
	renew.Flags().DurationVar(&life, "valid-for", server.DefaultLife, "for how long it is good")
	c.AddCommand(init, renew, newCertList(e, &certs))
	return c
}

// newCertKind builds `brindle server certs member` and its like.
func newCertKind(e *Env, certs *server.Certs, kind string) *cobra.Command {
	r := server.CertRequest{Kind: kind}
	c := &cobra.Command{
		Use: kind + " NAME", Short: "Make the certificate and the key of a " + kind, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r.Name = args[0]
			made, err := certs.Make(r)
			return printMade(e, made, err)
		},
	}
	if kind == server.MemberCert {
		c.Flags().StringSliceVar(&r.Addresses, "address", nil, "address or name by which it is reached, by hosts and by members; again for more")
	}
	c.Flags().DurationVar(&r.Life, "valid-for", server.DefaultLife, "for how long it is good")
	return c
}

func newCertList(e *Env, certs *server.Certs) *cobra.Command {
	output := ""
	list := &cobra.Command{
		Use: "list", Short: "Show the certificates and when they expire", Args: cobra.NoArgs,
		Long: `Show the certificates of the folder and when they expire. Exit status 1 when one
has expired or will within 30 days.`,
		RunE: func(*cobra.Command, []string) error {
			all, err := certs.List()
			if err != nil {
				return err
			}
			bad := false
			for _, c := range all {
				bad = bad || c.Problem != ""
			}
			if output == "json" {
				err = writeJSON(e.Stdout, all)
			} else {
				w := tabwriter.NewWriter(e.Stdout, 0, 8, 3, ' ', 0)
				fmt.Fprintln(w, "KIND\tNAME\tEXPIRES\tADDRESSES\tPROBLEM")
				for _, c := range all {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", word(c.Kind), word(c.Name), c.Expires.Format(time.DateOnly), word(strings.Join(c.Addresses, ",")), word(c.Problem))
				}
				err = w.Flush()
			}
			if err == nil && bad {
				return &ExitError{Status: 1}
			}
			return err
		},
	}
	jsonOutput(list, &output)
	return list
}

// printMade tells of a certificate that was made.
func printMade(e *Env, c server.Cert, err error) error {
	if err == nil {
		_, err = fmt.Fprintf(e.Stdout, "Successfully made %s and its key, good until %s\n", c.File, c.Expires.Format(time.DateOnly))
	}
	return err
}

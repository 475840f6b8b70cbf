package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/capture"
	"github.com/brindle-net/brindle/internal/lab"
)

// capturing is what the flags of `lab capture` say.
type capturing struct {
	iface    string
	file     string
	read     string
	print    bool
	count    int
	duration time.Duration
	port     uint16
	inside   bool // this process is in the namespace already
}

func labCapture(e *Env, name *string) *cobra.Command {
	o := capturing{port: capture.DefaultVXLANPort}
	c := &cobra.Command{
		Use: "capture NAME [FILTER…]", Short: "Write the packets of a host, workload or router to a file",
		Long: `Write the packets of a host, workload or router to a file that tcpdump and Wireshark
read, until interrupted: those of one interface, or of all. Packets are seen as
they arrive, before anything of the host looks at them, and as they leave.

` + capture.FilterHelp + `

With --read FILE, show the packets of a file instead; exit status 1 when the
filter chooses none, 2 when the file or the filter cannot be read.`,
		Example: `  brindle lab capture h1 -i eth0 -w cross.pcap 'vxlan inner icmp'
  brindle lab capture h1 --print --count 10 icmp or inner icmp
  brindle lab capture --read cross.pcap vni 4096 ttl 64`,
		Args: func(_ *cobra.Command, args []string) error {
			if o.read == "" && len(args) == 0 {
				return errors.New("give the name of a host, workload or router")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if o.read != "" {
				return withStatus(readCapture(e, o, strings.Join(args, " ")))
			}
			filter, err := capture.ParseFilter(strings.Join(args[1:], " "))
			if err != nil {
				return err
			}
			if !o.inside {
				return enterCapture(c, e, *name, args)
			}
			return o.run(c.Context(), e, args[0], filter)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.iface, "interface", "i", "", "only this interface (default all)")
	f.StringVarP(&o.file, "write", "w", "", "file to write; - for standard output (default NAME.pcap, with --print none)")
	f.StringVar(&o.read, "read", "", "show the packets of this file")
	f.BoolVar(&o.print, "print", false, "show each packet on a line too")
	f.IntVar(&o.count, "count", 0, "end after so many packets")
	f.DurationVar(&o.duration, "duration", 0, "end after this time")
	f.Uint16Var(&o.port, "vxlan-port", o.port, "UDP port of VXLAN")
	f.BoolVar(&o.inside, "inside", false, "")
	_ = f.MarkHidden("inside") // it was added above
	return c
}

// enterCapture starts this command anew inside the namespace of a member, so
// that it ends with the lab.
func enterCapture(c *cobra.Command, e *Env, name string, args []string) error {
	_, m, err := labMember(c.Context(), name, args[0])
	if err != nil {
		return err
	}
	argv := []string{e.Executable, "lab", "capture", "--inside"}
	for _, flag := range []string{"interface", "write", "print", "count", "duration", "vxlan-port"} {
		if f := c.Flags().Lookup(flag); f.Changed {
			argv = append(argv, "--"+flag+"="+f.Value.String())
		}
	}
	return lab.Enter(m.Netns, append(append(argv, "--"), args...), os.Environ())
}

// run captures until something ends it.
func (o capturing) run(ctx context.Context, e *Env, member string, filter capture.Filter) (err error) {
	if o.count < 0 || o.duration < 0 {
		return fmt.Errorf("--count %d --duration %s: must not be less than nothing", o.count, o.duration)
	}
	source, err := capture.Open(nil, o.iface)
	if err != nil {
		return err
	}
	defer source.Close()
	w, file, err := o.output(e, member, source.Link())
	if err != nil {
		return err
	}
	if file != nil {
		defer func() { err = errors.Join(err, file.Close()) }()
	}
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	n := 0
	for o.count == 0 || n < o.count {
		f, err := source.Next(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		p, err := capture.Decode(source.Link(), f, o.port)
		if err != nil {
			return err
		}
		if !filter(p) {
			continue
		}
		n++
		if err := o.keep(e, w, f, p); err != nil {
			return err
		}
	}
	lost, err := source.Lost()
	fmt.Fprintf(e.Stderr, "%d packets of %s captured, %d lost\n", n, member, lost)
	return err
}

// output opens what the packets go to: nothing when they are only shown.
func (o capturing) output(e *Env, member string, link capture.Link) (*capture.Writer, *os.File, error) {
	switch {
	case o.file == "" && o.print:
		return nil, nil, nil
	case o.file == "-":
		w, err := capture.NewWriter(e.Stdout, link)
		return w, nil, err
	case o.file == "":
		o.file = member + ".pcap"
	}
	file, err := os.OpenFile(o.file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("make the capture file: %w", err)
	}
	w, err := capture.NewWriter(file, link)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	fmt.Fprintf(e.Stderr, "capturing to %s\n", o.file)
	return w, file, nil
}

// keep writes and shows one packet.
func (o capturing) keep(e *Env, w *capture.Writer, f capture.Frame, p *capture.Packet) error {
	if w != nil {
		if err := w.Write(f); err != nil {
			return err
		}
	}
	if !o.print {
		return nil
	}
	out := io.Writer(e.Stdout)
	if o.file == "-" {
		out = e.Stderr
	}
	where := o.iface
	if p.Interface != 0 {
		if link, err := net.InterfaceByIndex(p.Interface); err == nil {
			where = link.Name
		}
	}
	return showPacket(out, where, p)
}

// showPacket writes one line: the time, the interface and direction if they
// are known, the packet.
func showPacket(w io.Writer, where string, p *capture.Packet) error {
	if p.Interface != 0 {
		where += map[bool]string{true: " out", false: " in"}[p.Outgoing]
	}
	if where != "" {
		where += " "
	}
	_, err := fmt.Fprintf(w, "%s %s%s\n", p.Time.Format("15:04:05.000000000"), where, clean(p.String()))
	return err
}

// readCapture shows the packets of a file that a filter chooses.
func readCapture(e *Env, o capturing, text string) error {
	filter, err := capture.ParseFilter(text)
	if err != nil {
		return err
	}
	file, err := os.Open(o.read)
	if err != nil {
		return err
	}
	defer file.Close()
	r, err := capture.NewReader(file)
	if err != nil {
		return fmt.Errorf("%s: %w", o.read, err)
	}
	shown := 0
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it may still be written
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.read, err)
		}
		p, err := capture.Decode(r.Link(), f, o.port)
		if err != nil {
			return fmt.Errorf("%s: %w", o.read, err)
		}
		if !filter(p) {
			continue
		}
		where := ""
		if p.Interface != 0 {
			where = "interface " + strconv.Itoa(p.Interface)
		}
		if err := showPacket(e.Stdout, where, p); err != nil {
			return err
		}
		if shown++; shown == o.count {
			break
		}
	}
	if shown == 0 {
		return &ExitError{Status: statusNo}
	}
	return nil
}

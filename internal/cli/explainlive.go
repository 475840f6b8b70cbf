package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/lab"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/policytest"
)

// kernelRules is what the kernel of one end's host was told, or why that
// cannot be shown.
type kernelRules struct {
	Workload  string              `json:"workload"`
	Host      string              `json:"host"`
	Interface string              `json:"interface"`
	Text      string              `json:"text,omitempty"`
	Counters  []agentapi.RuleStat `json:"counters,omitempty"`
	Problem   string              `json:"problem,omitempty"`
}

func (k kernelRules) print(e *Env) {
	fmt.Fprintf(e.Stdout, "\nkernel rules of %s, interface %s on %s:\n", word(k.Workload), word(k.Interface), word(k.Host))
	if k.Problem != "" {
		fmt.Fprintln(e.Stdout, "  "+word(k.Problem))
		return
	}
	for l := range strings.Lines(k.Text) {
		fmt.Fprintln(e.Stdout, "  "+clean(strings.TrimRight(l, "\n")))
	}
	for _, c := range k.Counters {
		fmt.Fprintf(e.Stdout, "  %s %s[%d]: %d packets, %d bytes\n", word(c.Owner), word(c.Direction), c.Index, c.Packets, c.Bytes)
	}
}

// probed is what a real packet met.
type probed struct {
	measured  string // answered, silent or unmeasured
	disagrees bool
	text      string
}

// measure asks the network that runs, as far as --rules and --probe want.
func (x *explaining) measure(ctx context.Context, e *Env, answers []*answer) error {
	if !x.rules && !x.probe {
		return nil
	}
	n, err := x.livenet(ctx, e)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if x.rules {
			a.rules = append(n.rules(ctx, a.from, a.verdict.Egress), n.rules(ctx, a.to, a.verdict.Ingress)...)
		}
		if x.probe {
			if a.probe, err = n.probe(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// livenet is how to reach what runs: the hosts of a lab, or the agent of this
// host.
type livenet struct {
	lab   *lab.State // nil: it is none
	local string     // socket of the agent of this host
}

func (x *explaining) livenet(ctx context.Context, e *Env) (*livenet, error) {
	st, err := x.ds.lab(ctx, e)
	if err != nil {
		return nil, err
	}
	return &livenet{lab: st, local: agentSocketOf(e)}, nil
}

// lab is the lab whose datastore the flags name; nil if it is none's.
func (d *datastoreFlags) lab(ctx context.Context, e *Env) (*lab.State, error) {
	cfg, err := d.config(e)
	if err != nil {
		return nil, err
	}
	name, ok := lab.At(strings.Join(cfg.Endpoints, ","))
	if !ok {
		return nil, nil
	}
	cl, err := lab.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := cl.Status(ctx)
	return &st, err
}

// rules asks the agent of the workload's host.
func (n *livenet) rules(ctx context.Context, end policytest.End, d *oracle.Decision) []kernelRules {
	if d == nil || d.Exempt || end.Interface == "" {
		return nil
	}
	out := kernelRules{Workload: end.Name, Host: end.Host, Interface: end.Interface}
	socket, err := n.socket(ctx, end.Host)
	if err == nil {
		var got agentapi.PolicyRules
		got, err = agentclient.New(socket).PolicyRules(ctx, end.Interface)
		out.Text, out.Counters = got.Text, got.Counters
	}
	if err != nil {
		out.Problem = err.Error()
	}
	return []kernelRules{out}
}

// socket is that of the agent of a host, if it can be asked from here.
func (n *livenet) socket(ctx context.Context, host string) (string, error) {
	if n.lab != nil {
		for _, h := range n.lab.Hosts {
			if h.Name == host {
				return h.Socket, nil
			}
		}
		return "", fmt.Errorf("lab %s has no host %s", n.lab.Name, host)
	}
	st, err := agentclient.New(n.local).Status(ctx)
	switch {
	case errors.Is(err, agentclient.ErrNoAgent):
		return "", fmt.Errorf("only the agent of %s can say: run this there", host)
	case err != nil:
		return "", err
	case st.Node != host:
		return "", fmt.Errorf("only the agent of %s can say, and this host is %s: run this there", host, st.Node)
	}
	return n.local, nil
}

// probeTimeout is how long explain waits for the answer of a probe to someone
// who is no workload of the lab.
const probeTimeout = 2 * time.Second

// probe sends a real packet and compares.
func (n *livenet) probe(ctx context.Context, a *answer) (*probed, error) {
	if n.lab == nil {
		return &probed{measured: "unmeasured", text: "not sent: this is no lab, and no agent can send packets in a workload's name"}, nil
	}
	from, ok := n.member(a.from)
	if !ok {
		return &probed{measured: "unmeasured", text: "not sent: " + a.from.Name + " is no workload or host of lab " + n.lab.Name}, nil
	}
	f := a.verdict.Flow
	protocol, port, err := lab.ParseTarget(a.target)
	if err != nil {
		return nil, err
	}
	flow := lab.Flow{From: from, Source: f.Source, Dest: f.Dest, Protocol: protocol, Port: port}
	cell, err := n.send(ctx, flow, a)
	if err != nil {
		return nil, err
	}
	return compare(a.verdict.Allowed, cell), nil
}

// send tries the flow: with controls where both ends are workloads.
func (n *livenet) send(ctx context.Context, f lab.Flow, a *answer) (lab.Cell, error) {
	to, ok := n.member(a.to)
	if f.To = to; ok && f.From.Kind == "workload" && to.Kind == "workload" {
		cells, err := lab.Survey(ctx, *n.lab, []lab.Flow{f}, []bool{a.verdict.Allowed})
		if err != nil {
			return 0, err
		}
		return cells[0], nil
	}
	p := lab.Probe{From: f.From, To: f.Dest, Protocol: f.Protocol, Port: f.Port, Count: 1, Timeout: probeTimeout}
	out, err := p.Send(ctx)
	switch {
	case errors.Is(err, lab.ErrNotMeasured):
		return lab.Unmeasured, nil
	case err != nil:
		return 0, err
	case out.Answered > 0:
		return lab.Reached, nil
	}
	return lab.Silent, nil
}

func compare(allowed bool, cell lab.Cell) *probed {
	switch cell {
	case lab.Reached:
		return &probed{"answered", !allowed, yesNo(allowed, "answered, as the policies say", "ANSWERED, although the policies deny it")}
	case lab.Silent:
		return &probed{"silent", allowed, yesNo(allowed, "NOT ANSWERED, although the policies allow it", "not answered, as the policies say")}
	}
	return &probed{measured: "unmeasured", text: "could not measure: no route, nobody listens, or the host itself gets no answer there"}
}

// member finds an end in the lab.
func (n *livenet) member(end policytest.End) (lab.Member, bool) {
	name := ""
	for _, w := range n.lab.Workloads {
		if w.Host == end.Host && w.HostInterface == end.Interface && end.Interface != "" {
			name = w.Name
		}
	}
	if name == "" && end.Host != "" && end.Interface == "" {
		name = end.Host
	}
	m, err := n.lab.Find(name)
	return m, err == nil
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agent"
	"github.com/brindle-net/brindle/internal/lab"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/policytest"
)

// Exit statuses of explain and policy test beside 0: what was asked for is
// not so, it could not be told, and the kernel does something else.
const (
	statusNo       = 1
	statusUnknown  = 2
	statusDisagree = 3
)

// newExplain builds `brindle explain`.
func newExplain(e *Env) *cobra.Command {
	var x explaining
	c := &cobra.Command{
		Use: "explain --from A --to B[:PORT[/PROTO]]", Short: "Say whether a connection is allowed, and why", GroupID: "look", Args: cobra.NoArgs,
		Long: `Say whether a connection is allowed, and why: what the policies at both ends
say of its first packet, which rule decided, which came nearest to allowing it,
and what is known of who wrote the policy. Staged policies are evaluated too,
and it is told if they would change the answer.

A and B are a workload, by its name, its pod or workload, with or without the
namespace; a host; or an address. PORT/PROTO is as 80/tcp, 53/udp, 9/sctp or
icmp, which is the default; PORT alone is of TCP; an IPv6 address before a port
stands in brackets. The cluster is that of the datastore or, with -f, of files:
those that apply takes, and of Kubernetes also namespaces, pods and what makes
pods, services and endpoint slices.

Exit status: 0 it is allowed, 1 it is denied, 2 it could not be told, 3 the
kernel does something else (--probe).`,
		Example: `  brindle explain --from shop/web --to shop/db:5432
  brindle explain --from 192.0.2.7 --to web:443/tcp -o json
  brindle explain -f policies/ --from web --to db:5432`,
		RunE: func(c *cobra.Command, _ []string) error {
			defer agent.KeepHeapFloor(filesFloor)()
			return withStatus(x.run(c.Context(), e))
		},
	}
	x.ds.addClient(c)
	x.files.add(c)
	f := c.Flags()
	f.StringVar(&x.from, "from", "", "who opens the connection (required)")
	f.StringVar(&x.to, "to", "", "to whom, with the port (required)")
	f.Uint16Var(&x.fromPort, "from-port", 0, "port that it comes from (default one that programs are given)")
	f.StringVar(&x.family, "family", "", "v4 or v6, when both ends have both (default both)")
	f.BoolVar(&x.steps, "steps", false, "list every rule that was looked at, also if they are many")
	f.BoolVar(&x.rules, "rules", false, "show the kernel's rules for both ends, with their counters")
	f.BoolVar(&x.probe, "probe", false, "send a real packet too, between workloads of a lab")
	f.StringVarP(&x.output, "output", "o", "text", "text or json")
	return c
}

// withStatus gives errors the exit status of what could not be told.
func withStatus(err error) error {
	var exit *ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &ExitError{Status: statusUnknown, Err: err}
}

// explaining is one run of explain, as its flags say.
type explaining struct {
	ds                       datastoreFlags
	files                    clusterFiles
	from, to, family, output string
	fromPort                 uint16
	rules, probe, steps      bool
}

// answer is what there is to say of one connection.
type answer struct {
	from, to policytest.End
	target   string // "80/tcp"
	verdict  oracle.Verdict
	staged   oracle.Verdict // if staged policies were enforced
	rules    []kernelRules
	probe    *probed
}

func (x *explaining) run(ctx context.Context, e *Env) error {
	if x.output != "text" && x.output != "json" {
		return fmt.Errorf("output format %q: must be text or json", x.output)
	}
	if x.from == "" || x.to == "" {
		return errors.New("who to whom? Give --from and --to")
	}
	if x.family != "" && x.family != lab.V4 && x.family != lab.V6 {
		return fmt.Errorf("--family %q: must be v4 or v6", x.family)
	}
	name, protocol, port, err := splitTarget(x.to)
	if err != nil {
		return err
	}
	cluster, err := x.cluster(ctx, e)
	if err != nil {
		return err
	}
	answers, err := x.judge(cluster, name, oracle.Flow{Protocol: protocol, DestPort: port, SourcePort: x.fromPort})
	if err != nil {
		return err
	}
	if err := x.measure(ctx, e, answers); err != nil {
		return err
	}
	if x.output == "json" {
		err = writeJSON(e.Stdout, jsonAnswers(answers))
	} else {
		printAnswers(e, answers, x.steps)
	}
	if err != nil {
		return err
	}
	return outcomeOf(answers)
}

// outcomeOf is the exit status of the answers.
func outcomeOf(answers []*answer) error {
	status := 0
	for _, a := range answers {
		switch {
		case a.probe != nil && a.probe.disagrees:
			return &ExitError{Status: statusDisagree}
		case !a.verdict.Allowed:
			status = statusNo
		}
	}
	if status == 0 {
		return nil
	}
	return &ExitError{Status: status}
}

// cluster reads who there is, from files or from the datastore.
func (x *explaining) cluster(ctx context.Context, e *Env) (*policytest.Cluster, error) {
	if len(x.files.names) > 0 {
		if x.rules || x.probe {
			return nil, errors.New("--rules and --probe ask a network that runs: leave out -f")
		}
		c, _, err := x.files.read(ctx, e)
		return c, err
	}
	db, err := x.ds.connect(e)
	if err != nil {
		return nil, err
	}
	defer db.close()
	return liveCluster(ctx, db)
}

// judge asks the oracle, once for each address family that both ends have. A
// family that gives the same answer as the one before is left out.
func (x *explaining) judge(c *policytest.Cluster, to string, f oracle.Flow) ([]*answer, error) {
	sources, err := c.Find(x.from)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	dests, err := c.Find(to)
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	view, staged := oracle.NewView(c.Snapshot()), oracle.NewView(c.Snapshot().Enforced())
	var out []*answer
	for _, src := range sources {
		for _, dst := range dests {
			for _, family := range []string{lab.V4, lab.V6} {
				s, d := src.Addr(family == lab.V4), dst.Addr(family == lab.V4)
				if x.family != "" && x.family != family || !s.IsValid() || !d.IsValid() {
					continue
				}
				flow := policytest.NewFlow(f.Protocol, s, d, f.DestPort)
				if f.SourcePort != 0 {
					flow.SourcePort = f.SourcePort
				}
				a := &answer{from: src, to: dst, target: targetOf(f), verdict: view.Verdict(flow), staged: staged.Outcome(flow)}
				if len(out) == 0 || !out[len(out)-1].like(a) {
					out = append(out, a)
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s and %s have no address of the same family", x.from, to)
	}
	return out, nil
}

// like reports whether an answer says nothing new.
func (a *answer) like(b *answer) bool {
	same := func(p, q *oracle.Decision) bool {
		return p == nil && q == nil || p != nil && q != nil && p.Allowed == q.Allowed && p.By == q.By && p.Endpoint == q.Endpoint
	}
	return a.verdict.Allowed == b.verdict.Allowed && a.staged.Allowed == b.staged.Allowed &&
		same(a.verdict.Egress, b.verdict.Egress) && same(a.verdict.Ingress, b.verdict.Ingress)
}

// splitTarget reads B[:PORT[/PROTO]].
func splitTarget(s string) (name string, protocol uint8, port uint16, err error) {
	name, target := s, ""
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 || len(s) > end+1 && s[end+1] != ':' {
			return "", 0, 0, fmt.Errorf("--to %q: must be as [fd00::1]:80/tcp", s)
		}
		name, target = s[1:end], strings.TrimPrefix(s[end+1:], ":")
	case isAddress(s): // IPv6 without a port
	default:
		if i := strings.LastIndexByte(s, ':'); i >= 0 {
			name, target = s[:i], s[i+1:]
		}
	}
	word, port, err := lab.ParseTarget(target)
	if err != nil {
		return "", 0, 0, fmt.Errorf("--to %q: %w", s, err)
	}
	protocol, err = protocolNumber(word)
	return name, protocol, port, err
}

// protocolNumber is that of a protocol that lab.ParseTarget reads.
func protocolNumber(word string) (uint8, error) {
	n, ok := map[string]uint8{
		"icmp": model.ProtocolICMP, "tcp": model.ProtocolTCP, "udp": model.ProtocolUDP, "sctp": model.ProtocolSCTP,
	}[word]
	if !ok {
		return 0, fmt.Errorf("protocol %q: must be icmp, tcp, udp or sctp", word)
	}
	return n, nil
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// targetOf writes what splitTarget read.
func targetOf(f oracle.Flow) string {
	protocol := strings.ToLower(model.ProtocolName(f.Protocol))
	if !model.HasPorts(f.Protocol) {
		return protocol
	}
	return fmt.Sprintf("%d/%s", f.DestPort, protocol)
}

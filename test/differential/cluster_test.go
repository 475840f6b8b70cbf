// Package differential holds policy to its meaning from end to end: random
// clusters go through the core, the rules and the bytes for the kernel, and
// what comes out does with packets what the oracle says of the objects that
// went in.
package differential

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
)

var here = model.Settings{Node: randworld.Node}

// inCI says that the whole of a test is asked for.
func inCI() bool { return os.Getenv("BRINDLE_CI") == "1" }

// outside is an interface that is no workload's, and who sends from there.
const (
	outside    = "eth0"
	outsideMAC = "\x02\x00\x00\x00\xff\x01"
)

// settings are an agent's. Those that do not change what is allowed vary.
func settings(seed uint64, compiled bool) rules.Config {
	return rules.Config{
		Prefixes: []string{"cali"}, MarkMask: 0xffff0000, CutMark: 0x10000, Compiled: compiled,
		Reject: seed%5 == 1, AllowInvalid: seed%7 == 1, Spoofing: seed%3 == 1,
		LogPrefix: "brindle %k %p", LogGroup: uint16(seed % 2),
		Encapsulations: []rules.Encapsulation{{Protocol: 17, Port: 4789}, {Protocol: 4}},
	}
}

// cluster is a random cluster, and what the core and the oracle make of it.
type cluster struct {
	seed   uint64
	world  *randworld.World
	view   *oracle.View
	tables *desired.Policy
}

func newCluster(seed uint64) *cluster {
	c := &cluster{seed: seed, world: randworld.New(seed)}
	core, all := calc.New(here), oracle.Snapshot{}
	events := c.world.Events()
	for _, e := range events {
		all.Add(e)
	}
	core.Apply(events[:len(events)/2])
	core.Apply(events[len(events)/2:])
	state := core.State()
	c.tables, c.view = &state.Policy, oracle.NewView(all)
	return c
}

// end is one end of a flow that is a workload here.
type end struct {
	*model.Workload
	direction desired.Direction
	decision  oracle.Decision
}

// ends returns the ends that judge a flow, none if both are elsewhere.
func (c *cluster) ends(f model.Flow) []end {
	var out []end
	for _, d := range []desired.Direction{desired.Egress, desired.Ingress} {
		a := f.Source
		if d == desired.Ingress {
			a = f.Dest
		}
		if x := c.view.WorkloadOn(here, a); x != nil {
			out = append(out, end{x, d, c.view.Decide(x.ID, d, f)})
		}
	}
	return out
}

// allowed is what the ends say together.
func allowed(ends []end) bool {
	return !slices.ContainsFunc(ends, func(e end) bool { return !e.decision.Allowed })
}

// packet is the first one of a flow, on its way between these ends.
func (c *cluster) packet(f model.Flow, ends ...end) rules.Packet {
	p := rules.Packet{
		Way: rules.Forwarded, In: outside, Out: outside, EthSource: outsideMAC, Source: f.Source, Dest: f.Dest,
		Protocol: f.Protocol, SourcePort: f.SourcePort, DestPort: f.DestPort, ICMPType: f.ICMPType, ICMPCode: f.ICMPCode,
		State: rules.StateNew,
	}
	for _, e := range ends {
		if e.direction == desired.Ingress {
			p.Out = e.Interface
			continue
		}
		p.In = e.Interface
		if hw, err := net.ParseMAC(e.MAC); err == nil {
			p.EthSource = string(hw)
		}
	}
	return p
}

// machine returns what the bytes for the kernel mean.
func (c *cluster) machine(t testing.TB, compiled bool) *nft.Machine {
	t.Helper()
	m, err := nft.NewMachine(rules.Render(settings(c.seed, compiled), c.tables))
	if err != nil {
		t.Fatalf("seed %d: %v", c.seed, err)
	}
	return m
}

// trace sends a packet through a machine.
func trace(t testing.TB, m *nft.Machine, p rules.Packet) rules.Trace {
	t.Helper()
	out, err := m.Trace(p)
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	return out
}

// counters are those that a packet hit, sorted.
func counters(t rules.Trace) []string {
	var out []string
	for _, s := range t.Steps {
		if s.Counter != "" {
			out = append(out, s.Counter)
		}
	}
	slices.Sort(out)
	return out
}

// explain writes all that is known of a flow that came out wrong.
func (c *cluster) explain(f model.Flow, ends []end, got rules.Trace) string {
	s := fmt.Sprintf("seed %d: %v\n%v", c.seed, f, got)
	for _, e := range ends {
		s += e.decision.Text(true)
	}
	return s
}

// family is that of an address: 4 or 6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// someWay is the packet of a flow between the interfaces that have its
// addresses, without asking the oracle.
func (c *cluster) someWay(f model.Flow) rules.Packet {
	var ends []end
	for name, e := range c.tables.Endpoints {
		for d, a := range map[desired.Direction]netip.Addr{desired.Egress: f.Source, desired.Ingress: f.Dest} {
			if slices.Contains(e.Addrs, a) {
				ends = append(ends, end{Workload: &model.Workload{Interface: name, MAC: e.MAC}, direction: d})
			}
		}
	}
	return c.packet(f, ends...)
}

// diff lists the lines that only one of two texts has.
func diff(a, b string) string {
	in := map[string]int{}
	for l := range strings.Lines(a) {
		in[l]--
	}
	for l := range strings.Lines(b) {
		in[l]++
	}
	var out strings.Builder
	for _, l := range slices.Sorted(maps.Keys(in)) {
		switch {
		case in[l] < 0:
			out.WriteString("- " + l)
		case in[l] > 0:
			out.WriteString("+ " + l)
		}
	}
	return out.String()
}

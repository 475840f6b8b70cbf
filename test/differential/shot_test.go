package differential

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// cutMark is the bit of a connection's mark that says that policy cut it.
const cutMark = 0x10000

// shot is a packet as one end of it alone is to judge it: mostly the first of
// a flow. A stray one is of a workload interface that nobody knows.
type shot struct {
	at       near
	flow     model.Flow
	state    rules.ConnState
	connMark uint32
	stray    bool
}

// forged reports whether a flow speaks for a router or a neighbour: those are
// not for policy.
func forged(f model.Flow) bool {
	return f.Protocol == model.ProtocolICMPv6 && 133 <= f.ICMPType && f.ICMPType <= 137
}

// packet is a shot on its way between its one end and outside.
func (a *atlas) packet(s shot) rules.Packet {
	f, name, mac := s.flow, "calistray", ""
	if e := a.endpoints[a.iface[s.at.addr]]; e != nil && !s.stray {
		name, mac = a.iface[s.at.addr], e.MAC
	}
	p := rules.Packet{
		Way: rules.Forwarded, In: outside, Out: outside, EthSource: outsideMAC, Source: f.Source, Dest: f.Dest,
		Protocol: f.Protocol, SourcePort: f.SourcePort, DestPort: f.DestPort, ICMPType: f.ICMPType, ICMPCode: f.ICMPCode,
		State: s.state, ConnMark: s.connMark,
	}
	if s.at.direction == desired.Ingress {
		p.Out = name
		return p
	}
	p.In = name
	if hw, err := net.ParseMAC(mac); err == nil {
		p.EthSource = string(hw)
	}
	return p
}

// outcome is what can be seen of what becomes of a packet.
type outcome struct {
	accepted bool
	mark     uint32 // that an accepted packet goes on with
	counted  string // the counters of policy rules that it hit
}

func outcomeOf(t rules.Trace) outcome {
	out := outcome{accepted: t.Accepted, counted: strings.Join(ruleCounters(t), " ")}
	if t.Accepted {
		out.mark = t.Mark
	}
	return out
}

// ruleCounters are those of policy rules that a packet hit, sorted.
func ruleCounters(t rules.Trace) []string {
	return slices.DeleteFunc(counters(t), func(c string) bool { return !strings.HasPrefix(c, "c-") })
}

// hits are the counters of the rules that a decision says a packet matched,
// sorted: those that logged and passed it on, and the one that decided.
func hits(d oracle.Decision) []string {
	var out []string
	steps := func(list []oracle.Step) {
		for _, s := range list {
			for _, r := range s.Rules {
				if r.Matched && !s.Staged {
					out = append(out, rules.RuleCounter(desired.RulesID{Owner: s.Owner, Direction: d.Direction}, r.Index))
				}
			}
		}
	}
	for _, t := range d.Tiers {
		steps(t.Policies)
	}
	steps(d.Profiles)
	slices.Sort(out)
	return out
}

// expect is what the oracle says of a shot, and of later packets what is
// documented of connections.
func (c *cluster) expect(s shot, cfg rules.Config) outcome {
	switch {
	case s.state&rules.StateInvalid == 0 && s.connMark&cutMark != 0, s.at.direction == desired.Egress && speaksForRouters(s.flow):
		return outcome{}
	case s.state&(rules.StateEstablished|rules.StateRelated) != 0:
		return outcome{accepted: true}
	case s.stray, s.state&rules.StateInvalid != 0 && !cfg.AllowInvalid:
		return outcome{}
	}
	d := c.view.Decide(c.view.WorkloadOn(here, s.at.addr).ID, s.at.direction, s.flow)
	return outcome{accepted: d.Allowed, counted: strings.Join(hits(d), " ")}
}

// speaksForRouters reports whether a flow is what no workload may send: redirects
// (RFC 792), and of neighbour discovery (RFC 4861) these, router advertisements,
// and neighbour advertisements, of which the packets here name no target.
func speaksForRouters(f oracle.Flow) bool {
	switch f.Protocol {
	case 1:
		return f.Source.Is4() && f.ICMPType == 5
	case 58:
		return f.Source.Is6() && slices.Contains([]uint8{134, 136, 137}, f.ICMPType)
	}
	return false
}

func (s shot) String() string {
	return fmt.Sprintf("%v alone, %v, state %d, mark %#x, stray %v", s.at.direction, s.flow, s.state, s.connMark, s.stray)
}

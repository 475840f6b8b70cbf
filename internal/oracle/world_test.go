package oracle_test

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
)

var here = model.Settings{Node: randworld.Node}

// TestTablesMeanWhatTheObjectsSay decides random flows in random clusters
// twice: from the objects, and from the tables that the policy back end gets,
// by reading them as it must. The run reports what decided. Both families are
// in every cluster.
func TestTablesMeanWhatTheObjectsSay(t *testing.T) {
	clusters := uint64(4_000)
	switch { // the race detector has nothing to find here, and makes it ten times as dear
	case underRace:
		clusters = 300
	case os.Getenv("BRINDLE_CI") == "1":
		clusters = 20_000
	}
	seen := oracle.NewCoverage()
	for seed := range clusters {
		w, s := randworld.New(seed), oracle.Snapshot{}
		for _, e := range w.Events() {
			s.Add(e)
		}
		tables, view := oracle.Desired(s, here).Policy, oracle.NewView(s)
		for range 6 {
			f := w.Flow()
			for d, a := range map[desired.Direction]netip.Addr{desired.Egress: f.Source, desired.Ingress: f.Dest} {
				x := view.WorkloadOn(here, a)
				if x == nil {
					continue
				}
				want := view.Decide(x.ID, d, f)
				seen.Count(want)
				if got := (reading{tables, f}).allows(tables.Endpoints[x.Interface], d); got != want.Allowed {
					t.Fatalf("seed %d: the tables say %v of %v, and the objects\n%s", seed, got, f, want.Text(true))
				}
			}
		}
	}
	t.Logf("%d clusters\n%v", clusters, seen)
	if underRace {
		return
	}
	for _, s := range seen.Seldom(int(clusters / 200)) {
		t.Error(s)
	}
}

// reading is the plainest reading of a back end's tables.
type reading struct {
	desired.Policy
	f model.Flow
}

func (r reading) allows(e *desired.Endpoint, d desired.Direction) bool {
	if e == nil {
		return false
	}
	tiers := e.Egress
	if d == desired.Ingress {
		tiers = e.Ingress
	}
nextTier:
	for _, t := range tiers {
		for _, owner := range t.Policies {
			switch r.list(desired.RulesID{Owner: owner, Direction: d}) {
			case desired.Allow:
				return true
			case desired.Deny:
				return false
			case desired.Pass:
				continue nextTier
			}
		}
		if !t.Pass {
			return false
		}
	}
	for _, owner := range e.Profiles {
		switch r.list(desired.RulesID{Owner: owner, Direction: d}) {
		case desired.Allow:
			return true
		case desired.Deny:
			return false
		}
	}
	return false
}

// list returns the action of the first rule that matches and does more than
// log, 0 if there is none. What is not there denies.
func (r reading) list(id desired.RulesID) desired.Action {
	list := r.Rules[id]
	if list == nil {
		return desired.Deny
	}
	for _, rule := range list.Rules {
		if rule.Action != desired.Log && r.rule(rule) {
			return rule.Action
		}
	}
	return 0
}

func (r reading) rule(p desired.PolicyRule) bool {
	family := p.IPv6
	if r.f.Source.Is4() {
		family = p.IPv4
	}
	return family && (p.Protocol == 0 || p.Protocol == r.f.Protocol) && (p.NotProtocol == 0 || p.NotProtocol != r.f.Protocol) &&
		(p.ICMP == nil || r.icmp(*p.ICMP)) && (p.NotICMP == nil || !r.icmp(*p.NotICMP)) &&
		r.side(p.Source, r.f.Source, r.f.SourcePort) && r.side(p.Destination, r.f.Dest, r.f.DestPort)
}

func (r reading) icmp(m desired.ICMP) bool {
	number := uint8(58)
	if r.f.Source.Is4() {
		number = 1
	}
	return r.f.Protocol == number && r.f.ICMPType == m.Type && (m.Code < 0 || int(r.f.ICMPCode) == int(m.Code))
}

func (r reading) side(s desired.Side, a netip.Addr, port uint16) bool {
	within := func(nets []netip.Prefix) bool {
		return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
	}
	if len(s.Nets) > 0 && !within(s.Nets) || within(s.NotNets) {
		return false
	}
	for _, id := range s.Sets {
		if !r.inSet(id, a) {
			return false
		}
	}
	for _, id := range s.NotSets {
		if r.inSet(id, a) {
			return false
		}
	}
	asked := len(s.Ports)+len(s.PortSets) > 0
	return (!asked || r.onPort(s.Ports, s.PortSets, a, port)) && !r.onPort(s.NotPorts, s.NotPortSets, a, port)
}

func (r reading) inSet(id desired.SetID, a netip.Addr) bool {
	for m := range r.Sets[id].Members {
		if m.Prefix.Contains(a) {
			return true
		}
	}
	return false
}

func (r reading) onPort(ranges []desired.PortRange, sets []desired.SetID, a netip.Addr, port uint16) bool {
	if p := r.f.Protocol; p != 6 && p != 17 && p != 132 {
		return false
	}
	if slices.ContainsFunc(ranges, func(p desired.PortRange) bool { return p.Min <= port && port <= p.Max }) {
		return true
	}
	return slices.ContainsFunc(sets, func(id desired.SetID) bool {
		_, ok := r.Sets[id].Members[desired.Member{
			Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: r.f.Protocol, Port: port,
		}]
		return ok
	})
}

package rules

import (
	"maps"
	"slices"
	"strings"
)

// Workload is the part of a program that judges packets of one workload.
type Workload struct {
	Text     string
	Counters []string // that rules in it count with, sorted
}

// Workload returns what judges packets from and to a workload's interface:
// the chains that the program dispatches it to, and all that they lead to.
// false: the program has no such workload.
func (p *Program) Workload(iface string) (Workload, bool) {
	key := iface + strings.Repeat("\x00", max(0, InterfaceType.Size()-len(iface)))
	seen := map[string]bool{}
	var order []string
	counters := map[string]bool{}
	found := false
	for _, name := range slices.Sorted(maps.Keys(p.Sets)) {
		s := p.Sets[name]
		if s.Value != ChainValue || !slices.Equal(s.Key, []Type{InterfaceType}) {
			continue
		}
		if e, ok := s.Elements[key]; ok {
			found = true
			order = p.reach(e.Name, seen, order, counters)
		}
	}
	if !found {
		return Workload{}, false
	}
	var b strings.Builder
	for _, name := range order {
		b.WriteString(p.Chains[name].String())
	}
	return Workload{b.String(), slices.Sorted(maps.Keys(counters))}, true
}

// reach adds a chain and those that it leads to, in the order in which a
// packet gets to them.
func (p *Program) reach(name string, seen map[string]bool, order []string, counters map[string]bool) []string {
	c := p.Chains[name]
	if c == nil || seen[name] {
		return order
	}
	seen[name] = true
	order = append(order, name)
	for _, r := range c.Rules {
		for _, s := range r.Do {
			switch s := s.(type) {
			case Jump:
				order = p.reach(s.Chain, seen, order, counters)
			case Goto:
				order = p.reach(s.Chain, seen, order, counters)
			case Count:
				counters[s.Counter] = true
			}
		}
	}
	return order
}

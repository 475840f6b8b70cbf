package nft

import (
	"maps"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
)

// reach knows which chains and sets of a program packets can come to. Only
// these are put into the kernel: plain rules are not there as long as look-ups
// decide without them.
type reach struct {
	live map[node]edges
	refs map[node]int  // how often what is live refers to something
	was  map[node]bool // of what came or went in a change: whether it was live
}

// A node is a chain or a set.
type node struct {
	set  bool
	name string
}

// edges are what a node refers to, and how often.
type edges map[node]int

// reached returns what of a program packets can come to.
func reached(p *rules.Program) *reach {
	r := &reach{live: map[node]edges{}, refs: map[node]int{}, was: map[node]bool{}}
	var hooked []node
	for name, c := range p.Chains {
		if c.Hook != nil {
			hooked = append(hooked, node{name: name})
		}
	}
	r.settle(p, hooked)
	return r
}

// program is p without what no packet comes to.
func (r *reach) program(p *rules.Program) *rules.Program {
	out := *p // all that is neither chain nor set stays as it is
	out.Chains, out.Sets = map[string]*rules.Chain{}, map[string]*rules.Set{}
	for n := range r.live {
		if n.set {
			out.Sets[n.name] = p.Sets[n.name]
		} else {
			out.Chains[n.name] = p.Chains[n.name]
		}
	}
	return &out
}

// settle makes live what is referred to, or has a hook, and drops what no longer
// is. asked are the nodes that may have come to that.
func (r *reach) settle(p *rules.Program, asked []node) {
	var left []node // that may be live and referred to by nothing
	for len(asked) > 0 {
		n := asked[len(asked)-1]
		asked = asked[:len(asked)-1]
		if _, live := r.live[n]; live {
			left = append(left, n)
			continue
		}
		if !r.wanted(p, n) {
			continue
		}
		now := edgesOf(p, n)
		r.live[n] = now
		r.note(n, false)
		for to, times := range now {
			if r.refs[to] += times; r.refs[to] == times {
				asked = append(asked, to)
			}
		}
	}
	for len(left) > 0 {
		n := left[len(left)-1]
		left = left[:len(left)-1]
		old, live := r.live[n]
		if !live || r.wanted(p, n) {
			continue
		}
		delete(r.live, n)
		r.note(n, true)
		for to, times := range old {
			if r.drop(to, times) {
				left = append(left, to)
			}
		}
	}
}

// note remembers whether a node was live when the change began.
func (r *reach) note(n node, was bool) {
	if _, known := r.was[n]; !known {
		r.was[n] = was
	}
}

// wanted reports whether a node is there, and has to be live.
func (r *reach) wanted(p *rules.Program, n node) bool {
	if n.set {
		return r.refs[n] > 0 && p.Sets[n.name] != nil
	}
	c := p.Chains[n.name]
	return c != nil && (c.Hook != nil || r.refs[n] > 0)
}

// drop takes references away, and reports whether there are none left.
func (r *reach) drop(n node, times int) bool {
	if r.refs[n] -= times; r.refs[n] > 0 {
		return false
	}
	delete(r.refs, n)
	return true
}

// edgesOf returns what a node of a program refers to.
func edgesOf(p *rules.Program, n node) edges {
	out := edges{}
	if n.set {
		if s := p.Sets[n.name]; s != nil && s.Value == rules.ChainValue {
			for _, e := range s.Elements {
				out[node{name: e.Name}]++
			}
		}
		return out
	}
	for _, r := range p.Chains[n.name].Rules {
		for _, m := range r.Matches {
			out.toSet(m.Set)
		}
		for _, s := range r.Do {
			switch s := s.(type) {
			case rules.Jump:
				out[node{name: s.Chain}]++
			case rules.Goto:
				out[node{name: s.Chain}]++
			case rules.Dispatch:
				out.toSet(s.Map)
			case rules.MarkBy:
				out.toSet(s.Map)
			case rules.CountBy:
				out.toSet(s.Map)
			case rules.Decide:
				out.toSet(s.Classes)
				out.toSet(s.Rows)
				out.toSet(s.Counted)
			}
		}
	}
	return out
}

func (e edges) toSet(name string) {
	if name != "" {
		e[node{true, name}]++
	}
}

// change takes in what has changed in a program, and returns what of that
// concerns the kernel.
func (r *reach) change(p *rules.Program, d rules.Delta) rules.Delta {
	r.was = map[node]bool{}
	var asked []node
	for name := range d.Chains.Set {
		asked = r.renew(p, d, node{name: name}, asked)
	}
	for _, name := range d.Chains.Delete {
		asked = r.renew(p, d, node{name: name}, asked)
	}
	for name := range d.Sets {
		asked = r.renew(p, d, node{true, name}, asked)
	}
	r.settle(p, asked)
	return r.told(p, d)
}

// renew finds out anew what a node refers to that has changed. It appends what
// may have come or gone by that.
func (r *reach) renew(p *rules.Program, d rules.Delta, n node, asked []node) []node {
	asked = append(asked, n)
	old, live := r.live[n]
	if !live {
		return asked
	}
	if s := d.Sets[n.name]; n.set && !s.Gone && s.Define == nil {
		if p.Sets[n.name].Value != rules.ChainValue {
			return asked
		}
		for _, e := range s.Add {
			to := node{name: e.Name}
			old[to]++
			r.refs[to]++
			asked = append(asked, to)
		}
		for _, e := range s.Remove {
			to := node{name: e.Name}
			if old[to]--; old[to] == 0 {
				delete(old, to)
			}
			r.drop(to, 1)
			asked = append(asked, to)
		}
		return asked
	}
	now := edges{}
	if n.set && p.Sets[n.name] != nil || !n.set && p.Chains[n.name] != nil {
		now = edgesOf(p, n)
	}
	r.live[n] = now
	for to, times := range now {
		r.refs[to] += times
		asked = append(asked, to)
	}
	for to, times := range old {
		r.drop(to, times)
		asked = append(asked, to)
	}
	return asked
}

// told returns of a delta what concerns what is live, with what has come to
// that in this change, and without what no longer is.
func (r *reach) told(p *rules.Program, d rules.Delta) rules.Delta {
	out := d
	out.Sets, out.Chains = map[string]rules.SetDelta{}, desired.Patch[string, *rules.Chain]{Set: map[string]*rules.Chain{}}
	tell := func(n node, s rules.SetDelta) {
		_, now := r.live[n]
		was, moved := r.was[n]
		switch was = was || !moved && now; {
		case !now && was && n.set:
			out.Sets[n.name] = rules.SetDelta{Gone: true}
		case !now && was:
			out.Chains.Delete = append(out.Chains.Delete, n.name)
		case !now:
		case !n.set:
			out.Chains.Set[n.name] = p.Chains[n.name]
		case was:
			out.Sets[n.name] = s
		default:
			out.Sets[n.name] = rules.SetDelta{Define: p.Sets[n.name]}
		}
		delete(r.was, n)
	}
	for name := range d.Chains.Set {
		tell(node{name: name}, rules.SetDelta{})
	}
	for _, name := range d.Chains.Delete {
		tell(node{name: name}, rules.SetDelta{})
	}
	for name, s := range d.Sets {
		tell(node{true, name}, s)
	}
	for n := range maps.Clone(r.was) {
		tell(n, rules.SetDelta{})
	}
	return out
}

package calc

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// active is the stage that settles who has which interface and address among
// the workloads of this host: the first by name. A workload without address
// is not there (documented Calico behaviour), and one that names an interface
// of the host or an address of any host does not get it: whoever may write
// endpoints shall not reroute the hosts.
type active struct {
	workloads []activeWorkload // by ID
	addrs     map[netip.Addr]bool
	asked     map[netip.Addr]bool // what workloads say they have, whether they get it or not
	clashes   desired.Notices
	// What the last batch changed: workloads as they were, and as they are.
	went, came []activeWorkload
}

type activeWorkload struct {
	*model.Workload
	addrs []netip.Addr // those that are routed to it
}

// same reports whether nothing about a workload is different.
func (w activeWorkload) same(o activeWorkload) bool {
	return w.Workload == o.Workload && slices.Equal(w.addrs, o.addrs)
}

func (a *active) update(in *inputs, o *overlay, t *touched) {
	a.went, a.came = nil, nil
	if !t.workloads && !a.meets(o.dirty.addrs) {
		return
	}
	t.workloads = true
	before := a.workloads
	n := len(in.local)
	*a = active{addrs: make(map[netip.Addr]bool, n), asked: make(map[netip.Addr]bool, n), clashes: desired.Notices{}}
	a.workloads = make([]activeWorkload, 0, n)
	byInterface := make(map[string]int, n) // places in the list
	byAddr := make(map[netip.Addr]int, n)
	for at, id := range in.local {
		w := in.workloads[id]
		if len(w.Addrs) == 0 || w.Interface == "" {
			continue
		}
		if !in.set.WorkloadInterface(w.Interface) {
			a.clashes.ForeignInterface(id.String(), w.Interface)
			continue
		}
		if first, taken := byInterface[w.Interface]; taken {
			a.clashes.DuplicateInterface(id.String(), in.local[first].String(), w.Interface)
			continue
		}
		byInterface[w.Interface] = at
		won := activeWorkload{Workload: w}
		for _, addr := range w.Addrs {
			if in.set.NoIPv6 && addr.Is6() {
				continue
			}
			a.asked[addr] = true
			if host := o.hostOf(addr); host != "" {
				a.clashes.HostAddress(id.String(), host, addr)
				continue
			}
			first, taken := byAddr[addr]
			switch {
			case !taken:
				byAddr[addr], a.addrs[addr] = at, true
				won.addrs = append(won.addrs, addr)
			case first != at:
				a.clashes.DuplicateAddress(id.String(), in.local[first].String(), addr)
			}
		}
		a.workloads = append(a.workloads, won)
	}
	a.compare(before)
}

// compare finds what is different from before.
func (a *active) compare(before []activeWorkload) {
	after := a.workloads
	for len(before) > 0 || len(after) > 0 {
		order := -1
		if len(before) == 0 {
			order = 1
		} else if len(after) > 0 {
			order = before[0].ID.Compare(after[0].ID)
		}
		if order != 0 || !before[0].same(after[0]) {
			if order <= 0 {
				a.went = append(a.went, before[0])
			}
			if order >= 0 {
				a.came = append(a.came, after[0])
			}
		}
		if order <= 0 {
			before = before[1:]
		}
		if order >= 0 {
			after = after[1:]
		}
	}
}

// meets reports whether a workload says that it has one of these addresses of
// hosts: then it may get it, or lose it.
func (a *active) meets(hosts map[netip.Addr]bool) bool {
	if len(a.asked) == 0 {
		return false
	}
	for addr := range hosts {
		if a.asked[addr] {
			return true
		}
	}
	return false
}

// owned is the stage that knows the blocks of this host.
type owned struct{ blocks []ownBlock }

type ownBlock struct {
	cidr      netip.Prefix
	confirmed bool
	elsewhere []netip.Addr // addresses that other hosts use
}

// update takes the claims of this host in any state, but for those to blocks
// that say they are somebody else's: a lost race. That somebody here got an
// address of a block is no change.
func (o *owned) update(in *inputs, t *touched) {
	if !t.blocks {
		return
	}
	before := o.blocks
	o.blocks = nil
	for _, claim := range in.claims {
		if in.set.NoIPv6 && claim.CIDR.Addr().Is6() {
			continue
		}
		own := ownBlock{cidr: claim.CIDR, confirmed: claim.Confirmed}
		if b := in.blocks[model.BlockID(claim.CIDR)]; b != nil {
			if in.elsewhere(b) {
				continue
			}
			for _, use := range b.Uses {
				if use.Node != "" && use.Node != in.set.Node {
					own.elsewhere = append(own.elsewhere, use.Addr)
				}
			}
		}
		o.blocks = append(o.blocks, own)
	}
	t.blocks = t.first || !slices.EqualFunc(before, o.blocks, ownBlock.same)
}

func (b ownBlock) same(o ownBlock) bool {
	return b.cidr == o.cidr && b.confirmed == o.confirmed && slices.Equal(b.elsewhere, o.elsewhere)
}

package rules

import (
	"net"
	"net/netip"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// Names of what is always there.
const (
	mapFrom, mapTo   = "from", "to" // interface to the chain of its group
	setWorkloads     = "workloads"
	setMACs          = "workload-macs"
	setAnyMAC        = "workloads-any-mac"
	setSources       = "sources"     // + family: of endpoints that may have any MAC
	setSourcesMAC    = "sources-mac" // + family
	setPrefixes      = "prefixes"    // + family
	setARPOwn        = "arp-own"
	setARPMACs       = "arp-macs"
	setARPAnyMAC     = "arp-any-mac"
	setARPPrefixes   = "arp-prefixes"
	chainCareful     = "careful"
	counterMissing   = "d-missing"
	chainMissing     = "no-rules" // nft(8) has a keyword "missing"
	counterNoProfile = "d-no-profile"
)

// endpointState is what of an endpoint is in the program.
type endpointState struct {
	groups   [2]string // by direction
	elements []placed
	addrs    []netip.Addr
}

// placed is an element and the set that it is in.
type placed struct {
	set string
	Element
}

func (b *Builder) patchEndpoints(want *desired.Policy, patch *desired.PolicyPatch) {
	if b.compiler != nil {
		b.compiler.learnEndpoints(patch)
	}
	// What comes is made before what goes is let go, so that shared chains stay.
	var gone []*endpointState
	for iface := range patch.Endpoints.Set {
		if old := b.endpoints[iface]; old != nil {
			gone = append(gone, old)
			b.dropElements(old)
		}
		st := b.newEndpoint(iface, want.Endpoints[iface])
		b.endpoints[iface] = st
		for _, e := range st.elements {
			b.putElement(e.set, e.Element)
		}
	}
	for _, iface := range patch.Endpoints.Delete {
		if old := b.endpoints[iface]; old != nil {
			gone = append(gone, old)
			b.dropElements(old)
			delete(b.endpoints, iface)
		}
	}
	for _, old := range gone {
		for _, g := range old.groups {
			b.releaseGroup(g)
		}
	}
}

func (b *Builder) dropElements(st *endpointState) {
	for _, e := range st.elements {
		b.dropElement(e.set, e.Lo)
	}
}

func (b *Builder) newEndpoint(iface string, ep *desired.Endpoint) *endpointState {
	st := &endpointState{addrs: ep.Addrs}
	name := interfaceBytes(iface)
	put := func(set string, e Element) { st.elements = append(st.elements, placed{set, e}) }
	for i, m := range []string{mapTo, mapFrom} { // in the order of desired.Ingress, Egress
		dir := desired.Direction(i)
		tiers := ep.Ingress
		if dir == desired.Egress {
			tiers = ep.Egress
		}
		st.groups[i] = b.holdGroup(dir, tiers, ep.Profiles)
		put(m, Element{Lo: name, Name: st.groups[i]})
	}
	put(setWorkloads, Element{Lo: name})
	sender, sources, anyMAC := name, setSourcesMAC, ep.MAC == ""
	if mac, err := net.ParseMAC(ep.MAC); err == nil && len(mac) == 6 {
		sender += string(mac)
		put(setMACs, Element{Lo: sender})
		put(setARPMACs, Element{Lo: sender})
	} else if anyMAC {
		sources = setSources
		put(setAnyMAC, Element{Lo: name})
		put(setARPAnyMAC, Element{Lo: name})
	} // else nothing has this address: it may send nothing
	for _, a := range ep.Addrs {
		a = a.Unmap()
		put(sources+familyOf(a).digit(), Element{Lo: sender + addrBytes(a)})
		if a.Is4() {
			put(setARPOwn, Element{Lo: name + addrBytes(a)})
		}
	}
	if b.cfg.Spoofing {
		st.prefixes(name, ep, put)
	}
	return st
}

func (st *endpointState) prefixes(name string, ep *desired.Endpoint, put func(string, Element)) {
	for _, f := range families {
		nets := newNetSet()
		for _, p := range ep.Sources {
			if p = canonical(p); familyOf(p.Addr()) == f {
				nets.add(p)
			}
		}
		for _, p := range nets.outermost() {
			put(setPrefixes+f.digit(), rangeElement(name, p))
			if f == 4 {
				put(setARPPrefixes, rangeElement(name, p))
			}
		}
	}
}

// interfaceBytes is a name as the kernel has it. It has at most 15 bytes.
func interfaceBytes(name string) string {
	name = name[:min(len(name), 15)]
	return name + strings.Repeat("\x00", 16-len(name))
}

package rules

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// Translates reports whether the program gives connections other sources, or
// did: then its next one must say so, too (NAT.Begun).
func (b *Builder) Translates() bool { return b.cfg.NAT.Begun }

// priorityNAT is where sources are usually rewritten (NF_IP_PRI_NAT_SRC).
const priorityNAT = 100

const chainNAT = "nat"

// natChains rewrite the sources of new connections: of those of this host into
// a tunnel, so that answers come back through it, and of those of workloads
// to outside. What stays inside of the pools is never touched.
func (b *Builder) natChains(chains map[string]*Chain) {
	var list []Rule
	for _, name := range slices.Sorted(maps.Keys(b.overlay.tunnels)) {
		if a := b.overlay.tunnels[name]; a.IsValid() {
			list = append(list, b.intoTunnel(name, a)...)
		}
	}
	for i, f := range families {
		if !b.overlay.outside(i) {
			continue
		}
		list = append(list, b.toOutside(i, f).do(Goto{"nat-out" + f.digit()}))
		to := b.cfg.NAT.Address.Unmap()
		if !to.IsValid() || familyOf(to) != f {
			to = netip.Addr{}
		}
		chains["nat-out"+f.digit()] = &Chain{Name: "nat-out" + f.digit(), Rules: b.newSource(nil, to, b.cfg.NAT.Ports)}
	}
	if b.cfg.NAT.Begun = b.cfg.NAT.Begun || len(list) > 0; b.cfg.NAT.Begun {
		chains[chainNAT] = natBase(list...)
	}
}

// natBase is the chain that rewrites sources. Once there, it stays, even without
// a rule: the kernel goes on translating connections that it has begun to
// translate only while a chain of this kind is there. Where nothing was ever
// translated there is none: it costs every packet a look, and every connection
// the note that it keeps its source.
func natBase(rules ...Rule) *Chain {
	c := base(chainNAT, Postrouting, priorityNAT, rules...)
	c.Hook.NAT = true
	return c
}

// outside reports whether a family has pools whose packets get another source.
func (o *overlay) outside(i int) bool { return []bool{o.shape.nat4, o.shape.nat6}[i] }

// intoTunnel gives packets of this host's own that leave by a tunnel the
// tunnel's address.
func (b *Builder) intoTunnel(name string, a netip.Addr) []Rule {
	f := familyOf(a)
	own := []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	source := Source4
	if f == 6 {
		source = Source6
		own = append(own, netip.MustParsePrefix("fe80::/10")) // the interface's too
	}
	m := on{
		bytesOf(Family, byte(f)), is(OutInterface, interfaceBytes(name)),
		{Fields: []Field{source}, Not: true, In: addressRanges(own, f)}, is(SourceIs, RouteLocal),
	}
	return b.newSource(m, netip.Addr{}, desired.PortRange{})
}

// toOutside matches packets from pools with Masquerade to what is in no pool.
func (b *Builder) toOutside(i int, f family) on {
	source, dest := []Field{Source4, Source6}[i], []Field{Destination4, Destination6}[i]
	not := func(set string) Match {
		m := inSet(set, dest)
		m.Not = true
		return m
	}
	m := on{bytesOf(Family, byte(f))}
	switch name, all := strings.CutSuffix(b.cfg.NAT.Interface, "+"); {
	case name == "":
	case all:
		m = m.and(stem(OutInterface, name))
	default:
		m = m.and(is(OutInterface, interfaceBytes(name)))
	}
	m = m.and(inSet(setNATPools+f.digit(), source), not(setPools+f.digit()))
	if b.cfg.NAT.KeepToHosts {
		m = m.and(not(setHosts+f.digit()), not(setHosts+netsOf+f.digit()))
	}
	return m
}

// newSource rewrites sources, with ports for TCP and UDP. Those of UDP leave
// out that of VXLAN while this cluster uses it: answers would be taken for it.
func (b *Builder) newSource(m on, to netip.Addr, ports desired.PortRange) []Rule {
	var list []Rule
	if ports.Max != 0 {
		list = append(list, m.and(bytesOf(Protocol, protoTCP)).do(SourceNAT{to, ports}))
	}
	udp := ports
	if b.overlay.shape.vxlan {
		udp = besides(ports, b.cfg.VXLAN.Port)
	}
	if udp.Max != 0 {
		list = append(list, m.and(bytesOf(Protocol, protoUDP)).do(SourceNAT{to, udp}))
	}
	return append(list, m.do(SourceNAT{To: to}))
}

// besides returns the wider part of a range of ports on one side of a port; of
// those from 1024 on if the range is any.
func besides(in desired.PortRange, port uint16) desired.PortRange {
	if in.Max == 0 {
		in = desired.PortRange{Min: 1024, Max: 65535}
	}
	if port < in.Min || port > in.Max || in.Min == in.Max {
		return in
	}
	below, above := int(port)-int(in.Min), int(in.Max)-int(port)
	if below > above {
		return desired.PortRange{Min: in.Min, Max: port - 1}
	}
	return desired.PortRange{Min: port + 1, Max: in.Max}
}

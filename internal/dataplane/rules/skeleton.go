package rules

import (
	"net/netip"
	"slices"
)

// Priorities of our chains, as documented. Defragmentation is at -400,
// connection tracking at -200, other filters usually at 0.
const (
	prioritySources = -450 // ahead of defragmentation: see spoofChains
	priorityRaw     = -300 // ahead of connection tracking
	priorityFrom    = 0    // what leaves workloads
	priorityTo      = 1    // what goes to workloads, or to the host from them
)

// ICMPv6 types (RFC 4443, 4861, 2710, 3810).
const (
	unreachable6, tooBig, timeExceeded6, parameter6 = 1, 2, 3, 4

	mldQuery, mldReport, mldDone = 130, 131, 132
	routerSolicit, routerAdvert  = 133, 134
	neighbourSolicit             = 135
	neighbourAdvert              = 136
	redirect, mldReport2         = 137, 143
)

// ICMP types (RFC 792).
const unreachable, sourceQuench, redirect4, timeExceeded, parameter = 3, 4, 5, 11, 12

// skeleton makes what is always there.
func (b *Builder) skeleton() {
	for _, s := range b.fixedSets() {
		b.addSet(s)
	}
	for _, c := range []Counter{
		{Name: "d-spoof", What: "a workload's packet that is not from its own address"},
		{Name: CounterEncapsulation, What: "an encapsulated packet from a workload"},
		{Name: CounterUnknownIPIP, What: "IP in IP from no known host"},
		{Name: CounterUnknownVXLAN, What: "this cluster's VXLAN from no known host"},
		{Name: "d-router", What: "a router advertisement or redirect from a workload"},
		{Name: "d-error", What: "a workload's ICMP error about a packet that it was never sent"},
		{Name: "d-loopback", What: "from a workload to this host's 127.0.0.0/8"},
		{Name: "d-cut", What: "a connection that policy no longer allows"},
		{Name: "d-invalid", What: "a workload's packet of no connection"},
		{Name: "d-unknown-from", What: "from a workload interface of no known endpoint"},
		{Name: "d-unknown-to", What: "to a workload interface of no known endpoint"},
		{Name: "d-to-host", What: "from a workload to this host"},
		{Name: counterMissing, What: "rules that are missing"},
		{Name: counterNoProfile + "-ingress", What: "no profile allows it, ingress"},
		{Name: counterNoProfile + "-egress", What: "no profile allows it, egress"},
		{Name: "d-arp", Table: ARP, What: "ARP with an address that is not the workload's own"},
		{Name: "d-arp-claim", Table: ARP, What: "our answer to ARP for a workload's own address"},
	} {
		b.putCounter(c)
	}
	for _, c := range slices.Concat(b.spoofChains(), b.workloadChains(), b.arpChains()) {
		b.putChain(c.Name, c)
	}
	if b.cfg.NAT.Begun {
		b.putChain(chainNAT, natBase())
	}
}

func (b *Builder) fixedSets() []Set {
	list := []Set{
		{Name: mapFrom, Key: []Type{InterfaceType}, Value: ChainValue},
		{Name: mapTo, Key: []Type{InterfaceType}, Value: ChainValue},
		{Name: setWorkloads, Key: []Type{InterfaceType}},
		{Name: setMACs, Key: []Type{InterfaceType, MACType}},
		{Name: setAnyMAC, Key: []Type{InterfaceType}},
		{Name: setARPOwn, Table: ARP, Key: []Type{InterfaceType, Addr4Type}},
		{Name: setARPMACs, Table: ARP, Key: []Type{InterfaceType, MACType}},
		{Name: setARPAnyMAC, Table: ARP, Key: []Type{InterfaceType}},
		{Name: setARPPrefixes, Table: ARP, Key: []Type{InterfaceType, Addr4Type}, Interval: true},
	}
	for _, f := range families {
		list = append(list,
			Set{Name: setSources + f.digit(), Key: []Type{InterfaceType, f.addrType()}},
			Set{Name: setSourcesMAC + f.digit(), Key: []Type{InterfaceType, MACType, f.addrType()}},
			Set{Name: setPrefixes + f.digit(), Key: []Type{InterfaceType, f.addrType()}, Interval: true})
	}
	return append(list, overlaySets()...)
}

// base makes a chain with a hook.
func base(name string, point Point, priority int, rules ...Rule) *Chain {
	return &Chain{Name: name, Hook: &Hook{Point: point, Priority: priority}, Rules: rules}
}

// on is a rule: on(matches...).do(statements...).
type on []Match

func when(m ...Match) on { return m }

func (m on) do(s ...Statement) Rule { return Rule{Matches: m, Do: s} }

func (m on) drop(counter string) Rule { return m.do(Count{counter}, Drop{}) }

func inSet(set string, fields ...Field) Match { return Match{Fields: fields, Set: set} }

func state(s ConnState) Match { return Match{Fields: []Field{State}, Mask: uint32(s)} }

func bytesOf(f Field, values ...byte) Match {
	m := Match{Fields: []Field{f}}
	for _, v := range values {
		m.In = append(m.In, Range{string([]byte{v}), string([]byte{v})})
	}
	m.In = joined(m.In)
	return m
}

// stem matches the interfaces whose names begin so.
func stem(f Field, prefix string) Match {
	lo := interfaceBytes(prefix)
	hi := []byte(lo)
	for i := len(prefix); i < len(hi); i++ {
		hi[i] = 0xff
	}
	return Match{Fields: []Field{f}, In: []Range{{lo, string(hi)}}}
}

// others match packets of other interfaces than workloads'.
func (b *Builder) others(f Field) on {
	var m on
	for _, p := range b.cfg.Prefixes {
		other := stem(f, p)
		other.Not = true
		m = append(m, other)
	}
	return m
}

// elsewhere says what is done with packets of other interfaces than workloads'.
func (b *Builder) elsewhere(f Field, end Statement) Rule { return b.others(f).do(end) }

// eachWorkload is one rule for each prefix of workload interfaces.
func (b *Builder) eachWorkload(f Field, s ...Statement) []Rule {
	var rules []Rule
	for _, p := range b.cfg.Prefixes {
		rules = append(rules, when(stem(f, p)).do(s...))
	}
	return rules
}

// localSources are the source addresses that every IPv6 host has: its
// link-local ones, and none while it looks for a duplicate of its own.
func localSources() []Range {
	return addressRanges([]netip.Prefix{netip.MustParsePrefix("::/128"), netip.MustParsePrefix("fe80::/10")}, 6)
}

// icmp6 begins the matches of a message of ICMPv6.
func icmp6(types ...byte) on {
	return on{bytesOf(Family, 6), bytesOf(Protocol, protoICMPv6), bytesOf(ICMPType, types...)}
}

// icmp4 begins the matches of a message of ICMP.
func icmp4(types ...byte) on {
	return on{bytesOf(Family, 4), bytesOf(Protocol, protoICMP), bytesOf(ICMPType, types...)}
}

func (m on) and(more ...Match) on { return slices.Concat(m, more) }

// spoofChains let a workload send from its own addresses only, and nothing
// that speaks for a router or hides another packet. Addresses are looked at
// before fragments are put together: the host does not ask by which interface
// one came, so a workload could put a piece of its own into another's datagram.
// What is in a packet is looked at afterwards, when it cannot hide in pieces.
func (b *Builder) spoofChains() []*Chain {
	mac, anyMAC := inSet(setMACs, InInterface, EthSource), inSet(setAnyMAC, InInterface)
	rules := []Rule{b.elsewhere(InInterface, Accept{})}
	for i, f := range families {
		source, fam := []Field{Source4, Source6}[i], bytesOf(Family, byte(f))
		prefix := inSet(setPrefixes+f.digit(), InInterface, source)
		for _, m := range []on{
			when(fam, inSet(setSourcesMAC+f.digit(), InInterface, EthSource, source)),
			when(fam, inSet(setSources+f.digit(), InInterface, source)),
			when(fam, prefix, mac),
			when(fam, prefix, anyMAC),
		} {
			rules = append(rules, m.do(Accept{}))
		}
	}
	local := on{bytesOf(Family, 6), {Fields: []Field{Source6}, In: localSources()}, bytesOf(Protocol, protoICMPv6)}
	rules = append(rules, local.and(mac).do(Accept{}), local.and(anyMAC).do(Accept{}), when().drop("d-spoof"))

	return []*Chain{
		base("spoof", Prerouting, prioritySources, rules...),
		b.careful(local),
		{Name: "link-local", Rules: []Rule{
			icmp6(neighbourAdvert).do(Goto{"own-target"}),
			icmp6(mldQuery, mldReport, mldDone, routerSolicit, neighbourSolicit, mldReport2).do(Return{}),
			when().drop("d-spoof"),
		}},
		ownTarget(),
		{Name: chainMissing, Rules: []Rule{when().do(Count{counterMissing}, b.cfg.deny())}},
	}
}

// careful drops what no workload may send, whatever policy says, and returns
// all else. It looks into packets, so it stands after fragments were put
// together.
func (b *Builder) careful(local on) *Chain {
	other := inSet(setPrefixes+"6", InInterface, Source6)
	other.Not = true
	c := &Chain{Name: chainCareful, Rules: []Rule{local.and(other).do(Goto{"link-local"})}}
	for _, e := range b.cfg.Encapsulations {
		m := on{bytesOf(Protocol, e.Protocol)}
		if e.Port != 0 {
			m = m.and(is(DestinationPort, portBytes(e.Port)))
		}
		if e.VNI != 0 {
			m = m.and(is(VNI, vniBytes(e.VNI)))
		}
		c.Rules = append(c.Rules, m.drop(CounterEncapsulation))
	}
	c.Rules = append(c.Rules, icmp6(routerAdvert, redirect).drop("d-router"), icmp4(redirect4).drop("d-router"),
		icmp6(neighbourAdvert).do(Goto{"own-target"}))
	c.Rules = append(c.Rules, errorRules()...)
	return c
}

// contents sends what workloads send, of the protocols that it is about, through
// careful. It is part of the chains that judge what workloads send, ahead of
// what they accept: a chain with a hook of its own costs every packet four
// times as much.
func (b *Builder) contents() []Rule {
	kinds := []byte{protoICMP, protoICMPv6}
	for _, e := range b.cfg.Encapsulations {
		kinds = append(kinds, e.Protocol)
	}
	var rules []Rule
	for _, p := range b.cfg.Prefixes {
		rules = append(rules, when(bytesOf(Protocol, kinds...), stem(InInterface, p)).do(Jump{chainCareful}))
	}
	return rules
}

// ownTarget drops neighbour advertisements for others' addresses.
func ownTarget() *Chain {
	advert := icmp6(neighbourAdvert)
	return &Chain{Name: "own-target", Rules: []Rule{
		advert.and(Match{Fields: []Field{NDTarget}, In: localSources()}).do(Return{}),
		advert.and(inSet(setSourcesMAC+"6", InInterface, EthSource, NDTarget)).do(Return{}),
		advert.and(inSet(setSources+"6", InInterface, NDTarget)).do(Return{}),
		advert.and(inSet(setPrefixes+"6", InInterface, NDTarget)).do(Return{}),
		when().drop("d-spoof"),
	}}
}

// errorRules drop errors about packets that were not for the workload that
// sends them: connection tracking would take them for part of others'
// connections, ahead of policy.
func errorRules() []Rule {
	var rules []Rule
	for i, f := range families {
		about := []Field{About4, About6}[i]
		not := func(set string, fields ...Field) Match {
			m := inSet(set, fields...)
			m.Not = true
			return m
		}
		kinds := icmp4(unreachable, sourceQuench, timeExceeded, parameter)
		if f == 6 {
			kinds = icmp6(unreachable6, tooBig, timeExceeded6, parameter6).
				and(Match{Fields: []Field{about}, Not: true, In: localSources()})
		}
		rules = append(rules, kinds.and(
			not(setSourcesMAC+f.digit(), InInterface, EthSource, about),
			not(setSources+f.digit(), InInterface, about),
			not(setPrefixes+f.digit(), InInterface, about),
		).drop("d-error"))
	}
	return rules
}

// loopback keeps workloads from 127.0.0.0/8, which others may have made
// routable (route_localnet), even where they may reach the host.
func (b *Builder) loopback() []Rule {
	to := on{bytesOf(Family, 4), {Fields: []Field{Destination4}, In: addressRanges([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, 4)}}
	var rules []Rule
	for _, p := range b.cfg.Prefixes {
		rules = append(rules, to.and(stem(InInterface, p)).drop("d-loopback"))
	}
	return rules
}

// workloadChains judge what workloads send and receive. Each end is judged by
// a chain of its own, since Accept ends only the chain with the hook.
func (b *Builder) workloadChains() []*Chain {
	cut := b.cut()
	known := knownRule()
	// A connection of an address may be older than the workload that has it now.
	// It is forgotten before that one's policy is in force; until then nothing
	// gets to it.
	knownTo := when(state(StateEstablished|StateRelated), inSet(setWorkloads, OutInterface)).do(Accept{})
	from := b.judge(InInterface, mapFrom, "d-unknown-from")
	to := b.judge(OutInterface, mapTo, "d-unknown-to")

	host := []Rule{known, linkRule()}
	switch b.cfg.ToHost {
	case FateDrop:
		host = append(host, b.eachWorkload(InInterface, Count{"d-to-host"}, Drop{})...)
	case FateReject:
		host = append(host, b.eachWorkload(InInterface, Count{"d-to-host"}, Reject{})...)
	}
	output := append(slices.Clone(cut), when(inSet(setWorkloads, OutInterface)).do(Accept{}))
	output = append(output, b.eachWorkload(OutInterface, Count{"d-unknown-to"}, Drop{})...)
	return []*Chain{
		base("forward-from", Forward, priorityFrom, slices.Concat(cut, b.contents(), []Rule{known}, from)...),
		base("forward-to", Forward, priorityTo, slices.Concat([]Rule{b.elsewhere(OutInterface, Accept{}), knownTo}, to)...),
		b.inputFrom(),
		base("input-host", Input, priorityTo, host...),
		base("output", Output, priorityFrom, output...),
	}
}

// inputFrom judges what is delivered to this host: who sent a packet in a
// packet, and what workloads send.
func (b *Builder) inputFrom() *Chain {
	return base("input-from", Input, priorityFrom, slices.Concat(b.contents(), b.senders(), b.cut(), []Rule{knownRule(), linkRule()},
		b.loopback(), b.judge(InInterface, mapFrom, "d-unknown-from"))...)
}

// knownRule accepts what belongs to a connection.
func knownRule() Rule { return when(state(StateEstablished | StateRelated)).do(Accept{}) }

// linkRule accepts neighbour discovery and multicast listeners of a workload's
// own link, ahead of policy as documented.
func linkRule() Rule {
	return icmp6(mldQuery, mldReport, mldDone, routerSolicit, neighbourSolicit, neighbourAdvert).do(Accept{})
}

// judge sends packets to the chain of their interface's policy.
func (b *Builder) judge(f Field, m, counter string) []Rule {
	var rules []Rule
	if !b.cfg.AllowInvalid {
		rules = append(rules, when(state(StateInvalid), inSet(setWorkloads, f)).drop("d-invalid"))
	}
	rules = append(rules, when().do(Dispatch{[]Field{f}, m}))
	return append(rules, b.eachWorkload(f, Count{counter}, Drop{})...)
}

// cut drops what belongs to a connection that policy no longer allows.
func (b *Builder) cut() []Rule {
	bit := b.cfg.CutMark
	if bit == 0 {
		return nil
	}
	m := Match{Fields: []Field{ConnMark}, Mask: bit, In: []Range{{markBytes(bit), markBytes(bit)}}}
	return []Rule{when(m).drop("d-cut")}
}

// arpChains let a workload speak for its own addresses only, and keep this
// host, which answers for all others, from answering for them.
func (b *Builder) arpChains() []*Chain {
	claim := Rule{
		Matches: []Match{is(ARPOp, portBytes(2)), inSet(setARPOwn, OutInterface, ARPSource)},
		Do:      []Statement{Count{"d-arp-claim"}, Drop{}},
	}
	chains := []*Chain{
		base("arp-in", Input, priorityFrom,
			b.elsewhere(InInterface, Accept{}),
			when(inSet(setARPMACs, InInterface, ARPMAC)).do(Goto{"arp-own-mac"}),
			when(inSet(setARPAnyMAC, InInterface)).do(Goto{"arp-own-mac"}),
			when().drop("d-arp")),
		{Name: "arp-own-mac", Rules: []Rule{
			when(is(ARPSource, "\x00\x00\x00\x00")).do(Accept{}), // a probe: is this address taken?
			when(inSet(setARPOwn, InInterface, ARPSource)).do(Accept{}),
			when(inSet(setARPPrefixes, InInterface, ARPSource)).do(Accept{}),
			when().drop("d-arp"),
		}},
		base("arp-out", Output, priorityFrom, claim),
	}
	for _, c := range chains {
		c.Table = ARP
	}
	return chains
}

package rules

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// Counters of packets in packets that were dropped: an agent tells of them.
const (
	CounterEncapsulation = "d-encapsulation" // this cluster's, from a workload
	CounterUnknownIPIP   = "d-unknown-ipip"  // IP in IP for this host from no known host
	CounterUnknownVXLAN  = "d-unknown-vxlan" // this cluster's VXLAN for this host from no known host
)

// Names of sets of hosts and pools, before the digit of the family. Those of
// hosts have single addresses; prefixes are in a set of the same name with
// netsOf before the digit.
const (
	setHosts      = "hosts" // all, if packets to them keep their source
	setIPIPHosts  = "ipip-hosts"
	setVXLANHosts = "vxlan-hosts"
	setPools      = "pools"
	setNATPools   = "nat-pools" // those with Masquerade
	setStrict     = "strict"    // interfaces
	netsOf        = "-nets"
)

// priorityUntrack is ahead of connection tracking.
const priorityUntrack = priorityRaw + 1

// chainUnderlay looks at what does not come from a workload, while tunnels are
// in use.
const chainUnderlay = "underlay"

// unknownLimit limits the lines about packets from unknown senders, sampleLimit
// the sample that is taken of them.
var (
	unknownLimit = Limit{Rate: 10, Seconds: 60, Burst: 5}
	sampleLimit  = Limit{Rate: 1, Seconds: 1, Burst: 20}
)

// overlay is what the program has of hosts, pools and tunnels.
type overlay struct {
	hosts   map[netip.Prefix]desired.Forms
	pools   map[netip.Prefix]desired.PoolUse
	tunnels map[string]netip.Addr
	own     [2]netip.Addr      // this host's, by family
	nets    map[string]*netSet // what sets of ranges are made of, by name
	forms   [3]int             // how many hosts may send in a form
	nat     [2]int             // how many pools have Masquerade, by family
	strict  map[desired.LinkFamily]bool
	shape   overlayShape // that the chains have now
}

// overlayShape is what the chains depend on beside tunnels' names and
// addresses.
type overlayShape struct {
	ipip, vxlan, nat4, nat6, strict bool

	own [2]netip.Addr // if VXLAN is in use
}

func newOverlay() *overlay {
	return &overlay{
		hosts: map[netip.Prefix]desired.Forms{}, pools: map[netip.Prefix]desired.PoolUse{},
		tunnels: map[string]netip.Addr{}, nets: map[string]*netSet{}, strict: map[desired.LinkFamily]bool{},
	}
}

// overlaySets are the sets of hosts and pools: always there, so that no rule
// changes with their members.
func overlaySets() []Set {
	var list []Set
	for _, f := range families {
		key := []Type{f.addrType()}
		for _, name := range []string{setHosts, setIPIPHosts, setVXLANHosts} {
			list = append(list, Set{Name: name + f.digit(), Key: key},
				Set{Name: name + netsOf + f.digit(), Key: key, Interval: true})
		}
		for _, name := range []string{setPools, setNATPools} {
			list = append(list, Set{Name: name + f.digit(), Key: key, Interval: true})
		}
		list = append(list, Set{Name: setStrict + f.digit(), Key: []Type{InterfaceType}})
	}
	return list
}

// patchOverlay brings sets and chains of hosts, pools and tunnels up to date.
func (b *Builder) patchOverlay(patch *desired.PolicyPatch) {
	o := b.overlay
	for _, p := range patch.Hosts.Delete {
		b.setHost(canonical(p), 0, false)
	}
	for p, forms := range patch.Hosts.Set {
		b.setHost(canonical(p), forms, true)
	}
	for _, p := range patch.Pools.Delete {
		b.setPool(canonical(p), desired.PoolUse{}, false)
	}
	for p, use := range patch.Pools.Set {
		b.setPool(canonical(p), use, true)
	}
	for _, name := range patch.Tunnels.Delete {
		delete(o.tunnels, name)
	}
	for name, a := range patch.Tunnels.Set {
		o.tunnels[name] = a.Unmap()
	}
	for _, l := range patch.Strict.Delete {
		b.setStrict(l, false)
	}
	for l := range patch.Strict.Set {
		b.setStrict(l, true)
	}
	now := overlayShape{ipip: o.uses(desired.IPIP), vxlan: b.cfg.VXLAN.Port != 0 && o.uses(desired.VXLAN),
		nat4: o.nat[0] > 0, nat6: o.nat[1] > 0, strict: len(o.strict) > 0}
	if now.vxlan {
		now.own = o.own
	}
	if now == o.shape && patch.Tunnels.Empty() {
		return
	}
	o.shape = now
	chains := map[string]*Chain{}
	for _, name := range overlayChains {
		chains[name] = nil
	}
	b.senderChains(chains)
	b.natChains(chains)
	for name, c := range chains {
		b.putChain(name, c)
	}
}

// uses reports whether this host may be sent packets in a form, from whomever.
func (o *overlay) uses(f desired.Form) bool {
	if o.forms[f] > 0 {
		return true
	}
	if f == desired.IPIP {
		_, ok := o.tunnels[desired.DeviceIPIP]
		return ok
	}
	_, four := o.tunnels[desired.DeviceVXLAN4]
	_, six := o.tunnels[desired.DeviceVXLAN6]
	return four || six
}

func (b *Builder) setHost(p netip.Prefix, forms desired.Forms, there bool) {
	old, was := b.overlay.hosts[p]
	for form, set := range map[desired.Form]string{desired.IPIP: setIPIPHosts, desired.VXLAN: setVXLANHosts} {
		if old.Has(form) == forms.Has(form) {
			continue
		}
		b.setMember(set, p, forms.Has(form))
		if forms.Has(form) {
			b.overlay.forms[form]++
		} else {
			b.overlay.forms[form]--
		}
	}
	if was != there && b.cfg.NAT.KeepToHosts {
		b.setMember(setHosts, p, there)
	}
	if own := &b.overlay.own[familyOf(p.Addr())/2-2]; forms.Own() && p.IsSingleIP() { // 4 and 6
		*own = p.Addr()
	} else if *own == p.Addr() {
		*own = netip.Addr{}
	}
	if delete(b.overlay.hosts, p); there {
		b.overlay.hosts[p] = forms
	}
}

func (b *Builder) setPool(p netip.Prefix, use desired.PoolUse, there bool) {
	old, was := b.overlay.pools[p]
	f := familyOf(p.Addr())
	if was != there {
		b.setNet(setPools+f.digit(), p, there)
	}
	if old.Masquerade != use.Masquerade {
		b.setNet(setNATPools+f.digit(), p, use.Masquerade)
		by := -1
		if use.Masquerade {
			by = 1
		}
		b.overlay.nat[f/2-2] += by // 4 and 6
	}
	if delete(b.overlay.pools, p); there {
		b.overlay.pools[p] = use
	}
}

// setStrict says whether an interface is strict.
func (b *Builder) setStrict(l desired.LinkFamily, is bool) {
	set, name := setStrict+family(l.Family).digit(), interfaceBytes(l.Interface)
	if delete(b.overlay.strict, l); is {
		b.overlay.strict[l] = true
		b.putElement(set, Element{Lo: name})
	} else {
		b.dropElement(set, name)
	}
}

// setMember puts a prefix into the set of its kind, or takes it out.
func (b *Builder) setMember(set string, p netip.Prefix, in bool) {
	f := familyOf(p.Addr())
	switch {
	case !p.IsSingleIP():
		b.setNet(set+netsOf+f.digit(), p, in)
	case in:
		b.putElement(set+f.digit(), Element{Lo: addrBytes(p.Addr())})
	default:
		b.dropElement(set+f.digit(), addrBytes(p.Addr()))
	}
}

// setNet puts a prefix into a set of ranges, or takes it out.
func (b *Builder) setNet(set string, p netip.Prefix, in bool) {
	nets := b.overlay.nets[set]
	if nets == nil {
		made := newNetSet()
		nets = &made
		b.overlay.nets[set] = nets
	}
	if in {
		b.takeNet(set, nets, p)
	} else {
		b.leaveNet(set, nets, p)
	}
}

// overlayChains are those that are there only while something is for them.
var overlayChains = []string{
	chainUnderlay, "untrack-out", "ipip-senders", "vxlan-senders", "ipip-workloads", "vxlan-workloads", "nat-out4", "nat-out6",
}

// vxlan begins the matches of a packet of this cluster's VXLAN.
func (b *Builder) vxlan() on { return vxlanOf(b.cfg.VXLAN.Port, b.cfg.VXLAN.VNI) }

func vxlanOf(port uint16, vni uint32) on {
	return on{bytesOf(Protocol, protoUDP), is(DestinationPort, portBytes(port)), is(VNI, vniBytes(vni))}
}

// vniBytes is the network identifier as it stands in a packet.
func vniBytes(vni uint32) string { return string([]byte{byte(vni >> 16), byte(vni >> 8), byte(vni)}) }

func routeBytes(local bool) string {
	if local {
		return RouteLocal
	}
	return "\x00\x00\x00\x00"
}

// senderChains take packets in packets from known hosts only, ahead of and
// whatever other rules say. They are looked at where they are delivered to this
// host, whatever address they were sent to: one for everybody on the link would
// be taken out of its wrapping, too.
func (b *Builder) senderChains(chains map[string]*Chain) {
	put := func(c *Chain) { chains[c.Name] = c }
	sendersOf := func(form, set, counter, what string, open bool) {
		put(b.sendersOf(form+"-senders", set, counter, what, Accept{}))
		if open {
			put(b.sendersOf(form+"-workloads", set, counter, what, Return{}))
		}
	}
	if b.overlay.shape.ipip {
		sendersOf("ipip", setIPIPHosts, CounterUnknownIPIP, "IP in IP", b.nests(protoIPIP))
	}
	if b.overlay.shape.vxlan {
		sendersOf("vxlan", setVXLANHosts, CounterUnknownVXLAN, "VXLAN", b.nests(protoUDP))
		put(base("untrack-out", Output, priorityUntrack, b.vxlan().do(Untrack{})))
	}
	if c := b.underlay(); len(c.Rules) > 0 {
		put(c)
	}
	put(b.inputFrom())
}

// senders lead to the chains of who may send packets in packets. What a workload
// sends in such a packet is judged by its policy too, whoever it says it is.
func (b *Builder) senders() []Rule {
	var rules []Rule
	lead := func(m on, form string, open bool) {
		if open {
			for _, p := range b.cfg.Prefixes {
				rules = append(rules, m.and(stem(InInterface, p)).do(Jump{form + "-workloads"}))
			}
			m = m.and(b.others(InInterface)...)
		}
		rules = append(rules, m.do(Goto{form + "-senders"}))
	}
	if b.overlay.shape.ipip {
		lead(when(bytesOf(Protocol, protoIPIP)), "ipip", b.nests(protoIPIP))
	}
	if b.overlay.shape.vxlan {
		lead(b.vxlan(), "vxlan", b.nests(protoUDP))
	}
	return rules
}

// nests reports whether workloads may send this cluster's packets in packets of a
// protocol: careful lets them pass.
func (b *Builder) nests(protocol byte) bool {
	return !slices.ContainsFunc(b.cfg.Encapsulations, func(e Encapsulation) bool {
		return e.Protocol == protocol && (protocol != protoUDP ||
			(e.Port == 0 || e.Port == b.cfg.VXLAN.Port) && (e.VNI == 0 || e.VNI == b.cfg.VXLAN.VNI))
	})
}

// underlay drops packets in packets that came by a strict interface, if packets
// to their source leave by others only: ahead of the kernel's own filter, which
// it has for IPv4 alone, and which tells nobody. VXLAN to the address that
// hosts send it to is kept out of connection tracking.
func (b *Builder) underlay() *Chain {
	c := base(chainUnderlay, Prerouting, priorityRaw)
	others := b.others(InInterface) // what workloads send, careful looks at
	strict := func(m on, counter, what string) {
		for _, f := range families {
			if !b.overlay.shape.strict {
				break
			}
			astray := m.and(others...).and(bytesOf(Family, byte(f)), inSet(setStrict+f.digit(), InInterface), is(DestinationIs, RouteLocal), is(SourceBy, Elsewhere))
			c.Rules = append(c.Rules, b.tellSender(astray, what+" by the wrong interface: "), astray.drop(counter))
		}
	}
	if b.overlay.shape.ipip {
		strict(when(bytesOf(Protocol, protoIPIP)), CounterUnknownIPIP, "IP in IP")
	}
	if b.overlay.shape.vxlan {
		strict(b.vxlan(), CounterUnknownVXLAN, "VXLAN")
	}
	for i, f := range families {
		if own := b.overlay.shape.own[i]; own.IsValid() {
			to := is([]Field{Destination4, Destination6}[i], addrBytes(own))
			c.Rules = append(c.Rules, b.vxlan().and(bytesOf(Family, byte(f)), to).and(others...).do(Untrack{}))
		}
	}
	return c
}

// tellSender lets people know of a packet in a packet that is dropped next.
func (b *Builder) tellSender(m on, what string) Rule {
	line, limit := Log{Prefix: "brindle: " + what, Group: b.cfg.LogGroup}, unknownLimit
	if b.cfg.SenderGroup != 0 {
		line.Group, limit = b.cfg.SenderGroup, sampleLimit
	}
	return m.do(limit, line)
}

// fromHosts matches packets from the hosts of a set, in one of several ways.
func fromHosts(set string) []on {
	var list []on
	for i, f := range families {
		fam, source := bytesOf(Family, byte(f)), []Field{Source4, Source6}[i]
		list = append(list, when(fam, inSet(set+f.digit(), source)), when(fam, inSet(set+netsOf+f.digit(), source)))
	}
	return list
}

// sendersOf does something with what the hosts of a set send, and drops the rest.
// This host's own address is in none: it sends itself nothing in a tunnel.
func (b *Builder) sendersOf(chain, set, counter, what string, known Statement) *Chain {
	c := &Chain{Name: chain}
	for _, m := range fromHosts(set) {
		c.Rules = append(c.Rules, m.do(known))
	}
	c.Rules = append(c.Rules, b.tellSender(when(), what+" from an unknown host: "), when().drop(counter))
	return c
}

package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// gen makes random inputs out of a small world, so that they clash, refer to
// what is not there and come back.
type gen struct{ *rand.Rand }

func pick[T any](g gen, of ...T) T { return of[g.IntN(len(of))] }

func (g gen) chance(percent int) bool { return g.IntN(100) < percent }

var hosts = []string{"me", "h1", "z2", "z3"}

func (g gen) settings() model.Settings {
	return model.Settings{
		Node: "me", NoIPv6: g.chance(15), NoForwarding: g.chance(15),
		Priority4: pick(g, 0, 0, 0, 700), Priority6: pick(g, 0, 0, 800),
		RouterID: pick(g, netip.Addr{}, netip.Addr{}, netip.MustParseAddr("9.9.9.9")),
		Overlay:  g.overlay(),
	}
}

func (g gen) overlay() model.Overlay {
	if g.chance(30) {
		return model.Overlay{}
	}
	on, off := true, false
	return model.Overlay{
		VNI: pick[uint32](g, 0, 42), Port: pick[uint16](g, 0, 4790), IPIPMTU: pick(g, 0, 0, 1400),
		VXLANMTU: pick(g, 0, 0, 1400), VXLANMTU6: pick(g, 0, 0, 1380),
		IPIP: pick(g, nil, nil, nil, nil, &on, &off), VXLAN: pick(g, nil, nil, nil, nil, &on, &off),
		Routes: pick(g, model.RoutesIPIPOnly, model.RoutesIPIPOnly, model.RoutesAll, model.RoutesNone, model.RoutesNoEncapOnly),
		ExternalNodes: pick(g, nil, nil, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			[]netip.Prefix{netip.MustParsePrefix("172.16.0.3/32"), netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("fd01::3/128")}),
		NoBGP: g.chance(20), NoRoutes: g.chance(10),
	}
}

func (g gen) underlay() model.Event {
	forms := []desired.Form{desired.IPIP, desired.VXLAN}
	return model.Event{ID: model.UnderlayID(), Value: &model.Underlay{
		MTU: pick(g, 0, 1500, 1500, 9000, 40), Keep: desired.FormsOf(forms[:g.IntN(3)]...),
		IPIP:   pick(g, netip.Addr{}, netip.MustParseAddr("10.0.9.1")),
		VXLAN4: pick(g, netip.Addr{}, netip.MustParseAddr("10.0.9.2"), netip.MustParseAddr("172.16.0.1")),
		VXLAN6: pick(g, netip.Addr{}, netip.MustParseAddr("fd00::9:3")),
	}}
}

// tunnels gives a node ends of tunnels, often those of another.
func (g gen) tunnels(n *model.Node) {
	v4 := func() netip.Addr {
		return netip.MustParseAddr(pick(g, "10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.9", "10.0.0.12", "10.9.0.1", "10.9.0.2", "172.16.0.3"))
	}
	if g.chance(60) {
		n.IPIP = v4()
	}
	if g.chance(70) {
		n.VXLAN4 = model.TunnelEnd{Addr: v4(), MAC: pick(g, "", "", "", "66:00:00:00:00:01", model.VTEPMAC("me", 4), model.VTEPMAC("z2", 4))}
	}
	if g.chance(60) {
		n.VXLAN6 = model.TunnelEnd{MAC: pick(g, "", "", "", "66:00:00:00:00:01", model.VTEPMAC("h1", 6)),
			Addr: netip.MustParseAddr(pick(g, "fd00::1", "fd00::3", "fd00::3", "fd00::9", "fd09::1", "fd09::2", "fd01::2"))}
	}
	if g.chance(40) {
		n.Speaks = true
		n.Accepts = pick(g, 0, desired.FormsOf(desired.IPIP), desired.FormsOf(desired.VXLAN), desired.FormsOf(desired.IPIP, desired.VXLAN),
			desired.FormsOf(desired.Direct))
	}
}

// event is one random change.
func (g gen) event() model.Event {
	e := pick(g, g.workload, g.workload, g.workload, g.node, g.node, g.hostEndpoint, g.pool, g.block,
		g.block, g.affinity, g.affinity, g.profile, g.policy, g.policy, g.bgpConfig, g.peer, g.peer,
		g.filter, g.info, g.unused, g.underlay, g.remoteBlock, g.remoteBlock, g.node)()
	switch {
	case g.chance(20):
		e.Value = nil
	case g.chance(4):
		e.Value = &model.Invalid{Message: "spec.x: is wrong", Staged: g.chance(50)}
	}
	return e
}

func (g gen) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"app", "rack"} {
		if g.chance(60) {
			m[k] = pick(g, "a", "b")
		}
	}
	return m
}

func (g gen) selector() selector.Selector {
	s, err := selector.Parse(pick(g, "all()", "app == 'a'", "app == 'b'", "rack == 'a'", "has(rack)",
		"!has(app)", "team == 'x'", "rack == 'a' && app != 'b'"))
	if err != nil {
		panic(err)
	}
	return s
}

func (g gen) maybeSelector(percent int) *selector.Selector {
	if !g.chance(percent) {
		return nil
	}
	s := g.selector()
	return &s
}

func (g gen) addr() netip.Addr {
	if g.chance(35) {
		return netip.MustParseAddr(fmt.Sprintf("fd00::%x", g.IntN(12)))
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(g.IntN(24))})
}

func (g gen) cidr() netip.Prefix {
	return netip.MustParsePrefix(pick(g, "10.0.0.0/30", "10.0.0.4/30", "10.0.0.8/29", "10.0.0.0/29",
		"10.0.0.5/32", "fd00::/126", "fd00::8/125", "fd00::3/128"))
}

func (g gen) profiles() []string {
	return pick(g, nil, []string{"p"}, []string{"q", "p"}, []string{"gone", model.DefaultAllow})
}

func (g gen) workload() model.Event {
	id := model.ID{Kind: model.KindWorkload, Namespace: pick(g, "default", "ns"), Name: pick(g, "w1", "w2", "w3", "w4")}
	w := &model.Workload{
		ID: id, Node: pick(g, "me", "me", "me", "h1"), Interface: pick(g, "cali1", "cali2", "cali3", "cali4", "eth0", "lo", ""),
		MAC: pick(g, "", "02:00:00:00:00:01", "02:00:00:00:00:02"), Labels: g.labels(), Profiles: g.profiles(),
	}
	for range g.IntN(4) {
		w.Addrs = append(w.Addrs, g.addr())
	}
	if g.chance(15) { // a host's
		w.Addrs = append(w.Addrs, netip.MustParseAddr(pick(g, "172.16.0.1", "172.16.0.3", "fd01::2")))
	}
	return model.Event{ID: id, Value: w}
}

func (g gen) node() model.Event {
	n := &model.Node{Name: pick(g, hosts...), Labels: g.labels(), AS: pick[uint32](g, 0, 0, 0, 65001)}
	if g.chance(80) {
		n.Addr4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, pick[byte](g, 0, 0, 1), pick[byte](g, 1, 3, 20, 100, 101)}), pick(g, 24, 24, 23, 32))
	}
	if g.chance(60) {
		n.Addr6 = netip.MustParsePrefix(fmt.Sprintf("fd01::%x:%x/%d", g.IntN(2), 1+g.IntN(5), pick(g, 64, 112)))
	}
	if g.chance(25) {
		n.ClusterID = netip.AddrFrom4([4]byte{244, 0, 0, byte(g.IntN(2))})
	}
	g.tunnels(n)
	return model.Event{ID: model.ID{Kind: model.KindNode, Name: n.Name}, Value: n}
}

func (g gen) hostEndpoint() model.Event {
	id := model.ID{Kind: model.KindHostEndpoint, Name: pick(g, "e1", "e2")}
	return model.Event{ID: id, Value: &model.HostEndpoint{
		ID: id, Node: pick(g, "me", "h1"), Interface: "eth0", Labels: g.labels(), Profiles: g.profiles(),
	}}
}

func (g gen) pool() model.Event {
	p := &model.Pool{
		Name: pick(g, "p1", "p2", "p3"),
		CIDR: netip.MustParsePrefix(pick(g, "10.0.0.0/28", "10.0.0.0/16", "10.0.0.4/30", "fd00::/64",
			"fd00::8/125")),
		Encap: pick(g, model.NoEncap, model.IPIP, model.VXLAN), CrossSubnet: g.chance(30),
		Disabled: g.chance(20), NATOutgoing: g.chance(30), DisableBGPExport: g.chance(25), LoadBalancerOnly: g.chance(5),
	}
	if p.CIDR.Addr().Is6() && p.Encap == model.IPIP {
		p.Encap = model.VXLAN
	}
	return model.Event{ID: model.ID{Kind: model.KindPool, Name: p.Name}, Value: p}
}

func (g gen) block() model.Event {
	b := &model.Block{CIDR: g.cidr(), Host: pick(g, "me", "me", "me", "h1", ""), Virtual: g.chance(10)}
	for a := b.CIDR.Addr(); b.CIDR.Contains(a); a = a.Next() {
		if g.chance(40) {
			b.Uses = append(b.Uses, model.Use{Addr: a, Node: pick(g, "me", "me", "h1", "z2", "")})
		}
	}
	return model.Event{ID: model.BlockID(b.CIDR), Value: b}
}

// remoteBlock is one that this host has no share in, with addresses that yet
// others use.
func (g gen) remoteBlock() model.Event {
	e := g.block()
	b := e.Value.(*model.Block)
	b.Host, b.Virtual = pick(g, "h1", "h1", "z2", "z3", "gone", ""), g.chance(5)
	for i := range b.Uses {
		b.Uses[i].Node = pick(g, "", "h1", "z2", "z3")
	}
	if g.chance(25) { // among hosts
		b.CIDR = netip.MustParsePrefix(pick(g, "172.16.0.0/30", "172.16.0.3/32", "fd01::/126"))
		b.Uses = []model.Use{{Addr: b.CIDR.Addr(), Node: pick(g, "me", "z2", "z3")}}
		if !b.CIDR.IsSingleIP() {
			b.Uses[0].Addr = b.CIDR.Addr().Next()
		}
		e.ID = model.BlockID(b.CIDR)
	}
	return e
}

func (g gen) affinity() model.Event {
	a := &model.Affinity{Host: pick(g, "me", "me", "me", "h1"), CIDR: g.cidr(), Confirmed: g.chance(75)}
	return model.Event{ID: model.AffinityID(a.Host, a.CIDR), Value: a}
}

func (g gen) profile() model.Event {
	p := &model.Profile{Name: pick(g, "p", "q"), Labels: g.labels()}
	if g.chance(40) {
		p.Labels["team"] = pick(g, "x", "y")
	}
	return model.Event{ID: model.ID{Kind: model.KindProfile, Name: p.Name}, Value: p}
}

func (g gen) policy() model.Event {
	kind, name := pick(g, "NetworkPolicy", "GlobalNetworkPolicy"), pick(g, "x", "y")
	id := model.PolicyID(kind, pick(g, "", "ns"), name)
	p := &model.Policy{
		ID: id, APIKind: kind, Name: name, Namespace: id.Namespace, Tier: "default",
		Title: id.String() + pick(g, "", "", " (renamed)"), Staged: g.chance(20), Selects: g.selector(),
	}
	p.Ingress.Applies, p.Egress.Applies = g.chance(70), g.chance(30)
	if g.chance(60) {
		r := model.Rule{Action: model.Deny, Families: model.IPv4 | model.IPv6}
		r.Source.Peers.Restricted, r.Source.Peers.Selector = true, g.selector()
		p.Ingress.Rules = append(p.Ingress.Rules, r)
	}
	return model.Event{ID: id, Value: p}
}

func (g gen) bgpConfig() model.Event {
	c := &model.BGPConfig{
		Name: pick(g, "default", "default", "node.me", "node.h1", "other"), AS: pick[uint32](g, 0, 0, 65001, 65002),
		ListenPort: pick[uint16](g, 0, 0, 179, 1179), BindNodeIP: g.chance(30), Services: g.chance(20),
		IPIPRoutes: g.chance(30), NoPlainRoutes: g.chance(30),
		MeshRestart: pick(g, 0, time.Minute), MeshPassword: pick(g, "", "", "", "secret/key"),
	}
	if g.chance(30) {
		off := g.chance(50)
		c.Mesh = &off
	}
	for range g.IntN(3) {
		c.Advertisements = append(c.Advertisements, model.Advertisement{
			CIDR: g.cidr(), Communities: pick(g, []string{"1:2"}, []string{"3:4", "1:2"}),
		})
	}
	return model.Event{ID: model.ID{Kind: model.KindBGPConfig, Name: c.Name}, Value: c}
}

func (g gen) peer() model.Event {
	p := &model.BGPPeer{
		Name: pick(g, "a", "b", "c"), Broken: pick(g, "", "", "", "", "bad"), AS: pick[uint32](g, 0, 64512, 65001), LocalAS: pick[uint32](g, 0, 0, 65003),
		AllowLocalAS: uint8(g.IntN(2)), TTLSecurity: uint8(g.IntN(2)), ReverseManual: g.chance(30),
		Options: model.PeerOptions{
			NoSource: g.chance(20), Restart: pick(g, 0, time.Second), Keepalive: pick(g, 0, time.Second),
			NextHopMode: pick(g, "", "", "Self", "Keep"), KeepNextHop: g.chance(30),
			Password: pick(g, "", "", "", "", "", "s/k"),
		},
	}
	switch g.IntN(4) {
	case 0:
		p.Node = pick(g, "me", "h1", "gone")
	case 1:
		p.Nodes = g.maybeSelector(100)
	}
	switch g.IntN(8) {
	case 0:
		p.Workloads = g.maybeSelector(100)
	case 1, 2, 3:
		p.Peers = g.maybeSelector(100)
	default:
		p.Addr = netip.MustParseAddr(pick(g, "172.16.0.1", "172.16.0.3", "172.16.0.20",
			"10.0.0.3", "fd01::1", "fd01::4", "192.0.2.1"))
		p.Port = pick[uint16](g, 0, 0, 179, 1179)
		if g.chance(25) {
			p.Options.ReachableBy = netip.MustParseAddr(pick(g, "172.16.0.254", "fd01::fe"))
		}
	}
	if g.chance(15) {
		p.Filters = pick(g, []string{"f"}, []string{"gone", "g", "f"})
	}
	return model.Event{ID: model.ID{Kind: model.KindBGPPeer, Name: p.Name}, Value: p}
}

func (g gen) filter() model.Event {
	f := &model.BGPFilter{Name: pick(g, "f", "g"), Broken: pick(g, "", "", "bad")}
	return model.Event{ID: model.ID{Kind: model.KindBGPFilter, Name: f.Name}, Value: f}
}

func (g gen) info() model.Event {
	id := model.ID{Kind: model.KindClusterInfo, Name: "default"}
	return model.Event{ID: id, Value: &model.ClusterInfo{GUID: "x", Ready: g.chance(60)}}
}

// unused is an input that says nothing about a host.
func (g gen) unused() model.Event {
	id := model.ID{Kind: model.KindConfig, Name: pick(g, "default", "node.me")}
	return model.Event{ID: id, Value: &model.Config{}}
}

// describe writes a batch so that a failure can be read.
func describe(batch []model.Event) string {
	var lines []string
	for _, e := range batch {
		lines = append(lines, fmt.Sprintf("  %v = %+v", e.ID, e.Value))
	}
	return strings.Join(lines, "\n")
}

// shuffled is the snapshot as events in any order, some of them twice.
func (g gen) shuffled(snap map[model.ID]model.Value) []model.Event {
	var out []model.Event
	for id, v := range snap {
		out = append(out, model.Event{ID: id, Value: v})
	}
	slices.SortFunc(out, func(a, b model.Event) int { return a.ID.Compare(b.ID) })
	for range len(out) / 3 {
		out = append(out, out[g.IntN(len(out))])
	}
	g.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

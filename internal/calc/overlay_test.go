package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// tunnelNodes are this host h1, h2 in its subnet and h3 in another, which says
// that its subnet is greater.
func tunnelNodes() map[string]*model.Node {
	node := func(name, v4, v6, last string) *model.Node {
		return &model.Node{
			Name: name, Addr4: pfx(v4), Addr6: pfx(v6), IPIP: ip("10.65." + last + ".1"),
			VXLAN4: model.TunnelEnd{Addr: ip("10.65." + last + ".2")}, VXLAN6: model.TunnelEnd{Addr: ip("fd00::" + last + ":2")},
		}
	}
	return map[string]*model.Node{
		"h1": node("h1", "10.0.1.5/24", "fd01:1::5/64", "1"),
		"h2": node("h2", "10.0.1.9/24", "fd01:1::9/64", "2"),
		"h3": node("h3", "10.0.2.9/16", "fd01:2::9/48", "3"),
	}
}

// tunnelCluster is these nodes with a block of each family and pools of the
// modes.
func tunnelCluster(nodes map[string]*model.Node, v4, v6 model.Pool) []model.Event {
	v4.Name, v4.CIDR, v6.Name, v6.CIDR = "p4", pfx("10.65.0.0/16"), "p6", pfx("fd00::/64")
	events := []model.Event{poolEvent(&v4), poolEvent(&v6), {ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500}}}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		events = append(events, nodeEvent(nodes[name]))
		last := name[1:]
		events = append(events, claimEvents(name, "10.65."+last+".0/26", true)...)
		events = append(events, claimEvents(name, "fd00::"+last+":0/122", true)...)
	}
	return events
}

// remoteRoutes writes the routes to other hosts as ip route does.
func remoteRoutes(s desired.State) []string {
	var out []string
	for k, r := range s.Routes {
		if k.Priority%1024 != 1023 {
			continue
		}
		line, hop := k.Prefix.String(), r.Hops[0]
		if hop.Via.IsValid() {
			line += " via " + hop.Via.String()
		}
		if hop.Interface != "" {
			line += " dev " + hop.Interface
		}
		if hop.OnLink {
			line += " onlink"
		}
		if r.Scope == desired.ScopeLink {
			line += " scope link"
		}
		if r.MTU != 0 {
			line += fmt.Sprint(" mtu ", r.MTU)
		}
		if len(r.Hops) != 1 || r.Protocol != 80 || r.Type != desired.Unicast {
			line += fmt.Sprintf(" %+v", r)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// Routes to the blocks of h2 and h3.
var (
	bare4  = []string{"10.65.2.0/26 via 10.0.1.9", "10.65.3.0/26 via 10.0.2.9"}
	bare6  = []string{"fd00::2:0/122 via fd01:1::9", "fd00::3:0/122 via fd01:2::9"}
	bareE6 = []string{"fd00::2:2/128 via fd01:1::9", "fd00::3:2/128 via fd01:2::9"} // to ends of tunnels that nobody uses
	ipip4  = []string{"10.65.2.0/26 via 10.0.1.9 dev tunl0 onlink mtu 1480", "10.65.3.0/26 via 10.0.2.9 dev tunl0 onlink mtu 1480"}
	vxlan4 = []string{"10.65.2.0/26 via 10.65.2.2 dev vxlan.calico onlink mtu 1450", "10.65.3.0/26 via 10.65.3.2 dev vxlan.calico onlink mtu 1450"}
	vxlan6 = []string{"fd00::2:0/122 via fd00::2:2 dev vxlan-v6.calico onlink mtu 1430", "fd00::3:0/122 via fd00::3:2 dev vxlan-v6.calico onlink mtu 1430"}
)

// ends6 are routes to the IPv6 ends of tunnels of h2 and h3.
var ends6 = []string{"fd00::2:2/128 dev vxlan-v6.calico mtu 1430", "fd00::3:2/128 dev vxlan-v6.calico mtu 1430"}

// lines puts routes together, and adds those that IPv6 ones by a tunnel need:
// to the tunnel's end.
func lines(parts ...any) []string {
	var out []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			out = append(out, p)
		case []string:
			out = append(out, p...)
		}
	}
	for _, l := range out {
		if w := strings.Fields(l); len(w) > 5 && w[4] == "vxlan-v6.calico" && w[1] == "via" {
			out = append(out, w[2]+"/128 dev vxlan-v6.calico mtu "+w[len(w)-1])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestModes holds the documented routes of every mode of a pool, the default
// of who programs which and all others, in both families.
func TestModes(t *testing.T) {
	none, ipip, vxlan := model.Pool{}, model.Pool{Encap: model.IPIP}, model.Pool{Encap: model.VXLAN}
	cross := func(p model.Pool) model.Pool { p.CrossSubnet = true; return p }
	tests := []struct {
		name   string
		v4, v6 model.Pool
		set    model.Overlay
		want   []string
	}{
		{"no tunnel: left to BGP", none, none, model.Overlay{}, nil},
		{"IP in IP", ipip, none, model.Overlay{}, ipip4},
		{"VXLAN", vxlan, vxlan, model.Overlay{}, lines(vxlan4, vxlan6)},
		{"IP in IP across subnets", cross(ipip), none, model.Overlay{}, lines(bare4[0], ipip4[1])},
		{"VXLAN across subnets", cross(vxlan), cross(vxlan), model.Overlay{}, lines(bare4[0], vxlan4[1], bare6[0], vxlan6[1], ends6)},
		{"one of each", ipip, vxlan, model.Overlay{}, lines(ipip4, vxlan6)},
		{"all routes are the agent's", none, none, model.Overlay{Routes: model.RoutesAll}, lines(bare4, bare6, bareE6)},
		{"all routes are the agent's, IP in IP", ipip, none, model.Overlay{Routes: model.RoutesAll}, lines(ipip4, bare6, bareE6)},
		{"only those without tunnel", ipip, none, model.Overlay{Routes: model.RoutesNoEncapOnly}, lines(bare6, bareE6)},
		{"none, but VXLAN's always", ipip, vxlan, model.Overlay{Routes: model.RoutesNone}, lines(vxlan6)},
		{"without BGP", none, none, model.Overlay{NoBGP: true}, lines(bare4, bare6, bareE6)},
		{"without BGP, tunnels", ipip, cross(vxlan), model.Overlay{NoBGP: true, Routes: model.RoutesNone}, lines(ipip4, bare6[0], vxlan6[1], ends6)},
		{"routes are switched off", ipip, vxlan, model.Overlay{NoRoutes: true}, nil},
		{"tunnels are switched off", ipip, vxlan, model.Overlay{IPIP: new(bool), VXLAN: new(bool)}, lines(vxlan6)}, // the switch is for IPv4
		{"MTU as configured", ipip, vxlan, model.Overlay{IPIPMTU: 1400, VXLANMTU: 1, VXLANMTU6: 1380},
			lines("10.65.2.0/26 via 10.0.1.9 dev tunl0 onlink mtu 1400", "10.65.3.0/26 via 10.0.2.9 dev tunl0 onlink mtu 1400",
				"fd00::2:0/122 via fd00::2:2 dev vxlan-v6.calico onlink mtu 1380", "fd00::3:0/122 via fd00::3:2 dev vxlan-v6.calico onlink mtu 1380")},
		{"disabled pools go on", model.Pool{Encap: model.IPIP, Disabled: true}, model.Pool{Encap: model.VXLAN, Disabled: true},
			model.Overlay{}, lines(ipip4, vxlan6)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(model.Settings{Node: "h1", Overlay: tt.set})
			for _, e := range slices.Backward(tunnelCluster(tunnelNodes(), tt.v4, tt.v6)) {
				c.Apply([]model.Event{e})
			}
			if got := remoteRoutes(c.State()); !slices.Equal(got, slices.Sorted(slices.Values(tt.want))) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if s := c.State(); tt.set.NoBGP && len(s.Speakers)+len(s.Peers)+len(s.Paths) > 0 {
				t.Errorf("speaks BGP: %v, %v, %v", s.Speakers, s.Peers, s.Paths)
			}
		})
	}
}

// TestTunnelsOfThisHost holds the interfaces with what is on them.
func TestTunnelsOfThisHost(t *testing.T) {
	c := New(model.Settings{Node: "h1", Overlay: model.Overlay{ExternalNodes: []netip.Prefix{pfx("192.0.2.0/24"), pfx("2001:db8::/64")}}})
	nodes := tunnelNodes()
	nodes["h2"].VXLAN4.MAC = "66:00:00:00:00:02"
	c.Apply(tunnelCluster(nodes, model.Pool{Encap: model.IPIP, NATOutgoing: true}, model.Pool{Encap: model.VXLAN}))
	c.Apply([]model.Event{poolEvent(&model.Pool{Name: "other", CIDR: pfx("10.66.0.0/16"), Encap: model.VXLAN}),
		poolEvent(&model.Pool{Name: "services", CIDR: pfx("10.67.0.0/16"), LoadBalancerOnly: true})})
	s, sysctls := c.State(), desired.SysctlLines(desired.TunnelSysctls())
	mac := func(node string, family int) string { return model.VTEPMAC(node, family) }
	all, six, own := desired.FormsOf(desired.Direct, desired.IPIP, desired.VXLAN), desired.FormsOf(desired.Direct, desired.VXLAN), desired.OwnHost()
	for what, tt := range map[string]struct{ got, want any }{
		"devices": {s.Devices, map[string]desired.Device{
			"tunl0":           {Form: desired.IPIP, Local: ip("10.0.1.5")},
			"vxlan.calico":    {Form: desired.VXLAN, Local: ip("10.0.1.5"), MAC: mac("h1", 4), VNI: 4096, Port: 4789},
			"vxlan-v6.calico": {Form: desired.VXLAN, Local: ip("fd01:1::5"), MAC: mac("h1", 6), VNI: 4096, Port: 4789},
		}},
		"links": {s.Links, map[string]desired.Link{
			"tunl0":           {Up: true, MTU: 1480, Alias: "brindle:tunnel", Sysctls: sysctls},
			"vxlan.calico":    {Up: true, MTU: 1450, Alias: "brindle:tunnel", Sysctls: sysctls},
			"vxlan-v6.calico": {Up: true, MTU: 1430, Alias: "brindle:tunnel", Sysctls: sysctls},
		}},
		"addresses": {s.Addresses, map[desired.AddrKey]struct{}{
			{Interface: "tunl0", Prefix: pfx("10.65.1.1/32")}: {}, {Interface: "vxlan.calico", Prefix: pfx("10.65.1.2/32")}: {},
			{Interface: "vxlan-v6.calico", Prefix: pfx("fd00::1:2/128")}: {},
		}},
		"tunnels": {s.Policy.Tunnels, map[string]netip.Addr{
			"tunl0": ip("10.65.1.1"), "vxlan.calico": ip("10.65.1.2"), "vxlan-v6.calico": ip("fd00::1:2")}},
		"neighbours": {s.Neighbours, map[desired.NeighKey]desired.Neigh{
			{Interface: "vxlan.calico", Addr: ip("10.65.2.2")}:    {MAC: "66:00:00:00:00:02"},
			{Interface: "vxlan.calico", MAC: "66:00:00:00:00:02"}: {Dst: ip("10.0.1.9")},
			{Interface: "vxlan.calico", Addr: ip("10.65.3.2")}:    {MAC: mac("h3", 4)},
			{Interface: "vxlan.calico", MAC: mac("h3", 4)}:        {Dst: ip("10.0.2.9")},
			{Interface: "vxlan-v6.calico", Addr: ip("fd00::2:2")}: {MAC: mac("h2", 6)},
			{Interface: "vxlan-v6.calico", MAC: mac("h2", 6)}:     {Dst: ip("fd01:1::9")},
			{Interface: "vxlan-v6.calico", Addr: ip("fd00::3:2")}: {MAC: mac("h3", 6)},
			{Interface: "vxlan-v6.calico", MAC: mac("h3", 6)}:     {Dst: ip("fd01:2::9")},
		}},
		"hosts": {s.Policy.Hosts, map[netip.Prefix]desired.Forms{
			pfx("10.0.1.5/32"): own, pfx("10.0.1.9/32"): all, pfx("10.0.2.9/32"): all, pfx("192.0.2.0/24"): all,
			pfx("fd01:1::5/128"): own, pfx("fd01:1::9/128"): six, pfx("fd01:2::9/128"): six, pfx("2001:db8::/64"): six,
		}},
		"pools": {s.Policy.Pools, map[netip.Prefix]desired.PoolUse{
			pfx("10.65.0.0/16"): {Masquerade: true}, pfx("10.66.0.0/16"): {}, pfx("fd00::/64"): {}}},
		"notices": {s.Notices, map[desired.NoticeKey]desired.Notice{}},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s:\n got %v\nwant %v", what, tt.got, tt.want)
		}
	}
	c.Apply([]model.Event{{ID: model.ID{Kind: model.KindPool, Name: "p4"}}, {ID: model.ID{Kind: model.KindPool, Name: "p6"}},
		{ID: model.ID{Kind: model.KindPool, Name: "other"}}})
	if s := c.State(); len(s.Devices)+len(s.Links)+len(s.Addresses)+len(s.Neighbours)+len(s.Policy.Tunnels)+len(remoteRoutes(s)) > 0 {
		t.Errorf("left without pools: %+v", s)
	}
}

// TestOddities starts from an IPv4 pool with IP in IP and an IPv6 pool with
// VXLAN, changes something, and looks at the routes of both families and at
// the notices.
func TestOddities(t *testing.T) {
	edit := func(change func(map[string]*model.Node)) func([]model.Event) []model.Event {
		return func([]model.Event) []model.Event {
			nodes := tunnelNodes()
			change(nodes)
			return []model.Event{nodeEvent(nodes["h1"]), nodeEvent(nodes["h2"]), nodeEvent(nodes["h3"])}
		}
	}
	with := func(parts ...[]model.Event) func([]model.Event) []model.Event {
		return func([]model.Event) []model.Event { return slices.Concat(parts...) }
	}
	block := func(b model.Block) []model.Event { return []model.Event{{ID: model.BlockID(b.CIDR), Value: &b}} }
	pools := func(v4, v6 model.Encap) []model.Event {
		return []model.Event{poolEvent(&model.Pool{Name: "p4", CIDR: pfx("10.65.0.0/16"), Encap: v4}),
			poolEvent(&model.Pool{Name: "p6", CIDR: pfx("fd00::/64"), Encap: v6})}
	}
	speaking := func(n *model.Node, accepts ...desired.Form) {
		n.Speaks, n.Accepts = true, desired.FormsOf(accepts...)
	}
	tests := []struct {
		name string
		in   func([]model.Event) []model.Event
		want []string
		told string // reasons, with "!" if blocking
	}{
		{"nothing", with(), lines(ipip4, vxlan6), ""},
		{"borrowed addresses", with(
			block(model.Block{CIDR: pfx("10.65.2.0/26"), Host: "h2", Uses: []model.Use{{Addr: ip("10.65.2.7"), Node: "h3"}, {Addr: ip("10.65.2.8"), Node: "h2"}, {Addr: ip("10.65.2.9"), Node: "h1"}}}),
			block(model.Block{CIDR: pfx("fd00::1:0/122"), Host: "h1", Uses: []model.Use{{Addr: ip("fd00::1:7"), Node: "h3"}, {Addr: ip("fd00::1:8"), Node: "gone"}, {Addr: ip("fd00::1:9")}}})),
			lines(ipip4, vxlan6, "10.65.2.7/32 via 10.0.2.9 dev tunl0 onlink mtu 1480", "fd00::1:7/128 via fd00::3:2 dev vxlan-v6.calico onlink mtu 1430"), ""},
		{"a borrowed address that a workload here has", with(
			block(model.Block{CIDR: pfx("10.65.2.0/26"), Host: "h2", Uses: []model.Use{{Addr: ip("10.65.2.7"), Node: "h3"}}}),
			block(model.Block{CIDR: pfx("fd00::2:0/122"), Host: "h2", Uses: []model.Use{{Addr: ip("fd00::2:7"), Node: "h3"}}}),
			[]model.Event{workloadEvent("h1", "a", "10.65.2.7", "fd00::2:7")}), lines(ipip4, vxlan6), ""},
		{"a block of nobody", with(
			block(model.Block{CIDR: pfx("10.65.2.0/26"), Uses: []model.Use{{Addr: ip("10.65.2.7"), Node: "h2"}}}),
			block(model.Block{CIDR: pfx("fd00::2:0/122"), Uses: []model.Use{{Addr: ip("fd00::2:7"), Node: "h2"}}})),
			lines(ipip4[1], vxlan6[1], "10.65.2.7/32 via 10.0.1.9 dev tunl0 onlink mtu 1480", "fd00::2:7/128 via fd00::2:2 dev vxlan-v6.calico onlink mtu 1430",
				"10.65.2.1/32 via 10.0.1.9 dev tunl0 onlink mtu 1480", "10.65.2.2/32 via 10.0.1.9 dev tunl0 onlink mtu 1480", "fd00::2:2/128 dev vxlan-v6.calico mtu 1430"), ""},
		{"a virtual block, a block of a stranger", with(
			block(model.Block{CIDR: pfx("10.65.9.0/26"), Host: "load-balancer", Virtual: true, Uses: []model.Use{{Addr: ip("10.65.9.7"), Node: "h2"}}}),
			block(model.Block{CIDR: pfx("fd00::9:0/122"), Host: "stranger"})), lines(ipip4, vxlan6), ""},
		{"a block in no pool", with(block(model.Block{CIDR: pfx("10.99.0.0/26"), Host: "h2"}), block(model.Block{CIDR: pfx("fd99::/122"), Host: "h2"})),
			lines(ipip4, vxlan6), ""},
		{"a host that goes", with([]model.Event{{ID: model.ID{Kind: model.KindNode, Name: "h2"}}}), lines(ipip4[1], vxlan6[1]), ""},
		{"a host that moves", edit(func(n map[string]*model.Node) { n["h2"].Addr4, n["h2"].Addr6 = pfx("10.0.3.7/24"), pfx("fd01:3::7/64") }),
			lines("10.65.2.0/26 via 10.0.3.7 dev tunl0 onlink mtu 1480", ipip4[1], vxlan6), ""},
		{"this host has no address", edit(func(n map[string]*model.Node) { n["h1"].Addr4, n["h1"].Addr6 = netip.Prefix{}, netip.Prefix{} }), nil, "NoBGPAddress!"},
		{"ends are missing", edit(func(n map[string]*model.Node) {
			n["h3"].IPIP, n["h3"].VXLAN6 = netip.Addr{}, model.TunnelEnd{}
		}), lines(ipip4, vxlan6[0]), "NoTunnelAddress"},
		{"own ends are missing", edit(func(n map[string]*model.Node) { n["h1"].IPIP, n["h1"].VXLAN6 = netip.Addr{}, model.TunnelEnd{} }),
			lines(ipip4, vxlan6), "NoTunnelAddress!"},
		{"two hosts with one address of a tunnel: the first has it", edit(func(n map[string]*model.Node) { n["h3"].VXLAN6.Addr = n["h2"].VXLAN6.Addr }),
			lines(ipip4, vxlan6[0]), "TunnelAddressTaken"},
		{"this host has the address of another's tunnel, which is later", edit(func(n map[string]*model.Node) { n["h3"].VXLAN6.Addr = n["h1"].VXLAN6.Addr }),
			lines(ipip4, vxlan6[0]), "TunnelAddressTaken"},
		{"a tunnel with the address of a host", edit(func(n map[string]*model.Node) { n["h1"].VXLAN6.Addr = n["h2"].Addr6.Addr() }),
			lines(ipip4, vxlan6), "TunnelAddressTaken!"},
		{"two hosts with one MAC", edit(func(n map[string]*model.Node) { n["h3"].VXLAN6.MAC = model.VTEPMAC("h2", 6) }), lines(ipip4, vxlan6[0]), "TunnelMACTaken"},
		{"two hosts with one address: the first has it", edit(func(n map[string]*model.Node) { n["h3"].Addr4, n["h3"].Addr6 = n["h2"].Addr4, n["h2"].Addr6 }),
			lines(ipip4[0], vxlan6[0]), "DuplicateNodeAddress"},
		{"an end outside of the host's blocks", edit(func(n map[string]*model.Node) {
			n["h2"].IPIP, n["h2"].VXLAN6.Addr = ip("10.65.77.1"), ip("fd00::77:1")
		}), lines(ipip4, "10.65.77.1/32 via 10.0.1.9 dev tunl0 onlink mtu 1480", "fd00::77:1/128 dev vxlan-v6.calico mtu 1430",
			"fd00::2:0/122 via fd00::77:1 dev vxlan-v6.calico onlink mtu 1430", vxlan6[1]), ""},
		{"a block among the hosts", with(block(model.Block{CIDR: pfx("10.0.2.0/26"), Host: "h3"}), block(model.Block{CIDR: pfx("fd01:2::/122"), Host: "h3"}),
			[]model.Event{poolEvent(&model.Pool{Name: "q4", CIDR: pfx("10.0.0.0/16"), Encap: model.IPIP}), poolEvent(&model.Pool{Name: "q6", CIDR: pfx("fd01::/16"), Encap: model.VXLAN})}),
			lines(ipip4, vxlan6), ""},
		{"the smallest pool decides", with([]model.Event{poolEvent(&model.Pool{Name: "q4", CIDR: pfx("10.65.2.0/24"), Encap: model.VXLAN}),
			poolEvent(&model.Pool{Name: "q6", CIDR: pfx("fd00::2:0/112")})}), lines(vxlan4[0], ipip4[1], vxlan6[1], ends6,
			"10.65.2.1/32 via 10.0.1.9 dev tunl0 onlink mtu 1480", "10.65.3.2/32 dev vxlan.calico scope link mtu 1450"), ""},
		{"the end of IP in IP is of a pool that asks for it across subnets, another does for all", with([]model.Event{
			poolEvent(&model.Pool{Name: "q4", CIDR: pfx("10.65.2.0/24"), Encap: model.IPIP, CrossSubnet: true})}), lines("10.65.2.0/26 via 10.0.1.9",
			"10.65.2.1/32 via 10.0.1.9 dev tunl0 onlink mtu 1480", ipip4[1], vxlan6), ""},
		{"the same of VXLAN", with(pools(model.VXLAN, model.VXLAN), []model.Event{
			poolEvent(&model.Pool{Name: "q4", CIDR: pfx("10.65.2.0/24"), Encap: model.VXLAN, CrossSubnet: true})}), lines("10.65.2.0/26 via 10.0.1.9",
			"10.65.2.2/32 dev vxlan.calico scope link mtu 1450", vxlan4[1], vxlan6), ""},
		{"no other does for all", with([]model.Event{
			poolEvent(&model.Pool{Name: "q4", CIDR: pfx("10.65.2.0/24"), Encap: model.IPIP, CrossSubnet: true}),
			poolEvent(&model.Pool{Name: "p4", CIDR: pfx("10.65.0.0/16"), Encap: model.IPIP, CrossSubnet: true})}), lines("10.65.2.0/26 via 10.0.1.9", ipip4[1], vxlan6), ""},
		{"agents that speak of what pools ask for", edit(func(n map[string]*model.Node) { speaking(n["h2"], desired.IPIP, desired.VXLAN) }), lines(ipip4, vxlan6), ""},
		{"one that accepts the other alone", with(pools(model.VXLAN, model.VXLAN), []model.Event{
			{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500, Keep: desired.FormsOf(desired.IPIP)}}},
			edit(func(n map[string]*model.Node) { speaking(n["h2"], desired.IPIP) })(nil)), lines(ipip4[0], vxlan4[1], vxlan6[1]), "FormNotAccepted"},
		{"one that accepts the other, which this host has no more", with(pools(model.VXLAN, model.VXLAN),
			edit(func(n map[string]*model.Node) { speaking(n["h2"], desired.IPIP) })(nil)), lines(vxlan4[1], vxlan6[1]), "FormNotAccepted"},
		{"this host is not ready for one form", edit(func(n map[string]*model.Node) { speaking(n["h1"], desired.VXLAN) }), lines(vxlan6), ""},
		{"this host is not ready, and the other form will do", with(
			edit(func(n map[string]*model.Node) {
				speaking(n["h1"], desired.VXLAN)
				speaking(n["h2"], desired.IPIP, desired.VXLAN)
			})(nil), []model.Event{{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500, Keep: desired.FormsOf(desired.VXLAN)}}}),
			lines(vxlan4[0], vxlan6), ""},
		{"one that accepts nothing", edit(func(n map[string]*model.Node) { speaking(n["h2"]) }), lines(ipip4[1], vxlan6[1]), "FormNotAccepted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := tunnelCluster(tunnelNodes(), model.Pool{Encap: model.IPIP}, model.Pool{Encap: model.VXLAN})
			changed := New(model.Settings{Node: "h1"})
			changed.Apply(base)
			changed.Apply(tt.in(base))
			told := New(model.Settings{Node: "h1"})
			told.Apply(append(slices.Clone(base), tt.in(base)...))
			for how, c := range map[string]*Core{"changed": changed, "told": told} {
				if got := remoteRoutes(c.State()); !slices.Equal(got, slices.Sorted(slices.Values(tt.want))) {
					t.Errorf("%s: got\n%s\nwant\n%s", how, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
				var reasons []string
				for _, n := range c.State().Notices {
					reasons = append(reasons, n.Reason+map[bool]string{true: "!"}[n.Blocking])
				}
				if got := strings.Join(reasons, " "); got != tt.told {
					t.Errorf("%s: told %v, want %q", how, c.State().Notices, tt.told)
				}
			}
		})
	}
}

// TestAddressesOfTunnelsBeforeTheNodeSaysThem: what is held for an end is on its
// interface until the Node says an address, and an interface without one is
// told of.
func TestAddressesOfTunnelsBeforeTheNodeSaysThem(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	nodes := tunnelNodes()
	nodes["h1"].IPIP, nodes["h1"].VXLAN4.Addr, nodes["h1"].VXLAN6.Addr = netip.Addr{}, netip.Addr{}, netip.Addr{}
	c.Apply(tunnelCluster(nodes, model.Pool{Encap: model.IPIP}, model.Pool{Encap: model.VXLAN}))
	hold := func(four, six string) model.Event {
		u := &model.Underlay{MTU: 1500}
		if four != "" {
			u.IPIP, u.VXLAN6 = ip(four), ip(six)
		}
		return model.Event{ID: model.UnderlayID(), Value: u}
	}
	says := *nodes["h1"]
	says.IPIP, says.VXLAN6.Addr = ip("10.65.1.1"), ip("fd00::1:2")
	taken := says
	taken.IPIP, taken.VXLAN6.Addr = nodes["h2"].Addr4.Addr(), nodes["h2"].Addr6.Addr()
	for _, tt := range []struct {
		name      string
		event     model.Event
		four, six netip.Addr
	}{
		{"none", hold("", ""), netip.Addr{}, netip.Addr{}},
		{"held", hold("10.65.1.9", "fd00::1:9"), ip("10.65.1.9"), ip("fd00::1:9")},
		{"said", nodeEvent(&says), says.IPIP, says.VXLAN6.Addr},
		{"said, and another's", nodeEvent(&taken), netip.Addr{}, netip.Addr{}},
		{"held again", nodeEvent(nodes["h1"]), ip("10.65.1.9"), ip("fd00::1:9")},
		{"no more", hold("", ""), netip.Addr{}, netip.Addr{}},
	} {
		c.Apply([]model.Event{tt.event})
		addrs := map[desired.AddrKey]struct{}{}
		if tt.four.IsValid() {
			addrs = map[desired.AddrKey]struct{}{{Interface: "tunl0", Prefix: single(tt.four)}: {}, {Interface: "vxlan-v6.calico", Prefix: single(tt.six)}: {}}
		}
		tunnels := map[string]netip.Addr{"tunl0": tt.four, "vxlan-v6.calico": tt.six}
		if s := c.State(); !maps.Equal(s.Addresses, addrs) || !maps.Equal(s.Policy.Tunnels, tunnels) {
			t.Errorf("%s: addresses %v, tunnels %v", tt.name, s.Addresses, s.Policy.Tunnels)
		}
	}
}

// TestKeep: a form that no pool asks for any more is accepted as long as the
// agent says so, and what goes with it stays.
func TestKeep(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	c.Apply(tunnelCluster(tunnelNodes(), model.Pool{Encap: model.VXLAN}, model.Pool{Encap: model.VXLAN}))
	keep := func(forms ...desired.Form) []model.Event {
		return []model.Event{{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500, Keep: desired.FormsOf(forms...)}}}
	}
	c.Apply(keep(desired.VXLAN))
	u := c.Apply(tunnelCluster(tunnelNodes(), model.Pool{}, model.Pool{})[:2])
	if !u.Devices.Empty() || !u.Neighbours.Empty() || !u.Policy.Hosts.Empty() || len(u.Routes.Delete) != 4 {
		t.Errorf("pools without tunnel: %+v", u)
	}
	u = c.Apply(keep())
	if len(u.Devices.Delete) != 2 || len(u.Neighbours.Delete) != 8 || len(u.Policy.Hosts.Set) != 4 || len(u.Addresses.Delete) != 2 {
		t.Errorf("kept no more: %+v", u)
	}
}

// TestBlocksThatAreNotKept: while BGP brings every route, nothing is kept of
// other hosts' blocks; a pool that changes makes it, and takes it away again,
// also in one batch with a block.
func TestBlocksThatAreNotKept(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	kept := func() (n int) {
		for p := range c.overlay.slots {
			if !p.IsSingleIP() {
				n++
			}
		}
		return n
	}
	pools := func(e model.Encap) []model.Event {
		list := tunnelCluster(nil, model.Pool{Encap: e}, model.Pool{})
		return list[:2]
	}
	c.Apply(tunnelCluster(tunnelNodes(), model.Pool{}, model.Pool{}))
	if n := kept(); n != 0 || len(remoteRoutes(c.State())) != 0 {
		t.Errorf("%d blocks are kept, and the routes are %v", n, remoteRoutes(c.State()))
	}
	more := claimEvents("h3", "10.65.9.0/26", true)
	c.Apply(append(pools(model.VXLAN), more...))
	if n := kept(); n != 5 { // h2's and h3's of both families, and the one that came
		t.Errorf("%d blocks are kept", n)
	}
	if r := remoteRoutes(c.State()); !slices.ContainsFunc(r, func(s string) bool { return strings.HasPrefix(s, "10.65.9.0/26 ") }) {
		t.Errorf("the routes are %v", r)
	}
	c.Apply(append(pools(model.NoEncap), claimEvents("h2", "10.65.9.0/26", true)...))
	if n := kept(); n != 0 || len(remoteRoutes(c.State())) != 0 {
		t.Errorf("%d blocks are kept, and the routes are %v", n, remoteRoutes(c.State()))
	}
}

// TestWorkloadWithATunnelsAddress: it does not get it, in either family.
func TestWorkloadWithATunnelsAddress(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	c.Apply(append(tunnelCluster(tunnelNodes(), model.Pool{Encap: model.IPIP}, model.Pool{}),
		workloadEvent("h1", "a", "10.65.3.1", "fd00::3:2", "10.65.1.9")))
	for _, p := range []string{"10.65.3.1/32", "fd00::3:2/128"} {
		if r, ok := c.State().Routes[desired.RouteKey{Table: 254, Prefix: pfx(p), Priority: 1024}]; ok {
			t.Errorf("routed: %s, %+v", p, r)
		}
	}
	n := c.State().Notices[desired.NoticeKey{Condition: "Routing", Object: "WorkloadEndpoint default/a"}]
	if n.Reason != "HostAddress" || !strings.Contains(n.Message, "10.65.3.1") || !strings.Contains(n.Message, "fd00::3:2") || strings.Contains(n.Message, "10.65.1.9") {
		t.Errorf("told: %+v", n)
	}
}

// TestHostWithABorrowedAddress: while a host has an address, no block leads it
// elsewhere.
func TestHostWithABorrowedAddress(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	c.Apply(tunnelCluster(tunnelNodes(), model.Pool{Encap: model.IPIP}, model.Pool{Encap: model.VXLAN}))
	for _, b := range []model.Block{
		{CIDR: pfx("10.65.2.0/26"), Host: "h2", Uses: []model.Use{{Addr: ip("10.65.2.7"), Node: "h3"}}},
		{CIDR: pfx("fd00::2:0/122"), Host: "h2", Uses: []model.Use{{Addr: ip("fd00::2:7"), Node: "h3"}}},
	} {
		c.Apply([]model.Event{{ID: model.BlockID(b.CIDR), Value: &b}})
	}
	h4 := nodeEvent(&model.Node{Name: "h4", Addr4: pfx("10.65.2.7/24"), Addr6: pfx("fd00::2:7/64")})
	for _, e := range []model.Event{{ID: h4.ID}, h4, {ID: h4.ID}, h4} {
		c.Apply([]model.Event{e})
		for _, p := range []string{"10.65.2.7/32", "fd00::2:7/128"} {
			_, routed := c.State().Routes[desired.RouteKey{Table: 254, Prefix: pfx(p), Priority: 1023}]
			if routed != (e.Value == nil) {
				t.Errorf("the host is there: %v; a route to %s: %v", e.Value != nil, p, routed)
			}
		}
	}
}

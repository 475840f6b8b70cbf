package randworld

import (
	"fmt"
	"net/netip"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

var hostNames = [...]string{"h1", "h2", "h3", "h4", "h5"}

// Hosts returns the names that hosts of a network can have. Not all of them
// are there at all times.
func Hosts() []string { return hostNames[:] }

// NewNetwork returns the cluster of a seed in which what hosts and pools ask
// of the network changes: subnets, addresses of tunnels, modes of pools, blocks
// and who uses addresses of them, and what each agent accepts. It has
// workloads and no policy.
func NewNetwork(seed uint64) *World {
	w := empty(seed)
	w.more = w.anythingOfNetwork
	for i := range hostNames {
		if w.chance(90) {
			w.put(w.host(i))
		}
	}
	for i := range pools {
		if w.chance(80) {
			w.put(w.pool(i))
		}
	}
	for i := range blocks {
		if w.chance(60) {
			w.put(w.block(i))
		}
	}
	for i := range 8 {
		if w.chance(60) {
			w.put(w.workload(i))
		}
	}
	w.put(w.underlay())
	return w
}

func (w *World) anythingOfNetwork() (model.ID, model.Value) {
	switch n := w.rng.IntN(20); {
	case n < 6:
		return w.host(w.rng.IntN(len(hostNames)))
	case n < 10:
		return w.pool(w.rng.IntN(len(pools)))
	case n < 16:
		return w.block(w.rng.IntN(len(blocks)))
	case n < 17:
		return w.affinity(w.rng.IntN(len(blocks)))
	case n < 19:
		return w.workload(w.rng.IntN(8))
	}
	return w.underlay()
}

// Overlay makes the configuration of tunnels of one host.
func (w *World) Overlay() model.Overlay {
	on, off := true, false
	return model.Overlay{
		VNI: pick[uint32](w, 0, 0, 42), Port: pick[uint16](w, 0, 0, 8472),
		IPIPMTU: pick(w, 0, 0, 1400), VXLANMTU: pick(w, 0, 0, 1410), VXLANMTU6: pick(w, 0, 0, 1390),
		IPIP: pick(w, nil, nil, nil, nil, nil, nil, &on, &off), VXLAN: pick(w, nil, nil, nil, nil, nil, nil, &on, &off),
		Routes: pick(w, model.RoutesIPIPOnly, model.RoutesIPIPOnly, model.RoutesIPIPOnly, model.RoutesAll, model.RoutesNone,
			model.RoutesNoEncapOnly),
		ExternalNodes: pick(w, nil, nil, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
			[]netip.Prefix{netip.MustParsePrefix("172.16.0.2/32"), netip.MustParsePrefix("fd01::7:0/112")}),
		NoBGP: w.chance(20), NoRoutes: w.chance(5),
	}
}

// underlay is what the host that is looked at found out.
func (w *World) underlay() (model.ID, model.Value) {
	end := func(addr string) netip.Addr { return pick(w, netip.Addr{}, netip.MustParseAddr(addr)) }
	return model.UnderlayID(), &model.Underlay{
		MTU: pick(w, 0, 1500, 1500, 1500, 9001), Keep: w.forms(),
		IPIP: end("10.48.0.200"), VXLAN4: end("10.48.0.201"), VXLAN6: end("fd00:48::201"),
	}
}

func (w *World) forms() desired.Forms {
	return pick(w, 0, desired.FormsOf(desired.IPIP), desired.FormsOf(desired.VXLAN), desired.FormsOf(desired.IPIP, desired.VXLAN))
}

// host is a node in one of two subnets, of which some know the length and
// some say it wrong, with ends of tunnels that may be missing or another's.
func (w *World) host(i int) (model.ID, model.Value) {
	n := &model.Node{Name: hostNames[i]}
	subnet, number := byte(w.rng.IntN(2)), byte(i+1)
	if w.chance(5) {
		number = 2
	}
	if w.chance(93) {
		n.Addr4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, subnet, number}), pick(w, 24, 24, 24, 24, 23, 32))
	}
	if w.chance(80) {
		n.Addr6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x01, 7: subnet, 15: number}), pick(w, 64, 64, 64, 48, 128))
	}
	if w.chance(80) {
		n.IPIP = w.tunnelAddr(i, true)
	}
	if w.chance(80) {
		n.VXLAN4 = model.TunnelEnd{Addr: w.tunnelAddr(i, true), MAC: w.mac(4)}
	}
	if w.chance(75) {
		n.VXLAN6 = model.TunnelEnd{Addr: w.tunnelAddr(i, false), MAC: w.mac(6)}
	}
	if n.Speaks = w.chance(50); n.Speaks {
		n.Accepts = w.forms()
	}
	return model.ID{Kind: model.KindNode, Name: n.Name}, n
}

// tunnelAddr is mostly in a block that is likely the host's, sometimes in
// another's, outside of all, or a host's own.
func (w *World) tunnelAddr(i int, four bool) netip.Addr {
	last := byte(i*16 + 8 + w.rng.IntN(2))
	switch w.rng.IntN(20) {
	case 0, 1:
		last = byte(w.rng.IntN(80))
	case 2:
		last = 200
	case 3:
		if four {
			return netip.AddrFrom4([4]byte{172, 16, 0, 2})
		}
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x01, 15: 2})
	}
	if four {
		return netip.AddrFrom4([4]byte{10, 65, 0, last})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 15: last})
}

func (w *World) mac(family int) string {
	return pick(w, "", "", "", "", "", "66:00:00:00:00:01", model.VTEPMAC("h1", family), model.VTEPMAC("h3", family))
}

// The pools overlap in their names' order: the second is within the first.
var pools = [...]string{"10.65.0.0/24", "10.65.0.32/27", "10.66.0.0/24", "fd00::/64", "fd02::/64", "10.99.0.0/24"}

func (w *World) pool(i int) (model.ID, model.Value) {
	p := &model.Pool{
		Name: fmt.Sprintf("p%d", i), CIDR: netip.MustParsePrefix(pools[i]), BlockSize: 28,
		Encap: pick(w, model.NoEncap, model.IPIP, model.VXLAN), CrossSubnet: w.chance(40),
		NATOutgoing: w.chance(50), Disabled: w.chance(20), DisableBGPExport: w.chance(10),
	}
	if p.CIDR.Addr().Is6() {
		p.BlockSize = 124
		p.Encap = pick(w, model.NoEncap, model.VXLAN, model.VXLAN)
	}
	if i == len(pools)-1 {
		p.LoadBalancerOnly, p.Encap, p.CrossSubnet = true, model.NoEncap, false
	}
	return model.ID{Kind: model.KindPool, Name: p.Name}, p
}

// The blocks, of which a host likely has the one of its number.
var blocks = [...]string{
	"10.65.0.0/28", "10.65.0.16/28", "10.65.0.32/28", "10.65.0.48/28", "10.65.0.64/28",
	"fd00::/124", "fd00::10/124", "fd00::20/124", "fd00::30/124", "fd00::40/124",
	"10.66.0.0/28", "10.66.0.16/28", "fd02::/124", "10.99.0.0/28", "10.77.0.0/28", "10.65.0.200/32",
}

func (w *World) block(i int) (model.ID, model.Value) {
	b := &model.Block{CIDR: netip.MustParsePrefix(blocks[i]), Host: hostNames[i%5]}
	if w.chance(25) {
		b.Host = pick(w, "h1", "h2", "h3", "gone", "")
	}
	if b.Virtual = blocks[i] == "10.99.0.0/28"; b.Virtual {
		b.Host = "load-balancer"
	}
	for a := b.CIDR.Addr(); b.CIDR.Contains(a); a = a.Next() {
		if w.chance(30) {
			use := model.Use{Addr: a, Node: b.Host, Handle: "x"}
			if w.chance(30) {
				use.Node = pick(w, "h1", "h2", "h3", "h4", "gone", "")
			}
			b.Uses = append(b.Uses, use)
		}
	}
	return model.BlockID(b.CIDR), b
}

// affinity is a claim that agrees with its block most of the time.
func (w *World) affinity(i int) (model.ID, model.Value) {
	a := &model.Affinity{CIDR: netip.MustParsePrefix(blocks[i]), Host: hostNames[i%5], Confirmed: w.chance(80)}
	return model.AffinityID(a.Host, a.CIDR), a
}

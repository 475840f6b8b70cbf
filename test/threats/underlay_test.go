package threats

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// ground is a lab of two hosts in two subnets that have tunnels of all kinds:
// w1 and w2 on h1, w3 and w4 on h2. Its router is a machine of the network
// below that is no host of the cluster.
type ground struct {
	*labtest.World
	sockets map[string]int
	ears    map[string]*sniffer         // what workloads get
	macs    map[string]net.HardwareAddr // of "MEMBER/INTERFACE"
}

// Who has which address in the network below.
var below = map[string][2]string{
	"r1": {"172.30.1.1", "fd00:172:30:1::1"}, "h1": {"172.30.1.11", "fd00:172:30:1::b"}, "h2": {"172.30.2.12", "fd00:172:30:2::c"},
}

func (g *ground) below(member string, family int) netip.Addr { return addr(below[member][family/6]) }

func newGround(t *testing.T, name string) *ground {
	g := &ground{
		World:   labtest.Up(t, name, "subnets", "--hosts", "2", "--ipip", "Always", "--vxlan", "Always", "--nat"),
		sockets: map[string]int{}, ears: map[string]*sniffer{}, macs: map[string]net.HardwareAddr{},
	}
	g.Apply(`
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: carried}
spec: {cidr: 10.61.0.0/16, vxlanMode: Always, natOutgoing: true}
`)
	testenv.Until(t, labtest.Patience, func() error { // every host accepts every form
		nodes := g.Run("get", "nodes", "-o", "yaml")
		if n := strings.Count(nodes, "brindle.net/accepts: direct,ipip,vxlan"); n != 2 {
			return fmt.Errorf("%d hosts accept all forms:\n%s", n, nodes)
		}
		return nil
	})
	testenv.Until(t, labtest.Patience, g.Agree)
	for member, links := range map[string][]string{
		"r1": {"eth0"}, "h1": {"eth0", "vxlan.calico", "vxlan-v6.calico"}, "h2": {"vxlan.calico", "vxlan-v6.calico"}, "w2": {"eth0"},
	} {
		labtest.Inside(t, g.NS(member), func() error {
			for _, l := range links {
				i, err := net.InterfaceByName(l)
				if err != nil {
					return fmt.Errorf("%s: %w", l, err)
				}
				g.macs[member+"/"+l] = i.HardwareAddr
			}
			return nil
		})
	}
	for _, member := range []string{"r1", "w1", "w2", "w3", "h2"} {
		g.sockets[member] = g.socket(member)
		if member != "r1" && member != "w2" {
			g.ears[member] = listenTo(t, g.sockets[member])
		}
	}
	return g
}

func (g *ground) socket(member string) (fd int) {
	g.T.Helper()
	labtest.Inside(g.T, g.NS(member), func() (err error) {
		fd, err = openPacket("eth0")
		return err
	})
	g.T.Cleanup(func() { unix.Close(fd) })
	return fd
}

// forged is a packet from a workload of the other host to the first one of a
// host.
func (g *ground) forged(host string, family int, mark []byte) []byte {
	from, to := "w3", "w1"
	if host == "h2" {
		from, to = "w1", "w3"
	}
	p := packet{src: addr(g.Addr(from, family)), dst: addr(g.Addr(to, family)), proto: protoUDP, payload: udp(1000, sentinel, mark)}
	return p.bytes()
}

// wrap puts a packet in a VXLAN for a host's device of a family.
func (g *ground) wrap(host string, family, vni int, p []byte) []byte {
	kind, device := etherIPv4, "vxlan.calico"
	if p[0]>>4 == 6 {
		kind = etherIPv6
	}
	if family == 6 {
		device = "vxlan-v6.calico"
	}
	far := net.HardwareAddr{0x66, 0, 0, 0, 0, 2}
	return slices.Concat([]byte{8, 0, 0, 0}, be32(uint32(vni)<<8), frame(g.macs[host+"/"+device], far, kind, p))
}

// try is a packet in a packet.
type try struct {
	name   string
	outer  packet
	inner  int // family
	mark   []byte
	target string // the host
	ours   bool   // a form of this cluster's
	own    bool   // from the host's own address: the kernel may drop it before anybody counts
}

func (g *ground) came(x try) int {
	n := 0
	for _, w := range []string{"w1", "w3"} {
		n += g.ears[w].count(x.mark)
	}
	return n
}

// inject sends a packet from the router's link to h1.
func (g *ground) inject(p packet) {
	g.T.Helper()
	kind := etherIPv4
	if p.dst.Is6() {
		kind = etherIPv6
	}
	if err := write(g.sockets["r1"], frame(g.macs["h1/eth0"], g.macs["r1/eth0"], kind, p.bytes())); err != nil {
		g.T.Fatal(err)
	}
}

// emit sends a packet from w2.
func (g *ground) emit(p packet) {
	g.T.Helper()
	kind := etherIPv4
	if p.dst.Is6() {
		kind = etherIPv6
	}
	gateway := net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	if err := write(g.sockets["w2"], frame(gateway, g.macs["w2/eth0"], kind, p.bytes())); err != nil {
		g.T.Fatal(err)
	}
}

// settle waits until what was sent before has been judged: what h2 sends, which
// crosses the router, comes out in each form.
func (g *ground) settle() {
	g.T.Helper()
	var list []try
	for _, family := range families {
		x := try{mark: cookie()}
		x.outer = packet{src: g.below("h2", family), dst: g.below("h1", family), proto: protoUDP,
			payload: udp(5000, ourPort, g.wrap("h1", family, ourVNI, g.forged("h1", family, x.mark)))}
		list = append(list, x)
	}
	x := try{mark: cookie()}
	x.outer = packet{src: g.below("h2", 4), dst: g.below("h1", 4), proto: protoIPIP, payload: g.forged("h1", 4, x.mark)}
	list = append(list, x)
	testenv.Until(g.T, labtest.Patience, func() error {
		for i, x := range list {
			g.inject(x.outer)
			if g.came(x) < 2 {
				return fmt.Errorf("of what a known host sends, number %d does not arrive", i)
			}
		}
		return nil
	})
}

// metric reads a metric of a host's agent; 0 if it does not have it.
func (g *ground) metric(host, name string) int {
	g.T.Helper()
	value := 0.0
	for _, line := range g.Metrics(host, name+" ") {
		_, text, _ := strings.Cut(line, " ")
		var err error
		if value, err = strconv.ParseFloat(text, 64); err != nil {
			g.T.Fatal(err)
		}
	}
	return int(value)
}

// strangers is what h1 has dropped of strangers, by form.
func (g *ground) strangers() (vxlan, ipip int) {
	g.T.Helper()
	return g.Counter(rules.CounterUnknownVXLAN),
		g.Counter(rules.CounterUnknownIPIP) + g.metric("h1", `brindle_ipip_packets_total{outcome="unknown-sender"}`)
}

// fromBelow is what a machine of the network below may send to h1.
func (g *ground) fromBelow() []try {
	var list []try
	for _, family := range families {
		senders := map[string]netip.Addr{
			"its own address": g.below("r1", family), "far away": addr([]string{"198.51.100.7", "2001:db8:9::7"}[family/6]),
			"the same link": addr([]string{"172.30.1.77", "fd00:172:30:1::77"}[family/6]), "a workload of another host": addr(g.Addr("w3", family)),
			"the victim": addr(g.Addr("w1", family)), "the host itself": g.below("h1", family),
		}
		for sender, from := range senders {
			outer := packet{src: from, dst: g.below("h1", family)}
			own := sender == "the host itself"
			for _, in := range families {
				x := try{fmt.Sprintf("VXLAN, IPv%d in IPv%d, from %s", in, family, sender), outer, in, cookie(), "h1", true, own}
				x.outer.proto, x.outer.payload = protoUDP, udp(5000, ourPort, g.wrap("h1", family, ourVNI, g.forged("h1", in, x.mark)))
				list = append(list, x)
			}
			if family == 4 {
				x := try{"IP in IP, from " + sender, outer, 4, cookie(), "h1", true, own}
				x.outer.proto, x.outer.payload = protoIPIP, g.forged("h1", 4, x.mark)
				list = append(list, x)
			}
		}
	}
	return list
}

// TestThreat03OnTheNetworkBelow has a machine that is no host of the cluster
// send packets of workloads in packets: none comes out, all are counted. Hosts
// that the cluster is told of may, and without enforcement they come out.
func TestThreat03OnTheNetworkBelow(t *testing.T) {
	g := newGround(t, "below")
	g.settle()
	list := g.fromBelow()
	vxlan, ipip := g.strangers()
	var want [2]int // VXLAN, IP in IP
	for _, x := range list {
		g.inject(x.outer)
		if !x.own {
			want[map[int]int{protoUDP: 0, protoIPIP: 1}[x.outer.proto]]++
		}
	}
	g.settle()
	for _, x := range list {
		if g.came(x) > 0 {
			t.Errorf("%s: came out", x.name)
		}
	}
	testenv.Until(t, labtest.Patience, func() error {
		v, i := g.strangers()
		if v -= vxlan; v < want[0] {
			return fmt.Errorf("%d packets in VXLAN counted, want %d", v, want[0])
		}
		if i -= ipip; i < want[1] {
			return fmt.Errorf("%d packets in IP in IP counted, want %d", i, want[1])
		}
		return nil
	})

	// Who is told of may.
	friends := fmt.Sprintf(`[%s, 198.51.100.0/24, "%s", "2001:db8:9::/64"]`, g.below("r1", 4), g.below("r1", 6))
	g.Apply("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {externalNodesList: " + friends + "}\n")
	for _, x := range list {
		if x.stuck() || !strings.Contains(x.name, "its own address") && !strings.Contains(x.name, "far away") {
			continue
		}
		testenv.Until(t, labtest.Patience, func() error {
			g.inject(x.outer)
			if g.came(x) == 0 {
				return fmt.Errorf("%s: does not come out though it may", x.name)
			}
			return nil
		})
	}

	// Without enforcement others do too: what is carried by the kernel's devices,
	// which believe anybody.
	g.Run("lab", "host", "kill", "h1")
	g.On("h1", "nft", "delete", "table", "inet", "brindle")
	for _, x := range list {
		if x.own || x.outer.proto == protoIPIP || x.stuck() {
			continue
		}
		testenv.Until(t, labtest.Patience, func() error {
			g.inject(x.outer)
			if g.came(x) == 0 {
				return fmt.Errorf("%s: does not come out though nothing keeps it: the test proves nothing", x.name)
			}
			return nil
		})
	}
}

// stuck reports whether the kernel itself keeps the packet: IPv4 in IPv6 comes
// from a device without an IPv4 address, for which the loose filter of reverse
// paths (rp_filter 2) is strict.
func (x try) stuck() bool { return x.inner == 4 && x.outer.dst.Is6() }

// fromWorkload is what a workload of h1 may send to its own host and to the
// other, in everything that carries packets.
func (g *ground) fromWorkload() []try {
	var list []try
	for _, family := range families {
		for _, host := range []string{"h1", "h2"} {
			add := func(name string, proto, port int, ours bool, body func(in []byte) []byte) {
				for _, in := range families {
					x := try{name: fmt.Sprintf("%s, IPv%d in IPv%d to %s", name, in, family, host), inner: in, mark: cookie(), target: host, ours: ours}
					x.outer = packet{src: addr(g.Addr("w2", family)), dst: g.below(host, family), proto: proto, payload: body(g.forged(host, in, x.mark))}
					if port != 0 {
						x.outer.payload = udp(5000, port, x.outer.payload)
					}
					list = append(list, x)
				}
			}
			for _, port := range []int{ourPort, 8472, 4790, 6081, 51820} {
				for _, vni := range []int{0, ourVNI - 1, ourVNI, ourVNI + 1, 0xffffff} {
					add(fmt.Sprintf("VXLAN %d to port %d", vni, port), protoUDP, port, port == ourPort && vni == ourVNI,
						func(in []byte) []byte { return g.wrap(host, family, vni, in) })
				}
			}
			bare := func(in []byte) []byte { return in }
			add("IP in IP", protoIPIP, 0, true, bare)
			add("IPv6 in IP", protoIPv6, 0, false, bare)
			add("GRE", protoGRE, 0, false, func(in []byte) []byte { return append([]byte{0, 0, 8, 0}, in...) })
			add("Geneve", protoUDP, 6081, false, func(in []byte) []byte { return append([]byte{0, 0, 8, 0, 0, 16, 0, 0}, in...) })
		}
	}
	return list
}

// posed has the workload send to its host what the other host would: a node's
// address from the wrong side.
func (g *ground) posed() {
	g.T.Helper()
	var list []try
	for _, family := range families {
		outer := packet{src: g.below("h2", family), dst: g.below("h1", family)}
		x := try{name: fmt.Sprintf("VXLAN, IPv%d, in the name of the other host", family), outer: outer, mark: cookie()}
		x.outer.proto, x.outer.payload = protoUDP, udp(5000, ourPort, g.wrap("h1", family, ourVNI, g.forged("h1", family, x.mark)))
		list = append(list, x)
		x.name, x.mark = "IP in IP, in the name of the other host", cookie()
		x.outer.proto, x.outer.payload = protoIPIP, g.forged("h1", 4, x.mark)
		list = append(list, x)
	}
	before := g.Counter("d-spoof")
	for _, x := range list {
		g.emit(x.outer)
	}
	testenv.Until(g.T, labtest.Patience, func() error {
		if n := g.Counter("d-spoof") - before; n < len(list) {
			return fmt.Errorf("%d packets with a node's address counted, want %d", n, len(list))
		}
		return nil
	})
	g.settle()
	for _, x := range list {
		if g.came(x) > 0 {
			g.T.Errorf("%s: came out", x.name)
		}
	}
}

// TestThreat02FromAWorkload has a workload send packets in packets, in all
// forms, to its host and to the other: none comes out, those of the cluster's
// forms are counted and leave no host, and those of others pass as policy says.
// A cluster that lets workloads do it shows that they would come out.
func TestThreat02FromAWorkload(t *testing.T) {
	g := newGround(t, "within")
	g.settle()
	list := g.fromWorkload()
	before, ours := g.Counter(rules.CounterEncapsulation), 0
	for _, x := range list {
		g.emit(x.outer)
		if x.ours {
			ours++
		}
	}
	testenv.Until(t, labtest.Patience, func() error {
		if n := g.Counter(rules.CounterEncapsulation) - before; n != ours {
			return fmt.Errorf("%s counted %d packets, want %d", rules.CounterEncapsulation, n, ours)
		}
		for _, x := range list {
			if x.target == "h2" && !x.ours && g.ears["h2"].count(x.mark) == 0 {
				return fmt.Errorf("%s: does not reach the other host, and is none of ours", x.name)
			}
		}
		return nil
	})
	for _, x := range list {
		if g.came(x) > 0 {
			t.Errorf("%s: came out", x.name)
		}
		if x.ours && g.ears["h2"].count(x.mark) > 0 {
			t.Errorf("%s: reached the other host", x.name)
		}
	}

	g.posed()

	// A VXLAN of somebody else is for policy to judge.
	g.Apply(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-flannel}
spec:
  selector: has(projectcalico.org/namespace)
  types: [Egress]
  egress:
  - {action: Deny, protocol: UDP, destination: {ports: [8472]}}
  - {action: Allow}
`)
	foreign := func() packet {
		return packet{src: addr(g.Addr("w2", 4)), dst: g.below("h2", 4), proto: protoUDP}
	}
	testenv.Until(t, labtest.Patience, func() error {
		denied, passes := foreign(), foreign()
		bad, good := cookie(), cookie()
		denied.payload = udp(5000, 8472, g.wrap("h2", 4, 1, g.forged("h2", 4, bad)))
		passes.payload = udp(5000, ourPort, g.wrap("h2", 4, 1, g.forged("h2", 4, good)))
		g.emit(denied)
		g.emit(passes)
		testenv.Until(t, labtest.Patience, func() error {
			if g.ears["h2"].count(good) == 0 {
				return fmt.Errorf("a foreign VXLAN that policy allows does not pass")
			}
			return nil
		})
		if g.ears["h2"].count(bad) > 0 {
			return fmt.Errorf("a foreign VXLAN that policy denies passes")
		}
		return nil
	})

	// Where a cluster lets workloads do it, and gives them their host's address on
	// the way, the other host believes it.
	g.Apply("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n" +
		"spec: {allowVXLANPacketsFromWorkloads: true, allowIPIPPacketsFromWorkloads: true}\n")
	for _, x := range list {
		if !x.ours || x.target != "h2" || x.stuck() || x.outer.proto == protoIPIP && (x.inner == 6 || x.outer.dst.Is6()) {
			continue
		}
		testenv.Until(t, labtest.Patience, func() error {
			g.emit(x.outer)
			if g.came(x) == 0 {
				return fmt.Errorf("%s: does not come out though nothing keeps it (%d reached the other host): the test proves nothing", x.name, g.ears["h2"].count(x.mark))
			}
			return nil
		})
	}
}

package ipip

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// TestWrongInterface forges hosts' addresses on another network of the same
// host: where reverse paths are strict, nothing of that comes in, and nothing
// else is kept out.
func TestWrongInterface(t *testing.T) {
	w := newWorld(t, carried, carried)
	h, aside := w.b, testenv.NetNS(t)
	near, gate := netip.MustParseAddr("172.16.9.5"), netip.MustParseAddr("172.16.9.254")
	cable(t, h.ns, "eth1", aside, "eth0")
	address(t, h.ns, "eth1", netip.MustParsePrefix("172.16.9.1/24"))
	address(t, aside, "eth0", netip.PrefixFrom(gate, 24))
	route(t, aside, netip.PrefixFrom(h.node, 32).String(), netip.Addr{}, "eth0")
	sync := func(strict ...string) {
		t.Helper()
		s := State{Local: h.node, Hosts: []netip.Addr{w.a.node, near}, Underlay: []string{"eth0", "eth1"}, Strict: strict}
		if err := h.carrier.Sync(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	dev, port, wrong := listen(t, h.ns, h.device), uint16(100), map[netip.Addr]uint64{}
	try := func(what string, by *netns.NS, from netip.Addr, passes bool) {
		t.Helper()
		port++
		in := packet{ttl: 64, proto: unix.IPPROTO_UDP, from: w.a.workload, to: h.workload, data: datagram(port, []byte(what))}
		out := packet{ttl: 64, proto: unix.IPPROTO_IPIP, from: from, to: h.node, data: in.bytes()}
		before := h.counters(t).WrongWay.Packets
		sendRaw(t, by, out.bytes())
		if passes {
			dev.next(what, toPort(port))
			return
		}
		wrong[from]++
		testenv.Until(t, patience, func() error {
			if h.counters(t).WrongWay.Packets != before+1 {
				return fmt.Errorf("%s: not counted", what)
			}
			return nil
		})
	}
	sync()
	try("far host by the other network, loose", aside, w.a.node, true)
	try("near host by the first network, loose", w.router, near, true)
	sync("eth0", "eth1")
	try("far host", w.router, w.a.node, true)
	try("near host", aside, near, true)
	try("far host by the other network", aside, w.a.node, false)
	try("near host by the first network", w.router, near, false)
	sync("eth1")
	try("near host by the first network, which is loose again", w.router, near, true)
	try("far host by the other network, which is not", aside, w.a.node, false)
	sync("eth0", "eth1")
	sysctl(t, h.ns, "ipv4/conf/eth1/forwarding", "0")
	try("far host by the other network, of which nobody can tell", aside, w.a.node, true)
	sysctl(t, h.ns, "ipv4/conf/eth1/forwarding", "1")
	two := []hop{{netip.MustParseAddr("172.16.2.254"), "eth0"}, {gate, "eth1"}}
	multipath(t, h.ns, netip.PrefixFrom(w.a.node, 24).Masked(), two...)
	for range 4 {
		try("far host by the first of two ways", w.router, w.a.node, true)
		try("far host by the second of two ways", aside, w.a.node, true)
	}
	multipath(t, h.ns, netip.PrefixFrom(w.a.node, 24).Masked(), two[1])
	try("far host by the other network, where it is now", aside, w.a.node, true)
	try("far host by the first network, which leads everywhere", w.router, w.a.node, true)

	got, err := h.carrier.Strangers()
	if want := []Stranger{{w.a.node, wrong[w.a.node]}, {near, wrong[near]}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("told of: %v, %v; want %v", got, err, want)
	}
	if n := h.counters(t); n.UnknownSender.Packets > 0 {
		t.Errorf("hosts were taken for strangers: %+v", n)
	}
}

// multipath makes a route with next hops.
func multipath(t testing.TB, ns *netns.NS, to netip.Prefix, hops ...hop) {
	t.Helper()
	inside(t, ns, func(h *netlink.Handle) error {
		r := &netlink.Route{Dst: ipNet(to)}
		for _, one := range hops {
			l, err := h.LinkByName(one.name)
			if err != nil {
				return err
			}
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: l.Attrs().Index, Gw: one.via.AsSlice()})
		}
		return h.RouteReplace(r)
	})
}

package ipip

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// TestTurnsBack sends what comes out of a tunnel into it again: the kernel
// marks such packets as encapsulated already.
func TestTurnsBack(t *testing.T) {
	w := newWorld(t, carried, carried)
	third, addr := testenv.NetNS(t), netip.MustParseAddr("10.65.9.9")
	cable(t, w.a.ns, "cali1", third, "eth0")
	address(t, third, "eth0", netip.PrefixFrom(addr, 32))
	address(t, w.a.ns, "cali1", netip.MustParsePrefix("169.254.1.1/32"))
	route(t, third, "0.0.0.0/0", netip.MustParseAddr("169.254.1.1"), "eth0")
	setMTU(t, third, "eth0", tunnelMTU)
	// By way of host b, and back to host a, which then knows better.
	route(t, w.a.ns, "10.65.9.0/24", w.b.node, w.a.device)
	route(t, w.b.ns, "10.65.9.0/24", w.a.node, w.b.device)
	sysctl(t, w.b.ns, "ipv4/conf/"+w.b.device+"/send_redirects", "0")
	sysctl(t, w.b.ns, "ipv4/conf/all/send_redirects", "0")
	withLink(t, w.a.ns, "cali1", func(h *netlink.Handle, l netlink.Link) error {
		if err := h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.PrefixFrom(addr, 32)), Table: 100, Scope: netlink.SCOPE_LINK}); err != nil {
			return err
		}
		rule := netlink.NewRule()
		rule.IifName, rule.Table, rule.Family, rule.Priority = w.a.device, 100, unix.AF_INET, 100
		return h.RuleAdd(rule)
	})
	echo(t, third, 7)
	for _, size := range []int{1, 10000} {
		if err := ask(t, w.a.pod, addr, 7, size); err != nil {
			t.Error(err)
		}
	}
	transfer(t, w.a.pod, third, addr, amount(8<<20))
	if n := w.b.counters(t); n.Encapsulated.Packets == 0 || n.Unsupported.Packets > 0 {
		t.Errorf("host b: %+v", n)
	}
}

// TestTunnelOfPods has pods make a tunnel of their own in ours. Segments that
// they leave to the hardware to cut cannot be carried, and are counted.
func TestTunnelOfPods(t *testing.T) {
	w := newWorld(t, carried, carried)
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	within := func(ns *netns.NS, addr, from, to netip.Addr) {
		withLink(t, ns, "eth0", func(h *netlink.Handle, l netlink.Link) error {
			a := attrs("vxlan0")
			a.MTU = tunnelMTU - 50
			return h.LinkAdd(&netlink.Vxlan{LinkAttrs: a, VxlanId: 9, Port: 4789, VtepDevIndex: l.Attrs().Index, SrcAddr: net.IP(from.AsSlice()), Group: net.IP(to.AsSlice()), Learning: true})
		})
		up(t, ns, "vxlan0")
		address(t, ns, "vxlan0", netip.PrefixFrom(addr, 24))
	}
	within(w.a.pod, one, w.a.workload, w.b.workload)
	within(w.b.pod, two, w.b.workload, w.a.workload)
	echo(t, w.b.pod, 7)
	for _, size := range []int{1, 1000, 10000} {
		if err := ask(t, w.a.pod, two, 7, size); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	transfer(t, w.a.pod, w.b.pod, two, 1)
}

// TestWithoutEthernet takes packets from an interface that has no headers of
// its own.
func TestWithoutEthernet(t *testing.T) {
	w := newWorld(t, carried, carried)
	tun := &netlink.Tuntap{LinkAttrs: attrs("tun0"), Mode: netlink.TUNTAP_MODE_TUN, NonPersist: true, Flags: netlink.TUNTAP_NO_PI, Queues: 1}
	testenv.Do(t, w.b.ns, func() error { return netlink.LinkAdd(tun) })
	t.Cleanup(func() { tun.Fds[0].Close() })
	up(t, w.b.ns, "tun0")
	sysctl(t, w.b.ns, "ipv4/conf/tun0/rp_filter", "0")
	if err := w.b.carrier.Sync(t.Context(), State{Local: w.b.node, Hosts: []netip.Addr{w.a.node}, Underlay: []string{"eth0", "tun0"}}); err != nil {
		t.Fatal(err)
	}
	end := listen(t, w.b.pod, "eth0")
	in := packet{tos: 2, ttl: 9, proto: unix.IPPROTO_UDP, from: w.a.workload, to: w.b.workload, data: datagram(9, []byte("without"))}
	out := packet{tos: 3, ttl: 9, proto: unix.IPPROTO_IPIP, from: w.a.node, to: w.b.node, data: in.bytes()}
	if _, err := tun.Fds[0].Write(out.bytes()); err != nil {
		t.Fatal(err)
	}
	in.ttl--
	in.tos = 3
	compare(t, "arrived", end.next("packet", toPort(9)), in)
	// The interface is no longer one of ours.
	w.b.sync(t, w.a.node)
	if places, err := w.b.carrier.hooks().places(); err != nil || len(places) != 2 {
		t.Errorf("attached at %v, %v; want the tunnel's interface and eth0", places, err)
	}
}

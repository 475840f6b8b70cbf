package ipip

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// sendOut gives a packet to the program at the way out of the tunnel, as the
// kernel does once it has routed it there.
func (h *host) sendOut(t testing.TB, p packet) (verdict uint32, out packet) {
	t.Helper()
	opts := ebpf.RunOptions{Data: append([]byte{12: 8, 13: 0}, p.bytes()...), DataOut: make([]byte, 4096)}
	testenv.Do(t, h.ns, func() (err error) {
		verdict, err = h.carrier.programs.Encapsulate.Run(&opts)
		return err
	})
	if verdict != redirected {
		return verdict, packet{}
	}
	out, err := parse(opts.DataOut[14:])
	if err != nil {
		t.Fatal(err)
	}
	return verdict, out
}

// age lets ten seconds pass since packets to an address were sent.
func (h *host) age(t testing.TB, to netip.Addr) {
	t.Helper()
	var was [16]byte
	if err := h.carrier.tables.Hops.Lookup(to.As4(), &was); err != nil {
		t.Fatal(err)
	}
	binary.NativeEndian.PutUint64(was[:], 1)
	if err := h.carrier.tables.Hops.Put(to.As4(), was); err != nil {
		t.Fatal(err)
	}
}

// TestRouteMoves takes the route away from the tunnel after the kernel has
// given a packet to it, and before the program looks: the packet still goes to
// the same host, wrapped.
func TestRouteMoves(t *testing.T) {
	w := newWorld(t, carried, carried)
	h, block := w.a, netip.PrefixFrom(w.b.tunnel, 24).Masked().String()
	in := packet{ttl: 64, proto: unix.IPPROTO_UDP, from: h.workload, to: w.b.workload, data: datagram(9, []byte("late"))}
	neighbour := in
	neighbour.to = w.b.tunnel
	delRoute := func() {
		inside(t, h.ns, func(nl *netlink.Handle) error {
			return nl.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(block)), Scope: netlink.SCOPE_NOWHERE})
		})
	}
	sent := func(what string, p packet, to netip.Addr) {
		t.Helper()
		verdict, out := h.sendOut(t, p)
		if !to.IsValid() {
			if verdict != dropped {
				t.Errorf("%s: got %d, want it dropped", what, int32(verdict))
			}
			return
		}
		if verdict != redirected || out.proto != unix.IPPROTO_IPIP || out.to != to || out.from != h.node {
			t.Errorf("%s: got %d, %+v; want it sent to %v", what, int32(verdict), out, to)
		}
	}
	sent("by the tunnel", in, w.b.node)
	route(t, h.ns, block, netip.MustParseAddr("172.16.1.254"), "eth0")
	sent("moved to another interface", in, w.b.node)
	sent("moved, to where nothing was sent before", neighbour, netip.Addr{})
	delRoute()
	sent("gone, but for the default route", in, w.b.node)
	if n := h.counters(t); n.Late.Packets != 2 || n.NoPeer.Packets != 1 || n.Encapsulated.Packets != 3 {
		t.Errorf("counted: %+v", n)
	}
	third := netip.MustParseAddr("172.16.3.1")
	route(t, h.ns, block, third, h.device)
	sent("moved to another host", in, third)
	delRoute()
	sent("that host is none any more", in, netip.Addr{})
	route(t, h.ns, block, w.b.node, h.device)
	sent("back", in, w.b.node)
	route(t, h.ns, block, netip.Addr{}, h.device)
	sent("a route without a next hop", in, netip.Addr{})
	delRoute()
	h.age(t, in.to)
	sent("gone for long", in, netip.Addr{})
}

// TestRouteToAndFro moves the route between the tunnel and the bare way as
// fast as can be, and loses none of many packets.
func TestRouteToAndFro(t *testing.T) {
	w := newWorld(t, carried, carried)
	for i, h := range []*host{w.a, w.b} {
		sysctl(t, h.ns, "ipv4/conf/all/rp_filter", "0")
		sysctl(t, h.ns, "ipv4/conf/eth0/rp_filter", "0")
		route(t, w.router, netip.PrefixFrom(h.workload, 32).String(), h.node, []string{"r1", "r2"}[i])
	}
	echo(t, w.b.pod, 7)
	if err := ask(t, w.a.pod, w.b.workload, 7, 100); err != nil {
		t.Fatal(err)
	}
	stop := toAndFro(t, w.a.ns, netip.PrefixFrom(w.b.tunnel, 24).Masked(), [2]hop{{w.b.node, w.a.device}, {netip.MustParseAddr("172.16.1.254"), "eth0"}})
	lost := pingPong(t, w.a.pod, w.b.workload, amount(amount(20000)))
	moves := stop()
	n := w.a.counters(t)
	t.Logf("%d moves; %d packets by the tunnel, %d late", moves, n.Encapsulated.Packets, n.Late.Packets)
	if lost > 0 || n.NoPeer.Packets > 0 {
		t.Errorf("%d lost: %+v", lost, n)
	}
	if n.Encapsulated.Packets == 0 || moves == 0 {
		t.Error("nothing was tried")
	}
}

// hop is a next hop.
type hop struct {
	via  netip.Addr
	name string
}

// toAndFro moves a route between two next hops until it is stopped, and says
// how often.
func toAndFro(t testing.TB, ns *netns.NS, to netip.Prefix, hops [2]hop) (stop func() int) {
	t.Helper()
	var h *netlink.Handle
	var routes [2]*netlink.Route
	testenv.Do(t, ns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		for i := 0; err == nil && i < 2; i++ {
			var l netlink.Link
			if l, err = h.LinkByName(hops[i].name); err == nil {
				routes[i] = &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to), Gw: hops[i].via.AsSlice()}
				routes[i].SetFlag(netlink.FLAG_ONLINK)
			}
		}
		return err
	})
	done := make(chan struct{})
	moves := 0
	var mover sync.WaitGroup
	mover.Go(func() {
		defer h.Close()
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := h.RouteReplace(routes[moves%2]); err != nil {
				t.Errorf("move the route: %v", err)
				return
			}
			moves++
		}
	})
	return func() int { close(done); mover.Wait(); return moves }
}

// pingPong sends so many datagrams, each once the one before has come back, and
// counts those that do not.
func pingPong(t testing.TB, ns *netns.NS, to netip.Addr, n int) (lost int) {
	t.Helper()
	var conn net.Conn
	testenv.Do(t, ns, func() (err error) {
		conn, err = net.Dial("udp4", netip.AddrPortFrom(to, 7).String())
		return err
	})
	defer conn.Close()
	buf := make([]byte, 64)
	for i := range n {
		binary.BigEndian.PutUint64(buf, uint64(i))
		if _, err := conn.Write(buf); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience / 5)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := conn.Read(buf); err != nil {
				lost++
				break
			}
			if binary.BigEndian.Uint64(buf) == uint64(i) {
				break
			}
		}
	}
	return lost
}

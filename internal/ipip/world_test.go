package ipip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// The world of these tests:
//
//	pod a ── host a ── router ── host b ── pod b
//
// The hosts are in networks of their own. The router knows no pod's address.
// IPv4 only: that is what IP in IP carries.
type world struct {
	t      testing.TB
	a, b   *host
	router *netns.NS
}

type host struct {
	ns, pod        *netns.NS
	name           string
	node, workload netip.Addr
	tunnel         netip.Addr
	device         string // of the tunnel
	carrier        *Carrier
	pins           string
}

const tunnelMTU = 1480

// kind is what carries for a host.
type kind int

const (
	carried  kind = iota // this package
	ofKernel             // the kernel's own device
)

func newWorld(t testing.TB, a, b kind) *world {
	t.Helper()
	w := &world{t: t, router: testenv.NetNS(t)}
	forward(t, w.router)
	w.a, w.b = w.host(1, a), w.host(2, b)
	w.a.tunnelTo(t, w.b)
	w.b.tunnelTo(t, w.a)
	return w
}

// host makes host number n, its pod and its side of the router.
func (w *world) host(n int, k kind) *host {
	w.t.Helper()
	addr := func(format string) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, n)) }
	h := &host{
		ns: testenv.NetNS(w.t), pod: testenv.NetNS(w.t), name: fmt.Sprintf("host %d", n), pins: filepath.Join(w.t.TempDir(), "pins"),
		node: addr("172.16.%d.1"), workload: addr("10.65.%d.2"), tunnel: addr("10.65.%d.1"), device: "tunl0",
	}
	forward(w.t, h.ns)
	cable(w.t, h.ns, "eth0", w.router, fmt.Sprintf("r%d", n))
	address(w.t, h.ns, "eth0", netip.PrefixFrom(h.node, 24))
	address(w.t, w.router, fmt.Sprintf("r%d", n), netip.PrefixFrom(addr("172.16.%d.254"), 24))
	route(w.t, h.ns, "0.0.0.0/0", addr("172.16.%d.254"), "eth0")
	cable(w.t, h.ns, "cali0", h.pod, "eth0")
	address(w.t, h.ns, "cali0", netip.MustParsePrefix("169.254.1.1/32"))
	address(w.t, h.pod, "eth0", netip.PrefixFrom(h.workload, 32))
	route(w.t, h.pod, "0.0.0.0/0", netip.MustParseAddr("169.254.1.1"), "eth0")
	route(w.t, h.ns, netip.PrefixFrom(h.workload, 32).String(), netip.Addr{}, "cali0")
	setMTU(w.t, h.pod, "eth0", tunnelMTU)
	if k == ofKernel {
		makeLink(w.t, h.ns, &netlink.Iptun{LinkAttrs: attrs("tunl0")})
	} else {
		h.device = "carrier0" // a kernel with the device has a tunl0 in every namespace
		standIn(w.t, h.ns, h.device)
		h.open(w.t)
	}
	setMTU(w.t, h.ns, h.device, tunnelMTU)
	sysctl(w.t, h.ns, "ipv4/conf/"+h.device+"/rp_filter", "2")
	up(w.t, h.ns, h.device)
	address(w.t, h.ns, h.device, netip.PrefixFrom(h.tunnel, 32))
	return h
}

// tunnelTo adds the route to the other host's block, and lets that host in.
func (h *host) tunnelTo(t testing.TB, other *host) {
	t.Helper()
	route(t, h.ns, netip.PrefixFrom(other.tunnel, 24).Masked().String(), other.node, h.device)
	if h.carrier != nil {
		h.sync(t, other.node)
	}
}

func (h *host) open(t testing.TB) {
	t.Helper()
	c, err := Open(Config{NS: h.ns, Device: h.device, PinDir: h.pins, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h.carrier = c
	t.Cleanup(func() {
		if h.carrier != c {
			return
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// reopen does what a restart does.
func (h *host) reopen(t testing.TB) {
	t.Helper()
	if err := h.carrier.Close(); err != nil {
		t.Fatal(err)
	}
	h.open(t)
}

func (h *host) sync(t testing.TB, hosts ...netip.Addr) {
	t.Helper()
	if err := h.carrier.Sync(t.Context(), State{Local: h.node, Hosts: hosts, Underlay: []string{"eth0"}}); err != nil {
		t.Fatal(err)
	}
}

func (h *host) counters(t testing.TB) Counters {
	t.Helper()
	n, err := h.carrier.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// inside calls f with rtnetlink of a namespace.
func inside(t testing.TB, ns *netns.NS, f func(*netlink.Handle) error) {
	t.Helper()
	testenv.Do(t, ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	})
}

func makeLink(t testing.TB, ns *netns.NS, l netlink.Link) {
	t.Helper()
	inside(t, ns, func(h *netlink.Handle) error {
		if err := h.LinkAdd(l); err != nil && !os.IsExist(err) {
			return fmt.Errorf("add link %s: %w", l.Attrs().Name, err)
		}
		return nil
	})
}

// standIn makes an interface that sends nothing, of a kind that the kernel has.
func standIn(t testing.TB, ns *netns.NS, name string) {
	t.Helper()
	inside(t, ns, func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Dummy{LinkAttrs: attrs(name)}); err == nil {
			return nil
		}
		return h.LinkAdd(&netlink.Ifb{LinkAttrs: attrs(name)})
	})
}

func withLink(t testing.TB, ns *netns.NS, name string, f func(*netlink.Handle, netlink.Link) error) {
	t.Helper()
	inside(t, ns, func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err == nil {
			err = f(h, l)
		}
		if err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
		return nil
	})
}

func up(t testing.TB, ns *netns.NS, name string) {
	t.Helper()
	withLink(t, ns, name, func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetUp(l) })
}

func setMTU(t testing.TB, ns *netns.NS, name string, mtu int) {
	t.Helper()
	withLink(t, ns, name, func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetMTU(l, mtu) })
}

// cable joins two namespaces with a veth pair, both ends up.
func cable(t testing.TB, one *netns.NS, oneName string, two *netns.NS, twoName string) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: attrs(oneName), PeerName: twoName, PeerNamespace: netlink.NsFd(two.FD())}
	makeLink(t, one, veth)
	up(t, one, oneName)
	up(t, two, twoName)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func address(t testing.TB, ns *netns.NS, name string, p netip.Prefix) {
	t.Helper()
	withLink(t, ns, name, func(h *netlink.Handle, l netlink.Link) error {
		return h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p)})
	})
}

func route(t testing.TB, ns *netns.NS, to string, via netip.Addr, name string) {
	t.Helper()
	withLink(t, ns, name, func(h *netlink.Handle, l netlink.Link) error {
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(to)), Scope: netlink.SCOPE_LINK}
		if via.IsValid() {
			r.Gw, r.Scope = via.AsSlice(), netlink.SCOPE_UNIVERSE
			r.SetFlag(netlink.FLAG_ONLINK)
		}
		return h.RouteReplace(r)
	})
}

func sysctl(t testing.TB, ns *netns.NS, key, value string) {
	t.Helper()
	testenv.Do(t, ns, func() error {
		return os.WriteFile("/proc/sys/net/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0)
	})
}

func forward(t testing.TB, ns *netns.NS) {
	t.Helper()
	sysctl(t, ns, "ipv4/ip_forward", "1")
}

func removeLink(t testing.TB, ns *netns.NS, name string) {
	t.Helper()
	withLink(t, ns, name, func(h *netlink.Handle, l netlink.Link) error { return h.LinkDel(l) })
}

// foreignFilter attaches a program of somebody else before ours.
func foreignFilter(t testing.TB, ns *netns.NS, name string) error {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer program.Close()
	withLink(t, ns, name, func(h *netlink.Handle, l netlink.Link) error {
		queue := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
		if err := h.QdiscAdd(&netlink.Clsact{QdiscAttrs: queue}); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return h.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
			Fd:          program.FD(), Name: "somebody", DirectAction: true,
		})
	})
	return nil
}

// ageTable puts a table of another shape where a table is pinned.
func ageTable(dir, name string) error {
	old, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer old.Close()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return old.Pin(filepath.Join(dir, name))
}

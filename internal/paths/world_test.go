package paths

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/ipip"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// The world of these tests:
//
//	pod a ── host a ── router ── host b ── pod b
//
// The hosts are in networks of their own. The router knows no pod's address.
type world struct {
	t      *testing.T
	kind   tunnelKind
	a, b   *host
	router *netns.NS
	nic    *netns.NS // between host a and the router; nil: nothing is
}

// tunnelKind is what joins the hosts.
type tunnelKind struct {
	name   string
	form   desired.Form
	family int
	device string
}

// tunnelKinds are all. IP in IP is carried by the kernel's device where there
// is one and by programs elsewhere; it has no IPv6 form.
func tunnelKinds() []tunnelKind {
	return []tunnelKind{
		{"ipip", desired.IPIP, 4, desired.DeviceIPIP},
		{"vxlan v4", desired.VXLAN, 4, desired.DeviceVXLAN4},
		{"vxlan v6", desired.VXLAN, 6, desired.DeviceVXLAN6},
	}
}

func (k tunnelKind) mtu() int { return 1500 - desired.Overhead(k.form, k.family) }

// eachKind runs a test for every kind of tunnel.
func eachKind(t *testing.T, f func(t *testing.T, k tunnelKind)) {
	testenv.NeedRoot(t)
	for _, k := range tunnelKinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			f(t, k)
		})
	}
}

type host struct {
	w         *world
	n         int
	ns, pod   *netns.NS
	node, end netip.Addr
	workload  netip.Addr
	mac       string
	kernel    *kernel.Kernel
	programs  bool // carry IP in IP
	monitor   *Monitor
	stop      func()
}

// addr is an address of host n: its own, of the tunnel or of its pod.
func (k tunnelKind) addr(what string, n int) netip.Addr {
	four := map[string]string{"node": "172.16.%d.1", "router": "172.16.%d.254", "end": "10.65.%d.1", "pod": "10.65.%d.2", "gate": "169.254.1.%d"}
	six := map[string]string{"node": "fd16:%d::1", "router": "fd16:%d::ff", "end": "fd65:%d::1", "pod": "fd65:%d::2", "gate": "fd99::%d"}
	if k.family == 6 {
		return netip.MustParseAddr(fmt.Sprintf(six[what], n))
	}
	return netip.MustParseAddr(fmt.Sprintf(four[what], n))
}

// lengths are those of a host's network and of a block.
func (k tunnelKind) lengths() (network, block int) {
	if k.family == 6 {
		return 64, 64
	}
	return 24, 24
}

func newWorld(t *testing.T, k tunnelKind) *world {
	t.Helper()
	return (&world{t: t, kind: k, router: testenv.NetNS(t)}).build()
}

// newBrokenWorld is a world in which host a has a network card that says that
// it fills in checksums, and does not do so inside of tunnels.
func newBrokenWorld(t *testing.T, k tunnelKind) *world {
	t.Helper()
	w := &world{t: t, kind: k, router: testenv.NetNS(t), nic: testenv.NetNS(t)}
	return w.build()
}

func (w *world) build() *world {
	w.t.Helper()
	w.sysctls(w.router)
	w.a, w.b = w.host(1), w.host(2)
	w.join(w.a, w.b)
	w.join(w.b, w.a)
	return w
}

func (w *world) ip(ns *netns.NS, args ...string) {
	w.t.Helper()
	testenv.Run(w.t, ns, append([]string{"ip"}, args...)...)
}

// sysctls makes a namespace forward, and use IPv6 addresses at once.
func (w *world) sysctls(ns *netns.NS) {
	w.t.Helper()
	testenv.Do(w.t, ns, func() error {
		for _, name := range []string{"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/default/accept_dad=0", "ipv6/conf/all/accept_dad=0"} {
			key, value, _ := strings.Cut(name, "=")
			if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// host makes host number n, its pod, its side of the router and its tunnel.
func (w *world) host(n int) *host {
	w.t.Helper()
	t, k := w.t, w.kind
	h := &host{w: w, n: n, ns: testenv.NetNS(t), pod: testenv.NetNS(t), node: k.addr("node", n), end: k.addr("end", n),
		workload: k.addr("pod", n), mac: fmt.Sprintf("66:00:00:00:00:%02x", n)}
	network, _ := k.lengths()
	w.sysctls(h.ns)
	w.sysctls(h.pod)
	if n == 1 && w.nic != nil {
		w.cable(h.ns, "eth0", w.nic, "n0")
		w.cable(w.nic, "n1", w.router, "r1")
		relay(t, w.nic, "n0", "n1")
		for ns, name := range map[*netns.NS]string{h.ns: "eth0", w.router: "r1"} { // no packets that are still to be cut
			testenv.Run(t, ns, "ip", "link", "set", name, "gso_max_segs", "1")
		}
	} else {
		w.cable(h.ns, "eth0", w.router, fmt.Sprintf("r%d", n))
	}
	w.cable(h.ns, "cali0", h.pod, "eth0")
	router, gate := k.addr("router", n), k.addr("gate", 1)
	w.ip(h.ns, "addr", "add", netip.PrefixFrom(h.node, network).String(), "dev", "eth0")
	w.ip(w.router, "addr", "add", netip.PrefixFrom(router, network).String(), "dev", fmt.Sprintf("r%d", n))
	w.ip(h.ns, "route", "add", "default", "via", router.String())
	w.ip(h.ns, "addr", "add", netip.PrefixFrom(gate, gate.BitLen()).String(), "dev", "cali0")
	w.ip(h.pod, "addr", "add", netip.PrefixFrom(h.workload, gate.BitLen()).String(), "dev", "eth0")
	w.ip(h.pod, "route", "add", gate.String(), "dev", "eth0")
	w.ip(h.pod, "route", "add", "default", "via", gate.String(), "dev", "eth0")
	w.ip(h.ns, "route", "add", h.workload.String(), "dev", "cali0")
	var err error
	if h.kernel, err = kernel.Open(kernel.Config{Netns: h.ns.Path()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.kernel.Close() })
	h.makeTunnel()
	w.ip(h.ns, "link", "set", k.device, "mtu", fmt.Sprint(k.mtu()), "up")
	w.ip(h.ns, "addr", "add", netip.PrefixFrom(h.end, h.end.BitLen()).String(), "dev", k.device)
	return h
}

// makeTunnel makes the device, and what carries for one that cannot.
func (h *host) makeTunnel() {
	t, w, k := h.w.t, h.w, h.w.kind
	if k.form == desired.VXLAN {
		w.ip(h.ns, "link", "add", k.device, "address", h.mac, "type", "vxlan", "id", "4096", "dstport", "4789", "local", h.node.String(),
			"dev", "eth0", "nolearning")
		return
	}
	if _, err := testenv.TryRun(t, h.ns, "ip", "link", "show", k.device); err == nil {
		return // the module makes one in every namespace
	}
	if _, err := testenv.TryRun(t, h.ns, "ip", "link", "add", k.device, "type", "ipip"); err == nil {
		return
	}
	if vm := os.Getenv("BRINDLE_VM"); vm != "" {
		t.Fatalf("kernel %s has a device for IP in IP, which did not come", vm)
	}
	h.programs = true
	if _, err := testenv.TryRun(t, h.ns, "ip", "link", "add", k.device, "type", "dummy"); err != nil {
		w.ip(h.ns, "link", "add", k.device, "type", "ifb")
	}
	testenv.Do(t, h.ns, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+k.device+"/rp_filter", []byte("2"), 0)
	})
	c, err := ipip.Open(ipip.Config{NS: h.ns, Device: k.device, PinDir: t.TempDir() + "/pins", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	hosts := []netip.Addr{k.addr("node", 1), k.addr("node", 2)}
	if err := c.Sync(t.Context(), ipip.State{Local: h.node, Hosts: hosts, Underlay: []string{"eth0"}}); err != nil {
		t.Fatal(err)
	}
}

// join makes what a host has of another: neighbour, forwarding entry, route.
func (w *world) join(h, other *host) {
	w.t.Helper()
	_, block := w.kind.lengths()
	to, via := netip.PrefixFrom(other.end, block).Masked().String(), other.node
	if w.kind.form == desired.VXLAN {
		via = other.end
		w.ip(h.ns, "neigh", "replace", other.end.String(), "lladdr", other.mac, "dev", w.kind.device, "nud", "permanent")
		testenv.Run(w.t, h.ns, "bridge", "fdb", "append", other.mac, "dev", w.kind.device, "dst", other.node.String(), "self", "permanent")
		if w.kind.family == 6 {
			w.ip(h.ns, "route", "add", other.end.String(), "dev", w.kind.device) // a next hop on the link
		}
	}
	w.ip(h.ns, "route", "add", to, "via", via.String(), "dev", w.kind.device, "onlink", "mtu", fmt.Sprint(w.kind.mtu()))
}

func (w *world) cable(one *netns.NS, oneName string, two *netns.NS, twoName string) {
	w.t.Helper()
	w.ip(one, "link", "add", oneName, "type", "veth", "peer", "name", twoName, "netns", two.Path())
	w.ip(one, "link", "set", oneName, "up")
	w.ip(two, "link", "set", twoName, "up")
}

// path is the way from a host to another.
func (h *host) path(to *host) Path {
	k := h.w.kind
	p := Path{Device: k.device, Form: k.form, Local: h.end, Remote: to.end, MTU: k.mtu(), Peer: fmt.Sprintf("h%d", to.n), Node: to.node, Speaks: true}
	if k.form == desired.VXLAN {
		p.Outer = Outer{Local: h.node, VNI: 4096, Port: 4789, LocalMAC: h.mac, RemoteMAC: to.mac}
	}
	return p
}

// quick is a pace for tests.
func quick() Pace {
	return Pace{Period: time.Hour, Confirm: 20 * time.Millisecond, Retry: 50 * time.Millisecond, Apart: time.Millisecond, Wait: 120 * time.Millisecond}
}

// run starts the host's monitor. It knows the other host, and measures the way
// to it.
func (h *host) run(change func(*Config)) {
	h.w.t.Helper()
	cfg := Config{NS: h.ns, Port: DefaultPort, Offloads: h.kernel, Log: slog.New(slog.DiscardHandler), Pace: quick()}
	if change != nil {
		change(&cfg)
	}
	h.monitor = New(cfg)
	other := h.w.b
	if h == other {
		other = h.w.a
	}
	h.monitor.Want([]End{{Device: h.w.kind.device, Form: h.w.kind.form, Addr: h.end, Offload: !h.programs}},
		map[netip.Addr]bool{other.end: true}, []Path{h.path(other)})
	h.stop = begin(h.w.t, h.monitor)
}

// run starts the monitors of both hosts, and waits until all is fine.
func (w *world) run() {
	w.t.Helper()
	w.a.run(nil)
	w.b.run(nil)
	for _, h := range []*host{w.a, w.b} {
		testenv.Until(w.t, 10*time.Second, func() error { return outcomeIs(h, Fine) })
	}
}

// result measures now.
func (h *host) result() Result {
	h.w.t.Helper()
	if err := h.monitor.Now(h.w.t.Context()); err != nil {
		h.w.t.Fatal(err)
	}
	return h.monitor.Results()[0]
}

// router's rules, in the words of nft.
func (w *world) rules(lines ...string) {
	w.t.Helper()
	text := "table inet t { chain c { type filter hook forward priority 0; " + strings.Join(lines, "; ") + "; }; chain o { type filter hook output priority 0; " +
		"icmp code frag-needed drop; icmpv6 type packet-too-big drop; }; }"
	testenv.Run(w.t, w.router, "nft", text)
}

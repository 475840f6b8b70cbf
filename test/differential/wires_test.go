package differential

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// wires is a host in a namespace. Each of its interfaces ends in another
// namespace that says nothing by itself: all that is on the wires is what the
// test writes there, frame by frame.
type wires struct {
	t         testing.TB
	host, far *netns.NS
	table     *conntrack.Table
	sockets   map[string]int        // at the far ends, by the host's interface
	routes    map[netip.Addr]string // the interface and hardware address that each leads to
	sent      uint32
}

// hostMAC is that of all interfaces at the host's end.
const hostMAC = "\xee\xee\xee\xee\xee\xee"

// farMAC is that of all far ends: what is sent says who sends it.
const farMAC = "02:00:00:00:ff:02"

func newWires(t testing.TB) *wires {
	far, farName := testenv.NamedNS(t, "brindle-diff-far")
	w := &wires{t: t, host: testenv.NetNS(t), far: far, sockets: map[string]int{}, routes: map[netip.Addr]string{}}
	setting := func(ns *netns.NS, key, value string) {
		testenv.Do(t, ns, func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0) })
	}
	setting(far, "ipv6/conf/all/disable_ipv6", "1")
	setting(far, "ipv6/conf/default/disable_ipv6", "1")
	for _, kv := range [][2]string{
		{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}, {"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"}, {"ipv6/conf/default/accept_dad", "0"},
	} {
		setting(w.host, kv[0], kv[1])
	}
	names := []string{outside}
	for i := range 8 {
		names = append(names, fmt.Sprintf("cali%d", i))
	}
	for i, name := range names {
		farEnd := fmt.Sprintf("far%d", i)
		testenv.Run(t, w.host, "ip", "link", "add", name, "type", "veth", "peer", "name", farEnd, "netns", farName)
		testenv.Run(t, w.host, "ip", "link", "set", name, "address", "ee:ee:ee:ee:ee:ee", "addrgenmode", "none", "up")
		testenv.Run(t, far, "ip", "link", "set", farEnd, "address", farMAC, "up")
		w.listen(name, farEnd)
	}
	w.batch(
		"neigh add 169.254.1.1 lladdr "+farMAC+" dev "+outside+" nud permanent",
		"neigh add fe80::1 lladdr "+farMAC+" dev "+outside+" nud permanent",
		"route add default via 169.254.1.1 dev "+outside+" onlink",
		"route add default via fe80::1 dev "+outside+" onlink")
	table, err := conntrack.Open(w.host)
	if err != nil {
		t.Fatal(err)
	}
	w.table = table
	t.Cleanup(func() { _ = table.Close() })
	return w
}

// batch has ip(8) carry out commands in the host's namespace.
func (w *wires) batch(lines ...string) {
	w.t.Helper()
	if len(lines) == 0 {
		return
	}
	file := filepath.Join(w.t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	testenv.Run(w.t, w.host, "ip", "-batch", file)
}

// listen opens a socket at a far end: to send, and to see what arrives.
func (w *wires) listen(name, farEnd string) {
	fd := -1
	testenv.Do(w.t, w.far, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(farEnd)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: int(ifr.Uint32())})
	})
	w.sockets[name] = fd
	w.t.Cleanup(func() { _ = unix.Close(fd) })
}

// route sends what is for an endpoint's addresses to its interface, and all
// else outside, and forgets all connections.
func (w *wires) route(endpoints map[string]*desired.Endpoint) {
	w.t.Helper()
	want := map[netip.Addr]string{}
	for name, e := range endpoints {
		for _, a := range e.Addrs {
			want[a] = name
		}
	}
	var lines []string
	for _, a := range slices.SortedFunc(maps.Keys(w.routes), netip.Addr.Compare) {
		if want[a] != w.routes[a] {
			lines = append(lines, fmt.Sprintf("route del %v dev %s", a, w.routes[a]), fmt.Sprintf("neigh del %v dev %s", a, w.routes[a]))
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		if want[a] != w.routes[a] {
			lines = append(lines, fmt.Sprintf("route add %v dev %s", a, want[a]), fmt.Sprintf("neigh add %v lladdr %s dev %s nud permanent", a, farMAC, want[a]))
		}
	}
	w.batch(lines...)
	w.routes = want
	entries, err := w.table.List()
	if err == nil {
		err = w.table.Delete(entries)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// send writes frames on the wire of an interface.
func (w *wires) send(name string, list [][]byte) {
	w.t.Helper()
	for _, b := range list {
		if _, err := unix.Write(w.sockets[name], b); err != nil {
			w.t.Fatalf("send %d bytes to %s: %v", len(b), name, err)
		}
	}
}

// arrived adds where the packets came out: by number, the host's interface.
func (w *wires) arrived(to map[uint32]string) {
	w.t.Helper()
	buf := make([]byte, 2048)
	for name, fd := range w.sockets {
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				w.t.Fatalf("receive: %v", err)
			}
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING || n < 34 {
				continue
			}
			// The host says things of its own, of multicast listeners for example.
			if string(buf[6:12]) == hostMAC && buf[0]&1 == 0 {
				to[network.Uint32(buf[n-4:])] = name
			}
		}
	}
}

package threats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/nflog"
	"github.com/brindle-net/brindle/internal/testenv"
)

// Who is where around the host of a burrow.
const (
	ourVNI, ourPort = 4096, 4789
	logGroup        = 17
)

// burrow is one host with tunnels of the kernel's, the rules of a host where
// policy allows everything, two workloads, and a link to everybody else. It has
// no agent: what is tested is what the rules do with packets in packets.
type burrow struct {
	t              *testing.T
	host           *netns.NS
	driver         *nft.Driver
	policy         desired.Policy
	victim         *sniffer // what the first workload gets
	wire           *sniffer // what the host sends to others
	net, attacker  int      // sockets of the link and of the second workload
	macs           map[string]net.HardwareAddr
	mu             sync.Mutex // guards lines
	lines          map[string]int
	raw4, raw6     *sniffer // what the host gets as IP in IP, after its rules
	victims, hosts [2]netip.Addr
}

func (b *burrow) ip(ns *netns.NS, lines string) {
	b.t.Helper()
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 {
			testenv.Run(b.t, ns, append([]string{"ip"}, words...)...)
		}
	}
}

func newBurrow(t *testing.T) *burrow {
	b := &burrow{
		t: t, host: testenv.NetNS(t), policy: desired.NewPolicy(), macs: map[string]net.HardwareAddr{}, lines: map[string]int{},
		victims: [2]netip.Addr{addr("10.0.0.1"), addr("fd00::1")}, hosts: [2]netip.Addr{addr("192.168.0.1"), addr("2001:db8::1")},
	}
	others, othersName := testenv.NamedNS(t, "brindle-burrow-net")
	settings := map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/default/accept_dad": "0",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0", "ipv4/icmp_echo_ignore_broadcasts": "0",
	}
	for key, value := range settings {
		testenv.Do(t, b.host, func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644) })
	}
	b.ip(b.host, `link add eth0 type veth peer name eth0 netns `+othersName+`
		link set eth0 address 02:00:00:00:01:01 up
		address add 192.168.0.1/24 brd + dev eth0
		address add 2001:db8::1/64 dev eth0 nodad
		link add vxlan.calico address 66:00:00:00:00:01 type vxlan id 4096 dstport 4789 local 192.168.0.1 dev eth0 nolearning
		link add vxlan-v6.calico address 66:00:00:00:00:01 type vxlan id 4096 dstport 4789 local 2001:db8::1 dev eth0 nolearning
		link set vxlan.calico up
		link set vxlan-v6.calico up
		link add other-network address 66:00:00:00:00:01 type vxlan id 99 dstport 4789 local 192.168.0.1 dev eth0 nolearning
		link add other-port address 66:00:00:00:00:01 type vxlan id 4096 dstport 8472 local 192.168.0.1 dev eth0 nolearning
		link set other-network up
		link set other-port up
		route add 10.0.9.0/24 via 10.0.9.1 dev vxlan.calico onlink
		neigh add 10.0.9.1 lladdr 66:00:00:00:00:02 dev vxlan.calico nud permanent
		neigh add 192.168.0.2 lladdr 02:00:00:00:01:02 dev eth0 nud permanent
		neigh add 2001:db8::2 lladdr 02:00:00:00:01:02 dev eth0 nud permanent
		route add default via 192.168.0.2
		route add default via 2001:db8::2`)
	testenv.Run(t, b.host, "bridge", "fdb", "append", "66:00:00:00:00:02", "dev", "vxlan.calico", "dst", "192.168.0.2", "self", "permanent")
	b.ip(others, `link set eth0 address 02:00:00:00:01:02 addrgenmode none up`)
	b.net = b.socket(others)
	b.wire = listenTo(t, b.socket(others))
	for i := range 2 {
		ns, name := testenv.NamedNS(t, "brindle-burrow-pod")
		link, four, six := fmt.Sprintf("cali%d", i+1), fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("fd00::%d", i+1)
		mac := fmt.Sprintf("02:00:00:00:00:%02x", i+1)
		b.ip(b.host, fmt.Sprintf(`link add %[1]s type veth peer name eth0 netns %[5]s
			link set %[1]s address ee:ee:ee:ee:ee:ee addrgenmode none up
			route add %[2]s dev %[1]s
			route add %[3]s dev %[1]s
			neigh add %[2]s lladdr %[4]s dev %[1]s nud permanent
			neigh add %[3]s lladdr %[4]s dev %[1]s nud permanent`, link, four, six, mac, name))
		b.ip(ns, "link set eth0 address "+mac+" addrgenmode none up")
		b.endpoint(link, mac, four, six)
		if i == 0 {
			b.victim = listenTo(t, b.socket(ns))
		} else {
			b.attacker = b.socket(ns)
		}
	}
	b.raw4, b.raw6 = b.rawSocket(unix.AF_INET), b.rawSocket(unix.AF_INET6)
	b.govern()
	return b
}

func (b *burrow) socket(ns *netns.NS) (fd int) {
	b.t.Helper()
	testenv.Do(b.t, ns, func() (err error) {
		fd, err = openPacket("eth0")
		return err
	})
	b.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// rawSocket hears what the host takes for itself as IP in IP (raw(7)), as a
// device for it would.
func (b *burrow) rawSocket(family int) *sniffer {
	b.t.Helper()
	var fd int
	testenv.Do(b.t, b.host, func() (err error) {
		wait := unix.Timeval{Usec: 50_000}
		if fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protoIPIP); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	})
	b.t.Cleanup(func() { unix.Close(fd) })
	return listenTo(b.t, fd)
}

func (b *burrow) endpoint(link, mac string, addrs ...string) {
	e := &desired.Endpoint{Name: "WorkloadEndpoint " + link, MAC: mac, Profiles: []string{"Profile kns.default"}}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, addr(a))
	}
	b.policy.Endpoints[link] = e
}

// config is that of a host where nothing but what is tested is forbidden.
func config() rules.Config {
	return rules.Config{
		Prefixes: []string{"cali"}, MarkMask: 0xffff0000, ToHost: rules.FateAccept, LogGroup: logGroup,
		Encapsulations: []rules.Encapsulation{{Protocol: protoUDP, Port: ourPort, VNI: ourVNI}, {Protocol: protoIPIP}},
		VXLAN:          rules.VXLAN{Port: ourPort, VNI: ourVNI},
	}
}

// govern puts rules in force, and hears what they log.
func (b *burrow) govern() {
	t := b.t
	allow := &desired.RuleList{Rules: []desired.PolicyRule{{Action: desired.Allow, IPv4: true, IPv6: true}}}
	for _, d := range []desired.Direction{desired.Ingress, desired.Egress} {
		b.policy.Rules[desired.RulesID{Owner: "Profile kns.default", Direction: d}] = allow
	}
	for host, forms := range map[string]desired.Forms{
		"192.168.0.1/32": desired.OwnHost(), "2001:db8::1/128": desired.OwnHost(),
		"192.168.0.2/32": desired.FormsOf(desired.Direct, desired.IPIP, desired.VXLAN), "2001:db8::2/128": desired.FormsOf(desired.Direct, desired.VXLAN),
		"192.168.0.3/32": desired.FormsOf(desired.Direct), "192.168.9.0/24": desired.FormsOf(desired.IPIP, desired.VXLAN),
	} {
		b.policy.Hosts[netip.MustParsePrefix(host)] = forms
	}
	for _, pool := range []string{"10.0.0.0/16", "fd00::/64"} {
		b.policy.Pools[netip.MustParsePrefix(pool)] = desired.PoolUse{Masquerade: true}
	}
	var err error
	if b.driver, err = nft.Open(nft.Config{NS: b.host, Rules: config(), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.driver.Close() })
	b.sync(config())
	ctx, cancel := context.WithCancel(context.Background())
	var heard sync.WaitGroup
	t.Cleanup(func() { cancel(); heard.Wait() })
	heard.Go(func() {
		err := nflog.Listen(ctx, b.host, logGroup, func(p nflog.Packet) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.lines[p.Prefix]++
		}, func() {})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("hear what is logged: %v", err)
		}
	})
}

func (b *burrow) sync(cfg rules.Config) {
	b.t.Helper()
	b.driver.Configure(cfg)
	if err := b.driver.Sync(b.t.Context(), &b.policy, nil); err != nil {
		b.t.Fatal(err)
	}
}

// counted is what a counter has counted.
func (b *burrow) counted(name string) int {
	b.t.Helper()
	all, err := b.driver.Counters(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	c, ok := all[name]
	if !ok {
		b.t.Fatalf("there is no counter %s", name)
	}
	return int(c.Packets)
}

// forged is a packet to the victim from a workload of another host.
func (b *burrow) forged(family int, mark []byte) []byte {
	src := []netip.Addr{addr("10.0.9.9"), addr("fd00::9:9")}[family/6]
	p := packet{src: src, dst: b.victims[family/6], proto: protoUDP, payload: udp(1000, sentinel, mark)}
	return p.bytes()
}

// vxlan wraps a packet for one of the host's devices.
func vxlan(vni int, p []byte) []byte {
	kind := etherIPv4
	if p[0]>>4 == 6 {
		kind = etherIPv6
	}
	device, _ := net.ParseMAC("66:00:00:00:00:01")
	far, _ := net.ParseMAC("66:00:00:00:00:02")
	return slices.Concat([]byte{8, 0, 0, 0}, be32(uint32(vni)<<8), frame(device, far, kind, p))
}

// deliver sends a packet from the others to the host's link, to a hardware
// address that fits.
func (b *burrow) deliver(p packet) {
	b.t.Helper()
	mac, _ := net.ParseMAC("02:00:00:00:01:01")
	switch a := p.dst; {
	case a.Is4() && a.IsMulticast():
		mac = append(net.HardwareAddr{1, 0, 0x5e}, a.AsSlice()[1:]...)
	case a.IsMulticast():
		mac = append(net.HardwareAddr{0x33, 0x33}, a.AsSlice()[12:]...)
	case a == addr("192.168.0.255") || a == addr("255.255.255.255"):
		mac = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	}
	far, _ := net.ParseMAC("02:00:00:00:01:02")
	kind := etherIPv4
	if p.dst.Is6() {
		kind = etherIPv6
	}
	if err := write(b.net, frame(mac, far, kind, p.bytes())); err != nil {
		b.t.Fatal(err)
	}
}

// attack sends a packet from the second workload.
func (b *burrow) attack(p packet) {
	b.t.Helper()
	host, _ := net.ParseMAC("ee:ee:ee:ee:ee:ee")
	own, _ := net.ParseMAC("02:00:00:00:00:02")
	kind := etherIPv4
	if p.dst.Is6() {
		kind = etherIPv6
	}
	if err := write(b.attacker, frame(host, own, kind, p.bytes())); err != nil {
		b.t.Fatal(err)
	}
}

// settle waits until all that was sent before has been judged: a plain packet
// of the second workload to the first, and one from a known host in a tunnel.
func (b *burrow) settle() {
	b.t.Helper()
	for i, family := range families {
		plain, wrapped := cookie(), cookie()
		src := []netip.Addr{addr("10.0.0.2"), addr("fd00::2")}[i]
		known := []netip.Addr{addr("192.168.0.2"), addr("2001:db8::2")}[i]
		testenv.Until(b.t, 10*time.Second, func() error {
			b.attack(packet{src: src, dst: b.victims[i], proto: protoUDP, payload: udp(1000, sentinel, plain)})
			b.deliver(packet{src: known, dst: b.hosts[i], proto: protoUDP, payload: udp(5000, ourPort, vxlan(ourVNI, b.forged(family, wrapped)))})
			if b.victim.count(plain) < 2 || b.victim.count(wrapped) < 2 {
				return fmt.Errorf("IPv%d: of what is allowed, %d and %d arrived", family, b.victim.count(plain), b.victim.count(wrapped))
			}
			return nil
		})
	}
}

package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// street is a host with one workload, and behind eth0 everybody else: who is
// there tells each that asks under which address it came.
type street struct {
	t              testing.TB
	host, pod, out *netns.NS
	driver         *Driver
	policy         desired.Policy
	ears           map[string]net.PacketConn // who answers datagrams, by address
	wires          *wires                    // of a neighbour; nil: there is none
}

// The street's addresses.
const (
	podAddr4, podAddr6   = "10.0.0.1", "fd00::1"
	hostAddr4, hostAddr6 = "192.168.0.1", "2001:db8::1"
	listenPort           = "7777"
)

// places are who is on the far side of eth0, by family.
func places() map[string][2]string {
	return map[string][2]string{
		"outside":                {"198.51.100.7", "2001:db8:9::7"},
		"a host":                 {"192.168.0.2", "2001:db8::2"},
		"a workload there":       {"10.0.9.9", "fd00::9:9"},
		"a pool without NAT":     {"10.1.9.9", "fd01::9"},
		"a pool that's disabled": {"172.16.1.1", "fd02::9"},
	}
}

func newStreet(t testing.TB) *street {
	testenv.NeedProgram(t, "ip")
	pod, podName := testenv.NamedNS(t, "brindle-nat-pod")
	out, outName := testenv.NamedNS(t, "brindle-nat-out")
	s := &street{t: t, host: testenv.NetNS(t), pod: pod, out: out, policy: desired.NewPolicy(), ears: map[string]net.PacketConn{}}
	ip := func(ns *netns.NS, lines string) {
		batch := filepath.Join(t.TempDir(), "ip") // one process: they are dear in a virtual machine
		if err := os.WriteFile(batch, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		testenv.Run(t, ns, "ip", "-batch", batch)
	}
	for _, kv := range [][2]string{
		{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}, {"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"},
	} {
		testenv.Do(t, s.host, func() error { return writeFile("/proc/sys/net/"+kv[0], kv[1]) })
	}
	for _, ns := range []*netns.NS{s.host, s.out} {
		testenv.Do(t, ns, func() error { return writeFile("/proc/sys/net/ipv6/conf/default/accept_dad", "0") })
	}
	ip(s.host, `link add cali1 type veth peer name eth0 netns `+podName+`
		link set cali1 address ee:ee:ee:ee:ee:ee addrgenmode none up
		link add eth0 type veth peer name eth0 netns `+outName+`
		link set eth0 up
		address add 192.168.0.1/24 dev eth0
		address add 2001:db8::1/64 dev eth0 nodad
		route add 10.0.0.1 dev cali1
		route add fd00::1 dev cali1
		neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev cali1 nud permanent
		neigh add fd00::1 lladdr 02:00:00:00:00:01 dev cali1 nud permanent
		route add default via 192.168.0.2
		route add default via 2001:db8::2`)
	ip(s.pod, `link set eth0 address 02:00:00:00:00:01 addrgenmode none up
		address add 10.0.0.1/32 dev eth0
		address add fd00::1/128 dev eth0 nodad
		route add default via 169.254.1.1 dev eth0 onlink
		neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent
		route add default via fe80::1 dev eth0 onlink
		neigh add fe80::1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent`)
	ip(s.out, `link set eth0 up
		address add 192.168.0.2/24 dev eth0
		address add 2001:db8::2/64 dev eth0 nodad
		route add 10.0.0.0/24 via 192.168.0.1
		route add fd00::/112 via 2001:db8::1
		route add 203.0.113.9 via 192.168.0.1`)
	addresses := ""
	for _, at := range places() {
		for i, a := range at {
			if !strings.HasPrefix(a, []string{"192.168.0.", "2001:db8::"}[i]) {
				addresses += "address add " + a + " dev lo " + []string{"", "nodad"}[i] + "\n"
			}
		}
	}
	ip(s.out, addresses)
	for _, at := range places() {
		for _, a := range at {
			s.answer(s.out, a)
		}
	}
	s.driver = openWith(t, s.host, natSettings())
	s.neighbourhood()
	return s
}

func natSettings() rules.Config {
	c := settings()
	c.ToHost = rules.FateAccept
	return c
}

// neighbourhood is a policy in which the workload may do everything.
func (s *street) neighbourhood() {
	allow := &desired.RuleList{Rules: []desired.PolicyRule{{Action: desired.Allow, IPv4: true, IPv6: true}}}
	for _, d := range []desired.Direction{desired.Ingress, desired.Egress} {
		s.policy.Rules[desired.RulesID{Owner: "Profile kns.default", Direction: d}] = allow
	}
	s.policy.Endpoints["cali1"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/a", MAC: "02:00:00:00:00:01", Profiles: []string{"Profile kns.default"},
		Addrs: []netip.Addr{netip.MustParseAddr(podAddr4), netip.MustParseAddr(podAddr6)},
	}
	for prefix, masquerade := range map[string]bool{
		"10.0.0.0/16": true, "fd00::/64": true, "10.1.0.0/16": false, "fd01::/64": false, "172.16.0.0/12": false, "fd02::/64": false,
	} {
		s.policy.Pools[netip.MustParsePrefix(prefix)] = desired.PoolUse{Masquerade: masquerade}
	}
	for _, host := range []string{"192.168.0.1/32", "192.168.0.2/32", "2001:db8::1/128", "2001:db8::2/128"} {
		s.policy.Hosts[netip.MustParsePrefix(host)] = desired.FormsOf(desired.Direct)
	}
	mustSync(s.t, s.driver, &s.policy, nil)
}

// patch puts a change in force as the agent does.
func (s *street) patch(p desired.PolicyPatch) {
	s.t.Helper()
	p.Play(s.policy)
	mustSync(s.t, s.driver, &s.policy, &p)
	settled(s.t, s.driver, &s.policy)
}

func (s *street) configure(change func(*rules.Config)) {
	s.t.Helper()
	cfg := natSettings()
	change(&cfg)
	s.driver.Configure(cfg)
	mustSync(s.t, s.driver, &s.policy, nil)
}

// answer tells everybody who asks at an address where the question came from.
func (s *street) answer(ns *netns.NS, at string) {
	s.t.Helper()
	var datagrams net.PacketConn
	var streams net.Listener
	testenv.Do(s.t, ns, func() (err error) {
		where := net.JoinHostPort(at, listenPort)
		if datagrams, err = net.ListenPacket("udp", where); err != nil {
			return err
		}
		streams, err = net.Listen("tcp", where)
		return err
	})
	s.ears[at] = datagrams
	var all sync.WaitGroup
	s.t.Cleanup(func() { datagrams.Close(); streams.Close(); all.Wait() })
	all.Go(func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := datagrams.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				_, _ = datagrams.WriteTo([]byte(from.String()), from) // who asked will ask again
			}
		}
	})
	all.Go(func() {
		for {
			c, err := streams.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(s.t.Context(), func() { c.Close() }) // its end may never hear of it
			all.Go(func() { defer stop(); echoAddress(c) })
		}
	})
}

// echoAddress answers each byte with the address of who sent it and a newline.
func echoAddress(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 1)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		if _, err := fmt.Fprintln(c, c.RemoteAddr()); err != nil {
			return
		}
	}
}

// call opens a connection from a namespace. from is an address with a port, or
// "".
func (s *street) call(ns *netns.NS, network, from, to string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	switch {
	case from == "":
	case network == "udp":
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
	default:
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
	}
	testenv.Do(s.t, ns, func() error {
		c, err = d.Dial(network, net.JoinHostPort(to, listenPort))
		return nil
	})
	return c, err
}

// seen asks over a connection under which address it is seen.
func seen(c net.Conn) (netip.AddrPort, error) {
	buf := make([]byte, 100)
	var n int
	var err error
	for range 4 { // what UDP sends first may be lost while neighbours find each other
		if err := c.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			return netip.AddrPort{}, err
		}
		if _, err := c.Write([]byte("?")); err != nil {
			return netip.AddrPort{}, err
		}
		if n, err = c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	at, err := netip.ParseAddrPort(line)
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), err
}

// source is the address under which a new connection is seen.
func (s *street) source(ns *netns.NS, network, from, to string) netip.AddrPort {
	s.t.Helper()
	c, err := s.call(ns, network, from, to)
	if err != nil {
		s.t.Fatalf("%s to %s: %v", network, to, err)
	}
	defer c.Close()
	at, err := seen(c)
	if err != nil {
		s.t.Fatalf("%s to %s: %v", network, to, err)
	}
	return at
}

// The matrix of what leaves a workload: under which address each place sees it,
// of both families and by TCP and UDP, for each setting.
func TestNATMatrix(t *testing.T) {
	s := newStreet(t)
	for _, tt := range []struct {
		name      string
		cfg       func(*rules.Config)
		rewritten []string // places that see another address than the workload's
		to4       string   // "": the host's
	}{
		{"as it is by itself", func(*rules.Config) {}, []string{"outside", "a host"}, ""},
		{"hosts left out", func(c *rules.Config) { c.NAT.KeepToHosts = true }, []string{"outside"}, ""},
		{"out of this interface", func(c *rules.Config) { c.NAT.Interface = "eth0" }, []string{"outside", "a host"}, ""},
		{"out of such an interface", func(c *rules.Config) { c.NAT.Interface = "et+" }, []string{"outside", "a host"}, ""},
		{"out of another interface", func(c *rules.Config) { c.NAT.Interface = "eth1" }, nil, ""},
		{"one address", func(c *rules.Config) { c.NAT.Address = netip.MustParseAddr("203.0.113.9") }, []string{"outside", "a host"}, "203.0.113.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.configure(tt.cfg)
			for name, at := range places() {
				for i, to := range at {
					want := []string{podAddr4, podAddr6}[i]
					if slices.Contains(tt.rewritten, name) {
						if want = []string{hostAddr4, hostAddr6}[i]; i == 0 && tt.to4 != "" {
							want = tt.to4
						}
					}
					for _, network := range []string{"udp", "tcp"} {
						if got := s.source(s.pod, network, "", to); got.Addr().String() != want {
							t.Errorf("%s: %s from the workload to %s is seen as %v, not %s", name, network, to, got, want)
						}
					}
				}
			}
		})
	}
}

// Packets between workloads and to the host itself keep their source, and so
// do those of the host's own processes.
func TestNATLeavesAlone(t *testing.T) {
	s := newStreet(t)
	for i, at := range []string{hostAddr4, hostAddr6} {
		s.answer(s.host, at)
		if got := s.source(s.pod, "tcp", "", at); got.Addr().String() != []string{podAddr4, podAddr6}[i] {
			t.Errorf("the workload comes to its own host as %v", got)
		}
		s.answer(s.pod, []string{podAddr4, podAddr6}[i])
		if got := s.source(s.host, "tcp", "", []string{podAddr4, podAddr6}[i]); got.Addr().String() != at {
			t.Errorf("the host comes to the workload as %v", got)
		}
		outside := places()["outside"][i]
		if got := s.source(s.host, "udp", net.JoinHostPort(at, "5300"), outside); got.String() != net.JoinHostPort(at, "5300") {
			t.Errorf("the host's own packets are seen as %v", got)
		}
		if got := s.source(s.out, "udp", "", []string{podAddr4, podAddr6}[i]); !got.Addr().IsValid() || got.Addr().String() == at {
			t.Errorf("what comes to the workload from outside is seen as %v", got)
		}
	}
}

// Ports come out of the range that is set, and with VXLAN in use those of UDP
// leave out its port.
func TestNATPorts(t *testing.T) {
	s := newStreet(t)
	s.configure(func(c *rules.Config) { c.NAT.Ports = desired.PortRange{Min: 4780, Max: 4800} })
	within := func(network, from string, i int, lo, hi uint16) {
		t.Helper()
		got := s.source(s.pod, network, from, places()["outside"][i])
		if got.Port() < lo || got.Port() > hi || got.Addr().String() != []string{hostAddr4, hostAddr6}[i] {
			t.Errorf("%s from %s is seen as %v, want ports %d-%d", network, from, got, lo, hi)
		}
	}
	for i, pod := range []string{podAddr4, podAddr6} {
		for _, network := range []string{"tcp", "udp"} {
			within(network, net.JoinHostPort(pod, "4789"), i, 4789, 4789) // what fits stays
			within(network, "", i, 4780, 4800)
		}
		if out, err := testenv.TryRun(t, s.pod, "ping", "-c1", "-W2", places()["outside"][i]); err != nil {
			t.Errorf("ping: %v\n%s", err, out)
		}
	}
	s.patch(desired.PolicyPatch{Tunnels: desired.Patch[string, netip.Addr]{Set: map[string]netip.Addr{desired.DeviceVXLAN4: netip.MustParseAddr("10.0.5.2")}}})
	for i, pod := range []string{podAddr4, podAddr6} {
		within("udp", net.JoinHostPort(pod, "4790"), i, 4790, 4800)
		within("udp", net.JoinHostPort(pod, "4785"), i, 4790, 4800)
		within("tcp", net.JoinHostPort(pod, "4785"), i, 4780, 4800)
	}
	s.configure(func(*rules.Config) {})
	for i, pod := range []string{podAddr4, podAddr6} {
		within("udp", net.JoinHostPort(pod, "4788"), i, 4790, 65535) // 4789 has its entry from before
	}
}

// A connection keeps the source that it began with, whatever the pool says now,
// and also when a new agent begins that translates nothing.
func TestNATChangesUnderConnections(t *testing.T) {
	s := newStreet(t)
	pools := []string{"10.0.0.0/16", "fd00::/64"}
	for i, pool := range pools {
		to, pod, host := places()["outside"][i], []string{podAddr4, podAddr6}[i], []string{hostAddr4, hostAddr6}[i]
		var old []net.Conn
		want := []string{host, pod, host}
		for round, addr := range want {
			for _, network := range []string{"tcp", "udp"} {
				c, err := s.call(s.pod, network, "", to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				old = append(old, c)
			}
			for n, c := range old {
				got, err := seen(c)
				if err != nil {
					t.Fatalf("round %d, connection %d: %v", round, n, err)
				}
				if began := want[n/2]; got.Addr().String() != began {
					t.Errorf("round %d (%s now): a connection that began as %s is seen as %v", round, addr, began, got)
				}
			}
			use := desired.PoolUse{Masquerade: addr == pod} // the other one
			s.patch(desired.PolicyPatch{Pools: desired.Patch[netip.Prefix, desired.PoolUse]{Set: map[netip.Prefix]desired.PoolUse{netip.MustParsePrefix(pool): use}}})
			s.driver = openWith(t, s.host, natSettings())
			mustSync(t, s.driver, &s.policy, nil)
		}
	}
}

// Where nothing ever got another source there is no chain for it, which would
// cost every packet something. It comes with the first pool that asks for it,
// and stays, also under a new agent.
func TestNATFromTheFirstOn(t *testing.T) {
	ns := testenv.NetNS(t)
	policy := desired.NewPolicy()
	pool := netip.MustParsePrefix("10.0.0.0/16")
	driver := openWith(t, ns, natSettings())
	sync := func(want bool, patch *desired.PolicyPatch) {
		t.Helper()
		mustSync(t, driver, &policy, patch)
		if got := strings.Contains(testenv.Run(t, ns, "nft", "list", "chains", "inet"), "chain nat"); got != want {
			t.Errorf("there is a chain nat: %v, want %v", got, want)
		}
		settled(t, driver, &policy)
	}
	use := func(masquerade bool) *desired.PolicyPatch {
		p := &desired.PolicyPatch{Pools: desired.Patch[netip.Prefix, desired.PoolUse]{Set: map[netip.Prefix]desired.PoolUse{pool: {Masquerade: masquerade}}}}
		p.Play(policy)
		return p
	}
	sync(false, nil)
	sync(false, use(false))
	sync(true, use(true))
	sync(true, use(false))
	sync(true, nil)
	driver = openWith(t, ns, natSettings())
	sync(true, nil)
	driver.Configure(natSettings())
	sync(true, nil)
}

// Policy of the host that sends judges packets as the workload sent them.
func TestPolicyAheadOfNAT(t *testing.T) {
	s := newStreet(t)
	profile := desired.RulesID{Owner: "Profile kns.default", Direction: desired.Egress}
	for _, tt := range []struct {
		sources []netip.Prefix
		passes  bool
	}{
		{nets(podAddr4+"/32", podAddr6+"/128"), true},
		{nets(hostAddr4+"/32", hostAddr6+"/128"), false},
	} {
		list := &desired.RuleList{Rules: []desired.PolicyRule{{Action: desired.Allow, IPv4: true, IPv6: true, Source: desired.Side{Nets: tt.sources}}}}
		s.patch(desired.PolicyPatch{Rules: desired.Patch[desired.RulesID, *desired.RuleList]{Set: map[desired.RulesID]*desired.RuleList{profile: list}}})
		for _, to := range places()["outside"] {
			c, err := s.call(s.pod, "udp", "", to)
			if err != nil {
				t.Fatal(err)
			}
			at, err := seen(c)
			c.Close()
			if (err == nil) != tt.passes {
				t.Errorf("allowed from %v: to %s: seen as %v, %v", tt.sources, to, at, err)
			}
		}
	}
}

// What this host itself sends into a tunnel gets the tunnel's address, whatever
// address it had; what workloads send into it, or the host elsewhere, does not.
func TestIntoTunnels(t *testing.T) {
	s := newStreet(t)
	own := map[string][2]string{desired.DeviceIPIP: {"10.0.5.1", ""}, desired.DeviceVXLAN4: {"10.0.5.2", ""}, desired.DeviceVXLAN6: {"", "fd00::5:3"}}
	there := map[string]string{desired.DeviceIPIP: "10.0.6.1", desired.DeviceVXLAN4: "10.0.7.1", desired.DeviceVXLAN6: "fd00::7:1"}
	patch := desired.PolicyPatch{Tunnels: desired.Patch[string, netip.Addr]{Set: map[string]netip.Addr{}}}
	for n, name := range slices.Sorted(maps.Keys(own)) {
		// What carries the packets is all the same to these rules.
		far, farName := testenv.NamedNS(t, fmt.Sprint("brindle-nat-far", n))
		end := "end"
		testenv.Run(t, s.host, "ip", "link", "add", name, "type", "veth", "peer", "name", end, "netns", farName)
		testenv.Run(t, s.host, "ip", "link", "set", name, "up")
		testenv.Run(t, far, "ip", "link", "set", end, "up")
		i := 0
		if name == desired.DeviceVXLAN6 {
			i = 1
		}
		bits := []string{"/32", "/128"}[i]
		for _, a := range []struct {
			ns           *netns.NS
			dev, at, far string
		}{{s.host, name, own[name][i], there[name]}, {far, end, there[name], own[name][i]}} {
			testenv.Run(t, a.ns, append([]string{"ip", "address", "add", a.at + bits, "dev", a.dev}, [][]string{nil, {"nodad"}}[i]...)...)
			testenv.Run(t, a.ns, "ip", "route", "add", a.far+bits, "dev", a.dev)
		}
		for _, back := range []string{[]string{podAddr4, podAddr6}[i], []string{hostAddr4, hostAddr6}[i]} {
			testenv.Run(t, far, "ip", "route", "add", back+bits, "via", own[name][i], "dev", end, "onlink")
		}
		s.answer(far, there[name])
		patch.Tunnels.Set[name] = netip.MustParseAddr(own[name][i])
	}
	s.patch(patch)
	for name, to := range there {
		i := 0
		if name == desired.DeviceVXLAN6 {
			i = 1
		}
		for _, tt := range []struct{ from, want string }{
			{[]string{hostAddr4, hostAddr6}[i], own[name][i]}, {own[name][i], own[name][i]},
		} {
			got := s.source(s.host, "udp", net.JoinHostPort(tt.from, "6000"), to)
			if got.Addr().String() != tt.want || tt.from != tt.want && got.Port() < 4790 {
				t.Errorf("%s: the host's packets from %s are seen as %v, not from %s", name, tt.from, got, tt.want)
			}
		}
		if got := s.source(s.pod, "tcp", "", to); got.Addr().String() != []string{podAddr4, podAddr6}[i] {
			t.Errorf("%s: the workload's packets are seen as %v", name, got)
		}
	}
	outside := places()["outside"][0]
	if got := s.source(s.host, "udp", net.JoinHostPort("10.0.5.2", "6001"), outside); got.Addr().String() != hostAddr4 {
		t.Errorf("a tunnel's address outside is seen as %v", got)
	}
}

// Others that translate, at the same place, do so for what is theirs.
func TestNATBesideOthers(t *testing.T) {
	s := newStreet(t)
	testenv.Run(t, s.host, "ip", "address", "add", "192.168.0.99/24", "dev", "eth0")
	testenv.Run(t, s.host, "nft", `table ip docker { chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.0.2.0/24 masquerade
		meta mark & 0x4000 == 0x4000 snat to 192.168.0.99
	}
	}`)
	s.configure(func(*rules.Config) {})
	if got := s.source(s.pod, "tcp", "", places()["outside"][0]); got.Addr().String() != hostAddr4 {
		t.Errorf("the workload is seen as %v", got)
	}
	if got := s.source(s.pod, "tcp", "", places()["a pool without NAT"][0]); got.Addr().String() != podAddr4 {
		t.Errorf("the workload is seen as %v in another pool", got)
	}
	testenv.Run(t, s.host, "nft", `table inet kube { chain marks { type filter hook forward priority -10
		ip daddr 10.1.9.9 meta mark set meta mark | 0x4000
	}
	}`)
	if got := s.source(s.pod, "tcp", "", places()["a pool without NAT"][0]); got.Addr().String() != "192.168.0.99" {
		t.Errorf("what others translate is seen as %v", got)
	}
}

// A connection that policy cut is cut though it was translated, both ways.
func TestCutBehindNAT(t *testing.T) {
	s := newStreet(t)
	bit := natSettings().CutMark
	for i, to := range places()["outside"] {
		c, err := s.call(s.pod, "tcp", "", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := seen(c); err != nil || got.Addr().String() != []string{hostAddr4, hostAddr6}[i] {
			t.Fatalf("seen as %v: %v", got, err)
		}
		before, err := s.driver.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		port := c.LocalAddr().(*net.TCPAddr).Port
		testenv.Run(t, s.host, "nft", fmt.Sprintf(`table inet other { chain cut { type filter hook forward priority -10
			tcp sport %d ct mark set ct mark | %#x
		}
		}`, port, bit))
		if got, err := seen(c); err == nil {
			t.Errorf("cut, it is still seen as %v", got)
		}
		now, err := s.driver.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if now["d-cut"].Packets == before["d-cut"].Packets {
			t.Error("nothing was counted as cut")
		}
		testenv.Run(t, s.host, "nft", "delete table inet other")
	}
}

// Of two chains in the same place that both would translate, the one that was
// made later does.
func TestNATOrder(t *testing.T) {
	s := newStreet(t)
	testenv.Run(t, s.host, "ip", "address", "add", "192.168.0.99/24", "dev", "eth0")
	to := places()["outside"][0]
	greedy := `table ip greedy { chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept
		ip saddr 10.0.0.1 snat to 192.168.0.99
	}
	}`
	testenv.Run(t, s.host, "nft", greedy)
	if got := s.source(s.pod, "tcp", "", to); got.Addr().String() != "192.168.0.99" {
		t.Errorf("with a chain that is younger than ours, the workload is seen as %v", got)
	}
	if err := Remove(s.host); err != nil {
		t.Fatal(err)
	}
	mustSync(t, s.driver, &s.policy, nil)
	if got := s.source(s.pod, "tcp", "", to); got.Addr().String() != hostAddr4 {
		t.Errorf("with a chain that is older than ours, the workload is seen as %v", got)
	}
}

package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// open returns the kernel of a fresh namespace.
func open(t testing.TB) (*Kernel, *netns.NS) {
	t.Helper()
	ns := testenv.NetNS(t)
	k, err := Open(Config{Netns: ns.Path()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k, ns
}

// forwarding makes a namespace a router.
func forwarding(t testing.TB, ns *netns.NS) {
	t.Helper()
	testenv.Do(t, ns, func() error {
		return errors.Join(assertSysctl("net/ipv4/ip_forward", "1"), assertSysctl("net/ipv6/conf/all/forwarding", "1"))
	})
}

// workloadSpec is a wire to a fresh workload, number n.
func workloadSpec(t testing.TB, n int, f testenv.Family) (WireSpec, *netns.NS) {
	t.Helper()
	ns := testenv.NetNS(t)
	s := WireSpec{HostName: fmt.Sprintf("cali%011d", n), Netns: ns.Path(), IfName: "eth0", MTU: 1450}
	if f.HasV4() {
		s.Addresses = append(s.Addresses, netip.AddrFrom4([4]byte{10, 65, 0, byte(n)}))
	}
	if f.HasV6() {
		s.Addresses = append(s.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00:65::%x", n)))
	}
	return s, ns
}

// hostRoutes adds the host's routes to a workload, which the agent reconciles.
func hostRoutes(t testing.TB, host *netns.NS, s WireSpec) {
	t.Helper()
	for _, a := range s.Addresses {
		args := []string{"ip", "route", "add", a.String(), "dev", s.HostName}
		if a.Is4() {
			args = append(args, "scope", "link")
		} else {
			args[1] = "-6"
			args = []string{"ip", "-6", "route", "add", a.String(), "dev", s.HostName}
		}
		testenv.Run(t, host, args...)
	}
}

// wireBoth lays a wire and fills it.
func wireBoth(t testing.TB, k *Kernel, s WireSpec) (Wired, error) {
	w, err := k.LayWire(t.Context(), s)
	if err != nil {
		return w, err
	}
	return k.FillWire(t.Context(), s, w)
}

func wire(t testing.TB, k *Kernel, s WireSpec) Wired {
	t.Helper()
	w, err := wireBoth(t, k, s)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Nobody waits until the kernel has forgotten a link: it is gone, its name is
// free, and what it carried has gone with it.
func TestUnwiredIsGone(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		for n := range 2 * maxLeaving {
			s, _ := workloadSpec(t, 1, f)
			wire(t, k, s)
			hostRoutes(t, host, s)
			if err := k.Unwire(s.HostName); err != nil {
				t.Fatal(err)
			}
			for _, show := range []string{"link", "addr", "-4 route", "-6 route"} {
				out := testenv.Run(t, host, append([]string{"ip"}, append(strings.Fields(show), "show")...)...)
				if strings.Contains(out, s.HostName) {
					t.Fatalf("round %d: ip %s still shows %s:\n%s", n, show, s.HostName, out)
				}
			}
		}
	})
}

func TestTwoWiredWorkloadsReachEachOther(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		forwarding(t, host)
		one, ns1 := workloadSpec(t, 1, f)
		two, _ := workloadSpec(t, 2, f)
		for _, s := range []WireSpec{one, two} {
			if w := wire(t, k, s); !w.Made || w.MTU != 1450 || len(w.MAC) != 6 || w.Index == 0 || w.HostIndex == 0 {
				t.Errorf("got %+v", w)
			}
			hostRoutes(t, host, s)
		}
		// The host has no default route: its answer for the next hop must not
		// depend on one.
		for _, a := range two.Addresses {
			out := testenv.Run(t, ns1, "ping", "-n", "-c", "2", "-i", "0.01", "-W", "5", a.String())
			if !strings.Contains(out, "ttl=63") {
				t.Errorf("not exactly one router on the way:\n%s", out)
			}
		}
		if f.HasV6() {
			testenv.Run(t, ns1, "ping", "-n", "-c", "1", "-W", "5", Gateway6().String()+"%eth0")
		}
	})
}

// A guest that does not take the neighbour from us asks who has the next hop.
// A host with a default route answers on the guest's link, and on no other.
// IPv4 only: the IPv6 next hop is an address of the link.
func TestHostAnswersForTheNextHop(t *testing.T) {
	k, host := open(t)
	forwarding(t, host)
	links(t, host, "up0")
	far, name := testenv.NamedNS(t, "kfar")
	testenv.Run(t, host, "ip", "link", "set", "up0p", "name", "eth0", "netns", name)
	testenv.Run(t, far, "ip", "link", "set", "eth0", "up")
	testenv.Run(t, host, "ip", "addr", "add", "172.30.0.1/24", "dev", "up0")
	testenv.Run(t, far, "ip", "addr", "add", "172.30.0.2/24", "dev", "eth0")
	testenv.Run(t, host, "ip", "route", "add", "default", "via", "172.30.0.2")
	s, guest := workloadSpec(t, 1, testenv.V4)
	wire(t, k, s)
	hostRoutes(t, host, s)
	testenv.Run(t, guest, "ip", "neigh", "del", Gateway4().String(), "dev", "eth0")
	testenv.Run(t, guest, "ping", "-n", "-c", "1", "-W", "5", "172.30.0.1")
	if out := testenv.Run(t, guest, "ip", "neigh", "show", Gateway4().String()); !strings.Contains(out, HostMAC) {
		t.Errorf("the next hop is %q", out)
	}
	testenv.Run(t, far, "ip", "route", "add", Gateway4().String(), "dev", "eth0")
	if _, err := testenv.TryRun(t, far, "ping", "-n", "-c", "1", "-W", "1", Gateway4().String()); err == nil {
		t.Error("the next hop of workloads answers on the uplink")
	}
	if out := testenv.Run(t, far, "ip", "neigh", "show", Gateway4().String()); strings.Contains(out, "lladdr") {
		t.Errorf("the host answers for the next hop on its uplink: %s", out)
	}
}

func TestWireTwiceIsTheSameWire(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		s, ns := workloadSpec(t, 1, f)
		first := wire(t, k, s)
		show := func() string {
			return testenv.Run(t, host, "ip", "-d", "link") + testenv.Run(t, ns, "ip", "-d", "addr", "show", "dev", "eth0") +
				testenv.Run(t, ns, "ip", "route") + testenv.Run(t, ns, "ip", "-6", "route")
		}
		testenv.Until(t, waitLimit, func() error { // the link comes up in the background
			if _, err := k.InspectWire(t.Context(), s); err != nil {
				return err
			}
			if f.HasV6() && !strings.Contains(show(), "fe80::/64") {
				return errors.New("no link-local route yet")
			}
			if strings.Contains(show(), "tentative") {
				return errors.New("the link-local address is not usable yet")
			}
			return nil
		})
		before := show()
		again := wire(t, k, s)
		if first.Made = false; fmt.Sprint(first) != fmt.Sprint(again) {
			t.Errorf("first %+v, again %+v", first, again)
		}
		if after := show(); before != after {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

func TestWireMendsWhatWasBroken(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		s, ns := workloadSpec(t, 1, f)
		wire(t, k, s)
		testenv.Run(t, ns, "ip", "addr", "flush", "dev", "eth0")
		testenv.Run(t, host, "ip", "link", "set", s.HostName, "down", "alias", "")
		if _, err := k.InspectWire(t.Context(), s); err == nil {
			t.Error("InspectWire sees nothing wrong")
		}
		if w := wire(t, k, s); w.Made {
			t.Error("made again, want mended")
		}
		if _, err := k.InspectWire(t.Context(), s); err != nil {
			t.Error(err)
		}
	})
}

func TestRemainderOfAnotherWorkloadIsReplaced(t *testing.T) {
	k, host := open(t)
	s, _ := workloadSpec(t, 1, testenv.Dual)
	wire(t, k, s)
	moved, _ := workloadSpec(t, 1, testenv.Dual) // same name on the host, new namespace
	if w := wire(t, k, moved); !w.Made {
		t.Errorf("got %+v", w)
	}
	if _, err := k.InspectWire(t.Context(), moved); err != nil {
		t.Error(err)
	}
	if out := testenv.Run(t, host, "ip", "-o", "link", "show", "type", "veth"); strings.Count(out, "\n") != 1 {
		t.Errorf("want one link:\n%s", out)
	}
}

func TestManyWiresAtOnce(t *testing.T) {
	k, host := open(t)
	forwarding(t, host)
	const n = 16
	specs := make([]WireSpec, n)
	for i := range specs {
		specs[i], _ = workloadSpec(t, i+1, testenv.Dual)
	}
	var wg sync.WaitGroup
	for _, s := range specs {
		wg.Go(func() {
			if _, err := wireBoth(t, k, s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range specs {
		if _, err := k.InspectWire(t.Context(), s); err != nil {
			t.Error(err)
		}
		wg.Go(func() {
			if err := k.Unwire(s.HostName); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if out := testenv.Run(t, host, "ip", "-o", "link"); strings.Count(out, "\n") != 1 {
		t.Errorf("links are left:\n%s", out)
	}
}

func TestForeignLinksAreLeftAlone(t *testing.T) {
	k, host := open(t)
	s, ns := workloadSpec(t, 1, testenv.Dual)
	testenv.Run(t, host, "ip", "link", "add", s.HostName, "type", "bridge")
	if _, err := wireBoth(t, k, s); !errors.Is(err, ErrForeign) {
		t.Errorf("LayWire over a bridge: %v, want ErrForeign", err)
	}
	if err := k.Unwire(s.HostName); !errors.Is(err, ErrForeign) {
		t.Errorf("Unwire of a bridge: %v, want ErrForeign", err)
	}
	testenv.Run(t, host, "ip", "link", "del", s.HostName)
	testenv.Run(t, ns, "ip", "link", "add", "eth0", "type", "bridge")
	if _, err := wireBoth(t, k, s); !errors.Is(err, ErrForeign) {
		t.Errorf("LayWire with eth0 taken: %v, want ErrForeign", err)
	}
	if out := testenv.Run(t, ns, "ip", "-d", "link", "show", "eth0"); !strings.Contains(out, "bridge") {
		t.Errorf("the workload's own eth0 is gone: %s", out)
	}
}

func TestFailedWireLeavesNothing(t *testing.T) {
	k, host := open(t)
	s, _ := workloadSpec(t, 1, testenv.V4)
	s.Routes = []netip.Prefix{{}} // no route at all
	if _, err := wireBoth(t, k, s); err == nil {
		t.Fatal("an invalid route was accepted")
	}
	s.Routes, s.Netns = nil, k.ns.Path()
	if _, err := wireBoth(t, k, s); err == nil {
		t.Fatal("the host's own namespace was accepted as a workload")
	}
	if out := testenv.Run(t, host, "ip", "-o", "link"); strings.Count(out, "\n") != 1 {
		t.Errorf("links are left:\n%s", out)
	}
}

func TestUnwire(t *testing.T) {
	k, _ := open(t)
	s, ns := workloadSpec(t, 1, testenv.Dual)
	wire(t, k, s)
	for range 2 { // the second finds nothing, which is fine
		if err := k.Unwire(s.HostName); err != nil {
			t.Fatal(err)
		}
	}
	if out := testenv.Run(t, ns, "ip", "-o", "link"); strings.Contains(out, "eth0") {
		t.Errorf("the workload's end is left:\n%s", out)
	}
}

func TestWireSpecIsHonoured(t *testing.T) {
	k, host := open(t)
	s, ns := workloadSpec(t, 1, testenv.Dual)
	mac, err := net.ParseMAC("02:00:00:00:00:77")
	if err != nil {
		t.Fatal(err)
	}
	s.MAC, s.MTU, s.Queues, s.Forwarding, s.Alias = mac, 1400, 3, true, "brindle:other"
	s.Routes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	if w := wire(t, k, s); w.MAC.String() != s.MAC.String() {
		t.Errorf("got %+v", w)
	}
	inside := testenv.Run(t, ns, "ip", "-d", "link", "show", "eth0") + testenv.Run(t, ns, "ip", "addr") +
		testenv.Run(t, ns, "ip", "route") + testenv.Run(t, ns, "ip", "-6", "route")
	for _, want := range []string{
		"02:00:00:00:00:77", "mtu 1400", "numtxqueues 3", "numrxqueues 3", "10.65.0.1/32", "fd00:65::1/128",
		"169.254.1.1 dev eth0 scope link", "10.0.0.0/8 via 169.254.1.1", "fd00::/8 via fe80::ecee:eeff:feee:eeee",
	} {
		if !strings.Contains(inside, want) {
			t.Errorf("no %q in:\n%s", want, inside)
		}
	}
	if strings.Contains(inside, "default via") {
		t.Errorf("a default route was not asked for:\n%s", inside)
	}
	if out := testenv.Run(t, host, "ip", "-d", "link", "show", s.HostName); !strings.Contains(out, "alias brindle:other") ||
		!strings.Contains(out, HostMAC) {
		t.Errorf("host's end:\n%s", out)
	}
	wantSysctls(t, ns, map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/eth0/accept_ra": "0",
		"net/ipv6/conf/eth0/accept_dad": "0", "net/ipv6/conf/eth0/disable_ipv6": "0",
	})
	if err := k.Unwire(s.HostName); !errors.Is(err, ErrForeign) {
		t.Errorf("Unwire with another alias: %v", err)
	}
}

func wantSysctls(t testing.TB, ns *netns.NS, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	testenv.Do(t, ns, func() (err error) {
		for name := range want {
			if got[name], err = readSysctl(name); err != nil {
				return err
			}
		}
		return nil
	})
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %s, want %s", name, got[name], value)
		}
	}
}

func TestHostEndIsHardened(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		// The defaults of a careless host must not reach our links.
		testenv.Do(t, host, func() error {
			return errors.Join(assertSysctl("net/ipv6/conf/default/accept_ra", "2"),
				assertSysctl("net/ipv4/conf/default/route_localnet", "1"), assertSysctl("net/ipv4/conf/default/rp_filter", "0"),
				assertSysctl("net/ipv6/conf/default/disable_ipv6", "1"), assertSysctl("net/ipv6/conf/default/addr_gen_mode", "1"))
		})
		s, _ := workloadSpec(t, 1, f)
		wire(t, k, s)
		want, err := linkSysctls(s.HostName, desired.SysctlLines(desired.WorkloadSysctls()))
		if err != nil {
			t.Fatal(err)
		}
		if len(want) < 10 {
			t.Errorf("only %d settings", len(want))
		}
		wantSysctls(t, host, want)
		if out := testenv.Run(t, host, "ip", "-6", "addr", "show", "dev", s.HostName); !strings.Contains(out, Gateway6().String()) ||
			strings.Contains(out, "tentative") {
			t.Errorf("the next hop is not there:\n%s", out)
		}
	})
}

func BenchmarkWire(b *testing.B) {
	k, host := open(b)
	forwarding(b, host)
	s, _ := workloadSpec(b, 1, testenv.Dual)
	for b.Loop() {
		wire(b, k, s)
		b.StopTimer()
		if err := k.Unwire(s.HostName); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

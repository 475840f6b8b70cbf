package kernel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// count reads a counter of a namespace from /proc/net/snmp.
func count(t testing.TB, ns *netns.NS, group, name string) int {
	t.Helper()
	var text []byte
	testenv.Do(t, ns, func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	})
	var head []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != group+":" {
			continue
		}
		if head == nil {
			head = fields
			continue
		}
		for i, h := range head {
			if h == name {
				n, err := strconv.Atoi(fields[i])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	t.Fatalf("no counter %s %s", group, name)
	return 0
}

// advertise sends a router advertisement from a link: a default route, a
// prefix for addresses and a route (RFC 4861, RFC 4191).
func advertise(link string) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	i, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	prefix := []byte{0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	m := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0} // lifetime 1800 s
	m = append(m, 3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)    // prefix, on link, autonomous
	m = append(m, prefix...)
	m = append(m, 24, 3, 48, 0, 0, 0, 0x07, 0x08) // route
	m = append(m, prefix...)
	to := &unix.SockaddrInet6{ZoneId: uint32(i.Index)}
	copy(to.Addr[:], net.ParseIP("ff02::1"))
	return unix.Sendto(fd, m, 0, to)
}

// CVE-2020-13597 and its like: a workload that plays the router teaches the
// host nothing, whichever families it has addresses of.
func TestRouterAdvertisementIsIgnored(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		forwarding(t, host)
		testenv.Do(t, host, func() error { return assertSysctl("net/ipv6/conf/default/accept_ra", "2") })
		s, ns := workloadSpec(t, 1, f)
		wire(t, k, s)
		shows(t, ns, []string{"fe80::"}, []string{"tentative"}, "ip", "-6", "addr", "show", "dev", "eth0")
		learned := func() string {
			return testenv.Run(t, host, "ip", "-6", "route", "show", "proto", "ra") +
				testenv.Run(t, host, "ip", "-6", "addr", "show", "dynamic")
		}
		before := count6(t, host, "Icmp6InRouterAdvertisements")
		testenv.Do(t, ns, func() error { return advertise("eth0") })
		testenv.Until(t, waitLimit, func() error { // it did arrive
			if n := count6(t, host, "Icmp6InRouterAdvertisements"); n == before {
				return errors.New("the advertisement has not arrived")
			}
			return nil
		})
		if got := learned(); got != "" {
			t.Errorf("the host believed a workload:\n%s", got)
		}
		// The same advertisement works where we are not in its way.
		testenv.Do(t, host, func() error { return assertSysctl("net/ipv6/conf/"+s.HostName+"/accept_ra", "2") })
		testenv.Do(t, ns, func() error { return advertise("eth0") })
		testenv.Until(t, waitLimit, func() error {
			if got := learned(); !strings.Contains(got, "default") || !strings.Contains(got, "2001:db8:bad") {
				return errors.New("the control learned nothing: the test proves nothing")
			}
			return nil
		})
	})
}

// count6 reads a counter of /proc/net/snmp6.
func count6(t testing.TB, ns *netns.NS, name string) int {
	t.Helper()
	var text []byte
	testenv.Do(t, ns, func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp6")
		return err
	})
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no counter %s", name)
	return 0
}

// A workload with another's address as source, or after the host's loopback.
// Each attack must fail by one setting of the host's end and work without it.
// IPv4 only: IPv6 has no such settings, the kernel always refuses ::1 from
// outside, and sources are checked by policy enforcement.
func TestWorkloadCannotSpoofNorReachLoopback(t *testing.T) {
	cases := []struct {
		name    string
		prepare []string // in the workload
		attack  []string
		setting string
		open    string // value that lets the attack through
	}{
		{
			"source of another", []string{"ip addr add 10.99.0.1/32 dev eth0"},
			[]string{"ping", "-n", "-c", "1", "-W", "1", "-I", "10.99.0.1", "10.1.0.1"}, "rp_filter", "0",
		},
		{
			"loopback of the host",
			[]string{
				"ip addr del 127.0.0.1/8 dev lo", "ip route add 127.0.0.1/32 via 169.254.1.1 dev eth0",
				"echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet",
			},
			[]string{"ping", "-n", "-c", "1", "-W", "1", "127.0.0.1"}, "route_localnet", "1",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			k, host := open(t)
			forwarding(t, host)
			links(t, host, "uplink")
			testenv.Run(t, host, "ip", "addr", "add", "10.1.0.1/24", "dev", "uplink")
			s, ns := workloadSpec(t, 1, testenv.V4)
			wire(t, k, s)
			hostRoutes(t, host, s)
			echos := func() int { return count(t, host, "Icmp", "InEchos") }

			testenv.Run(t, ns, "ping", "-n", "-c", "1", "-W", "5", "10.1.0.1") // honest packets pass
			for _, cmd := range c.prepare {
				testenv.Run(t, ns, "sh", "-ec", cmd)
			}
			before := echos()
			if _, err := testenv.TryRun(t, ns, c.attack...); err == nil {
				t.Error("the attack was answered")
			}
			if n := echos(); n != before {
				t.Errorf("%d packets of the attack were taken in", n-before)
			}
			file := fmt.Sprintf("net/ipv4/conf/%s/%s", s.HostName, c.setting)
			testenv.Do(t, host, func() error { return assertSysctl(file, c.open) })
			_, _ = testenv.TryRun(t, ns, c.attack...)
			if n := echos(); n == before {
				t.Error("the control did not arrive: the test proves nothing")
			}
		})
	}
}

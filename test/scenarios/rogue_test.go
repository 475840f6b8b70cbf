package scenarios

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// rogueRA FROM sends, from a workload, what a router advertises (RFC 4861,
// section 4.2): itself as default router, a prefix to make addresses of, and
// a route.
func (c call) rogueRA(args []string) outcome {
	name, _, err := c.find(args[0])
	if err != nil {
		return failf("%v", err)
	}
	ns, err := netns.Open(name)
	if err != nil {
		return failf("%v", err)
	}
	defer ns.Close()
	if err := netns.Do(ns, func() error { return advertise("eth0") }); err != nil {
		return failf("advertise: %v", err)
	}
	return outcome{}
}

func advertise(link string) error {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	prefix := netip.MustParseAddr("2001:db8:bad::").AsSlice()
	m := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}                 // lifetime 1800 s
	m = append(append(m, 3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), prefix...) // on link, autonomous
	m = append(append(m, 24, 3, 48, 0, 0, 0, 0x07, 0x08), prefix...)                     // route, RFC 4191
	return unix.Sendto(fd, m, 0, &unix.SockaddrInet6{
		ZoneId: uint32(i.Index), Addr: netip.MustParseAddr("ff02::1").As16(),
	})
}

package kernel

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// Only routes of IPv4 go by objects, so these tests have one family.

// tunnelled makes a VXLAN device that is up. Its name is all that it has in
// common with ours.
func tunnelled(t *testing.T) (*Kernel, *netns.NS) {
	t.Helper()
	k, ns := open(t)
	testenv.Run(t, ns, "ip", "link", "add", desired.DeviceVXLAN4, "type", "vxlan", "id", "1", "dstport", "4789")
	testenv.Run(t, ns, "ip", "link", "set", desired.DeviceVXLAN4, "up")
	return k, ns
}

// byTunnel is a route to another host.
func byTunnel(vtep string) desired.Route {
	r := agentRoute(desired.NextHop{Via: netip.MustParseAddr(vtep), Interface: desired.DeviceVXLAN4, OnLink: true})
	r.MTU = 1450
	return r
}

// objectsAre fails unless the kernel comes to have objects for these next hops
// and no others of ours.
func objectsAre(t *testing.T, ns *netns.NS, want ...string) {
	t.Helper()
	testenv.Until(t, waitLimit, func() error {
		out := squeeze(testenv.Run(t, ns, "ip", "nexthop", "show"))
		if n := strings.Count(out, "proto 80"); n != len(want) {
			return fmt.Errorf("%d objects, want %v:\n%s", n, want, out)
		}
		for _, w := range want {
			if !strings.Contains(out, "via "+w+" dev vxlan.calico") {
				return fmt.Errorf("none for %s:\n%s", w, out)
			}
		}
		return nil
	})
}

func TestTunnelRoutesShareAnObjectThatGoesWithTheLast(t *testing.T) {
	k, ns := tunnelled(t)
	testenv.Run(t, ns, "ip", "nexthop", "add", "id", "5", "blackhole") // somebody else's
	l, stop := routeLoop(t, k, desired.ProtocolAgent)
	l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: map[desired.RouteKey]desired.Route{
		key("10.65.1.0/26"): byTunnel("10.65.1.1"), key("10.65.1.64/26"): byTunnel("10.65.1.1"), key("10.65.2.0/26"): byTunnel("10.65.2.1"),
	}})
	swept(t, l)
	objectsAre(t, ns, "10.65.1.1", "10.65.2.1")
	routes := []string{"ip", "route"}
	shows(t, ns, []string{
		"10.65.1.0/26 nhid 172032257 via 10.65.1.1 dev vxlan.calico proto 80 metric 1024 onlink mtu 1450",
		"10.65.1.64/26 nhid 172032257 via 10.65.1.1 ", "10.65.2.0/26 nhid 172032513 via 10.65.2.1 ",
	}, nil, routes...)

	l.Want(desired.Patch[desired.RouteKey, desired.Route]{
		Set: map[desired.RouteKey]desired.Route{key("10.65.2.0/26"): byTunnel("10.65.3.1")}, Delete: []desired.RouteKey{key("10.65.1.0/26")}})
	synced(t, l)
	objectsAre(t, ns, "10.65.1.1", "10.65.3.1")

	plain := byTunnel("10.65.3.1")
	plain.MTU = 0 // which is not that of the other
	l.Want(set(key("10.65.3.0/26"), plain))
	synced(t, l)
	shows(t, ns, []string{"10.65.3.0/26 via 10.65.3.1 dev vxlan.calico proto 80 metric 1024 onlink\n"}, nil, routes...)
	l.Want(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{key("10.65.3.0/26")}})
	synced(t, l)

	stop() // and another agent, with what it finds
	l, _ = routeLoop(t, k, desired.ProtocolAgent)
	testenv.Run(t, ns, "ip", "nexthop", "add", "id", "7", "via", "10.65.7.1", "dev", desired.DeviceVXLAN4, "onlink", "protocol", "80")
	l.Want(set(key("10.65.1.64/26"), byTunnel("10.65.1.1")))
	l.Want(set(key("10.65.9.0/26"), byTunnel("10.65.9.1")))
	swept(t, l)
	objectsAre(t, ns, "10.65.1.1", "10.65.9.1")
	shows(t, ns, []string{"10.65.1.64/26 nhid 172032257 "}, []string{"10.65.2.0/26"}, routes...)
	l.Want(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{key("10.65.1.64/26"), key("10.65.9.0/26")}})
	synced(t, l)
	objectsAre(t, ns)
	shows(t, ns, []string{"id 5 blackhole"}, nil, "ip", "nexthop")
}

// TestTunnelsThatMeetInANumber: the address of a VXLAN end and that of a host
// with IP in IP may differ in the first bit alone.
func TestTunnelsThatMeetInANumber(t *testing.T) {
	k, ns := tunnelled(t)
	testenv.Run(t, ns, "ip", "link", "add", desired.DeviceIPIP, "type", "vxlan", "id", "2", "dstport", "4790") // its name is all that counts
	testenv.Run(t, ns, "ip", "link", "set", desired.DeviceIPIP, "up")
	l, stop := routeLoop(t, k, desired.ProtocolAgent)
	vxlan, ipip := byTunnel("10.201.4.7"), byTunnel("138.201.4.7")
	ipip.Hops[0].Interface = desired.DeviceIPIP
	both := map[desired.RouteKey]desired.Route{key("10.65.1.0/26"): vxlan, key("10.65.2.0/26"): ipip}
	right := []string{"via 10.201.4.7 dev vxlan.calico", "via 138.201.4.7 dev tunl0"}
	l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: both})
	swept(t, l)
	shows(t, ns, right, nil, "ip", "route")
	for range 2 { // another agent; and one for which the object is the other's
		stop()
		l, stop = routeLoop(t, k, desired.ProtocolAgent)
		l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: both})
		swept(t, l)
		shows(t, ns, right, nil, "ip", "route")
		if s := l.Stats(); s.Failing > 0 {
			t.Errorf("%+v", s)
		}
		testenv.Run(t, ns, "ip", "nexthop", "flush", "proto", "80")
	}
}

// TestObjectOfAnotherIsNotUsed also where its number says it was ours.
func TestObjectOfAnotherIsNotUsed(t *testing.T) {
	for _, how := range []string{"dev vxlan.calico via 10.65.77.1 onlink", "dev vxlan.calico via 10.65.77.1 onlink protocol 80", "blackhole"} {
		t.Run(how, func(t *testing.T) {
			for _, known := range []bool{true, false} { // when the loop begins
				k, ns := tunnelled(t)
				l, _ := routeLoop(t, k, desired.ProtocolAgent)
				if !known {
					swept(t, l)
				}
				testenv.Run(t, ns, append([]string{"ip", "nexthop", "add", "id", "172032257"}, strings.Fields(how)...)...)
				l.Want(set(key("10.65.1.0/26"), byTunnel("10.65.1.1")))
				swept(t, l)
				shows(t, ns, []string{"10.65.1.0/26 via 10.65.1.1 dev vxlan.calico proto 80"}, []string{"nhid"}, "ip", "route")
				if !strings.Contains(how, "80") {
					shows(t, ns, []string{"id 172032257 "}, nil, "ip", "nexthop")
				}
				if s := l.Stats(); s.Failing > 0 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// TestObjectDriftIsRepaired: with an object the kernel takes its routes, and a
// route is only said to have changed if it is.
func TestObjectDriftIsRepaired(t *testing.T) {
	k, ns := tunnelled(t)
	l, _ := routeLoop(t, k, desired.ProtocolAgent)
	watch(t, k, func(d Drift) {
		if d.Routes && (d.Protocol == 0 || d.Protocol == desired.ProtocolAgent) {
			l.Drift()
		}
		if d.Appeared {
			l.Retry()
		}
	})
	l.Want(set(key("10.65.1.0/26"), byTunnel("10.65.1.1")))
	swept(t, l)
	for _, cmd := range []string{
		"ip nexthop del id 172032257",
		"ip nexthop replace id 172032257 via 10.65.77.1 dev vxlan.calico onlink",
		"ip nexthop replace id 172032257 via 10.65.77.1 dev vxlan.calico onlink protocol 80",
		"ip nexthop flush proto 80",
		"ip route replace 10.65.1.0/26 via 10.65.77.1 dev vxlan.calico onlink metric 1024 proto 80",
		"sh -c ip\u00a0link\u00a0set\u00a0vxlan.calico\u00a0down&&ip\u00a0link\u00a0set\u00a0vxlan.calico\u00a0up",
		"sysctl -qw net.ipv4.nexthop_compat_mode=0", // the route no longer tells its next hop
		"ip nexthop flush proto 80",
	} {
		args := strings.Split(cmd, " ")
		args[len(args)-1] = strings.ReplaceAll(args[len(args)-1], "\u00a0", " ")
		testenv.Run(t, ns, args...)
		testenv.Until(t, waitLimit, func() error {
			l.Drift()                                                          // the test asks sooner than the watch is sure to
			out, _ := testenv.TryRun(t, ns, "ip", "route", "get", "10.65.1.9") // there may be no way
			if !strings.Contains(out, "via 10.65.1.1 dev vxlan.calico") {
				return fmt.Errorf("%s: %s %v", cmd, out, l.Err())
			}
			return nil
		})
		swept(t, l) // the pass that repaired counts when it ends, after the kernel shows it
		was := l.Stats().Repaired
		swept(t, l) // another reading
		if now := l.Stats().Repaired; now != was {
			t.Errorf("%s: %d repairs of what was right", cmd, now-was)
		}
	}
}

// TestWatchHearsOfObjects of ours alone: whoever else has some may have many.
func TestWatchHearsOfObjects(t *testing.T) {
	for name, want := range map[string]bool{"80": true, "4": false} {
		k, ns := tunnelled(t)
		var h heard
		watch(t, k, h.tell)
		quiet(t, k, &h)
		testenv.Run(t, ns, "ip", "nexthop", "add", "id", "9", "via", "10.65.1.1", "dev", desired.DeviceVXLAN4, "onlink", "protocol", name)
		if d := quiet(t, k, &h); d.Routes != want {
			t.Errorf("protocol %s: heard %+v", name, d)
		}
	}
}

// TestTunnelRoutesConvergeFromAnything plays histories in which others take
// and leave objects where they like.
func TestTunnelRoutesConvergeFromAnything(t *testing.T) {
	for seed := range uint64(5) {
		k, ns := tunnelled(t)
		c, err := rtnl.Dial(ns)
		if err != nil {
			t.Fatal(err)
		}
		index, err := k.IndexOf(desired.DeviceVXLAN4)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 3))
		l, _ := routeLoop(t, k, desired.ProtocolAgent)
		l.InSync()
		want := map[desired.RouteKey]desired.Route{}
		vtep := func() string { return fmt.Sprintf("10.65.%d.1", r.IntN(4)) }
		for range 60 {
			dst := key(fmt.Sprintf("10.65.%d.0/26", 10+r.IntN(6)))
			other := netip.MustParseAddr(vtep())
			m := nextHopMessage{ID: nextHopID(byTunnel(vtep()).Hops[0])}
			var b rtnl.Batch
			switch r.IntN(7) {
			case 0, 1, 2:
				route := byTunnel(vtep())
				route.MTU = r.IntN(3) * 700 // 0: that of the device
				want[dst] = route
				l.Want(set(dst, route))
			case 3:
				delete(want, dst)
				l.Want(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{dst}})
			case 4:
				m.put(&b, unix.RTM_DELNEXTHOP, 0)
				_ = c.Do(&b) // there may be none
			case 5:
				m.Protocol, m.Hop = uint8(r.IntN(2)*desired.ProtocolAgent), hop{Via: other, Out: index, OnLink: true}
				m.put(&b, unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
				_ = c.Do(&b) // it may be that of another kind
			case 6:
				l.Drift()
			}
			if r.IntN(3) == 0 {
				synced(t, l)
			}
		}
		l.InSync() // a reading
		synced(t, l)
		have, err := k.Routes(desired.ProtocolAgent).List(t.Context())
		if err != nil || !maps.EqualFunc(want, have, EqualRoutes) {
			t.Errorf("seed %d: the kernel has %v, want %v (%v)", seed, have, want, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

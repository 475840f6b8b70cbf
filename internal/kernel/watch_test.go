package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// heard collects what Watch tells.
type heard struct {
	mu    sync.Mutex // guards everything below
	first Drift      // what the first call told
	calls int
	rules int   // calls that told of rules
	all   Drift // since the last take
}

func (h *heard) tell(d Drift) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls++; h.calls == 1 {
		h.first = d
	}
	if d.Rules {
		h.rules++
	}
	h.all.Devices = h.all.Devices || d.Devices
	h.all.Links = h.all.Links || d.Links
	h.all.Addresses = h.all.Addresses || d.Addresses
	h.all.Routes = h.all.Routes || d.Routes
	h.all.Rules = h.all.Rules || d.Rules
	h.all.Neighbours = h.all.Neighbours || d.Neighbours
	h.all.Sysctls = h.all.Sysctls || d.Sysctls
	h.all.Appeared = h.all.Appeared || d.Appeared
}

func (h *heard) take() Drift {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.all
	h.all = Drift{}
	return d
}

func (h *heard) ruleCalls() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rules
}

func TestWatchHearsOthers(t *testing.T) {
	k, ns := open(t)
	links(t, ns, "a0")
	testenv.Run(t, ns, "ip", "link", "set", "a0", "alias", "brindle:workload")
	testenv.Run(t, ns, "ip", "addr", "add", "10.1.0.1/24", "dev", "a0")
	testenv.Run(t, ns, "ip", "addr", "add", "fd01::1/64", "dev", "a0", "nodad")
	var h heard
	watch(t, k, h.tell)
	// More may have been told by now: the kernel talks of a new link for seconds.
	if h.first != everything() {
		t.Errorf("first told %+v", h.first)
	}
	cases := []struct {
		name, cmd string
		heard     func(d Drift) bool
	}{
		{"link", "ip link set a0 mtu 1300", func(d Drift) bool { return d.Links }},
		{"new link", "ip link add b0 type veth peer name b0p", func(d Drift) bool { return d.Appeared }},
		{"another name", "ip link set b0p name c0", func(d Drift) bool { return d.Links && d.Appeared }},
		{"link up", "ip link set b0 up", func(d Drift) bool { return d.Appeared }},
		{"link down", "ip link set b0 down", func(d Drift) bool { return d.Links && d.Routes && d.Neighbours && d.Addresses }},
		{"link gone", "ip link del b0", func(d Drift) bool { return d.Links && d.Routes && d.Neighbours && d.Addresses }},
		{"address", "ip addr add 10.2.0.1/24 dev a0", func(d Drift) bool { return d.Addresses }},
		{"address gone", "ip addr del 10.2.0.1/24 dev a0", func(d Drift) bool { return d.Addresses && d.Routes }},
		{"IPv6 address", "ip addr add fd02::1/64 dev a0", func(d Drift) bool { return d.Addresses }},
		{"route", "ip route add blackhole 10.9.0.0/24 proto 80", func(d Drift) bool { return d.Routes }},
		{"route gone", "ip route del blackhole 10.9.0.0/24", func(d Drift) bool { return d.Routes }},
		{"learned IPv6 route", "ip route add blackhole fd09::/64 proto 81", func(d Drift) bool { return d.Routes }},
		{"route replaced by a foreign one", "ip route replace blackhole fd09::/64 proto static", func(d Drift) bool { return d.Routes }},
		{"foreign route gone", "ip route del blackhole fd09::/64", func(d Drift) bool { return d.Appeared }},
		{"rule", "ip rule add pref 50 fwmark 1 lookup 9", func(d Drift) bool { return d.Rules }},
		{"IPv6 rule", "ip -6 rule add pref 50 fwmark 1 lookup 9", func(d Drift) bool { return d.Rules }},
		{"neighbour", "ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:01 dev a0 nud permanent", func(d Drift) bool { return d.Neighbours }},
		{"neighbour gone", "ip neigh del 10.1.0.9 dev a0", func(d Drift) bool { return d.Neighbours }},
		{"global sysctl", "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/ip_forward", func(d Drift) bool { return d.Sysctls }},
		{"global IPv6 sysctl", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding", func(d Drift) bool { return d.Sysctls }},
		{"sysctl of a link", "echo 1 > /proc/sys/net/ipv4/conf/a0/proxy_arp", func(d Drift) bool { return d.Links }},
		{"tunnel", "ip link add vxlan.calico type vxlan id 7 dstport 4789 local 10.1.0.1", func(d Drift) bool { return d.Devices && d.Appeared }},
		{"tunnel's address", "ip link set vxlan.calico address 66:00:00:00:00:01", func(d Drift) bool { return d.Devices }},
		{"tunnel's alias", "ip link set vxlan.calico up; ip link set vxlan.calico alias brindle:tunnel", func(d Drift) bool { return d.Devices && d.Addresses && d.Neighbours }},
		{"tunnel's name", "ip link set vxlan.calico down; ip link set vxlan.calico name v0", func(d Drift) bool { return d.Devices && d.Links }},
		{"tunnel that is ours by its alias", "ip link del v0", func(d Drift) bool { return d.Devices && d.Links && d.Routes }},
		{"address that tunnels may leave from", "ip addr add 10.3.0.1/24 dev a0", func(d Drift) bool { return d.Devices }},
	}
	for _, c := range cases {
		testenv.Run(t, ns, "sh", "-ec", c.cmd)
		var all heard
		testenv.Until(t, waitLimit, func() error {
			if all.tell(h.take()); !c.heard(all.all) {
				return fmt.Errorf("%s: heard %+v", c.name, all.all)
			}
			return nil
		})
	}
}

// quiet waits until the kernel has told all it had to tell.
func quiet(t *testing.T, k *Kernel, h *heard) Drift {
	t.Helper()
	// A change that is always told marks the end.
	c, err := rtnl.Dial(k.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b rtnl.Batch
	putRule(&b, unix.RTM_NEWRULE, unix.NLM_F_CREATE, desired.RuleKey{Family: 4, Priority: 9}, desired.Rule{Table: 9})
	putRule(&b, unix.RTM_DELRULE, 0, desired.RuleKey{Family: 4, Priority: 9}, desired.Rule{Table: 9})
	before := h.ruleCalls()
	if err := c.Do(&b); err != nil {
		t.Fatal(err)
	}
	var d Drift
	testenv.Until(t, waitLimit, func() error {
		told := h.ruleCalls() // before what came with them
		got := h.take()
		d.Routes, d.Rules, d.Neighbours = d.Routes || got.Routes, d.Rules || got.Rules, d.Neighbours || got.Neighbours
		d.Links = d.Links || got.Links
		if told < before+2 {
			return errors.New("the mark has not arrived")
		}
		return nil
	})
	return d
}

func TestWatchDoesNotHearUs(t *testing.T) {
	k, ns := open(t)
	links(t, ns, "a0")
	var h heard
	watch(t, k, h.tell)
	quiet(t, k, &h)
	r := k.Routes(desired.ProtocolAgent)
	p := reconcile.Plan[desired.RouteKey, desired.Route]{}
	for _, dst := range []string{"10.65.0.1/32", "fd65::1/128"} {
		p.Set = append(p.Set, reconcile.Entry[desired.RouteKey, desired.Route]{Key: key(dst), Value: agentRoute(via("", "a0"))})
	}
	if failed := r.Apply(t.Context(), p); len(failed) > 0 {
		t.Fatal(failed)
	}
	if d := quiet(t, k, &h); d.Routes {
		t.Error("heard of our own routes")
	}
	for _, e := range p.Set {
		p.Delete = append(p.Delete, e.Key)
	}
	p.Set = nil
	if failed := r.Apply(t.Context(), p); len(failed) > 0 {
		t.Fatal(failed)
	}
	if d := quiet(t, k, &h); d.Routes {
		t.Error("heard of our own deletions")
	}
	// Others' routes are none of our business.
	testenv.Run(t, ns, "ip", "route", "add", "blackhole", "10.8.0.0/24", "proto", "bird")
	if d := quiet(t, k, &h); d.Routes {
		t.Error("heard of a foreign route")
	}
}

// With the last address of a link the kernel takes the routes over it without a
// word, also when it was we who took the address. Of IPv6 it leaves them.
func TestWatchHearsOfRoutesThatGoWithOurAddress(t *testing.T) {
	k, ns := open(t)
	links(t, ns, "a0")
	testenv.Run(t, ns, "ip", "address", "add", "10.65.0.1/32", "dev", "a0")
	testenv.Run(t, ns, "ip", "route", "add", "10.65.0.64/26", "via", "10.65.0.65", "dev", "a0", "onlink", "proto", "80")
	var h heard
	watch(t, k, h.tell)
	quiet(t, k, &h)
	p := reconcile.Plan[desired.AddrKey, struct{}]{Delete: []desired.AddrKey{{Interface: "a0", Prefix: netip.MustParsePrefix("10.65.0.1/32")}}}
	if failed := k.Addresses().Apply(t.Context(), p); len(failed) > 0 {
		t.Fatal(failed)
	}
	if out := testenv.Run(t, ns, "ip", "route", "show", "proto", "80"); out != "" {
		t.Fatalf("the kernel leaves routes: %s", out)
	}
	if d := quiet(t, k, &h); !d.Routes {
		t.Error("not heard of routes that are gone")
	}
}

// Laying a wire makes the kernel tell a lot. None of it is a reason to read
// back every link that there is; what undoes it afterwards is.
func TestWatchHearsNoDriftWhileAWireIsLaid(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, ns := open(t)
		var h heard
		watch(t, k, h.tell)
		quiet(t, k, &h)
		spec, _ := workloadSpec(t, 1, f)
		wire(t, k, spec)
		if d := quiet(t, k, &h); d.Links {
			t.Error("heard of drift")
		}
		for _, change := range []string{
			"echo 0 > /proc/sys/net/ipv4/conf/" + spec.HostName + "/rp_filter", "ip link set " + spec.HostName + " mtu 1400",
			"ip link set " + spec.HostName + " alias theirs", "ip link set " + spec.HostName + " down",
		} {
			testenv.Run(t, ns, "sh", "-ec", change)
			if d := quiet(t, k, &h); !d.Links {
				t.Errorf("%s: heard of no drift", change)
			}
		}
	})
}

// When changes come faster than they are read, everything may have changed.
func TestWatchSaysWhenItLostTrack(t *testing.T) {
	k, ns := open(t)
	links(t, ns, "a0")
	block, entered, lost := make(chan struct{}), make(chan struct{}), make(chan struct{})
	calls := 0
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = k.Watch(ctx, func(d Drift) {
			calls++
			switch {
			case calls == 2:
				close(entered)
				<-block
			case calls > 2 && d == everything():
				select {
				case <-lost:
				default:
					close(lost)
				}
			}
		})
	})
	defer func() { cancel(); wg.Wait() }()
	// Changes until the watcher is stuck in its second call, then enough of
	// them to fill any queue.
	testenv.Until(t, waitLimit, func() error {
		testenv.Run(t, ns, "ip", "link", "set", "a0", "mtu", fmt.Sprint(1300))
		testenv.Run(t, ns, "ip", "link", "set", "a0", "mtu", fmt.Sprint(1301))
		select {
		case <-entered:
			return nil
		default:
			return errors.New("nothing heard")
		}
	})
	r := k.Routes(desired.ProtocolAgent)
	for range 4 {
		var p, q reconcile.Plan[desired.RouteKey, desired.Route]
		for i := range 8000 {
			dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 70, byte(i >> 8), byte(i)}), 32)
			k := desired.RouteKey{Table: desired.MainTable, Prefix: dst, Priority: 1}
			p.Set = append(p.Set, reconcile.Entry[desired.RouteKey, desired.Route]{Key: k, Value: agentRoute(via("", "a0"))})
			q.Delete = append(q.Delete, k)
		}
		r.Apply(t.Context(), p)
		r.Apply(t.Context(), q)
	}
	close(block)
	testenv.Until(t, waitLimit, func() error {
		select {
		case <-lost:
			return nil
		default:
			return errors.New("nobody said that notifications were lost")
		}
	})
}

func TestWatchEnds(t *testing.T) {
	k, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Watch(ctx, func(Drift) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

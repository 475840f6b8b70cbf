package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/bgp"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/health"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/paths"
	"github.com/brindle-net/brindle/internal/store/mem"
	"github.com/brindle-net/brindle/internal/testenv"
)

func TestChoose(t *testing.T) {
	on := func(list ...string) []kernel.Candidate {
		var out []kernel.Candidate
		for _, s := range list {
			addr, dev, _ := strings.Cut(s, " ")
			out = append(out, kernel.Candidate{Address: netip.MustParsePrefix(addr), Interface: dev})
		}
		return out
	}
	for _, tt := range []struct {
		name, known string
		found       []kernel.Candidate
		err         error
		want        string // "" : an error
		odd, says   string
	}{
		{"the first", "", on("192.0.2.1/24 eth1", "198.51.100.1/24 eth0"), nil, "192.0.2.1/24", "", ""},
		{"what it was", "192.0.2.1/24", on("192.0.2.1/24 eth1", "198.51.100.1/24 eth0"), nil, "192.0.2.1/24", "", ""},
		{"another length", "192.0.2.1/32", on("192.0.2.1/24 eth1"), nil, "192.0.2.1/24", "", ""},
		{"it is gone, and another there", "192.0.2.9/24", on("192.0.2.1/24 eth1"), nil, "192.0.2.1/24", "", ""},
		{"it fits still", "198.51.100.1/24", on("192.0.2.1/24 eth1", "198.51.100.1/24 eth0"), nil, "198.51.100.1/24", oddAmbiguous,
			"198.51.100.1/24 on eth0 is kept, though first-found would choose 192.0.2.1/24 on eth1: both fit; narrow IP_AUTODETECTION_METHOD, or set IP"},
		{"nothing", "198.51.100.1/24", nil, kernel.ErrNoAddress, "198.51.100.1/24", oddKept, "198.51.100.1/24 is kept, though nothing is found any more: no address found"},
		{"nothing at first", "", nil, kernel.ErrNoAddress, "", "", "detect the IPv4 address of this host (first-found)"},
		{"IPv6 fits still", "2001:db8::1/64", on("2001:db8::2/64 eth0", "2001:db8::1/64 eth0"), nil, "2001:db8::1/64", oddAmbiguous, "narrow IP6_AUTODETECTION_METHOD, or set IP6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := wantedAddress{family: 4, said: "autodetect", method: "first-found"}
			if strings.Contains(tt.known, ":") {
				w.family = 6
			}
			w.know(tt.known)
			got, odd, err := w.choose(tt.found, tt.err)
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) || !errors.Is(err, kernel.ErrNoAddress) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want || odd.reason != tt.odd || !strings.Contains(odd.message, tt.says) {
				t.Errorf("got %v, %+v, %v", got, odd, err)
			}
		})
	}
}

// hostIn is an agent whose kernel is that of a namespace with eth0 and eth1,
// which finds its addresses by a method.
func hostIn(t *testing.T, f testenv.Family, method string) (a *agent, ip func(args ...string)) {
	ns, name := testenv.NamedNS(t, "address")
	ip = func(args ...string) { testenv.Run(t, ns, append([]string{"ip"}, args...)...) }
	for _, dev := range []string{"eth0", "eth1"} {
		ip("link", "add", dev, "type", "veth", "peer", "name", dev+"p")
		ip("link", "set", dev+"p", "up")
		ip("link", "set", dev, "up")
	}
	k, err := kernel.Open(kernel.Config{Netns: "/run/netns/" + name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	a = hostOf(t, mem.New(), "h1", "")
	a.kernel = k
	s := &a.cfg.Settings.Startup
	s.IP, s.IP6, s.IPMethod, s.IP6Method = "none", "none", method, method
	if f.HasV4() {
		s.IP = "autodetect"
	}
	if f.HasV6() {
		s.IP6 = "autodetect"
	}
	a.search = newSearch(a.cfg.Settings)
	a.search.ask.NS = ns
	return a, ip
}

// number is the address with a number in a network of eth0 or eth1.
func number(family, network, n int) string {
	if family == 6 {
		return fmt.Sprintf("2001:db8:%d::%d/64", 1+network, n)
	}
	return fmt.Sprintf("192.0.%d.%d/24", 2+network, n)
}

// TestKernelAddressIsFollowed changes the addresses of a host while its agent
// runs: the Node says at once what is true, and keeps what fits.
func TestKernelAddressIsFollowed(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		t.Parallel()
		a, ip := hostIn(t, f, "first-found")
		families := map[int]bool{4: f.HasV4(), 6: f.HasV6()}
		each := func(verb string, network, n int) {
			for family, has := range families {
				if !has {
					continue
				}
				args := []string{"addr", verb, number(family, network, n), "dev", fmt.Sprintf("eth%d", network)}
				if family == 6 && verb == "add" {
					args = append(args, "nodad")
				}
				ip(args...)
			}
		}
		each("add", 0, 1)
		ctx := t.Context()
		var wg sync.WaitGroup
		t.Cleanup(wg.Wait)
		wg.Go(func() { _ = a.register(ctx) })
		wg.Go(func() {
			_ = a.kernel.Watch(ctx, func(d kernel.Drift) {
				if d.Underlay || d.Addresses || d.Appeared {
					a.search.drift()
				}
			})
		})
		known := func(network, n int, reason string) {
			t.Helper()
			testenv.Until(t, 15*time.Second, func() error {
				node, err := client.Get[v3.Node](ctx, a.client, "", "h1")
				if err != nil {
					return err
				}
				for family, has := range families {
					said := map[int]string{4: node.Spec.BGP.IPv4Address, 6: node.Spec.BGP.IPv6Address}[family]
					if has && said != number(family, network, n) || !has && said != "" {
						return fmt.Errorf("IPv%d: the Node says %q", family, said)
					}
				}
				if v := a.checkAddresses(); v.Reason != reason || v.OK != (reason != oddKept) {
					return fmt.Errorf("condition: %+v", v)
				}
				return nil
			})
		}
		known(0, 1, "Chosen")
		each("add", 1, 1) // first-found would choose it now
		known(0, 1, oddAmbiguous)
		each("del", 0, 1)
		known(1, 1, "Chosen")
		each("del", 1, 1)
		known(1, 1, oddKept)
		each("add", 0, 7)
		known(0, 7, "Chosen")
	})
}

// TestKernelInternalAddress takes what the Node says of its internal addresses,
// with the length that the interface says.
func TestKernelInternalAddress(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		a, ip := hostIn(t, f, kubernetesInternalIP)
		ip("addr", "add", "192.0.2.5/26", "dev", "eth0")
		ip("addr", "add", "2001:db8::5/56", "dev", "eth0", "nodad")
		if err := a.registerOnce(t.Context()); err == nil || !strings.Contains(err.Error(), "of type InternalIP") {
			t.Errorf("without a Node: %v", err)
		}
		node := &v3.Node{}
		node.Name = "h1"
		node.Spec.Addresses = []v3.NodeAddress{{Address: "203.0.113.9", Type: "ExternalIP"}, {Address: "192.0.2.5", Type: "InternalIP"}, {Address: "2001:db8::5", Type: "InternalIP"}}
		if _, err := client.Create(t.Context(), a.client, node); err != nil {
			t.Fatal(err)
		}
		if err := a.registerOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, want := a.registered.Load(), []string{}
		if f.HasV4() {
			want = append(want, "192.0.2.5/26")
		}
		if f.HasV6() {
			want = append(want, "2001:db8::5/56")
		}
		if fmt.Sprint(r.addresses()) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", r.addresses(), want)
		}
	})
}

// TestKernelPeersUnreachable has a host choose the link that leads nowhere.
func TestKernelPeersUnreachable(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		if f == testenv.Dual {
			return // each family is asked by itself
		}
		t.Parallel()
		family := map[bool]int{true: 4, false: 6}[f.HasV4()]
		a, ip := hostIn(t, f, "interface=eth1")
		peer := testenv.NetNS(t)
		ip("link", "set", "eth0p", "netns", peer.Path())
		nodad := []string{}
		if family == 6 {
			nodad = []string{"nodad"}
		}
		testenv.Run(t, peer, append([]string{"ip", "addr", "add", number(family, 0, 2), "dev", "eth0p"}, nodad...)...)
		testenv.Run(t, peer, "ip", "link", "set", "eth0p", "up")
		ip(append([]string{"addr", "add", number(family, 0, 1), "dev", "eth0"}, nodad...)...)
		ip(append([]string{"addr", "add", number(family, 1, 1), "dev", "eth1"}, nodad...)...)
		if err := a.registerOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.speaker = bgp.New(bgp.Config{Log: a.log})
		a.probes = newProbes(a.cfg, a.kernel)
		a.probes.monitor = paths.New(paths.Config{})
		node := &model.Node{Name: "h2"}
		if family == 4 {
			node.Addr4 = netip.MustParsePrefix(number(4, 0, 2))
		} else {
			node.Addr6 = netip.MustParsePrefix(number(6, 0, 2))
		}
		a.probes.nodes["h2"] = node
		judge := func() health.Verdict {
			r := a.registered.Load()
			a.search.found.set(family, a.judgeReach(t.Context(), family, map[int]netip.Prefix{4: r.v4, 6: r.v6}[family]))
			return a.checkAddresses()
		}
		says := func(ok bool, reason string, wants ...string) {
			t.Helper()
			testenv.Until(t, 15*time.Second, func() error { // links come up in their own time
				v := judge()
				for _, want := range append(wants, "") {
					if v.OK != ok || v.Reason != reason || !strings.Contains(v.Message, want) {
						return fmt.Errorf("%+v does not say %q", v, want)
					}
				}
				return nil
			})
		}
		says(false, reachNobody, "none answers", "on eth1: h2", fmt.Sprintf("h2 answers %s on eth0", number(family, 0, 1)), "interface=eth0", "=autodetect")
		if c := a.choices(a.registered.Load()); len(c) != 1 || c[0].Note != a.checkAddresses().Message {
			t.Errorf("choices: %+v", c)
		}
		a.cfg.Settings.Startup.IPMethod, a.cfg.Settings.Startup.IP6Method = "interface=eth0", "interface=eth0"
		if err := a.registerOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		says(true, "Chosen")
		ip("addr", "flush", "dev", "eth0")
		says(false, reachNotHere)
	})
}

// TestForwardsNothing looks for routes of an earlier start, as the speaker does
// to know whether peers may keep its paths.
func TestForwardsNothing(t *testing.T) {
	a, ip := hostIn(t, testenv.V4, "first-found")
	for _, c := range []struct {
		name, route string // "" for none
		outside     bool   // others make the routes
		want        bool
	}{
		{"nothing", "", false, true},
		{"others make the routes", "", true, false},
		{"a route of somebody else", "192.0.2.0/24 proto static", false, true},
		{"a workload's", "10.65.0.7/32 proto 80", false, false},
		{"one learned by BGP", "fd65:0:0:2::/122 proto 81", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.route != "" {
				args := append(strings.Fields(c.route), "dev", "eth0")
				ip(append([]string{"route", "add"}, args...)...)
				defer ip(append([]string{"route", "del"}, args...)...)
			}
			s := a.cfg.Settings
			s.Overlay.NoRoutes = c.outside
			if got, err := forwardsNothing(t.Context(), a.kernel, s); err != nil || got != c.want {
				t.Errorf("%v, %v, want %v", got, err, c.want)
			}
		})
	}
}

// TestGivesUp is a start at which the host finds another address than its Node
// has: it looks twice before it goes by that. Who was told an address, or has
// none yet, gives up none.
func TestGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name           string
		said4, said6   string // by the settings
		have4, have6   string // by the Node
		found4, found6 string
		want           bool
	}{
		{name: "a first start", found4: "192.0.2.1/24"},
		{name: "the same", have4: "192.0.2.1/24", found4: "192.0.2.1/24"},
		{name: "the same in another subnet", have4: "192.0.2.1/24", found4: "192.0.2.1/25"},
		{name: "another", have4: "192.0.2.1/24", found4: "192.0.2.2/24", want: true},
		{name: "another, looked for", said4: "autodetect", have4: "192.0.2.1/24", found4: "192.0.2.2/24", want: true},
		{name: "another, given", said4: "192.0.2.2/24", have4: "192.0.2.1/24", found4: "192.0.2.2/24"},
		{name: "none any more", have4: "192.0.2.1/24", want: true},
		{name: "none, as was said", said4: "none", have4: "192.0.2.1/24"},
		{name: "another IPv6", said6: "autodetect", have6: "2001:db8::1/64", found6: "2001:db8::2/64", want: true},
		{name: "one IPv6 more", said6: "autodetect", have4: "192.0.2.1/24", found4: "192.0.2.1/24", found6: "2001:db8::2/64"},
		{name: "IPv4 the same and IPv6 another", said6: "autodetect", have4: "192.0.2.1/24", found4: "192.0.2.1/24", have6: "2001:db8::1/64", found6: "2001:db8::2/64", want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := hostOf(t, mem.New(), "h1", "")
			a.cfg.Settings.Startup.IP, a.cfg.Settings.Startup.IP6 = tt.said4, tt.said6
			node := &v3.Node{}
			node.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: tt.have4, IPv6Address: tt.have6}
			r := &registered{}
			if tt.found4 != "" {
				r.v4 = netip.MustParsePrefix(tt.found4)
			}
			if tt.found6 != "" {
				r.v6 = netip.MustParsePrefix(tt.found6)
			}
			if got := a.givesUp(node, r); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	if hostOf(t, mem.New(), "h1", "").givesUp(nil, &registered{}) {
		t.Error("a host without a Node gives something up")
	}
}

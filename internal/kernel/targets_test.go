package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// A story is what every table must go through: start, drift, restart, restart
// with nothing wanted, sweep, with others' objects beside ours untouched.
type story[K comparable, V any] struct {
	target  func(k *Kernel) reconcile.Target[K, V]
	compare func(a, b K) int
	equal   func(a, b V) bool
	mine    func(d Drift) bool

	setup   []string // commands that make others' objects
	want    map[K]V
	shows   []string // what a listing has then
	list    []string // the command that lists
	tamper  []string // commands, each of which is undone
	foreign []string // parts of a listing that stay to the end
	left    []string // parts of a listing that must be gone at the end
}

func (s story[K, V]) tell(t *testing.T) {
	k, ns := open(t)
	sh := func(cmd string) { t.Helper(); testenv.Run(t, ns, "sh", "-ec", cmd) }
	for _, cmd := range s.setup {
		sh(cmd)
	}
	l, stop := run(t, s.target(k), s.compare, s.equal)
	first := l
	watch(t, k, func(d Drift) {
		if s.mine(d) {
			first.Drift()
		}
		if d.Appeared {
			first.Retry()
		}
	})
	l.Want(desired.Patch[K, V]{Set: s.want})
	swept(t, l)
	shows(t, ns, append(s.shows, s.foreign...), nil, s.list...)
	for _, cmd := range s.tamper {
		sh(cmd)
		shows(t, ns, append(s.shows, s.foreign...), nil, s.list...)
		synced(t, l)
	}
	stop()

	l, stop = run(t, s.target(k), s.compare, s.equal)
	l.Want(desired.Patch[K, V]{Set: s.want})
	swept(t, l)
	shows(t, ns, append(s.shows, s.foreign...), nil, s.list...)
	stop()

	l, _ = run(t, s.target(k), s.compare, s.equal)
	synced(t, l)
	shows(t, ns, append(s.shows, s.foreign...), nil, s.list...) // nothing goes before in-sync
	swept(t, l)
	shows(t, ns, s.foreign, s.left, s.list...)
}

func TestRules(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		s := story[desired.RuleKey, desired.Rule]{
			target:  func(k *Kernel) reconcile.Target[desired.RuleKey, desired.Rule] { return k.Rules() },
			compare: CompareRules, equal: same[desired.Rule],
			mine: func(d Drift) bool { return d.Rules },
			want: map[desired.RuleKey]desired.Rule{},
			left: []string{"proto 80"},
		}
		for _, c := range []struct {
			on     bool
			family uint8
			flag   string
		}{{f.HasV4(), 4, "-4"}, {f.HasV6(), 6, "-6"}} {
			if !c.on {
				continue
			}
			s.want[desired.RuleKey{Family: c.family, Priority: 99}] = desired.Rule{Mark: 0x100000, Mask: 0x100000, Invert: true, Table: 70 + int(c.family)}
			s.want[desired.RuleKey{Family: c.family, Priority: 100}] = desired.Rule{Mark: 0x20, Mask: 0xf0, Table: 80 + int(c.family)}
			s.shows = append(s.shows, fmt.Sprintf("99: not from all fwmark 0x100000/0x100000 lookup %d proto 80", 70+c.family),
				fmt.Sprintf("100: from all fwmark 0x20/0xf0 lookup %d proto 80", 80+c.family))
			s.setup = append(s.setup, "ip "+c.flag+" rule add pref 99 fwmark 7 lookup 66 proto 4")
			s.list = []string{"ip", c.flag, "rule"}
			s.foreign = []string{"99: from all fwmark 0x7 lookup 66 proto static", "lookup main"}
			s.tamper = append(s.tamper,
				"ip "+c.flag+" rule del pref 100",
				"ip "+c.flag+" rule add pref 100 fwmark 9 lookup 5 proto 80 && ip "+c.flag+" rule del pref 100 fwmark 0x20/0xf0")
		}
		if f == testenv.Dual {
			s.list = []string{"sh", "-c", "ip -4 rule; ip -6 rule"}
		}
		s.tell(t)
	})
}

func TestRuleOutOfRange(t *testing.T) {
	k, _ := open(t)
	l, _ := run(t, k.Rules(), CompareRules, same[desired.Rule])
	bad := map[desired.RuleKey]desired.Rule{
		{Family: 4, Priority: 0}: {Table: 7}, {Family: 4, Priority: 32766}: {Table: 7}, {Family: 5, Priority: 9}: {Table: 7}, {Family: 6, Priority: 9}: {},
	}
	l.Want(desired.Patch[desired.RuleKey, desired.Rule]{Set: bad})
	testenv.Until(t, waitLimit, func() error {
		if n := len(l.Failed()); n != len(bad) {
			return fmt.Errorf("%d of %d refused", n, len(bad))
		}
		return nil
	})
}

func TestNeighbours(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		s := story[desired.NeighKey, desired.Neigh]{
			target:  func(k *Kernel) reconcile.Target[desired.NeighKey, desired.Neigh] { return k.Neighbours() },
			compare: CompareNeighs, equal: same[desired.Neigh],
			mine: func(d Drift) bool { return d.Neighbours },
			setup: []string{
				"ip link add cali1 type veth peer name p1; ip link set cali1 up alias brindle:workload; ip link set p1 up",
				"ip link add eth0 type veth peer name p2; ip link set eth0 up; ip link set p2 up",
			},
			want: map[desired.NeighKey]desired.Neigh{},
			list: []string{"ip", "neigh", "show", "nud", "permanent"},
			left: []string{"cali1"},
		}
		add := func(mine, theirs string) {
			s.want[desired.NeighKey{Interface: "cali1", Addr: netip.MustParseAddr(mine)}] = desired.Neigh{MAC: "02:00:00:00:00:01"}
			s.setup = append(s.setup, "ip neigh add "+theirs+" lladdr 02:00:00:00:00:02 dev eth0 nud permanent")
			s.shows = append(s.shows, mine+" dev cali1 lladdr 02:00:00:00:00:01 PERMANENT")
			s.foreign = append(s.foreign, theirs+" dev eth0 lladdr 02:00:00:00:00:02 PERMANENT")
			s.tamper = append(s.tamper, "ip neigh del "+mine+" dev cali1",
				"ip neigh replace "+mine+" dev cali1 lladdr 02:00:00:00:00:99 nud permanent")
		}
		if f.HasV4() {
			add("10.65.0.1", "10.66.0.1")
		}
		if f.HasV6() {
			add("fd65::1", "fd66::1")
		}
		s.tell(t)
	})
}

// Forwarding entries carry frames to tunnel ends; the inner family does not
// show in them, the outer one does.
func TestForwardingEntries(t *testing.T) {
	for _, c := range []struct{ name, local, one, two string }{
		{"v4", "192.0.2.1", "192.0.2.2", "192.0.2.3"},
		{"v6", "2001:db8::1", "2001:db8::2", "2001:db8::3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mac := func(n int) string { return fmt.Sprintf("66:00:00:00:00:%02x", n) }
			story[desired.NeighKey, desired.Neigh]{
				target:  func(k *Kernel) reconcile.Target[desired.NeighKey, desired.Neigh] { return k.Neighbours() },
				compare: CompareNeighs, equal: same[desired.Neigh],
				mine: func(d Drift) bool { return d.Neighbours },
				setup: []string{
					"ip link add vxlan.calico type vxlan id 4096 dstport 4789 nolearning local " + c.local,
					"ip link set vxlan.calico up alias brindle:vxlan",
					"ip link add other type vxlan id 5 dstport 9999 nolearning local " + c.local,
					"ip link set other up; bridge fdb add " + mac(7) + " dev other dst " + c.one + " self permanent",
				},
				want: map[desired.NeighKey]desired.Neigh{
					{Interface: "vxlan.calico", MAC: mac(1)}: {Dst: netip.MustParseAddr(c.one)},
					{Interface: "vxlan.calico", MAC: mac(2)}: {Dst: netip.MustParseAddr(c.two)},
				},
				shows: []string{
					mac(1) + " dev vxlan.calico dst " + c.one + " self permanent", mac(2) + " dev vxlan.calico dst " + c.two + " self permanent",
				},
				list:    []string{"bridge", "fdb"},
				tamper:  []string{"bridge fdb del " + mac(1) + " dev vxlan.calico", "bridge fdb replace " + mac(2) + " dev vxlan.calico dst " + c.one + " self permanent"},
				foreign: []string{mac(7) + " dev other dst " + c.one},
				left:    []string{"66:00:00:00:00:01", "66:00:00:00:00:02"},
			}.tell(t)
		})
	}
}

func TestAddresses(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		s := story[desired.AddrKey, struct{}]{
			target:  func(k *Kernel) reconcile.Target[desired.AddrKey, struct{}] { return k.Addresses() },
			compare: CompareAddrs, equal: same[struct{}],
			mine:  func(d Drift) bool { return d.Addresses },
			setup: []string{"ip link add tun0 type veth peer name p1; ip link set tun0 up alias brindle:tunnel; ip link set p1 up"},
			want:  map[desired.AddrKey]struct{}{},
			list:  []string{"ip", "addr", "show", "dev", "tun0"},
		}
		add := func(mine, adopted, theirs string) {
			for _, p := range []string{mine, adopted} {
				s.want[desired.AddrKey{Interface: "tun0", Prefix: netip.MustParsePrefix(p)}] = struct{}{}
				s.shows = append(s.shows, p+" scope global")
				s.left = append(s.left, p)
			}
			s.setup = append(s.setup, "ip addr add "+theirs+" dev tun0", "ip addr add "+adopted+" dev tun0")
			s.foreign = append(s.foreign, theirs)
			s.tamper = append(s.tamper, "ip addr del "+mine+" dev tun0")
		}
		if f.HasV4() {
			add("10.65.0.0/32", "10.65.0.7/32", "10.66.0.1/24")
		}
		if f.HasV6() {
			add("fd65::/128", "fd65::7/128", "fd66::1/64")
		}
		s.tell(t)
	})
}

func TestSysctls(t *testing.T) {
	k, ns := open(t)
	l, stop := run(t, k.Sysctls(), cmp.Compare[string], same[string])
	first := l
	watch(t, k, func(d Drift) {
		if d.Sysctls {
			first.Drift()
		}
	})
	want := map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
	l.Want(desired.Patch[string, string]{Set: want})
	swept(t, l)
	wantSysctls(t, ns, want)
	for name := range want {
		testenv.Do(t, ns, func() error { return assertSysctl(name, "0") })
		testenv.Until(t, waitLimit, func() (err error) {
			got := ""
			testenv.Do(t, ns, func() error { got, err = readSysctl(name); return err })
			if got != "1" {
				err = fmt.Errorf("%s is still %s", name, got)
			}
			return err
		})
	}
	// What is no longer wanted keeps its value.
	l.Want(desired.Patch[string, string]{Delete: []string{"net/ipv4/ip_forward"}})
	swept(t, l)
	wantSysctls(t, ns, want)
	stop()
	l, _ = run(t, k.Sysctls(), cmp.Compare[string], same[string])
	swept(t, l)
	wantSysctls(t, ns, want)
}

func TestSysctlNamesStayInTheNamespace(t *testing.T) {
	k, _ := open(t)
	for _, name := range []string{"kernel/hostname", "net/../kernel/hostname", "/etc/passwd", "", "net/ipv4/no_such_setting"} {
		p := reconcile.Plan[string, string]{Set: []reconcile.Entry[string, string]{{Key: name, Value: "x"}}}
		if failed := k.Sysctls().Apply(t.Context(), p); failed[name] == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if _, err := linkSysctls("a/b", "ipv4/conf/proxy_arp=1"); err == nil {
		t.Error("an interface name with a slash was accepted")
	}
	if _, err := linkSysctls("a", "proxy_arp=1"); err == nil {
		t.Error("a setting without family was accepted")
	}
}

func TestLinks(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, ns := open(t)
		s, _ := workloadSpec(t, 1, f)
		name := s.HostName
		l, stop := run(t, k.Links(), cmp.Compare[string], same[desired.Link])
		first := l
		watch(t, k, func(d Drift) {
			if d.Links {
				first.Drift()
			}
			if d.Appeared {
				first.Retry()
			}
		})
		want := desired.Link{
			Up: true, MTU: 1450, Alias: desired.AliasWorkload, Sysctls: desired.SysctlLines(desired.WorkloadSysctls()),
		}
		l.InSync()
		l.Want(set(name, want))
		testenv.Until(t, waitLimit, func() error {
			if err := l.Failed()[name]; !errors.Is(err, ErrNoLink) {
				return fmt.Errorf("got %w, want ErrNoLink", err)
			}
			return nil
		})
		// As Calico's plugin leaves it: down, without an alias, other settings.
		testenv.Run(t, ns, "ip", "link", "add", name, "address", HostMAC, "type", "veth", "peer", "name", "eth0")
		testenv.Run(t, ns, "ip", "link", "set", "eth0", "up")
		synced(t, l)
		good := func() {
			t.Helper()
			shows(t, ns, []string{"UP,LOWER_UP", "mtu 1450", "alias brindle:workload", "inet6 fe80::ecee:eeff:feee:eeee/64 scope link"}, nil,
				"sh", "-c", "ip link show "+name+"; ip addr show "+name)
			synced(t, l)
		}
		good()
		for _, tamper := range []string{
			"ip link set " + name + " down", "ip link set " + name + " mtu 1300", "ip link set " + name + " alias x",
			"ip addr flush dev " + name,
		} {
			testenv.Run(t, ns, "sh", "-ec", tamper)
			good()
		}
		file := "net/ipv4/conf/" + name + "/rp_filter"
		testenv.Do(t, ns, func() error { return assertSysctl(file, "0") })
		testenv.Until(t, waitLimit, func() (err error) {
			got := ""
			testenv.Do(t, ns, func() error { got, err = readSysctl(file); return err })
			if got != "1" {
				err = errors.New("rp_filter is still " + got)
			}
			return err
		})
		stop()
		// Links are never removed, nor taken down, by this table.
		l, _ = run(t, k.Links(), cmp.Compare[string], same[desired.Link])
		swept(t, l)
		l.Want(set(name, want))
		synced(t, l)
		l.Want(desired.Patch[string, desired.Link]{Delete: []string{name}})
		swept(t, l)
		if out := testenv.Run(t, ns, "ip", "link", "show", name); !strings.Contains(out, "UP") {
			t.Errorf("got %s", out)
		}
	})
}

// What a reading of a link says of its settings is what the files say, by our
// numbering of the kernel's arrays.
func TestLinkConfIsWhatTheFilesSay(t *testing.T) {
	k, ns := open(t)
	links(t, ns, "a0")
	told := 0
	for name := range desired.WorkloadSysctls() {
		parts := strings.Split(name, "/")
		if _, ok := confIndex(parts[0], parts[2]); !ok {
			continue
		}
		told++
		file := "net/" + parts[0] + "/" + parts[1] + "/a0/" + parts[2]
		for _, value := range []string{"0", "1", "0"} {
			testenv.Do(t, ns, func() error { return assertSysctl(file, value) })
			var l linkInfo
			err := k.with(func(c *rtnl.Conn) (err error) {
				l, err = readLink(c, "a0")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := l.Conf.setting(file); !ok || got != value {
				t.Errorf("%s: netlink says %q (%v), the file %s", file, got, ok, value)
			}
		}
	}
	if told != 12 {
		t.Errorf("%d settings are told by netlink, not 12", told)
	}
}

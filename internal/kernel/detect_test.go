package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

// someHost is a host with interfaces of many kinds.
func someHost() []Interface {
	iface := func(index int, name string, mtu int, addrs ...string) Interface {
		i := Interface{Index: index, Name: name, MTU: mtu, Up: true, Loopback: name == "lo"}
		for _, a := range addrs {
			i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
		}
		return i
	}
	down := iface(9, "eth9", 576, "203.0.113.9/24")
	down.Up = false
	wire, tunnel := iface(10, "work0", 1300), iface(11, "en-tunnel", 1280, "10.65.0.2/32")
	wire.Alias, tunnel.Alias = "brindle:workload", "brindle:tunnel"
	return []Interface{
		iface(1, "lo", 65536, "127.0.0.1/8", "::1/128"),
		iface(2, "eth0", 1500, "169.254.7.7/16", "192.0.2.10/24", "fe80::1/64", "2001:db8::10/64"),
		iface(3, "eth1", 9001, "198.51.100.10/25", "2001:db8:1::10/64"),
		iface(4, "docker0", 1500, "172.17.0.1/16"),
		iface(5, "cali0123", 1400, "10.65.0.9/32"),
		iface(6, "vxlan.calico", 1450, "10.65.0.1/32", "fd65::1/128"),
		iface(7, "ens5", 1400),
		wire, tunnel,
		down,
	}
}

func TestHostMTU(t *testing.T) {
	cases := []struct {
		name, pattern string
		want          int
	}{
		{"smallest of those that match", "^(en|eth)", 1400},
		{"one of them", "^eth", 1500},
		{"one alone", "^eth1$", 9001},
		{"all", "", 1400},
		{"one of a workload or a tunnel alone", "^(vxlan|work|en-)", FallbackMTU},
		{"none matches", "^wlan", FallbackMTU},
		{"only one that is down", "^eth9$", FallbackMTU},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := HostMTU(someHost(), regexp.MustCompile(c.pattern)); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	reach := func(_ context.Context, host string, family int) (netip.Addr, error) {
		switch {
		case host == "nowhere":
			return netip.Addr{}, errors.New("no route")
		case host == "tunnel":
			return netip.MustParseAddr("10.65.0.2"), nil
		case family == 6:
			return netip.MustParseAddr("2001:db8::10"), nil
		}
		return netip.MustParseAddr("192.0.2.10"), nil
	}
	internal := []netip.Addr{netip.MustParseAddr("fd65::1"), netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::77")}
	cases := []struct {
		method string
		family int
		want   string // "" means ErrNoAddress
	}{
		{"", 4, "198.51.100.10/25"}, // the newest interface first
		{"first-found", 6, "2001:db8:1::10/64"},
		{"interface=eth0", 4, "192.0.2.10/24"},
		{"interface=wlan.*,eth0", 4, "192.0.2.10/24"},
		{"interface=^eth.*", 6, "2001:db8:1::10/64"},
		{"interface=vxlan.*", 4, ""}, // none of the host's, though asked for by name
		{"interface=eth9", 4, ""},    // down
		{"interface=ens5", 4, ""},
		{"skip-interface=eth1", 4, "192.0.2.10/24"},
		{"skip-interface=eth.*", 4, ""},
		{"cidr=192.0.2.0/24", 4, "192.0.2.10/24"},
		{"cidr=10.0.0.0/8, 2001:db8::/64", 6, "2001:db8::10/64"},
		{"cidr=203.0.113.0/24", 4, ""},           // down
		{"cidr=10.65.0.0/24", 4, "10.65.0.9/32"}, // neither of the tunnels', which are newer
		{"can-reach=tunnel", 4, ""},
		{"can-reach=example.org", 4, "192.0.2.10/24"},
		{"can-reach=2001:db8::99", 6, "2001:db8::10/64"},
		{"kubernetes-internal-ip", 4, "192.0.2.10/24"},
		{"kubernetes-internal-ip", 6, "2001:db8::77/128"}, // of no interface; that of the tunnel does not count
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s v%d", c.method, c.family), func(t *testing.T) {
			m, err := ParseMethod(c.method)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Find(t.Context(), someHost(), Query{Family: c.family, Internal: internal, Reach: reach})
			switch {
			case c.want == "" && !errors.Is(err, ErrNoAddress):
				t.Errorf("got %v, %v, want ErrNoAddress", got, err)
			case c.want != "" && (err != nil || got[0].Address.String() != c.want):
				t.Errorf("got %v, %v, want %s", got, err, c.want)
			}
		})
	}
	m, err := ParseMethod("can-reach=nowhere")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Find(t.Context(), someHost(), Query{Family: 4, Reach: reach}); err == nil || !strings.Contains(err.Error(), "can-reach=nowhere") {
		t.Errorf("got %v, want the method in it", err)
	}
}

// TestAllThatFit: what fits beside the choice matters for whether to change an
// address that is in use. In the other family it is the same code.
func TestAllThatFit(t *testing.T) {
	for method, want := range map[string]string{
		"first-found":          "[198.51.100.10/25 on eth1 192.0.2.10/24 on eth0]",
		"interface=eth0,eth.*": "[192.0.2.10/24 on eth0 198.51.100.10/25 on eth1 192.0.2.10/24 on eth0]",
		"cidr=192.0.0.0/8":     "[192.0.2.10/24 on eth0]",
	} {
		m, err := ParseMethod(method)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Find(t.Context(), someHost(), Query{Family: 4}); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v, want %s", method, got, err, want)
		}
	}
}

func TestBadMethods(t *testing.T) {
	for _, text := range []string{"first", "first-found=1", "interface", "interface=", "interface=(", "cidr=10.0.0.0", "can-reach=", "kubernetes-internal-ip=x"} {
		if _, err := ParseMethod(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("ParseMethod(%q) = %v, want an error that names it", text, err)
		}
	}
}

func TestParseExplicit(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"prefix", "192.0.2.10/30", "192.0.2.10/30"},
		{"address of an interface", "192.0.2.10", "192.0.2.10/24"},
		{"IPv6 address of an interface", "2001:db8::10", "2001:db8::10/64"},
		{"address of none", "192.0.2.99", "192.0.2.99/32"},
		{"with a zone", "fe80::1%eth0", ""},
		{"a word", "autodetect", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseExplicit(someHost(), c.in)
			if (err != nil) != (c.want == "") || err == nil && got.String() != c.want {
				t.Errorf("got %v, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestHostIsRead(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, ns := open(t)
		links(t, ns, "eth0", "cali1")
		testenv.Run(t, ns, "ip", "link", "set", "eth0", "mtu", "1400")
		testenv.Run(t, ns, "ip", "link", "set", "cali1", "alias", "brindle:workload")
		want := []string{}
		if f.HasV4() {
			testenv.Run(t, ns, "ip", "addr", "add", "192.0.2.10/24", "dev", "eth0")
			testenv.Run(t, ns, "ip", "addr", "add", "10.65.0.1/32", "dev", "cali1")
			want = append(want, "192.0.2.0/24")
		}
		if f.HasV6() {
			testenv.Run(t, ns, "ip", "addr", "add", "2001:db8::10/64", "dev", "eth0", "nodad")
			want = append(want, "2001:db8::/64")
		}
		got, err := k.Networks()
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("Networks: %v, %v, want %v", got, err, want)
		}
		if mtu, err := k.HostMTU(regexp.MustCompile("^eth0$")); err != nil || mtu != 1400 {
			t.Errorf("HostMTU: %d, %v", mtu, err)
		}
		for family, w := range map[int]string{4: "192.0.2.10/24", 6: "2001:db8::10/64"} {
			has := family == 4 && f.HasV4() || family == 6 && f.HasV6()
			for _, method := range []string{"first-found", "can-reach=" + strings.Split(w, "/")[0]} {
				p, err := k.DetectAddress(t.Context(), method, Query{Family: family})
				if has && (err != nil || p[0] != Candidate{netip.MustParsePrefix(w), "eth0"}) || !has && err == nil {
					t.Errorf("%s, IPv%d: %v, %v", method, family, p, err)
				}
			}
			p, err := k.CompleteAddress(netip.MustParsePrefix(w).Addr())
			if err != nil || has && p.String() != w || !has && !p.IsSingleIP() {
				t.Errorf("CompleteAddress: %v, %v", p, err)
			}
		}
		addrs, err := k.LocalAddresses()
		if err != nil || !slices.Contains(addrs, netip.MustParseAddr("127.0.0.1")) {
			t.Errorf("LocalAddresses: %v, %v", addrs, err)
		}
		global := slices.DeleteFunc(slices.Clone(addrs), netip.Addr.IsLinkLocalUnicast)
		if own, err := k.OwnAddresses(addrs); err != nil || len(own) < len(addrs) {
			t.Errorf("of %v are our own: %v, %v", addrs, own, err)
		}
		asked := append(slices.Clone(global), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1"))
		for len(asked) < 2*fewAddresses { // one by one at first, then all at once
			own, err := k.OwnAddresses(asked)
			if err != nil || own[netip.MustParseAddr("198.51.100.1")] || own[netip.MustParseAddr("2001:db8::1")] {
				t.Errorf("of %d addresses are our own: %v, %v", len(asked), own, err)
			}
			for _, a := range global {
				if !own[a] {
					t.Errorf("of %d addresses %v is not our own", len(asked), a)
				}
			}
			for range fewAddresses {
				asked = append(asked, asked[len(asked)-1].Next())
			}
		}
		index, err := k.IndexOf("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if name, err := k.NameOf(index); err != nil || name != "eth0" {
			t.Errorf("NameOf(%d) = %s, %v", index, name, err)
		}
		if _, err := k.IndexOf("nope"); !errors.Is(err, ErrNoLink) {
			t.Errorf("IndexOf: %v", err)
		}
		if _, err := k.NameOf(99999); !errors.Is(err, ErrNoLink) {
			t.Errorf("NameOf: %v", err)
		}
		if _, err := k.DetectAddress(t.Context(), "nonsense", Query{Family: 4}); err == nil {
			t.Error("a nonsense method was accepted")
		}
	})
}

package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// A vxlanFamily is what the same test uses for the underlay of each family. A
// device is of one family, so there is no case of both.
type vxlanFamily struct {
	name, flag   string
	device       string
	local, other string // on eth0 and eth1
}

func vxlanFamilies() []vxlanFamily {
	return []vxlanFamily{
		{"v4", "-4", desired.DeviceVXLAN4, "192.0.2.1", "198.51.100.1"},
		{"v6", "-6", desired.DeviceVXLAN6, "2001:db8:1::1", "2001:db8:2::1"},
	}
}

// eachVXLAN runs a test for an IPv4 and an IPv6 underlay on two interfaces.
func eachVXLAN(t *testing.T, f func(t *testing.T, f vxlanFamily, k *Kernel, ns *netns.NS)) {
	for _, c := range vxlanFamilies() {
		t.Run(c.name, func(t *testing.T) {
			k, ns := open(t)
			links(t, ns, "eth0", "eth1")
			testenv.Run(t, ns, "ip", c.flag, "addr", "add", c.local, "dev", "eth0")
			testenv.Run(t, ns, "ip", c.flag, "addr", "add", c.other, "dev", "eth1")
			f(t, c, k, ns)
		})
	}
}

func (f vxlanFamily) want() desired.Device {
	return desired.Device{
		Form: desired.VXLAN, Local: netip.MustParseAddr(f.local), MAC: "66:00:00:00:00:01", VNI: 4096, Port: 4789,
	}
}

func (f vxlanFamily) show() []string { return []string{"ip", "-d", "link", "show", "dev", f.device} }

// shown is what the listing of the wanted device has.
func (f vxlanFamily) shown() []string {
	return []string{
		"link/ether 66:00:00:00:00:01", "vxlan id 4096 local " + f.local + " dev eth0", "dstport 4789", "nolearning", "alias brindle:tunnel",
	}
}

// isGood says why the device is not as wanted.
func (f vxlanFamily) isGood(t *testing.T, ns *netns.NS) error {
	out, err := testenv.TryRun(t, ns, f.show()...)
	for _, w := range f.shown() {
		if !strings.Contains(squeeze(out), w) {
			err = errors.Join(err, fmt.Errorf("no %q in %s", w, out))
		}
	}
	return err
}

// deviceLoop runs a loop on the table of devices that hears of drift.
func deviceLoop(t *testing.T, k *Kernel) (*reconcile.Loop[string, desired.Device], func()) {
	t.Helper()
	l, stop := run(t, k.Devices(), cmp.Compare[string], EqualDevices)
	watch(t, k, func(d Drift) {
		if d.Devices {
			l.Drift()
		}
		if d.Appeared {
			l.Retry()
		}
	})
	return l, stop
}

// number returns the kernel's number of a link.
func number(t *testing.T, k *Kernel, name string) int {
	t.Helper()
	n, err := k.IndexOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestVXLANDevice(t *testing.T) {
	eachVXLAN(t, func(t *testing.T, f vxlanFamily, k *Kernel, ns *netns.NS) {
		l, stop := deviceLoop(t, k)
		l.Want(set(f.device, f.want()))
		swept(t, l)
		good := func() { t.Helper(); shows(t, ns, f.shown(), nil, f.show()...) }
		good()
		was := number(t, k, f.device)
		// Each is mended while the device stays.
		for _, cmd := range []string{
			"ip link set %s address 66:00:00:00:00:99",
			"ip link set %s type vxlan id 4096 learning",
			"ip link set %s type vxlan id 4096 local " + f.other,
			"ip link set %s type vxlan id 4096 dev eth1",
		} {
			testenv.Run(t, ns, "sh", "-ec", fmt.Sprintf(cmd, f.device))
			good()
			synced(t, l)
			if now := number(t, k, f.device); now != was {
				t.Errorf("%s: number %d was %d: the device was made anew", cmd, now, was)
			}
		}
		// Each needs another device.
		for _, cmd := range []string{
			"ip link del %[1]s",
			"ip link set %[1]s down; ip link set %[1]s name stray",
		} {
			testenv.Run(t, ns, "sh", "-c", fmt.Sprintf(cmd, f.device))
			testenv.Until(t, waitLimit, func() error { return f.isGood(t, ns) })
		}
		shows(t, ns, nil, []string{"stray"}, "ip", "link")
		stop()

		was = number(t, k, f.device)
		l, stop = deviceLoop(t, k)
		l.Want(set(f.device, f.want()))
		swept(t, l)
		if s := l.Stats(); s.Sets+s.Deletes != 0 || number(t, k, f.device) != was {
			t.Errorf("a restart changed the device: %+v", s)
		}
		stop()

		l, _ = deviceLoop(t, k)
		synced(t, l)
		good() // nothing goes before in-sync
		swept(t, l)
		shows(t, ns, []string{"eth0", "eth1"}, []string{f.device}, "ip", "link")
	})
}

// TestVXLANSendsFromItsNewAddress: packets leave from the address that the
// device has got, also where no route has changed.
func TestVXLANSendsFromItsNewAddress(t *testing.T) {
	for _, f := range []vxlanFamily{
		{"v4", "-4", desired.DeviceVXLAN4, "192.0.2.1", "192.0.2.2"},
		{"v6", "-6", desired.DeviceVXLAN6, "2001:db8:1::1", "2001:db8:1::2"},
	} {
		t.Run(f.name, func(t *testing.T) {
			k, ns := open(t)
			peer := testenv.NetNS(t)
			remote, bits := netip.MustParseAddr(f.local), "/24"
			for range 8 {
				remote = remote.Next()
			}
			nodad := []string{}
			if remote.Is6() {
				bits, nodad = "/64", []string{"nodad"}
			}
			testenv.Run(t, ns, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far", "netns", peer.Path())
			testenv.Run(t, ns, "ip", "link", "set", "eth0", "up")
			testenv.Run(t, peer, "ip", "link", "set", "far", "up")
			for _, a := range []string{f.local, f.other} {
				testenv.Run(t, ns, append([]string{"ip", "addr", "add", a + bits, "dev", "eth0"}, nodad...)...)
			}
			testenv.Run(t, peer, append([]string{"ip", "addr", "add", remote.String() + bits, "dev", "far"}, nodad...)...)
			var arrived *net.UDPConn
			testenv.Do(t, peer, func() (err error) {
				arrived, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 4789)))
				return err
			})
			t.Cleanup(func() { arrived.Close() })
			sent := func() error {
				testenv.Do(t, ns, func() error {
					c, err := net.Dial("udp", "10.9.9.2:9")
					if err != nil {
						return err
					}
					defer c.Close()
					_, err = c.Write([]byte("x"))
					return err
				})
				return nil
			}
			read := func() (string, error) {
				if err := errors.Join(sent(), arrived.SetReadDeadline(time.Now().Add(100*time.Millisecond))); err != nil {
					return "", err
				}
				_, from, err := arrived.ReadFromUDPAddrPort(make([]byte, 2000))
				return from.Addr().Unmap().String(), err
			}
			leavesFrom := func(want string) {
				t.Helper()
				for range 50 { // the kernel keeps a way for each processor
					var from string
					testenv.Until(t, waitLimit, func() (err error) { from, err = read(); return err }) // neighbours below are found in their own time
					if from != want {
						t.Fatalf("a packet came from %v, want %s", from, want)
					}
				}
			}
			l, stop := deviceLoop(t, k)
			defer stop()
			want := f.want()
			l.Want(set(f.device, want))
			swept(t, l)
			testenv.Run(t, ns, "ip", "addr", "add", "10.9.9.1/24", "dev", f.device)
			testenv.Run(t, ns, "ip", "link", "set", f.device, "up")
			testenv.Run(t, ns, "ip", "neigh", "add", "10.9.9.2", "lladdr", "66:00:00:00:00:02", "dev", f.device)
			testenv.Run(t, ns, "bridge", "fdb", "add", "66:00:00:00:00:02", "dev", f.device, "dst", remote.String(), "self", "permanent")
			leavesFrom(f.local)
			want.Local = netip.MustParseAddr(f.other)
			l.Want(set(f.device, want))
			synced(t, l)
			leavesFrom(f.other)
		})
	}
}

// A device that is found and is nothing like what is wanted is made anew.
func TestVXLANDeviceFoundOtherwise(t *testing.T) {
	eachVXLAN(t, func(t *testing.T, f vxlanFamily, k *Kernel, ns *netns.NS) {
		group := "239.1.1.1"
		if f.name == "v6" {
			group = "ff05::1"
		}
		for _, how := range []string{
			"id 7 dstport 4789 local " + f.local,
			"id 4096 dstport 7 local " + f.local,
			"id 4096 dstport 4789",
			"id 4096 dstport 4789 dev eth0 group " + group,
			"id 4096 dstport 4789 local " + f.local + " gbp",
			"dstport 4789 external",
		} {
			testenv.Run(t, ns, "sh", "-ec", "ip link add "+f.device+" type vxlan "+how)
			was := number(t, k, f.device)
			l, stop := run(t, k.Devices(), cmp.Compare[string], EqualDevices)
			l.Want(set(f.device, f.want()))
			swept(t, l)
			if err := f.isGood(t, ns); err != nil {
				t.Errorf("%s: %v", how, err)
			}
			if number(t, k, f.device) == was {
				t.Errorf("%s: the device was not made anew", how)
			}
			stop()
			testenv.Run(t, ns, "ip", "link", "del", f.device)
		}
	})
}

// A change of what is wanted keeps the device where it can.
func TestVXLANDeviceChangesOnAnyKernel(t *testing.T) {
	for _, f := range vxlanFamilies() {
		t.Run(f.name, func(t *testing.T) {
			k, ns := open(t)
			bits := "/24"
			if f.name == "v6" {
				bits = "/64"
			}
			uplink(t, ns, "eth0", f.local+bits)
			uplink(t, ns, "eth1", f.other+bits)
			l, _ := deviceLoop(t, k)
			l.InSync()
			for _, c := range []struct {
				name   string
				change func(*desired.Device)
				stays  bool
			}{
				{"new", func(*desired.Device) {}, false},
				{"MAC", func(d *desired.Device) { d.MAC = "66:00:00:00:00:02" }, true},
				{"address", func(d *desired.Device) { d.Local = netip.MustParseAddr(f.other) }, true},
				{"VNI", func(d *desired.Device) { d.VNI = 5000 }, false},
				{"port", func(d *desired.Device) { d.Port = 8472 }, false},
			} {
				was, err := k.IndexOf(f.device)
				if err != nil && c.name != "new" {
					t.Fatal(err)
				}
				want := f.want()
				c.change(&want)
				l.Want(set(f.device, want))
				synced(t, l)
				// Over the wrong interface it would read as without an address.
				have, err := k.Devices().List(t.Context())
				if err != nil || have[f.device] != want {
					t.Errorf("%s: have %+v, %v, want %+v", c.name, have, err, want)
				}
				if now := number(t, k, f.device); (now == was) != c.stays {
					t.Errorf("%s: number %d was %d", c.name, now, was)
				}
				// Back, so that the next change is one alone.
				l.Want(set(f.device, f.want()))
				synced(t, l)
			}
		})
	}
}

// The address moves to another interface, and the device follows.
func TestVXLANDeviceFollowsItsAddress(t *testing.T) {
	eachVXLAN(t, func(t *testing.T, f vxlanFamily, k *Kernel, ns *netns.NS) {
		l, _ := deviceLoop(t, k)
		l.InSync()
		l.Want(set(f.device, f.want()))
		synced(t, l)
		testenv.Run(t, ns, "ip", f.flag, "addr", "del", f.local, "dev", "eth0")
		testenv.Run(t, ns, "ip", f.flag, "addr", "add", f.local, "dev", "eth1")
		shows(t, ns, []string{"local " + f.local + " dev eth1"}, nil, f.show()...)
		// It goes with its interface, and returns when the address does.
		testenv.Run(t, ns, "ip", "link", "del", "eth1")
		testenv.Until(t, waitLimit, func() error {
			if err := l.Failed()[f.device]; !errors.Is(err, ErrNoLink) {
				return fmt.Errorf("got %w, want ErrNoLink", err)
			}
			return nil
		})
		testenv.Run(t, ns, "ip", f.flag, "addr", "add", f.local, "dev", "eth0")
		synced(t, l)
		shows(t, ns, f.shown(), nil, f.show()...)
	})
}

// What Calico's agent made is taken over as it is, whatever is on it; what
// bears the name and is another kind of link stays.
func TestVXLANDeviceTakenOver(t *testing.T) {
	eachVXLAN(t, func(t *testing.T, f vxlanFamily, k *Kernel, ns *netns.NS) {
		testenv.Run(t, ns, "ip", "link", "add", f.device, "address", "66:00:00:00:00:01", "type", "vxlan",
			"id", "4096", "dstport", "4789", "local", f.local, "dev", "eth0", "nolearning")
		testenv.Run(t, ns, "ip", "link", "add", "vxlan0", "type", "vxlan", "id", "9", "dstport", "9999", "local", f.local)
		was := number(t, k, f.device)
		l, stop := deviceLoop(t, k)
		l.Want(set(f.device, f.want()))
		swept(t, l)
		if s := l.Stats(); s.Sets+s.Deletes != 0 || number(t, k, f.device) != was {
			t.Errorf("Calico's device was changed: %+v", s)
		}
		stop()
		l, stop = deviceLoop(t, k)
		swept(t, l)
		shows(t, ns, []string{"vxlan0"}, []string{f.device}, "ip", "link")
		stop()

		testenv.Run(t, ns, "ip", "link", "add", f.device, "type", "veth", "peer", "name", "p0")
		l, _ = deviceLoop(t, k)
		l.InSync()
		l.Want(set(f.device, f.want()))
		testenv.Until(t, waitLimit, func() error {
			if err := l.Failed()[f.device]; !errors.Is(err, ErrForeign) {
				return fmt.Errorf("got %w, want ErrForeign", err)
			}
			return nil
		})
		shows(t, ns, []string{f.device, "p0", "vxlan0"}, nil, "ip", "link")
		testenv.Run(t, ns, "ip", "link", "del", "p0")
		synced(t, l)
		shows(t, ns, f.shown(), nil, f.show()...)
	})
}

func TestImpossibleDevices(t *testing.T) {
	k, _ := open(t)
	good := vxlanFamilies()[0].want()
	for _, c := range []struct {
		name, device, says string
		change             func(*desired.Device)
	}{
		{"name", "vxlan0", "name", func(*desired.Device) {}},
		{"form", desired.DeviceIPIP, "form", func(*desired.Device) {}},
		{"family", desired.DeviceVXLAN6, "local address", func(*desired.Device) {}},
		{"no address", desired.DeviceVXLAN4, "local address", func(d *desired.Device) { d.Local = netip.Addr{} }},
		{"VNI 0", desired.DeviceVXLAN4, "VNI", func(d *desired.Device) { d.VNI = 0 }},
		{"VNI of 25 bits", desired.DeviceVXLAN4, "VNI", func(d *desired.Device) { d.VNI = 1 << 24 }},
		{"port", desired.DeviceVXLAN4, "port", func(d *desired.Device) { d.Port = 0 }},
		{"MAC", desired.DeviceVXLAN4, "hardware address", func(d *desired.Device) { d.MAC = "66-00" }},
		{"MAC in capitals", desired.DeviceVXLAN4, "hardware address", func(d *desired.Device) { d.MAC = "66:AA:00:00:00:01" }},
	} {
		want := good
		c.change(&want)
		p := reconcile.Plan[string, desired.Device]{Set: []reconcile.Entry[string, desired.Device]{{Key: c.device, Value: want}}}
		if err := k.Devices().Apply(t.Context(), p)[c.device]; err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error about the %s", c.name, err, c.says)
		}
	}
}

// On a tunnel's interface every address is ours, also what another agent put
// there, but for those that the kernel makes for the link.
func TestAddressesOfTunnels(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, family testenv.Family) {
		k, ns := open(t)
		links(t, ns, "eth0")
		testenv.Run(t, ns, "sh", "-ec", "ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad")
		device := desired.DeviceVXLAN4
		testenv.Run(t, ns, "sh", "-ec", "ip link add "+device+" type vxlan id 4096 dstport 4789 local 192.0.2.1 nolearning; ip link set "+device+" up")
		want := map[desired.AddrKey]struct{}{}
		var mine, old []string
		add := func(own, kept, others string) {
			testenv.Run(t, ns, "ip", "addr", "add", kept, "dev", device)
			testenv.Run(t, ns, "ip", "addr", "add", others, "dev", device)
			for _, p := range []string{own, kept} {
				want[desired.AddrKey{Interface: device, Prefix: netip.MustParsePrefix(p)}] = struct{}{}
				mine = append(mine, p)
			}
			old = append(old, others)
		}
		if family.HasV4() {
			add("10.65.0.1/32", "10.65.0.2/32", "10.65.0.3/32")
		}
		if family.HasV6() {
			add("fd65::1/128", "fd65::2/128", "fd65::3/128")
		}
		show := []string{"ip", "addr"}
		others := []string{"192.0.2.1/24", "2001:db8::1/64", "inet6 fe80::"}
		l, stop := run(t, k.Addresses(), CompareAddrs, same[struct{}])
		first := l
		watch(t, k, func(d Drift) {
			if d.Addresses {
				first.Drift()
			}
		})
		l.Want(desired.Patch[desired.AddrKey, struct{}]{Set: want})
		synced(t, l)
		shows(t, ns, append(append(mine, old...), others...), nil, show...) // nothing goes before in-sync
		swept(t, l)
		shows(t, ns, append(mine, others...), old, show...)
		testenv.Run(t, ns, "sh", "-ec", "ip addr add 10.65.0.9/32 dev "+device+"; ip addr add fd65::9/128 dev "+device)
		shows(t, ns, append(mine, others...), append(old, "10.65.0.9", "fd65::9"), show...)
		stop()
		l, _ = run(t, k.Addresses(), CompareAddrs, same[struct{}])
		swept(t, l)
		shows(t, ns, others, append(old, mine...), show...)
	})
}

// A forwarding entry that also goes elsewhere, or to another port, is not what
// was wanted.
func TestForwardingEntryGoesToOnePlace(t *testing.T) {
	eachVXLAN(t, func(t *testing.T, f vxlanFamily, k *Kernel, ns *netns.NS) {
		d, _ := deviceLoop(t, k)
		d.Want(set(f.device, f.want()))
		swept(t, d)
		mac, far, elsewhere := "66:00:00:00:00:02", "192.0.2.2", "192.0.2.66"
		if f.name == "v6" {
			far, elsewhere = "2001:db8:1::2", "2001:db8:1::66"
		}
		l, _ := run(t, k.Neighbours(), CompareNeighs, same[desired.Neigh])
		watch(t, k, func(d Drift) {
			if d.Neighbours {
				l.Drift()
			}
		})
		l.Want(set(desired.NeighKey{Interface: f.device, MAC: mac}, desired.Neigh{Dst: netip.MustParseAddr(far)}))
		swept(t, l)
		entry := mac + " dst " + far
		list := []string{"bridge", "fdb", "show", "dev", f.device}
		shows(t, ns, []string{entry + " self permanent"}, nil, list...)
		for _, cmd := range []string{
			"bridge fdb append " + mac + " dev " + f.device + " dst " + elsewhere + " self permanent",
			"bridge fdb replace " + mac + " dev " + f.device + " dst " + elsewhere + " self permanent",
			"bridge fdb replace " + mac + " dev " + f.device + " dst " + far + " port 99 self permanent",
			"bridge fdb append " + mac + " dev " + f.device + " dst " + far + " vni 99 self permanent",
		} {
			testenv.Run(t, ns, "sh", "-ec", cmd)
			shows(t, ns, []string{entry + " self permanent"}, []string{elsewhere, "port 99", "vni 99"}, list...)
		}
	})
}

// A link too small for IPv6 has no settings of it, and gets them when it grows.
func TestLinkTooSmallForIPv6(t *testing.T) {
	k, ns := open(t)
	links(t, ns, "eth0")
	testenv.Run(t, ns, "ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	testenv.Run(t, ns, "ip", "link", "add", desired.DeviceVXLAN4, "type", "vxlan", "id", "1", "dstport", "4789", "local", "192.0.2.1")
	l, _ := run(t, k.Links(), cmp.Compare[string], same[desired.Link])
	watch(t, k, func(d Drift) {
		if d.Links {
			l.Drift()
		}
	})
	l.InSync()
	want := desired.Link{Up: true, Alias: desired.AliasTunnel, Sysctls: desired.SysctlLines(desired.TunnelSysctls())}
	for _, mtu := range []int{1230, 1400, 1279, 1280} {
		want.MTU = mtu
		l.Want(set(desired.DeviceVXLAN4, want))
		synced(t, l)
		shows(t, ns, []string{fmt.Sprintf("mtu %d", mtu), "UP"}, nil, "ip", "link", "show", "dev", desired.DeviceVXLAN4)
		file := "net/ipv6/conf/" + desired.DeviceVXLAN4 + "/accept_ra"
		testenv.Until(t, waitLimit, func() (err error) {
			got := ""
			testenv.Do(t, ns, func() error { got, err = readSysctl(file); return nil })
			if mtu >= 1280 && got != "0" || mtu < 1280 && err == nil {
				return fmt.Errorf("MTU %d: %s is %q, %w", mtu, file, got, err)
			}
			return nil
		})
	}
}

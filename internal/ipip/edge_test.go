package ipip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// tooBig picks the message that a packet is too big, and returns the size
// that it asks for.
func tooBig(p packet) (mtu int, ok bool) {
	if p.proto != unix.IPPROTO_ICMP || len(p.data) < 8 || p.data[0] != 3 || p.data[1] != 4 {
		return 0, false
	}
	return int(binary.BigEndian.Uint16(p.data[6:])), true
}

func isTooBig(p packet) bool { _, ok := tooBig(p); return ok }

// TestTooBig sends packets that must not be fragmented and do not fit: the
// tunnel's interface, the first link below it, and a link further on.
func TestTooBig(t *testing.T) {
	for _, c := range []struct {
		name   string
		narrow func(*world)
		size   int
		want   int // MTU in the message to the sender
		learns bool
	}{
		{"the tunnel", func(w *world) {}, 1490, 1480, false},
		{"the first link", func(w *world) { setMTU(t, w.a.ns, "eth0", 1400) }, 1450, 1380, false},
		{"a link further on", func(w *world) { setMTU(t, w.router, "r2", 1300) }, 1450, 1280, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, carried, carried)
			setMTU(t, w.a.pod, "eth0", 1500)
			c.narrow(w)
			sender := listen(t, w.a.pod, "eth0")
			p := packet{ttl: 64, proto: unix.IPPROTO_UDP, flags: dontFragment, from: w.a.workload, to: w.b.workload, data: datagram(9, make([]byte, c.size-28))}
			sendRaw(t, w.a.pod, p.bytes())
			if c.learns { // the first packet told the host, the second one tells the sender
				testenv.Until(t, patience, func() error {
					if w.a.counters(t).PathLearned.Packets == 0 {
						return errors.New("the path was not learned")
					}
					return nil
				})
				sendRaw(t, w.a.pod, p.bytes())
			}
			got := sender.next("message that the packet is too big", isTooBig)
			if mtu, _ := tooBig(got); mtu != c.want {
				t.Errorf("the message asks for %d bytes, want %d", mtu, c.want)
			}
			if sum(got.data) != 0 {
				t.Error("the message's sum is wrong")
			}
			// The host's own has more of the packet, and a live one less to live.
			if want := p.bytes(); got.to != p.from || !slices.Equal(got.data[8+12:8+28], want[12:28]) {
				t.Errorf("the message to %v quotes %x, want of %x", got.to, got.data[8:], want[:28])
			}
			paths, err := w.a.carrier.Paths()
			if err != nil {
				t.Fatal(err)
			}
			learned := len(paths) == 1 && paths[0].Host == w.b.node && paths[0].MTU == c.want+20 && paths[0].Left > 9*time.Minute
			if c.learns && !learned || !c.learns && len(paths) > 0 {
				t.Errorf("paths: %+v", paths)
			}
		})
	}
}

// TestBulkOverNarrowPath shows that TCP finds its way, from a pod and from a
// host, when the path becomes narrow below an open tunnel.
func TestBulkOverNarrowPath(t *testing.T) {
	w := newWorld(t, carried, carried)
	setMTU(t, w.router, "r2", 1300)
	transfer(t, w.a.pod, w.b.pod, w.b.workload, amount(4<<20))
	transfer(t, w.a.ns, w.b.ns, w.b.tunnel, amount(4<<20))
	setMTU(t, w.b.ns, "eth0", 1200)
	transfer(t, w.b.pod, w.a.pod, w.a.workload, amount(4<<20))
}

// TestFragmentsOnTheWay sends datagrams that routers may fragment, over a path
// where they have to.
func TestFragmentsOnTheWay(t *testing.T) {
	w := newWorld(t, carried, carried)
	setMTU(t, w.router, "r2", 1300)
	end := listen(t, w.b.pod, "eth0")
	p := packet{ttl: 64, proto: unix.IPPROTO_UDP, id: 5, from: w.a.workload, to: w.b.workload, data: datagram(9, make([]byte, 1400))}
	sendRaw(t, w.a.pod, p.bytes())
	got := end.next("packet in one piece", toPort(9))
	p.ttl -= 2
	compare(t, "arrived", got, p)
}

// TestStrangers sends from an address that is none of the hosts'.
func TestStrangers(t *testing.T) {
	w := newWorld(t, carried, carried)
	dev := listen(t, w.b.ns, w.b.device)
	in := packet{ttl: 64, proto: unix.IPPROTO_UDP, from: w.a.workload, to: w.b.workload, data: datagram(9, []byte("forged"))}
	out := packet{ttl: 64, proto: unix.IPPROTO_IPIP, from: netip.MustParseAddr("172.16.1.99"), to: w.b.node, data: in.bytes()}
	for range 3 {
		sendRaw(t, w.router, out.bytes())
	}
	testenv.Until(t, patience, func() error {
		if w.b.counters(t).UnknownSender.Packets < 3 {
			return errors.New("not counted")
		}
		return nil
	})
	got, err := w.b.carrier.Strangers()
	if want := []Stranger{{out.from, 3}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("strangers: got %v, %v; want %v", got, err, want)
	}
	w.b.sync(t, w.a.node, out.from)
	sendRaw(t, w.router, out.bytes())
	dev.next("packet of a host that was let in", toPort(9))
	for i, networks := range [][]netip.Prefix{nil, {netip.MustParsePrefix("172.16.1.99/28")}, {netip.MustParsePrefix("172.16.2.0/24")}} {
		state := State{Local: w.b.node, Hosts: []netip.Addr{w.a.node}, Networks: networks, Underlay: []string{"eth0"}}
		if err := w.b.carrier.Sync(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		sendRaw(t, w.router, out.bytes())
		if i == 1 {
			dev.next("packet out of a network that was let in", toPort(9))
			w.b.reopen(t)
			continue
		}
		testenv.Until(t, patience, func() error {
			if w.b.counters(t).UnknownSender.Packets < uint64(4+i/2) {
				return errors.New("not shut out again")
			}
			return nil
		})
	}
}

// TestMount finds the usual place for BPF file systems empty, as it is on a
// host that nobody has mounted one on.
func TestMount(t *testing.T) {
	testenv.NeedRoot(t)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never again free: the thread ends with its mounts
		failed <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
				return err
			}
			if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
				return err
			}
			for range 2 {
				if err := mountBPF("/sys/fs/bpf/brindle-test"); err != nil {
					return err
				}
			}
			if on, err := onBPF("/sys/fs/bpf/brindle-test"); err != nil || !on {
				return fmt.Errorf("the folder is on a BPF file system: %v, %w", on, err)
			}
			return unmountBPF("/sys/fs/bpf/brindle-test")
		}()
	}()
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// TestRestart restarts both carriers under a stream of packets, none of which
// may be lost.
func TestRestart(t *testing.T) {
	w := newWorld(t, carried, carried)
	echo(t, w.b.pod, 7)
	if err := ask(t, w.a.pod, w.b.workload, 7, 100); err != nil {
		t.Fatal(err)
	}
	stop := stream(t, w.a.pod, w.b.workload)
	before := w.a.counters(t).Encapsulated.Packets
	for range amount(8) {
		for _, h := range []*host{w.a, w.b} {
			h.reopen(t)
		}
		w.a.sync(t, w.b.node)
		w.b.sync(t, w.a.node)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if after := w.a.counters(t).Encapsulated.Packets; after <= before {
		t.Errorf("the counters did not outlive the restarts: %d, then %d", before, after)
	}
}

// TestOtherVersion opens tables that an older version left behind.
func TestOtherVersion(t *testing.T) {
	w := newWorld(t, carried, carried)
	if err := ageTable(w.a.pins, "hosts"); err != nil {
		t.Fatal(err)
	}
	w.a.reopen(t)
	w.a.sync(t, w.b.node)
	echo(t, w.b.pod, 7)
	if err := ask(t, w.a.pod, w.b.workload, 7, 100); err != nil {
		t.Error(err)
	}
}

// TestRemove shows that nothing of a carrier stays, that nothing leaves bare
// then, and that a filter of somebody else is let alone.
func TestRemove(t *testing.T) {
	w := newWorld(t, carried, carried)
	wire := listen(t, w.router, "r1")
	if err := foreignFilter(t, w.a.ns, "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := w.a.carrier.Remove(); err != nil {
		t.Fatal(err)
	}
	if places, err := w.a.carrier.hooks().places(); err != nil || len(places) > 0 {
		t.Errorf("left behind: %v, %v", places, err)
	}
	others := 0
	eth0, err := readLink(w.a.carrier.conn, "eth0")
	if err == nil {
		err = eachFilter(w.a.carrier.conn, place{index: eth0.index}, func() { others = 0 }, func([]byte) { others++ })
	}
	if err != nil || others == 0 {
		t.Errorf("the filter of somebody else went: %v", err)
	}
	sendRaw(t, w.a.pod, packet{ttl: 64, proto: unix.IPPROTO_UDP, from: w.a.workload, to: w.b.workload, data: datagram(9, nil)}.bytes())
	sendRaw(t, w.a.ns, packet{ttl: 64, proto: unix.IPPROTO_UDP, from: w.a.node, to: w.b.node, data: datagram(10, nil)}.bytes())
	wire.next("packet on the wire, without anything else", func(p packet) bool {
		if toPort(9)(p) || p.proto == unix.IPPROTO_IPIP {
			t.Errorf("left without a tunnel: %x", p.bytes())
		}
		return toPort(10)(p)
	})
}

// TestRepair shows that what others undo is done again, and what moved is
// followed.
func TestRepair(t *testing.T) {
	w := newWorld(t, carried, carried)
	echo(t, w.b.pod, 7)
	for _, c := range []struct {
		name string
		harm func()
	}{
		{"a program was detached", func() {
			eth0, err := readLink(w.a.carrier.conn, "eth0")
			if err == nil {
				err = w.a.carrier.hooks().detach(place{index: eth0.index})
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"the interface was made anew", func() {
			removeLink(t, w.a.ns, w.a.device)
			standIn(t, w.a.ns, w.a.device)
			up(t, w.a.ns, w.a.device)
			route(t, w.a.ns, "10.65.2.0/24", w.b.node, w.a.device)
		}},
	} {
		c.harm()
		w.a.sync(t, w.b.node)
		if err := ask(t, w.a.pod, w.b.workload, 7, 100); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	removeLink(t, w.a.ns, w.a.device)
	err := w.a.carrier.Sync(t.Context(), State{Local: w.a.node, Underlay: []string{"eth0"}})
	if !errors.Is(err, ErrNoDevice) {
		t.Errorf("without the interface: got %v, want %v", err, ErrNoDevice)
	}
}

// TestManyHosts lets ten thousand hosts in, and shuts half of them out.
func TestManyHosts(t *testing.T) {
	w := newWorld(t, carried, carried)
	var all []netip.Addr
	for i := range 10000 {
		all = append(all, netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)}))
	}
	for _, hosts := range [][]netip.Addr{all, all[5000:], {w.b.node}} {
		w.a.sync(t, hosts...)
		got, err := readHosts(w.a.carrier.tables.Hosts)
		if err != nil || len(got) != len(hosts) || !got[hosts[0]] {
			t.Errorf("got %d hosts, %v; want %d", len(got), err, len(hosts))
		}
	}
}

// TestWhatNetfilterSees lets nftables look at packets on both sides, and
// rewrite a source on the way into the tunnel.
func TestWhatNetfilterSees(t *testing.T) {
	w := newWorld(t, carried, carried)
	rules := func(ns *netns.NS, text string) { testenv.Run(t, ns, "nft", text) }
	rules(w.a.ns, `table ip t {
		counter in {}
		counter out {}
		counter outer {}
		chain p { type filter hook prerouting priority 0; iifname "carrier0" udp sport 7 counter name "in"; ip protocol 4 counter name "outer"; }
		chain q { type filter hook postrouting priority 0; oifname "carrier0" udp dport 7 counter name "out"; ip protocol 4 counter name "outer"; }
		chain n { type nat hook postrouting priority 100; oifname "carrier0" ip saddr 10.65.1.2 masquerade; }
	}`)
	seen := listen(t, w.b.pod, "eth0")
	echo(t, w.b.pod, 7)
	for _, size := range []int{100, 5000} {
		if err := ask(t, w.a.pod, w.b.workload, 7, size); err != nil {
			t.Fatal(err)
		}
	}
	if p := seen.next("datagram", toPort(7)); p.from != w.a.tunnel {
		t.Errorf("masqueraded as %v, want %v", p.from, w.a.tunnel)
	}
	transfer(t, w.a.pod, w.b.pod, w.b.workload, amount(8<<20))
	for name, want := range map[string]bool{"in": true, "out": true, "outer": false} {
		out := testenv.Run(t, w.a.ns, "nft", "list", "counter", "ip", "t", name)
		if got := !strings.Contains(out, "packets 0 "); got != want {
			t.Errorf("counter %s: want packets %v:\n%s", name, want, out)
		}
	}
}

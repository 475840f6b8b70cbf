package threats

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/testenv"
)

// injection is a packet in a packet from somebody else than a workload.
type injection struct {
	name    string
	outer   packet
	mark    []byte
	counter string // that counts it; "" if it may pass
	kernel  bool   // the kernel itself drops it, before our rules
}

// injections are what an unknown sender may try, and what a known one does.
func (b *burrow) injections() []injection {
	var list []injection
	destinations := [2][]string{{"192.168.0.1", "192.168.0.255", "255.255.255.255", "224.0.0.1"}, {"2001:db8::1", "ff02::1"}}
	for i, family := range families {
		senders := [2]map[string]string{
			{"outside": "198.51.100.7", "the same link": "192.168.0.77", "a host without tunnels": "192.168.0.3", "a workload": "10.0.9.9",
				"the victim": "10.0.0.1", "the host itself": "192.168.0.1", "a tunnel": "10.0.5.1"},
			{"outside": "2001:db8:9::7", "the same link": "2001:db8::77", "a workload": "fd00::9:9", "the victim": "fd00::1",
				"the host itself": "2001:db8::1", "the link": "fe80::7"},
		}[i]
		for sender, from := range senders {
			for _, to := range destinations[i] {
				for _, in := range families {
					name := fmt.Sprintf("IPv%d in IPv%d from %s to %s", in, family, sender, to)
					outer := packet{src: addr(from), dst: addr(to)}
					martian := family == 4 && sender == "the host itself"
					mark := cookie()
					wrapped := outer
					wrapped.proto, wrapped.payload = protoUDP, udp(5000, ourPort, vxlan(ourVNI, b.forged(in, mark)))
					list = append(list, injection{"VXLAN, " + name, wrapped, mark, rules.CounterUnknownVXLAN, martian})
					if in == 4 {
						mark = cookie()
						wrapped = outer
						wrapped.proto, wrapped.payload = protoIPIP, b.forged(in, mark)
						list = append(list, injection{"IP in IP, " + name, wrapped, mark, rules.CounterUnknownIPIP, martian})
					}
				}
			}
		}
	}
	return list
}

// TestThreat03UnknownSenders injects packets with a workload's source from
// outside of the cluster: none comes out of its wrapping, each is counted, and
// the log tells of them. Without our rules they come out.
func TestThreat03UnknownSenders(t *testing.T) {
	b := newBurrow(t)
	b.settle()
	want := map[string]int{}
	before := map[string]int{}
	for _, c := range []string{rules.CounterUnknownIPIP, rules.CounterUnknownVXLAN} {
		before[c] = b.counted(c)
	}
	list := b.injections()
	for _, in := range list {
		b.deliver(in.outer)
		if !in.kernel {
			want[in.counter]++
		}
	}
	b.settle()
	for _, in := range list {
		if n := b.victim.count(in.mark) + b.raw4.count(in.mark) + b.raw6.count(in.mark); n > 0 {
			t.Errorf("%s: got through", in.name)
		}
	}
	for c, n := range want {
		if got := b.counted(c) - before[c]; got != n {
			t.Errorf("%s counted %d packets, want %d", c, got, n)
		}
	}
	testenv.Until(t, 5*time.Second, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, prefix := range []string{"brindle: VXLAN from an unknown host: ", "brindle: IP in IP from an unknown host: "} {
			if n := b.lines[prefix]; n == 0 || n > 50 {
				return fmt.Errorf("%d lines %q of %v", n, prefix, b.lines)
			}
		}
		return nil
	})

	if err := nft.Remove(b.host); err != nil {
		t.Fatal(err)
	}
	for _, in := range list {
		if !in.kernel {
			b.deliver(in.outer)
		}
	}
	b.settle()
	through := 0
	for _, in := range list {
		through += min(1, b.victim.count(in.mark)+b.raw4.count(in.mark)+b.raw6.count(in.mark))
	}
	if through < len(list)/2 {
		t.Errorf("only %d of %d got through without our rules: the test proves little", through, len(list))
	}
	t.Logf("%d of %d get through without our rules", through, len(list))
}

// TestThreat03Known: what is no attack works: known hosts and external ones,
// and tunnels that are somebody else's.
func TestThreat03Known(t *testing.T) {
	b := newBurrow(t)
	b.settle()
	unknown := addr("198.51.100.7")
	for _, tt := range []struct {
		name     string
		from, to netip.Addr
		vni      int
		port     int
	}{
		{"a known host", addr("192.168.0.2"), b.hosts[0], ourVNI, ourPort},
		{"a known host, IPv6", addr("2001:db8::2"), b.hosts[1], ourVNI, ourPort},
		{"an external host", addr("192.168.9.9"), b.hosts[0], ourVNI, ourPort},
		{"another's network on our port", unknown, b.hosts[0], 99, ourPort},
		{"another's port with our network", unknown, b.hosts[0], ourVNI, 8472},
	} {
		for _, family := range families {
			mark := cookie()
			b.deliver(packet{src: tt.from, dst: tt.to, proto: protoUDP, payload: udp(5000, tt.port, vxlan(tt.vni, b.forged(family, mark)))})
			testenv.Until(t, 5*time.Second, func() error {
				if b.victim.count(mark) == 0 {
					return fmt.Errorf("%s: IPv%d did not arrive", tt.name, family)
				}
				return nil
			})
		}
	}
	for _, from := range []string{"192.168.0.2", "192.168.9.9"} {
		mark := cookie()
		b.deliver(packet{src: addr(from), dst: b.hosts[0], proto: protoIPIP, payload: b.forged(4, mark)})
		testenv.Until(t, 5*time.Second, func() error {
			if b.raw4.count(mark) == 0 {
				return fmt.Errorf("IP in IP from %s did not arrive", from)
			}
			return nil
		})
	}
	// One way and the other, connection tracking has seen none of it.
	mark := cookie()
	b.attack(packet{src: addr("10.0.0.2"), dst: addr("10.0.9.9"), proto: protoUDP, payload: udp(1000, sentinel, mark)})
	testenv.Until(t, 5*time.Second, func() error {
		if b.wire.count(mark) == 0 {
			return fmt.Errorf("nothing leaves by the tunnel")
		}
		return nil
	})
	table, err := conntrack.Open(b.host)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	entries, err := table.List()
	if err != nil {
		t.Fatal(err)
	}
	inner := 0
	for _, e := range entries {
		if e.Orig.Protocol == protoUDP && e.Orig.DstPort == ourPort && e.Orig.Src != unknown {
			t.Errorf("connection tracking has %v", e.Orig)
		}
		if e.Orig.DstPort == sentinel {
			inner++
		}
	}
	if inner == 0 {
		t.Error("connection tracking has none of what was in the packets")
	}
}

// TestThreat02NothingComesOut has a workload send packets in packets to its own
// host, which has a device that would take them out: with all networks, to all
// ports, and in everything else that carries packets.
func TestThreat02NothingComesOut(t *testing.T) {
	b := newBurrow(t)
	for _, device := range []string{"other-network", "other-port"} { // they are somebody's who wants them
		testenv.Run(t, b.host, "ip", "link", "del", device)
	}
	b.settle()
	type attempt struct {
		name string
		p    packet
		mark []byte
		ours bool
	}
	var list []attempt
	for i, family := range families {
		src := []netip.Addr{addr("10.0.0.2"), addr("fd00::2")}[i]
		for _, dst := range [2][]string{{"192.168.0.1", "192.168.0.2"}, {"2001:db8::1", "2001:db8::2"}}[i] {
			add := func(name string, proto, port int, body func(in []byte) []byte, ours bool) {
				for _, in := range families {
					mark := cookie()
					p := packet{src: src, dst: addr(dst), proto: proto, payload: body(b.forged(in, mark))}
					if port != 0 {
						p.payload = udp(5000, port, p.payload)
					}
					list = append(list, attempt{fmt.Sprintf("%s, IPv%d in IPv%d to %s", name, in, family, dst), p, mark, ours})
				}
			}
			for _, port := range []int{ourPort, 8472, 4790, 6081, 51820} {
				for _, vni := range []int{0, 1, ourVNI - 1, ourVNI, ourVNI + 1, 0xffffff} {
					add(fmt.Sprintf("VXLAN %d to port %d", vni, port), protoUDP, port,
						func(in []byte) []byte { return vxlan(vni, in) }, port == ourPort && vni == ourVNI)
				}
			}
			bare := func(in []byte) []byte { return in }
			add("IP in IP", protoIPIP, 0, bare, true)
			add("IPv6 in IP", protoIPv6, 0, bare, false)
			add("GRE", protoGRE, 0, func(in []byte) []byte { return append([]byte{0, 0, 8, 0}, in...) }, false)
			add("Geneve", protoUDP, 6081, func(in []byte) []byte { return append([]byte{0, 0, 8, 0, 0, 16, 0, 0}, in...) }, false)
			add("WireGuard's port", protoUDP, 51820, bare, false)
		}
	}
	send := func() {
		for _, a := range list {
			b.attack(a.p)
		}
		b.settle()
	}
	before, ours := b.counted(rules.CounterEncapsulation), 0
	send()
	for _, a := range list {
		if n := b.victim.count(a.mark) + b.raw4.count(a.mark) + b.raw6.count(a.mark); n > 0 {
			t.Errorf("%s: came out", a.name)
		}
		toOther := a.p.dst == addr("192.168.0.2") || a.p.dst == addr("2001:db8::2")
		if a.ours {
			ours++
		}
		if got := b.wire.count(a.mark) > 0; got != (toOther && !a.ours) {
			t.Errorf("%s: reached the next host: %v", a.name, got)
		}
	}
	if got := b.counted(rules.CounterEncapsulation) - before; got != ours {
		t.Errorf("%s counted %d packets, want %d", rules.CounterEncapsulation, got, ours)
	}

	// Allowed to send them, a workload is still no host of the cluster.
	cfg := config()
	cfg.Encapsulations = nil
	b.sync(cfg)
	unknown := b.counted(rules.CounterUnknownVXLAN)
	send()
	for _, a := range list {
		if n := b.victim.count(a.mark) + b.raw4.count(a.mark) + b.raw6.count(a.mark); n > 0 {
			t.Errorf("%s: came out once workloads may send it", a.name)
		}
	}
	if b.counted(rules.CounterUnknownVXLAN) == unknown {
		t.Error("what a workload was allowed to send was not dropped as from an unknown host")
	}

	if err := nft.Remove(b.host); err != nil {
		t.Fatal(err)
	}
	send()
	out := 0
	for _, a := range list {
		out += min(1, b.victim.count(a.mark)+b.raw4.count(a.mark)+b.raw6.count(a.mark))
	}
	if out == 0 {
		t.Error("nothing comes out without our rules: the test proves nothing")
	}
}

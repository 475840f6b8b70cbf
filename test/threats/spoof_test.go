package threats

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// families are what every test of packets goes through.
var families = []int{4, 6}

// TestThreat30SpoofedSource sends from addresses that are not the workload's.
func TestThreat30SpoofedSource(t *testing.T) {
	r := newRig(t)
	other, _ := net.ParseMAC("02:00:00:00:00:99")
	var shots []shot
	n := 0
	for _, family := range families {
		own := r.ip("w1", family)
		sources := map[string]string{
			"another workload here": r.Addr("w2", family), "another workload there": r.Addr("w4", family),
			"outside": "198.51.100.7", "this host": "172.30.0.11", "another host": "172.30.0.12",
			"loopback": "127.0.0.1", "nobody": "0.0.0.0", "everybody": "255.255.255.255", "multicast": "224.0.0.5",
			"link-local": "169.254.1.1",
		}
		if family == 6 {
			sources = map[string]string{
				"another workload here": r.Addr("w2", family), "another workload there": r.Addr("w4", family),
				"outside": "2001:db8::7", "this host": "fd00:172:30::b", "another host": "fd00:172:30::c",
				"loopback": "::1", "nobody": "::", "multicast": "ff02::1", "link-local": "fe80::1",
				"mapped": "::ffff:10.0.0.1",
			}
		}
		for name, s := range sources {
			src := addr(s)
			if family == 6 {
				src = netip.AddrFrom16(src.As16())
			}
			for _, to := range []string{"w2", "w3"} {
				if to == "w2" && strings.HasSuffix(name, "here") {
					continue // from itself: dropped for more than one reason
				}
				for _, proto := range []int{protoUDP, protoTCP, 132, 254} {
					mark := cookie()
					body := udp(1000, sentinel, mark)
					if proto == protoTCP {
						body = tcp(1000, sentinel, flagSYN, 1, 0, mark)
					}
					p := packet{src: src, dst: r.ip(to, family), proto: proto, payload: body}
					shots = append(shots, shot{name: fmt.Sprintf("IPv%d %s to %s, protocol %d", family, name, to, proto), mark: mark, frames: [][]byte{r.out(p.bytes())}})
					n++
				}
			}
		}
		// The right address with a link-layer address that is not its own.
		mark := cookie()
		p := packet{src: own, dst: r.ip("w3", family), proto: protoUDP, payload: udp(1000, sentinel, mark)}
		kind := map[int]int{4: etherIPv4, 6: etherIPv6}[family]
		shots = append(shots, shot{name: fmt.Sprintf("IPv%d from another MAC", family), mark: mark, frames: [][]byte{frame(r.gateway, other, kind, p.bytes())}})
		n++
		// Behind a tag of VLAN 0, which the kernel takes off.
		mark = cookie()
		p = packet{src: r.ip("w4", family), dst: r.ip("w3", family), proto: protoUDP, payload: udp(1000, sentinel, mark)}
		tagged := slices.Concat(be16(0), be16(kind), p.bytes())
		shots = append(shots, shot{name: fmt.Sprintf("IPv%d with a priority tag", family), mark: mark, frames: [][]byte{frame(r.gateway, r.mac, 0x8100, tagged)}})
		// The right ones.
		mark = cookie()
		p = packet{src: own, dst: r.ip("w3", family), proto: protoUDP, payload: udp(1000, sentinel, mark)}
		shots = append(shots, shot{name: fmt.Sprintf("IPv%d as it should be", family), mark: mark, frames: [][]byte{r.out(p.bytes())}, want: []string{"w3", "h2"}})
	}
	r.dropped("d-spoof", n-16, func() { r.shoot(shots...) }) // the kernel drops some before us
}

// TestThreat30ForeignFragments has w1 put the end of a datagram of its own to
// the beginning of one of w2's, with w2's address: the host puts together what
// has the same addresses and number, by whatever link it came.
func TestThreat30ForeignFragments(t *testing.T) {
	r := newRig(t)
	w2, mac := r.socket("w2"), r.macOf("w2")
	type attempt struct {
		name   string
		mark   []byte
		honest bool
	}
	var all []attempt
	n := 0
	for _, family := range families {
		kind := map[int]int{4: etherIPv4, 6: etherIPv6}[family]
		for _, honest := range []bool{true, false} {
			for _, endFirst := range []bool{true, false} {
				n++
				mark := cookie()
				p := packet{src: r.ip("w2", family), dst: r.ip("w3", family), proto: protoUDP, id: 4100 + n,
					payload: udp(1000, sentinel, slices.Concat(make([]byte, 40), mark))}
				parts := p.fragments(40)
				begin := func() {
					if err := write(w2, frame(r.gateway, mac, kind, parts[0])); err != nil {
						t.Fatal(err)
					}
				}
				end := func() {
					if !honest {
						r.throw(r.out(parts[1]))
					} else if err := write(w2, frame(r.gateway, mac, kind, parts[1])); err != nil {
						t.Fatal(err)
					}
				}
				steps := []func(){begin, end}
				if endFirst {
					steps = []func(){end, begin}
				}
				for _, do := range steps {
					do()
					r.flush() // one after the other, whichever link they take
				}
				all = append(all, attempt{fmt.Sprintf("IPv%d, the end first: %v", family, endFirst), mark, honest})
			}
		}
	}
	for _, a := range all {
		switch n := r.ears["w3"].count(a.mark); {
		case a.honest && n == 0:
			t.Errorf("%s: fragments of one workload did not arrive", a.name)
		case !a.honest && n > 0:
			t.Errorf("%s: another workload's fragment became part of the datagram", a.name)
		}
	}
}

// TestThreat30NeighbourSpoofing claims others' addresses by ARP and by
// neighbour discovery, and sees that nobody believes it. ARP is of IPv4 only,
// neighbour discovery of IPv6.
func TestThreat30NeighbourSpoofing(t *testing.T) {
	r := newRig(t)
	broadcast, _ := net.ParseMAC("ff:ff:ff:ff:ff:ff")
	other, _ := net.ParseMAC("02:00:00:00:00:99")
	link := r.Work["w1"].HostInterface
	host4, host6 := addr("172.30.0.11"), addr("fd00:172:30::b")
	r.flush() // the host knows its neighbours
	before := r.state("h1")

	var frames [][]byte
	for _, claimed := range []netip.Addr{r.ip("w2", 4), r.ip("w3", 4), host4, addr("172.30.0.12"), addr("169.254.1.1")} {
		for _, op := range []int{1, 2} {
			frames = append(frames,
				frame(broadcast, r.mac, etherARP, arp(op, r.mac, claimed, broadcast, claimed)), // gratuitous
				frame(r.gateway, r.mac, etherARP, arp(op, r.mac, claimed, r.gateway, host4)))
		}
	}
	frames = append(frames, frame(r.gateway, other, etherARP, arp(2, other, r.ip("w1", 4), r.gateway, host4)))
	r.dropped("d-arp", len(frames), func() {
		r.throw(frames...)
		r.flush()
	})

	allNodes := addr("ff02::1")
	groupMAC, _ := net.ParseMAC("33:33:00:00:00:01")
	var nd [][]byte
	for _, claimed := range []netip.Addr{r.ip("w2", 6), r.ip("w3", 6), host6, addr("fd00:172:30::c")} {
		advert := slices.Concat(icmp(136, 0, nil)[:4], be32(0xe0000000&^0x80000000), claimed.AsSlice(), []byte{2, 1}, r.mac)
		for _, src := range []netip.Addr{r.ip("w1", 6), linkLocal(r.mac), claimed} {
			for dst, mac := range map[netip.Addr]net.HardwareAddr{allNodes: groupMAC, host6: r.gateway} {
				p := packet{src: src, dst: dst, proto: protoICMPv6, ttl: 255, payload: advert}
				nd = append(nd, frame(mac, r.mac, etherIPv6, p.bytes()))
			}
		}
		// A question from the claimed address teaches its asker's, too.
		solicit := slices.Concat(icmp(135, 0, nil), host6.AsSlice(), []byte{1, 1}, r.mac)
		p := packet{src: claimed, dst: host6, proto: protoICMPv6, ttl: 255, payload: solicit}
		nd = append(nd, r.out(p.bytes()))
	}
	r.dropped("d-spoof", len(nd), func() {
		r.throw(nd...)
		r.flush()
	})

	for _, ip := range []string{r.Addr("w2", 4), r.Addr("w3", 4), "172.30.0.12", "169.254.1.1", r.Addr("w2", 6), r.Addr("w3", 6), "fd00:172:30::c"} {
		if mac := r.neighbour("h1", ip, link); mac != "" {
			t.Errorf("the host believes that %s is at %s on the workload's link", ip, mac)
		}
	}
	if mac := r.neighbour("h1", r.Addr("w1", 4), link); mac != r.mac.String() {
		t.Errorf("the host has %q for the workload, whose link-layer address is %s", mac, r.mac)
	}
	if after := r.state("h1"); after != before {
		t.Errorf("the host has changed:\n%s\nbefore:\n%s", after, before)
	}
}

// linkLocal is the address that an Ethernet address makes (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80}
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}

// TestThreat01RouterAdvertisement plays the router and the DHCP server towards
// the host and the other workloads. What networks without IPv6 do with it is
// in the story rogue.
func TestThreat01RouterAdvertisement(t *testing.T) {
	r := newRig(t)
	groupMAC, _ := net.ParseMAC("33:33:00:00:00:01")
	prefix := addr("2001:db8:bad::").AsSlice()
	advert := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	advert = slices.Concat(advert, []byte{3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, prefix,
		[]byte{24, 3, 48, 0, 0, 0, 0x07, 0x08}, prefix)
	before := map[string]string{}
	for _, m := range []string{"h1", "h2", "w2", "w3"} {
		before[m] = r.state(m)
	}
	var shots []shot
	add := func(name string, mark []byte, mac net.HardwareAddr, p packet) {
		shots = append(shots, shot{name: name, mark: mark, frames: [][]byte{frame(mac, r.mac, etherIPv6, p.bytes())}})
	}
	routers := 0
	for _, src := range []netip.Addr{linkLocal(r.mac), r.ip("w1", 6), addr("fe80::ecee:eeff:feee:eeee"), addr("::")} {
		for dst, mac := range map[netip.Addr]net.HardwareAddr{
			addr("ff02::1"): groupMAC, addr("ff05::1"): groupMAC, addr("fd00:172:30::b"): r.gateway, r.ip("w2", 6): r.gateway, r.ip("w3", 6): r.gateway,
		} {
			mark := cookie()
			name := fmt.Sprintf("from %s to %s", src, dst)
			add("router advertisement "+name, mark, mac, packet{src: src, dst: dst, proto: protoICMPv6, ttl: 255, payload: append(slices.Clone(advert), option(mark)...)})
			mark = cookie()
			redirect := slices.Concat([]byte{137, 0, 0, 0, 0, 0, 0, 0}, src.AsSlice(), r.ip("w3", 6).AsSlice(), option(mark))
			add("redirect "+name, mark, mac, packet{src: src, dst: dst, proto: protoICMPv6, ttl: 255, payload: redirect})
			// Behind extension headers, and as a fragment that is whole.
			for kind, head := range map[int][]byte{
				protoHopByHop:    {protoICMPv6, 0, 1, 4, 0, 0, 0, 0},
				protoDestination: {protoICMPv6, 0, 1, 4, 0, 0, 0, 0},
				protoFragment:    {protoICMPv6, 0, 0, 0, 0, 0, 0, 9},
			} {
				mark = cookie()
				body := append(slices.Clone(advert), option(mark)...)
				fill(src, dst, protoICMPv6, body)
				add(fmt.Sprintf("router advertisement behind header %d %s", kind, name), mark, mac,
					packet{src: src, dst: dst, proto: kind, ttl: 255, keepHeader: true, payload: append(slices.Clone(head), body...)})
			}
			if src == linkLocal(r.mac) || src == r.ip("w1", 6) {
				routers++
			}
		}
	}
	r.dropped("d-router", routers, func() { r.shoot(shots...) })

	// An answer of a DHCP server, to others on the same host and elsewhere.
	shots = nil
	for dst, mac := range map[netip.Addr]net.HardwareAddr{addr("ff02::1:2"): groupMAC, addr("ff02::1"): groupMAC} {
		mark := cookie()
		add("DHCPv6 to "+dst.String(), mark, mac, packet{src: linkLocal(r.mac), dst: dst, proto: protoUDP, payload: udp(547, 546, append([]byte{7, 1, 2, 3}, mark...))})
	}
	mark := cookie()
	broadcast, _ := net.ParseMAC("ff:ff:ff:ff:ff:ff")
	p := packet{src: r.ip("w1", 4), dst: addr("255.255.255.255"), proto: protoUDP, payload: udp(67, 68, mark)}
	shots = append(shots, shot{name: "DHCP", mark: mark, frames: [][]byte{frame(broadcast, r.mac, etherIPv4, p.bytes())}})
	r.shoot(shots...)

	for m, was := range before {
		if now := r.state(m); now != was {
			t.Errorf("%s has changed:\n%s\nbefore:\n%s", m, now, was)
		}
	}
	for _, h := range []string{"h1", "h2"} {
		for _, w := range r.Work {
			if w.Host != h {
				continue
			}
			if v := strings.TrimSpace(r.On(h, "cat", "/proc/sys/net/ipv6/conf/"+w.HostInterface+"/accept_ra")); v != "0" {
				t.Errorf("accept_ra of the link of %s is %s", w.Name, v)
			}
		}
	}
}

// option wraps a mark of 16 bytes in an option of neighbour discovery that
// nobody knows (RFC 4861, section 4.6: silently ignored).
func option(mark []byte) []byte {
	return slices.Concat([]byte{253, 3}, mark, make([]byte, 6))
}

// inner is a packet that must never come out of another.
func (r *rig) inner(family int, to string, mark []byte) []byte {
	p := packet{src: r.ip("w4", family), dst: r.ip(to, family), proto: protoUDP, payload: udp(1000, sentinel, mark)}
	return p.bytes()
}

// TestThreat02Encapsulation sends packets in packets to each host.
func TestThreat02Encapsulation(t *testing.T) {
	r := newRig(t)
	var shots []shot
	dropped := 0
	for _, family := range families {
		for host, to := range map[string]string{"h1": map[int]string{4: "172.30.0.11", 6: "fd00:172:30::b"}[family], "h2": map[int]string{4: "172.30.0.12", 6: "fd00:172:30::c"}[family]} {
			outer := packet{src: r.ip("w1", family), dst: addr(to)}
			for _, in := range families {
				kind := map[int]int{4: etherIPv4, 6: etherIPv6}[in]
				next := map[int]int{4: protoIPIP, 6: protoIPv6}[in]
				add := func(name string, proto int, port int, head []byte) {
					mark := cookie()
					body := append(slices.Clone(head), r.inner(in, "w3", mark)...)
					if port != 0 {
						body = udp(40000, port, body)
					}
					p := outer
					p.proto, p.payload = proto, body
					s := shot{name: fmt.Sprintf("IPv%d in IPv%d to %s, %s", in, family, host, name), mark: mark, frames: [][]byte{r.out(p.bytes())}}
					ours := proto == protoIPIP || port == ourPort && string(head[4:7]) == "\x00\x10\x00" // network 4096
					if ours {
						dropped++
					} else if host == "h2" {
						s.want = []string{"h2"} // as policy says; nothing there takes it out
					}
					shots = append(shots, s)
				}
				inside := slices.Concat(r.gateway, r.mac, be16(kind))
				for _, vni := range []int{0, 1, 4096, 0xffffff} {
					vxlan := slices.Concat([]byte{8, 0, 0, 0}, be32(uint32(vni)<<8), inside)
					add(fmt.Sprint("VXLAN ", vni), protoUDP, 4789, vxlan)
					add(fmt.Sprint("somebody's VXLAN ", vni), protoUDP, 8472, vxlan)
				}
				add("Geneve", protoUDP, 6081, slices.Concat([]byte{0, 0, 0x65, 0x58, 0, 0, 1, 0}, inside))
				add("GRE", protoGRE, 0, slices.Concat([]byte{0, 0}, be16(kind)))
				add("IP in IP", next, 0, nil)
				add("what calls itself IPv4 in IP", protoIPIP, 0, nil)
				add("WireGuard's port", protoUDP, 51820, nil)
			}
			// VXLAN in fragments, and behind extension headers.
			mark := cookie()
			vxlan := slices.Concat([]byte{8, 0, 0, 0, 0, 0x10, 0, 0}, r.gateway, r.mac, be16(etherIPv4), r.inner(4, "w3", mark), make([]byte, 64))
			p := outer
			p.proto, p.payload = protoUDP, udp(40000, 4789, vxlan)
			s := shot{name: fmt.Sprintf("VXLAN in fragments of IPv%d to %s", family, host), mark: mark}
			for _, f := range p.fragments(64) {
				s.frames = append(s.frames, r.out(f))
			}
			shots = append(shots, s)
			dropped++
			if family == 6 {
				mark = cookie()
				vxlan = slices.Concat([]byte{8, 0, 0, 0, 0, 0x10, 0, 0}, r.gateway, r.mac, be16(etherIPv4), r.inner(4, "w3", mark))
				body := udp(40000, 4789, vxlan)
				fill(p.src, p.dst, protoUDP, body)
				p.proto, p.keepHeader, p.payload = protoDestination, true, append([]byte{protoUDP, 0, 1, 4, 0, 0, 0, 0}, body...)
				shots = append(shots, shot{name: "VXLAN behind an extension header to " + host, mark: mark, frames: [][]byte{r.out(p.bytes())}})
				dropped++
			}
		}
		// Towards workloads, and with others' addresses outside.
		mark := cookie()
		p := packet{src: r.ip("w1", family), dst: r.ip("w3", family), proto: protoIPIP, payload: r.inner(4, "w4", mark)}
		shots = append(shots, shot{name: fmt.Sprintf("IPv4 in IPv%d to a workload", family), mark: mark, frames: [][]byte{r.out(p.bytes())}})
		dropped++
		mark = cookie()
		p = packet{src: addr(map[int]string{4: "172.30.0.11", 6: "fd00:172:30::b"}[family]), dst: addr(map[int]string{4: "172.30.0.12", 6: "fd00:172:30::c"}[family]), proto: protoIPIP, payload: r.inner(4, "w4", mark)}
		shots = append(shots, shot{name: fmt.Sprintf("IPv4 in IPv%d from the host's own address", family), mark: mark, frames: [][]byte{r.out(p.bytes())}})
	}
	r.dropped("d-encapsulation", dropped, func() { r.shoot(shots...) })
}

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// wires is a host with workload interfaces whose far ends are silent: what is
// on the wires is only what the test sends as whole frames.
type wires struct {
	t    testing.TB
	host *netns.NS
	far  *netns.NS
	ends map[int]int // sockets at the far ends, by the number of the interface
	sent uint32
}

const wireCount = 4

// hostMAC is that of all interfaces at the host's end.
const hostMAC = "\xee\xee\xee\xee\xee\xee"

func newWires(t testing.TB) *wires { return wiresOf(t, testenv.NetNS(t)) }

// wiresOf has the wires end in the namespace host.
func wiresOf(t testing.TB, host *netns.NS) *wires {
	far, farName := testenv.NamedNS(t, "brindle-nft-far")
	w := &wires{t: t, host: host, far: far, ends: map[int]int{}}
	setting := func(ns *netns.NS, key, value string) {
		testenv.Do(t, ns, func() error { return writeFile("/proc/sys/net/"+key, value) })
	}
	for _, key := range []string{"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"} {
		setting(w.far, key, "1")
	}
	for _, kv := range [][2]string{
		{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}, {"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"}, {"ipv6/conf/default/accept_dad", "0"}, {"ipv4/icmp_ratelimit", "0"},
	} {
		setting(w.host, kv[0], kv[1])
	}
	testenv.Run(t, w.host, "ip", "route", "add", "blackhole", "default")
	for i := 1; i <= wireCount; i++ {
		name, far := cali(i), fmt.Sprintf("far%d", i)
		testenv.Run(t, w.host, "ip", "link", "add", name, "type", "veth", "peer", "name", far, "netns", farName)
		testenv.Run(t, w.host, "ip", "link", "set", name, "address", "ee:ee:ee:ee:ee:ee", "addrgenmode", "none", "up")
		testenv.Run(t, w.far, "ip", "link", "set", far, "address", fmt.Sprintf("02:00:00:00:00:%02x", i), "up")
		for _, a := range []netip.Addr{at4(i), at6(i)} {
			testenv.Run(t, w.host, "ip", "route", "add", a.String(), "dev", name)
			testenv.Run(t, w.host, "ip", "neigh", "add", a.String(), "lladdr", fmt.Sprintf("02:00:00:00:00:%02x", i), "dev", name, "nud", "permanent")
		}
		w.listen(i, far)
	}
	return w
}

func at4(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
func at6(i int) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)}) }

func (w *wires) listen(i int, name string) {
	fd := -1
	testenv.Do(w.t, w.far, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		index, err := interfaceIndex(fd, name)
		if err != nil {
			return err
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	})
	w.ends[i] = fd
	w.t.Cleanup(func() { _ = unix.Close(fd) })
}

func interfaceIndex(fd int, name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

func writeFile(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// send puts a packet of the program's on the wire of workload i and returns
// the number that it carries.
func (w *wires) send(i int, p rules.Packet) uint32 {
	w.t.Helper()
	w.sent++
	made := frame(p)
	copy(made.link, hostMAC)
	if strings.HasPrefix(p.EthSource, "\x00") {
		w.t.Fatal("a packet without a sender's address")
	}
	if p.Protocol == unix.IPPROTO_TCP {
		made.transport[12], made.transport[13] = 5<<4, 2 // SYN
		made.transport[14] = 0xff
	}
	made.transport = binary.BigEndian.AppendUint32(made.transport, w.sent)
	if p.Protocol == unix.IPPROTO_ICMP || p.Protocol == unix.IPPROTO_ICMPV6 {
		binary.BigEndian.PutUint16(made.transport[4:], uint16(w.sent)) // each a connection of its own
	}
	if p.Protocol == unix.IPPROTO_UDP {
		binary.BigEndian.PutUint16(made.transport[4:], uint16(len(made.transport)))
	}
	checksums(&made, p.Protocol)
	buf := slices.Concat(made.link, made.network, made.transport)
	if _, err := unix.Write(w.ends[i], buf); err != nil {
		w.t.Fatalf("send: %v", err)
	}
	return w.sent
}

// checksums fills in lengths and checksums (RFC 1071).
func checksums(p *packet, protocol uint8) {
	at := map[uint8]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6, unix.IPPROTO_ICMP: 2, unix.IPPROTO_ICMPV6: 2}
	pseudo := []byte{}
	if p.family == unix.NFPROTO_IPV4 {
		binary.BigEndian.PutUint16(p.network[2:], uint16(ip4Len+len(p.transport)))
		p.network[8] = 64
		binary.BigEndian.PutUint16(p.network[10:], sum(p.network))
		pseudo = append(pseudo, p.network[12:20]...)
	} else {
		binary.BigEndian.PutUint16(p.network[4:], uint16(len(p.transport)))
		p.network[7] = 64
		pseudo = append(pseudo, p.network[8:40]...)
	}
	n, ok := at[protocol]
	if !ok {
		return
	}
	pseudo = append(pseudo, 0, 0, 0, protocol, byte(len(p.transport)>>8), byte(len(p.transport)))
	if protocol == unix.IPPROTO_ICMP {
		pseudo = nil
	}
	binary.BigEndian.PutUint16(p.transport[n:], sum(append(pseudo, p.transport...)))
}

func sum(b []byte) uint16 {
	total := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		total += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}

// arrived adds the numbers of the packets that came out at each wire.
func (w *wires) arrived(to map[uint32]int) {
	buf := make([]byte, 2048)
	for i, fd := range w.ends {
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				w.t.Fatalf("receive: %v", err)
			}
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING || n < 40 {
				continue
			}
			if string(buf[6:12]) == hostMAC && n < 200 && own(buf[:n]) {
				to[binary.BigEndian.Uint32(buf[n-4:])] = i
			}
		}
	}
}

// own reports whether a frame is one that came from the test: the host itself
// says things of its own, of multicast listeners for example.
func own(buf []byte) bool {
	if binary.BigEndian.Uint16(buf[12:]) == etherIP4 {
		return true
	}
	return buf[linkLen+8] == 0xfd // source address
}

// first makes the first packet of a new connection from workload i to j.
func first(c *rand.Rand, i, j int, port uint16) rules.Packet {
	pick := func(list ...uint16) uint16 { return list[c.IntN(len(list))] }
	p := rules.Packet{
		Way: rules.Forwarded, In: cali(i), Out: cali(j), State: rules.StateNew,
		EthSource: string([]byte{2, 0, 0, 0, 0, byte(i)}), Source: at4(i), Dest: at4(j),
		Protocol: uint8(pick(6, 6, 17, 17, 1, 50)), SourcePort: port, DestPort: pick(79, 80, 81, 443, 8080, 65535),
	}
	if c.IntN(2) == 0 {
		p.Source, p.Dest = at6(i), at6(j)
	}
	if p.Protocol == 1 {
		p.ICMPType = 8
		if p.Source.Is6() {
			p.Protocol, p.ICMPType = 58, 128
		}
	}
	switch c.IntN(12) {
	case 0:
		p.Source = map[bool]netip.Addr{true: at4(9), false: at6(9)}[p.Source.Is4()]
	case 1:
		p.EthSource = string([]byte{2, 0, 0, 0, 0, 9})
	}
	return p
}

// lookable leaves of most rules what look-ups can decide by themselves.
func lookable(c *rand.Rand, lists map[desired.RulesID]*desired.RuleList) {
	for id, l := range lists {
		if c.IntN(20) == 0 {
			continue
		}
		for i := range l.Rules {
			r := &l.Rules[i]
			r.ICMP, r.NotICMP = nil, nil
			if r.Action == desired.Log {
				r.Action = desired.Allow
			}
			source, dest := &r.Source, &r.Destination
			source.Ports, source.NotPorts, source.PortSets, source.NotPortSets = nil, nil, nil, nil
			if id.Direction == desired.Egress {
				*source = desired.Side{}
			} else {
				*dest = desired.Side{Ports: dest.Ports, NotPorts: dest.NotPorts}
			}
		}
	}
}

// othersMark is what another program marks packets with.
const othersMark = 0x4000

// mark is that other program: it marks all packets from senders whose number is
// even.
func (w *wires) mark() {
	c, err := dial(w.host)
	if err != nil {
		w.t.Fatal(err)
	}
	others := tableID{unix.NFPROTO_INET, "others"}
	var b batch
	b.addTable(others)
	b.addChain(others, "mark", &base{hook: unix.NF_INET_PRE_ROUTING, priority: -150})
	b.addRules(others, "mark", []rule{{exprs: []expr{
		payload{base: unix.NFT_PAYLOAD_LL_HEADER, offset: 11, size: 1},
		bitwise{size: 1, mask: []byte{1}, xor: []byte{0}}, comparison{op: unix.NFT_CMP_EQ, value: []byte{0}},
		immediate{value: native.AppendUint32(nil, othersMark)}, meta{key: unix.NFT_META_MARK, set: true},
	}}})
	if err := errors.Join(c.commit(&b, 0), c.close()); err != nil {
		w.t.Fatal(err)
	}
}

// The kernel does with packets what the program says: random policies, random
// first packets of connections of both families, and for each the counters
// that it hit and whether it came out at the other end.
func TestPackets(t *testing.T) {
	w := newWires(t)
	w.mark()
	passed, dropped, seen, anyMark := 0, 0, map[string]bool{}, 0
	for seed := range rounds(10) {
		c := newChaos(seed)
		for range 5 {
			c.step(15)
		}
		for i := 1; i <= wireCount; i++ { // most packets should get beyond the spoof filter
			c.policy.Endpoints[cali(i)] = c.endpoint(i)
		}
		if seed%2 == 1 {
			c.cfg.Compiled, c.cfg.CompileFrom = true, 1
			lookable(c.Rand, c.policy.Rules)
		}
		clear(c.policy.Pools) // these links have no addresses to masquerade with: TestNATMatrix
		d := openWith(t, w.host, c.cfg)
		mustSync(t, d, &c.policy, nil)
		program := d.builder.Program()
		before, err := d.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{}
		accepted, packets := map[uint32]rules.Packet{}, map[uint32]rules.Packet{}
		for range 150 {
			i, j := 1+c.IntN(wireCount), 1+c.IntN(wireCount)
			p := first(c.Rand, i, j, uint16(1000+w.sent))
			if p.EthSource[5]%2 == 0 {
				p.Mark = othersMark
			}
			// A protocol without ports has one connection between two addresses,
			// of which only the first packet that got through was new.
			tuple := fmt.Sprint(i+j, i*j, p.Source.Is4())
			if i == j || p.Protocol == 50 && seen[tuple] {
				continue
			}
			seen[tuple] = seen[tuple] || p.Protocol == 50
			trace, err := program.Trace(p)
			if err != nil {
				t.Fatal(err)
			}
			id := w.send(i, p)
			packets[id] = p
			if trace.Accepted {
				accepted[id] = p
			}
			for _, s := range trace.Steps {
				if s.Counter != "" {
					want[s.Counter]++
				}
				if strings.HasPrefix(s.Chain, "u-") && s.Counter != "" {
					anyMark++
				}
			}
		}
		got := map[uint32]int{}
		deadline := time.Now().Add(10 * time.Second)
		for {
			w.arrived(got)
			diff := hits(t, d, before, want)
			if diff == "" && len(got) >= len(accepted) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("seed %d: counters differ: %s; %d of %d arrived\n%v", seed, diff, len(got), len(accepted), program)
			}
		}
		w.arrived(got)
		for id, p := range packets {
			if _, ok := accepted[id]; ok != (got[id] != 0) || ok && cali(got[id]) != p.Out {
				t.Errorf("seed %d: packet %+v: arrived at %d, accepted %v", seed, p, got[id], ok)
			}
		}
		passed, dropped = passed+len(accepted), dropped+len(packets)-len(accepted)
	}
	if least := 5 * int(rounds(10)); passed < least || dropped < least {
		t.Errorf("%d packets passed and %d were dropped: the worlds are too simple", passed, dropped)
	}
	if anyMark < int(rounds(10)) {
		t.Errorf("%d marked packets were decided by look-ups", anyMark)
	}
	t.Logf("%d packets passed, %d were dropped; look-ups decided %d marked ones", passed, dropped, anyMark)
}

// hits says which counters did not move as they should have.
func hits(t *testing.T, d *Driver, before map[string]Count, want map[string]uint64) string {
	t.Helper()
	now, err := d.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	few, err := d.Counted(t.Context(), slices.Collect(maps.Keys(want))...)
	if none, wrong := d.Counted(t.Context(), "none"); err != nil || wrong != nil || len(none) > 0 {
		t.Fatalf("%v, %v, %v", err, none, wrong)
	}
	var diff []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if few[name] != now[name] {
			diff = append(diff, fmt.Sprintf("%s by itself is %v, not %v", name, few[name], now[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if n := now[name].Packets - before[name].Packets; n != want[name] {
			diff = append(diff, fmt.Sprintf("%s is %d, not %d", name, n, want[name]))
		}
	}
	return strings.Join(diff, ", ")
}

// With enforcement removed everything passes: what dropped packets was ours.
func TestNothingDropsWithoutUs(t *testing.T) {
	w := newWires(t)
	d := open(t, w.host)
	empty := desired.NewPolicy()
	mustSync(t, d, &empty, nil)
	p := first(rand.New(rand.NewPCG(1, 1)), 1, 2, 1000)
	p.Protocol, p.EthSource, p.Source, p.Dest = 17, "\x02\x00\x00\x00\x00\x01", at4(1), at4(2)
	before, err := d.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.send(1, p)
	testenv.Until(t, 5*time.Second, func() error {
		if diff := hits(t, d, before, map[string]uint64{"d-spoof": 1}); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	if err := Remove(w.host); err != nil {
		t.Fatal(err)
	}
	id := w.send(1, p)
	got := map[uint32]int{}
	testenv.Until(t, 5*time.Second, func() error {
		if w.arrived(got); got[id] != 2 {
			return errors.New("did not arrive")
		}
		return nil
	})
	if len(got) != 1 {
		t.Errorf("%d packets arrived, one of them a denied one", len(got))
	}
}

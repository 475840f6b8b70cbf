package ipip

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Count is how many packets, and bytes with all headers that they had then.
type Count struct {
	Packets, Bytes uint64
}

// Counters say what became of packets since the tables were made. Offloaded
// segments that travel together count as one packet. All but Encapsulated,
// Decapsulated, Reassembled, PathLearned and Late were dropped.
type Counters struct {
	Encapsulated  Count // sent to another host
	Decapsulated  Count // taken from another host
	UnknownSender Count // the outer source is not in State.Hosts or State.Networks
	Malformed     Count // headers that contradict each other or the packet
	TooBig        Count // larger than the path; the sender was told, where RFC 1122 allows it
	NoPeer        Count // no route by the tunnel, or one without a next hop
	NoPath        Count // no route to the other host
	Congested     Count // congestion that could not be told to the ends (RFC 6040)
	Fragment      Count // fragments of outer packets, those of Reassembled among them
	Reassembled   Count // outer packets put together from fragments
	Unsupported   Count // segmentation offload of a kind that cannot be carried
	PathLearned   Count // messages of routers about a narrow path to another host
	WrongWay      Count // a host's address as the outer source, by an interface of State.Strict where that host is not
	Late          Count // of Encapsulated: the route had moved away from the tunnel meanwhile
}

// fields are the counters in the order of enum cause in bpf/ipip.h.
func (c *Counters) fields() []*Count {
	return []*Count{
		&c.Encapsulated, &c.Decapsulated, &c.UnknownSender, &c.Malformed, &c.TooBig, &c.NoPeer, &c.NoPath,
		&c.Congested, &c.Fragment, &c.Reassembled, &c.Unsupported, &c.PathLearned, &c.WrongWay, &c.Late,
	}
}

// Counters reads the counters.
func (c *Carrier) Counters() (Counters, error) {
	var out Counters
	for i, f := range out.fields() {
		var each []Count
		if err := c.tables.Counts.Lookup(uint32(i), &each); err != nil {
			return Counters{}, fmt.Errorf("read the counters of IP in IP: %w", err)
		}
		for _, n := range each {
			f.Packets += n.Packets
			f.Bytes += n.Bytes
		}
	}
	return out, nil
}

// A Stranger is an address that sent us IP in IP and is no host, or a host's
// that came by the wrong interface.
type Stranger struct {
	Addr    netip.Addr
	Packets uint64 // dropped since the table was made
}

// Strangers lists the thousand or so who sent last, by address. Addresses may
// be forged.
func (c *Carrier) Strangers() ([]Stranger, error) {
	var out []Stranger
	var key [4]byte
	var n uint64
	all := c.tables.Strangers.Iterate()
	for all.Next(&key, &n) {
		out = append(out, Stranger{Addr: netip.AddrFrom4(key), Packets: n})
	}
	// The table changes while it is read: then the rest is read next time.
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read who sent IP in IP without being a host: %w", err)
	}
	slices.SortFunc(out, func(a, b Stranger) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(out, func(a, b Stranger) bool { return a.Addr == b.Addr }), nil
}

// A Path is what routers said of the way to a host.
type Path struct {
	Host netip.Addr
	MTU  int           // bytes of the outer packet
	Left time.Duration // until it is forgotten
}

// path is a row of the table: struct path in bpf/ipip.h.
type path struct {
	Until uint64
	MTU   uint32
	_     uint32
}

// Paths lists the hosts to which the path was found narrower than its first
// link, by address.
func (c *Carrier) Paths() ([]Path, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	var out []Path
	var key [4]byte
	var p path
	all := c.tables.Paths.Iterate()
	for all.Next(&key, &p) {
		if left := time.Duration(p.Until) - time.Duration(now.Nano()); left > 0 {
			out = append(out, Path{Host: netip.AddrFrom4(key), MTU: int(p.MTU), Left: left})
		}
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read the narrow paths of IP in IP: %w", err)
	}
	slices.SortFunc(out, func(a, b Path) int { return a.Host.Compare(b.Host) })
	return slices.CompactFunc(out, func(a, b Path) bool { return a.Host == b.Host }), nil
}

// readHosts reads who may send.
func readHosts(m *ebpf.Map) (map[netip.Addr]bool, error) {
	out := map[netip.Addr]bool{}
	var key [4]byte
	var unused uint32
	all := m.Iterate()
	for all.Next(&key, &unused) {
		out[netip.AddrFrom4(key)] = true
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("read who may send IP in IP: %w", err)
	}
	return out, nil
}

// network is a key of the table: struct network in bpf/ipip.h.
type network struct {
	Bits    uint32
	Address [4]byte
}

func keyOf(p netip.Prefix) network {
	return network{Bits: uint32(p.Bits()), Address: p.Addr().As4()}
}

// readNetworks reads which networks may send.
func readNetworks(m *ebpf.Map) (map[netip.Prefix]bool, error) {
	out := map[netip.Prefix]bool{}
	var key network
	var unused uint32
	all := m.Iterate()
	for all.Next(&key, &unused) {
		out[netip.PrefixFrom(netip.AddrFrom4(key.Address), int(key.Bits))] = true
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("read which networks may send IP in IP: %w", err)
	}
	return out, nil
}

// addHosts adds hosts to the table in one call.
func addHosts(m *ebpf.Map, hosts []netip.Addr) error {
	if len(hosts) == 0 {
		return nil
	}
	keys, values := make([][4]byte, len(hosts)), make([]uint32, len(hosts))
	slices.SortFunc(hosts, func(a, b netip.Addr) int { return cmp.Compare(a.Compare(b), 0) })
	for i, h := range hosts {
		keys[i] = h.As4()
	}
	_, err := m.BatchUpdate(keys, values, nil)
	return err
}

// setStrict makes the table of interfaces have these, by number.
func setStrict(m *ebpf.Map, want []uint32) error {
	var stale []uint32
	var key, unused uint32
	all := m.Iterate()
	for all.Next(&key, &unused) {
		if !slices.Contains(want, key) {
			stale = append(stale, key)
		}
	}
	err := all.Err()
	for _, index := range want {
		if err == nil {
			err = m.Put(index, uint32(0))
		}
	}
	for _, index := range stale {
		if err == nil {
			err = m.Delete(index)
		}
	}
	if err != nil {
		return fmt.Errorf("set the interfaces where IP in IP must come the way that leads back: %w", err)
	}
	return nil
}

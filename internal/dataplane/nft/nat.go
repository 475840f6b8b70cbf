package nft

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
)

// translates reports whether a table gives connections another source, or did.
func (t *table) translates() bool {
	if t == nil {
		return false
	}
	for _, c := range t.chains {
		if c.base != nil && c.base.nat {
			return true
		}
	}
	return false
}

// nat gives the packet's connection another source, and ends the rule. With
// masquerade that is an address of the interface that the packet leaves by.
type nat struct {
	masquerade   bool
	family       uint8 // NFPROTO_ of the addresses; 0 with masquerade
	addrs, ports bool  // the registers below are in use; addrs only without masquerade
	addr         reg
	first, last  reg // ports, in network order
	flags        uint32
	other        bool // translates the destination, or a range of addresses: never ours
}

func (e nat) kind() string {
	if e.masquerade {
		return "masq"
	}
	return "nat"
}

func (e nat) encode(b *batch) {
	if e.masquerade {
		b.u32(unix.NFTA_MASQ_FLAGS, e.flags)
		if e.ports {
			b.u32(unix.NFTA_MASQ_REG_PROTO_MIN, e.first.wire())
			b.u32(unix.NFTA_MASQ_REG_PROTO_MAX, e.last.wire())
		}
		return
	}
	kind := uint32(unix.NFT_NAT_SNAT)
	if e.other {
		kind = unix.NFT_NAT_DNAT
	}
	b.u32(unix.NFTA_NAT_TYPE, kind)
	b.u32(unix.NFTA_NAT_FAMILY, uint32(e.family))
	if e.addrs {
		b.u32(unix.NFTA_NAT_REG_ADDR_MIN, e.addr.wire())
		b.u32(unix.NFTA_NAT_REG_ADDR_MAX, e.addr.wire())
	}
	if e.ports {
		b.u32(unix.NFTA_NAT_REG_PROTO_MIN, e.first.wire())
		b.u32(unix.NFTA_NAT_REG_PROTO_MAX, e.last.wire())
	}
	b.u32(unix.NFTA_NAT_FLAGS, e.flags)
}

func (r *reader) nat(name string, data []byte) expr {
	if name == "masq" {
		return r.masquerade(data)
	}
	var e nat
	var last reg
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_NAT_TYPE:
			e.other = e.other || r.u32(v) != unix.NFT_NAT_SNAT
		case unix.NFTA_NAT_FAMILY:
			e.family = uint8(r.u32(v))
		case unix.NFTA_NAT_REG_ADDR_MIN:
			e.addrs, e.addr = true, r.reg(v)
		case unix.NFTA_NAT_REG_ADDR_MAX:
			last = r.reg(v)
		case unix.NFTA_NAT_REG_PROTO_MIN:
			e.ports, e.first = true, r.reg(v)
		case unix.NFTA_NAT_REG_PROTO_MAX:
			e.last = r.reg(v)
		case unix.NFTA_NAT_FLAGS:
			e.flags = r.u32(v)
		}
	})
	e.other = e.other || e.addrs && last != e.addr
	return e
}

func (r *reader) masquerade(data []byte) expr {
	e := nat{masquerade: true}
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_MASQ_FLAGS:
			e.flags = r.u32(v)
		case unix.NFTA_MASQ_REG_PROTO_MIN:
			e.ports, e.first = true, r.reg(v)
		case unix.NFTA_MASQ_REG_PROTO_MAX:
			e.last = r.reg(v)
		}
	})
	return e
}

// Registers that the new source is loaded into: an address fills four words.
const natAddr, natFirst, natLast reg = 0, 4, 5

// newSource translates the statement.
func newSource(s rules.SourceNAT) ([]expr, error) {
	e := nat{masquerade: !s.To.IsValid()}
	var list []expr
	if !e.masquerade {
		if e.family = unix.NFPROTO_IPV4; s.To.Is6() {
			e.family = unix.NFPROTO_IPV6
		}
		e.addrs, e.addr, e.flags = true, natAddr, unix.NF_NAT_RANGE_MAP_IPS
		list = append(list, immediate{to: natAddr, value: s.To.AsSlice()})
	}
	if s.Ports.Max != 0 {
		e.ports, e.first, e.last = true, natFirst, natLast
		e.flags |= unix.NF_NAT_RANGE_PROTO_SPECIFIED
		list = append(list, immediate{to: natFirst, value: network.AppendUint16(nil, s.Ports.Min)},
			immediate{to: natLast, value: network.AppendUint16(nil, s.Ports.Max)})
	}
	return append(list, e), nil
}

// unsound says what the machine does not know.
func unsound(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrUnsound)...)
}

// fib loads what kind of address the packet's is, or the interface by which
// packets to its source leave if it came by that.
func (w *walk) fib(e fib) (verdict, error) {
	if e.flags == unix.NFTA_FIB_F_SADDR|unix.NFTA_FIB_F_IIF && e.result == unix.NFT_FIB_RESULT_OIF {
		number := uint32(1)
		if w.packet.astray {
			number = 0
		}
		return onward, w.load(e.to, native.AppendUint32(nil, number))
	}
	ours := w.packet.forUs
	switch e.flags {
	case unix.NFTA_FIB_F_DADDR:
	case unix.NFTA_FIB_F_SADDR:
		ours = w.packet.fromUs
	default:
		return ended, unsound("fib with flags %d", e.flags)
	}
	if e.result != unix.NFT_FIB_RESULT_ADDRTYPE {
		return ended, unsound("fib result %d", e.result)
	}
	kind := uint32(unix.RTN_UNICAST)
	if ours {
		kind = unix.RTN_LOCAL
	}
	return onward, w.load(e.to, native.AppendUint32(nil, kind))
}

// nat notes the packet's new source.
func (w *walk) nat(e nat) (verdict, error) {
	to := rules.SourceNAT{}
	if e.other || !e.masquerade && !(e.addrs && e.family == w.packet.family) {
		return ended, unsound("a translation that is not ours")
	}
	if !e.masquerade {
		size := 4
		if e.family == unix.NFPROTO_IPV6 {
			size = 16
		}
		v, err := w.at(e.addr, size)
		if err != nil {
			return ended, err
		}
		to.To, _ = netip.AddrFromSlice(v)
	}
	want := uint32(0)
	if e.addrs {
		want |= unix.NF_NAT_RANGE_MAP_IPS
	}
	if e.ports {
		want |= unix.NF_NAT_RANGE_PROTO_SPECIFIED
		first, err := w.at(e.first, 2)
		if err != nil {
			return ended, err
		}
		last, err := w.at(e.last, 2)
		if err != nil {
			return ended, err
		}
		to.Ports = desired.PortRange{Min: network.Uint16(first), Max: network.Uint16(last)}
	}
	if e.flags != want {
		return ended, unsound("a translation with flags %#x, not %#x", e.flags, want)
	}
	w.trace.NAT = &to
	return verdict{code: accept}, nil
}

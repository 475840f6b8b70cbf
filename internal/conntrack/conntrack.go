// Package conntrack reads and marks the kernel's table of connections
// (ctnetlink, linux/netfilter/nfnetlink_conntrack.h). A connection that policy
// denies from now on is marked, not deleted: a deleted one would be made anew
// by its next packet, in whatever direction that goes, and would choose its
// address translation anew.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// Tuple is one direction of a connection, as its packets look on arrival.
// Ports are 0 for protocols that have none; ICMP has a type, a code and an
// identifier instead.
type Tuple struct {
	Src, Dst           netip.Addr
	Protocol           uint8
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
	ICMPID             uint16
	Zone               uint16 // of this direction alone
}

// Entry is one connection. Reply differs from the mirrored Orig where
// addresses or ports are translated: its Src is who really answers, its Dst
// whom he answers to.
type Entry struct {
	Orig, Reply Tuple
	Mark        uint32
	Zone        uint16
}

// Table is the table of connections of one network namespace. Its methods may
// be called from anywhere.
type Table struct {
	conn *rtnl.Conn
	text *text
}

// Open opens the table of ns, or that of the calling thread's namespace when
// ns is nil.
func Open(ns *netns.NS) (*Table, error) {
	c, err := rtnl.DialNetfilter(ns)
	if err != nil {
		return nil, fmt.Errorf("open the table of connections: %w", err)
	}
	return &Table{c, openText(ns)}, nil
}

// Close closes the table. No other call may be under way.
func (t *Table) Close() error { return errors.Join(t.conn.Close(), t.text.close()) }

// Messages of the subsystem (enum cntl_msg_types).
const (
	msgNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	msgGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	msgStats  = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5
)

// Attributes (enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto).
const (
	attrOrig, attrReply, attrMark, attrZone, attrMask = 1, 2, 8, 18, 21

	tupleIP, tupleProto, tupleZone = 1, 2, 3

	statsEntries = 1

	ipv4Src, ipv4Dst, ipv6Src, ipv6Dst = 1, 2, 3, 4

	protoNum, protoSrcPort, protoDstPort        = 1, 2, 3
	icmpID, icmpType, icmpCode                  = 4, 5, 6
	icmpv6ID, icmpv6Type, icmpv6Code            = 7, 8, 9
	protocolICMP, protocolICMPv6                = 1, 58
	nested                               uint16 = unix.NLA_F_NESTED
)

// header is the fixed part of a message (struct nfgenmsg).
func header(family uint8) []byte { return []byte{family, 0, 0, 0} }

// List reads the connections of both families. Entries that came or went
// meanwhile may be in it or not; each is told once. It costs the kernel a walk
// through all buckets of a table that all namespaces share, milliseconds on
// most machines; an empty one is not walked.
func (t *Table) List() ([]Entry, error) {
	n, err := t.count()
	if err != nil || n == 0 {
		return nil, err
	}
	return t.list()
}

// list is List where there is something.
func (t *Table) list() ([]Entry, error) {
	var b rtnl.Batch
	b.Start(msgGet, unix.NLM_F_DUMP, header(unix.AF_UNSPEC))
	var out []Entry
	err := t.conn.Get(&b, func() { out = out[:0] }, func(m rtnl.Message) error {
		if m.Kind != msgNew {
			return nil
		}
		e, err := parse(m.Body)
		if err == nil {
			out = append(out, e)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the table of connections: %w", err)
	}
	return out, nil
}

// count returns how many connections this namespace has.
func (t *Table) count() (uint32, error) {
	var b rtnl.Batch
	b.Start(msgStats, 0, header(unix.AF_UNSPEC))
	n, found := uint32(0), false
	err := t.conn.Get(&b, func() {}, func(m rtnl.Message) error {
		if m.Kind != msgStats || len(m.Body) < 4 {
			return nil
		}
		return rtnl.Attrs(m.Body[4:], func(kind uint16, v []byte) {
			if kind == statsEntries && len(v) == 4 {
				n, found = binary.BigEndian.Uint32(v), true
			}
		})
	})
	if err == nil && !found {
		err = rtnl.ErrMalformed
	}
	if err != nil {
		return 0, fmt.Errorf("count the connections: %w", err)
	}
	return n, nil
}

// SetMark changes the bits of mask in the marks of entries to those of value.
// An entry that is gone is no error.
func (t *Table) SetMark(entries []Entry, value, mask uint32) error {
	return t.each("mark", entries, func(b *rtnl.Batch, e Entry) {
		b.Start(msgNew, 0, header(family(e)))
		e.identify(b)
		b.Bytes(attrMark, be32(value&mask)) // the kernel would toggle bits outside of mask
		b.Bytes(attrMask, be32(mask))
	})
}

// Delete forgets entries. An entry that is gone is no error.
func (t *Table) Delete(entries []Entry) error {
	return t.each("delete", entries, func(b *rtnl.Batch, e Entry) {
		b.Start(msgDelete, 0, header(family(e)))
		e.identify(b)
	})
}

// each sends one request for every entry and tells of the first that failed.
func (t *Table) each(verb string, entries []Entry, request func(*rtnl.Batch, Entry)) error {
	if len(entries) == 0 {
		return nil
	}
	var b rtnl.Batch
	for _, e := range entries {
		request(&b, e)
	}
	failed := t.conn.Send(&b)
	maps.DeleteFunc(failed, func(_ int, err error) bool { return errors.Is(err, unix.ENOENT) })
	if len(failed) == 0 {
		return nil
	}
	first := slices.Min(slices.Collect(maps.Keys(failed))) // one will do: there may be thousands
	err := fmt.Errorf("%s connection %s: %w", verb, entries[first].Orig, failed[first])
	if more := len(failed) - 1; more > 0 {
		err = fmt.Errorf("%w; and %d more", err, more)
	}
	return err
}

// String writes the tuple for people.
func (t Tuple) String() string {
	return fmt.Sprintf("protocol %d %s to %s", t.Protocol,
		netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort))
}

func family(e Entry) uint8 {
	if e.Orig.Src.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// identify adds what names the entry.
func (e Entry) identify(b *rtnl.Batch) {
	e.Orig.put(b, attrOrig)
	if e.Zone != 0 {
		b.Bytes(attrZone, binary.BigEndian.AppendUint16(nil, e.Zone))
	}
}

func (t Tuple) put(b *rtnl.Batch, kind uint16) {
	b.Nest(kind|nested, func() {
		b.Nest(tupleIP|nested, func() {
			src, dst := uint16(ipv4Src), uint16(ipv4Dst)
			if t.Src.Is6() {
				src, dst = ipv6Src, ipv6Dst
			}
			b.Addr(src, t.Src)
			b.Addr(dst, t.Dst)
		})
		b.Nest(tupleProto|nested, func() {
			b.Uint8(protoNum, t.Protocol)
			switch t.Protocol {
			case protocolICMP:
				t.putICMP(b, icmpID, icmpType, icmpCode)
			case protocolICMPv6:
				t.putICMP(b, icmpv6ID, icmpv6Type, icmpv6Code)
			default:
				b.Bytes(protoSrcPort, binary.BigEndian.AppendUint16(nil, t.SrcPort))
				b.Bytes(protoDstPort, binary.BigEndian.AppendUint16(nil, t.DstPort))
			}
		})
		if t.Zone != 0 {
			b.Bytes(tupleZone, binary.BigEndian.AppendUint16(nil, t.Zone))
		}
	})
}

func (t Tuple) putICMP(b *rtnl.Batch, id, kind, code uint16) {
	b.Bytes(id, binary.BigEndian.AppendUint16(nil, t.ICMPID))
	b.Uint8(kind, t.ICMPType)
	b.Uint8(code, t.ICMPCode)
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

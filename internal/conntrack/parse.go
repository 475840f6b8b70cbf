package conntrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// parse reads one connection as the kernel tells of it.
func parse(body []byte) (Entry, error) {
	var e Entry
	if len(body) < 4 {
		return e, rtnl.ErrMalformed
	}
	var failure error
	note := func(err error) {
		if failure == nil {
			failure = err
		}
	}
	note(rtnl.Attrs(body[4:], func(kind uint16, v []byte) {
		switch kind {
		case attrOrig:
			note(e.Orig.parse(v))
		case attrReply:
			note(e.Reply.parse(v))
		case attrMark:
			e.Mark = uint32(number(v, 4))
		case attrZone:
			e.Zone = uint16(number(v, 2))
		}
	}))
	if failure == nil && (!e.Orig.Src.IsValid() || !e.Reply.Src.IsValid()) {
		failure = rtnl.ErrMalformed
	}
	return e, failure
}

func (t *Tuple) parse(buf []byte) error {
	var failure error
	note := func(err error) {
		if failure == nil {
			failure = err
		}
	}
	note(rtnl.Attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case tupleIP:
			note(rtnl.Attrs(v, t.parseIP))
		case tupleProto:
			note(rtnl.Attrs(v, t.parseProto))
		case tupleZone:
			t.Zone = uint16(number(v, 2))
		}
	}))
	return failure
}

func (t *Tuple) parseIP(kind uint16, v []byte) {
	a, ok := netip.AddrFromSlice(v)
	if !ok {
		return // parse notices that it is missing
	}
	switch kind {
	case ipv4Src, ipv6Src:
		t.Src = a
	case ipv4Dst, ipv6Dst:
		t.Dst = a
	}
}

func (t *Tuple) parseProto(kind uint16, v []byte) {
	switch kind {
	case protoNum:
		t.Protocol = uint8(number(v, 1))
	case protoSrcPort:
		t.SrcPort = uint16(number(v, 2))
	case protoDstPort:
		t.DstPort = uint16(number(v, 2))
	case icmpID, icmpv6ID:
		t.ICMPID = uint16(number(v, 2))
	case icmpType, icmpv6Type:
		t.ICMPType = uint8(number(v, 1))
	case icmpCode, icmpv6Code:
		t.ICMPCode = uint8(number(v, 1))
	}
}

// number reads a big-endian number of so many bytes, 0 from another length.
func number(v []byte, size int) uint64 {
	if len(v) != size {
		return 0
	}
	var whole [8]byte
	copy(whole[8-size:], v)
	return binary.BigEndian.Uint64(whole[:])
}

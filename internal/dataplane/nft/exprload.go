package nft

import (
	"golang.org/x/sys/unix"
)

// payload loads bytes of the packet: size of them at offset of a header.
type payload struct {
	to           reg
	base         uint32 // NFT_PAYLOAD_LL_HEADER, _NETWORK_HEADER, _TRANSPORT_HEADER
	offset, size uint32
}

func (payload) kind() string { return "payload" }

func (e payload) encode(b *batch) {
	b.u32(unix.NFTA_PAYLOAD_DREG, e.to.wire())
	b.u32(unix.NFTA_PAYLOAD_BASE, e.base)
	b.u32(unix.NFTA_PAYLOAD_OFFSET, e.offset)
	b.u32(unix.NFTA_PAYLOAD_LEN, e.size)
}

func (r *reader) payload(data []byte) expr {
	var e payload
	write := false
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_PAYLOAD_DREG:
			e.to = r.reg(v)
		case unix.NFTA_PAYLOAD_BASE:
			e.base = r.u32(v)
		case unix.NFTA_PAYLOAD_OFFSET:
			e.offset = r.u32(v)
		case unix.NFTA_PAYLOAD_LEN:
			e.size = r.u32(v)
		default:
			write = true
		}
	})
	if write {
		return nil // it changes the packet: never ours
	}
	return e
}

// meta loads what is known of a packet beside its bytes, or sets it.
type meta struct {
	key uint32 // NFT_META_
	set bool   // set the key from reg, rather than load it there
	reg reg
}

func (meta) kind() string { return "meta" }

func (e meta) encode(b *batch) {
	b.u32(unix.NFTA_META_KEY, e.key)
	if e.set {
		b.u32(unix.NFTA_META_SREG, e.reg.wire())
		return
	}
	b.u32(unix.NFTA_META_DREG, e.reg.wire())
}

func (r *reader) meta(data []byte) expr {
	var e meta
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_META_KEY:
			e.key = r.u32(v)
		case unix.NFTA_META_SREG:
			e.reg, e.set = r.reg(v), true
		case unix.NFTA_META_DREG:
			e.reg = r.reg(v)
		}
	})
	return e
}

// ct loads something of the packet's connection, or sets it.
type ct struct {
	key uint32 // NFT_CT_
	set bool
	reg reg
	dir int8 // direction that the key is about; -1: the key is not about one
}

func (ct) kind() string { return "ct" }

func (e ct) encode(b *batch) {
	b.u32(unix.NFTA_CT_KEY, e.key)
	if e.set {
		b.u32(unix.NFTA_CT_SREG, e.reg.wire())
	} else {
		b.u32(unix.NFTA_CT_DREG, e.reg.wire())
	}
	if e.dir >= 0 {
		b.u8(unix.NFTA_CT_DIRECTION, uint8(e.dir))
	}
}

func (r *reader) ct(data []byte) expr {
	e := ct{dir: -1}
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_CT_KEY:
			e.key = r.u32(v)
		case unix.NFTA_CT_SREG:
			e.reg, e.set = r.reg(v), true
		case unix.NFTA_CT_DREG:
			e.reg = r.reg(v)
		case unix.NFTA_CT_DIRECTION:
			e.dir = int8(r.u8(v) & 0x7f)
		}
	})
	return e
}

// fib loads what the routing table says of one of the packet's addresses.
type fib struct {
	to     reg
	result uint32 // NFT_FIB_RESULT_
	flags  uint32 // NFTA_FIB_F_
}

func (fib) kind() string { return "fib" }

func (e fib) encode(b *batch) {
	b.u32(unix.NFTA_FIB_DREG, e.to.wire())
	b.u32(unix.NFTA_FIB_RESULT, e.result)
	b.u32(unix.NFTA_FIB_FLAGS, e.flags)
}

func (r *reader) fib(data []byte) expr {
	var e fib
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_FIB_DREG:
			e.to = r.reg(v)
		case unix.NFTA_FIB_RESULT:
			e.result = r.u32(v)
		case unix.NFTA_FIB_FLAGS:
			e.flags = r.u32(v)
		}
	})
	return e
}

// immediate loads a constant, or ends the rule with a verdict.
type immediate struct {
	to      reg
	value   []byte
	verdict *verdict // instead of to and value
}

func (immediate) kind() string { return "immediate" }

func (e immediate) encode(b *batch) {
	if e.verdict != nil {
		b.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		e.verdict.encode(b, unix.NFTA_IMMEDIATE_DATA)
		return
	}
	b.u32(unix.NFTA_IMMEDIATE_DREG, e.to.wire())
	b.datum(unix.NFTA_IMMEDIATE_DATA, e.value)
}

func (r *reader) immediate(data []byte) expr {
	var e immediate
	var to []byte
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_IMMEDIATE_DREG:
			to = v
		case unix.NFTA_IMMEDIATE_DATA:
			e.value, e.verdict = r.datum(v)
		}
	})
	if e.verdict == nil {
		e.to = r.reg(to)
	}
	return e
}

// bitwise computes (from & mask) ^ xor, or shifts by a number of bits.
type bitwise struct {
	from, to  reg
	size      uint32
	op        uint32 // NFT_BITWISE_BOOL, or 1 and 2: left and right shift
	mask, xor []byte // NFT_BITWISE_BOOL
	shift     []byte // a number of bits in the machine's byte order
}

// NFTA_BITWISE_OP and NFTA_BITWISE_DATA, and the shifts that they speak of.
const (
	bitwiseOp, bitwiseData  = 6, 7
	bitwiseLeft, bitwiseEnd = 1, 2
)

func (bitwise) kind() string { return "bitwise" }

func (e bitwise) encode(b *batch) {
	b.u32(unix.NFTA_BITWISE_SREG, e.from.wire())
	b.u32(unix.NFTA_BITWISE_DREG, e.to.wire())
	b.u32(unix.NFTA_BITWISE_LEN, e.size)
	b.u32(bitwiseOp, e.op)
	if e.op == unix.NFT_BITWISE_BOOL {
		b.datum(unix.NFTA_BITWISE_MASK, e.mask)
		b.datum(unix.NFTA_BITWISE_XOR, e.xor)
		return
	}
	b.datum(bitwiseData, e.shift)
}

func (r *reader) bitwise(data []byte) expr {
	var e bitwise
	foreign := false
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_BITWISE_SREG:
			e.from = r.reg(v)
		case unix.NFTA_BITWISE_DREG:
			e.to = r.reg(v)
		case unix.NFTA_BITWISE_LEN:
			e.size = r.u32(v)
		case bitwiseOp:
			e.op = r.u32(v)
		case unix.NFTA_BITWISE_MASK:
			e.mask, _ = r.datum(v)
		case unix.NFTA_BITWISE_XOR:
			e.xor, _ = r.datum(v)
		case bitwiseData:
			e.shift, _ = r.datum(v)
		default:
			foreign = true
		}
	})
	if foreign || e.op > bitwiseEnd {
		return nil
	}
	return e
}

// byteorder turns numbers of size bytes, in all length bytes, round.
type byteorder struct {
	from, to     reg
	op           uint32 // 0: network to host; 1: host to network
	length, size uint32
}

func (byteorder) kind() string { return "byteorder" }

func (e byteorder) encode(b *batch) {
	b.u32(unix.NFTA_BYTEORDER_SREG, e.from.wire())
	b.u32(unix.NFTA_BYTEORDER_DREG, e.to.wire())
	b.u32(unix.NFTA_BYTEORDER_OP, e.op)
	b.u32(unix.NFTA_BYTEORDER_LEN, e.length)
	b.u32(unix.NFTA_BYTEORDER_SIZE, e.size)
}

func (r *reader) byteorder(data []byte) expr {
	var e byteorder
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_BYTEORDER_SREG:
			e.from = r.reg(v)
		case unix.NFTA_BYTEORDER_DREG:
			e.to = r.reg(v)
		case unix.NFTA_BYTEORDER_OP:
			e.op = r.u32(v)
		case unix.NFTA_BYTEORDER_LEN:
			e.length = r.u32(v)
		case unix.NFTA_BYTEORDER_SIZE:
			e.size = r.u32(v)
		}
	})
	return e
}

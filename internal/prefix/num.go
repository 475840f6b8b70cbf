package prefix

import (
	"encoding/binary"
	"math/big"
	"math/bits"
	"net/netip"
)

// num is an address as a number; an IPv4 address has 32 bits of it.
type num struct{ hi, lo uint64 }

func toNum(a netip.Addr) num {
	if a.Is4() {
		b := a.As4()
		return num{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return num{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func fromNum(n num, is4 bool) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], n.hi)
	binary.BigEndian.PutUint64(b[8:], n.lo)
	if is4 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// hostMask has the bits of an address that p leaves open.
func hostMask(p netip.Prefix) num { return ones(p.Addr().BitLen() - p.Bits()) }

// ones returns 2^n - 1 for n from 0 to 128.
func ones(n int) num {
	switch {
	case n <= 0:
		return num{}
	case n <= 64:
		return num{0, ^uint64(0) >> (64 - n)}
	default:
		return num{^uint64(0) >> (128 - n), ^uint64(0)}
	}
}

func (a num) or(b num) num    { return num{a.hi | b.hi, a.lo | b.lo} }
func (a num) and(b num) num   { return num{a.hi & b.hi, a.lo & b.lo} }
func (a num) not() num        { return num{^a.hi, ^a.lo} }
func (a num) less(b num) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }
func (a num) fits() bool      { return a.hi == 0 }
func (a num) plus(b num) num  { lo, c := bits.Add64(a.lo, b.lo, 0); return num{a.hi + b.hi + c, lo} }
func (a num) minus(b num) num { lo, c := bits.Sub64(a.lo, b.lo, 0); return num{a.hi - b.hi - c, lo} }
func (a num) next() num       { return a.plus(num{0, 1}) }
func (a num) trailingZeros() int {
	if a.lo != 0 {
		return bits.TrailingZeros64(a.lo)
	}
	return 64 + bits.TrailingZeros64(a.hi)
}

// len is how many bits it takes to write a.
func (a num) len() int {
	if a.hi != 0 {
		return 64 + bits.Len64(a.hi)
	}
	return bits.Len64(a.lo)
}

func (a num) shiftLeft(n int) num {
	switch {
	case n >= 128:
		return num{}
	case n >= 64:
		return num{a.lo << (n - 64), 0}
	case n == 0:
		return a
	default:
		return num{a.hi<<n | a.lo>>(64-n), a.lo << n}
	}
}

func (a num) shiftRight(n int) num {
	switch {
	case n >= 128:
		return num{}
	case n >= 64:
		return num{0, a.hi >> (n - 64)}
	case n == 0:
		return a
	default:
		return num{a.hi >> n, a.lo>>n | a.hi<<(64-n)}
	}
}

func (a num) big() *big.Int {
	n := new(big.Int).SetUint64(a.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(a.lo))
}

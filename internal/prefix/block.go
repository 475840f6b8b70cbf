package prefix

import (
	"math"
	"math/big"
	"net/netip"
)

// Size returns how many addresses p has: up to 2^128. It is 0 for an invalid
// prefix.
func Size(p netip.Prefix) *big.Int {
	p = Canonical(p)
	if !p.IsValid() {
		return new(big.Int)
	}
	n := hostMask(p).big()
	return n.Add(n, big.NewInt(1))
}

// SizeCapped is Size, but at most math.MaxUint64.
func SizeCapped(p netip.Prefix) uint64 {
	p = Canonical(p)
	if !p.IsValid() {
		return 0
	}
	if n := hostMask(p); n.fits() && n.lo < math.MaxUint64 {
		return n.lo + 1
	}
	return math.MaxUint64
}

// NthAddr returns the address of p at this distance from its first. ok is
// false if p has no such address.
func NthAddr(p netip.Prefix, n uint64) (a netip.Addr, ok bool) {
	p = Canonical(p)
	if !p.IsValid() || hostMask(p).less(num{0, n}) {
		return netip.Addr{}, false
	}
	return fromNum(toNum(p.Addr()).plus(num{0, n}), p.Addr().Is4()), true
}

// Ordinal returns the distance of a from the first address of p. ok is false
// if a is not in p, or the distance needs more than 64 bits.
func Ordinal(p netip.Prefix, a netip.Addr) (n uint64, ok bool) {
	p, a = Canonical(p), canonicalAddr(a)
	if !p.Contains(a) {
		return 0, false
	}
	d := toNum(a).minus(toNum(p.Addr()))
	return d.lo, d.fits()
}

// BlockOf returns the block of this prefix length that a is in. It is invalid
// if a is, or if the length is not one of a's family.
func BlockOf(a netip.Addr, length int) netip.Prefix {
	p, err := canonicalAddr(a).Prefix(length)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// BlockCount returns how many blocks of this prefix length pool divides into:
// 0 if the length is shorter than the pool's or too long for its family.
func BlockCount(pool netip.Prefix, length int) *big.Int {
	pool = Canonical(pool)
	if !holdsBlocks(pool, length) {
		return new(big.Int)
	}
	return new(big.Int).Lsh(big.NewInt(1), uint(length-pool.Bits()))
}

// BlockCountCapped is BlockCount, but at most math.MaxUint64.
func BlockCountCapped(pool netip.Prefix, length int) uint64 {
	if n := BlockCount(pool, length); n.IsUint64() {
		return n.Uint64()
	}
	return math.MaxUint64
}

// NthBlock returns the block of this prefix length with the given number, the
// pool's first being 0. ok is false if the pool has no such block.
func NthBlock(pool netip.Prefix, length int, n uint64) (block netip.Prefix, ok bool) {
	pool = Canonical(pool)
	if !holdsBlocks(pool, length) || ones(length-pool.Bits()).less(num{0, n}) {
		return netip.Prefix{}, false
	}
	offset := num{0, n}.shiftLeft(pool.Addr().BitLen() - length)
	return netip.PrefixFrom(fromNum(toNum(pool.Addr()).plus(offset), pool.Addr().Is4()), length), true
}

// BlockNumber returns which of pool's blocks of this prefix length a is in,
// the first being 0. ok is false if a is not in pool, the pool has no blocks
// of that length, or the number needs more than 64 bits.
func BlockNumber(pool netip.Prefix, length int, a netip.Addr) (n uint64, ok bool) {
	pool, a = Canonical(pool), canonicalAddr(a)
	if !holdsBlocks(pool, length) || !pool.Contains(a) {
		return 0, false
	}
	d := toNum(a).minus(toNum(pool.Addr())).shiftRight(a.BitLen() - length)
	return d.lo, d.fits()
}

// NextBlock returns the block of the same length that follows block in pool;
// after the last comes the first. It is invalid if block is not in pool.
func NextBlock(pool, block netip.Prefix) netip.Prefix {
	pool, block = Canonical(pool), Canonical(block)
	if !Contains(pool, block) {
		return netip.Prefix{}
	}
	next := Last(block).Next()
	if !next.IsValid() || !pool.Contains(next) {
		next = pool.Addr()
	}
	return netip.PrefixFrom(next, block.Bits())
}

func holdsBlocks(pool netip.Prefix, length int) bool {
	return pool.IsValid() && length >= pool.Bits() && length <= pool.Addr().BitLen()
}

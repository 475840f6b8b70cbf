package nft

import "golang.org/x/sys/unix"

// comparison goes on if a register compares with a constant, byte for byte.
type comparison struct {
	from  reg
	op    uint32 // NFT_CMP_
	value []byte
}

func (comparison) kind() string { return "cmp" }

func (e comparison) encode(b *batch) {
	b.u32(unix.NFTA_CMP_SREG, e.from.wire())
	b.u32(unix.NFTA_CMP_OP, e.op)
	b.datum(unix.NFTA_CMP_DATA, e.value)
}

func (r *reader) cmp(data []byte) expr {
	var e comparison
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_CMP_SREG:
			e.from = r.reg(v)
		case unix.NFTA_CMP_OP:
			e.op = r.u32(v)
		case unix.NFTA_CMP_DATA:
			e.value, _ = r.datum(v)
		}
	})
	return e
}

// between goes on if a register lies between two constants, both included, or
// outside of them.
type between struct {
	from        reg
	op          uint32 // NFT_RANGE_EQ, NFT_RANGE_NEQ
	first, last []byte
}

func (between) kind() string { return "range" }

func (e between) encode(b *batch) {
	b.u32(unix.NFTA_RANGE_SREG, e.from.wire())
	b.u32(unix.NFTA_RANGE_OP, e.op)
	b.datum(unix.NFTA_RANGE_FROM_DATA, e.first)
	b.datum(unix.NFTA_RANGE_TO_DATA, e.last)
}

func (r *reader) between(data []byte) expr {
	var e between
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_RANGE_SREG:
			e.from = r.reg(v)
		case unix.NFTA_RANGE_OP:
			e.op = r.u32(v)
		case unix.NFTA_RANGE_FROM_DATA:
			e.first, _ = r.datum(v)
		case unix.NFTA_RANGE_TO_DATA:
			e.last, _ = r.datum(v)
		}
	})
	return e
}

// lookup goes on if a key is in a set (or is not), and loads what a map holds
// for it. A verdict map ends the rule instead.
type lookup struct {
	set     string
	from    reg
	load    bool // a data map: its value goes to the register to
	to      reg
	verdict bool // a verdict map
	not     bool
}

func (lookup) kind() string { return "lookup" }

func (e lookup) encode(b *batch) {
	b.text(unix.NFTA_LOOKUP_SET, e.set)
	b.u32(unix.NFTA_LOOKUP_SREG, e.from.wire())
	switch {
	case e.verdict:
		b.u32(unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
	case e.load:
		b.u32(unix.NFTA_LOOKUP_DREG, e.to.wire())
	}
	flags := uint32(0)
	if e.not {
		flags = unix.NFT_LOOKUP_F_INV
	}
	b.u32(unix.NFTA_LOOKUP_FLAGS, flags)
}

func (r *reader) lookup(data []byte) expr {
	var e lookup
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_LOOKUP_SET:
			e.set = r.text(v)
		case unix.NFTA_LOOKUP_SREG:
			e.from = r.reg(v)
		case unix.NFTA_LOOKUP_DREG:
			if e.verdict = r.u32(v) == unix.NFT_REG_VERDICT; !e.verdict {
				e.load, e.to = true, r.reg(v)
			}
		case unix.NFTA_LOOKUP_FLAGS:
			e.not = r.u32(v)&unix.NFT_LOOKUP_F_INV != 0
		}
	})
	return e
}

// dynset adds a key to a set as packets come by, and with refresh makes a
// member's time begin again. The rule goes on unless the set is full; with not,
// it goes on only then.
type dynset struct {
	set     string
	key     reg
	refresh bool
	not     bool
	timeout uint64 // milliseconds; 0: that of the set
}

func (dynset) kind() string { return "dynset" }

func (e dynset) encode(b *batch) {
	b.text(unix.NFTA_DYNSET_SET_NAME, e.set)
	b.u32(unix.NFTA_DYNSET_SREG_KEY, e.key.wire())
	op := uint32(unix.NFT_DYNSET_OP_ADD)
	if e.refresh {
		op = unix.NFT_DYNSET_OP_UPDATE
	}
	b.u32(unix.NFTA_DYNSET_OP, op)
	if e.timeout != 0 {
		b.u64(unix.NFTA_DYNSET_TIMEOUT, e.timeout)
	}
	if e.not {
		b.u32(unix.NFTA_DYNSET_FLAGS, unix.NFT_DYNSET_F_INV)
	}
}

func (r *reader) dynset(data []byte) expr {
	var e dynset
	foreign := false
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_DYNSET_SET_NAME:
			e.set = r.text(v)
		case unix.NFTA_DYNSET_SREG_KEY:
			e.key = r.reg(v)
		case unix.NFTA_DYNSET_OP:
			op := r.u32(v)
			e.refresh = op == unix.NFT_DYNSET_OP_UPDATE
			foreign = foreign || op > unix.NFT_DYNSET_OP_UPDATE
		case unix.NFTA_DYNSET_TIMEOUT:
			e.timeout = r.u64(v)
		case unix.NFTA_DYNSET_FLAGS:
			flags := r.u32(v)
			e.not = flags&unix.NFT_DYNSET_F_INV != 0
			foreign = foreign || flags&^unix.NFT_DYNSET_F_INV != 0
		case unix.NFTA_DYNSET_PAD:
		default:
			foreign = true // with data or expressions: never ours
		}
	})
	if foreign {
		return nil
	}
	return e
}

// limit goes on as long as packets come no faster than rate per unit (burst
// more at once); with over, it goes on once they do.
type limit struct {
	rate, unit uint64 // unit in seconds
	burst      uint32
	bytes      bool // count bytes, not packets
	over       bool
}

func (limit) kind() string { return "limit" }

func (e limit) encode(b *batch) {
	b.u64(unix.NFTA_LIMIT_RATE, e.rate)
	b.u64(unix.NFTA_LIMIT_UNIT, e.unit)
	b.u32(unix.NFTA_LIMIT_BURST, e.burst)
	kind, flags := uint32(unix.NFT_LIMIT_PKTS), uint32(0)
	if e.bytes {
		kind = unix.NFT_LIMIT_PKT_BYTES
	}
	if e.over {
		flags = unix.NFT_LIMIT_F_INV
	}
	b.u32(unix.NFTA_LIMIT_TYPE, kind)
	b.u32(unix.NFTA_LIMIT_FLAGS, flags)
}

func (r *reader) limit(data []byte) expr {
	var e limit
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_LIMIT_RATE:
			e.rate = r.u64(v)
		case unix.NFTA_LIMIT_UNIT:
			e.unit = r.u64(v)
		case unix.NFTA_LIMIT_BURST:
			e.burst = r.u32(v)
		case unix.NFTA_LIMIT_TYPE:
			e.bytes = r.u32(v) == unix.NFT_LIMIT_PKT_BYTES
		case unix.NFTA_LIMIT_FLAGS:
			e.over = r.u32(v)&unix.NFT_LIMIT_F_INV != 0
		}
	})
	return e
}

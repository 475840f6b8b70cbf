package nft

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// An expr is one step of a rule (an nf_tables expression). Its fields hold all
// that the kernel knows of it, in the machine's terms: a register is the
// number, 0 to 15, of its first 32-bit word.
type expr interface {
	// kind is the name by which the kernel knows the expression.
	kind() string
	// encode adds the attributes.
	encode(b *batch)
}

// reg is a register: the number of its first 32-bit word.
type reg uint8

const (
	regWords = 16
	regBytes = 4 * regWords
)

// wire is a register's number as the kernel writes it: those that begin a
// 16-byte register have the old numbers 1 to 4, all others 8 to 23.
func (r reg) wire() uint32 {
	if r%4 == 0 {
		return uint32(unix.NFT_REG_1 + r/4)
	}
	return uint32(unix.NFT_REG32_00 + r)
}

func (r *reader) reg(v []byte) reg {
	switch n := r.u32(v); {
	case n >= unix.NFT_REG_1 && n <= unix.NFT_REG_4:
		return reg(n-unix.NFT_REG_1) * 4
	case n >= unix.NFT_REG32_00 && n <= unix.NFT_REG32_15:
		return reg(n - unix.NFT_REG32_00)
	}
	r.fail()
	return 0
}

// A code is what a verdict does.
type code int32

// Verdicts (enum nft_verdicts, linux/netfilter.h).
const (
	drop     code = 0
	accept   code = 1
	goOn     code = unix.NFT_CONTINUE
	broken   code = unix.NFT_BREAK
	jump     code = unix.NFT_JUMP
	goTo     code = unix.NFT_GOTO
	goReturn code = unix.NFT_RETURN
)

// A verdict is what becomes of a packet; chain is where a jump or goto leads.
type verdict struct {
	code  code
	chain string
}

func (v verdict) encode(b *batch, kind uint16) {
	b.nest(kind, func() {
		b.nest(unix.NFTA_DATA_VERDICT, func() {
			b.u32(unix.NFTA_VERDICT_CODE, uint32(v.code))
			if v.chain != "" {
				b.text(unix.NFTA_VERDICT_CHAIN, v.chain)
			}
		})
	})
}

// datum adds an attribute that holds a value (nft_data_attributes).
func (b *batch) datum(kind uint16, value []byte) {
	b.nest(kind, func() { b.bytes(unix.NFTA_DATA_VALUE, value) })
}

// datum reads a value or a verdict.
func (r *reader) datum(buf []byte) (value []byte, v *verdict) {
	r.attrs(buf, func(kind uint16, at []byte) {
		switch kind {
		case unix.NFTA_DATA_VALUE:
			value = bytes.Clone(at)
		case unix.NFTA_DATA_VERDICT:
			v = &verdict{}
			r.attrs(at, func(kind uint16, at []byte) {
				switch kind {
				case unix.NFTA_VERDICT_CODE:
					v.code = code(int32(r.u32(at)))
				case unix.NFTA_VERDICT_CHAIN:
					v.chain = r.text(at)
				}
			})
		}
	})
	return value, v
}

// encodeExprs adds a list of expressions.
func encodeExprs(b *batch, kind uint16, list []expr) {
	b.nest(kind, func() {
		for _, e := range list {
			encodeExpr(b, unix.NFTA_LIST_ELEM, e)
		}
	})
}

func encodeExpr(b *batch, kind uint16, e expr) {
	b.nest(kind, func() {
		b.text(unix.NFTA_EXPR_NAME, e.kind())
		if o, ok := e.(opaque); ok {
			b.bytes(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, []byte(o.data))
			return
		}
		b.nest(unix.NFTA_EXPR_DATA, func() { e.encode(b) })
	})
}

// exprs reads a list of expressions.
func (r *reader) exprs(buf []byte) (list []expr) {
	r.attrs(buf, func(kind uint16, at []byte) {
		if kind == unix.NFTA_LIST_ELEM {
			list = append(list, r.expr(at))
		}
	})
	return list
}

func (r *reader) expr(buf []byte) expr {
	var name string
	var data []byte
	r.attrs(buf, func(kind uint16, at []byte) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			name = r.text(at)
		case unix.NFTA_EXPR_DATA:
			data = at
		}
	})
	if e := r.known(name, data); e != nil {
		return e
	}
	return opaque{name: name, data: string(data)}
}

// known reads an expression of a kind that we write ourselves; nil if it is none.
func (r *reader) known(name string, data []byte) expr {
	switch name {
	case "payload":
		return r.payload(data)
	case "meta":
		return r.meta(data)
	case "ct":
		return r.ct(data)
	case "cmp":
		return r.cmp(data)
	case "range":
		return r.between(data)
	case "bitwise":
		return r.bitwise(data)
	case "byteorder":
		return r.byteorder(data)
	case "lookup":
		return r.lookup(data)
	case "immediate":
		return r.immediate(data)
	case "counter":
		return r.counter(data)
	case "objref":
		return r.objref(data)
	case "log":
		return r.log(data)
	case "limit":
		return r.limit(data)
	case "reject":
		return r.reject(data)
	case "fib":
		return r.fib(data)
	case "dynset":
		return r.dynset(data)
	case "masq", "nat":
		return r.nat(name, data)
	case "notrack":
		return notrack{}
	case "flow_offload":
		return r.flowAdd(data)
	}
	return nil
}

// opaque is an expression that we never write. It only ever differs from what
// is wanted.
type opaque struct{ name, data string }

func (e opaque) kind() string  { return e.name }
func (e opaque) encode(*batch) {}

// sameExprs reports whether two lists of expressions do the same; how often
// counters counted does not matter.
func sameExprs(a, b []expr) bool {
	if len(a) != len(b) {
		return false
	}
	var x, y batch
	for i := range a {
		if a[i].kind() != b[i].kind() {
			return false
		}
		if a[i].kind() == "counter" {
			continue
		}
		x.buf, y.buf = x.buf[:0], y.buf[:0]
		encodeExpr(&x, unix.NFTA_LIST_ELEM, a[i])
		encodeExpr(&y, unix.NFTA_LIST_ELEM, b[i])
		if !bytes.Equal(x.buf, y.buf) {
			return false
		}
	}
	return true
}

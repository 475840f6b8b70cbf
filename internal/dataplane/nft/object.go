package nft

import (
	"golang.org/x/sys/unix"
)

// What nf_tables holds, decoded. An image is the tables of ours; whatever the
// driver compares and the machine evaluates has been read into one from bytes.
type image struct {
	tables map[tableID]*table
}

// A tableID names a table: NFPROTO_INET or NFPROTO_ARP, and a name.
type tableID struct {
	family uint8
	name   string
}

type table struct {
	flags    uint32 // NFT_TABLE_F_
	chains   map[string]*chain
	sets     map[string]*set
	counters map[string]object
}

type chain struct {
	base  *base // nil unless the chain is at a hook
	bound bool  // it is part of a rule of somebody's, and goes with that
	rules []rule
}

// A base is where in the kernel a chain is called.
type base struct {
	hook     uint32 // NF_INET_ or NF_ARP_
	priority int32
	drops    bool // what becomes of a packet at the end of the chain
	nat      bool // of type nat rather than filter
}

type rule struct {
	exprs []expr
	note  string
}

// An object is a counter that has a name.
type object struct {
	note           string
	packets, bytes uint64
}

// A shape is what is given about a set when it is made.
type shape struct {
	flags             uint32 // NFT_SET_
	keyType, keyLen   uint32 // the type is a number of nft(8)'s, the kernel ignores it
	dataType, dataLen uint32
	object            uint32 // NFT_OBJECT_ that elements refer to
	fields            string // lengths of the key's fields, a byte each, of an interval set with several
	timeout           uint64 // milliseconds
	size              uint32
}

type set struct {
	shape
	keyOrder, dataOrder uint32 // for nft(8): byte order in which it shows them
	elems               map[elemID]elem
	list                []member // instead of elems, of one that is to be made
}

// A member is an element with what it is told apart by.
type member struct {
	id   elemID
	elem elem
}

// members lists the elements, each once, in any order.
func (s *set) members() []member {
	if s.elems == nil {
		return s.list
	}
	out := make([]member, 0, len(s.elems))
	for id, e := range s.elems {
		out = append(out, member{id, e})
	}
	return out
}

// An elemID is what a set tells elements apart by. The intervals of a set with
// one field are held as two elements, the second of which is an end. The key
// is "" for one that stands for all keys without another.
type elemID struct {
	key string
	end bool
}

type elem struct {
	last    string // end of the range, included, of sets with several fields
	data    string
	judges  bool // the element has a verdict
	verdict verdict
	object  string
	rare    *rareElem // nil: nothing
}

// rareElem is what elements of others have: ours, of which there are very many,
// are small without.
type rareElem struct {
	note           string
	timeout        uint64
	counts         bool
	packets, bytes uint64
}

// others is what the element has of rareElem.
func (e *elem) others() rareElem {
	if e.rare == nil {
		return rareElem{}
	}
	return *e.rare
}

// odd is the same, to be written to.
func (e *elem) odd() *rareElem {
	if e.rare == nil {
		e.rare = &rareElem{}
	}
	return e.rare
}

// Types of chains at a hook.
const typeFilter, typeNAT = "filter", "nat"

const verdictType = unix.NFT_DATA_VERDICT

// Attributes that the header of x/sys lacks (linux/netfilter/nf_tables.h).
const (
	attrObjectNote = 8  // NFTA_OBJ_USERDATA
	attrDescConcat = 2  // NFTA_SET_DESC_CONCAT
	attrFieldLen   = 1  // NFTA_SET_FIELD_LEN
	attrElemLast   = 10 // NFTA_SET_ELEM_KEY_END
	attrElemExprs  = 11 // NFTA_SET_ELEM_EXPRESSIONS
	attrChainFlags = 10 // NFTA_CHAIN_FLAGS
	chainBound     = 4  // NFT_CHAIN_BINDING
	flagConcat     = 0x80
	elemCatchAll   = 2 // NFT_SET_ELEM_CATCHALL: an element that all keys match
)

// Kinds inside of user data, a program's own notes at an object (libnftnl).
const (
	noteComment    = 0
	noteKeyOrder   = 0
	noteDataOrder  = 1
	orderHost      = 1
	orderNetwork   = 2
	noteBytes      = 128 // longest comment that nft(8) takes, with its end
	setNoteNumbers = 4
)

func newImage() *image { return &image{tables: map[tableID]*table{}} }

func newTable() *table {
	return &table{chains: map[string]*chain{}, sets: map[string]*set{}, counters: map[string]object{}}
}

// notes reads user data.
func notes(buf []byte, each func(kind byte, value []byte)) {
	for len(buf) >= 2 && len(buf) >= 2+int(buf[1]) {
		each(buf[0], buf[2:2+int(buf[1])])
		buf = buf[2+int(buf[1]):]
	}
}

func (r *reader) comment(buf []byte) (text string) {
	notes(buf, func(kind byte, v []byte) {
		if kind == noteComment {
			text = r.text(v)
		}
	})
	return text
}

// chain reads the attributes of a chain.
func (r *reader) chain(buf []byte) (table, name string, c *chain) {
	c = &chain{}
	var at base
	r.attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			table = r.text(v)
		case unix.NFTA_CHAIN_NAME:
			name = r.text(v)
		case attrChainFlags:
			c.bound = r.u32(v)&chainBound != 0
		case unix.NFTA_CHAIN_POLICY:
			at.drops = r.u32(v) == uint32(drop)
		case unix.NFTA_CHAIN_TYPE:
			at.nat = r.text(v) == typeNAT
		case unix.NFTA_CHAIN_HOOK:
			c.base = &at
			r.attrs(v, func(kind uint16, v []byte) {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					at.hook = r.u32(v)
				case unix.NFTA_HOOK_PRIORITY:
					at.priority = int32(r.u32(v))
				}
			})
		}
	})
	return table, name, c
}

// rule reads the attributes of a rule.
func (r *reader) rule(buf []byte) (table, chain string, made rule) {
	r.attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			table = r.text(v)
		case unix.NFTA_RULE_CHAIN:
			chain = r.text(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			made.exprs = r.exprs(v)
		case unix.NFTA_RULE_USERDATA:
			made.note = r.comment(v)
		}
	})
	return table, chain, made
}

// object reads the attributes of a named object; ok if it is a counter.
func (r *reader) object(buf []byte) (table, name string, o object, ok bool) {
	var data []byte
	r.attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_OBJ_TABLE:
			table = r.text(v)
		case unix.NFTA_OBJ_NAME:
			name = r.text(v)
		case unix.NFTA_OBJ_TYPE:
			ok = r.u32(v) == unix.NFT_OBJECT_COUNTER
		case unix.NFTA_OBJ_DATA:
			data = v
		case attrObjectNote:
			o.note = r.comment(v)
		}
	})
	if ok {
		if c, is := r.counter(data).(counter); is {
			o.packets, o.bytes = c.packets, c.bytes
		}
	}
	return table, name, o, ok
}

// set reads the attributes of a set.
func (r *reader) set(buf []byte) (table, name string, s *set) {
	s = &set{elems: map[elemID]elem{}}
	r.attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_SET_TABLE:
			table = r.text(v)
		case unix.NFTA_SET_NAME:
			name = r.text(v)
		case unix.NFTA_SET_FLAGS:
			s.flags = r.u32(v)
		case unix.NFTA_SET_KEY_TYPE:
			s.keyType = r.u32(v)
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = r.u32(v)
		case unix.NFTA_SET_DATA_TYPE:
			s.dataType = r.u32(v)
		case unix.NFTA_SET_DATA_LEN:
			s.dataLen = r.u32(v)
		case unix.NFTA_SET_OBJ_TYPE:
			s.object = r.u32(v)
		case unix.NFTA_SET_TIMEOUT:
			s.timeout = r.u64(v)
		case unix.NFTA_SET_DESC:
			r.describe(v, s)
		case unix.NFTA_SET_USERDATA:
			r.orders(v, s)
		}
	})
	if s.dataType == verdictType {
		s.dataLen = 0 // the kernel tells the size of its own struct
	}
	return table, name, s
}

func (r *reader) describe(buf []byte, s *set) {
	r.attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_SET_DESC_SIZE:
			s.size = r.u32(v)
		case attrDescConcat:
			r.attrs(v, func(_ uint16, v []byte) {
				r.attrs(v, func(kind uint16, v []byte) {
					if kind == attrFieldLen {
						s.fields += string([]byte{byte(r.u32(v))})
					}
				})
			})
		}
	})
}

func (r *reader) orders(buf []byte, s *set) {
	notes(buf, func(kind byte, v []byte) {
		switch {
		case len(v) != setNoteNumbers:
		case kind == noteKeyOrder:
			s.keyOrder = native.Uint32(v)
		case kind == noteDataOrder:
			s.dataOrder = native.Uint32(v)
		}
	})
}

// elems reads a message of elements.
func (r *reader) elems(buf []byte, each func(elemID, elem)) (table, set string) {
	var list []byte
	r.attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_SET_ELEM_LIST_TABLE:
			table = r.text(v)
		case unix.NFTA_SET_ELEM_LIST_SET:
			set = r.text(v)
		case unix.NFTA_SET_ELEM_LIST_ELEMENTS:
			list = v
		}
	})
	r.attrs(list, func(kind uint16, v []byte) {
		if kind == unix.NFTA_LIST_ELEM {
			each(r.elem(v))
		}
	})
	return table, set
}

func (r *reader) elem(buf []byte) (id elemID, e elem) {
	r.attrs(buf, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			id.key = r.plain(v)
		case attrElemLast:
			e.last = r.plain(v)
		case unix.NFTA_SET_ELEM_FLAGS:
			id.end = r.u32(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_DATA:
			value, v := r.datum(v)
			if e.data = string(value); v != nil {
				e.judges, e.verdict = true, *v
			}
		case unix.NFTA_SET_ELEM_OBJREF:
			e.object = r.text(v)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.odd().note = r.comment(v)
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.odd().timeout = r.u64(v)
		case unix.NFTA_SET_ELEM_EXPR:
			r.elemExpr(r.expr(v), &e)
		case attrElemExprs:
			for _, x := range r.exprs(v) {
				r.elemExpr(x, &e)
			}
		}
	})
	return id, e
}

func (r *reader) elemExpr(x expr, e *elem) {
	if c, ok := x.(counter); ok {
		o := e.odd()
		o.counts, o.packets, o.bytes = true, c.packets, c.bytes
	}
}

// plain reads a value that is no verdict.
func (r *reader) plain(buf []byte) (value string) {
	r.attrs(buf, func(kind uint16, v []byte) {
		if kind == unix.NFTA_DATA_VALUE {
			value = string(v)
		}
	})
	return value
}

// same reports whether two elements under one key are alike; how often one
// was hit does not matter.
func (e elem) same(o elem) bool {
	x, y := e.others(), o.others()
	x.packets, x.bytes, y.packets, y.bytes = 0, 0, 0, 0
	e.rare, o.rare = nil, nil
	return e == o && x == y
}

// sameChain reports whether two chains do the same.
func sameChain(a, b *chain) bool {
	if !sameBase(a.base, b.base) || len(a.rules) != len(b.rules) {
		return false
	}
	for i := range a.rules {
		if a.rules[i].note != b.rules[i].note || !sameExprs(a.rules[i].exprs, b.rules[i].exprs) {
			return false
		}
	}
	return true
}

func sameBase(a, b *base) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

package nft

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// comment writes a comment as user data.
func comment(text string) []byte {
	if len(text) >= noteBytes {
		text = text[:noteBytes-1]
	}
	return append(append([]byte{noteComment, byte(len(text) + 1)}, text...), 0)
}

func (b *batch) addTable(id tableID) {
	b.start(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, id.family, step{"add", "table", id.name})
	b.text(unix.NFTA_TABLE_NAME, id.name)
	b.u32(unix.NFTA_TABLE_FLAGS, 0)
}

func (b *batch) deleteTable(id tableID) {
	b.start(unix.NFT_MSG_DELTABLE, 0, id.family, step{"delete", "table", id.name})
	b.text(unix.NFTA_TABLE_NAME, id.name)
}

func (b *batch) addChain(id tableID, name string, at *base) {
	b.start(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, id.family, step{"add", "chain", name})
	b.text(unix.NFTA_CHAIN_TABLE, id.name)
	b.text(unix.NFTA_CHAIN_NAME, name)
	if at == nil {
		return
	}
	b.nest(unix.NFTA_CHAIN_HOOK, func() {
		b.u32(unix.NFTA_HOOK_HOOKNUM, at.hook)
		b.u32(unix.NFTA_HOOK_PRIORITY, uint32(at.priority))
	})
	policy := uint32(accept)
	if at.drops {
		policy = uint32(drop)
	}
	b.u32(unix.NFTA_CHAIN_POLICY, policy)
	kind := typeFilter
	if at.nat {
		kind = typeNAT
	}
	b.text(unix.NFTA_CHAIN_TYPE, kind)
}

func (b *batch) deleteChain(id tableID, name string) {
	b.start(unix.NFT_MSG_DELCHAIN, 0, id.family, step{"delete", "chain", name})
	b.text(unix.NFTA_CHAIN_TABLE, id.name)
	b.text(unix.NFTA_CHAIN_NAME, name)
}

// flushChain deletes the chain's rules.
func (b *batch) flushChain(id tableID, name string) {
	b.start(unix.NFT_MSG_DELRULE, 0, id.family, step{"flush", "chain", name})
	b.text(unix.NFTA_RULE_TABLE, id.name)
	b.text(unix.NFTA_RULE_CHAIN, name)
}

// addRules adds rules at the end of a chain.
func (b *batch) addRules(id tableID, name string, list []rule) {
	for i, r := range list {
		b.start(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, id.family,
			step{"add", "rule", name + " " + strconv.Itoa(i)})
		b.text(unix.NFTA_RULE_TABLE, id.name)
		b.text(unix.NFTA_RULE_CHAIN, name)
		encodeExprs(b, unix.NFTA_RULE_EXPRESSIONS, r.exprs)
		if r.note != "" {
			b.bytes(unix.NFTA_RULE_USERDATA, comment(r.note))
		}
	}
}

func (b *batch) addCounter(id tableID, name, note string) {
	b.start(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, id.family, step{"add", "counter", name})
	b.text(unix.NFTA_OBJ_TABLE, id.name)
	b.text(unix.NFTA_OBJ_NAME, name)
	b.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	b.nest(unix.NFTA_OBJ_DATA, func() { counter{}.encode(b) })
	if note != "" {
		b.bytes(attrObjectNote, comment(note))
	}
}

func (b *batch) deleteCounter(id tableID, name string) {
	b.start(unix.NFT_MSG_DELOBJ, 0, id.family, step{"delete", "counter", name})
	b.text(unix.NFTA_OBJ_TABLE, id.name)
	b.text(unix.NFTA_OBJ_NAME, name)
	b.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
}

// addSet makes a set, without its elements.
func (b *batch) addSet(id tableID, name string, s *set) {
	b.start(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, id.family, step{"add", "set", name})
	b.text(unix.NFTA_SET_TABLE, id.name)
	b.text(unix.NFTA_SET_NAME, name)
	b.u32(unix.NFTA_SET_FLAGS, s.flags)
	b.u32(unix.NFTA_SET_KEY_TYPE, s.keyType)
	b.u32(unix.NFTA_SET_KEY_LEN, s.keyLen)
	b.u32(unix.NFTA_SET_ID, uint32(b.len())) // wanted, though only nameless sets need it
	if s.flags&unix.NFT_SET_MAP != 0 {
		b.u32(unix.NFTA_SET_DATA_TYPE, s.dataType)
		b.u32(unix.NFTA_SET_DATA_LEN, s.dataLen)
	}
	if s.flags&unix.NFT_SET_OBJECT != 0 {
		b.u32(unix.NFTA_SET_OBJ_TYPE, s.object)
	}
	if s.size != 0 || s.fields != "" {
		b.nest(unix.NFTA_SET_DESC, func() { s.describe(b) })
	}
	if s.timeout != 0 {
		b.u64(unix.NFTA_SET_TIMEOUT, s.timeout)
	}
	b.bytes(unix.NFTA_SET_USERDATA, s.orders())
}

func (s *set) describe(b *batch) {
	if s.size != 0 {
		b.u32(unix.NFTA_SET_DESC_SIZE, s.size)
	}
	if s.fields == "" {
		return
	}
	b.nest(attrDescConcat, func() {
		for _, n := range []byte(s.fields) {
			b.nest(unix.NFTA_LIST_ELEM, func() { b.u32(attrFieldLen, uint32(n)) })
		}
	})
}

// orders is user data that tells nft(8) in which byte order to show things.
func (s *set) orders() []byte {
	buf := native.AppendUint32([]byte{noteKeyOrder, setNoteNumbers}, s.keyOrder)
	if s.dataOrder != 0 {
		buf = native.AppendUint32(append(buf, noteDataOrder, setNoteNumbers), s.dataOrder)
	}
	return buf
}

func (b *batch) deleteSet(id tableID, name string) {
	b.start(unix.NFT_MSG_DELSET, 0, id.family, step{"delete", "set", name})
	b.text(unix.NFTA_SET_TABLE, id.name)
	b.text(unix.NFTA_SET_NAME, name)
}

// emptySet deletes all elements of a set.
func (b *batch) emptySet(id tableID, name string) {
	b.start(unix.NFT_MSG_DELSETELEM, 0, id.family, step{"flush", "set", name})
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, id.name)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, name)
}

// addElems and deleteElems cut what they send into messages that are short
// enough for one attribute to hold a message's elements.
func (b *batch) addElems(id tableID, set string, list []member) {
	b.elems(unix.NFT_MSG_NEWSETELEM, id, set, list)
}

func (b *batch) deleteElems(id tableID, set string, list []member) {
	b.elems(unix.NFT_MSG_DELSETELEM, id, set, list)
}

func (b *batch) elems(kind int, id tableID, set string, list []member) {
	flags, what := uint16(unix.NLM_F_CREATE), step{"add", "elements of set", set}
	if kind == unix.NFT_MSG_DELSETELEM {
		flags, what = 0, step{"delete", "elements of set", set}
	}
	slices.SortFunc(list, func(a, b member) int { return a.id.compare(b.id) })
	for len(list) > 0 {
		b.start(kind, flags, id.family, what)
		b.text(unix.NFTA_SET_ELEM_LIST_TABLE, id.name)
		b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
		at := b.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for len(list) > 0 && b.size() < cutBytes {
			at := b.open(unix.NFTA_LIST_ELEM)
			encodeElem(b, &list[0], kind == unix.NFT_MSG_NEWSETELEM)
			b.shut(at)
			list = list[1:]
		}
		b.shut(at)
	}
}

// encodeElem writes an element, or with full false only what names it.
func encodeElem(b *batch, m *member, full bool) {
	id, e := m.id, &m.elem
	datum := func(kind uint16, value string) {
		at := b.open(kind)
		b.bytes(unix.NFTA_DATA_VALUE, []byte(value))
		b.shut(at)
	}
	switch {
	case id.key == "":
		b.u32(unix.NFTA_SET_ELEM_FLAGS, elemCatchAll)
	case id.end:
		b.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	if id.key != "" {
		datum(unix.NFTA_SET_ELEM_KEY, id.key)
	}
	if e.last != "" {
		datum(attrElemLast, e.last)
	}
	if !full {
		return
	}
	switch {
	case e.judges:
		e.verdict.encode(b, unix.NFTA_SET_ELEM_DATA)
	case e.data != "":
		datum(unix.NFTA_SET_ELEM_DATA, e.data)
	case e.object != "":
		b.text(unix.NFTA_SET_ELEM_OBJREF, e.object)
	}
	o := e.rare
	if o == nil {
		return
	}
	if o.note != "" {
		b.bytes(unix.NFTA_SET_ELEM_USERDATA, comment(o.note))
	}
	if o.timeout != 0 {
		b.u64(unix.NFTA_SET_ELEM_TIMEOUT, o.timeout)
	}
	if o.counts {
		encodeExpr(b, unix.NFTA_SET_ELEM_EXPR, counter{packets: o.packets, bytes: o.bytes})
	}
}

// sortedElems returns the names of elements in order.
func sortedElems(elems map[elemID]elem) []elemID {
	return slices.SortedFunc(maps.Keys(elems), elemID.compare)
}

// compare orders by key, an end before a beginning.
func (id elemID) compare(o elemID) int {
	if c := strings.Compare(id.key, o.key); c != 0 || id.end == o.end {
		return c
	}
	if id.end {
		return -1
	}
	return 1
}

package nft

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// take changes the image as the kernel does on a message, or adds what a
// message of a dump says. Messages about tables that the image does not have
// are not for us.
func (im *image) take(m message) error {
	r := &reader{}
	switch int(m.kind) - subsystem {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		im.takeTable(r, m)
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		im.takeChain(r, m)
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		im.takeRule(r, m)
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		im.takeSet(r, m)
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		_, err := im.takeElems(m)
		return err
	case unix.NFT_MSG_NEWOBJ, unix.NFT_MSG_DELOBJ:
		im.takeObject(r, m)
	}
	return r.err
}

// deletes reports whether a message takes something away.
func (m message) deletes() bool {
	switch int(m.kind) - subsystem {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET,
		unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_DELOBJ:
		return true
	}
	return false
}

func (im *image) takeTable(r *reader, m message) {
	id, t := tableID{family: m.family}, newTable()
	r.attrs(m.body, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_TABLE_NAME:
			id.name = r.text(v)
		case unix.NFTA_TABLE_FLAGS:
			t.flags = r.u32(v)
		}
	})
	switch old := im.tables[id]; {
	case !id.ours():
	case m.deletes():
		delete(im.tables, id)
	case old == nil:
		im.tables[id] = t
	default:
		old.flags = t.flags
	}
}

func (im *image) takeChain(r *reader, m message) {
	table, name, c := r.chain(m.body)
	t := im.tables[tableID{m.family, table}]
	switch {
	case t == nil:
	case m.deletes():
		delete(t.chains, name)
	case t.chains[name] == nil:
		t.chains[name] = c
	}
}

func (im *image) takeRule(r *reader, m message) {
	table, name, made := r.rule(m.body)
	t := im.tables[tableID{m.family, table}]
	if t == nil || t.chains[name] == nil {
		return
	}
	if c := t.chains[name]; m.deletes() {
		c.rules = nil // only whole chains are flushed
	} else {
		c.rules = append(c.rules, made)
	}
}

func (im *image) takeSet(r *reader, m message) {
	table, name, s := r.set(m.body)
	t := im.tables[tableID{m.family, table}]
	switch {
	case t == nil:
	case m.deletes():
		delete(t.sets, name)
	case t.sets[name] == nil:
		t.sets[name] = s
	}
}

// takeElems returns how many elements the message has.
func (im *image) takeElems(m message) (int, error) {
	r := &reader{}
	type one struct {
		id elemID
		e  elem
	}
	var list []one
	table, name := r.elems(m.body, func(id elemID, e elem) { list = append(list, one{id, e}) })
	t := im.tables[tableID{m.family, table}]
	if t == nil || t.sets[name] == nil {
		return 0, r.err
	}
	if m.deletes() && len(list) == 0 {
		clear(t.sets[name].elems)
	}
	for _, o := range list {
		if m.deletes() {
			delete(t.sets[name].elems, o.id)
		} else {
			t.sets[name].elems[o.id] = o.e
		}
	}
	return len(list), r.err
}

func (im *image) takeObject(r *reader, m message) {
	table, name, o, ok := r.object(m.body)
	t := im.tables[tableID{m.family, table}]
	switch {
	case t == nil || !ok:
	case m.deletes():
		delete(t.counters, name)
	default:
		if _, there := t.counters[name]; !there {
			t.counters[name] = o
		}
	}
}

// play carries out the messages of a batch on the image, reading them from the
// bytes that the kernel would get.
func (im *image) play(b *batch) error {
	b.seal()
	if b.err != nil {
		return b.err
	}
	at := 0
	return split(b.buf, func(m message) error {
		at++
		if err := im.take(m); err != nil {
			return fmt.Errorf("%v: %w", b.steps[at-1], err)
		}
		return nil
	})
}

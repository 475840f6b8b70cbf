package calc

import "hash/maphash"

type textID uint32

// texts keeps each text once: selectors are said over and over.
type texts struct {
	seed maphash.Seed
	all  slab[textID, text]
	by   index[textID]
}

type text struct {
	of   string
	refs uint32
}

func newTexts() texts { return texts{seed: maphash.MakeSeed()} }

// hold returns the number of a text and counts a reference to it. The text is
// kept as it is.
func (t *texts) hold(s string) textID {
	hash := mix(maphash.String(t.seed, s))
	id := t.by.find(hash, func(id textID) bool { return t.all.at(id).of == s })
	if id == 0 {
		id = t.all.add(text{of: s})
		t.by.add(hash, id)
	}
	t.all.at(id).refs++
	return id
}

// holdBytes holds a copy of what is in a buffer.
func (t *texts) holdBytes(b []byte) textID {
	hash := mix(maphash.Bytes(t.seed, b))
	id := t.by.find(hash, func(id textID) bool { return t.all.at(id).of == string(b) })
	if id == 0 {
		return t.hold(string(b))
	}
	t.all.at(id).refs++
	return id
}

func (t *texts) release(id textID) {
	at := t.all.at(id)
	if at.refs--; at.refs == 0 {
		t.by.remove(mix(maphash.String(t.seed, at.of)), id)
		t.all.drop(id)
	}
}

func (t *texts) of(id textID) string { return t.all.at(id).of }

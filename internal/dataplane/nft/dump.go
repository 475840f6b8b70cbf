package nft

import (
	"errors"

	"golang.org/x/sys/unix"
)

// generation returns the number of nftables' present state, in which every
// commit of anybody makes a step.
func (c *conn) generation() (uint32, error) {
	var b batch
	b.start(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, step{"get", "generation", ""})
	found := uint32(0)
	err := c.get(&b, false, func(m message) error {
		r := &reader{}
		r.attrs(m.body, func(kind uint16, v []byte) {
			if kind == unix.NFTA_GEN_ID {
				found = r.u32(v)
			}
		})
		return r.err
	})
	return found, err
}

// readImage reads our tables, and the generation at which they were so.
func (c *conn) readImage() (*image, uint32, error) {
	for range dumpTries {
		before, err := c.generation()
		if err != nil {
			return nil, 0, err
		}
		im := newImage()
		err = c.readInto(im)
		if errors.Is(err, ErrInterrupted) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		after, err := c.generation()
		if err != nil {
			return nil, 0, err
		}
		if before == after {
			return im, after, nil
		}
	}
	return nil, 0, ErrInterrupted
}

// readTables reads which of our tables there are, and nothing of what is in
// them.
func (c *conn) readTables() (im *image, err error) {
	for range dumpTries {
		im = newImage()
		if err = c.dump(im, unix.NFT_MSG_GETTABLE, tableID{}, 0); !errors.Is(err, ErrInterrupted) {
			break
		}
	}
	return im, err
}

// readInto reads tables, then what is in them.
func (c *conn) readInto(im *image) error {
	if err := c.dump(im, unix.NFT_MSG_GETTABLE, tableID{}, 0); err != nil {
		return err
	}
	for _, id := range []tableID{inet, arp} {
		if im.tables[id] == nil {
			continue
		}
		for _, kind := range [...]struct {
			get   int
			table uint16 // the attribute that restricts the answer to a table
		}{
			{unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE},
			{unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE},
			{unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE},
			{unix.NFT_MSG_GETOBJ, unix.NFTA_OBJ_TABLE},
		} {
			if err := c.dump(im, kind.get, id, kind.table); err != nil {
				return err
			}
		}
		for name := range im.tables[id].sets {
			if err := c.dumpElems(im, id, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *conn) dump(im *image, kind int, id tableID, table uint16) error {
	var b batch
	b.start(kind, 0, id.family, step{"read", "table", id.name})
	if id.name != "" {
		b.text(table, id.name)
	}
	return c.get(&b, true, im.take)
}

// dumpElems reads the elements of a set. The kernel counts along a hash table to
// find where it left off in the message before; if the table was made larger
// meanwhile, it tells some elements twice and as many others not at all, and
// does not say so.
func (c *conn) dumpElems(im *image, id tableID, set string) error {
	var b batch
	b.start(unix.NFT_MSG_GETSETELEM, 0, id.family, step{"read", "set", set})
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, id.name)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
	elems := im.tables[id].sets[set].elems
	for range dumpTries {
		clear(elems)
		told := 0
		err := c.get(&b, true, func(m message) error {
			n, err := im.takeElems(m)
			told += n
			return err
		})
		if err != nil || told == len(elems) {
			return err
		}
	}
	return ErrInterrupted
}

package nft

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/netns"
)

// mostElements is how many elements of one set are shown.
const mostElements = 1000

// Text returns what our tables in ns (nil: the calling thread's namespace)
// hold, as it was read from the kernel: chains with their rules, sets with
// their elements, counters. Of a large set some elements are shown and the rest
// counted. It is for people who look for a fault; nothing reads it back.
func Text(ns *netns.NS) (string, error) {
	c, err := dial(ns)
	if err != nil {
		return "", fmt.Errorf("read nftables: %w", err)
	}
	im, _, err := c.readImage()
	if err = errors.Join(err, c.close()); err != nil {
		return "", fmt.Errorf("read nftables: %w", err)
	}
	var b strings.Builder
	ids := slices.SortedFunc(maps.Keys(im.tables), func(a, b tableID) int {
		return cmp.Or(cmp.Compare(a.family, b.family), cmp.Compare(a.name, b.name))
	})
	for _, id := range ids {
		t := im.tables[id]
		fmt.Fprintf(&b, "table %v\n", id)
		for _, name := range slices.Sorted(maps.Keys(t.chains)) {
			t.chains[name].print(&b, id, name)
		}
		for _, name := range slices.Sorted(maps.Keys(t.sets)) {
			t.sets[name].print(&b, name)
		}
		for _, name := range slices.Sorted(maps.Keys(t.counters)) {
			o := t.counters[name]
			fmt.Fprintf(&b, "  counter %s: %d packets, %d bytes%s\n", name, o.packets, o.bytes, noted(o.note))
		}
	}
	return b.String(), nil
}

func (c *chain) print(b *strings.Builder, id tableID, name string) {
	fmt.Fprintf(b, "  chain %s", name)
	if c.base != nil {
		fmt.Fprintf(b, " at %s, priority %d", hookName(id.family, c.base.hook), c.base.priority)
		if c.base.drops {
			b.WriteString(", drops at its end")
		}
	}
	b.WriteString("\n")
	for _, r := range c.rules {
		b.WriteString("   ")
		for _, e := range r.exprs {
			if i, ok := e.(immediate); ok && i.verdict != nil {
				fmt.Fprintf(b, " %v", *i.verdict)
				continue
			}
			fmt.Fprintf(b, " %s%+v", e.kind(), e)
		}
		b.WriteString(noted(r.note) + "\n")
	}
}

func (s *set) print(b *strings.Builder, name string) {
	fmt.Fprintf(b, "  set %s, flags 0x%x, %d elements\n", name, s.flags, len(s.elems))
	for i, id := range sortedElems(s.elems) {
		if i == mostElements {
			fmt.Fprintf(b, "    and %d more\n", len(s.elems)-i)
			return
		}
		e := s.elems[id]
		fmt.Fprintf(b, "    %s", hex.EncodeToString([]byte(id.key)))
		switch {
		case id.end:
			b.WriteString(" ends a range")
		case e.last != "":
			fmt.Fprintf(b, " to %s", hex.EncodeToString([]byte(e.last)))
		}
		switch {
		case e.judges:
			fmt.Fprintf(b, ": %v", e.verdict)
		case e.data != "":
			fmt.Fprintf(b, ": %s", hex.EncodeToString([]byte(e.data)))
		case e.object != "":
			fmt.Fprintf(b, ": counter %s", e.object)
		}
		b.WriteString(noted(e.others().note) + "\n")
	}
}

func noted(note string) string {
	if note == "" {
		return ""
	}
	return fmt.Sprintf("  # %q", note)
}

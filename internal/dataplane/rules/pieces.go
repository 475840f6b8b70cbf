package rules

import (
	"cmp"
	"net/netip"
	"slices"
)

// piece is a range of addresses of one class.
type piece struct {
	lo, hi netip.Addr
	class  *class
}

// pieces cuts what the nets of a family cover into ranges, in order.
func (s *space) pieces(family int) []piece {
	all := make([]netip.Prefix, 0, len(s.nets[family].at))
	for p := range s.nets[family].at {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	w := sweep{space: s, family: family}
	for _, p := range all {
		w.open(p)
	}
	for len(w.stack) > 0 {
		w.close()
	}
	return w.out
}

// sweep goes through nets in order; those around the present address are on
// the stack.
type sweep struct {
	space  *space
	family int
	stack  []layer
	cursor netip.Addr // up to here everything is cut; invalid after the last address
	out    []piece
}

type layer struct {
	last  netip.Addr
	preds []predicate // with those of the layers below
	class *class
}

func (w *sweep) open(p netip.Prefix) {
	for len(w.stack) > 0 && w.stack[len(w.stack)-1].last.Less(p.Addr()) {
		w.close()
	}
	preds := w.space.nets[w.family].at[p]
	if n := len(w.stack); n > 0 {
		top := w.stack[n-1]
		if w.cursor.Less(p.Addr()) {
			w.put(w.cursor, p.Addr().Prev(), top.class)
		}
		preds = slices.Concat(top.preds, preds)
		slices.Sort(preds)
		preds = slices.Compact(preds)
	}
	c := w.space.classOf(w.family, signature{preds: preds})
	hi, _ := netip.AddrFromSlice([]byte(prefixRange(p).Hi)) // 4 or 16 bytes
	w.stack = append(w.stack, layer{hi, preds, c})
	w.cursor = p.Addr()
}

func (w *sweep) close() {
	n := len(w.stack) - 1
	top := w.stack[n]
	w.stack = w.stack[:n]
	if w.cursor.IsValid() && !top.last.Less(w.cursor) {
		w.put(w.cursor, top.last, top.class)
		w.cursor = top.last.Next()
	}
}

// put joins pieces that touch.
func (w *sweep) put(lo, hi netip.Addr, c *class) {
	if n := len(w.out); n > 0 && w.out[n-1].class == c && w.out[n-1].hi.Next() == lo {
		w.out[n-1].hi = hi
		return
	}
	w.out = append(w.out, piece{lo, hi, c})
}

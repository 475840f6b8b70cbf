package prefix

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// slowTable is the twin of Table: a map, and a look at every entry.
type slowTable map[netip.Prefix]int

func (s slowTable) sorted(keep func(netip.Prefix) bool) []string {
	var keys []netip.Prefix
	for p := range s {
		if keep(p) {
			keys = append(keys, p)
		}
	}
	slices.SortFunc(keys, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []string
	for _, p := range keys {
		out = append(out, fmt.Sprint(p, "=", s[p]))
	}
	return out
}

func slowContains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// randomPrefix makes prefixes that often nest: few addresses, any length.
func randomPrefix(r *rand.Rand) netip.Prefix {
	var a netip.Addr
	if r.IntN(2) == 0 {
		var b [4]byte
		b[0], b[3] = byte(10+r.IntN(2)*128), byte(r.IntN(16))
		b[1] = byte(r.IntN(3))
		a = netip.AddrFrom4(b)
	} else {
		var b [16]byte
		b[0], b[7], b[8], b[15] = 0xfd, byte(r.IntN(4)), byte(r.IntN(3)*100), byte(r.IntN(16))
		a = netip.AddrFrom16(b)
	}
	bits := r.IntN(a.BitLen() + 1)
	if r.IntN(2) == 0 {
		bits = a.BitLen() - r.IntN(6)
	}
	p, _ := a.Prefix(bits)
	return p
}

func collect(seq func(func(netip.Prefix, int) bool)) []string {
	var out []string
	for p, v := range seq {
		out = append(out, fmt.Sprint(p, "=", v))
	}
	return out
}

func checkTable(t *testing.T, fast *Table[int], slow slowTable, p netip.Prefix) {
	t.Helper()
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s %v: %v, want %v\ntable: %v", what, p, got, want, slow.sorted(func(netip.Prefix) bool { return true }))
		}
	}
	check("len", fast.Len(), len(slow))
	gotV, gotOK := fast.Get(p)
	wantV, wantOK := slow[p]
	check("get", fmt.Sprint(gotV, gotOK), fmt.Sprint(wantV, wantOK))
	covering := slow.sorted(func(q netip.Prefix) bool { return slowContains(q, p) })
	check("covering", collect(fast.Covering(p)), covering)
	inside := slow.sorted(func(q netip.Prefix) bool { return slowContains(p, q) })
	check("inside", collect(fast.Inside(p)), inside)
	check("overlaps", fast.Overlaps(p), len(covering)+len(inside) > 0)
	longest := "none"
	if n := len(covering); n > 0 {
		longest = covering[n-1]
	}
	got := "none"
	if q, v, ok := fast.LookupPrefix(p); ok {
		got = fmt.Sprint(q, "=", v)
	}
	check("longest", got, longest)
	check("all", collect(fast.All()), slow.sorted(func(netip.Prefix) bool { return true }))
}

func TestTableAgainstSlowTwin(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var fast Table[int]
		slow := slowTable{}
		for step := range 100 {
			p := randomPrefix(r)
			if r.IntN(3) == 0 && len(slow) > 0 { // something that is there
				keys := slices.SortedFunc(func(yield func(netip.Prefix) bool) {
					for p := range slow {
						if !yield(p) {
							return
						}
					}
				}, netip.Prefix.Compare)
				p = keys[r.IntN(len(keys))]
			}
			want, had := slow[p]
			var got int
			var ok bool
			if r.IntN(5) < 3 {
				got, ok = fast.Insert(p, step)
				slow[p] = step
			} else {
				got, ok = fast.Delete(p)
				delete(slow, p)
			}
			if got != want || ok != had {
				t.Fatalf("seed %d step %d %v: %v %v, want %v %v", seed, step, p, got, ok, want, had)
			}
			checkTable(t, &fast, slow, p)
			checkTable(t, &fast, slow, randomPrefix(r))
		}
		for p := range slow {
			fast.Delete(p)
		}
		if fast.root[0] != nil || fast.root[1] != nil || fast.Len() != 0 {
			t.Fatalf("seed %d: an emptied table keeps branches", seed)
		}
	}
}

func TestTableForms(t *testing.T) {
	var table Table[string]
	table.Insert(netip.MustParsePrefix("192.0.2.77/24"), "masked")
	table.Insert(netip.MustParsePrefix("::ffff:198.51.100.0/120"), "mapped")
	table.Insert(netip.Prefix{}, "invalid")
	for addr, want := range map[string]string{
		"192.0.2.1":           "192.0.2.0/24 masked",
		"::ffff:192.0.2.1":    "192.0.2.0/24 masked",
		"198.51.100.9":        "198.51.100.0/24 mapped",
		"::ffff:198.51.100.9": "198.51.100.0/24 mapped",
		"203.0.113.1":         "invalid Prefix ",
		"fe80::1%eth0":        "invalid Prefix ",
	} {
		p, v, ok := table.Lookup(netip.MustParseAddr(addr))
		if got := fmt.Sprint(p, " ", v); got != want || ok != (v != "") {
			t.Errorf("%s: %s %v, want %s", addr, got, ok, want)
		}
	}
	if _, _, ok := table.Lookup(netip.Addr{}); ok || table.Overlaps(netip.Prefix{}) || table.Len() != 2 {
		t.Error("the invalid address or prefix is in the table")
	}
	table.Insert(netip.MustParsePrefix("0.0.0.0/0"), "default")
	if p, _, ok := table.Lookup(netip.MustParseAddr("8.8.8.8")); !ok || p.Bits() != 0 {
		t.Error("the default route does not cover")
	}
	if _, _, ok := table.Lookup(netip.MustParseAddr("2001:db8::1")); ok {
		t.Error("the IPv4 default route covers an IPv6 address")
	}
	for range table.All() {
		break // stopping early is allowed
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Fuzz(func(t *testing.T, history []byte) {
		var fast Table[int]
		slow := slowTable{}
		for len(history) >= 4 {
			op, a, b, bits := history[0], history[1], history[2], int(history[3])
			history = history[4:]
			addr := netip.AddrFrom4([4]byte{a, 0, 0, b})
			if op&2 != 0 {
				addr = netip.AddrFrom16([16]byte{0: a, 15: b})
			}
			p, err := addr.Prefix(bits % (addr.BitLen() + 1))
			if err != nil {
				t.Fatal(err)
			}
			if op&1 == 0 {
				fast.Insert(p, len(history))
				slow[p] = len(history)
			} else {
				fast.Delete(p)
				delete(slow, p)
			}
			if len(slow) > 64 {
				return
			}
			checkTable(t, &fast, slow, p)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var table Table[int]
	for i := range 10_000 {
		block, _ := NthBlock(netip.MustParsePrefix("10.0.0.0/8"), 26, uint64(r.IntN(1<<18)))
		table.Insert(block, i)
	}
	a := netip.MustParseAddr("10.77.1.2")
	b.ReportAllocs()
	for b.Loop() {
		table.Lookup(a)
	}
}

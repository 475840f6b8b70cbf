package prefix

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func p(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func a(s string) netip.Addr { return netip.MustParseAddr(s) }

func ps(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range s {
		out = append(out, p(s))
	}
	return out
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		err            error
		loose, iface   string // what the other parsers make of it; "" for want
	}{
		{name: "IPv4", in: "10.0.0.0/8", want: "10.0.0.0/8"},
		{name: "IPv6", in: "FD00:0::/8", want: "fd00::/8"},
		{name: "everything", in: "0.0.0.0/0", want: "0.0.0.0/0"},
		{name: "bare IPv4", in: "10.1.2.3", want: "10.1.2.3/32"},
		{name: "bare IPv6", in: "fd00::1", want: "fd00::1/128"},
		{name: "host bits IPv4", in: "10.1.2.3/8", err: ErrHostBits, loose: "10.0.0.0/8", iface: "10.1.2.3/8"},
		{name: "host bits IPv6", in: "fd00::1/64", err: ErrHostBits, loose: "fd00::/64", iface: "fd00::1/64"},
		{name: "mapped address", in: "::ffff:10.1.2.3", err: ErrMapped},
		{name: "mapped prefix", in: "::ffff:10.0.0.0/104", err: ErrMapped},
		{name: "mapped, short", in: "::ffff:10.0.0.0/64", err: ErrMapped},
		{name: "zone", in: "fe80::1%eth0", err: ErrZone},
		{name: "zone of a prefix", in: "fe80::%eth0/64", err: ErrZone},
		{name: "empty", in: "", err: ErrSyntax},
		{name: "leading zero", in: "10.0.0.01/32", err: ErrSyntax},
		{name: "leading zero of the length", in: "10.0.0.0/08", err: ErrSyntax},
		{name: "too long", in: "10.0.0.0/33", err: ErrSyntax},
		{name: "negative", in: "10.0.0.0/-1", err: ErrSyntax},
		{name: "short form", in: "10/8", err: ErrSyntax},
		{name: "mask", in: "10.0.0.0/255.0.0.0", err: ErrSyntax},
		{name: "space", in: " 10.0.0.0/8", err: ErrSyntax},
		{name: "name", in: "localhost", err: ErrSyntax},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(what string, got netip.Prefix, err error, want string, wantErr error) {
				t.Helper()
				if !errors.Is(err, wantErr) || (err == nil && got.String() != want) || (err != nil && got.IsValid()) {
					t.Errorf("%s %q: %v, %v, want %s, %v", what, c.in, got, err, want, wantErr)
				}
			}
			got, err := Parse(c.in)
			check("Parse", got, err, c.want, c.err)
			loose, iface, otherErr := c.want, c.want, c.err
			if c.loose != "" {
				loose, iface, otherErr = c.loose, c.iface, nil
			}
			got, err = ParseLoose(c.in)
			check("ParseLoose", got, err, loose, otherErr)
			got, err = ParseInterface(c.in)
			check("ParseInterface", got, err, iface, otherErr)
		})
	}
	_, err := Parse("10.1.2.3/8")
	if want := `"10.1.2.3/8": bits are set beyond the length of the prefix: write 10.0.0.0/8`; err == nil || err.Error() != want {
		t.Errorf("the error does not name the fix: %v", err)
	}
}

func TestForms(t *testing.T) {
	for _, c := range []struct{ in, first, last, size string }{
		{"10.1.2.3/8", "10.0.0.0", "10.255.255.255", "16777216"},
		{"0.0.0.0/0", "0.0.0.0", "255.255.255.255", "4294967296"},
		{"10.1.2.3/32", "10.1.2.3", "10.1.2.3", "1"},
		{"::ffff:10.1.2.3/120", "10.1.2.0", "10.1.2.255", "256"},
		{"::ffff:10.1.2.3/95", "::fffe:0:0", "::ffff:255.255.255.255", "8589934592"},
		{"::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "340282366920938463463374607431768211456"},
		{"fd00::1/64", "fd00::", "fd00::ffff:ffff:ffff:ffff", "18446744073709551616"},
		{"fd00::1/65", "fd00::", "fd00::7fff:ffff:ffff:ffff", "9223372036854775808"},
		{"fd00::1/128", "fd00::1", "fd00::1", "1"},
	} {
		q := p(c.in)
		if First(q).String() != c.first || Last(q).String() != c.last || Size(q).String() != c.size {
			t.Errorf("%s: %v to %v, %v addresses; want %s to %s, %s", c.in, First(q), Last(q), Size(q), c.first, c.last, c.size)
		}
		capped := uint64(math.MaxUint64)
		if Size(q).IsUint64() {
			capped = Size(q).Uint64()
		}
		if SizeCapped(q) != capped {
			t.Errorf("%s: capped size %d, want %d", c.in, SizeCapped(q), capped)
		}
	}
	if !Has(p("10.0.0.0/8"), a("::ffff:10.0.0.1")) || Has(p("::ffff:0:0/95"), a("10.0.0.1")) {
		t.Error("Has takes a mapped address for another than it means")
	}
	if !Contains(p("10.0.0.0/8"), p("::ffff:10.0.0.0/104")) || Contains(p("::/0"), p("10.0.0.0/8")) {
		t.Error("Contains mixes the families")
	}
	if !Overlaps(p("10.0.0.0/9"), p("10.0.0.0/8")) || Overlaps(p("10.0.0.0/9"), p("10.128.0.0/9")) {
		t.Error("Overlaps is wrong")
	}
	if Host(a("fe80::1%eth0")) != p("fe80::1/128") || Host(a("::ffff:1.2.3.4")) != p("1.2.3.4/32") {
		t.Error("Host is wrong")
	}
	invalid := netip.Prefix{}
	if Last(invalid).IsValid() || First(invalid).IsValid() || Size(invalid).Sign() != 0 || SizeCapped(invalid) != 0 ||
		Contains(invalid, p("10.0.0.0/8")) || Contains(p("10.0.0.0/8"), invalid) || Host(netip.Addr{}).IsValid() {
		t.Error("an invalid prefix is taken for a valid one")
	}
}

func TestBlocks(t *testing.T) {
	for _, c := range []struct {
		name, pool string
		length     int
		count      string
		n          uint64
		block      string // "" if there is none
	}{
		{"first IPv4", "10.65.0.0/16", 26, "1024", 0, "10.65.0.0/26"},
		{"last IPv4", "10.65.0.0/16", 26, "1024", 1023, "10.65.255.192/26"},
		{"beyond IPv4", "10.65.0.0/16", 26, "1024", 1024, ""},
		{"pool of one block", "10.65.0.0/26", 26, "1", 0, "10.65.0.0/26"},
		{"block larger than pool", "10.65.0.0/28", 26, "0", 0, ""},
		{"single addresses", "10.65.0.0/28", 32, "16", 15, "10.65.0.15/32"},
		{"length of the other family", "10.65.0.0/28", 122, "0", 0, ""},
		{"all of IPv4", "0.0.0.0/0", 32, "4294967296", 4294967295, "255.255.255.255/32"},
		{"IPv6", "fd00:10:20::/64", 122, "288230376151711744", 1, "fd00:10:20::40/122"},
		{"last IPv6", "fd00:10:20::/64", 122, "288230376151711744", 288230376151711743, "fd00:10:20::ffff:ffff:ffff:ffc0/122"},
		{"beyond IPv6", "fd00:10:20::/64", 122, "288230376151711744", 288230376151711744, ""},
		{"more than 64 bits", "fd00::/32", 122, "1237940039285380274899124224", math.MaxUint64, "fd00::3f:ffff:ffff:ffff:ffc0/122"},
		{"all of IPv6", "::/0", 128, "340282366920938463463374607431768211456", math.MaxUint64, "::ffff:ffff:ffff:ffff/128"},
		{"exactly 64 bits", "fd00::/64", 128, "18446744073709551616", math.MaxUint64, "fd00::ffff:ffff:ffff:ffff/128"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := p(c.pool)
			if got := BlockCount(pool, c.length); got.String() != c.count {
				t.Errorf("count %v, want %s", got, c.count)
			}
			if got := BlockCountCapped(pool, c.length); BlockCount(pool, c.length).IsUint64() != (got != math.MaxUint64) {
				t.Errorf("capped count %v", got)
			}
			block, ok := NthBlock(pool, c.length, c.n)
			if ok != (c.block != "") || (ok && block != p(c.block)) {
				t.Fatalf("block %d: %v %v, want %s", c.n, block, ok, c.block)
			}
			if !ok {
				return
			}
			for _, addr := range []netip.Addr{First(block), Last(block)} {
				if n, ok := BlockNumber(pool, c.length, addr); !ok || n != c.n {
					t.Errorf("number of the block of %v: %d %v, want %d", addr, n, ok, c.n)
				}
				if BlockOf(addr, c.length) != block {
					t.Errorf("block of %v: %v, want %v", addr, BlockOf(addr, c.length), block)
				}
			}
			next := NextBlock(pool, block)
			want, ok := NthBlock(pool, c.length, c.n+1)
			if !ok || c.n == math.MaxUint64 {
				want = netip.PrefixFrom(Last(block).Next(), c.length)
				if !Contains(pool, want) {
					want = netip.PrefixFrom(First(pool), c.length)
				}
			}
			if next != want {
				t.Errorf("next of %v: %v, want %v", block, next, want)
			}
		})
	}
	if NextBlock(p("10.0.0.0/24"), p("10.1.0.0/26")).IsValid() || BlockOf(a("10.0.0.1"), 33).IsValid() || BlockOf(netip.Addr{}, 8).IsValid() {
		t.Error("a block outside its pool is valid")
	}
	if _, ok := BlockNumber(p("::/0"), 122, a("ffff::")); ok {
		t.Error("a number that does not fit is given as if it did")
	}
}

func TestOrdinals(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    uint64
		addr string
	}{
		{"10.65.0.0/26", 0, "10.65.0.0"},
		{"10.65.0.0/26", 63, "10.65.0.63"},
		{"10.65.0.0/26", 64, ""},
		{"fd80:24e2:f998:72d6::/122", 63, "fd80:24e2:f998:72d6::3f"},
		{"fd80:24e2:f998:72d6::/122", 64, ""},
		{"::/0", math.MaxUint64, "::ffff:ffff:ffff:ffff"},
		{"::1/128", 0, "::1"},
		{"::1/128", 1, ""},
	} {
		got, ok := NthAddr(p(c.in), c.n)
		if ok != (c.addr != "") || (ok && got.String() != c.addr) {
			t.Errorf("%s[%d]: %v %v, want %s", c.in, c.n, got, ok, c.addr)
		}
		if ok {
			if n, ok := Ordinal(p(c.in), got); !ok || n != c.n {
				t.Errorf("ordinal of %v in %s: %d %v, want %d", got, c.in, n, ok, c.n)
			}
		}
	}
	if n, ok := Ordinal(p("10.65.0.0/26"), a("::ffff:10.65.0.5")); !ok || n != 5 {
		t.Errorf("ordinal of a mapped address: %d %v", n, ok)
	}
	if _, ok := Ordinal(p("10.65.0.0/26"), a("10.65.0.64")); ok {
		t.Error("an address outside has an ordinal")
	}
	if _, ok := Ordinal(p("::/0"), a("1::")); ok {
		t.Error("an ordinal that does not fit is given as if it did")
	}
}

// TestNumbersAgainstBig holds the 128-bit arithmetic to math/big.
func TestNumbersAgainstBig(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	wrap := new(big.Int).Lsh(big.NewInt(1), 128)
	random := func() num {
		n := num{r.Uint64(), r.Uint64()}
		return n.shiftRight(r.IntN(129))
	}
	for range 5000 {
		x, y, s := random(), random(), r.IntN(130)
		mod := func(n *big.Int) *big.Int { return n.Mod(n, wrap) }
		for name, c := range map[string]struct {
			got  num
			want *big.Int
		}{
			"plus":       {x.plus(y), mod(new(big.Int).Add(x.big(), y.big()))},
			"minus":      {x.minus(y), mod(new(big.Int).Sub(x.big(), y.big()))},
			"shiftLeft":  {x.shiftLeft(s), mod(new(big.Int).Lsh(x.big(), uint(s)))},
			"shiftRight": {x.shiftRight(s), new(big.Int).Rsh(x.big(), uint(s))},
			"or":         {x.or(y), new(big.Int).Or(x.big(), y.big())},
		} {
			if c.got.big().Cmp(c.want) != 0 {
				t.Fatalf("%s of %v, %v, %d: %v, want %v", name, x, y, s, c.got.big(), c.want)
			}
		}
		if x.less(y) != (x.big().Cmp(y.big()) < 0) || x.len() != x.big().BitLen() {
			t.Fatalf("less or len of %v, %v", x, y)
		}
		if x != (num{}) && x.trailingZeros() != int(x.big().TrailingZeroBits()) {
			t.Fatalf("trailing zeros of %v", x)
		}
	}
}

func TestSums(t *testing.T) {
	for _, c := range []struct {
		name      string
		in        []netip.Prefix
		summary   []netip.Prefix
		disjoint  []netip.Prefix
		rangeText []string
	}{
		{name: "nothing"},
		{
			name:      "halves join",
			in:        ps("10.128.0.0/9", "10.0.0.0/9"),
			summary:   ps("10.0.0.0/8"),
			disjoint:  ps("10.0.0.0/9", "10.128.0.0/9"),
			rangeText: []string{"10.0.0.0-10.255.255.255"},
		},
		{
			name:      "nested and repeated",
			in:        ps("10.1.0.0/16", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/8"),
			summary:   ps("10.0.0.0/8"),
			disjoint:  ps("10.0.0.0/8"),
			rangeText: []string{"10.0.0.0-10.255.255.255"},
		},
		{
			name:      "neighbours that do not pair",
			in:        ps("10.0.0.2/32", "10.0.0.1/32", "fd00::/128"),
			summary:   ps("10.0.0.1/32", "10.0.0.2/32", "fd00::/128"),
			disjoint:  ps("10.0.0.1/32", "10.0.0.2/32", "fd00::/128"),
			rangeText: []string{"10.0.0.1-10.0.0.2", "fd00::-fd00::"},
		},
		{
			name:      "the whole of both families",
			in:        ps("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"),
			summary:   ps("0.0.0.0/0", "::/0"),
			disjoint:  ps("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"),
			rangeText: []string{"0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		},
		{
			name:      "mapped is IPv4",
			in:        append(ps("::ffff:10.0.0.0/105", "10.128.0.0/9"), netip.Prefix{}),
			summary:   ps("10.0.0.0/8"),
			disjoint:  ps("10.0.0.0/9", "10.128.0.0/9"),
			rangeText: []string{"10.0.0.0-10.255.255.255"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := slices.Clone(c.in)
			if got := Summarise(c.in); !reflect.DeepEqual(got, c.summary) {
				t.Errorf("summary %v, want %v", got, c.summary)
			}
			if got := Disjoint(c.in); !reflect.DeepEqual(got, c.disjoint) {
				t.Errorf("disjoint %v, want %v", got, c.disjoint)
			}
			var ranges []string
			for _, r := range Ranges(c.in) {
				ranges = append(ranges, r.String())
			}
			if !reflect.DeepEqual(ranges, c.rangeText) {
				t.Errorf("ranges %v, want %v", ranges, c.rangeText)
			}
			if !reflect.DeepEqual(before, c.in) {
				t.Error("the input was changed")
			}
		})
	}
}

// universe is 256 addresses at the low or high end of a family, so that sums
// can be checked address by address.
type universe struct{ base netip.Prefix }

var universes = []universe{
	{p("0.0.0.0/24")}, {p("255.255.255.0/24")}, {p("::/120")},
	{p("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120")}, {p("fd00:0:0:1::/120")},
}

func (u universe) random(r *rand.Rand) []netip.Prefix {
	var out []netip.Prefix
	for range r.IntN(12) {
		addr, _ := NthAddr(u.base, uint64(r.IntN(256)))
		out = append(out, netip.PrefixFrom(addr, addr.BitLen()-r.IntN(8))) // not masked, on purpose
	}
	return out
}

func (u universe) set(prefixes []netip.Prefix) (set [256]int) {
	for addr, i := u.base.Addr(), 0; i < 256; addr, i = addr.Next(), i+1 {
		for _, q := range prefixes {
			if q.Contains(addr) {
				set[i]++
			}
		}
	}
	return set
}

func TestSumsAgainstSlowTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 1000 {
		u := universes[i%len(universes)]
		from, what := u.random(r), u.random(r)
		inFrom, inWhat := u.set(from), u.set(what)
		summary, disjoint, rest := u.set(Summarise(from)), u.set(Disjoint(from)), u.set(Subtract(from, what))
		for n := range 256 {
			want := min(inFrom[n], 1)
			wantRest := want
			if inWhat[n] > 0 {
				wantRest = 0
			}
			if summary[n] != want || disjoint[n] != want || rest[n] != wantRest {
				t.Fatalf("address %d of %v - %v: summary %d, disjoint %d, rest %d; want %d, %d\n%v\n%v", n, from, what,
					summary[n], disjoint[n], rest[n], want, wantRest, Summarise(from), Subtract(from, what))
			}
		}
		for _, s := range [][]netip.Prefix{Summarise(from), Subtract(from, what)} {
			for i := 1; i < len(s); i++ { // the fewest: no two halves of one prefix
				parent := BlockOf(s[i].Addr(), s[i].Bits()-1)
				if s[i-1].Bits() == s[i].Bits() && parent.Contains(s[i-1].Addr()) {
					t.Fatalf("%v and %v could be %v", s[i-1], s[i], parent)
				}
			}
		}
	}
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []netip.Prefix
	}{
		{"10.0.0.1-10.0.0.6", ps("10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32")},
		{"0.0.0.0 - 255.255.255.255", ps("0.0.0.0/0")},
		{"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ps("::/0")},
		{"::1-::2", ps("::1/128", "::2/128")},
		{"10.0.0.0/8", ps("10.0.0.0/8")},
		{"10.0.0.1", ps("10.0.0.1/32")},
		{"::fffe:ffff:ffff-::1:0:0:0", ps("::fffe:ffff:ffff/128", "::1:0:0:0/128")},
		{"10.0.0.2-10.0.0.1", nil},
		{"10.0.0.2-fd00::1", nil},
		{"10.0.0.2-", nil},
		{"-10.0.0.2", nil},
		{"10.0.0.1-10.0.0.2-10.0.0.3", nil},
	} {
		r, err := ParseRange(c.in)
		if (err != nil) != (c.want == nil) || !reflect.DeepEqual(r.Prefixes(), c.want) {
			t.Errorf("%s: %v %v, want %v", c.in, r.Prefixes(), err, c.want)
		}
	}
	r := Range{a("10.0.0.1"), a("10.0.0.6")}
	if !r.Contains(a("10.0.0.6")) || !r.Contains(a("::ffff:10.0.0.1")) || r.Contains(a("10.0.0.7")) || r.Contains(a("fd00::1")) {
		t.Error("Contains is wrong")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "fd00::1", "::ffff:1.2.3.4/120", "fe80::1%x/64", "1.2.3.4-5.6.7.8", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		strict, err := Parse(s)
		loose, looseErr := ParseLoose(s)
		if err == nil {
			if again, err := Parse(strict.String()); err != nil || again != strict {
				t.Errorf("parsing %v again: %v %v", strict, again, err)
			}
			if looseErr != nil || loose != strict || Canonical(strict) != strict {
				t.Errorf("%q: strict %v, loose %v %v", s, strict, loose, looseErr)
			}
		} else if looseErr == nil && !errors.Is(err, ErrHostBits) {
			t.Errorf("%q: only loose accepts it, for another reason than host bits: %v", s, err)
		}
		mapped := Range{a("::fffe:ffff:ffff"), a("::1:0:0:0")}
		if r, err := ParseRange(s); err == nil && !r.Contains(mapped.From) && !r.Contains(mapped.To) {
			if got := Ranges(r.Prefixes()); len(got) != 1 || got[0] != r {
				t.Errorf("%v comes back as %v", r, got)
			}
		}
	})
}

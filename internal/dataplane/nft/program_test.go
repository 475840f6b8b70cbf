package nft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/testenv"
)

func be16(n uint16) string { return string(network.AppendUint16(nil, n)) }
func be32(n uint32) string { return string(network.AppendUint32(nil, n)) }

func exactly(v ...string) (in []rules.Range) {
	for _, x := range v {
		in = append(in, rules.Range{Lo: x, Hi: x})
	}
	return in
}

func one(f rules.Field, in ...rules.Range) rules.Match {
	return rules.Match{Fields: []rules.Field{f}, In: in}
}

func not(m rules.Match) rules.Match { m.Not = true; return m }

func masking(m rules.Match, mask uint32) rules.Match { m.Mask = mask; return m }

// language is a program with each match and each statement that a program can
// have, whether or not policy needs it today.
func language() *rules.Program {
	p := &rules.Program{Chains: map[string]*rules.Chain{}, Sets: map[string]*rules.Set{}, Counters: map[string]rules.Counter{}}
	four, tcp := one(rules.Family, exactly("\x04")...), one(rules.Protocol, exactly("\x06")...)
	ports := []rules.Match{tcp}
	set := func(name string, value rules.Value, interval bool, key []rules.Type, elements ...rules.Element) {
		s := &rules.Set{Name: name, Key: key, Interval: interval, Value: value, Elements: map[string]rules.Element{}}
		for _, e := range elements {
			s.Elements[e.Lo] = e
		}
		p.Sets[name] = s
	}
	row := []rules.Type{rules.MarkType, rules.ProtocolType, rules.PortType}
	set("classes", rules.NumberValue, false, []rules.Type{rules.Addr4Type},
		rules.Element{Lo: "\x0a\x00\x00\x01", Number: 0x10001}, rules.Element{Lo: "\x0a\x00\x00\x02", Number: 0x20002})
	set("pairs", rules.NoValue, false, row, rules.Element{Lo: be32(1) + "\x06" + be16(80)})
	set("rows", rules.NumberValue, false, row, rules.Element{Lo: be32(1) + "\x06" + be16(80), Number: 0x80000000})
	set("spans", rules.NumberValue, true, row,
		rules.Element{Lo: be32(2) + "\x06" + be16(79), Hi: be32(2) + "\x06" + be16(81), Number: 0x40000000},
		rules.Element{Lo: be32(2) + "\x11" + be16(0), Hi: be32(2) + "\x11" + be16(65535), Number: 0x40000001})
	set("marks", rules.NoValue, true, []rules.Type{rules.MarkType},
		rules.Element{Lo: be32(0x100), Hi: be32(0x1ff)}, rules.Element{Lo: be32(0xff000000), Hi: be32(0xffffffff)})
	set("hits", rules.CounterValue, true, []rules.Type{rules.MarkType}, rules.Element{Lo: be32(0x40000000), Hi: be32(0x80000000), Name: "hit"})
	set("kinds", rules.NumberValue, false, []rules.Type{rules.Addr4Type},
		rules.Element{Lo: "\x0a\x00\x00\x01", Number: 1}, rules.Element{Lo: "\x0a\x00\x00\x02", Number: 2})
	set("told", rules.NumberValue, false, row, rules.Element{Lo: be32(0x40001) + "\x06" + be16(80), Number: 0x30000005},
		rules.Element{Lo: be32(0x40002) + "\x06" + be16(80), Number: 0x10000005})
	set("usual", rules.NumberValue, false, row[:1], rules.Element{Lo: be32(0x40000), Number: 0x10000006})
	set("paid", rules.CounterValue, false, row[:1], rules.Element{Lo: be32(0x30000005), Name: "hit"}, rules.Element{Lo: be32(0x10000006), Name: "all"})
	set("byport", rules.ChainValue, false, []rules.Type{rules.PortType}, rules.Element{Lo: be16(443), Name: "sub"})
	for _, c := range []string{"hit", "all", "sub", "limited"} {
		p.Counters[c] = rules.Counter{Name: c, What: "what " + c + " counts"}
	}
	port, proto := rules.DestinationPort, rules.Protocol
	list := []rules.Rule{
		{Matches: []rules.Match{four}, Do: []rules.Statement{rules.MarkBy{Fields: []rules.Field{rules.Source4}, Map: "classes"}}},
		{Matches: []rules.Match{one(rules.Mark, exactly(be32(0x10001), be32(0x20002))...)}, Do: []rules.Statement{rules.Count{Counter: "all"}}},
		{Do: []rules.Statement{rules.SetMark{Mask: 0xffff0000}}, Note: "only the class"},
		{Matches: append(ports, masking(one(rules.Mark, rules.Range{Lo: be32(1), Hi: be32(3)}), 0xff)), Do: []rules.Statement{rules.Count{Counter: "all"}}},
		{Matches: append(ports, rules.Match{Fields: []rules.Field{rules.Mark, proto, port}, Mask: 0xffff, Set: "pairs"}), Do: []rules.Statement{rules.Count{Counter: "hit"}}},
		{Matches: ports, Do: []rules.Statement{rules.MarkBy{Fields: []rules.Field{rules.Mark, proto, port}, Map: "spans"}}},
		{Matches: ports, Do: []rules.Statement{rules.MarkBy{Fields: []rules.Field{rules.Mark, proto, port}, Map: "rows"}}},
		{Do: []rules.Statement{rules.CountBy{Fields: []rules.Field{rules.Mark}, Map: "hits"}}},
		{Matches: []rules.Match{{Fields: []rules.Field{rules.Mark}, Set: "marks"}}, Do: []rules.Statement{rules.Count{Counter: "sub"}}},
		{Matches: append(ports, four), Do: []rules.Statement{rules.Decide{Far: rules.Source4, Classes: "kinds", Group: 0x40000, Fields: []rules.Field{proto, port},
			Rows: "told", Mask: 0x20000000, Is: 0x20000000, Counted: "paid"}}},
		{Do: []rules.Statement{rules.Decide{Group: 0x40000, Rows: "usual", Counted: "paid"}}},
		{Matches: []rules.Match{not(one(rules.Mark, rules.Range{Lo: be32(0), Hi: be32(0xff)}, rules.Range{Lo: be32(0x40000000), Hi: be32(0x40000000)}))},
			Do: []rules.Statement{rules.Log{Prefix: "odd", Group: 5}}},
		{Matches: []rules.Match{one(rules.InInterface, exactly(string(interfaceName("cali1")), string(interfaceName("cali2")))...)}, Do: []rules.Statement{rules.Jump{Chain: "sub"}}},
		{Matches: append(ports, one(rules.SourcePort, rules.Range{Lo: be16(0), Hi: be16(80)})), Do: []rules.Statement{rules.Limit{Rate: 10, Seconds: 60, Burst: 5}, rules.Count{Counter: "limited"}}},
		{Matches: ports, Do: []rules.Statement{rules.Dispatch{Fields: []rules.Field{port}, Map: "byport"}}},
		{Matches: []rules.Match{not(one(rules.Protocol))}, Do: []rules.Statement{rules.Count{Counter: "all"}}},
		{Matches: []rules.Match{one(rules.Protocol)}, Do: []rules.Statement{rules.Drop{}}},
		{Matches: []rules.Match{masking(one(rules.ConnMark, exactly(be32(0x80000000))...), 0x80000000)}, Do: []rules.Statement{rules.Reject{}}},
		{Matches: append(ports, one(port, exactly(be16(8080))...)), Do: []rules.Statement{rules.Goto{Chain: "sub"}}},
		{Matches: []rules.Match{{Fields: []rules.Field{rules.State}, Mask: uint32(rules.StateInvalid | rules.StateUntracked), Not: true}}, Do: []rules.Statement{rules.SetMark{Mask: 0xff00, Value: 0x12345}, rules.Accept{}}},
		{Do: []rules.Statement{rules.Count{Counter: "all"}}},
	}
	p.Chains["main"] = &rules.Chain{Name: "main", Hook: &rules.Hook{Point: rules.Forward}, Rules: list}
	p.Chains["sub"] = &rules.Chain{Name: "sub", Rules: []rules.Rule{
		{Matches: append(ports, one(port, exactly(be16(79))...)), Do: []rules.Statement{rules.Count{Counter: "sub"}, rules.Return{}}},
		{Matches: append(ports, one(port, exactly(be16(443), be16(8080))...)), Do: []rules.Statement{rules.Count{Counter: "sub"}, rules.Drop{}}},
	}}
	return p
}

// All of the language of programs reads back from the kernel as it was
// written, and means the same to the machine as to the program itself.
func TestLanguage(t *testing.T) {
	p := language()
	m, err := NewMachine(p)
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{Rand: rand.New(rand.NewPCG(1, 1))}
	seen := map[string]int{}
	for range 5000 {
		pkt := c.packet()
		pkt.Way = rules.Forwarded
		pkt.Mark = oneOf[uint32](c, 0, 1, 2, 0x100, 0x1ff, 0x200, 0x20001, 0xff000000, 0xffffffff, 0x40000000)
		if !pkt.Source.IsValid() {
			continue // ARP
		}
		want, err := p.Trace(pkt)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Trace(pkt)
		if err != nil {
			t.Fatal(err)
		}
		if outcome(got) != outcome(want) {
			t.Fatalf("packet %+v\nthe bytes: %v\n%v\nthe program: %v\n%v", pkt, outcome(got), got, outcome(want), want)
		}
		for _, s := range want.Steps {
			seen[fmt.Sprint(s.Chain, s.Rule)]++
		}
	}
	for _, chain := range p.Chains {
		for i, r := range chain.Rules {
			if never := len(r.Matches) == 1 && len(r.Matches[0].In) == 0 && r.Matches[0].Fields[0] == rules.Protocol && !r.Matches[0].Not; seen[fmt.Sprint(chain.Name, i)] == 0 && !never {
				t.Errorf("no packet got as far as %s rule %d: %v", chain.Name, i, r)
			}
		}
	}

	ns := testenv.NetNS(t)
	d := open(t, ns)
	im, _, err := lowerProgram(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.commit([]*edit{difference(inet, nil, im.tables[inet])}, 0); err != nil {
		t.Fatal(err)
	}
	have, _, err := d.look.readImage()
	if err != nil {
		t.Fatal(err)
	}
	if e := difference(inet, have.tables[inet], im.tables[inet]); !e.empty() {
		t.Errorf("the kernel holds something else: %s", missing(e))
	}
	t.Log(lists(t, ns))

	// A value that somebody changed is a difference.
	for id := range have.tables[inet].sets["classes"].elems {
		have.tables[inet].sets["classes"].elems[id] = elem{data: string(mark(7))}
	}
	if e := difference(inet, have.tables[inet], im.tables[inet]); len(e.elems["classes"]) != 2 || len(e.dropElems["classes"]) != 2 {
		t.Errorf("changed values: %+v", e)
	}
}

// What nf_tables has no form for is refused, by name.
func TestNoForm(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		change     func(p *rules.Program)
	}{
		{"a set that is not there", "no set none", func(p *rules.Program) {
			p.Chains["sub"].Rules = []rules.Rule{{Matches: []rules.Match{{Fields: []rules.Field{rules.Mark}, Set: "none"}}}}
		}},
		{"another key", "set pairs is asked for mark", func(p *rules.Program) {
			p.Sets["pairs"].Key = []rules.Type{rules.PortType, rules.PortType, rules.PortType}
			p.Sets["pairs"].Elements = nil
		}},
		{"a map as a set", "rows is a map", func(p *rules.Program) {
			p.Chains["sub"].Rules = []rules.Rule{{Matches: []rules.Match{{Fields: []rules.Field{rules.Mark, rules.Protocol, rules.DestinationPort}, Set: "rows"}}}}
		}},
		{"a set as a map", "pairs is no such map", func(p *rules.Program) {
			p.Chains["sub"].Rules = []rules.Rule{{Do: []rules.Statement{rules.MarkBy{Fields: []rules.Field{rules.Mark, rules.Protocol, rules.DestinationPort}, Map: "pairs"}}}}
		}},
		{"a short element", "set classes: a key is shorter", func(p *rules.Program) {
			p.Sets["classes"].Elements["x"] = rules.Element{Lo: "x"}
		}},
		{"a short value", "value of destination-port of 1 bytes", func(p *rules.Program) {
			p.Chains["sub"].Rules = []rules.Rule{{Matches: []rules.Match{one(rules.DestinationPort, exactly("x")...)}}}
		}},
		{"a range of marks in rows", "a range of marks", func(p *rules.Program) {
			p.Sets["spans"].Elements["x"] = rules.Element{Lo: be32(2) + "\x06" + be16(79), Hi: be32(3) + "\x06" + be16(81)}
		}},
		{"ARP that is forwarded", "ARP at forward", func(p *rules.Program) {
			p.Chains["a"] = &rules.Chain{Name: "a", Table: rules.ARP, Hook: &rules.Hook{Point: rules.Forward}}
		}},
		{"a family nobody knows", `family "\x05"`, func(p *rules.Program) {
			p.Chains["sub"].Rules = []rules.Rule{{Matches: []rules.Match{one(rules.Family, exactly("\x05")...)}}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := language()
			tt.change(p)
			if _, err := NewMachine(p); !errors.Is(err, errNoForm) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
	long := rules.Set{Name: "long", Key: []rules.Type{rules.InterfaceType, rules.InterfaceType, rules.InterfaceType, rules.InterfaceType, rules.Addr6Type}}
	if _, err := lowerShape(&long); !errors.Is(err, errNoForm) || !strings.Contains(err.Error(), "a key of 80 bytes") {
		t.Errorf("a long key: %v", err)
	}
}

package rules

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

// crowd is a host with one endpoint whose rules allow members of sets, each
// TCP to a port of its own.
func crowd(family string, sets ...[2]int) *desired.Policy {
	p := desired.NewPolicy()
	list := &desired.RuleList{}
	for i, bounds := range sets {
		id, s := desired.SetID(fmt.Sprint("s:", i)), &desired.Set{Kind: desired.AddressSet, Members: map[desired.Member]struct{}{}}
		for n := bounds[0]; n < bounds[1]; n++ {
			s.Members[desired.Member{Prefix: crowdAddr(family, n)}] = struct{}{}
		}
		p.Sets[id] = s
		list.Rules = append(list.Rules, crowdRule(i))
	}
	owner := "NetworkPolicy default/p"
	p.Rules[desired.RulesID{Owner: owner, Direction: desired.Ingress}] = list
	p.Endpoints["cali1"] = &desired.Endpoint{
		Addrs: []netip.Addr{crowdAddr(family, 100_000).Addr()}, Ingress: []desired.Tier{{Name: "default", Policies: []string{owner}}},
	}
	return &p
}

func crowdRule(i int) desired.PolicyRule {
	return desired.PolicyRule{
		Index: i, Action: desired.Allow, IPv4: true, IPv6: true, Protocol: 6,
		Source:      desired.Side{Sets: []desired.SetID{desired.SetID(fmt.Sprint("s:", i))}},
		Destination: desired.Side{Ports: []desired.PortRange{{Min: uint16(80 + i), Max: uint16(80 + i)}}},
	}
}

func crowdAddr(family string, n int) netip.Prefix {
	a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	if family == "6" {
		a = netip.AddrFrom16([16]byte{0xfd, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// TestClassInherits: where most of a class go to a new one together, they keep
// the number, and their elements stay as they are.
func TestClassInherits(t *testing.T) {
	for _, c := range []struct {
		name   string
		second [2]int // members of a set that comes; those of the first are 0 to 100
		moved  [2]int // elements of the map of classes that change, and when the set goes
		net    bool   // the first has a network too
	}{
		{"all", [2]int{0, 100}, [2]int{}, false},
		{"all but one", [2]int{0, 99}, [2]int{1, 1}, false},
		{"most, and others", [2]int{10, 120}, [2]int{10 + 20, 10}, false},
		{"half", [2]int{0, 50}, [2]int{50, 50}, false},
		{"few", [2]int{95, 100}, [2]int{5, 5}, false},
		{"others", [2]int{100, 150}, [2]int{50, 0}, false},
		{"all but a network", [2]int{0, 100}, [2]int{100, 100}, true},
	} {
		for _, f := range []string{"4", "6"} {
			t.Run(c.name+", IPv"+f, func(t *testing.T) {
				cfg := testConfig()
				cfg.Compiled = true
				world := func(sets ...[2]int) *desired.Policy {
					p := crowd(f, sets...)
					if c.net {
						net, _ := crowdAddr(f, 1<<16).Addr().Prefix(crowdAddr(f, 0).Bits() - 8)
						p.Sets["s:0"].Members[desired.Member{Prefix: net}] = struct{}{}
					}
					return p
				}
				mirror := Render(cfg, world([2]int{0, 100}))
				b := New(cfg, world([2]int{0, 100}))
				for step, now := range []*desired.Policy{world([2]int{0, 100}, c.second), world([2]int{0, 100})} {
					patch := desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:1": {Gone: now.Sets["s:1"] == nil}}}
					patch.Rules.Set = now.Rules
					d := b.Update(now, &patch)
					if n := len(d.Sets[mapClasses+f].Add); n != c.moved[step] {
						t.Errorf("%d elements change, want %d", n, c.moved[step])
					}
					if err := mirror.play(d); err != nil {
						t.Fatal(err)
					}
					if diff := difference(mirror.String(), b.Program().String()); diff != "" {
						t.Fatalf("deltas (-) against updated (+):\n%s", diff)
					}
					if diff := difference(Renew(cfg, now, b).Program().String(), b.Program().String()); diff != "" {
						t.Fatalf("made anew (-) against updated (+):\n%s", diff)
					}
					crowdJudged(t, b.Program(), now, f)
				}
			})
		}
	}
}

// crowdJudged asks the program about every address and both ports.
func crowdJudged(t *testing.T, program *Program, p *desired.Policy, family string) {
	t.Helper()
	for n := range 160 {
		for i := range 2 {
			src, dst := crowdAddr(family, n), p.Endpoints["cali1"].Addrs[0]
			want := false
			if set := p.Sets[desired.SetID(fmt.Sprint("s:", i))]; set != nil {
				_, want = set.Members[desired.Member{Prefix: src}]
			}
			got, err := program.Trace(Packet{
				Way: Forwarded, Out: "cali1", Source: src.Addr(), Dest: dst, Protocol: 6, SourcePort: 40000, DestPort: uint16(80 + i), State: StateNew,
			})
			if err != nil || got.Accepted != want {
				t.Fatalf("%v to port %d: %+v %v, want %v", src.Addr(), 80+i, got, err, want)
			}
		}
	}
}

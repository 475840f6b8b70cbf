package differential

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
)

// corruption is one thing of a program that is made wrong.
type corruption struct {
	kind    string // "rule", "set row", "class", "decision"
	what    string
	program *rules.Program
	ends    []near                      // whose packets may come there
	aim     func(*aimer, target) []near // at it: also who should send, nil for any of ends
	changed []rules.Rule                // what stands in place of a rule
	set     *rules.Set                  // or of a set
	also    string                      // a chain that packets come to that did not before
}

// aimedShots is how many packets are aimed at a corruption.
const aimedShots = 1000

// tally counts corruptions of one kind.
type tally struct{ tried, void, caught, grid, missed int }

// TestCorruption makes one thing after another of random programs wrong, and
// sends packets that are aimed at it: those that the oracle disagrees with, by
// the verdict, by the counters of rules or by the mark, show it. What changes
// nothing for any packet of a grid is void: it is shadowed, or says twice what
// is said elsewhere. The grid has one packet for each combination of values
// that neither the program nor the corruption tells from others; what no aimed
// packet shows is put to the oracle with the one that it changes something
// for. Plain and compiled programs take turns; each has both families.
func TestCorruption(t *testing.T) {
	clusters, each := uint64(10), 5
	switch {
	case underRace:
		clusters, each = 4, 4
	case inCI():
		clusters, each = 24, 8
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	total, lock, shards := map[string]*tally{}, sync.Mutex{}, runtime.GOMAXPROCS(0)
	var next atomic.Uint64 // cluster
	t.Run("all", func(t *testing.T) {
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < clusters && !t.Failed(); seed = next.Add(1) - 1 {
					for kind, n := range corruptCluster(t, seed, each) {
						lock.Lock()
						if total[kind] == nil {
							total[kind] = &tally{}
						}
						total[kind].add(n)
						lock.Unlock()
					}
				}
			})
		}
	})
	all := tally{}
	for _, kind := range slices.Sorted(maps.Keys(total)) {
		n := total[kind]
		all.add(n)
		t.Logf("%-16s %5d tried, %5d void, %5d caught, %3d of them by the grid alone, %3d missed", kind, n.tried, n.void, n.caught, n.grid, n.missed)
		if inCI() && !underRace && n.caught < 20 {
			t.Errorf("%s: %d that mean something are too few to tell", kind, n.caught+n.missed)
		}
	}
	t.Logf("%.2f %% of %d that mean something are caught", 100*float64(all.caught)/float64(all.caught+all.missed), all.caught+all.missed)
	if !underRace && 99*all.missed > all.caught || all.caught == 0 {
		t.Errorf("%d caught, %d missed", all.caught, all.missed)
	}
}

func (t *tally) add(o *tally) {
	t.tried, t.void, t.caught, t.grid, t.missed = t.tried+o.tried, t.void+o.void, t.caught+o.caught, t.grid+o.grid, t.missed+o.missed
}

// corruptCluster makes some things of a cluster's program wrong, of each kind
// until as many meant something, or thrice as many were tried.
func corruptCluster(t *testing.T, seed uint64, each int) map[string]*tally {
	c := newCluster(seed)
	cfg := settings(seed, seed%2 == 1)
	cfg.Encapsulations = nil // those are dropped whatever policy says
	program := rules.Render(cfg, c.tables)
	right, err := nft.NewMachine(program)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	a := &aimer{newAtlas(program, c.tables.Endpoints), rand.New(rand.NewPCG(seed, 13))}
	out := map[string]*tally{}
	if len(a.ends) == 0 {
		return out
	}
	g, traced := newGrid(a.atlas), rules.NewTracer(program)
	by := map[string][]corruption{}
	for _, x := range slices.Concat(a.corruptRules(), a.corruptSets()) {
		by[x.kind] = append(by[x.kind], x)
	}
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		n, list := &tally{}, by[kind]
		a.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, x := range list[:min(3*each, len(list))] {
			if n.caught+n.missed == each {
				break
			}
			n.tried++
			wrong, err := nft.NewMachine(x.program)
			if err != nil { // no bytes can say it: refused before the kernel sees it
				n.caught++
				continue
			}
			if c.catches(t, a, cfg, [2]*nft.Machine{right, wrong}, x, g.sampler(x)) {
				n.caught++
			} else if s, ok := g.differs(traced, x); !ok {
				n.void++
			} else if c.wrong(a, cfg, wrong, s) {
				n.caught++
				n.grid++
			} else {
				n.missed++
				t.Logf("seed %d: missed: %s: %v", seed, x.what, s)
			}
		}
		out[kind] = n
	}
	return out
}

// catches sends packets that are aimed at a corruption, half of them at random
// of those that the grid has for it, and asks the oracle who is wrong where the
// right machine and the other disagree.
func (c *cluster) catches(t *testing.T, a *aimer, cfg rules.Config, m [2]*nft.Machine, x corruption, any func(*rand.Rand) (shot, bool)) bool {
	for i := range aimedShots {
		to := target{}
		ends := x.aim(a, to)
		if len(ends) == 0 {
			ends = x.ends
		}
		s, ok := a.shot(ends, to)
		if i%2 == 1 {
			s, ok = any(a.Rand)
		}
		if !ok {
			continue
		}
		p := a.packet(s)
		right, got := trace(t, m[0], p), outcome{}
		wrong, err := m[1].Trace(p)
		if got = outcomeOf(wrong); err == nil && got == outcomeOf(right) {
			continue
		}
		if want := c.expect(s, cfg); err == nil && got == want {
			t.Errorf("seed %d: %v: the program that is right came to %+v, and with %s to %+v, as the oracle says", c.seed, s, outcomeOf(right), x.what, want)
		}
		return true
	}
	return false
}

// wrong reports whether the oracle says of a packet that a corrupted machine
// comes to the wrong end.
func (c *cluster) wrong(a *aimer, cfg rules.Config, m *nft.Machine, s shot) bool {
	got, err := m.Trace(a.packet(s))
	return err != nil || outcomeOf(got) != c.expect(s, cfg)
}

// differs looks for a packet of the grid that a corruption changes anything
// for.
func (g *grid) differs(right *rules.Tracer, x corruption) (found shot, ok bool) {
	wrong := rules.NewTracer(x.program)
	g.shots(x, func(s shot) bool {
		p := g.packet(s)
		one, err1 := right.Trace(p)
		two, err2 := wrong.Trace(p)
		if ok = err1 != nil || err2 != nil || outcomeOf(one) != outcomeOf(two); ok {
			found = s
		}
		return !ok
	})
	return found, ok
}

// corruptRules makes each rule wrong in each way: its verdict, each match, the
// edges of what it matches.
func (a *atlas) corruptRules() []corruption {
	var out []corruption
	forwards := a.forwards()
	for _, name := range slices.Sorted(maps.Keys(a.Chains)) {
		chain := a.Chains[name]
		if !forwards[name] {
			continue
		}
		for i, r := range chain.Rules {
			add := func(what string, to *rules.Rule) {
				list := slices.Clone(chain.Rules)
				if to == nil {
					list = slices.Delete(list, i, i+1)
				} else {
					list[i] = *to
				}
				bad, changed := *chain, []rules.Rule(nil)
				if bad.Rules = list; to != nil {
					changed = []rules.Rule{*to}
				}
				p := &rules.Program{Chains: maps.Clone(a.Chains), Sets: a.Sets, Counters: a.Counters}
				p.Chains[name] = &bad
				out = append(out, corruption{
					kind: "rule", what: fmt.Sprintf("%s of %s[%d] %v", what, name, i, r), program: p, ends: a.from(name), changed: changed,
					aim: func(a *aimer, to target) []near {
						near := a.before(to, a.from(name))
						a.rule(to, r)
						return a.marked(to, near)
					},
				})
			}
			add("without the whole", nil)
			for _, bad := range badVerdicts(r) {
				add("another verdict", &bad)
			}
			for j := range r.Matches {
				wrong := badMatches(r.Matches[j])
				for _, what := range slices.Sorted(maps.Keys(wrong)) {
					m, bad := wrong[what], r
					bad.Matches = slices.Clone(r.Matches)
					if m == nil {
						bad.Matches = slices.Delete(bad.Matches, j, j+1)
					} else {
						bad.Matches[j] = *m
					}
					add(what+" "+r.Matches[j].String(), &bad)
				}
			}
		}
	}
	return out
}

// forwards are the chains that forwarded packets may come to. Those that look
// for forged senders before are not for policy.
func (a *atlas) forwards() map[string]bool {
	out := map[string]bool{}
	for name, c := range a.Chains {
		if c.Hook != nil && c.Hook.Point == rules.Forward {
			a.reachable(name, out)
		}
	}
	return out
}

func (a *atlas) reachable(chain string, out map[string]bool) {
	if out[chain] || a.Chains[chain] == nil {
		return
	}
	out[chain] = true
	for _, r := range a.Chains[chain].Rules {
		for _, s := range r.Do {
			switch s := s.(type) {
			case rules.Jump:
				a.reachable(s.Chain, out)
			case rules.Goto:
				a.reachable(s.Chain, out)
			case rules.Dispatch:
				for _, e := range a.Sets[s.Map].Elements {
					a.reachable(e.Name, out)
				}
			}
		}
	}
}

// badVerdicts are a rule with another end.
func badVerdicts(r rules.Rule) []rules.Rule {
	var out []rules.Rule
	for i, s := range r.Do {
		var to rules.Statement
		switch s.(type) {
		case rules.Accept, rules.Return:
			to = rules.Drop{}
		case rules.Drop, rules.Reject, rules.Jump, rules.Goto, rules.Dispatch:
			to = rules.Accept{}
		default:
			continue
		}
		bad := r
		bad.Do = slices.Clone(r.Do)
		bad.Do[i] = to
		out = append(out, bad)
	}
	return out
}

// badMatches are a match that is another, or nil for none at all.
func badMatches(m rules.Match) map[string]*rules.Match {
	not := m
	not.Not = !m.Not
	out := map[string]*rules.Match{"without": nil, "the opposite of": &not}
	if len(m.In) == 0 || m.Fields[0] == rules.InInterface || m.Fields[0] == rules.OutInterface {
		return out
	}
	less, more := m, m
	less.In, more.In = slices.Clone(m.In), slices.Clone(m.In)
	last := len(m.In) - 1
	if r := &less.In[last]; r.Lo == r.Hi {
		less.In = less.In[:last]
	} else {
		r.Hi = step(r.Hi, -1)
	}
	if r := &more.In[last]; strings.Count(r.Hi, string([]byte{0xff})) < len(r.Hi) {
		r.Hi = step(r.Hi, 1)
		out["more than"] = &more
	}
	if len(less.In) > 0 {
		out["less than"] = &less
	}
	return out
}

// corruptSets makes each row of each set wrong: leaves it out, moves it by
// one, or gives it another value.
func (a *atlas) corruptSets() []corruption {
	var out []corruption
	forwards := a.forwards()
	for _, name := range slices.Sorted(maps.Keys(a.Sets)) {
		s := a.Sets[name]
		forwarded := slices.ContainsFunc(a.users[name], func(u user) bool { return forwards[u.chain] })
		if s.Table != rules.IP || s.Value == rules.CounterValue || !forwarded {
			continue
		}
		kind := "set row"
		switch {
		case s.Key[0] == rules.MarkType:
			kind = "decision"
		case s.Value == rules.NumberValue:
			kind = "class"
		}
		for _, key := range a.keys[name] {
			e := s.Elements[key]
			for _, bad := range a.badElements(s, e) {
				wrong := *s
				wrong.Elements = maps.Clone(s.Elements)
				delete(wrong.Elements, key)
				if bad != nil {
					wrong.Elements[bad.Lo] = *bad
				}
				p := &rules.Program{Chains: a.Chains, Sets: maps.Clone(a.Sets), Counters: a.Counters}
				p.Sets[name] = &wrong
				what, also := "no "+s.Element(e), ""
				if bad != nil {
					what = s.Element(*bad) + " for " + s.Element(e)
					if s.Value == rules.ChainValue && bad.Name != e.Name {
						also = bad.Name
					}
				}
				x := a.atElement(kind, name+": "+what, p, name, e)
				x.set, x.also = &wrong, also
				out = append(out, x)
			}
		}
	}
	return out
}

// atElement is a corruption of an element of a set.
func (a *atlas) atElement(kind, what string, p *rules.Program, set string, e rules.Element) corruption {
	ends := map[near]bool{}
	for _, u := range a.users[set] {
		for _, n := range a.from(u.chain) {
			ends[n] = true
		}
	}
	all := slices.DeleteFunc(slices.Clone(a.ends), func(n near) bool { return !ends[n] })
	if s := a.Sets[set]; s.Key[0] == rules.MarkType {
		to := target{rules.Mark: e.Lo[:4]}
		if of := a.owners(to); len(of) > 0 {
			all = of
		}
	}
	if f := a.users[set][0].fields[0]; f == rules.InInterface || f == rules.OutInterface {
		name := strings.TrimRight(e.Lo[:16], "\x00")
		all = slices.DeleteFunc(all, func(n near) bool {
			return a.iface[n.addr] != name || (n.direction == desired.Egress) != (f == rules.InInterface)
		})
	}
	return corruption{kind: kind, what: what, program: p, ends: all, aim: func(a *aimer, to target) []near {
		u := one(a.Rand, a.users[set])
		near := a.before(to, all)
		for _, m := range a.Chains[u.chain].Rules[u.rule].Matches {
			if m.Set != set {
				a.satisfy(to, m)
			}
		}
		a.element(to, u.fields, a.Sets[set].Key, e, func(f rules.Field, v string) {
			switch a.IntN(8) {
			case 0:
				v = step(v, 1)
			case 1:
				v = step(v, -1)
			}
			to[f] = v
		})
		return a.marked(to, near)
	}}
}

// before chooses one of the ends now and then, and puts into the target what
// a rule asks for that judges its packets.
func (a *aimer) before(to target, ends []near) []near {
	n := one(a.Rand, ends)
	if list := a.judged[n]; len(list) > 0 && a.IntN(3) > 0 {
		if some := a.allowing[n]; len(some) > 0 && a.IntN(2) == 0 {
			list = some
		}
		a.rule(to, one(a.Rand, list))
		return []near{n}
	}
	return ends
}

// badElements are an element that is another, or nil for none.
func (a *atlas) badElements(s *rules.Set, e rules.Element) []*rules.Element {
	out := []*rules.Element{nil}
	if moved := e; s.Key[0] != rules.InterfaceType {
		if moved.Hi == "" {
			moved.Lo = step(e.Lo, 1)
		} else if e.Lo != e.Hi {
			moved.Hi = step(e.Hi, -1)
		}
		if _, taken := s.Elements[moved.Lo]; moved != e && (!taken || moved.Lo == e.Lo) {
			out = append(out, &moved)
		}
	}
	// The value of another: of a decision, if it can be, one with another verdict.
	const verdict = 1 << 29
	bad := e
	for _, key := range a.keys[s.Name] {
		o := s.Elements[key]
		if bad == e || (bad.Number^e.Number)&verdict == 0 && (o.Number^e.Number)&verdict != 0 {
			bad.Number, bad.Name = o.Number, o.Name
		}
	}
	if bad != e {
		out = append(out, &bad)
	}
	return out
}

// marked gives a flow that should have a mark the address that leads to it,
// and returns the ends whose packets get it: among others if it has none.
func (a *aimer) marked(to target, others []near) []near {
	mark, ok := to[rules.Mark]
	if !ok {
		return others
	}
	class := network.Uint32([]byte(mark)) &^ a.groupMask()
	var rows []func()
	for _, set := range slices.Sorted(maps.Keys(a.users)) {
		s := a.Sets[set]
		if s == nil || s.Value != rules.NumberValue || len(s.Key) != 1 || s.Key[0] == rules.MarkType {
			continue
		}
		for _, key := range a.keys[set] {
			if e := s.Elements[key]; e.Number == class {
				for _, u := range a.users[set] {
					rows = append(rows, func() {
						a.element(to, u.fields, s.Key, e, func(f rules.Field, v string) { to[f] = v })
					})
				}
			}
		}
	}
	ends := a.owners(to)
	if len(rows) > 0 && class != 0 {
		one(a.Rand, rows)()
	}
	delete(to, rules.Mark)
	return ends
}

// groupMask is the part of the mark that says whose packet it is.
func (a *atlas) groupMask() uint32 {
	mask := uint32(0)
	for _, c := range a.Chains {
		for _, r := range c.Rules {
			if s, ok := groupMark(r); ok {
				mask |= s.Mask
			}
		}
	}
	return mask
}

// groupMark finds the number of a group of endpoints in the rule that puts it
// into the mark.
func groupMark(r rules.Rule) (rules.SetMark, bool) {
	if len(r.Do) == 2 {
		s, ok := r.Do[0].(rules.SetMark)
		_, jumps := r.Do[1].(rules.Jump)
		return s, ok && jumps && s.Mask != ^uint32(0)
	}
	return rules.SetMark{}, false
}

// owners are the ends whose packets get the group of a mark.
func (a *atlas) owners(to target) []near {
	mark := network.Uint32([]byte(to[rules.Mark]))
	of := map[near]bool{}
	for name, c := range a.Chains {
		for _, r := range c.Rules {
			if s, ok := groupMark(r); ok && mark&s.Mask == s.Value {
				maps.Copy(of, a.reach[name])
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(a.ends), func(n near) bool { return !of[n] })
}

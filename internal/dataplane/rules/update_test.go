package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// play does what a back end does with a delta, as strictly as a kernel:
// nothing is added that is there, or removed that is not.
func (p *Program) play(d Delta) error {
	for name, s := range d.Sets {
		if err := p.playSet(name, s); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	d.Chains.Play(p.Chains)
	d.Counters.Play(p.Counters)
	return nil
}

func (p *Program) playSet(name string, d SetDelta) error {
	old := p.Sets[name]
	switch {
	case d.Gone && old == nil, d.Define != nil && old != nil, d.Define == nil && old == nil:
		return fmt.Errorf("gone %v, new %v, there %v", d.Gone, d.Define != nil, old != nil)
	case d.Gone:
		delete(p.Sets, name)
		return nil
	case d.Define != nil:
		fresh := *d.Define
		fresh.Elements = maps.Clone(d.Define.Elements)
		old = &fresh
		p.Sets[name] = old
	}
	for _, e := range d.Remove {
		if old.Elements[e.Lo] != e {
			return fmt.Errorf("removes %s, which is not there", old.Element(e))
		}
		delete(old.Elements, e.Lo)
	}
	for _, e := range d.Add {
		if _, ok := old.Elements[e.Lo]; ok {
			return fmt.Errorf("adds %s, which is there", old.Element(e))
		}
		old.Elements[e.Lo] = e
	}
	return nil
}

// sound checks that all that is referred to is there and of the right kind,
// that ranges are disjoint, and that rules make sure of what they look at.
func (p *Program) sound() error {
	for name, c := range p.Chains {
		if name != c.Name {
			return fmt.Errorf("chain %s is under %s", c.Name, name)
		}
		for i, r := range c.Rules {
			if err := p.soundRule(c, r); err != nil {
				return fmt.Errorf("chain %s, rule %d: %w", name, i, err)
			}
		}
	}
	for _, s := range p.Sets {
		for _, e := range s.Elements {
			_, counter := p.Counters[e.Name]
			if there := s.Value == ChainValue && p.Chains[e.Name] != nil || s.Value == CounterValue && counter; e.Name != "" && !there {
				return fmt.Errorf("map %s: no %s", s.Name, e.Name)
			}
		}
		if err := s.disjoint(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) disjoint() error {
	if !s.Interval {
		return nil
	}
	list := sorted(s.Elements)
	for i := range list {
		for _, o := range list[:i] {
			if within(list[i].Lo, o, s.Key) || within(o.Lo, list[i], s.Key) {
				return fmt.Errorf("set %s: %s and %s overlap", s.Name, s.Element(o), s.Element(list[i]))
			}
		}
	}
	return nil
}

func (p *Program) soundRule(c *Chain, r Rule) error {
	seen := map[Field]bool{}
	for _, m := range r.Matches {
		for i, f := range m.Fields {
			needs := Protocol
			switch f {
			case Source4, Destination4, Source6, Destination6:
				needs = Family
			case SourcePort, DestinationPort, ICMPType, ICMPCode, NDTarget, VNI:
			default:
				needs = 0
			}
			if needs != 0 && !seen[needs] {
				return fmt.Errorf("%v before %v", f, needs)
			}
			if !m.Not && m.Set == "" || f == Protocol && m.Set == "" {
				seen[f] = true
			}
			if m.Set == "" {
				continue
			}
			if s := p.Sets[m.Set]; s == nil || s.Table != c.Table || len(s.Key) != len(m.Fields) || s.Key[i] != f.Type() {
				return fmt.Errorf("no set %s with key %v", m.Set, m.Fields)
			}
		}
		for i := range m.In {
			if m.In[i].Lo > m.In[i].Hi || i > 0 && m.In[i-1].Hi >= m.In[i].Lo {
				return fmt.Errorf("%v: ranges out of order", m)
			}
		}
	}
	for _, s := range r.Do {
		there := true
		switch s := s.(type) {
		case Count:
			o, ok := p.Counters[s.Counter]
			there = ok && o.Table == c.Table
		case Jump:
			there = p.Chains[s.Chain] != nil
		case Goto:
			there = p.Chains[s.Chain] != nil
		case SourceNAT:
			there = s.Ports.Max == 0 || seen[Protocol]
		case Dispatch:
			there = p.Sets[s.Map] != nil && p.Sets[s.Map].Value == ChainValue
		case MarkBy:
			there = p.Sets[s.Map] != nil && p.Sets[s.Map].Value == NumberValue
		case CountBy:
			there = p.Sets[s.Map] != nil && p.Sets[s.Map].Value == CounterValue
		}
		if !there {
			return fmt.Errorf("%v: not there", s)
		}
	}
	return nil
}

// TestUpdate: after any history, a program brought up to date by patches is
// the one that is made in one go, so is one that only plays the deltas, and
// nothing is in a delta that did not change.
func TestUpdate(t *testing.T) {
	seeds, steps := 120, 15
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		w := newWorld(uint64(seed))
		w.missing = seed%2 == 0
		cfg := testConfig()
		cfg.smallChunks = seed%4 < 2
		if seed%3 == 0 {
			cfg.LogPrefix = "%t %k %p"
		}
		b := New(cfg, &w.policy)
		mirror := Render(cfg, &w.policy)
		for step := range steps {
			patch := w.step(6)
			if seed%5 == 0 {
				patch.Play(w.policy)
				more := w.step(6)
				more.Play(w.policy)
				if !patch.Merge(more) { // a driver starts anew then
					b, mirror = New(cfg, &w.policy), Render(cfg, &w.policy)
					continue
				}
			} else {
				patch.Play(w.policy)
			}
			d := b.Update(&w.policy, &patch)
			cfg.NAT.Begun = b.Translates()
			want := Render(cfg, &w.policy)
			if err := want.sound(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			if diff := difference(b.Program().String(), want.String()); diff != "" {
				t.Fatalf("seed %d, step %d: updated (-) against made anew (+):\n%s", seed, step, diff)
			}
			if err := mirror.play(d); err != nil {
				t.Fatalf("seed %d, step %d: delta: %v", seed, step, err)
			}
			if diff := difference(mirror.String(), want.String()); diff != "" {
				t.Fatalf("seed %d, step %d: deltas (-) against made anew (+):\n%s", seed, step, diff)
			}
			if d := b.Update(&w.policy, &patch); !d.Empty() {
				t.Fatalf("seed %d, step %d: the same patch again changes something: %v\n%v", seed, step, d, patch.Sets)
			}
		}
	}
}

func difference(a, b string) string {
	if a == b {
		return ""
	}
	in := map[string]int{}
	for l := range strings.Lines(a) {
		in[l]--
	}
	for l := range strings.Lines(b) {
		in[l]++
	}
	var out strings.Builder
	for _, l := range slices.Sorted(maps.Keys(in)) {
		switch {
		case in[l] < 0:
			out.WriteString("- " + l)
		case in[l] > 0:
			out.WriteString("+ " + l)
		}
	}
	if out.Len() == 0 {
		return "the same lines in another order"
	}
	return out.String()
}

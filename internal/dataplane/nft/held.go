package nft

import (
	"fmt"
	"maps"
	"slices"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// held is what the driver has to know of the program that the kernel holds to
// make edits from what changes in it.
type held struct {
	chains   map[string]heldChain
	sets     map[string]rules.Set // without elements
	counters map[string]rules.Table
	users    map[string]int // rules' lists of values: by how many chains
	reach    *reach
}

type heldChain struct {
	table  rules.Table
	base   *base
	inline []string
}

func idOf(t rules.Table) tableID {
	if t == rules.ARP {
		return arp
	}
	return inet
}

// lowerProgram translates a whole program into what the kernel should hold.
func lowerProgram(p *rules.Program) (*image, *held, error) {
	reach := reached(p)
	p = reach.program(p)
	im := newImage()
	im.tables[inet], im.tables[arp] = newTable(), newTable()
	h := &held{map[string]heldChain{}, map[string]rules.Set{}, map[string]rules.Table{}, map[string]int{}, reach}
	find := func(name string) (rules.Set, bool) {
		s, ok := p.Sets[name]
		if !ok {
			return rules.Set{}, false
		}
		return *s, true
	}
	for name, c := range p.Chains {
		l, err := lowerChain(c, find)
		if err != nil {
			return nil, nil, err
		}
		t := im.tables[idOf(c.Table)]
		t.chains[name] = l.chain
		h.chains[name] = l.held(c.Table)
		for name, s := range l.inline {
			if h.users[name]++; h.users[name] == 1 {
				if t.sets[name], err = s.lower(); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	for name, s := range p.Sets {
		made, err := lowerSet(s)
		if err != nil {
			return nil, nil, err
		}
		im.tables[idOf(s.Table)].sets[name] = made
		h.sets[name] = withoutElements(s)
	}
	for name, c := range p.Counters {
		im.tables[idOf(c.Table)].counters[name] = object{note: counterNote(c)}
		h.counters[name] = c.Table
	}
	return im, h, nil
}

func (l *lowered) held(t rules.Table) heldChain {
	return heldChain{t, l.chain.base, slices.Sorted(maps.Keys(l.inline))}
}

func withoutElements(s *rules.Set) rules.Set {
	c := *s
	c.Elements = nil
	return c
}

// counterNote says for people what a counter counts.
func counterNote(c rules.Counter) string {
	if c.What != "" {
		return c.What
	}
	return fmt.Sprintf("%s, %v rule %d", c.Rule.Owner, c.Rule.Direction, c.Index)
}

// lowerSet translates a set and its elements.
func lowerSet(s *rules.Set) (*set, error) {
	made, err := lowerShape(s)
	if err != nil {
		return nil, err
	}
	made.list = make([]member, 0, len(s.Elements))
	for _, e := range s.Elements {
		if made.list, err = lowerElem(made.list, s, e); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// A pending is what of held changes if the kernel takes the edits.
type pending struct {
	chains   map[string]*heldChain // nil: gone
	sets     map[string]*rules.Set
	counters map[string]*rules.Table
	users    map[string]int // by how much they change
	inline   map[string]inline
}

// change makes edits from a delta that has led to a program. Of what the kernel
// holds it changes nothing: settle does, once the kernel has taken them.
func (h *held) change(program *rules.Program, d rules.Delta) ([]*edit, *pending, error) {
	d = h.reach.change(program, d)
	p := &pending{
		map[string]*heldChain{}, map[string]*rules.Set{}, map[string]*rules.Table{}, map[string]int{},
		map[string]inline{},
	}
	edits := map[tableID]*edit{inet: newEdit(inet), arp: newEdit(arp)}
	if err := h.changeChains(d, p, edits); err != nil {
		return nil, nil, err
	}
	if err := h.changeSets(d, p, edits); err != nil {
		return nil, nil, err
	}
	for _, name := range d.Counters.Delete {
		if t, ok := h.counters[name]; ok {
			edits[idOf(t)].dropCounter[name] = true
			p.counters[name] = nil
		}
	}
	for name, c := range d.Counters.Set {
		if _, ok := h.counters[name]; !ok {
			edits[idOf(c.Table)].counters[name] = counterNote(c)
			p.counters[name] = &c.Table
		}
	}
	return []*edit{edits[inet], edits[arp]}, p, nil
}

func (h *held) changeChains(d rules.Delta, p *pending, edits map[tableID]*edit) error {
	for _, name := range d.Chains.Delete {
		old, ok := h.chains[name]
		if !ok {
			continue
		}
		e := edits[idOf(old.table)]
		e.flush[name], e.dropChains[name] = true, true
		p.chains[name] = nil
		p.use(old.inline, -1)
	}
	find := func(name string) (rules.Set, bool) {
		if s := d.Sets[name]; s.Define != nil {
			return *s.Define, true
		}
		s, ok := h.sets[name]
		return s, ok
	}
	for name, c := range d.Chains.Set {
		l, err := lowerChain(c, find)
		if err != nil {
			return err
		}
		now := l.held(c.Table)
		p.chains[name] = &now
		maps.Copy(p.inline, l.inline)
		p.use(now.inline, 1)
		e := edits[idOf(c.Table)]
		old, ok := h.chains[name]
		switch {
		case !ok:
			e.addChain(name, l.chain)
			continue
		case old.table == c.Table && sameBase(old.base, now.base):
			e.flush[name], e.rules[name] = true, l.chain.rules
		default:
			was := edits[idOf(old.table)]
			was.flush[name], was.dropChains[name] = true, true
			e.addChain(name, l.chain)
		}
		p.use(old.inline, -1)
	}
	for name, by := range p.users {
		before := h.users[name]
		switch after := before + by; {
		case before == 0 && after > 0:
			made, err := p.inline[name].lower()
			if err != nil {
				return err
			}
			edits[idOf(p.inline[name].Table)].addSet(name, made)
		case before > 0 && after == 0:
			edits[inlineTable(name)].dropSets[name] = true
		}
	}
	return nil
}

func (p *pending) use(inline []string, by int) {
	for _, name := range inline {
		p.users[name] += by
	}
}

func (h *held) changeSets(d rules.Delta, p *pending, edits map[tableID]*edit) error {
	for name, s := range d.Sets {
		old, there := h.sets[name]
		switch {
		case s.Gone && there:
			edits[idOf(old.Table)].dropSets[name] = true
			p.sets[name] = nil
		case s.Gone:
		case s.Define != nil:
			if there {
				edits[idOf(old.Table)].dropSets[name] = true
			}
			made, err := lowerShape(s.Define)
			if err != nil {
				return err
			}
			e := edits[idOf(s.Define.Table)]
			e.addSet(name, made)
			if err := e.changeElems(s.Define, rules.SetDelta{Add: s.Define.Sorted()}); err != nil {
				return err
			}
			now := withoutElements(s.Define)
			p.sets[name] = &now
		case !there:
			return fmt.Errorf("set %s is not there to be changed: %w", name, errNoForm)
		default:
			if err := edits[idOf(old.Table)].changeElems(&old, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// changeElems takes elements out of a set and puts others in. An interval goes
// or comes whole, since the kernel refuses an end between a beginning and an
// end, even if the latter is about to go.
func (e *edit) changeElems(s *rules.Set, d rules.SetDelta) error {
	gone, made := make([]member, 0, len(d.Remove)), make([]member, 0, len(d.Add))
	var err error
	for _, x := range d.Remove {
		if gone, err = lowerElem(gone, s, x); err != nil {
			return err
		}
	}
	for _, x := range d.Add {
		if made, err = lowerElem(made, s, x); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		e.dropElems[s.Name] = gone
	}
	if len(made) > 0 {
		e.elems[s.Name] = made
	}
	return nil
}

// settle brings held up to date.
func (p *pending) settle(h *held) {
	settle(h.chains, p.chains)
	settle(h.sets, p.sets)
	settle(h.counters, p.counters)
	for name, by := range p.users {
		if h.users[name] += by; h.users[name] == 0 {
			delete(h.users, name)
		}
	}
}

func settle[V any](to map[string]V, p map[string]*V) {
	for name, v := range p {
		if v == nil {
			delete(to, name)
		} else {
			to[name] = *v
		}
	}
}

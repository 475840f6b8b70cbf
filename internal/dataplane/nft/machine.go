package nft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// Machine is nf_tables in user space: it sends packets through tables as the
// kernel does. All that it knows it has read from the bytes that the kernel
// gets, so what it says is what those bytes mean, whatever the program meant
// that they were made of. Limits are never reached in it. It is for one
// goroutine at a time.
type Machine struct {
	image *image
	order map[*set][]elemID    // of sets of intervals with one field
	bases map[hookKey][]string // chains at a hook in the order of their priorities
}

// hookKey is a hook of a table.
type hookKey struct {
	table *table
	hook  uint32
}

// ErrUnsound says that what a packet met refers to something that is not
// there, or is nothing that the machine knows.
var ErrUnsound = errors.New("unsound rules")

// NewMachine returns the machine of a program: it is translated and written
// down as for a kernel that holds nothing yet, and what was written is read.
func NewMachine(p *rules.Program) (*Machine, error) {
	want, _, err := lowerProgram(p)
	if err != nil {
		return nil, fmt.Errorf("translate policy: %w", err)
	}
	var b batch
	for _, id := range []tableID{inet, arp} {
		difference(id, nil, want.tables[id]).write(&b)
	}
	im := newImage()
	if err := im.play(&b); err != nil {
		return nil, fmt.Errorf("read what was written for the kernel: %w", err)
	}
	return newMachine(im), nil
}

// Enforced returns the machine of what the kernel holds at this moment.
func (d *Driver) Enforced() (*Machine, error) {
	im, _, err := d.look.readImage()
	if err != nil {
		return nil, fmt.Errorf("read nftables: %w", err)
	}
	return newMachine(im), nil
}

func newMachine(im *image) *Machine {
	m := &Machine{im, map[*set][]elemID{}, map[hookKey][]string{}}
	for _, t := range im.tables {
		for _, c := range t.chains {
			if c.base == nil {
				continue
			}
			if at := (hookKey{t, c.base.hook}); m.bases[at] == nil {
				m.bases[at] = t.bases(c.base.hook)
			}
		}
		for _, s := range t.sets {
			if s.flags&unix.NFT_SET_INTERVAL != 0 && s.fields == "" {
				m.order[s] = sortedElems(s.elems)
			}
		}
	}
	return m
}

// Way through the hooks (linux/netfilter.h), by rules.Way.
var ways = [...][]uint32{
	rules.Forwarded: {unix.NF_INET_PRE_ROUTING, unix.NF_INET_FORWARD, unix.NF_INET_POST_ROUTING},
	rules.ToHost:    {unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_IN},
	rules.FromHost:  {unix.NF_INET_LOCAL_OUT, unix.NF_INET_POST_ROUTING},
	rules.ARPIn:     {0},
	rules.ARPOut:    {1},
}

// priorityConntrack is where connections are looked up: chains before know
// nothing of them (NF_IP_PRI_CONNTRACK).
const priorityConntrack = -200

// Trace sends a packet through all hooks on its way. Steps count the rules of
// the kernel, which may be more than those of the program. An error wraps
// ErrUnsound.
func (m *Machine) Trace(p rules.Packet) (rules.Trace, error) {
	id := inet
	if p.Way >= rules.ARPIn {
		id = arp
	}
	w := &walk{machine: m, packet: frame(p)}
	w.trace.Mark = p.Mark
	if w.table = m.image.tables[id]; w.table == nil || int(p.Way) >= len(ways) {
		return w.trace, fmt.Errorf("no table %v: %w", id, ErrUnsound)
	}
	for _, hook := range ways[p.Way] {
		for _, name := range m.bases[hookKey{w.table, hook}] {
			c := w.table.chains[name]
			if c.base.nat && (w.packet.state&stateNew == 0 || w.trace.NAT != nil) {
				continue // only the first packet of a connection comes by
			}
			w.enter(id, hook, c.base.priority)
			end, err := w.chain(name, 0)
			if err != nil {
				return w.trace, err
			}
			if end.code == goReturn && c.base.drops {
				end.code = drop
			}
			if end.code == drop {
				return w.trace, nil
			}
		}
	}
	w.trace.Accepted = true
	return w.trace, nil
}

// bases returns the chains at a hook in the order of their priorities.
func (t *table) bases(hook uint32) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(t.chains)) {
		if b := t.chains[name].base; b != nil && b.hook == hook {
			list = append(list, name)
		}
	}
	slices.SortStableFunc(list, func(a, b string) int {
		return cmp.Compare(t.chains[a].base.priority, t.chains[b].base.priority)
	})
	return list
}

// A walk is a packet on its way.
type walk struct {
	machine *Machine
	table   *table
	packet  packet
	known   bool // connection tracking has seen the packet
	in, out string
	regs    [regBytes]byte
	trace   rules.Trace
}

// enter makes known what is known at a hook.
func (w *walk) enter(id tableID, hook uint32, priority int32) {
	w.in, w.out = w.packet.in, w.packet.out
	if id != inet {
		return
	}
	first := hook == unix.NF_INET_PRE_ROUTING || hook == unix.NF_INET_LOCAL_OUT
	w.known = !first || priority > priorityConntrack
	switch hook {
	case unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_IN:
		w.out = ""
	case unix.NF_INET_LOCAL_OUT:
		w.in = ""
	case unix.NF_INET_POST_ROUTING:
		w.in = ""
	}
}

// maxDepth is how far chains may jump (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// chain goes through a chain. At its end it returns goReturn.
func (w *walk) chain(name string, depth int) (verdict, error) {
	c := w.table.chains[name]
	if c == nil || depth > maxDepth {
		return verdict{}, fmt.Errorf("chain %s at depth %d: %w", name, depth, ErrUnsound)
	}
	for i, r := range c.rules {
		v, err := w.rule(name, i, r)
		if err != nil {
			return verdict{}, fmt.Errorf("chain %s, rule %d: %w", name, i, err)
		}
		switch v.code {
		case goOn:
			continue
		case jump:
			end, err := w.chain(v.chain, depth+1)
			if err != nil || end.code != goReturn {
				return end, err
			}
		case goTo:
			return w.chain(v.chain, depth+1)
		default:
			return v, nil
		}
	}
	return verdict{code: goReturn}, nil
}

// rule does the expressions of a rule, up to the first that ends it.
func (w *walk) rule(chain string, i int, r rule) (verdict, error) {
	step := rules.Step{Chain: chain, Rule: i}
	for _, e := range r.exprs {
		v, err := w.expr(e, &step)
		if err != nil {
			return v, err
		}
		switch v.code {
		case goOn:
		case broken:
			if step.Counter != "" || step.Log != "" {
				w.trace.Steps = append(w.trace.Steps, step)
			}
			return verdict{code: goOn}, nil
		default:
			step.Do = v.String()
			w.trace.Steps = append(w.trace.Steps, step)
			return v, nil
		}
	}
	w.trace.Steps = append(w.trace.Steps, step)
	return verdict{code: goOn}, nil
}

// String writes "accept", "goto x".
func (v verdict) String() string {
	switch v.code {
	case drop:
		return "drop"
	case accept:
		return "accept"
	case jump:
		return "jump " + v.chain
	case goTo:
		return "goto " + v.chain
	case goReturn:
		return "return"
	}
	return fmt.Sprintf("verdict %d", v.code)
}

package ipam

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// suspect is something that may be garbage, in exactly the state in which it
// was first seen: any change of it makes another suspect.
type suspect struct {
	kind  string // "address", "handle", "lacking", "affinity", "block"
	what  string
	state string
}

// suspicion is how long something has been suspect without a break.
type suspicion struct {
	since time.Duration // on the collector's own clock
	seen  int           // how many scans in a row
}

// facts is what one scan knows.
type facts struct {
	uptime   time.Duration // never steps
	host     string        // only this host's addresses are judged; "": everything
	inv      *inventory
	users    *users
	agents   map[string]Attachments
	settings *Settings
	now      time.Time
}

// plan is what one scan may clean up, sorted.
type plan struct {
	handles    [][]ReleaseOptions // per handle all its addresses
	leftovers  []leftover         // handles that have no addresses
	lacking    []string           // handles that count too little
	affinities []affinityFix
	idle       []netip.Prefix // blocks to sweep: cooled down, or nobody's
}

type leftover struct {
	id  string
	rev store.Revision
}

type affinityFix struct {
	id      store.AffinityID
	rev     store.Revision // nothing is done if it has changed since
	confirm bool           // finish a claim; else finish a release
	ifEmpty bool
}

// decide is one scan: which suspects there are now, and which of them have
// been so for long enough. It has no side effects.
func decide(before map[suspect]suspicion, f facts, grace time.Duration) (now map[suspect]suspicion, p plan) {
	d := &decision{facts: f, before: before, now: map[suspect]suspicion{}, grace: grace}
	d.addresses()
	if f.host == "" {
		d.countedHandles()
		d.blocks()
	}
	return d.now, d.plan
}

type decision struct {
	facts
	before, now map[suspect]suspicion
	grace       time.Duration
	plan        plan
}

// suspect notes a suspect and reports whether it has been one for long enough:
// seen twice at least, and for the whole grace period.
func (d *decision) suspect(s suspect) bool {
	is, known := d.before[s]
	if !known {
		is.since = d.uptime
	}
	is.seen++
	d.now[s] = is
	return is.seen >= 2 && d.uptime-is.since >= d.grace
}

// addresses decides about addresses: all of a handle or none.
func (d *decision) addresses() {
	type group struct {
		options []ReleaseOptions
		keep    bool
	}
	groups := map[string]*group{}
	for _, b := range d.inv.blocks {
		for _, u := range b.Uses() {
			v := judge(b, u, d.users, d.agents)
			if v.standing == CoolingDown {
				continue
			}
			handle := cleanHandle(u.Attribute.Handle)
			name := handle
			if name == "" {
				name = "address " + u.Addr.String()
			}
			g := groups[name]
			if g == nil {
				g = &group{}
				groups[name] = g
			}
			g.options = append(g.options, ReleaseOptions{Addr: u.Addr, Handle: handle, Sequence: u.Sequence})
			mine := d.host == "" || u.Attribute.Owner[AttrNode] == d.host
			if !mine || v.standing != Leaked || !d.suspect(suspectAddr(u)) {
				g.keep = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		if g := groups[name]; !g.keep {
			d.plan.handles = append(d.plan.handles, g.options)
		}
	}
}

func suspectAddr(u Use) suspect {
	return suspect{"address", u.Addr.String(), fmt.Sprintf("%s %d", u.Attribute.Handle, u.Sequence)}
}

func cleanHandle(h string) string {
	h, _, _ = strings.Cut(h, "\r")
	return h
}

// countedHandles decides about handles that no address has, and about those that
// do not count all their addresses.
func (d *decision) countedHandles() {
	if len(d.inv.broken) > 0 {
		return // a block that cannot be read may have addresses of any handle
	}
	counts := d.inv.countHandles()
	for _, id := range slices.Sorted(maps.Keys(d.inv.handles)) {
		rev := d.inv.handles[id].rev
		if counts[id] == nil && d.suspect(suspect{"handle", id, string(rev)}) {
			d.plan.leftovers = append(d.plan.leftovers, leftover{id, rev})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		have, rev := map[netip.Prefix]int(nil), store.Revision("")
		if h, ok := d.inv.handles[id]; ok {
			have, rev = h.blocks, h.rev
		}
		lacks := false
		for cidr, n := range counts[id] {
			lacks = lacks || have[cidr] < n
		}
		if lacks && d.suspect(suspect{"lacking", id, string(rev)}) {
			d.plan.lacking = append(d.plan.lacking, id)
		}
	}
}

// countHandles counts the addresses of each handle per block.
func (inv *inventory) countHandles() map[string]map[netip.Prefix]int {
	counts := map[string]map[netip.Prefix]int{}
	for _, b := range inv.blocks {
		for ord := range b.slots {
			id := b.handle(ord)
			if id == "" || id == WindowsReservedHandle {
				continue
			}
			if counts[id] == nil {
				counts[id] = map[netip.Prefix]int{}
			}
			counts[id][b.CIDR]++
		}
	}
	return counts
}

// blocks decides about affinities, empty blocks and cool-downs.
func (d *decision) blocks() {
	byCIDR := map[netip.Prefix]*Block{}
	for _, b := range d.inv.blocks {
		byCIDR[b.CIDR] = b
		due := b.clone().expire(d.facts.now, d.settings.Configuration.CoolDown)
		abandoned := b.Affinity == "" && b.empty()
		if due || abandoned {
			d.plan.idle = append(d.plan.idle, b.CIDR)
		}
	}
	usedBy := map[string]bool{} // hosts that use addresses, wherever
	for _, b := range d.inv.blocks {
		for _, u := range b.Uses() {
			usedBy[u.Attribute.Owner[AttrNode]] = true
		}
	}
	keep := map[hostFamily]int{} // how many blocks a host would have left
	affs := slices.Clone(d.inv.affinities)
	slices.SortFunc(affs, func(a, b namedAffinity) int {
		return cmp.Or(cmp.Compare(a.id.Owner, b.id.Owner), a.id.CIDR.Compare(b.id.CIDR))
	})
	d.orphans(affs)
	for _, a := range affs {
		if a.state == Confirmed {
			keep[hostFamily{a.id.Owner, familyOf(a.id.CIDR.Addr())}]++
		}
	}
	for _, a := range affs {
		b := byCIDR[a.id.CIDR]
		mine := b != nil && b.Affinity == affinityText(a.id)
		_, nodeThere := d.users.nodes[a.id.Owner]
		gone := !a.id.Virtual && !nodeThere
		left := hostFamily{a.id.Owner, familyOf(a.id.CIDR.Addr())}
		switch {
		case a.state != Confirmed || !mine:
			if d.suspect(suspectAffinity(a, "unfinished")) {
				d.plan.affinities = append(d.plan.affinities, d.finish(a, b, mine && !gone))
			}
		case gone && !usedBy[a.id.Owner]:
			if d.suspect(suspectAffinity(a, "gone")) {
				d.plan.affinities = append(d.plan.affinities, affinityFix{id: a.id, rev: a.rev})
			}
		case b.empty() && !a.id.Virtual && keep[left] > 1:
			if d.suspect(suspect{"block", b.CIDR.String(), fmt.Sprintf("%s %d", b.Affinity, b.Sequence)}) {
				keep[left]--
				d.plan.affinities = append(d.plan.affinities, affinityFix{id: a.id, rev: a.rev, ifEmpty: true})
			}
		}
	}
}

// orphans decides about blocks that name an owner who has no affinity for
// them, as a claim leaves whose last write comes very late.
func (d *decision) orphans(affs []namedAffinity) {
	has := map[string]bool{}
	for _, a := range affs {
		has[affinityText(a.id)+" "+a.id.CIDR.String()] = true
	}
	for _, b := range d.inv.blocks {
		id := store.AffinityID{Owner: cmp.Or(b.Host(), b.Virtual()), Virtual: b.Host() == "", CIDR: b.CIDR}
		if id.Owner == "" || has[b.Affinity+" "+b.CIDR.String()] {
			continue
		}
		if d.suspect(suspect{"block", b.CIDR.String(), "orphan " + b.Affinity}) {
			_, there := d.users.nodes[id.Owner]
			d.plan.affinities = append(d.plan.affinities, affinityFix{id: id, confirm: !b.empty() && (there || id.Virtual)})
		}
	}
}

func suspectAffinity(a namedAffinity, state string) suspect {
	return suspect{"affinity", a.id.Key(), state + " " + string(a.rev)}
}

// finish says how an affinity that was left half-way ends: confirmed when its
// host uses the block and may go on to, else released.
func (d *decision) finish(a namedAffinity, b *Block, mine bool) affinityFix {
	pool, known := d.settings.pool(a.id.CIDR)
	if mine && !b.empty() && (a.state == Pending || known && pool.Unusable == "") {
		return affinityFix{id: a.id, rev: a.rev, confirm: true}
	}
	return affinityFix{id: a.id, rev: a.rev}
}

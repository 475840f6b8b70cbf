package oracle

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// View is a snapshot made ready to ask many questions of. It does not see
// later changes of the snapshot.
type View struct {
	world
	tiers    []tier
	profiles map[string]*model.Profile
	services map[model.ServiceRef]*model.Service
	things   []thing
	byAddr   map[netip.Addr][]int // things by their single addresses, in order
	nets     []int                // things that have networks
	hosts    map[netip.Addr]string
	asked    map[asked][][]*model.Policy // nil: nothing is remembered
}

// asked is whose policies of a direction were looked for.
type asked struct {
	endpoint model.ID
	ingress  bool
}

// mostAsked is how many answers are remembered.
const mostAsked = 1 << 12

// Remembering is the view for one goroutine that asks much: which policies are
// for an endpoint is found once.
func (v *View) Remembering() *View {
	own := *v
	own.asked = map[asked][][]*model.Policy{}
	return &own
}

// policiesOf returns the policies of each tier that are for a workload in a
// direction, staged ones too.
func (v *View) policiesOf(x *model.Workload, ingress bool) [][]*model.Policy {
	out, known := v.asked[asked{x.ID, ingress}]
	if known {
		return out
	}
	labels := v.merged(x.Labels, x.Profiles)
	for _, t := range v.tiers {
		out = append(out, t.applicable(labels, ingress))
	}
	if len(v.asked) == mostAsked {
		clear(v.asked)
	}
	if v.asked != nil {
		v.asked[asked{x.ID, ingress}] = out
	}
	return out
}

// tier is a tier with its policies, both in order.
type tier struct {
	name     string
	missing  bool
	pass     bool
	lost     bool // nobody knows where it comes: it denies everything
	policies []*model.Policy
}

// thing is what a selector can select: a workload, a host endpoint or a
// network set.
type thing struct {
	id       model.ID
	labels   selector.Map
	workload *model.Workload // nil for the others
	ports    []model.NamedPort
	addrs    []netip.Addr
	nets     []netip.Prefix
}

// NewView makes a snapshot ready to ask of.
func NewView(s Snapshot) *View {
	return newView(newWorld(s, model.Settings{}))
}

func newView(w world) *View {
	v := &View{
		world: w, profiles: map[string]*model.Profile{}, services: map[model.ServiceRef]*model.Service{},
		byAddr: map[netip.Addr][]int{}, hosts: map[netip.Addr]string{},
	}
	for _, p := range each[*model.Profile](w) {
		v.profiles[p.Name] = p
	}
	for _, s := range each[*model.Service](w) {
		v.services[model.ServiceRef{Namespace: s.Namespace, Name: s.Name}] = s
	}
	for _, n := range each[*model.Node](w) {
		for _, a := range []netip.Addr{n.Addr4.Addr(), n.Addr6.Addr()} {
			if _, taken := v.hosts[a]; a.IsValid() && !taken {
				v.hosts[a] = n.Name
			}
		}
	}
	v.tiers = sortedTiers(w)
	v.addThings()
	return v
}

func (v *View) addThings() {
	for _, x := range each[*model.Workload](v.world) {
		v.things = append(v.things, thing{
			id: x.ID, labels: v.merged(x.Labels, x.Profiles), workload: x, ports: x.Ports, addrs: x.Addrs,
		})
	}
	for _, x := range each[*model.HostEndpoint](v.world) {
		v.things = append(v.things, thing{
			id: x.ID, labels: v.merged(x.Labels, x.Profiles), ports: x.Ports, addrs: x.Addrs,
		})
	}
	for _, x := range each[*model.NetworkSet](v.world) {
		v.things = append(v.things, thing{id: x.ID, labels: v.merged(x.Labels, x.Profiles), nets: x.Nets})
	}
	for i, t := range v.things {
		for _, a := range t.addrs {
			if !slices.Contains(v.byAddr[a], i) {
				v.byAddr[a] = append(v.byAddr[a], i)
			}
		}
		if len(t.nets) > 0 {
			v.nets = append(v.nets, i)
		}
	}
}

// merged are the labels of an endpoint or network set: its own, then those of
// its profiles, the first that has a key deciding.
func (v *View) merged(own map[string]string, profiles []string) selector.Map {
	out := selector.Map{}
	for _, name := range slices.Backward(profiles) {
		if p := v.profiles[name]; p != nil {
			maps.Copy(out, p.Labels)
		}
	}
	maps.Copy(out, own)
	return out
}

// at returns what a selector can select at an address.
func (v *View) at(a netip.Addr) []thing {
	var out []thing
	for _, i := range v.byAddr[a] {
		out = append(out, v.things[i])
	}
	for _, i := range v.nets {
		if slices.ContainsFunc(v.things[i].nets, func(n netip.Prefix) bool { return n.Contains(a) }) {
			out = append(out, v.things[i])
		}
	}
	return out
}

// WorkloadAt returns the workload that has an address: the first by name of
// those that have an interface of their own, else the first by name. nil if
// none has it, or a host has it: then it is not routed to a workload.
func (v *View) WorkloadAt(a netip.Addr) *model.Workload {
	if _, taken := v.hosts[a]; taken {
		return nil
	}
	var first *model.Workload
	for _, i := range v.byAddr[a] {
		x := v.things[i].workload
		if x == nil {
			continue
		}
		if v.wired(x) {
			return x
		}
		if first == nil {
			first = x
		}
	}
	return first
}

// WorkloadOn returns the workload to which a host of these settings routes an
// address, nil if there is none.
func (v *View) WorkloadOn(set model.Settings, a netip.Addr) *model.Workload {
	w := v.world
	w.set = set
	return w.owner(a)
}

// wired reports whether no workload before this one, by name, has its
// interface.
func (v *View) wired(x *model.Workload) bool {
	if x.Interface == "" {
		return false
	}
	for _, t := range v.things {
		o := t.workload
		if o != nil && o.Node == x.Node && o.Interface == x.Interface && len(o.Addrs) > 0 {
			return o == x
		}
	}
	return false
}

// sortedTiers returns the tiers that exist, by order and name, then those
// that policies name only, by name; each with its policies in order.
func sortedTiers(w world) []tier {
	existing := each[*model.Tier](w)
	slices.SortStableFunc(existing, func(a, b *model.Tier) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.Name, b.Name))
	})
	var out []tier
	for _, t := range existing {
		out = append(out, tier{name: t.Name, pass: t.DefaultPass, lost: t.Lost})
	}
	var named []string
	policies := each[*model.Policy](w)
	for _, p := range policies {
		if !slices.ContainsFunc(existing, func(t *model.Tier) bool { return t.Name == p.Tier }) {
			named = append(named, p.Tier)
		}
	}
	slices.Sort(named)
	for _, name := range slices.Compact(named) {
		out = append(out, tier{name: name, missing: true})
	}
	slices.SortStableFunc(policies, func(a, b *model.Policy) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(tieBreak(a), tieBreak(b)))
	})
	for i := range out {
		for _, p := range policies {
			if p.Tier == out[i].name {
				out[i].policies = append(out[i].policies, p)
			}
		}
	}
	return out
}

// tieBreak decides between policies of equal order.
func tieBreak(p *model.Policy) string { return p.Name + "/" + p.Namespace + "/" + p.APIKind }

// applicable returns the policies of a tier that are for an endpoint with
// these labels in a direction, staged ones too.
func (t tier) applicable(labels selector.Labels, ingress bool) []*model.Policy {
	var out []*model.Policy
	for _, p := range t.policies {
		d := p.Egress
		if ingress {
			d = p.Ingress
		}
		// What is not tracked or comes before translation is for hosts only.
		if d.Applies && !p.DoNotTrack && !p.PreDNAT && p.Selects.Matches(labels) {
			out = append(out, p)
		}
	}
	return out
}

package policytest

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// Cluster is everything that policies and flows are about, and who is called
// what in it. Make one with NewCluster; it is complete when the last Add has
// returned.
type Cluster struct {
	all  oracle.Snapshot
	ends map[string][]model.ID // by each name of a workload: "web", "shop/web"
	also map[model.ID]string   // what people call a workload: "shop/web"
}

// NewCluster returns a cluster with nothing in it.
func NewCluster() *Cluster {
	return &Cluster{all: oracle.Snapshot{}, ends: map[string][]model.ID{}, also: map[model.ID]string{}}
}

// Add brings the cluster up to date with an event.
func (c *Cluster) Add(e model.Event) { c.all.Add(e) }

// Snapshot is what the cluster holds, to be read only.
func (c *Cluster) Snapshot() oracle.Snapshot { return c.all }

// Enforced is the cluster as it would be if its staged policies were enforced.
func (c *Cluster) Enforced() *Cluster {
	return &Cluster{all: c.all.Enforced(), ends: c.ends, also: c.also}
}

// Call notes the names of an endpoint: that of its object, of its pod and of
// its workload, each with and without the namespace.
func (c *Cluster) Call(w *v3.WorkloadEndpoint) {
	id := model.ID{Kind: model.KindWorkload, Namespace: w.Namespace, Name: w.Name}
	names := []string{w.Name, w.Spec.Pod, w.Spec.Workload}
	for i, name := range names {
		if name == "" || slices.Contains(names[:i], name) {
			continue
		}
		for _, n := range []string{name, w.Namespace + "/" + name} {
			c.ends[n] = append(c.ends[n], id)
		}
		c.also[id] = w.Namespace + "/" + name
	}
}

// End is one end of a flow: an interface of a workload, a host, or an address
// that is nobody's.
type End struct {
	Name      string       // "shop/web", "host h1", "192.0.2.1"
	Addrs     []netip.Addr // the first of each family stands for all
	Workload  model.ID     // zero: it is none
	Host      string       // that the workload is on, or that it is
	Interface string       // of the workload, on its host
}

// Addr is the end's first address of a family, invalid if it has none.
func (e End) Addr(four bool) netip.Addr {
	for _, a := range e.Addrs {
		if a.Is4() == four {
			return a
		}
	}
	return netip.Addr{}
}

// Find returns who is meant by an address, the name of a workload with or
// without its namespace, or the name of a host. Several interfaces of one
// workload are several ends. The error names what is near.
func (c *Cluster) Find(name string) ([]End, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []End{c.at(a.Unmap())}, nil
	}
	if ids := c.ends[name]; len(ids) > 0 {
		out := c.endsOf(ids)
		for _, e := range out[1:] {
			if e.Name != out[0].Name {
				return nil, fmt.Errorf("%q is ambiguous: it is %s and %s: give the namespace too", name, out[0].Name, e.Name)
			}
		}
		return out, nil
	}
	if n, ok := c.all[model.ID{Kind: model.KindNode, Name: name}].(*model.Node); ok {
		return []End{hostEnd(n)}, nil
	}
	return nil, fmt.Errorf("there is no workload or host %q, and it is no address%s", name, c.near(name))
}

// Match returns the workloads whose name, or namespace and name where the
// pattern has a slash, match a pattern, sorted.
func (c *Cluster) Match(pattern string) []End {
	var ids []model.ID
	for name, of := range c.ends {
		if ok, err := path.Match(pattern, name); ok && err == nil && strings.Contains(name, "/") == strings.Contains(pattern, "/") {
			ids = append(ids, of...)
		}
	}
	return c.endsOf(ids)
}

// endsOf returns the ends with these IDs, sorted by name, each once.
func (c *Cluster) endsOf(ids []model.ID) []End {
	var out []End
	ids = slices.Clone(ids)
	slices.SortFunc(ids, model.ID.Compare)
	for _, id := range slices.Compact(ids) {
		if w, ok := c.all[id].(*model.Workload); ok {
			out = append(out, c.workloadEnd(w))
		} else {
			out = append(out, End{Name: c.also[id], Workload: id})
		}
	}
	slices.SortStableFunc(out, func(a, b End) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (c *Cluster) workloadEnd(w *model.Workload) End {
	name := c.also[w.ID]
	if name == "" {
		name = w.ID.Namespace + "/" + w.ID.Name
	}
	return End{Name: name, Addrs: w.Addrs, Workload: w.ID, Host: w.Node, Interface: w.Interface}
}

func hostEnd(n *model.Node) End {
	e := End{Name: "host " + n.Name, Host: n.Name}
	for _, p := range []netip.Prefix{n.Addr4, n.Addr6} {
		if p.IsValid() {
			e.Addrs = append(e.Addrs, p.Addr())
		}
	}
	return e
}

// at finds whose an address is.
func (c *Cluster) at(a netip.Addr) End {
	out := End{Name: a.String(), Addrs: []netip.Addr{a}}
	var owner model.ID
	for id, v := range c.all {
		switch v := v.(type) {
		case *model.Workload:
			if slices.Contains(v.Addrs, a) && (owner == model.ID{} || owner.Kind == model.KindNode || id.Compare(owner) < 0) {
				owner, out = id, c.workloadEnd(v)
			}
		case *model.Node:
			if n := hostEnd(v); slices.Contains(n.Addrs, a) && (owner == model.ID{}) {
				owner, out = id, n
			}
		}
	}
	out.Addrs = []netip.Addr{a}
	return out
}

// near names workloads of which the last part of the name is in what was
// written, or the other way round.
func (c *Cluster) near(name string) string {
	_, short, _ := strings.Cut("/"+name, "/")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		short = name[i+1:]
	}
	var found []string
	for _, full := range c.also {
		own := full[strings.IndexByte(full, '/')+1:]
		if short != "" && (strings.Contains(own, short) || strings.Contains(short, own)) {
			found = append(found, full)
		}
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(found[:min(3, len(found))], " or ") + "?"
}

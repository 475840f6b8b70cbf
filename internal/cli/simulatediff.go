package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/brindle-net/brindle/internal/agent"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/store"
)

// foreseen is what a cluster's network comes to.
type foreseen struct {
	names    []string // of all hosts, sorted
	settings map[string]model.Settings
	survey   *oracle.Survey
	warnings []string
}

// network is that of one host, an empty one if there is no such host.
func (f foreseen) network(name string) oracle.Network {
	set, there := f.settings[name]
	if !there {
		return oracle.Network{}
	}
	return f.survey.Network(set)
}

// ways are how packets travel from a host to another one, or to all ("").
func (f foreseen) ways(from, to string) map[wayKey]wayView {
	out := map[wayKey]wayView{}
	set, there := f.settings[from]
	if !there {
		return out
	}
	for _, j := range f.survey.Journeys(set, to) {
		w := wayView{Form: j.Form.String(), By: j.By, Why: j.Why}
		if j.By == oracle.ByNone {
			w.Form = string(oracle.ByNone)
		}
		out[wayKey{j.From, j.To, j.Pool}] = w
	}
	return out
}

// look lets the agents of all hosts do what they do, and asks the oracle.
func (s *simulation) look(ctx context.Context, db *session) (foreseen, error) {
	f, err := agent.Foresee(ctx, db.driver, map[string]string{"bgp": s.bgp})
	if err != nil {
		return foreseen{}, err
	}
	snap, err := wholeSnapshot(ctx, db.driver)
	if err != nil {
		return foreseen{}, err
	}
	return foreseen{
		names: slices.Sorted(maps.Keys(f.Settings)), settings: f.Settings, survey: oracle.NewSurvey(snap), warnings: f.Warnings,
	}, nil
}

// wholeSnapshot is what a datastore holds for all hosts.
func wholeSnapshot(ctx context.Context, d store.Driver) (oracle.Snapshot, error) {
	out := oracle.Snapshot{}
	events, err := feed.Read(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, root := range []string{store.BlockRoot, store.HostRoot} {
		list, err := d.List(ctx, root)
		if err != nil {
			return nil, fmt.Errorf("read the datastore: %w", err)
		}
		for _, kv := range list.KVs {
			// The error is in the event too, as what makes the object invalid.
			if cidr, ok := store.ParseBlockKey(kv.Key); ok && cidr == cidr.Masked() {
				e, _ := model.FromBlock(cidr, kv.Value)
				events = append(events, e)
			}
			if a, ok := store.ParseAffinityKey(kv.Key); ok && !a.Virtual && a.CIDR == a.CIDR.Masked() {
				e, _ := model.FromAffinity(a.Owner, a.CIDR, kv.Value)
				events = append(events, e)
			}
		}
	}
	for _, e := range events {
		out.Add(e)
	}
	return out, nil
}

// tunnelView is a tunnel's interface on one host.
type tunnelView struct {
	Form      string   `json:"form"` // ipip or vxlan
	Local     string   `json:"local"`
	Addresses []string `json:"addresses"`
	VNI       uint32   `json:"vni,omitempty"`
	Port      uint16   `json:"port,omitempty"`
	MAC       string   `json:"mac,omitempty"`
}

func (t tunnelView) text() string {
	out := fmt.Sprintf("%s from %s", formWord(t.Form), t.Local)
	if t.VNI != 0 {
		out += fmt.Sprintf(", VNI %d, port %d, MAC %s", t.VNI, t.Port, t.MAC)
	}
	return out + ", " + yesNo(len(t.Addresses) > 0, "address "+strings.Join(t.Addresses, " and "), "no address")
}

// routeView is one route of a host's agent.
type routeView struct {
	Type   string    `json:"type"` // unicast or blackhole
	Hops   []hopView `json:"hops,omitempty"`
	MTU    int       `json:"mtu,omitempty"`
	Metric int       `json:"metric"`
}

// hopView is where a route leads.
type hopView struct {
	Via       string `json:"via,omitempty"`
	Interface string `json:"interface,omitempty"` // left to the kernel if empty
	OnLink    bool   `json:"onlink,omitempty"`
}

func (r routeView) text() string {
	var out []string
	if r.Type != "unicast" {
		out = append(out, r.Type)
	}
	for _, h := range r.Hops {
		if h.Via != "" {
			out = append(out, "via "+h.Via)
		}
		if h.Interface != "" {
			out = append(out, "dev "+h.Interface)
		}
		if h.OnLink {
			out = append(out, "onlink")
		}
	}
	if r.MTU != 0 {
		out = append(out, fmt.Sprintf("mtu %d", r.MTU))
	}
	return strings.Join(append(out, fmt.Sprintf("metric %d", r.Metric)), " ")
}

// wayView is how packets travel.
type wayView struct {
	Form string            `json:"form"` // direct, ipip, vxlan, or none: there is no way
	By   oracle.Programmer `json:"by"`
	Why  string            `json:"why"`
}

// like reports whether packets travel in the same way, if for other reasons.
func (w *wayView) like(o *wayView) bool {
	return w != nil && o != nil && w.Form == o.Form && w.By == o.By
}

// formWord names a form for people.
func formWord(form string) string {
	switch form {
	case desired.IPIP.String():
		return "IP in IP"
	case desired.VXLAN.String():
		return "VXLAN"
	}
	return form
}

// view is something that there may be before and after.
type view interface{ text() string }

// delta is one difference; of Before and After one may be nil.
type delta[V view] struct {
	Change string `json:"change"` // appears, changes or vanishes
	Name   string `json:"name"`
	Before *V     `json:"before,omitempty"`
	After  *V     `json:"after,omitempty"`
}

// deltas lists what differs between two tables, in an order of their keys.
// What has the same text is the same.
func deltas[K comparable, V view](before, after map[K]V, order func(a, b K) int, name func(K) string) []delta[V] {
	all := maps.Clone(before)
	maps.Copy(all, after)
	out := []delta[V]{}
	for _, k := range slices.SortedFunc(maps.Keys(all), order) {
		d := delta[V]{Name: name(k)}
		if v, ok := before[k]; ok {
			d.Before = &v
		}
		if v, ok := after[k]; ok {
			d.After = &v
		}
		switch {
		case d.Before == nil:
			d.Change = "appears"
		case d.After == nil:
			d.Change = "vanishes"
		case (*d.Before).text() != (*d.After).text():
			d.Change = "changes"
		default:
			continue
		}
		out = append(out, d)
	}
	return out
}

func tunnelsOf(n oracle.Network) map[string]tunnelView {
	out := map[string]tunnelView{}
	for name, d := range n.Devices {
		t := tunnelView{Form: d.Form.String(), Local: d.Local.String(), VNI: d.VNI, Port: d.Port, MAC: d.MAC, Addresses: []string{}}
		for k := range n.Addresses {
			if k.Interface == name {
				t.Addresses = append(t.Addresses, k.Prefix.Addr().String())
			}
		}
		slices.Sort(t.Addresses)
		out[name] = t
	}
	return out
}

func routesOf(n oracle.Network) map[desired.RouteKey]routeView {
	out := map[desired.RouteKey]routeView{}
	for k, r := range n.Routes {
		v := routeView{Type: "unicast", MTU: r.MTU, Metric: k.Priority}
		if r.Type == desired.Blackhole {
			v.Type = "blackhole"
		}
		for _, h := range r.Hops {
			hop := hopView{Interface: h.Interface, OnLink: h.OnLink}
			if h.Via.IsValid() {
				hop.Via = h.Via.String()
			}
			v.Hops = append(v.Hops, hop)
		}
		out[k] = v
	}
	return out
}

func compareRoutes(a, b desired.RouteKey) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), a.Prefix.Addr().Compare(b.Prefix.Addr()),
		cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Priority, b.Priority))
}

func routeName(k desired.RouteKey) string { return k.Prefix.String() }

// wayKey says which way: of packets to addresses of a pool.
type wayKey struct{ from, to, pool string }

func compareWays(a, b wayKey) int {
	return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.pool, b.pool))
}

// networkDelta is what would change in a cluster's network.
type networkDelta struct {
	names []string // of all hosts, before and after
	seen  []string // those that are told of
	hosts []hostDelta
	ways  []wayDelta
}

// hostDelta is what would change on one host.
type hostDelta struct {
	Host    string              `json:"host"`
	Tunnels []delta[tunnelView] `json:"tunnels"`
	Routes  []delta[routeView]  `json:"routes"`
}

// wayDelta is how packets to a pool's addresses would travel in another way.
type wayDelta struct {
	From   string   `json:"from"`
	To     string   `json:"to"`
	Pool   string   `json:"pool"`
	Before *wayView `json:"before,omitempty"` // nil: the pool or a host is new
	After  *wayView `json:"after,omitempty"`  // nil: the pool or a host is gone
}

// compareNetworks compares hosts one by one, several at a time: the networks of
// all of them would not fit. host is the one that is told of, with the ways
// from and to it; "": all.
func compareNetworks(before, after foreseen, host string) networkDelta {
	var d networkDelta
	d.names = slices.Concat(before.names, after.names)
	slices.Sort(d.names)
	d.names = slices.Compact(d.names)
	d.seen = d.names
	if host != "" {
		d.seen = []string{host}
	}
	hosts, ways := make([]hostDelta, len(d.names)), make([][]wayDelta, len(d.names))
	var next atomic.Int64
	var working sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		working.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(d.names)); i = next.Add(1) - 1 {
				name, to := d.names[i], host
				if host == "" || host == name {
					hosts[i], to = compareHost(name, before.network(name), after.network(name)), ""
				}
				ways[i] = compareWaysOf(before.ways(name, to), after.ways(name, to))
			}
		})
	}
	working.Wait()
	for i := range d.names {
		if len(hosts[i].Tunnels)+len(hosts[i].Routes) > 0 {
			d.hosts = append(d.hosts, hosts[i])
		}
		d.ways = append(d.ways, ways[i]...)
	}
	return d
}

// compareHost compares the network of one host.
func compareHost(name string, was, is oracle.Network) hostDelta {
	routes, itself := [2]oracle.Network{{Routes: map[desired.RouteKey]desired.Route{}}, {Routes: map[desired.RouteKey]desired.Route{}}}, func(name string) string { return name }
	for i, other := range []map[desired.RouteKey]desired.Route{is.Routes, was.Routes} {
		for k, r := range []map[desired.RouteKey]desired.Route{was.Routes, is.Routes}[i] {
			if o, there := other[k]; !there || !o.Equal(r) {
				routes[i].Routes[k] = r
			}
		}
	}
	return hostDelta{
		Host:    name,
		Tunnels: deltas(tunnelsOf(was), tunnelsOf(is), cmp.Compare[string], itself),
		Routes:  deltas(routesOf(routes[0]), routesOf(routes[1]), compareRoutes, routeName),
	}
}

// compareWaysOf compares the ways from one host.
func compareWaysOf(old, now map[wayKey]wayView) []wayDelta {
	var out []wayDelta
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, k := range slices.SortedFunc(maps.Keys(all), compareWays) {
		w := wayDelta{From: k.from, To: k.to, Pool: k.pool}
		if v, ok := old[k]; ok {
			w.Before = &v
		}
		if v, ok := now[k]; ok {
			w.After = &v
		}
		if !w.Before.like(w.After) {
			out = append(out, w)
		}
	}
	return out
}

package labtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/agent"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/etcd"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// A Cluster is hosts of this machine and their datastore.
type Cluster struct {
	Endpoint string            // of etcd
	Netns    map[string]string // by host
	BGP      string            // as agents were told: on (or empty), off or none
}

// Agree says where the kernel of a host has something else than the oracle
// says: routes of the agent and those learned by BGP, devices, addresses,
// neighbours and forwarding entries. What each host has told the others, and
// which tunnels it goes on receiving by, is taken as it is: of these, the first
// is in the datastore, the second in the kernel. nil: nowhere.
func (c Cluster) Agree(ctx context.Context) error {
	d, err := etcd.New(etcd.Config{Endpoints: []string{c.Endpoint}})
	if err != nil {
		return fmt.Errorf("open the datastore: %w", err)
	}
	defer d.Close()
	snap, err := snapshot(ctx, d)
	if err != nil {
		return err
	}
	settings, err := c.settings(ctx, d)
	if err != nil {
		return err
	}
	if len(settings) != len(c.Netns) {
		return fmt.Errorf("the datastore has %d nodes, and there are %d hosts", len(settings), len(c.Netns))
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(c.Netns)) {
		have, err := ReadFacts(c.Netns[name])
		if err != nil {
			return err
		}
		link, gateways, err := outside(c.Netns[name])
		if err != nil {
			return err
		}
		want, me := Facts{}, of(snap, settings[name], link.MTU, have)
		maps.Copy(want, FactsOf(me))
		maps.Copy(want, learned(snap, settings, name, me, gateways))
		if diff := have.Diff(want); diff != "" {
			problems = append(problems, fmt.Errorf("%s:\n%s", name, diff))
		}
	}
	return errors.Join(problems...)
}

// of is what the oracle says of a host. A device that is there while no pool
// asks for it is one by which the host goes on receiving.
func of(snap oracle.Snapshot, set model.Settings, mtu int, have Facts) desired.State {
	mine := maps.Clone(snap)
	u := &model.Underlay{MTU: mtu}
	mine[model.UnderlayID()] = u
	asked := oracle.Desired(mine, set)
	for name, form := range map[string]desired.Form{
		desired.DeviceIPIP: desired.IPIP, desired.DeviceVXLAN4: desired.VXLAN, desired.DeviceVXLAN6: desired.VXLAN,
	} {
		_, there := have["device "+name]
		if _, is := asked.Devices[name]; there && !is {
			u.Keep |= desired.FormsOf(form)
		}
	}
	return oracle.Desired(mine, set)
}

// learned are the routes that a host has from the others by BGP. A next hop
// out of its subnet is reached by the host's own router.
func learned(snap oracle.Snapshot, settings map[string]model.Settings, name string, me desired.State, gateways map[int]netip.Addr) Facts {
	out := Facts{}
	self, ok := snap[model.ID{Kind: model.KindNode, Name: name}].(*model.Node)
	if !ok || settings[name].Overlay.NoBGP {
		return out
	}
	for _, peer := range slices.Sorted(maps.Keys(settings)) {
		n, ok := snap[model.ID{Kind: model.KindNode, Name: peer}].(*model.Node)
		if !ok || peer == name {
			continue
		}
		for p := range oracle.Desired(snap, settings[peer]).Paths {
			family, subnet := 4, self.Addr4
			if p.Addr().Is6() {
				family, subnet = 6, self.Addr6
			}
			via := n.Addr(family)
			if _, is := me.Peers[desired.PeerKey{Addr: via, Port: model.DefaultPort}]; !is || !taken(me.Imports, p) {
				continue
			}
			if !subnet.Masked().Contains(via) {
				via = gateways[family]
			}
			out[routeLine(desired.ProtocolBGP, desired.MainTable, p, desired.DefaultPriority)] = hop(via, "", false)
		}
	}
	return out
}

// taken reports whether an import filter takes a prefix: the longest entry
// around it says so.
func taken(filter map[desired.ImportKey]desired.Import, p netip.Prefix) bool {
	best, yes := -1, false
	for k, v := range filter {
		if k.Prefix.Overlaps(p) && k.Prefix.Bits() <= p.Bits() && k.Prefix.Bits() > best {
			best, yes = k.Prefix.Bits(), !v.Own
		}
	}
	return yes
}

// snapshot is what a datastore holds for all hosts.
func snapshot(ctx context.Context, d store.Driver) (oracle.Snapshot, error) {
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
			if cidr, ok := store.ParseBlockKey(kv.Key); ok {
				e, err := model.FromBlock(cidr, kv.Value)
				if err != nil {
					return nil, err
				}
				events = append(events, e)
			}
			if a, ok := store.ParseAffinityKey(kv.Key); ok && !a.Virtual {
				e, err := model.FromAffinity(a.Owner, a.CIDR, kv.Value)
				if err != nil {
					return nil, err
				}
				events = append(events, e)
			}
		}
	}
	out := oracle.Snapshot{}
	for _, e := range events {
		out.Add(e)
	}
	return out, nil
}

// settings are those of the agents. They are worked out on a copy of the
// datastore, to which happens what agents are going to do.
func (c Cluster) settings(ctx context.Context, d store.Driver) (map[string]model.Settings, error) {
	list, err := d.List(ctx, "/calico/")
	if err != nil {
		return nil, fmt.Errorf("read the datastore: %w", err)
	}
	copied := mem.New()
	for _, kv := range list.KVs {
		if _, err := copied.Create(ctx, kv.Key, kv.Value); err != nil {
			return nil, fmt.Errorf("copy the datastore: %w", err)
		}
	}
	flags := map[string]string{}
	if c.BGP != "" {
		flags["bgp"] = c.BGP
	}
	f, err := agent.Foresee(ctx, copied, flags)
	return f.Settings, err
}

// outside reads a host's first link and its routers.
func outside(netns string) (link, map[int]netip.Addr, error) {
	var links []link
	if err := ask(&links, "ip", netns, "link", "show", "dev", "eth0"); err != nil {
		return link{}, nil, err
	}
	if len(links) != 1 {
		return link{}, nil, fmt.Errorf("%s has no eth0", netns)
	}
	gateways := map[int]netip.Addr{}
	for _, family := range []int{4, 6} {
		var routes []route
		if err := ask(&routes, "ip", netns, "-"+strconv.Itoa(family), "route", "show", "default"); err != nil {
			return link{}, nil, err
		}
		for _, r := range routes {
			a, err := netip.ParseAddr(strings.TrimSpace(r.Via))
			if err != nil {
				return link{}, nil, fmt.Errorf("default route of %s: %w", netns, err)
			}
			gateways[family] = a
		}
	}
	return links[0], gateways, nil
}

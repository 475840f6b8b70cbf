package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// Report is the outcome of a check: what is stored about addresses, compared
// with who uses them. Its JSON is that of Calico's `ipam check -o`, and can be
// released from; who writes it adds the fields at the top.
type Report struct {
	Version                    string                     `json:"version"`
	ClusterGUID                string                     `json:"clusterGUID"`
	DatastoreLocked            bool                       `json:"datastoreLocked"`
	ClusterInformationRevision string                     `json:"clusterInformationRevision"`
	ClusterType                string                     `json:"clusterType"`
	Allocations                map[string][]ReportAddress `json:"allocations"`
	LeakedHandles              []ReportHandle             `json:"leakedHandles"`

	Blocks, Handles int      `json:"-"` // how many there are
	InUse           int      `json:"-"` // addresses that somebody uses
	Problems        []string `json:"-"` // in words, in the order of the phases
}

// ReportAddress is one allocation of a Report.
type ReportAddress struct {
	IP             string   `json:"ip"`
	Handle         string   `json:"handle"`
	SequenceNumber *uint64  `json:"sequenceNumber,omitempty"`
	Pod            string   `json:"pod,omitempty"`
	Namespace      string   `json:"namespace,omitempty"`
	Node           string   `json:"node,omitempty"`
	Type           string   `json:"type,omitempty"`
	CreationTime   string   `json:"creationTimestamp,omitempty"`
	InUse          bool     `json:"inUse"`
	Borrowed       bool     `json:"borrowed"`
	CoolingDown    bool     `json:"coolingDown"`
	Owners         []string `json:"owners,omitempty"`
}

// ReportHandle is one handle that nothing has an address of.
type ReportHandle struct {
	ID       string `json:"id"`
	Revision string `json:"revision"`
	UID      string `json:"uid,omitempty"`
}

// Check compares what is stored about addresses with who uses them: blocks,
// pools, tunnel addresses of nodes, workload endpoints, handles.
func (m *Manager) Check(ctx context.Context) (*Report, error) {
	s, inv, us, err := m.survey(ctx)
	if err != nil {
		return nil, err
	}
	c := &checker{
		m: m, s: s, inv: inv, users: us,
		r:         &Report{Allocations: map[string][]ReportAddress{}, Blocks: len(inv.blocks), Handles: len(inv.handles)},
		owners:    map[netip.Addr][]string{},
		allocated: map[netip.Addr]bool{},
	}
	c.collectOwners()
	c.blocks()
	c.uses()
	c.handles()
	return c.r, nil
}

type checker struct {
	m         *Manager
	s         *Settings
	inv       *inventory
	users     *users
	r         *Report
	owners    map[netip.Addr][]string
	allocated map[netip.Addr]bool
}

func (c *checker) problem(format string, args ...any) {
	c.r.Problems = append(c.r.Problems, fmt.Sprintf(format, args...))
}

// collectOwners finds everybody who uses an address.
func (c *checker) collectOwners() {
	for _, a := range slices.SortedFunc(maps.Keys(c.users.endpoints), netip.Addr.Compare) {
		for _, e := range c.users.endpoints[a] {
			c.owners[a] = append(c.owners[a], "Workload("+e.String()+")")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.users.nodes)) {
		for _, text := range tunnelAddrs(c.users.nodes[name]) {
			if a, err := prefix.ParseAddr(text); err == nil {
				c.owners[a] = append(c.owners[a], "Node("+name+")")
			}
		}
	}
}

// tunnelAddrs lists the addresses of a node's tunnels, as text.
func tunnelAddrs(n *v3.Node) []string {
	out := []string{n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr}
	if n.Spec.BGP != nil {
		out = append(out, n.Spec.BGP.IPv4IPIPTunnelAddr)
	}
	if w := n.Spec.Wireguard; w != nil {
		out = append(out, w.InterfaceIPv4Address, w.InterfaceIPv6Address)
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// blocks checks that every block makes sense and that what it assigns is used.
func (c *checker) blocks() {
	for _, why := range c.inv.broken {
		c.problem("%s", why)
	}
	owned := map[string]bool{}
	for _, a := range c.inv.affinities {
		if a.state == Confirmed {
			owned[affinityText(a.id)+" "+a.id.CIDR.String()] = true
		}
	}
	for _, b := range c.inv.blocks {
		for _, why := range b.problems(c.m.now()) {
			c.problem("block %s: %s", b.CIDR, why)
		}
		name := b.Affinity + " " + b.CIDR.String()
		if b.Affinity != "" && !owned[name] {
			c.problem("block %s: belongs to %s, who has no confirmed affinity for it", b.CIDR, b.Affinity)
		}
		delete(owned, name)
		for _, u := range b.Uses() {
			c.use(b, u)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(owned)) {
		c.problem("affinity of %s: the block does not say so", name)
	}
}

func (c *checker) use(b *Block, u Use) {
	at := u.Attribute
	handle := cleanHandle(at.Handle)
	owners := c.owners[u.Addr]
	switch {
	case handle == WindowsReservedHandle:
		owners = append(slices.Clone(owners), "Windows("+b.Host()+")")
	case b.Virtual() != "" || at.Owner[AttrService] != "": // only their controller knows whether they are there
		_, service := at.describe()
		owners = append(slices.Clone(owners), "Service("+service+")")
	}
	one := ReportAddress{
		IP: u.Addr.String(), Handle: handle, Pod: at.Owner[AttrPod], Namespace: at.Owner[AttrNamespace],
		Node: at.Owner[AttrNode], Type: at.Owner[AttrType], CreationTime: at.Owner[AttrTimestamp],
		InUse: len(owners) > 0, CoolingDown: u.CoolingDown(), Owners: owners,
		Borrowed: at.Owner[AttrNode] != "" && at.Owner[AttrNode] != b.Host(),
	}
	if u.Sequence != 0 {
		one.SequenceNumber = &u.Sequence
	}
	c.allocated[u.Addr] = true
	c.r.Allocations[one.IP] = append(c.r.Allocations[one.IP], one)
	if !one.InUse && !one.CoolingDown {
		c.problem("%s is assigned to handle %q and nobody uses it", u.Addr, handle)
	}
}

// uses checks that everybody's address is in a pool and assigned.
func (c *checker) uses() {
	for _, a := range slices.SortedFunc(maps.Keys(c.owners), netip.Addr.Compare) {
		c.r.InUse++
		if len(c.owners[a]) > 1 {
			c.problem("%s is used by %v", a, c.owners[a])
		}
		if p, ok := c.s.pool(prefix.Host(a)); !ok || p.Unusable != "" {
			c.problem("%s is used by %v and in no active pool", a, c.owners[a])
		}
		if !c.allocated[a] {
			c.problem("%s is used by %v and not assigned", a, c.owners[a])
		}
	}
}

// handles checks that handles and blocks agree.
func (c *checker) handles() {
	counts := c.inv.countHandles()
	for _, id := range slices.Sorted(maps.Keys(c.inv.handles)) {
		if counts[id] == nil {
			c.problem("handle %q has no address", id)
			c.r.LeakedHandles = append(c.r.LeakedHandles, ReportHandle{ID: id, Revision: string(c.inv.handles[id].rev)})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		h, ok := c.inv.handles[id]
		if !ok {
			c.problem("handle %q is missing", id)
			continue
		}
		for _, cidr := range slices.SortedFunc(maps.Keys(counts[id]), netip.Prefix.Compare) {
			if h.blocks[cidr] < counts[id][cidr] {
				c.problem("handle %q counts %d addresses in block %s, there are %d", id, h.blocks[cidr], cidr, counts[id][cidr])
			}
		}
	}
}

// ReleaseLeaked releases what every one of the given reports found leaked: the
// addresses by handle and sequence number unless somebody uses them by now, the
// handles if they have not changed. That the reports are of this cluster is for
// the caller to check, and that nobody was setting a workload up when they were
// written.
func (m *Manager) ReleaseLeaked(ctx context.Context, reports ...*Report) (released []netip.Addr, handles []string, err error) {
	if len(reports) == 0 {
		return nil, nil, fmt.Errorf("release from reports: %w: no report given", ErrInvalid)
	}
	us, err := m.readUsers(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("release from reports: %w", err)
	}
	now := &checker{users: us, owners: map[netip.Addr][]string{}}
	now.collectOwners()
	for _, ip := range slices.Sorted(maps.Keys(reports[0].Allocations)) {
		for _, one := range reports[0].Allocations[ip] {
			if !leakedInAll(one, reports) {
				continue
			}
			o := ReleaseOptions{Handle: one.Handle}
			if one.SequenceNumber != nil {
				o.Sequence = *one.SequenceNumber
			}
			if o.Addr, err = prefix.ParseAddr(one.IP); err != nil {
				return released, handles, fmt.Errorf("release from reports: %w: %w", ErrInvalid, err)
			}
			if len(now.owners[o.Addr]) > 0 {
				continue
			}
			err := m.Release(ctx, o)
			if errors.Is(err, ErrNotAssigned) || errors.Is(err, ErrStale) {
				continue // somebody was faster, or it has a new owner
			}
			if err != nil {
				return released, handles, err
			}
			released = append(released, o.Addr)
		}
	}
	for _, h := range reports[0].LeakedHandles {
		if slices.ContainsFunc(reports, func(r *Report) bool { return !slices.Contains(r.LeakedHandles, h) }) {
			continue
		}
		err := m.db.Delete(ctx, store.HandleKey(h.ID), store.Revision(h.Revision))
		if err != nil && !changed(err) {
			return released, handles, fmt.Errorf("delete handle %q: %w", h.ID, err)
		}
		if err == nil {
			handles = append(handles, h.ID)
		}
	}
	return released, handles, nil
}

// leakedInAll reports whether an allocation is leaked in every report.
func leakedInAll(one ReportAddress, reports []*Report) bool {
	for _, r := range reports {
		if !slices.ContainsFunc(r.Allocations[one.IP], func(o ReportAddress) bool {
			sameSeq := (o.SequenceNumber == nil) == (one.SequenceNumber == nil) &&
				(o.SequenceNumber == nil || *o.SequenceNumber == *one.SequenceNumber)
			return !o.InUse && !o.CoolingDown && o.Handle == one.Handle && sameSeq
		}) {
			return false
		}
	}
	return true
}

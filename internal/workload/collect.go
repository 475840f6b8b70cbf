package workload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
)

// Attached is this host's word on which handles are in use here: those that a
// call is about, those whose interface is there, and those whose wire another
// plugin lays. What it does not list, this host has not. It fails while it
// cannot be sure.
func (m *Manager) Attached(context.Context) (ipam.Attachments, error) {
	alive, _, err := m.survey()
	if err != nil {
		return nil, err
	}
	out := ipam.Attachments{}
	for _, handle := range alive {
		out[handle] = nil // any address: one may be on its way
	}
	return out, nil
}

// survey sorts handles into those that are in use on this host and those whose
// interface has gone. Links are read after the records: an attachment that was
// being set up when the records were read is under way or has its link.
func (m *Manager) survey() (alive []string, dead []record, err error) {
	recs, busy, err := m.records.list()
	if err != nil {
		return nil, nil, err
	}
	links, err := m.wires()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range recs {
		if busy[r.Handle] || r.AddressesOnly || links[r.HostInterface] {
			busy[r.Handle] = true
		} else {
			dead = append(dead, r)
		}
	}
	for handle := range busy {
		alive = append(alive, handle)
	}
	slices.Sort(alive)
	return alive, dead, nil
}

// wires lists the host's ends of workloads' wires.
func (m *Manager) wires() (map[string]bool, error) {
	all, err := m.cfg.Wires.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of workloads: %w", err)
	}
	out := map[string]bool{}
	for _, i := range all {
		if i.Kind == "veth" && (i.Alias == desired.AliasWorkload || i.Alias == "" && i.MAC.String() == kernel.HostMAC) {
			out[i.Name] = true
		}
	}
	return out, nil
}

// Collect releases addresses of this host that crashes left behind, until ctx
// ends, whose error it returns. See ipam.Collector: an address goes when for a
// whole grace period no workload endpoint has had it and this host has had no
// such attachment.
func (m *Manager) Collect(ctx context.Context) error {
	for m.cfg.Ready() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return ipam.NewCollector(m.collectorConfig()).Run(ctx)
}

func (m *Manager) collectorConfig() ipam.CollectorConfig {
	return ipam.CollectorConfig{
		Manager: m.cfg.IPAM, Host: m.cfg.Node, Attached: m.Attached, Borrowed: m.borrowed, Grace: m.cfg.Grace, Log: m.cfg.Log,
	}
}

// borrowed lists the blocks of attachments that died: an address of another
// host's block is found in no other way. Records whose handles have nothing
// left are dropped.
func (m *Manager) borrowed(ctx context.Context) ([]netip.Prefix, error) {
	if err := m.cfg.Ready(); err != nil {
		return nil, &Error{"notReady", err}
	}
	_, dead, err := m.survey()
	if err != nil {
		return nil, err
	}
	var blocks []netip.Prefix
	for _, rec := range dead {
		has, err := m.cfg.IPAM.IPsByHandle(ctx, rec.Handle)
		if err != nil {
			return nil, err
		}
		if len(has) == 0 {
			if err := m.records.dropIdle(rec); err != nil {
				return nil, err
			}
		}
		for _, a := range has {
			blocks = append(blocks, a.Block)
		}
	}
	slices.SortFunc(blocks, netip.Prefix.Compare)
	return slices.Compact(blocks), nil
}

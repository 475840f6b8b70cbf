// Package controllers holds what runs once for a whole network, beside its
// datastore: cleaning up after hosts that will not do it themselves.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
)

// HostsConfig is what Hosts needs.
type HostsConfig struct {
	Client *client.Client // required
	IPAM   *ipam.Manager  // required, on the same datastore
	Grace  time.Duration  // how long a host must be gone; 0: ipam.DefaultGrace
	// Uptime is a clock that never steps; nil is the process's own.
	Uptime func() time.Duration
	Log    *slog.Logger // nil: silent
}

// Hosts removes the workload endpoints of hosts that are gone, so that their
// addresses can be collected and used again. A host is gone when it has had no
// Node for a whole grace period: an agent that lives writes its Node again
// within a minute or so. An endpoint goes only when besides it was not written
// all that time, and has an address that was assigned on that very host: one
// that somebody wrote by hand for a host of another kind stays. A Hosts is
// used by one goroutine.
type Hosts struct {
	cfg      HostsConfig
	suspects map[suspect]time.Duration // since when
}

// NewHosts returns a Hosts. Its memory is its own: a new one waits for a whole
// grace period again.
func NewHosts(cfg HostsConfig) *Hosts {
	if cfg.Grace <= 0 {
		cfg.Grace = ipam.DefaultGrace
	}
	if cfg.Uptime == nil {
		began := time.Now()
		cfg.Uptime = func() time.Duration { return time.Since(began) } // monotonic
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Hosts{cfg: cfg}
}

// Run scans every half grace period until the context ends, whose error it
// returns. Failed scans are logged and tried again.
func (h *Hosts) Run(ctx context.Context) error {
	tick := time.NewTicker(h.cfg.Grace / 2)
	defer tick.Stop()
	for {
		removed, err := h.Scan(ctx)
		if len(removed) > 0 {
			h.cfg.Log.InfoContext(ctx, "endpoints of hosts that are gone removed", "endpoints", removed)
		}
		if err != nil && ctx.Err() == nil {
			h.cfg.Log.WarnContext(ctx, "cleaning up after hosts failed", "err", err, "retry_in", h.cfg.Grace/2)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Scan looks once, removes what is due, and says what it removed.
func (h *Hosts) Scan(ctx context.Context) (removed []string, err error) {
	f, err := h.gather(ctx)
	if err != nil {
		return nil, fmt.Errorf("clean up after hosts: %w", err)
	}
	var due []suspect
	h.suspects, due = decide(h.suspects, f, h.cfg.Grace)
	var errs []error
	for _, s := range due {
		done, err := h.remove(ctx, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("clean up after host %s: %w", s.node, err))
		}
		if done {
			removed = append(removed, s.namespace+"/"+s.name)
		}
	}
	return removed, errors.Join(errs...)
}

// remove deletes an endpoint as it was seen, if its host has still no Node.
func (h *Hosts) remove(ctx context.Context, s suspect) (done bool, err error) {
	_, err = client.Get[v3.Node](ctx, h.cfg.Client, "", s.node)
	if err == nil {
		return false, nil // it came back
	}
	if !client.IsNotFound(err) {
		return false, err
	}
	err = client.Delete[v3.WorkloadEndpoint](ctx, h.cfg.Client, s.namespace, s.name,
		client.Preconditions{UID: s.uid, ResourceVersion: s.version})
	if client.IsNotFound(err) || client.IsConflict(err) {
		return false, nil // somebody else was here
	}
	return err == nil, err
}

// facts is what one scan knows.
type facts struct {
	uptime    time.Duration
	nodes     map[string]bool
	endpoints []*v3.WorkloadEndpoint
	assigned  map[netip.Addr]string // to which host, as address management has it
}

// gather reads the endpoints before the nodes: an agent writes its Node before
// any endpoint.
func (h *Hosts) gather(ctx context.Context) (facts, error) {
	f := facts{uptime: h.cfg.Uptime(), nodes: map[string]bool{}, assigned: map[netip.Addr]string{}}
	var err error
	f.endpoints, err = client.List[v3.WorkloadEndpoint](ctx, h.cfg.Client, "")
	if err != nil && !errors.Is(err, client.ErrUnreadable) { // the readable ones can be judged
		return f, err
	}
	audit, err := h.cfg.IPAM.Audit(ctx, nil, 0)
	if err != nil {
		return f, err
	}
	for _, a := range audit.Addresses {
		if a.Standing != ipam.CoolingDown {
			f.assigned[a.Addr] = a.Node
		}
	}
	nodes, err := client.List[v3.Node](ctx, h.cfg.Client, "")
	if err != nil { // one that cannot be read is there all the same
		return f, err
	}
	for _, n := range nodes {
		f.nodes[n.Name] = true
	}
	return f, nil
}

// suspect is an endpoint of a host that may be gone, in exactly the state in
// which it was seen.
type suspect struct{ node, namespace, name, uid, version string }

// decide is one scan: which endpoints are suspect now, and which of them have
// been for the whole grace period. It has no side effects.
func decide(before map[suspect]time.Duration, f facts, grace time.Duration) (now map[suspect]time.Duration, due []suspect) {
	now = map[suspect]time.Duration{}
	for _, e := range f.endpoints {
		node := e.Spec.Node
		if node == "" || f.nodes[node] || !hasAddressOf(e, node, f.assigned) {
			continue
		}
		s := suspect{node, e.Namespace, e.Name, e.UID, e.ResourceVersion}
		since, known := before[s]
		if !known {
			since = f.uptime
		}
		now[s] = since
		if known && f.uptime-since >= grace {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, func(a, b suspect) int {
		return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name)
	})
	return now, due
}

// hasAddressOf reports whether an address of the endpoint was assigned on the
// host.
func hasAddressOf(e *v3.WorkloadEndpoint, host string, assigned map[netip.Addr]string) bool {
	return slices.ContainsFunc(e.Spec.IPNetworks, func(s string) bool {
		p, err := netip.ParsePrefix(s)
		return err == nil && assigned[p.Addr()] == host
	})
}

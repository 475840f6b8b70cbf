package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
)

// waysBack says at which of the host's interfaces the source of a packet in a
// packet is believed only if packets to it leave there, too: where whoever runs
// the host has made the kernel's own filter of reverse paths strict (rp_filter
// 1). The kernel has it for IPv4 only, and not for what programs carry; rules
// and programs do the same for those.
type waysBack struct {
	kernel   pathways
	settings model.Settings // tells workloads' interfaces
	log      *slog.Logger
	wake     chan struct{} // capacity 1: a look is due

	mu    sync.Mutex                // guards what follows
	hosts map[netip.Prefix]struct{} // of IPv6, that may send VXLAN
}

// pathways is what is read of the kernel.
type pathways interface {
	Interfaces() ([]kernel.Interface, error)
	StrictPaths(names []string) ([]string, error)
	Way(to netip.Addr) (kernel.Way, error)
}

func newWaysBack(k pathways, s model.Settings, log *slog.Logger) *waysBack {
	return &waysBack{kernel: k, settings: s, log: log, wake: make(chan struct{}, 1), hosts: map[netip.Prefix]struct{}{}}
}

// note takes who may send.
func (w *waysBack) note(p desired.PolicyPatch) {
	changed := false
	w.mu.Lock()
	for _, h := range p.Hosts.Delete {
		delete(w.hosts, h)
	}
	for h, forms := range p.Hosts.Set {
		_, had := w.hosts[h]
		delete(w.hosts, h)
		if h.IsSingleIP() && h.Addr().Is6() && forms.Has(desired.VXLAN) {
			w.hosts[h] = struct{}{}
			changed = changed || !had
		}
	}
	w.mu.Unlock()
	if changed {
		w.stir()
	}
}

// stir says that interfaces, settings or ways may have changed.
func (w *waysBack) stir() { poke(w.wake) }

// strict reads which interfaces are strict now. IPv6 has no filter of its own
// in the kernel and follows that of IPv4; but where the way to a host has next
// hops at several interfaces, rules are shown one of them, so that these
// interfaces are not strict.
func (w *waysBack) strict() (map[desired.LinkFamily]struct{}, error) {
	all, err := underlayOf(w.kernel, w.settings)
	if err != nil {
		return nil, err
	}
	names, err := w.kernel.StrictPaths(slices.Collect(maps.Keys(all)))
	if err != nil {
		return nil, err
	}
	out, six := map[desired.LinkFamily]struct{}{}, false
	for _, name := range names {
		for _, family := range all[name] {
			out[desired.LinkFamily{Interface: name, Family: family}] = struct{}{}
			six = six || family == 6
		}
	}
	if !six {
		return out, nil
	}
	w.mu.Lock()
	hosts := slices.Collect(maps.Keys(w.hosts))
	w.mu.Unlock()
	for _, h := range hosts {
		way, err := w.kernel.Way(h.Addr())
		if errors.Is(err, kernel.ErrNoRoute) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, hop := range way.Hops {
			if hop.Interface != way.Hops[0].Interface {
				delete(out, desired.LinkFamily{Interface: hop.Interface, Family: 6})
				delete(out, desired.LinkFamily{Interface: way.Hops[0].Interface, Family: 6})
			}
		}
	}
	return out, nil
}

// underlayOf lists the interfaces by which packets from other hosts may come,
// those of the host itself, with the families that they have addresses of.
func underlayOf(k interface {
	Interfaces() ([]kernel.Interface, error)
}, s model.Settings) (map[string][]int, error) {
	all, err := k.Interfaces()
	if err != nil {
		return nil, err
	}
	out := map[string][]int{}
	for _, i := range all {
		if i.Loopback || tunnelDevice(i.Name) || s.WorkloadInterface(i.Name) {
			continue
		}
		for _, family := range []int{4, 6} {
			if slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == (family == 4) }) {
				out[i.Name] = append(out[i.Name], family)
			}
		}
	}
	return out, nil
}

// keepWaysBack keeps the rules true until ctx ends. A setting of an interface
// changes without a word: it is looked at as often as programs are.
func (a *agent) keepWaysBack(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.synced:
	}
	told := map[desired.LinkFamily]struct{}{}
	for {
		now, err := a.waysBack.strict()
		if err != nil {
			a.log.WarnContext(ctx, "interfaces with strict reverse paths not read", "retry_in", carrierResync, "err", err)
			now = told
		}
		var p desired.PolicyPatch
		for l := range now {
			if _, had := told[l]; !had {
				p.Strict.Set = put(p.Strict.Set, l, struct{}{})
			}
		}
		for l := range told {
			if _, has := now[l]; !has {
				p.Strict.Delete = append(p.Strict.Delete, l)
			}
		}
		if told = now; !p.Empty() {
			a.policy.loop.Want(policyPatch{PolicyPatch: p})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(carrierResync):
		case <-a.waysBack.wake:
			if err := store.Pause(ctx, driftedSettle); err != nil { // with what comes along: each workload brings a link
				return err
			}
		}
	}
}

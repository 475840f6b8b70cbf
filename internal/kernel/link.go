package kernel

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Links asserts what interfaces of workloads and tunnels must have: up, MTU,
// alias, sysctls. It makes and deletes no link. One that is missing fails with
// ErrNoLink until it appears. A link that is no longer wanted is left as it
// is.
type Links struct {
	k *Kernel

	mu    sync.Mutex // guards everything below
	known map[string]desired.Link
}

// Links returns the table of links.
func (k *Kernel) Links() *Links { return &Links{k: k, known: map[string]desired.Link{}} }

// List reads the links that were ever applied and are still wanted, in terms
// of what is asserted about them: an MTU that is left alone reads as 0, and
// the settings are those that were asked for. A link without the next hop
// that its workload counts on reads as down.
func (l *Links) List(context.Context) (map[string]desired.Link, error) {
	l.mu.Lock()
	known := maps.Clone(l.known)
	l.mu.Unlock()
	have, seen := map[string]desired.Link{}, map[string]linkInfo{}
	if len(known) == 0 {
		return have, nil
	}
	err := l.k.with(func(c *rtnl.Conn) error {
		links, err := readLinks(c)
		if err != nil {
			return err
		}
		addresses, err := readAddresses(c)
		if err != nil {
			return err
		}
		delays, err := readDelays(c)
		if err != nil {
			return err
		}
		answers := map[int]bool{} // links on which the host is the next hop
		for _, a := range addresses {
			if a.Prefix == gatewayPrefix() {
				answers[a.Index] = true
			}
		}
		for _, i := range links {
			want, ok := known[i.Name]
			if !ok {
				continue
			}
			i.Conf.delays = delays[i.Index]
			seen[i.Name] = i
			have[i.Name] = desired.Link{
				Up: i.up() && want.Up && (answers[i.Index] || !needsGateway(want)), MTU: i.MTU, Alias: i.Alias,
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return have, l.k.inside(func() error { return readSettings(have, known, seen) })
}

// Apply asserts the links that differ: settings first, while the link may
// still be down, but for those of IPv6 that a link has only once it is up.
func (l *Links) Apply(_ context.Context, p reconcile.Plan[string, desired.Link]) map[string]error {
	l.mu.Lock()
	for _, e := range p.Set {
		l.known[e.Key] = e.Value
	}
	for _, name := range p.Delete {
		delete(l.known, name)
	}
	l.mu.Unlock()
	w := newWriter[string](l.k)
	var again []reconcile.Entry[string, desired.Link]
	for _, e := range p.Set {
		later, err := l.assert(w, e.Key, e.Value)
		if err != nil {
			w.failed[e.Key] = fmt.Errorf("set up link %s: %w", e.Key, err)
		} else if later {
			again = append(again, e)
		}
	}
	failed := w.send()
	for _, e := range again {
		if failed[e.Key] != nil {
			continue
		}
		if _, err := l.k.assertLink(e.Key, e.Value.Sysctls); err != nil {
			failed[e.Key] = fmt.Errorf("set up link %s: %w", e.Key, err)
		}
	}
	return failed
}

// assert writes the settings of one link and adds the rest to the batch. It
// reports whether settings are left to be written after it.
func (l *Links) assert(w *writer[string], name string, want desired.Link) (later bool, err error) {
	index, err := w.names.indexOf(name)
	if err != nil {
		return false, err
	}
	if later, err = l.k.assertLink(name, want.Sysctls); err != nil {
		return false, err
	}
	w.add(name, "set up link", func(b *rtnl.Batch) error {
		flags := uint32(0)
		if want.Up {
			flags = unix.IFF_UP
		}
		b.Start(unix.RTM_SETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, index, flags, flags))
		if want.Alias != "" {
			b.String(unix.IFLA_IFALIAS, want.Alias)
		}
		if want.MTU != 0 {
			b.Uint32(unix.IFLA_MTU, uint32(want.MTU))
		}
		return nil
	})
	if needsGateway(want) {
		// What a workload sends to is there whatever became of it meanwhile.
		w.add(name, "assert next hop of link", func(b *rtnl.Batch) error {
			newAddress(b, index, gatewayPrefix())
			return nil
		})
	}
	return later, nil
}

// needsGateway reports whether the host must have the IPv6 next hop on a link.
func needsGateway(want desired.Link) bool {
	return want.Up && want.Alias == desired.AliasWorkload && hasIPv6()
}

package agent

import (
	"errors"
	"net/netip"

	"github.com/brindle-net/brindle/internal/dataplane/flows"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
)

// behind knows which addresses may be those of networks behind workloads here:
// what workloads may send from, or might once. A connection from there is the
// workload's, and it is not among its addresses.
type behind struct {
	networks flows.Networks
	route    func(netip.Addr) (string, error) // the interface that packets to an address leave by; "": none
}

// mostBehind is how many prefixes are remembered; from there on every address
// may be behind a workload.
const mostBehind = 1 << 12

// note remembers what a workload may send from.
func (b *behind) note(e *desired.Endpoint) {
	for _, p := range e.Sources {
		b.networks.Add(p)
	}
	if b.networks.Len() > mostBehind {
		b.networks = flows.Networks{}
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			b.networks.Add(netip.MustParsePrefix(all))
		}
	}
}

// finder returns what finds the interface that an address is behind, and
// remembers what it found: a route is asked for once in a look. failed tells of
// those that could not be asked for.
func (b *behind) finder() (find func(netip.Addr) string, failed func() error) {
	known := map[netip.Addr]string{}
	var failure error
	find = func(a netip.Addr) string {
		if b.route == nil || !b.networks.Contain(a) {
			return ""
		}
		iface, ok := known[a]
		if !ok {
			var err error
			if iface, err = b.route(a); err != nil {
				failure = errors.Join(failure, err)
				return ""
			}
			known[a] = iface
		}
		return iface
	}
	return find, func() error { return failure }
}

// wayTo asks the kernel by which interface packets to an address leave. One to
// which none go is behind nothing.
func wayTo(k *kernel.Kernel) func(netip.Addr) (string, error) {
	return func(a netip.Addr) (string, error) {
		way, err := k.Way(a)
		switch {
		case errors.Is(err, kernel.ErrNoRoute), errors.Is(err, kernel.ErrNoLink):
			return "", nil
		case err != nil || len(way.Hops) == 0 || way.Local:
			return "", err
		}
		return way.Hops[0].Interface, nil
	}
}

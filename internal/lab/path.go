package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// How packets travel, beside the forms of package desired.
const (
	WayNone    = "none"    // the kernel has no route, or drops them
	WayDefault = "default" // bare, by the default route: the host knows nothing of the workload
)

// A Path is how packets travel from one host to workloads of another, as the
// sending host's kernel says.
type Path struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Family    string `json:"family"`            // v4 or v6
	Pool      string `json:"pool,omitempty"`    // empty: in none, or the datastore is stopped
	Address   string `json:"address"`           // that the kernel was asked for
	Form      string `json:"form"`              // direct, ipip, vxlan, default or none
	Interface string `json:"interface"`         // that they leave by; empty: none
	Via       string `json:"via,omitempty"`     // next hop
	Through   string `json:"through,omitempty"` // the router that the next hop is, if it is one of the lab's
}

// Paths asks the kernel of every host how packets travel to the workloads of
// every other, once for each pool that the other has a workload from.
func Paths(ctx context.Context, st State) ([]Path, error) {
	pools := map[string]netip.Prefix{}
	if st.Datastore.Running {
		var err error
		if pools, err = readPools(ctx, st.Name); err != nil {
			return nil, err
		}
	}
	out := []Path{}
	for _, from := range st.Hosts {
		k, err := openKernel(from.Netns)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", from.Name, err)
		}
		for _, to := range st.Hosts {
			if to.Name == from.Name {
				continue
			}
			for _, p := range st.targets(to.Name, pools) {
				p.From = from.Name
				if err = p.ask(k, st.Routers); err != nil {
					return nil, errors.Join(fmt.Errorf("host %s: %w", from.Name, err), k.Close())
				}
				out = append(out, p)
			}
		}
		if err := k.Close(); err != nil {
			return nil, fmt.Errorf("host %s: %w", from.Name, err)
		}
	}
	return out, nil
}

// openKernel opens the network stack of a member.
func openKernel(name string) (*kernel.Kernel, error) {
	return kernel.Open(kernel.Config{Netns: netns.Path(name)})
}

// targets lists one address of each pool that workloads of a host have.
func (s State) targets(host string, pools map[string]netip.Prefix) []Path {
	var out []Path
	for _, w := range s.Workloads {
		if w.Host != host {
			continue
		}
		for _, a := range addrs(w.Addresses) {
			p := Path{To: host, Family: familyName(a), Pool: poolOf(pools, a), Address: a.String()}
			same := func(o Path) bool { return o.Family == p.Family && o.Pool == p.Pool }
			if !slices.ContainsFunc(out, same) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b Path) int { return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Pool, b.Pool)) })
	return out
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return V4
	}
	return V6
}

func poolOf(pools map[string]netip.Prefix, a netip.Addr) string {
	for name, p := range pools { // they do not overlap
		if p.Contains(a) {
			return name
		}
	}
	return ""
}

// ask fills in what the kernel says.
func (p *Path) ask(k *kernel.Kernel, routers []Router) error {
	to, err := netip.ParseAddr(p.Address)
	if err != nil {
		return err
	}
	w, err := k.Way(to)
	if errors.Is(err, kernel.ErrNoRoute) || err == nil && len(w.Hops) == 0 {
		p.Form = WayNone
		return nil
	}
	if err != nil {
		return err
	}
	first := w.Hops[0]
	p.Form, p.Interface = formOf(w), first.Interface
	if first.Via.IsValid() {
		p.Via = first.Via.String()
	}
	for _, r := range routers {
		if slices.Contains(r.Addresses, p.Via) {
			p.Through = r.Name
		}
	}
	return nil
}

// formOf reads the form of packets off the interface that they leave by. IP in
// IP has one name whatever carries it.
func formOf(w kernel.Way) string {
	first := w.Hops[0]
	switch {
	case first.Kind == "vxlan":
		return desired.VXLAN.String()
	case first.Kind == "ipip" || first.Interface == desired.DeviceIPIP:
		return desired.IPIP.String()
	case w.Route.Bits() == 0:
		return WayDefault
	}
	return desired.Direct.String()
}

// readPools reads the networks of all pools by their names.
func readPools(ctx context.Context, lab string) (map[string]netip.Prefix, error) {
	d, err := etcd.New(etcd.Config{Endpoints: []string{Endpoints(lab)}})
	if err != nil {
		return nil, fmt.Errorf("open the lab's datastore: %w", err)
	}
	defer d.Close()
	list, err := client.List[v3.IPPool](ctx, client.New(d, client.Config{}), "")
	if err != nil {
		return nil, fmt.Errorf("list the pools of lab %s: %w", lab, err)
	}
	out := map[string]netip.Prefix{}
	for _, p := range list {
		if cidr, err := netip.ParsePrefix(p.Spec.CIDR); err == nil {
			out[p.Name] = cidr
		}
	}
	return out, nil
}

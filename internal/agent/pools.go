package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// pools knows the cluster's pools, for whoever asks.
type pools struct {
	mu  sync.Mutex // guards all
	all map[model.ID]*model.Pool
}

func (p *pools) note(events []model.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[model.ID]*model.Pool{}
	}
	for _, e := range events {
		if e.ID.Kind != model.KindPool {
			continue
		}
		delete(p.all, e.ID)
		if pool, ok := e.Value.(*model.Pool); ok {
			p.all[e.ID] = pool
		}
	}
}

// list returns them by network.
func (p *pools) list() []agentapi.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	sorted := make([]*model.Pool, 0, len(p.all))
	for _, pool := range p.all {
		sorted = append(sorted, pool)
	}
	slices.SortFunc(sorted, func(a, b *model.Pool) int { return a.CIDR.Compare(b.CIDR) })
	out := []agentapi.Pool{}
	for _, pool := range sorted {
		form := desired.Direct
		switch pool.Encap {
		case model.IPIP:
			form = desired.IPIP
		case model.VXLAN:
			form = desired.VXLAN
		}
		out = append(out, agentapi.Pool{
			Name: pool.Name, CIDR: pool.CIDR.String(), Form: form.String(), CrossSubnet: pool.CrossSubnet,
			NATOutgoing: pool.NATOutgoing, Disabled: pool.Disabled,
		})
	}
	return out
}

// hostMTU is the host's MTU as it was measured last, 0 before.
func (o *overlay) hostMTU() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mtu
}

// choices are the addresses that there are, and why.
func (r *registered) choices() []agentapi.AddressChoice {
	var out []agentapi.AddressChoice
	for i, p := range []netip.Prefix{r.v4, r.v6} {
		if p.IsValid() {
			out = append(out, agentapi.AddressChoice{Address: p.String(), Why: []string{r.why4, r.why6}[i]})
		}
	}
	return out
}

// whyAddress says for people why an address was chosen; "" for none.
func (a *agent) whyAddress(w wantedAddress, found netip.Prefix) string {
	param := map[int]string{4: "ip", 6: "ip6"}[w.family]
	i := slices.IndexFunc(a.cfg.Outcome.Values, func(v config.Value) bool { return v.Name == param && v.Value != "" })
	source := ""
	if i >= 0 {
		source = a.cfg.Outcome.Values[i].Source
	}
	switch {
	case !found.IsValid():
		return ""
	case w.said == "autodetect" && source != "":
		return fmt.Sprintf("found%s by %s, as asked for (%s)", a.whereIs(found.Addr()), w.method, source)
	case w.said == "autodetect":
		return fmt.Sprintf("found%s by %s, because the Node had none", a.whereIs(found.Addr()), w.method)
	case w.said != "" && source != "":
		return fmt.Sprintf("given (%s)", source)
	case w.said != "":
		return "given"
	}
	return "the Node had it already"
}

// whereIs names the interface that has an address, if one does.
func (a *agent) whereIs(addr netip.Addr) string {
	all, err := a.kernel.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range all {
		if slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return " on " + i.Name
		}
	}
	return ""
}

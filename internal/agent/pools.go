package agent

import (
	"slices"
	"sync"

	"github.com/brindle-net/brindle/internal/agentapi"
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

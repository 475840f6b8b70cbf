package agent

import (
	"errors"
	"net/netip"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
)

// resolve says by which next hops on this host's links the next hop of a
// learned path is reached: itself, or the routers that the host's own routes
// name (documented Calico behaviour: the gateway is recursive). No learned
// route stands on another, nor on a tunnel of ours: it would be in a circle.
func (a *agent) resolve(via netip.Addr) []desired.NextHop {
	self := []desired.NextHop{{Via: via, Weight: 1}}
	w, err := a.kernel.Way(via)
	if errors.Is(err, kernel.ErrNoRoute) {
		return nil
	}
	if err != nil {
		a.log.Warn("way to a bgp next hop not read", "next_hop", via, "err", err)
		return self // the kernel refuses what cannot be
	}
	var out []desired.NextHop
	for _, h := range w.Hops {
		switch {
		case !h.Via.IsValid() && w.Protocol != desired.ProtocolBGP:
			return self
		case w.Ours():
			return nil
		}
		hop := desired.NextHop{Via: h.Via, Weight: 1, OnLink: h.OnLink}
		if h.OnLink || h.Via.IsLinkLocalUnicast() {
			hop.Interface = h.Interface
		}
		out = append(out, hop)
	}
	return out
}

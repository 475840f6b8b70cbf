package agent

import (
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/model"
)

// coreSettings is what the core must know of the settings.
func coreSettings(cfg Config) model.Settings {
	s := cfg.Settings
	o := s.Overlay
	return model.Settings{
		Node: cfg.Node, RouterID: s.Startup.Router(cfg.Node), NoIPv6: !s.IPv6, NoForwarding: !s.Forwarding,
		Priority4: s.Routes.Priority4, Priority6: s.Routes.Priority6, Prefixes: s.Interfaces.Prefixes,
		Overlay: model.Overlay{
			VNI: uint32(o.VNI), Port: uint16(s.Policy.VXLANPort),
			IPIPMTU: o.IPIPMTU, VXLANMTU: o.VXLANMTU, VXLANMTU6: o.VXLANMTU6, IPIP: o.IPIP, VXLAN: o.VXLAN,
			Routes: map[string]model.RoutesBy{
				"Enabled": model.RoutesAll, "Disabled": model.RoutesNone,
				"EnabledIPIPOnly": model.RoutesIPIPOnly, "EnabledNoEncapOnly": model.RoutesNoEncapOnly,
			}[o.Routes],
			ExternalNodes: o.ExternalNodes, NoBGP: o.Backend != config.BackendBGP, NoRoutes: o.NoRoutes,
		},
	}
}

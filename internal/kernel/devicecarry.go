package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// A carried is what of ours a device had on it, to be put on the one that
// takes its place: else packets would find no way until every table has read
// the kernel back.
type carried struct {
	mtu        int
	up         bool
	addresses  []addressMessage
	neighbours []neighMessage
	routes     []routeMessage
}

// carriedBy reads what a device carries.
func (k *Kernel) carriedBy(l linkInfo) (*carried, error) {
	out := &carried{mtu: l.MTU, up: l.up()}
	err := k.with(func(c *rtnl.Conn) error {
		all, err := readAddresses(c)
		if err != nil {
			return err
		}
		out.addresses = slices.DeleteFunc(all, func(a addressMessage) bool { return a.Index != l.Index || !a.onTunnel() })
		for _, family := range []uint8{unix.AF_UNSPEC, unix.AF_BRIDGE} {
			found, err := readNeighbours(c, family)
			if err != nil {
				return err
			}
			found = slices.DeleteFunc(found, func(m neighMessage) bool { return m.Index != l.Index || !m.ours() || m.Odd })
			out.neighbours = append(out.neighbours, found...)
		}
		for _, protocol := range []uint8{desired.ProtocolAgent, desired.ProtocolBGP} {
			found, err := readRoutes(c, routeMessage{Protocol: protocol})
			if err != nil {
				return err
			}
			for _, r := range found {
				if !r.Cloned && len(r.Hops) == 1 && r.Hops[0].Out == l.Index {
					out.routes = append(out.routes, r)
				}
			}
		}
		return nil
	})
	return out, err
}

// putBack puts it on the new device. A part that fails is left to its table,
// which finds it missing.
func (k *Kernel) putBack(c carried, name string, index int) error {
	if _, err := k.assertLink(name, desired.SysctlLines(desired.TunnelSysctls())); err != nil || !c.up {
		return err
	}
	var b rtnl.Batch
	setUp(&b, index, true)
	for _, a := range c.addresses {
		newAddress(&b, index, a.Prefix)
		b.Uint8(ifaProto, desired.ProtocolAgent)
	}
	for _, m := range c.neighbours {
		m.Index = index
		if m.Family == unix.AF_BRIDGE {
			m.Flags = unix.NTF_SELF
		}
		m.State = unix.NUD_PERMANENT
		m.put(&b, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	}
	for _, r := range c.routes {
		r.Hops[0].Out, r.NextHop = index, 0
		newRoute(&b, r)
	}
	return k.with(func(conn *rtnl.Conn) error {
		_ = conn.Send(&b)
		return nil
	})
}

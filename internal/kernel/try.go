package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// The names of links' data that a trial sets (linux/if_link.h, linux/veth.h).
const (
	tryVXLANID, tryVXLANPort = 1, 15
	tryVethPeer              = 1
)

// TryLink reports why the kernel does not make a link of a kind (veth, vxlan,
// ipip, wireguard, dummy), nil if it does. ns must have been made by this
// process for the purpose; the link is taken away again. Asking for a kind
// loads the kernel's module for it, if it has one.
func TryLink(ns *netns.NS, kind string) error {
	return try(ns, func(c *rtnl.Conn) error {
		const name = "try"
		var b rtnl.Batch
		b.Start(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
		b.String(unix.IFLA_IFNAME, name)
		b.Nest(unix.IFLA_LINKINFO, func() {
			b.String(unix.IFLA_INFO_KIND, kind)
			switch kind {
			case "veth":
				b.Nest(unix.IFLA_INFO_DATA, func() {
					b.Nest(tryVethPeer, func() {
						b.Raw(rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
						b.String(unix.IFLA_IFNAME, "peer")
					})
				})
			case kindVXLAN:
				b.Nest(unix.IFLA_INFO_DATA, func() {
					b.Uint32(tryVXLANID, 4096)
					b.Bytes(tryVXLANPort, binary.BigEndian.AppendUint16(nil, 4789))
				})
			}
		})
		if err := c.Do(&b); err != nil {
			return fmt.Errorf("make a link of kind %s: %w", kind, err)
		}
		b.Reset()
		b.Start(unix.RTM_DELLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
		b.String(unix.IFLA_IFNAME, name)
		return c.Do(&b)
	})
}

// TryRule reports why the kernel takes no policy routing rule of a family (4
// or 6). It asks as TryLink does.
func TryRule(ns *netns.NS, family int) error {
	return try(ns, func(c *rtnl.Conn) error {
		key, rule := desired.RuleKey{Family: uint8(family), Priority: 99}, desired.Rule{Table: 1, Mark: 1, Mask: 1}
		var b rtnl.Batch
		putRule(&b, unix.RTM_NEWRULE, unix.NLM_F_CREATE, key, rule)
		if err := c.Do(&b); err != nil {
			return fmt.Errorf("add an IPv%d rule: %w", family, err)
		}
		b.Reset()
		putRule(&b, unix.RTM_DELRULE, 0, key, rule)
		return c.Do(&b)
	})
}

// TryAddress reports why the kernel takes no address of a family (4 or 6): a
// kernel without IPv6, or one where it is switched off, takes none. It asks as
// TryLink does.
func TryAddress(ns *netns.NS, family int) error {
	addr := netip.MustParsePrefix("192.0.2.1/32")
	if family == 6 {
		addr = netip.MustParsePrefix("2001:db8::1/128")
	}
	return try(ns, func(c *rtnl.Conn) error {
		const loopback = 1
		head := make([]byte, unix.SizeofIfAddrmsg)
		head[0], head[1] = unix.AF_INET, uint8(addr.Bits())
		if family == 6 {
			head[0] = unix.AF_INET6
		}
		binary.NativeEndian.PutUint32(head[4:], loopback)
		var b rtnl.Batch
		for _, kind := range []uint16{unix.RTM_NEWADDR, unix.RTM_DELADDR} {
			flags := uint16(0)
			if kind == unix.RTM_NEWADDR {
				flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
			}
			b.Start(kind, flags, head)
			b.Addr(unix.IFA_LOCAL, addr.Addr())
			b.Addr(unix.IFA_ADDRESS, addr.Addr())
		}
		if err := c.Do(&b); err != nil {
			return fmt.Errorf("add an IPv%d address: %w", family, err)
		}
		return nil
	})
}

// try opens a socket in a namespace that is there for trials.
func try(ns *netns.NS, f func(*rtnl.Conn) error) error {
	if ns == nil || !ns.Made() {
		return errors.New("refused outside a namespace that was made for trials")
	}
	c, err := rtnl.Dial(ns)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

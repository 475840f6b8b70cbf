package kernel

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// Dump is all that the network stack of a namespace holds, ours and others',
// for people and in the kernel's order. What was not read is nil.
type Dump struct {
	Links      []DumpedLink
	Addresses  []DumpedAddress
	Routes     []DumpedRoute
	Rules      []DumpedRule
	Neighbours []DumpedNeighbour
}

// DumpedLink is a link.
type DumpedLink struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	Kind  string `json:"kind,omitempty"`
	Alias string `json:"alias,omitempty"`
	MAC   string `json:"mac,omitempty"`
	MTU   int    `json:"mtu"`
	Up    bool   `json:"up"`
	Flags string `json:"flags"` // IFF_, hexadecimal
}

// DumpedAddress is an address of a link.
type DumpedAddress struct {
	Link    string `json:"link"`
	Address string `json:"address"`
	Scope   uint8  `json:"scope,omitempty"`
	Flags   string `json:"flags"` // IFA_F_, hexadecimal
}

// DumpedRoute is a route of any table.
type DumpedRoute struct {
	Table    int         `json:"table"`
	Dst      string      `json:"dst"`
	Type     uint8       `json:"type"` // RTN_
	Protocol uint8       `json:"protocol"`
	Scope    uint8       `json:"scope,omitempty"`
	Metric   uint32      `json:"metric,omitempty"`
	MTU      uint32      `json:"mtu,omitempty"`
	Src      string      `json:"src,omitempty"`
	Hops     []DumpedHop `json:"hops,omitempty"`
}

// DumpedHop is a next hop of a route.
type DumpedHop struct {
	Via    string `json:"via,omitempty"`
	Link   string `json:"link,omitempty"`
	OnLink bool   `json:"onLink,omitempty"`
	Weight int    `json:"weight,omitempty"`
}

// DumpedRule is a policy routing rule.
type DumpedRule struct {
	Family   int    `json:"family"` // 4 or 6
	Priority uint32 `json:"priority"`
	Action   uint8  `json:"action"` // FR_ACT_
	Invert   bool   `json:"invert,omitempty"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	In       string `json:"in,omitempty"`
	Out      string `json:"out,omitempty"`
	Mark     string `json:"mark,omitempty"` // value/mask, hexadecimal
	Table    uint32 `json:"table"`
	Protocol uint8  `json:"protocol,omitempty"`
}

// DumpedNeighbour is a neighbour, or an entry of a forwarding table.
type DumpedNeighbour struct {
	Link  string `json:"link"`
	Addr  string `json:"addr,omitempty"`
	MAC   string `json:"mac,omitempty"`
	State string `json:"state"` // NUD_, hexadecimal
	FDB   bool   `json:"fdb,omitempty"`
}

// ReadDump reads everything in ns, or in the calling thread's namespace when
// ns is nil. The error names what could not be read; the rest is there.
func ReadDump(ns *netns.NS) (Dump, error) {
	c, err := rtnl.Dial(ns)
	if err != nil {
		return Dump{}, err
	}
	var d Dump
	names := map[int]string{}
	links, errLinks := readLinks(c)
	for _, l := range links {
		names[l.Index] = l.Name
		d.Links = append(d.Links, DumpedLink{l.Index, l.Name, l.Kind, l.Alias, l.MAC.String(), l.MTU, l.up(), hex(l.Flags)})
	}
	name := func(index int) string {
		if n, ok := names[index]; ok || index == 0 {
			return n
		}
		return strconv.Itoa(index)
	}
	addresses, errAddresses := readAddresses(c)
	for _, a := range addresses {
		d.Addresses = append(d.Addresses, DumpedAddress{name(a.Index), a.Prefix.String(), a.Scope, hex(a.Flags)})
	}
	routes, errRoutes := readRoutes(c, routeMessage{})
	for _, r := range routes {
		if !r.Cloned {
			d.Routes = append(d.Routes, dumpRoute(r, name))
		}
	}
	rules, errRules := readRules(c, dumpRule)
	d.Rules = rules
	errNeighbours := dumpNeighbours(c, &d, name)
	return d, errors.Join(errLinks, errAddresses, errRoutes, errRules, errNeighbours, c.Close())
}

func hex[T uint16 | uint32](v T) string { return fmt.Sprintf("0x%x", v) }

func dumpRoute(r routeMessage, name func(int) string) DumpedRoute {
	out := DumpedRoute{
		Table: r.Table, Dst: r.Dst.String(), Type: r.Type, Protocol: r.Protocol, Scope: r.Scope, Metric: r.Metric, MTU: r.MTU,
	}
	if r.Src.IsValid() {
		out.Src = r.Src.String()
	}
	for _, h := range r.Hops {
		hop := DumpedHop{Link: name(h.Out), OnLink: h.OnLink, Weight: h.Weight}
		if h.Via.IsValid() {
			hop.Via = h.Via.String()
		}
		out.Hops = append(out.Hops, hop)
	}
	return out
}

func dumpRule(m rtnl.Message, family uint8) (DumpedRule, error) {
	if len(m.Body) < ruleHeaderLen {
		return DumpedRule{}, rtnl.ErrMalformed
	}
	h := m.Body
	r := DumpedRule{Family: int(family), Table: uint32(h[4]), Action: h[7], Invert: rtnl.Uint32(h[ruleFlagsOffset:ruleHeaderLen])&ruleInvert != 0}
	network := func(v []byte, bits uint8) string { return rtnl.Addr(v).String() + "/" + strconv.Itoa(int(bits)) }
	mark, mask := uint32(0), uint32(0)
	err := rtnl.Attrs(h[ruleHeaderLen:], func(kind uint16, v []byte) {
		switch kind {
		case unix.FRA_PRIORITY:
			r.Priority = rtnl.Uint32(v)
		case unix.FRA_TABLE:
			r.Table = rtnl.Uint32(v)
		case unix.FRA_SRC:
			r.From = network(v, h[2])
		case unix.FRA_DST:
			r.To = network(v, h[1])
		case unix.FRA_IIFNAME:
			r.In = rtnl.Text(v)
		case unix.FRA_OIFNAME:
			r.Out = rtnl.Text(v)
		case unix.FRA_FWMARK:
			mark = rtnl.Uint32(v)
		case unix.FRA_FWMASK:
			mask = rtnl.Uint32(v)
		case unix.FRA_PROTOCOL:
			if len(v) == 1 {
				r.Protocol = v[0]
			}
		}
	})
	if mark|mask != 0 {
		r.Mark = hex(mark) + "/" + hex(mask)
	}
	return r, err
}

func dumpNeighbours(c *rtnl.Conn, d *Dump, name func(int) string) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		all, err := readNeighbours(c, family)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // no IPv6, or no bridges
		}
		if err != nil {
			return err
		}
		for _, m := range all {
			n := DumpedNeighbour{Link: name(m.Index), MAC: m.MAC.String(), State: hex(m.State), FDB: family == unix.AF_BRIDGE}
			if m.Dst.IsValid() {
				n.Addr = m.Dst.String()
			}
			d.Neighbours = append(d.Neighbours, n)
		}
	}
	return nil
}

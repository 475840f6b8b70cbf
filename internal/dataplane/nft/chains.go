package nft

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// Chain is a chain of nftables, whoever made it.
type Chain struct {
	Family, Table, Name string
	Hook                string // "" unless packets enter here
	Priority            int32
	Drops               bool // what packets meet at the end of it
}

// Chains lists the chains of all tables in ns (nil: the calling thread's
// namespace), sorted. It changes nothing, and loads nothing into the kernel that
// a program which lists nftables does not.
func Chains(ns *netns.NS) ([]Chain, error) {
	c, err := dial(ns)
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	var out []Chain
	for range dumpTries {
		out = nil
		var b batch
		b.start(unix.NFT_MSG_GETCHAIN, 0, unix.NFPROTO_UNSPEC, step{"read", "chains", ""})
		err = c.get(&b, true, func(m message) error {
			r := &reader{}
			table, name, made := r.chain(m.body)
			one := Chain{Family: familyName(m.family), Table: table, Name: name}
			if made.base != nil {
				one.Hook, one.Priority, one.Drops = hookName(m.family, made.base.hook), made.base.priority, made.base.drops
			}
			out = append(out, one)
			return r.err
		})
		if !errors.Is(err, ErrInterrupted) {
			break
		}
	}
	slices.SortFunc(out, func(a, b Chain) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
	if err != nil {
		err = fmt.Errorf("list nftables: %w", err)
	}
	return out, errors.Join(err, c.close())
}

func familyName(family uint8) string {
	switch family {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_ARP:
		return "arp"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	}
	return fmt.Sprint("family ", family)
}

func hookName(family uint8, hook uint32) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch family {
	case unix.NFPROTO_ARP:
		names = []string{"input", "output", "forward"}
	case unix.NFPROTO_NETDEV:
		names = []string{"ingress", "egress"}
	}
	if int(hook) < len(names) {
		return names[hook]
	}
	return fmt.Sprint("hook ", hook)
}

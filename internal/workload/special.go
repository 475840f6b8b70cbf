package workload

import (
	"net/netip"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/prefix"
)

// checkGiven refuses a request whose addresses somebody else has seen to, and
// which asks for others beside them or for some that no workload can have.
func checkGiven(req agentapi.AddRequest) error {
	if len(req.Addresses) > 0 || req.AssignIPv4 || req.AssignIPv6 {
		return invalid("addresses are given, and others asked for: do one of both")
	}
	_, err := given(req)
	return err
}

// given are the addresses that a request brings with it. They are of no block.
func given(req agentapi.AddRequest) ([]ipam.Assignment, error) {
	var addrs []netip.Addr
	for _, s := range req.Special.Given {
		a, err := parseAddr(s)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	addrs, err := usable(addrs)
	if err != nil {
		return nil, invalid("given: %v", err)
	}
	var out []ipam.Assignment
	for _, a := range addrs {
		out = append(out, ipam.Assignment{Addr: a})
	}
	return out, nil
}

// checkSpecial refuses what makes no sense, before anything is done.
func checkSpecial(s *agentapi.Special) error {
	if s.Queues < 0 || s.Queues > maxQueues {
		return invalid("queues %d: must be 0 to %d", s.Queues, maxQueues)
	}
	_, err := prefixes(s.Routes)
	if err == nil {
		_, err = prefixes(s.AllowedSources)
	}
	return err
}

// prefixes reads a list of networks; nil stays nil.
func prefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		p, err := prefix.Parse(s)
		if err != nil {
			return nil, invalid("%q is not a network: %v", s, err)
		}
		out = append(out, p)
	}
	return out, nil
}

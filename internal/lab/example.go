package lab

import (
	"fmt"
	"strings"
)

// About says in a few words what a preset is.
func About(preset string) string {
	return map[string]string{
		Flat:       "hosts on one segment of layer 2",
		Subnets:    "two subnets of hosts, joined by a router that knows no workload",
		Fabric:     "two racks of hosts, a router on top of each, and a spine joined to both by two cables",
		Reflectors: "hosts on one segment, of which two are route reflectors, and no mesh",
	}[preset]
}

// Example is a topology file of a lab with a preset, in full. Read again it is
// the same lab.
func Example(preset string) string {
	t := Default(preset)
	var b strings.Builder
	fmt.Fprintf(&b, "# The preset %s: %s.\n", preset, About(preset))
	b.WriteString("# `brindle lab up -f FILE` builds it; what is left out is as in the preset.\n")
	fmt.Fprintf(&b, "preset: %s\nworkloads: %d # on each host\nfamily: %s # v4, v6 or dual\n", t.Preset, t.Workloads, t.Family)
	fmt.Fprintf(&b, "ipip: %s # Never, Always or CrossSubnet: IP in IP for IPv4, instead of VXLAN\n", t.IPIP)
	fmt.Fprintf(&b, "vxlan: %s\nnat: %v # natOutgoing of the pools\nholdTime: %.0fs # of BGP\n", t.VXLAN, t.NAT, t.HoldTime.Seconds())
	s := t.shape()
	b.WriteString("segments: # each is a subnet; hosts are numbered through: h1, h2, …\n")
	for i, seg := range t.laidOut() {
		fmt.Fprintf(&b, "- {name: %s", seg.Name)
		if n := s.Segments[i].Hosts; n > 0 {
			fmt.Fprintf(&b, ", hosts: %d", n)
		}
		fmt.Fprintf(&b, "} # %s\n", strings.Join(seg.Subnets, ", "))
	}
	if len(s.Routers) > 0 {
		b.WriteString("routers: # eth0 is in the first of its segments, eth1 in the second\n")
	}
	for _, r := range s.Routers {
		as := ""
		if r.ASNumber != 0 {
			as = fmt.Sprintf("asNumber: %d, ", r.ASNumber)
		}
		fmt.Fprintf(&b, "- {name: %s, %ssegments: [%s]}\n", r.Name, as, strings.Join(r.Segments, ", "))
	}
	if len(s.Reflectors) > 0 {
		fmt.Fprintf(&b, "reflectors: [%s] # with these all hosts speak BGP\n", strings.Join(s.Reflectors, ", "))
	}
	return b.String()
}

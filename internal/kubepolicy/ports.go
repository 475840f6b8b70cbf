package kubepolicy

import (
	"maps"
	"slices"
	"strconv"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
)

// maxPorts is the most entries that a list of ports may have in the v3 API.
const maxPorts = 50

// protocolPorts is a protocol with ports of it: all if there are none. A nil
// protocol is any.
type protocolPorts struct {
	protocol *v3.Protocol
	ports    []v3.Port
}

// portSet is what a rule says of one protocol.
type portSet struct {
	all    bool
	ranges []v3.Port
	names  []string
}

// ports converts the ports of a rule: one entry for each protocol, sorted by
// name, or several where there are more ports than a list may hold. An empty
// list is any protocol.
func (c *converter) ports(path string, ports []v3.KubernetesPolicyPort) []protocolPorts {
	if len(ports) == 0 {
		return []protocolPorts{{}}
	}
	sets := map[string]*portSet{}
	for i, p := range ports {
		at := path + "[" + strconv.Itoa(i) + "]"
		protocol := v3.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if protocol != v3.ProtocolTCP && protocol != v3.ProtocolUDP && protocol != v3.ProtocolSCTP {
			c.wrong(at+".protocol", protocol, "must be TCP, UDP or SCTP")
			continue
		}
		s := sets[protocol]
		if s == nil {
			s = &portSet{}
		}
		if c.port(at, &p, s) {
			sets[protocol] = s
		}
	}
	return listed(sets)
}

// port adds one entry to what is known of its protocol, and reports whether
// it could.
func (c *converter) port(path string, p *v3.KubernetesPolicyPort, to *portSet) bool {
	switch {
	case p.Port == nil && p.EndPort != nil, p.Port != nil && p.Port.Is && p.EndPort != nil:
		c.wrong(path+".endPort", strconv.Itoa(int(*p.EndPort)), "must not be set without a port number")
		return false
	case p.Port == nil:
		to.all = true
		return true
	case p.Port.Is:
		if p.Port.Str == "" {
			c.wrong(path+".port", "", "must be a number or a name")
			return false
		}
		to.names = append(to.names, p.Port.Str)
		return true
	}
	last := p.Port.Int
	if p.EndPort != nil {
		last = *p.EndPort
	}
	return c.rangeOf(path+".port", p.Port.Int, last, to)
}

func (c *converter) rangeOf(path string, first, last int32, to *portSet) bool {
	if first < 1 || first > 65535 || last < first || last > 65535 {
		c.wrong(path, strconv.Itoa(int(first))+":"+strconv.Itoa(int(last)), "must be ports from 1 to 65535, the last not before the first")
		return false
	}
	to.ranges = append(to.ranges, v3.Port{Min: uint16(first), Max: uint16(last)})
	return true
}

// listed writes sets of ports as lists, by name of protocol.
func listed(sets map[string]*portSet) []protocolPorts {
	var out []protocolPorts
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		protocol, s := &v3.Protocol{Name: name}, sets[name]
		if s.all {
			out = append(out, protocolPorts{protocol: protocol})
			continue
		}
		for ports := range slices.Chunk(s.list(), maxPorts) {
			out = append(out, protocolPorts{protocol, ports})
		}
	}
	return out
}

// list is the fewest ranges that are the numbers, ascending, then the names,
// sorted and each once.
func (s *portSet) list() []v3.Port {
	out := merge(s.ranges)
	names := slices.Compact(slices.Sorted(slices.Values(s.names)))
	for _, n := range names {
		out = append(out, v3.Port{Name: n})
	}
	return out
}

// merge joins ranges that overlap or touch.
func merge(ranges []v3.Port) []v3.Port {
	ranges = slices.SortedFunc(slices.Values(ranges), func(a, b v3.Port) int { return int(a.Min) - int(b.Min) })
	var out []v3.Port
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.Min) <= int(out[n-1].Max)+1 {
			out[n-1].Max = max(out[n-1].Max, r.Max)
			continue
		}
		out = append(out, r)
	}
	return out
}

// cidr reads a network, clearing bits beyond its length: Kubernetes lets them
// stand.
func (c *converter) cidr(path, value string) string {
	p, err := prefix.ParseLoose(value)
	if err != nil {
		c.wrong(path, value, "must be a CIDR such as 10.0.0.0/16 or fd00::/64")
		return value
	}
	return p.String()
}

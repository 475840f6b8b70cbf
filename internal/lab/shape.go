package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// The presets.
const (
	Flat       = "flat"       // one segment of layer 2
	Subnets    = "subnets"    // two segments, and a router between them that knows no workload
	Fabric     = "fabric"     // two racks, a router on top of each, and a spine that joins them twice
	Reflectors = "reflectors" // one segment; two hosts pass on what the others announce
)

// Custom is the preset of a lab whose file says its own shape and none.
const Custom = "custom"

// Presets are the shapes that `lab up` knows.
var Presets = []string{Flat, Subnets, Fabric, Reflectors}

// Shape is what a lab's underlay looks like.
type Shape struct {
	Segments   []Segment     `json:"segments"`
	Routers    []RouterShape `json:"routers"`
	Reflectors []string      `json:"reflectors"` // names of hosts; none: all hosts speak with each other
}

// Segment is a segment of layer 2 to build: a subnet.
type Segment struct {
	Name  string `json:"name"`
	Hosts int    `json:"hosts"` // how many are on it; they are numbered through
}

// RouterShape is a router to build.
type RouterShape struct {
	Name     string   `json:"name"`
	ASNumber uint32   `json:"asNumber"` // that it is meant to have
	Segments []string `json:"segments"` // eth0 is in the first
}

// shape is what is built.
func (t Topology) shape() Shape {
	if t.Shape != nil {
		return *t.Shape
	}
	s := Shape{Segments: []Segment{{"s1", t.Hosts}}}
	switch t.Preset {
	case Subnets:
		s.Segments = deal(t.Hosts, "s1", "s2")
		s.Routers = []RouterShape{{"r1", 0, []string{"s1", "s2"}}}
	case Fabric:
		s.Segments = append(deal(t.Hosts, "s1", "s2"), deal(0, "c1", "c2", "c3", "c4")...)
		s.Routers = []RouterShape{
			{"r1", 64601, []string{"s1", "c1", "c2"}}, {"r2", 64602, []string{"s2", "c3", "c4"}},
			{"r3", 64600, []string{"c1", "c2", "c3", "c4"}},
		}
	case Reflectors:
		s.Reflectors = []string{"h1", "h2"}
	}
	return s
}

// deal parts hosts among segments, in order and as evenly as it goes.
func deal(hosts int, names ...string) []Segment {
	out := make([]Segment, len(names))
	for i, name := range names {
		out[i].Name = name
	}
	for i := range hosts {
		out[i*len(names)/hosts].Hosts++
	}
	return out
}

// hosts counts all of them.
func (s Shape) hosts() int {
	n := 0
	for _, seg := range s.Segments {
		n += seg.Hosts
	}
	return n
}

// leastHosts is how few hosts a lab may have.
func (t Topology) leastHosts() int {
	if t.Shape != nil {
		return 1
	}
	switch t.Preset {
	case Subnets, Fabric:
		return 2
	case Reflectors:
		return 3
	}
	return 1
}

// routersOn lists the routers on a segment, in order.
func (s Shape) routersOn(segment string) []RouterShape {
	var out []RouterShape
	for _, r := range s.Routers {
		if slices.Contains(r.Segments, segment) {
			out = append(out, r)
		}
	}
	return out
}

// cable reports whether a segment is but a cable between two routers.
func (s Shape) cable(seg Segment) bool { return seg.Hosts == 0 && len(s.routersOn(seg.Name)) == 2 }

// numberOf is the number in the addresses of a segment: 0 when there is but
// one, else 1, 2, … in their order.
func (s Shape) numberOf(segment string) int {
	if len(s.Segments) == 1 {
		return 0
	}
	return slices.IndexFunc(s.Segments, func(x Segment) bool { return x.Name == segment }) + 1
}

// segmentName is the segment of the i-th host (from 1).
func (s Shape) segmentName(i int) string {
	for _, seg := range s.Segments {
		if i -= seg.Hosts; i <= 0 {
			return seg.Name
		}
	}
	return ""
}

// segmentOf is the number of the segment of the i-th host (from 1).
func (t Topology) segmentOf(i int) int {
	s := t.shape()
	return s.numberOf(s.segmentName(i))
}

// routerAddresses are the addresses of a router on a segment.
func (t Topology) routerAddresses(s Shape, router, segment string) []netip.Prefix {
	n := slices.IndexFunc(s.routersOn(segment), func(r RouterShape) bool { return r.Name == router })
	return t.addresses(s.numberOf(segment), n+1)
}

// hopsTo lists the neighbours of a router that are nearest to a segment which
// it is not on, as router and segment between.
func (s Shape) hopsTo(from RouterShape, segment string) [][2]string {
	distance := map[string]int{} // of routers to the segment, in routers to pass
	for _, r := range s.routersOn(segment) {
		distance[r.Name] = 1
	}
	for range s.Routers { // no way is longer
		for _, r := range s.Routers {
			for _, n := range s.neighbours(r) {
				if d := distance[n[0]]; d > 0 && (distance[r.Name] == 0 || d+1 < distance[r.Name]) {
					distance[r.Name] = d + 1
				}
			}
		}
	}
	var out [][2]string
	for _, n := range s.neighbours(from) {
		if d := distance[n[0]]; d > 0 && d == distance[from.Name]-1 {
			out = append(out, n)
		}
	}
	return out
}

// neighbours lists the routers beside one, and the segment that joins them.
func (s Shape) neighbours(r RouterShape) [][2]string {
	var out [][2]string
	for _, seg := range r.Segments {
		for _, other := range s.routersOn(seg) {
			if other.Name != r.Name {
				out = append(out, [2]string{other.Name, seg})
			}
		}
	}
	return out
}

// routers lists the routers of a topology.
func (t Topology) routers() []Router {
	out, s := []Router{}, t.shape()
	for _, r := range s.Routers {
		one := Router{Name: r.Name, Netns: netnsName(t.Name, r.Name), ASNumber: r.ASNumber}
		for _, seg := range r.Segments {
			one.Addresses = append(one.Addresses, bare(t.routerAddresses(s, r.Name, seg))...)
		}
		out = append(out, one)
	}
	return out
}

// laidOut lists the segments of a topology.
func (t Topology) laidOut() []LaidOut {
	out, s, host := []LaidOut{}, t.shape(), 0
	for _, seg := range s.Segments {
		one := LaidOut{Name: seg.Name, Cable: s.cable(seg), Hosts: []string{}, Routers: []Port{}}
		for _, p := range t.addresses(s.numberOf(seg.Name), 0) {
			one.Subnets = append(one.Subnets, p.Masked().String())
		}
		for range seg.Hosts {
			host++
			one.Hosts = append(one.Hosts, fmt.Sprintf("h%d", host))
		}
		for _, r := range s.routersOn(seg.Name) {
			one.Routers = append(one.Routers, Port{r.Name, fmt.Sprintf("eth%d", slices.Index(r.Segments, seg.Name)), bare(t.routerAddresses(s, r.Name, seg.Name))})
		}
		out = append(out, one)
	}
	return out
}

// bare writes addresses without the length of their subnet.
func bare(list []netip.Prefix) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Addr().String())
	}
	return out
}

// memberAt names the host or router that was given an address, "" if it is
// none.
func (t Topology) memberAt(address string) string {
	for i := 1; i <= t.Hosts; i++ {
		if slices.Contains(bare(t.hostAddresses(i)), address) {
			return fmt.Sprintf("h%d", i)
		}
	}
	for _, r := range t.routers() {
		if slices.Contains(r.Addresses, address) {
			return r.Name
		}
	}
	return ""
}

package lab

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// file is a topology file as people write it. What is left out is as the
// preset has it. The docs of its fields are in FileFields.
type file struct {
	Name       *string     `json:"name"`
	Preset     *string     `json:"preset"`
	Hosts      *int        `json:"hosts"`
	Workloads  *int        `json:"workloads"`
	Family     *string     `json:"family"`
	IPIP       *string     `json:"ipip"`
	VXLAN      *string     `json:"vxlan"`
	NAT        *bool       `json:"nat"`
	HoldTime   *string     `json:"holdTime"`
	Fsync      *bool       `json:"fsync"`
	AgentArgs  *[]string   `json:"agentArgs"`
	Segments   []fileSeg   `json:"segments"`
	Routers    []fileRoute `json:"routers"`
	Reflectors []string    `json:"reflectors"`
}

// fileSeg is a segment in a topology file.
type fileSeg struct {
	Name  string `json:"name"`
	Hosts int    `json:"hosts"`
}

// fileRoute is a router in a topology file.
type fileRoute struct {
	Name     string   `json:"name"`
	ASNumber int64    `json:"asNumber"`
	Segments []string `json:"segments"`
}

// A FileField is a field of a topology file.
type FileField struct{ Path, Type, Default, Doc string }

// FileFields lists the fields of a topology file, for the reference.
func FileFields() []FileField {
	return []FileField{
		{"name", "text", "`lab`", "Name of the lab. `--name` wins."},
		{"preset", "text", "`flat`", "What everything that is left out is taken from: " + spoken(Presets) + ". One on the command line wins."},
		{"hosts", "integer", "of the preset", "Number of hosts, 1 to 200. With `segments`: that of all segments together, and may be left out."},
		{"workloads", "integer", "2", "Workloads on each host, 0 to 200."},
		{"family", "text", "`dual`", "Addresses: `v4`, `v6` or `dual`."},
		{"ipip", "text", "`Never`", "IP in IP for the IPv4 pool, instead of VXLAN: " + spoken(modes()) + "."},
		{"vxlan", "text", "of the preset", "VXLAN for the pools: " + spoken(modes()) + "."},
		{"nat", "true or false", "false", "Workloads leave the pools with their host's address (`natOutgoing`)."},
		{"holdTime", "duration", "`90s`", "After how much silence BGP peers give each other up: whole seconds, at least 3."},
		{"fsync", "true or false", "false", "etcd waits for the disk at every write."},
		{"agentArgs", "list of text", "none", "Further arguments of every agent."},
		{"segments", "list of object", "of the preset", "The segments of layer 2, each a subnet; then `routers` and `reflectors` are those of the file too. The only one has the subnets 172.30.0.0/24 and fd00:172:30::/64, the n-th of several 172.30.n.0/24 and fd00:172:30:n::/64."},
		{"segments[].name", "text", "", "Its name: up to 10 lower-case letters, digits and `-`. Those of hosts (`h1`) and workloads (`w1`) are taken."},
		{"segments[].hosts", "integer", "0", "How many hosts are on it. Hosts are numbered through: `h1`, `h2`, … The host `hN` has the number 10 + N in its subnet."},
		{"routers", "list of object", "none", "Routers. Each knows all segments by the shortest ways, several where they are equally short, and no workload. A host's default route leads to those on its segment."},
		{"routers[].name", "text", "", "Its name, by the same rule."},
		{"routers[].asNumber", "integer", "none", "The AS that it is meant to have. Routers speak no BGP."},
		{"routers[].segments", "list of text", "", "The segments that it is on: `eth0` is in the first, `eth1` in the second. One without hosts and with two routers is a cable between them."},
		{"reflectors", "list of text", "none", "Hosts that are route reflectors: all hosts speak BGP with these, and not with each other."},
	}
}

func spoken(list []string) string {
	out := ""
	for i, s := range list {
		switch {
		case i > 0 && i == len(list)-1:
			out += " or "
		case i > 0:
			out += ", "
		}
		out += "`" + s + "`"
	}
	return out
}

// modes are those of encapsulation.
func modes() []string {
	return []string{string(v3.EncapNever), string(v3.EncapAlways), string(v3.EncapCrossSubnet)}
}

// ReadTopology reads a topology from a file of YAML, over the defaults of its
// preset. A preset that is given wins over the file's. What is wrong is told
// with the file, the field, the value and what was meant; all of it.
func ReadTopology(name, preset string, yaml []byte) (Topology, error) {
	var f file
	if err := v3.DecodeInto(name, yaml, &f); err != nil {
		return Topology{}, err
	}
	var wrong v3.FieldErrors
	if f.Preset != nil {
		wrong = append(wrong, v3.OneOf("preset", *f.Preset, Presets...)...)
		if preset == "" {
			preset = *f.Preset
		}
	}
	t := Default(preset)
	t.Name = ""
	wrong = append(wrong, f.fill(&t)...)
	if len(f.Segments) > 0 {
		wrong = append(wrong, f.shape(&t)...)
		if f.Preset == nil && preset == "" {
			t.Preset = Custom
		}
	} else if len(f.Routers) > 0 || len(f.Reflectors) > 0 {
		wrong = append(wrong, v3.FieldError{Path: "segments", Rule: "must be given with routers or reflectors", Hint: "`brindle lab presets " + t.Preset + "` prints those of the preset"})
	}
	return t, v3.InFile(name, wrong).Err()
}

// fill takes what the file says but for the shape.
func (f *file) fill(t *Topology) (wrong v3.FieldErrors) {
	if f.Name != nil {
		t.Name = *f.Name
		if err := CheckName(t.Name); err != nil {
			wrong = append(wrong, v3.FieldError{Path: "name", Value: t.Name, Rule: "must be lower-case letters, digits and '-', at most 15, starting and ending with a letter or digit"})
		}
	}
	wrong = append(wrong, within("hosts", f.Hosts, 1, maxHosts, &t.Hosts)...)
	wrong = append(wrong, within("workloads", f.Workloads, 0, maxHosts, &t.Workloads)...)
	for _, x := range []struct {
		path    string
		said    *string
		allowed []string
		to      *string
	}{{"family", f.Family, []string{V4, V6, Dual}, &t.Family}, {"ipip", f.IPIP, modes(), &t.IPIP}, {"vxlan", f.VXLAN, modes(), &t.VXLAN}} {
		if x.said != nil {
			wrong = append(wrong, v3.OneOf(x.path, *x.said, x.allowed...)...)
			*x.to = *x.said
		}
	}
	for said, to := range map[*bool]*bool{f.NAT: &t.NAT, f.Fsync: &t.Fsync} {
		if said != nil {
			*to = *said
		}
	}
	if f.HoldTime != nil {
		d, err := time.ParseDuration(*f.HoldTime)
		if err != nil || d < minHold || d > maxHold || d%time.Second != 0 {
			wrong = append(wrong, v3.FieldError{Path: "holdTime", Value: *f.HoldTime, Rule: fmt.Sprintf("must be whole seconds, %s to %s, as in 90s", minHold, maxHold)})
		}
		t.HoldTime = d
	}
	if f.AgentArgs != nil {
		t.AgentArgs = *f.AgentArgs
	}
	return wrong
}

// within takes a number that has bounds.
func within(path string, said *int, low, high int, to *int) v3.FieldErrors {
	if said == nil {
		return nil
	}
	*to = *said
	if *said < low || *said > high {
		return v3.FieldErrors{{Path: path, Value: fmt.Sprint(*said), Rule: fmt.Sprintf("must be %d to %d", low, high)}}
	}
	return nil
}

// partName is the rule for names of segments and routers; takenName are those
// of hosts and workloads.
var (
	partName  = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,8}[a-z0-9])?$`)
	takenName = regexp.MustCompile(`^[hw][0-9]+$`)
)

// maxSegments is how many segments fit into their numbering, and maxRouters
// how many routers into one. maxAllRouters is how many are built in bearable
// time: each is told a way to each segment.
const (
	maxSegments   = 250
	maxRouters    = 9
	maxAllRouters = 64
)

// shape takes the shape that the file says.
func (f *file) shape(t *Topology) (wrong v3.FieldErrors) {
	s, taken := Shape{}, map[string]bool{}
	name := func(path, name string) {
		switch {
		case !partName.MatchString(name):
			wrong = append(wrong, v3.FieldError{Path: path, Value: name, Rule: "must be up to 10 lower-case letters, digits and '-', beginning with a letter"})
		case takenName.MatchString(name):
			wrong = append(wrong, v3.FieldError{Path: path, Value: name, Rule: "is the name of a host or workload"})
		case taken[name]:
			wrong = append(wrong, v3.FieldError{Path: path, Value: name, Rule: "is given twice"})
		}
		taken[name] = true
	}
	var segments []string
	for i, seg := range f.Segments {
		path := fmt.Sprintf("segments[%d].", i)
		name(path+"name", seg.Name)
		segments = append(segments, seg.Name)
		wrong = append(wrong, within(path+"hosts", &seg.Hosts, 0, maxHosts, new(int))...)
		s.Segments = append(s.Segments, Segment(seg))
	}
	if len(segments) > maxSegments {
		wrong = append(wrong, v3.FieldError{Path: "segments", Rule: fmt.Sprintf("must be at most %d", maxSegments)})
	}
	if len(f.Routers) > maxAllRouters {
		wrong = append(wrong, v3.FieldError{Path: "routers", Value: fmt.Sprint(len(f.Routers)), Rule: fmt.Sprintf("must be at most %d", maxAllRouters)})
		f.Routers = f.Routers[:maxAllRouters] // the rest is not worth the time
	}
	for i, r := range f.Routers {
		path := fmt.Sprintf("routers[%d].", i)
		name(path+"name", r.Name)
		if r.ASNumber < 0 || r.ASNumber > 1<<32-1 {
			wrong = append(wrong, v3.FieldError{Path: path + "asNumber", Value: fmt.Sprint(r.ASNumber), Rule: "must be 1 to 4294967295"})
		}
		if len(r.Segments) == 0 {
			wrong = append(wrong, v3.FieldError{Path: path + "segments", Rule: "must name at least one segment"})
		}
		for k, seg := range r.Segments {
			at := fmt.Sprintf("%ssegments[%d]", path, k)
			wrong = append(wrong, v3.OneOf(at, seg, segments...)...)
			if slices.Contains(r.Segments[:k], seg) {
				wrong = append(wrong, v3.FieldError{Path: at, Value: seg, Rule: "is given twice"})
			}
		}
		s.Routers = append(s.Routers, RouterShape{r.Name, uint32(r.ASNumber), r.Segments})
	}
	return append(wrong, f.count(s, t)...)
}

// count checks what has to do with numbers of hosts and routers, and takes the
// shape.
func (f *file) count(s Shape, t *Topology) (wrong v3.FieldErrors) {
	var hosts []string
	for i := 1; i <= min(s.hosts(), maxHosts); i++ {
		hosts = append(hosts, fmt.Sprintf("h%d", i))
	}
	switch {
	case len(hosts) == 0:
		wrong = append(wrong, v3.FieldError{Path: "segments", Rule: "must have a host", Hint: "add `hosts: 1` to one"})
	case s.hosts() > maxHosts:
		wrong = append(wrong, v3.FieldError{Path: "segments", Rule: fmt.Sprintf("must have at most %d hosts together", maxHosts)})
	case f.Hosts != nil && *f.Hosts != s.hosts():
		wrong = append(wrong, v3.FieldError{Path: "hosts", Value: fmt.Sprint(*f.Hosts), Rule: fmt.Sprintf("must be %d, as the segments have", s.hosts())})
	}
	for i, seg := range s.Segments {
		if n := len(s.routersOn(seg.Name)); n > maxRouters {
			wrong = append(wrong, v3.FieldError{Path: fmt.Sprintf("segments[%d]", i), Value: seg.Name, Rule: fmt.Sprintf("must have at most %d routers", maxRouters)})
		}
	}
	for i, h := range f.Reflectors {
		wrong = append(wrong, v3.OneOf(fmt.Sprintf("reflectors[%d]", i), h, hosts...)...)
	}
	s.Reflectors = f.Reflectors
	t.Hosts, t.Shape = s.hosts(), &s
	return wrong
}

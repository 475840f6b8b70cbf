package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// State is a lab as it is: what `lab status -o json` prints. Its field names
// are a contract.
type State struct {
	Name      string     `json:"name"`
	Preset    string     `json:"preset"`
	Family    string     `json:"family"`
	Datastore Datastore  `json:"datastore"`
	Hosts     []Host     `json:"hosts"`
	Workloads []Workload `json:"workloads"`
	Routers   []Router   `json:"routers"`
	Segments  []LaidOut  `json:"segments"`
	Paths     []Path     `json:"paths,omitempty"` // where asked for
}

// LaidOut is a segment of layer 2 of a lab, and who is on it.
type LaidOut struct {
	Name    string   `json:"name"`
	Subnets []string `json:"subnets"`
	Cable   bool     `json:"cable"` // between two routers, without a switch
	Hosts   []string `json:"hosts"`
	Routers []Port   `json:"routers"`
}

// Port is where a router is connected to a segment.
type Port struct {
	Router    string   `json:"router"`
	Interface string   `json:"interface"`
	Addresses []string `json:"addresses"`
}

// Datastore is where the lab's objects are.
type Datastore struct {
	Type      string `json:"type"`
	Endpoints string `json:"endpoints"`
	Running   bool   `json:"running"`
}

// Host is one host of a lab.
type Host struct {
	Name       string   `json:"name"`
	Netns      string   `json:"netns"`
	PID        int      `json:"pid"` // of the agent; 0 when it is not running
	Addresses  []string `json:"addresses"`
	ASNumber   uint32   `json:"asNumber"`
	Ready      bool     `json:"ready"`
	NotReady   string   `json:"notReady,omitempty"` // why
	Socket     string   `json:"socket"`             // of the agent
	Sessions   int      `json:"sessions"`           // BGP sessions established
	MaxSession int      `json:"sessionsWanted"`
	Peers      []Peer   `json:"peers"`
	Reflector  bool     `json:"routeReflector"` // passes on what other hosts announce
}

// Peer is the other end of one BGP session of a host.
type Peer struct {
	Name    string `json:"name"` // of the member of the lab, "" if it is none
	Address string `json:"address"`
	State   string `json:"state"` // Established, Active, …
	Up      bool   `json:"up"`
}

// Workload is one workload of a lab.
type Workload struct {
	Name          string            `json:"name"`
	Namespace     string            `json:"namespace"`
	Host          string            `json:"host"`
	Netns         string            `json:"netns"`
	Interface     string            `json:"interface"`
	HostInterface string            `json:"hostInterface"`
	Addresses     []string          `json:"addresses"`
	Labels        map[string]string `json:"labels"`
	Tap           bool              `json:"tap,omitempty"` // a virtual machine behind a tap device
}

// Router is one router of a lab.
type Router struct {
	Name      string   `json:"name"`
	Netns     string   `json:"netns"`
	Addresses []string `json:"addresses"`
	ASNumber  uint32   `json:"asNumber"` // that it is meant to have; 0: none. It forwards, and speaks no BGP
}

// Member is a host, workload or router found by its name.
type Member struct {
	Name      string
	Kind      string // host, workload, router
	Netns     string
	Addresses []netip.Addr
}

// Find looks a member up by its name.
func (s State) Find(name string) (Member, error) {
	for _, h := range s.Hosts {
		if h.Name == name {
			return Member{name, "host", h.Netns, addrs(h.Addresses)}, nil
		}
	}
	for _, w := range s.Workloads {
		if w.Name == name {
			return Member{name, "workload", w.Netns, addrs(w.Addresses)}, nil
		}
	}
	for _, r := range s.Routers {
		if r.Name == name {
			return Member{name, "router", r.Netns, addrs(r.Addresses)}, nil
		}
	}
	return Member{}, fmt.Errorf("lab %s has no host, workload or router %q: see `brindle lab status --name %s`", s.Name, name, s.Name)
}

// FindAddr looks up the member that has an address.
func (s State) FindAddr(a netip.Addr) (Member, error) {
	names := []string{}
	for _, h := range s.Hosts {
		names = append(names, h.Name)
	}
	for _, w := range s.Workloads {
		names = append(names, w.Name)
	}
	for _, r := range s.Routers {
		names = append(names, r.Name)
	}
	for _, name := range names {
		if m, err := s.Find(name); err == nil && slices.Contains(m.Addresses, a) {
			return m, nil
		}
	}
	return Member{}, fmt.Errorf("nobody in lab %s has the address %s: see `brindle lab status --name %s`", s.Name, a, s.Name)
}

// addrs reads addresses with or without a length; the lab wrote them itself.
func addrs(list []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Addr())
		} else if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

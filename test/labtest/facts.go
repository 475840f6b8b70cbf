package labtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// Facts are what the network of a host is, in one form for two witnesses: the
// kernel, as the programs of iproute2 read it, and the oracle. They are the
// routes, devices, addresses, neighbours and forwarding entries that are an
// agent's, one line each: what it is, and what of it. No code of theirs is
// shared with the packages that program the kernel.
type Facts map[string]string

// Diff lists what differs, "" if nothing does.
func (have Facts) Diff(want Facts) string {
	all := maps.Clone(have)
	maps.Copy(all, want)
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(all)) {
		is, there := have[k]
		ought, wanted := want[k]
		switch {
		case !there:
			fmt.Fprintf(&out, "missing: %s: %s\n", k, ought)
		case !wanted:
			fmt.Fprintf(&out, "too much: %s: %s\n", k, is)
		case is != ought:
			fmt.Fprintf(&out, "%s: %s, want %s\n", k, is, ought)
		}
	}
	return out.String()
}

// FactsOf says what an agent's tables come to. MTUs that it leaves alone are not in
// it.
func FactsOf(s desired.State) Facts {
	out := Facts{}
	for name, d := range s.Devices {
		text := "IP in IP"
		if d.Form == desired.VXLAN {
			text = fmt.Sprintf("VXLAN from %v, VNI %d, port %d, MAC %s", d.Local, d.VNI, d.Port, d.MAC)
		}
		out["device "+name] = text
		if l := s.Links[name]; l.MTU != 0 {
			out["MTU of "+name] = strconv.Itoa(l.MTU)
		}
	}
	for k := range s.Addresses {
		out[fmt.Sprintf("address %v on %s", k.Prefix, k.Interface)] = ""
	}
	for k, v := range s.Neighbours {
		if k.MAC != "" {
			out["forwarding of "+k.MAC+" on "+k.Interface] = "to " + v.Dst.String()
		} else {
			out[fmt.Sprintf("neighbour %v on %s", k.Addr, k.Interface)] = "at " + v.MAC
		}
	}
	for k, r := range s.Routes {
		text := hops(r)
		if r.Type != desired.Unicast {
			text = map[desired.RouteType]string{desired.Blackhole: "blackhole", desired.Throw: "throw", desired.Unreachable: "unreachable", desired.Local: "local"}[r.Type]
		}
		out[routeLine(r.Protocol, k.Table, k.Prefix, k.Priority)] = text + more(r.MTU, int(r.Scope), r.Source)
	}
	return out
}

func routeLine(protocol, table int, p netip.Prefix, metric int) string {
	return fmt.Sprintf("route %v of protocol %d in table %d, metric %d", p, protocol, table, metric)
}

// hops writes the ways of a route. The interface of a next hop that is to be
// found by the kernel is left out, as ReadFacts does it.
func hops(r desired.Route) string {
	var out []string
	for _, h := range r.Hops {
		out = append(out, hop(h.Via, h.Interface, h.OnLink))
	}
	return strings.Join(out, ", ")
}

func hop(via netip.Addr, device string, onLink bool) string {
	text := "on " + device
	switch {
	case onLink:
		text = fmt.Sprintf("via %v on %s, which is taken for its link", via, device)
	case via.IsValid():
		text = fmt.Sprintf("via %v", via)
	}
	return text
}

func more(mtu, scope int, source netip.Addr) (out string) {
	if mtu != 0 {
		out += fmt.Sprintf(", MTU %d", mtu)
	}
	if scope != 0 {
		out += fmt.Sprintf(", scope %d", scope)
	}
	if source.IsValid() {
		out += fmt.Sprintf(", from %v", source)
	}
	return out
}

// link is what `ip -d link` says of one.
type link struct {
	Name    string   `json:"ifname"`
	Flags   []string `json:"flags"`
	MTU     int      `json:"mtu"`
	Alias   string   `json:"ifalias"`
	MAC     string   `json:"address"`
	Details struct {
		Kind string `json:"info_kind"`
		Data struct {
			ID     int    `json:"id"`
			Local  string `json:"local"`
			Local6 string `json:"local6"`
			Port   int    `json:"port"`
		} `json:"info_data"`
	} `json:"linkinfo"`
}

// tunnel reports whether it is the device of a tunnel of ours, while it is
// turned on.
func (l link) tunnel() bool { return l.Alias == desired.AliasTunnel && slices.Contains(l.Flags, "UP") }

// ours reports whether what is on it may be ours.
func (l link) ours() bool { return strings.HasPrefix(l.Alias, "brindle:") }

func (l link) text() string {
	d := l.Details.Data
	switch l.Details.Kind {
	case "vxlan":
		return fmt.Sprintf("VXLAN from %s%s, VNI %d, port %d, MAC %s", d.Local, d.Local6, d.ID, d.Port, l.MAC)
	case "ipip", "dummy", "ifb": // the last two stand in its place
		return "IP in IP"
	}
	return l.Details.Kind
}

// host is a namespace that is read.
type host struct {
	name  string
	links map[string]link
	out   Facts
}

// ReadFacts says what the kernel has in a namespace of a name, of what can be an
// agent's. MTUs are those of the devices of tunnels.
func ReadFacts(netns string) (Facts, error) {
	h := host{name: netns, links: map[string]link{}, out: Facts{}}
	for _, f := range []func() error{h.readLinks, h.readAddresses, h.readNeighbours, h.readRoutes} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return h.out, nil
}

// ask runs one of the programs on a namespace.
func ask(into any, program, netns string, args ...string) error {
	args = append([]string{"-n", netns, "-j"}, args...)
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	if len(out) == 0 {
		return nil // it writes nothing for an empty list
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("read what %s %s writes: %w", program, strings.Join(args, " "), err)
	}
	return nil
}

func (h *host) readLinks() error {
	var all []link
	if err := ask(&all, "ip", h.name, "-d", "link", "show"); err != nil {
		return err
	}
	for _, l := range all {
		h.links[l.Name] = l
		if l.tunnel() {
			h.out["device "+l.Name] = l.text()
			h.out["MTU of "+l.Name] = strconv.Itoa(l.MTU)
		}
	}
	return nil
}

func (h *host) readAddresses() error {
	var all []struct {
		Name      string `json:"ifname"`
		Addresses []struct {
			Local  netip.Addr `json:"local"`
			Length int        `json:"prefixlen"`
		} `json:"addr_info"`
	}
	if err := ask(&all, "ip", h.name, "address", "show"); err != nil {
		return err
	}
	for _, l := range all {
		for _, a := range l.Addresses {
			if h.links[l.Name].ours() && !a.Local.IsLinkLocalUnicast() {
				h.out[fmt.Sprintf("address %v/%d on %s", a.Local, a.Length, l.Name)] = ""
			}
		}
	}
	return nil
}

func (h *host) readNeighbours() error {
	var all []struct {
		Addr netip.Addr `json:"dst"`
		Name string     `json:"dev"`
		MAC  string     `json:"lladdr"`
	}
	if err := ask(&all, "ip", h.name, "neighbour", "show", "nud", "permanent"); err != nil {
		return err
	}
	for _, n := range all {
		if h.links[n.Name].ours() {
			h.out[fmt.Sprintf("neighbour %v on %s", n.Addr, n.Name)] = "at " + n.MAC
		}
	}
	var entries []struct {
		MAC  string     `json:"mac"`
		Name string     `json:"ifname"`
		Dst  netip.Addr `json:"dst"`
	}
	if err := ask(&entries, "bridge", h.name, "fdb", "show"); err != nil {
		return err
	}
	for _, e := range entries {
		if h.links[e.Name].ours() && e.Dst.IsValid() {
			h.out["forwarding of "+e.MAC+" on "+e.Name] = "to " + e.Dst.String()
		}
	}
	return nil
}

// nextHop is one of a route that has several; a route that has one has it at
// the top.
type nextHop struct {
	Via   string   `json:"gateway"`
	Dev   string   `json:"dev"`
	Flags []string `json:"flags"`
}

// route is what `ip -N -d route` says of one.
type route struct {
	nextHop
	Type     string    `json:"type"`
	Dst      string    `json:"dst"`
	Table    string    `json:"table"`
	Scope    string    `json:"scope"`
	Metric   int       `json:"metric"`
	Source   string    `json:"prefsrc"`
	Hops     []nextHop `json:"nexthops"`
	Measures []struct {
		MTU int `json:"mtu"`
	} `json:"metrics"`
}

func (h *host) readRoutes() error {
	for _, protocol := range []int{desired.ProtocolAgent, desired.ProtocolBGP} {
		for _, family := range []string{"-4", "-6"} {
			var all []route
			if err := ask(&all, "ip", h.name, "-N", "-d", family, "route", "show", "table", "all", "proto", strconv.Itoa(protocol)); err != nil {
				return err
			}
			for _, r := range all {
				if err := h.add(r, protocol); err != nil {
					return fmt.Errorf("route %+v of %s: %w", r, h.name, err)
				}
			}
		}
	}
	return nil
}

func (h *host) add(r route, protocol int) error {
	text := map[string]string{"2": "local", "6": "blackhole", "7": "unreachable", "9": "throw"}[r.Type]
	if r.Type == "1" {
		list := r.Hops
		if len(list) == 0 {
			list = []nextHop{r.nextHop}
		}
		var out []string
		for _, n := range list {
			via, _ := netip.ParseAddr(n.Via) // invalid if there is none
			one := hop(via, n.Dev, slices.Contains(n.Flags, "onlink"))
			if via.IsValid() && h.links[n.Dev].tunnel() && !slices.Contains(n.Flags, "onlink") {
				one += " on " + n.Dev // no tunnel is found by itself
			}
			out = append(out, one)
		}
		text = strings.Join(out, ", ")
	}
	p, err := netip.ParsePrefix(r.Dst)
	if err != nil {
		a, err := netip.ParseAddr(r.Dst)
		if err != nil {
			return err
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	mtu := 0
	for _, m := range r.Measures {
		mtu = max(mtu, m.MTU)
	}
	table, err := strconv.Atoi(r.Table)
	if err != nil {
		return err
	}
	scope, err := strconv.Atoi(r.Scope)
	if err != nil {
		return err
	}
	source, _ := netip.ParseAddr(r.Source) // invalid if there is none
	h.out[routeLine(protocol, table, p, r.Metric)] = text + more(mtu, scope, source)
	return nil
}

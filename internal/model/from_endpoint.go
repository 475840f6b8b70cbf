package model

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
)

// interfaceName is what may name an interface: it becomes part of paths.
var interfaceName = regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,14}$`)

var macAddress = regexp.MustCompile(`^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$`)

func fromWorkload(id ID, o *v3.WorkloadEndpoint) (Value, error) {
	w := &Workload{
		ID: id, Node: o.Spec.Node, Interface: o.Spec.InterfaceName,
		Labels: workloadLabels(o), Profiles: o.Spec.Profiles,
	}
	if w.Interface != "" && !interfaceName.MatchString(w.Interface) {
		return nil, wrong("spec.interfaceName", w.Interface, "must be a name of 1 to 15 letters, digits, _, . or -")
	}
	for i, s := range o.Spec.IPNetworks {
		p, err := parsePrefix(s)
		if err != nil || !p.IsSingleIP() {
			return nil, wrong("spec.ipNetworks["+strconv.Itoa(i)+"]", s, "must be one address, with /32 or /128")
		}
		w.Addrs = append(w.Addrs, p.Addr())
	}
	if s := o.Spec.MAC; s != "" {
		if !macAddress.MatchString(s) {
			return nil, wrong("spec.mac", s, "must be six pairs of hexadecimal digits, with colons between")
		}
		w.MAC = strings.ToLower(strings.ReplaceAll(s, "-", ":"))
	}
	for i, s := range o.Spec.AllowSpoofedSourcePrefixes {
		p, err := prefix.ParseLoose(s)
		if err != nil {
			return nil, wrong("spec.allowSpoofedSourcePrefixes["+strconv.Itoa(i)+"]", s, "must be a CIDR or an IP address")
		}
		w.Sources = append(w.Sources, p)
	}
	for _, port := range o.Spec.Ports {
		if number, ok := port.Protocol.IP(); ok && port.Name != "" {
			w.Ports = append(w.Ports, NamedPort{Name: port.Name, Protocol: number, Port: port.Port})
		}
	}
	return w, nil
}

// workloadLabels are those of the object and the implied ones.
func workloadLabels(o *v3.WorkloadEndpoint) map[string]string {
	labels := ownLabels(o.Labels)
	labels[selector.NamespaceLabel] = o.Namespace
	if o.Spec.Orchestrator != "" {
		labels[selector.OrchestratorLabel] = o.Spec.Orchestrator
	}
	if o.Spec.ServiceAccountName != "" {
		labels[selector.ServiceAccountLabel] = o.Spec.ServiceAccountName
	}
	return labels
}

func fromHostEndpoint(id ID, o *v3.HostEndpoint) (Value, error) {
	h := &HostEndpoint{
		ID: id, Node: o.Spec.Node, Interface: o.Spec.InterfaceName,
		Labels: ownLabels(o.Labels), Profiles: o.Spec.Profiles,
	}
	delete(h.Labels, selector.NamespaceLabel) // a host is in no namespace
	if h.Interface != "" && h.Interface != "*" && !interfaceName.MatchString(h.Interface) {
		return nil, wrong("spec.interfaceName", h.Interface,
			"must be * or a name of 1 to 15 letters, digits, _, . or -")
	}
	for i, s := range o.Spec.ExpectedIPs {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, wrong("spec.expectedIPs["+strconv.Itoa(i)+"]", s, "must be an address")
		}
		h.Addrs = append(h.Addrs, a)
	}
	for _, port := range o.Spec.Ports {
		if number, ok := port.Protocol.IP(); ok && port.Name != "" {
			h.Ports = append(h.Ports, NamedPort{Name: port.Name, Protocol: number, Port: port.Port})
		}
	}
	return h, nil
}

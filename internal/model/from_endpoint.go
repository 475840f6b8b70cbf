package model

import (
	"maps"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
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
	for _, port := range o.Spec.Ports {
		if number, ok := port.Protocol.IP(); ok && port.Name != "" {
			w.Ports = append(w.Ports, NamedPort{Name: port.Name, Protocol: number, Port: port.Port})
		}
	}
	return w, nil
}

// workloadLabels are those of the object and the implied ones. What looks
// like the label of a namespace or service account is left out: those come
// from profiles, and a workload must not make them up.
func workloadLabels(o *v3.WorkloadEndpoint) map[string]string {
	labels := maps.Clone(o.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.DeleteFunc(labels, func(k, _ string) bool {
		return strings.HasPrefix(k, selector.NamespacePrefix) ||
			strings.HasPrefix(k, selector.ServiceAccountPrefix)
	})
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
		Labels: o.Labels, Profiles: o.Spec.Profiles,
	}
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
	return h, nil
}

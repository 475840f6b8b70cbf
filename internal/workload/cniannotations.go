package workload

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/prefix"
)

// annotationPrefix is that of the annotations by which a pod asks for
// something (documented Calico behaviour).
const annotationPrefix = "cni.projectcalico.org/"

// annotations are those of the workload: what the runtime says counts more
// than "args" of the configuration, and those more than CNI_ARGS.
func (c netConf) annotations(args map[string]string) map[string]string {
	if len(c.Runtime.Annotations) == 0 && len(c.Args.CNI.Annotations) == 0 {
		found := false
		for k := range args {
			found = found || strings.HasPrefix(k, annotationPrefix)
		}
		if !found {
			return nil
		}
	}
	out := map[string]string{}
	for _, from := range []map[string]string{args, c.Args.CNI.Annotations, c.Runtime.Annotations} {
		for k, v := range from {
			if name, ok := strings.CutPrefix(k, annotationPrefix); ok && v != "" {
				out[name] = v
			}
		}
	}
	return out
}

// unserved are the annotations that limit a pod in ways that nothing here
// does: whoever set them should hear of it.
func (c netConf) unserved() []string {
	var out []string
	for _, from := range []map[string]string{c.Args.CNI.Annotations, c.Runtime.Annotations} {
		for k := range from {
			bandwidth := k == "kubernetes.io/ingress-bandwidth" || k == "kubernetes.io/egress-bandwidth"
			if bandwidth || strings.HasPrefix(k, "qos.projectcalico.org/") {
				out = append(out, k)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// annotated puts what annotations ask for into a request. Those that say
// nothing about an add are left alone: podIP, podIPs and containerID are
// written by Calico's plugin.
func (c netConf) annotated(add *agentapi.AddRequest, notes map[string]string) error {
	if len(notes) == 0 {
		return nil
	}
	if notes["ipFamilies"] != "" && notes["ipAddrsNoIpam"] != "" {
		return invalid("annotations %sipFamilies and %sipAddrsNoIpam exclude each other: the addresses given say which families there are", annotationPrefix, annotationPrefix)
	}
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		read, ok := annotationReaders()[name]
		if !ok {
			continue
		}
		if err := read(c, add, notes[name]); err != nil {
			return err
		}
	}
	if notes["ipAddrs"] != "" && notes["ipAddrsNoIpam"] != "" {
		return invalid("annotations %sipAddrs and %sipAddrsNoIpam exclude each other: set one", annotationPrefix, annotationPrefix)
	}
	return nil
}

// annotationReaders are what each annotation does to a request.
func annotationReaders() map[string]func(netConf, *agentapi.AddRequest, string) error {
	return map[string]func(netConf, *agentapi.AddRequest, string) error{
		"ipv4pools": func(_ netConf, add *agentapi.AddRequest, value string) (err error) {
			add.IPv4Pools, err = listOf("ipv4pools", value)
			return err
		},
		"ipv6pools": func(_ netConf, add *agentapi.AddRequest, value string) (err error) {
			add.IPv6Pools, err = listOf("ipv6pools", value)
			return err
		},
		"ipFamilies":            annotatedFamilies,
		"ipAddrs":               annotatedAddrs,
		"ipAddrsNoIpam":         annotatedNoIPAM,
		"hwAddr":                annotatedMAC,
		"floatingIPs":           annotatedFloating,
		"allowedSourcePrefixes": annotatedSources,
	}
}

// listOf reads an annotation that is a JSON list of strings.
func listOf(name, value string) ([]string, error) {
	var list []string
	if err := json.Unmarshal([]byte(value), &list); err != nil || list == nil {
		return nil, invalid(`annotation %s%s %q: must be a JSON list of strings, as ["a", "b"]`, annotationPrefix, name, value)
	}
	return list, nil
}

func annotatedFamilies(_ netConf, add *agentapi.AddRequest, value string) error {
	list, err := listOf("ipFamilies", value)
	if err != nil {
		return err
	}
	add.AssignIPv4, add.AssignIPv6 = slices.Contains(list, "IPv4"), slices.Contains(list, "IPv6")
	for _, f := range list {
		if f != "IPv4" && f != "IPv6" {
			return invalid("annotation %sipFamilies: %q is no family: write IPv4 or IPv6", annotationPrefix, f)
		}
	}
	return nil
}

func annotatedAddrs(c netConf, add *agentapi.AddRequest, value string) error {
	if !c.IPAM.ours() {
		return invalid("annotation %sipAddrs: ipam.type %q hands out addresses in this network: it must be brindle-ipam or calico-ipam", annotationPrefix, c.IPAM.Type)
	}
	list, err := addrList("ipAddrs", value)
	add.Addresses = append(add.Addresses, list...)
	return err
}

func annotatedNoIPAM(c netConf, add *agentapi.AddRequest, value string) error {
	switch {
	case !c.Feature.NoIPAM:
		return invalid(`annotation %sipAddrsNoIpam: this network does not allow it: set "feature_control": {"ip_addrs_no_ipam": true}`, annotationPrefix)
	case add.Orchestrator != "k8s":
		return invalid("annotation %sipAddrsNoIpam: only a pod may have it", annotationPrefix)
	case !c.IPAM.ours():
		return invalid("annotation %sipAddrsNoIpam: ipam.type %q hands out addresses in this network: it must be brindle-ipam or calico-ipam", annotationPrefix, c.IPAM.Type)
	}
	list, err := addrList("ipAddrsNoIpam", value)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return invalid("annotation %sipAddrsNoIpam: the list is empty: name an address", annotationPrefix)
	}
	special(add).Given = list
	add.AssignIPv4, add.AssignIPv6 = false, false
	return nil
}

// addrList reads a JSON list of addresses.
func addrList(name, value string) ([]string, error) {
	list, err := listOf(name, value)
	if err != nil {
		return nil, err
	}
	for i, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return nil, invalid("annotation %s%s: %q is not an IP address", annotationPrefix, name, s)
		}
		list[i] = a.Unmap().String()
	}
	return list, nil
}

func annotatedMAC(_ netConf, add *agentapi.AddRequest, value string) error {
	mac, err := parseMAC(value)
	if err != nil {
		return invalid("annotation %shwAddr: %v", annotationPrefix, err)
	}
	if have, err := parseMAC(add.MAC); err == nil && have != nil && have.String() != mac.String() {
		return invalid("annotation %shwAddr %s: the runtime asks for %s: ask for one", annotationPrefix, value, add.MAC)
	}
	add.MAC = mac.String()
	return nil
}

func annotatedFloating(c netConf, _ *agentapi.AddRequest, value string) error {
	list, err := listOf("floatingIPs", value)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return nil
	case !c.Feature.FloatingIPs:
		return invalid("annotation %sfloatingIPs: this network does not allow it (feature_control.floating_ips)", annotationPrefix)
	}
	return invalid("annotation %sfloatingIPs: floating addresses are not served: remove the annotation", annotationPrefix)
}

func annotatedSources(_ netConf, add *agentapi.AddRequest, value string) error {
	list, err := listOf("allowedSourcePrefixes", value)
	if err != nil {
		return err
	}
	for i, s := range list {
		p, err := prefix.ParseLoose(s)
		if err != nil {
			return invalid("annotation %sallowedSourcePrefixes: %q is not a network: %v", annotationPrefix, s, err)
		}
		list[i] = p.String()
	}
	if len(list) > 0 {
		special(add).AllowedSources = list
	}
	return nil
}

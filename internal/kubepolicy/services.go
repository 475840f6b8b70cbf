package kubepolicy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
)

// serviceLabel is on an EndpointSlice, and names its service.
const serviceLabel = "kubernetes.io/service-name"

// EndpointSlice is some of the ends of a service.
type EndpointSlice struct {
	v3.TypeMeta `json:",inline"`
	Metadata    `json:"metadata"`
	AddressType string          `json:"addressType"` // IPv4, IPv6 or FQDN
	Endpoints   []SliceEndpoint `json:"endpoints"`
	Ports       []SlicePort     `json:"ports"`
}

// SliceEndpoint is one end, at each of its addresses.
type SliceEndpoint struct {
	Addresses  []string        `json:"addresses"`
	Conditions SliceConditions `json:"conditions"`
}

// SliceConditions says whether an end takes traffic; nil is yes.
type SliceConditions struct {
	Ready *bool `json:"ready"`
}

// SlicePort is a port of all ends of a slice. Without a number it is no port of
// a service (Kubernetes, EndpointSlice v1).
type SlicePort struct {
	Protocol string  `json:"protocol"` // TCP unless stated
	Port     *uint16 `json:"port"`
}

// Service is a service that is given by the pods behind it.
type Service struct {
	v3.TypeMeta `json:",inline"`
	Metadata    `json:"metadata"`
	Spec        ServiceSpec `json:"spec"`
}

// ServiceSpec selects pods, and says which of their ports are meant.
type ServiceSpec struct {
	Selector map[string]string `json:"selector"`
	Ports    []ServicePort     `json:"ports"`
}

// ServicePort is a port of a service. TargetPort is that of the pods, by
// number or name; nil is the same as Port.
type ServicePort struct {
	Protocol   string          `json:"protocol"` // TCP unless stated
	Port       uint16          `json:"port"`
	TargetPort *v3.IntOrString `json:"targetPort"`
}

// Partial marks the struct as knowing only some fields.
func (*EndpointSlice) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*SliceEndpoint) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*SliceConditions) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*SlicePort) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*Service) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*ServiceSpec) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*ServicePort) Partial() {}

// Ends are what is behind a service.
type Ends struct {
	Namespace, Name string
	Backends        []Backend // sorted, each once
}

// Backend is one address and port behind a service, with the number of the
// protocol. One without either has no ports and counts as an address alone.
type Backend struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16
}

// Services returns what is behind the services of a set of objects, sorted by
// namespace and name: the ready ends of their EndpointSlices or, where there
// is no slice, the pods that the Service selects, which are among pods with
// their addresses.
func Services(objects []v3.Object, pods []*v3.WorkloadEndpoint) []Ends {
	byName := map[[2]string]*Ends{}
	of := func(namespace, name string) *Ends {
		key := [2]string{namespace, name}
		if byName[key] == nil {
			byName[key] = &Ends{Namespace: namespace, Name: name}
		}
		return byName[key]
	}
	sliced := map[[2]string]bool{}
	for _, o := range objects {
		if s, ok := o.(*EndpointSlice); ok && s.Labels[serviceLabel] != "" {
			e := of(s.Namespace, s.Labels[serviceLabel])
			e.Backends = append(e.Backends, s.backends()...)
			sliced[[2]string{e.Namespace, e.Name}] = true
		}
	}
	for _, o := range objects {
		if s, ok := o.(*Service); ok && !sliced[[2]string{s.Namespace, s.Name}] {
			e := of(s.Namespace, s.Name)
			e.Backends = append(e.Backends, s.backends(pods)...)
		}
	}
	var out []Ends
	for _, e := range byName {
		slices.SortFunc(e.Backends, compareBackends)
		e.Backends = slices.Compact(e.Backends)
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Ends) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

func compareBackends(a, b Backend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
}

// backends are the ready ends of a slice, at each of its ports.
func (s *EndpointSlice) backends() []Backend {
	var out []Backend
	for _, e := range s.Endpoints {
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		for _, text := range e.Addresses {
			addr, err := prefix.ParseAddr(text)
			if err != nil {
				continue // the name of a host
			}
			out = append(out, s.at(addr)...)
		}
	}
	return out
}

// at are the ports of a slice at an address. Those of a service have numbers;
// where none has one, the address remains.
func (s *EndpointSlice) at(addr netip.Addr) []Backend {
	var out []Backend
	for _, p := range s.Ports {
		if n := protocolNumber(p.Protocol); n != 0 && p.Port != nil && *p.Port != 0 {
			out = append(out, Backend{addr, n, *p.Port})
		}
	}
	if len(out) == 0 {
		out = append(out, Backend{Addr: addr})
	}
	return out
}

// backends are the addresses of the pods that a service selects. One without a
// selector selects none.
func (s *Service) backends(pods []*v3.WorkloadEndpoint) []Backend {
	if len(s.Spec.Selector) == 0 {
		return nil
	}
	var out []Backend
	for _, w := range pods {
		if w.Namespace != s.Namespace || !hasAll(w.Labels, s.Spec.Selector) {
			continue
		}
		for _, n := range w.Spec.IPNetworks {
			p, err := prefix.ParseLoose(n)
			if err != nil {
				continue
			}
			for _, port := range s.Spec.Ports {
				if number := port.target(w); number != 0 {
					out = append(out, Backend{p.Addr(), protocolNumber(port.Protocol), number})
				}
			}
		}
	}
	return out
}

// target is the port of a pod that a port of a service stands for, 0 if the
// pod has none of that name.
func (p *ServicePort) target(w *v3.WorkloadEndpoint) uint16 {
	switch {
	case p.TargetPort == nil:
		return p.Port
	case !p.TargetPort.Is:
		return uint16(max(0, p.TargetPort.Int))
	}
	for _, port := range w.Spec.Ports {
		if number, _ := port.Protocol.IP(); port.Name == p.TargetPort.Str && number == protocolNumber(p.Protocol) {
			return port.Port
		}
	}
	return 0
}

func hasAll(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// protocolNumber is that of a protocol by name, TCP's for none.
func protocolNumber(name string) uint8 {
	if name == "" {
		name = v3.ProtocolTCP
	}
	n, _ := v3.Protocol{Name: name}.IP()
	return n
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

package kubepolicy

import (
	"encoding/json"
	"maps"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
)

// Namespace is one of Kubernetes' namespaces.
type Namespace struct {
	v3.TypeMeta `json:",inline"`
	Metadata    `json:"metadata"`
}

// ServiceAccount is whom a pod acts as.
type ServiceAccount struct {
	v3.TypeMeta `json:",inline"`
	Metadata    `json:"metadata"`
}

// Pod is what policy must know of a pod.
type Pod struct {
	v3.TypeMeta `json:",inline"`
	Metadata    `json:"metadata"`
	Spec        PodSpec   `json:"spec"`
	Status      PodStatus `json:"status"`
}

// PodSpec says where a pod runs, and which of its ports have names.
type PodSpec struct {
	NodeName           string      `json:"nodeName"`
	HostNetwork        bool        `json:"hostNetwork"`
	ServiceAccountName string      `json:"serviceAccountName"`
	Containers         []Container `json:"containers"`
	InitContainers     []Container `json:"initContainers"`
}

// Container is one container of a pod.
type Container struct {
	RestartPolicy string          `json:"restartPolicy"`
	Ports         []ContainerPort `json:"ports"`
}

// ContainerPort is a port that a container listens on.
type ContainerPort struct {
	Name          string `json:"name"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"` // TCP unless stated
	HostPort      uint16 `json:"hostPort"`
	HostIP        string `json:"hostIP"`
}

// PodStatus has a pod's addresses.
type PodStatus struct {
	Phase  string  `json:"phase"`
	PodIP  string  `json:"podIP"`
	PodIPs []PodIP `json:"podIPs"`
}

// PodIP is one address of a pod.
type PodIP struct {
	IP string `json:"ip"`
}

// Partial marks the struct as knowing only some fields.
func (*Namespace) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*ServiceAccount) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*Pod) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*PodSpec) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*Container) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*ContainerPort) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*PodStatus) Partial() {}

// Partial marks the struct as knowing only some fields.
func (*PodIP) Partial() {}

// What the names of profiles of namespaces and service accounts begin with,
// and the label that Kubernetes gives each namespace.
const (
	namespaceProfile = "kns."
	accountProfile   = "ksa."
	nameLabel        = "projectcalico.org/name"
	ownName          = "kubernetes.io/metadata.name"
	defaultAccount   = "default"
)

// NamespaceProfile returns the profile of a namespace: it allows everything
// both ways, and gives its endpoints the namespace's labels.
func NamespaceProfile(name string, labels map[string]string) *v3.Profile {
	p := &v3.Profile{TypeMeta: v3.TypeMeta{Kind: "Profile", APIVersion: v3.Group}}
	p.Name = namespaceProfile + name
	p.Spec.Ingress = []v3.Rule{{Action: v3.ActionAllow}}
	p.Spec.Egress = []v3.Rule{{Action: v3.ActionAllow}}
	own := map[string]string{ownName: name}
	maps.Copy(own, labels)
	p.Spec.LabelsToApply = inherited(selector.NamespacePrefix, name, own)
	return p
}

// AccountProfile returns the profile of a service account: no rules, and the
// account's labels.
func AccountProfile(namespace, name string, labels map[string]string) *v3.Profile {
	p := &v3.Profile{TypeMeta: v3.TypeMeta{Kind: "Profile", APIVersion: v3.Group}}
	p.Name = accountProfile + namespace + "." + name
	p.Spec.LabelsToApply = inherited(selector.ServiceAccountPrefix, name, labels)
	return p
}

func inherited(prefix, name string, labels map[string]string) map[string]string {
	out := make(map[string]string, len(labels)+1)
	for k, v := range labels {
		out[prefix+k] = v
	}
	out[prefix+nameLabel] = name
	return out
}

// Endpoint returns the endpoint of a pod, as Calico derives it. false: the pod
// has none, for it has its host's network, or is finished and its addresses
// may be another's by now. It has no addresses if the pod says none.
func (p *Pod) Endpoint() (*v3.WorkloadEndpoint, bool) {
	if p.Spec.HostNetwork || p.Status.Phase == "Failed" || p.Status.Phase == "Succeeded" {
		return nil, false
	}
	account := p.Spec.ServiceAccountName
	if account == "" {
		account = defaultAccount
	}
	w := &v3.WorkloadEndpoint{TypeMeta: v3.TypeMeta{Kind: "WorkloadEndpoint", APIVersion: v3.Group}}
	w.Namespace, w.Labels, w.Annotations = p.Namespace, maps.Clone(p.Labels), maps.Clone(p.Annotations)
	w.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: "k8s", Node: p.Spec.NodeName, Pod: p.Name, Endpoint: "eth0", ServiceAccountName: account,
		Profiles: []string{namespaceProfile + p.Namespace, accountProfile + p.Namespace + "." + account},
		Ports:    p.ports(),
	}
	if w.Spec.Node == "" {
		w.Spec.Node = "unscheduled"
	}
	for _, ip := range p.addresses() {
		if n, err := prefix.ParseLoose(ip); err == nil {
			w.Spec.IPNetworks = append(w.Spec.IPNetworks, n.String())
		}
	}
	w.Name, _ = v3.WorkloadEndpointName(&w.Spec)
	return w, true
}

// addresses are those of the pod, from the first place that has any.
func (p *Pod) addresses() []string {
	var out []string
	for _, ip := range p.Status.PodIPs {
		out = append(out, ip.IP)
	}
	if len(out) > 0 {
		return out
	}
	if p.Status.PodIP != "" {
		return []string{p.Status.PodIP}
	}
	for _, key := range []string{"cni.projectcalico.org/podIPs", "cni.projectcalico.org/podIP", "vpc.amazonaws.com/pod-ips"} {
		if out = splitList(p.Annotations[key]); len(out) > 0 {
			return out
		}
	}
	// A manifest may ask for its addresses.
	if json.Unmarshal([]byte(p.Annotations["cni.projectcalico.org/ipAddrs"]), &out) == nil {
		return out
	}
	return nil
}

// ports are those of the containers that go on running.
func (p *Pod) ports() []v3.WorkloadEndpointPort {
	containers := slices.Clone(p.Spec.Containers)
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy == "Always" {
			containers = append(containers, c)
		}
	}
	var out []v3.WorkloadEndpointPort
	for _, c := range containers {
		for _, port := range c.Ports {
			if port.Name == "" && port.HostPort == 0 || port.ContainerPort == 0 {
				continue
			}
			protocol := port.Protocol
			if protocol == "" {
				protocol = v3.ProtocolTCP
			}
			out = append(out, v3.WorkloadEndpointPort{
				Name: port.Name, Protocol: v3.Protocol{Name: protocol}, Port: port.ContainerPort,
				HostPort: port.HostPort, HostIP: port.HostIP,
			})
		}
	}
	return out
}

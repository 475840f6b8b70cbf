package policytest

import (
	"net/netip"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/kubepolicy"
	"github.com/brindle-net/brindle/internal/model"
)

// defaultPool is where workloads without addresses get theirs from if the
// files have no IPPool of the family: Calico's first choice for IPv4, a ULA for
// IPv6.
func defaultPool(four bool) netip.Prefix {
	if four {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168}), 16)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0x01, 0x92, 0x01, 0x68}), 64)
}

// FromDocuments puts a cluster together from the objects of files: of the
// projectcalico.org/v3 API, defaulted and valid, of Kubernetes, and the
// workloads of PolicyTests. Workloads without addresses get some. A namespace
// or service account that nothing but a workload speaks of exists, as it would
// in Kubernetes. The errors name what cannot be used.
func FromDocuments(docs []v3.Document) (*Cluster, v3.DocumentErrors) {
	b := builder{cluster: NewCluster()}
	for _, t := range v3.BuiltInTiers() {
		b.add(v3.Document{Object: t}, t)
	}
	var others []v3.Object
	for _, d := range docs {
		b.take(d)
		others = append(others, d.Object)
	}
	b.number()
	var pods []*v3.WorkloadEndpoint
	for _, w := range b.endpoints {
		b.add(w.from, w.object)
		b.cluster.Call(w.object)
		pods = append(pods, w.object)
		if w.pod {
			b.home(w)
		}
	}
	for _, ends := range kubepolicy.Services(others, pods) {
		b.cluster.Add(service(ends))
	}
	return b.cluster, b.wrong
}

// builder makes a cluster of documents.
type builder struct {
	cluster   *Cluster
	endpoints []endpoint
	pools     []netip.Prefix
	wrong     v3.DocumentErrors
}

// endpoint is a workload's interface that has no addresses yet, perhaps.
type endpoint struct {
	from   v3.Document
	object *v3.WorkloadEndpoint
	pod    bool // derived from a pod
}

func (b *builder) take(d v3.Document) {
	switch o := d.Object.(type) {
	case *PolicyTest:
		for i := range o.Spec.Workloads {
			b.takePod(d, o.Spec.Workloads[i].pod())
		}
	case *kubepolicy.Pod:
		b.takePod(d, o)
	case *podMaker:
		b.takePod(d, o.pod())
	case *kubepolicy.Namespace:
		b.add(d, kubepolicy.NamespaceProfile(o.Name, o.Labels))
	case *kubepolicy.ServiceAccount:
		b.add(d, kubepolicy.AccountProfile(o.Namespace, o.Name, o.Labels))
	case *v3.WorkloadEndpoint:
		b.endpoints = append(b.endpoints, endpoint{from: d, object: o})
	case *v3.IPPool:
		if p, err := netip.ParsePrefix(o.Spec.CIDR); err == nil {
			b.pools = append(b.pools, p.Masked())
		}
	default:
		if stored, wrong, ok := kubepolicy.Stored(o); ok {
			b.wrong = append(b.wrong, d.Errors(wrong)...)
			b.add(d, stored)
			return
		}
		b.add(d, o)
	}
}

// add hands an object to the cluster, and says what of it cannot be used.
func (b *builder) add(d v3.Document, o v3.Object) {
	e, ok, err := model.FromObject(o)
	if !ok {
		return
	}
	b.cluster.Add(e)
	if err != nil {
		b.wrong = append(b.wrong, d.Errors(v3.FieldErrors{{Rule: err.Error()}})...)
	}
}

// takePod notes the endpoint of a pod, unless it has none, or none any more.
// One that runs on no host yet is called as the pod is.
func (b *builder) takePod(d v3.Document, p *kubepolicy.Pod) {
	w, ok := p.Endpoint()
	if !ok || p.Status.Phase == "Failed" || p.Status.Phase == "Succeeded" {
		return
	}
	if p.Spec.NodeName == "" {
		w.Name = p.Name
	}
	b.endpoints = append(b.endpoints, endpoint{d, w, true})
}

// home sees to it that the namespace and the service account of a pod exist.
func (b *builder) home(w endpoint) {
	namespace, account := w.object.Namespace, w.object.Spec.ServiceAccountName
	for _, p := range []*v3.Profile{
		kubepolicy.NamespaceProfile(namespace, nil), kubepolicy.AccountProfile(namespace, account, nil),
	} {
		if _, ok := b.cluster.all[model.ID{Kind: model.KindProfile, Name: p.Name}]; !ok {
			b.add(w.from, p)
		}
	}
}

// pod is the workload as a pod of Kubernetes.
func (w *Workload) pod() *kubepolicy.Pod {
	p := &kubepolicy.Pod{}
	p.Name, p.Namespace, p.Labels = w.Name, w.Namespace, w.Labels
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	p.Spec.ServiceAccountName = w.ServiceAccount
	for _, a := range w.Addresses {
		p.Status.PodIPs = append(p.Status.PodIPs, kubepolicy.PodIP{IP: a})
	}
	c := kubepolicy.Container{}
	for _, port := range w.Ports {
		c.Ports = append(c.Ports, kubepolicy.ContainerPort{Name: port.Name, ContainerPort: port.Port, Protocol: port.Protocol})
	}
	p.Spec.Containers = []kubepolicy.Container{c}
	return p
}

// number gives addresses to endpoints that have none: of each family the next
// of its first pool that nobody has.
func (b *builder) number() {
	taken := map[string]bool{}
	var bare []*v3.WorkloadEndpointSpec
	for _, w := range b.endpoints {
		for _, n := range w.object.Spec.IPNetworks {
			taken[n] = true
		}
		if len(w.object.Spec.IPNetworks) == 0 {
			bare = append(bare, &w.object.Spec)
		}
	}
	for _, four := range []bool{true, false} {
		pool := defaultPool(four)
		if i := slices.IndexFunc(b.pools, func(p netip.Prefix) bool { return p.Addr().Is4() == four }); i >= 0 {
			pool = b.pools[i]
		}
		next := pool.Addr()
		for _, s := range bare {
			text := ""
			for text == "" || taken[text] {
				next = next.Next()
				text = netip.PrefixFrom(next, next.BitLen()).String()
			}
			s.IPNetworks = append(s.IPNetworks, text)
		}
	}
}

func service(ends kubepolicy.Ends) model.Event {
	s := &model.Service{Namespace: ends.Namespace, Name: ends.Name}
	for _, x := range ends.Backends {
		s.Backends = append(s.Backends, model.Backend{Addr: x.Addr, Protocol: x.Protocol, Port: x.Port})
	}
	return model.Event{ID: model.ID{Kind: model.KindService, Namespace: s.Namespace, Name: s.Name}, Value: s}
}

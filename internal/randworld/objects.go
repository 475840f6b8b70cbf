package randworld

import (
	"fmt"
	"net/netip"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

var namespaces = [...]string{"prod", "dev", "test"}

func (w *World) node(i int) (model.ID, model.Value) {
	n := &model.Node{Name: fmt.Sprintf("h%d", i+1)}
	n.Addr4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 0, byte(i + 1)}), 24)
	n.Addr6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x01, 15: byte(i + 1)}), 64)
	return model.ID{Kind: model.KindNode, Name: n.Name}, n
}

// namespace is the profile of a namespace. Most allow everything, as those of
// Kubernetes do.
func (w *World) namespace(i int) (model.ID, model.Value) {
	p := &model.Profile{Name: "kns." + namespaces[i], Labels: map[string]string{
		"pcns.projectcalico.org/name": namespaces[i],
	}}
	if w.chance(80) {
		p.Labels["pcns.env"] = pick(w, "a", "b")
	}
	p.Ingress, p.Egress = w.profileRules(), w.profileRules()
	return model.ID{Kind: model.KindProfile, Name: p.Name}, p
}

func (w *World) profileRules() []model.Rule {
	if w.chance(65) {
		return []model.Rule{{Action: model.Allow, Families: both}}
	}
	var out []model.Rule
	for range w.rng.IntN(3) {
		out = append(out, w.rule("", w.chance(50)))
	}
	return out
}

// serviceAccount is the profile of a service account: labels and no rules.
func (w *World) serviceAccount(i int) (model.ID, model.Value) {
	p := &model.Profile{Name: "ksa." + namespaces[i] + ".robot", Labels: map[string]string{
		"pcsa.projectcalico.org/name": "robot", "pcsa.trusted": pick(w, "yes", "no"),
	}}
	return model.ID{Kind: model.KindProfile, Name: p.Name}, p
}

// extraProfile has labels that endpoints have too, and rules of any kind.
func (w *World) extraProfile(i int) (model.ID, model.Value) {
	p := &model.Profile{Name: fmt.Sprintf("extra%d", i), Labels: map[string]string{"role": pick(w, "fe", "be")}}
	for range w.rng.IntN(3) {
		p.Ingress = append(p.Ingress, w.rule("", true))
		p.Egress = append(p.Egress, w.rule("", false))
	}
	return model.ID{Kind: model.KindProfile, Name: p.Name}, p
}

func (w *World) labels() map[string]string {
	out := map[string]string{}
	if w.chance(80) {
		out["role"] = pick(w, "fe", "be", "db")
	}
	if w.chance(50) {
		out["app"] = pick(w, "x", "y", "")
	}
	return out
}

func (w *World) profiles(namespace string) []string {
	switch w.rng.IntN(12) {
	case 0:
		return nil
	case 1:
		return []string{}
	case 2:
		return []string{"gone"}
	case 3:
		return []string{model.DefaultAllow}
	case 4:
		return []string{"extra0", "kns." + namespace}
	case 5:
		return []string{"kns." + namespace, "extra1", "extra0"}
	}
	return []string{"kns." + namespace, "ksa." + namespace + ".robot"}
}

func (w *World) namedPorts() []model.NamedPort {
	var out []model.NamedPort
	for range w.rng.IntN(4) {
		out = append(out, model.NamedPort{
			Name: pick(w, "http", "http", "dns"), Port: w.port(),
			Protocol: pick[uint8](w, model.ProtocolTCP, model.ProtocolTCP, model.ProtocolUDP, model.ProtocolSCTP),
		})
	}
	return out
}

// port is one of few numbers, at the edges of the ranges that rules have.
func (w *World) port() uint16 {
	return pick[uint16](w, 1, 53, 79, 80, 81, 443, 8000, 8079, 8080, 8081, 65535)
}

// workload is one of eight, most of them on the host that is looked at. A few
// clash over their interface or an address.
func (w *World) workload(i int) (model.ID, model.Value) {
	namespace := namespaces[i%len(namespaces)]
	id := model.ID{Kind: model.KindWorkload, Namespace: namespace, Name: fmt.Sprintf("w%d", i)}
	x := &model.Workload{
		ID: id, Node: pick(w, Node, Node, Node, "h2"), Interface: fmt.Sprintf("cali%d", i),
		MAC:    pick(w, "", fmt.Sprintf("02:00:00:00:00:%02x", i), fmt.Sprintf("02:00:00:00:00:%02x", i)),
		Labels: w.labels(), Profiles: w.profiles(namespace), Ports: w.namedPorts(),
	}
	x.Labels[selector.NamespaceLabel] = namespace
	x.Labels[selector.OrchestratorLabel] = pick(w, "k8s", "k8s", "k8s", "cni")
	if w.chance(60) {
		x.Labels[selector.ServiceAccountLabel] = "robot"
	}
	own := byte(i*3 + 1)
	if w.chance(85) {
		x.Addrs = append(x.Addrs, netip.AddrFrom4([4]byte{10, 65, 0, own}))
	}
	if w.chance(70) {
		x.Addrs = append(x.Addrs, netip.AddrFrom16([16]byte{0: 0xfd, 15: own}))
	}
	if w.chance(15) {
		x.Addrs = append(x.Addrs, netip.AddrFrom4([4]byte{10, 65, 0, own + 1}))
	}
	switch w.rng.IntN(40) {
	case 0:
		x.Interface = "cali0"
	case 1:
		x.Addrs = append(x.Addrs, netip.AddrFrom4([4]byte{10, 65, 0, 1}))
	case 2:
		x.Addrs = append(x.Addrs, netip.AddrFrom4([4]byte{172, 16, 0, 2}))
	case 3:
		x.Interface = "eth0"
	case 4:
		x.Sources = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	}
	return id, x
}

func (w *World) hostEndpoint(i int) (model.ID, model.Value) {
	id := model.ID{Kind: model.KindHostEndpoint, Name: fmt.Sprintf("e%d", i)}
	x := &model.HostEndpoint{
		ID: id, Node: pick(w, Node, "h2"), Interface: "eth0", Labels: w.labels(), Ports: w.namedPorts(),
		Profiles: pick(w, nil, []string{model.DefaultAllow}, []string{"extra0"}),
	}
	for range w.rng.IntN(3) {
		x.Addrs = append(x.Addrs, w.address(w.chance(50)))
	}
	return id, x
}

func (w *World) networkSet(i int) (model.ID, model.Value) {
	x := &model.NetworkSet{ID: model.ID{Kind: model.KindNetworkSet, Name: fmt.Sprintf("n%d", i)}, Labels: w.labels()}
	if i%2 == 0 {
		x.ID.Namespace = namespaces[i/2]
		x.Labels[selector.NamespaceLabel] = x.ID.Namespace
		x.Profiles = []string{"kns." + x.ID.Namespace}
	}
	if w.chance(80) {
		x.Nets = append(x.Nets, w.nets(3, true)...)
	}
	if w.chance(5) {
		x.Broken = "spec.nets[0]: is wrong"
	}
	if w.chance(70) {
		x.Nets = append(x.Nets, w.nets(3, false)...)
	}
	x.Nets = sortedNets(x.Nets)
	return x.ID, x
}

func (w *World) service(i int) (model.ID, model.Value) {
	x := &model.Service{Namespace: namespaces[i], Name: "svc"}
	for range w.rng.IntN(5) {
		x.Backends = append(x.Backends, model.Backend{
			Addr: w.address(w.chance(60)), Port: w.port(),
			Protocol: pick[uint8](w, model.ProtocolTCP, model.ProtocolTCP, model.ProtocolUDP, model.ProtocolSCTP),
		})
	}
	if w.chance(10) { // no port is open there
		x.Backends = append(x.Backends, model.Backend{Addr: w.address(w.chance(60)), Protocol: pick[uint8](w, 0, model.ProtocolTCP)})
	}
	sortBackends(x)
	return model.ID{Kind: model.KindService, Namespace: x.Namespace, Name: x.Name}, x
}

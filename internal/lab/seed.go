package lab

import (
	"context"
	"fmt"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// seed writes the pools that the lab's workloads are numbered from.
func seed(ctx context.Context, t Topology) error {
	d, err := etcd.New(etcd.Config{Endpoints: []string{Endpoints(t.Name)}})
	if err != nil {
		return fmt.Errorf("open the lab's datastore: %w", err)
	}
	defer d.Close()
	c := client.New(d, client.Config{})
	for _, p := range t.pools() {
		if _, err := client.Create(ctx, c, p); err != nil {
			return fmt.Errorf("create the lab's pool %s: %w", p.Name, err)
		}
	}
	return seedReflectors(ctx, c, t.shape().Reflectors)
}

// What hosts that reflect routes have in common.
const (
	reflectorLabel   = "route-reflector"
	reflectorCluster = "224.0.0.1"
)

// seedReflectors makes some hosts route reflectors, with which all speak, and
// ends the mesh. No reflectors: nothing is written.
func seedReflectors(ctx context.Context, c *client.Client, hosts []string) error {
	if len(hosts) == 0 {
		return nil
	}
	for _, name := range hosts {
		n := &v3.Node{}
		n.Name, n.Labels = name, map[string]string{reflectorLabel: "true"}
		n.Spec.BGP = &v3.NodeBGPSpec{RouteReflectorClusterID: reflectorCluster}
		if _, err := client.Create(ctx, c, n); err != nil {
			return fmt.Errorf("create the Node of reflector %s: %w", name, err)
		}
	}
	cfg := &v3.BGPConfiguration{}
	cfg.Name, cfg.Spec.NodeToNodeMeshEnabled = v3.DefaultName, new(false)
	if _, err := client.Create(ctx, c, cfg); err != nil {
		return fmt.Errorf("switch the mesh off: %w", err)
	}
	p := &v3.BGPPeer{}
	p.Name, p.Spec.NodeSelector, p.Spec.PeerSelector = "reflectors", "all()", "has("+reflectorLabel+")"
	if _, err := client.Create(ctx, c, p); err != nil {
		return fmt.Errorf("create BGPPeer %s: %w", p.Name, err)
	}
	return nil
}

// ensureNamespace makes the profile that stands for a Kubernetes namespace, as
// Calico's controllers would: it lets its workloads talk until a policy says
// otherwise, and gives them the namespace's labels.
func (s *Supervisor) ensureNamespace(ctx context.Context, namespace string) error {
	s.mu.Lock()
	known := s.namespaces[namespace]
	s.mu.Unlock()
	if known {
		return nil
	}
	d, err := etcd.New(etcd.Config{Endpoints: []string{Endpoints(s.topo.Name)}})
	if err != nil {
		return fmt.Errorf("open the lab's datastore: %w", err)
	}
	defer d.Close()
	profile := &v3.Profile{}
	profile.Name = "kns." + namespace
	profile.Spec.Ingress, profile.Spec.Egress = []v3.Rule{{Action: v3.ActionAllow}}, []v3.Rule{{Action: v3.ActionAllow}}
	profile.Spec.LabelsToApply = map[string]string{
		"pcns.projectcalico.org/name": namespace, "pcns.kubernetes.io/metadata.name": namespace,
	}
	if _, err := client.Create(ctx, client.New(d, client.Config{}), profile); err != nil && !client.IsExists(err) {
		return fmt.Errorf("create the profile of namespace %s: %w", namespace, err)
	}
	s.mu.Lock()
	s.namespaces[namespace] = true
	s.mu.Unlock()
	return nil
}

// pools are the lab's pools, one for each family.
func (t Topology) pools() []*v3.IPPool {
	var out []*v3.IPPool
	add := func(name string, four bool, cidr string) {
		p := &v3.IPPool{}
		p.Name, p.Spec.CIDR, p.Spec.NATOutgoing = name, cidr, t.NAT
		p.Spec.IPIPMode, p.Spec.VXLANMode = t.modes(four)
		out = append(out, p)
	}
	if t.has4() {
		add("lab-v4", true, pool4.String())
	}
	if t.has6() {
		add("lab-v6", false, pool6.String())
	}
	return out
}

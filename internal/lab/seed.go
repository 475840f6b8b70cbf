package lab

import (
	"context"
	"fmt"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// seed writes the pools that the lab's workloads are numbered from, and the
// profile that lets them talk.
func seed(ctx context.Context, t Topology) error {
	d, err := etcd.New(etcd.Config{Endpoints: []string{Endpoints(t.Name)}})
	if err != nil {
		return fmt.Errorf("open the lab's datastore: %w", err)
	}
	defer d.Close()
	c := client.New(d, client.Config{})
	profile := &v3.Profile{}
	profile.Name = network
	profile.Spec.Ingress, profile.Spec.Egress = []v3.Rule{{Action: v3.ActionAllow}}, []v3.Rule{{Action: v3.ActionAllow}}
	if _, err := client.Create(ctx, c, profile); err != nil {
		return fmt.Errorf("create the lab's profile: %w", err)
	}
	for _, p := range t.pools() {
		if _, err := client.Create(ctx, c, p); err != nil {
			return fmt.Errorf("create the lab's pool %s: %w", p.Name, err)
		}
	}
	return nil
}

// pools are the lab's pools, one for each family.
func (t Topology) pools() []*v3.IPPool {
	var out []*v3.IPPool
	add := func(name, cidr string) {
		p := &v3.IPPool{}
		p.Name, p.Spec.CIDR = name, cidr
		out = append(out, p)
	}
	if t.has4() {
		add("lab-v4", pool4.String())
	}
	if t.has6() {
		add("lab-v6", pool6.String())
	}
	return out
}

package kubepolicy

import (
	"strconv"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Limits of ClusterNetworkPolicy (network-policy-api v0.2.0).
const (
	maxClusterList = 25
	maxRuleName    = 100
	maxPriority    = 1000
)

// Validate says what is wrong with a policy of Kubernetes, in the order of its
// fields: what Kubernetes' own API server would refuse, and what cannot be
// converted. Nothing for other kinds.
func Validate(o v3.Object) v3.FieldErrors {
	switch o := o.(type) {
	case *KubeNetworkPolicy:
		// The v3 API has a kind with the same spec, and rules for it.
		same := &v3.StagedKubernetesNetworkPolicy{ObjectMeta: o.ObjectMeta}
		same.Spec.PodSelector, same.Spec.PolicyTypes = o.Spec.PodSelector, o.Spec.PolicyTypes
		same.Spec.Ingress, same.Spec.Egress = o.Spec.Ingress, o.Spec.Egress
		return v3.Validate(same)
	case *ClusterNetworkPolicy:
		// Labels, annotations and the form of the name are as everywhere.
		errs := v3.Validate(&v3.IPReservation{ObjectMeta: o.ObjectMeta})
		c := &converter{errs: errs}
		c.cluster(&o.Spec)
		if len(c.errs) == 0 {
			_, more, _ := Cluster(&o.Spec)
			c.errs = append(c.errs, more...)
		}
		return c.errs
	}
	return nil
}

// cluster checks the limits that a conversion has no need of.
func (c *converter) cluster(s *ClusterPolicySpec) {
	if p := s.Priority; p != nil && (*p < 0 || *p > maxPriority) {
		c.wrong("spec.priority", strconv.Itoa(int(*p)), "must be from 0 to 1000")
	}
	if p := &s.Subject; p.Nodes != nil || len(p.Networks) > 0 || len(p.DomainNames) > 0 {
		c.wrong("spec.subject", "", "must have exactly one of namespaces and pods")
	}
	c.atMost("spec.ingress", len(s.Ingress))
	for i, r := range s.Ingress {
		c.clusterLimits("spec.ingress["+strconv.Itoa(i)+"]", clusterRule{r.Name, r.Action, "from", r.From, r.Protocols})
	}
	c.atMost("spec.egress", len(s.Egress))
	for i, r := range s.Egress {
		c.clusterLimits("spec.egress["+strconv.Itoa(i)+"]", clusterRule{r.Name, r.Action, "to", r.To, r.Protocols})
	}
}

func (c *converter) clusterLimits(path string, r clusterRule) {
	if len(r.name) > maxRuleName {
		c.wrong(path+".name", r.name, "must have at most 100 characters")
	}
	c.atMost(path+"."+r.side, len(r.peers))
	c.atMost(path+".protocols", len(r.protocols))
	named := false
	for _, p := range r.protocols {
		named = named || p.DestinationNamedPort != ""
	}
	for i := range r.peers {
		at := path + "." + r.side + "[" + strconv.Itoa(i) + "]"
		c.atMost(at+".networks", len(r.peers[i].Networks))
		if named && len(r.peers[i].Networks) > 0 {
			c.wrong(at+".networks", "", "must not be set in a rule with destinationNamedPort: networks have no named ports")
		}
	}
}

func (c *converter) atMost(path string, n int) {
	if n > maxClusterList {
		c.wrong(path, strconv.Itoa(n)+" entries", "must have at most 25 entries")
	}
}

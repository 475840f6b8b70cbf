package kubepolicy

import (
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// clusterTier is the tier of the v3 API for one of ClusterNetworkPolicy.
func clusterTier(name string) (string, bool) {
	switch name {
	case "Admin":
		return v3.TierKubeAdmin, true
	case "Baseline":
		return v3.TierKubeBaseline, true
	}
	return "", false
}

// Cluster converts the spec of a ClusterNetworkPolicy. A rule that cannot be
// converted is left out if it accepts, and otherwise denies everything of its
// direction at its place; each is told in the errors. false: of the tier or
// the subject nothing can be made, and the policy counts as none.
func Cluster(s *ClusterPolicySpec) (v3.GlobalNetworkPolicySpec, v3.FieldErrors, bool) {
	c := &converter{}
	out := v3.GlobalNetworkPolicySpec{}
	tier, known := clusterTier(s.Tier)
	if !known {
		c.wrong("spec.tier", s.Tier, "must be Admin or Baseline")
	}
	out.Tier = tier
	if s.Priority != nil {
		out.Order = new(float64(*s.Priority))
	} else {
		c.wrong("spec.priority", "", "must be set")
	}
	switch {
	case s.Subject.Namespaces != nil && s.Subject.Pods == nil:
		out.NamespaceSelector = c.namespaces("spec.subject.namespaces", s.Subject.Namespaces)
		out.Selector = onlyPods
	case s.Subject.Pods != nil && s.Subject.Namespaces == nil:
		out.NamespaceSelector = c.namespaces("spec.subject.pods.namespaceSelector", &s.Subject.Pods.NamespaceSelector)
		out.Selector = c.pods("spec.subject.pods.podSelector", &s.Subject.Pods.PodSelector)
	default:
		c.wrong("spec.subject", "", "must have exactly one of namespaces and pods")
	}
	if len(c.errs) > 0 {
		return v3.GlobalNetworkPolicySpec{}, c.errs, false
	}
	for i, r := range s.Ingress {
		at := "spec.ingress[" + strconv.Itoa(i) + "]"
		out.Ingress = append(out.Ingress, c.clusterRule(at, clusterRule{r.Name, r.Action, "from", r.From, r.Protocols})...)
	}
	for i, r := range s.Egress {
		at := "spec.egress[" + strconv.Itoa(i) + "]"
		out.Egress = append(out.Egress, c.clusterRule(at, clusterRule{r.Name, r.Action, "to", r.To, r.Protocols})...)
	}
	if len(out.Ingress) > 0 {
		out.Types = append(out.Types, v3.TypeIngress)
	}
	if len(out.Egress) > 0 {
		out.Types = append(out.Types, v3.TypeEgress)
	}
	return out, c.errs, true
}

// clusterRule is a rule of either direction.
type clusterRule struct {
	name, action string
	side         string // "from" or "to"
	peers        []ClusterPeer
	protocols    []ClusterProtocol
}

// clusterRule converts one rule: by protocol first, in order of their names,
// then by peer.
func (c *converter) clusterRule(path string, r clusterRule) []v3.Rule {
	before := len(c.errs)
	action := c.clusterAction(path+".action", r.action)
	var ends []v3.EntityRule
	for i := range r.peers {
		ends = append(ends, c.clusterPeer(path+"."+r.side+"["+strconv.Itoa(i)+"]", r.side, &r.peers[i])...)
	}
	if len(r.peers) == 0 {
		c.wrong(path+"."+r.side, "", "must have at least one peer")
	}
	protocols := c.clusterProtocols(path+".protocols", r.protocols)
	var metadata *v3.RuleMetadata
	if r.name != "" {
		metadata = &v3.RuleMetadata{Annotations: map[string]string{"name": r.name}}
	}
	if len(c.errs) > before {
		if action == v3.ActionAllow {
			return nil
		}
		return []v3.Rule{{Action: v3.ActionDeny, Metadata: metadata}}
	}
	var out []v3.Rule
	for _, p := range protocols {
		for _, end := range ends {
			rule := v3.Rule{Action: action, Protocol: p.protocol, Metadata: metadata}
			if r.side == "from" {
				rule.Source = end
			} else {
				rule.Destination = end
			}
			rule.Destination.Ports = p.ports
			out = append(out, rule)
		}
	}
	return out
}

func (c *converter) clusterAction(path, action string) v3.Action {
	switch action {
	case "Accept":
		return v3.ActionAllow
	case "Deny":
		return v3.ActionDeny
	case "Pass":
		return v3.ActionPass
	}
	c.wrong(path, action, "must be one of Accept, Deny, Pass")
	return ""
}

// clusterPeer converts one end. Labelled endpoints of a namespace are meant
// whether they are pods or not. Networks of two families are two ends.
func (c *converter) clusterPeer(path, side string, p *ClusterPeer) []v3.EntityRule {
	set := 0
	for _, is := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, len(p.Networks) > 0, len(p.DomainNames) > 0} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		c.wrong(path, "", "must have exactly one kind of peer")
	case p.Namespaces != nil:
		return []v3.EntityRule{{NamespaceSelector: c.namespaces(path+".namespaces", p.Namespaces)}}
	case p.Pods != nil:
		return []v3.EntityRule{{
			NamespaceSelector: c.namespaces(path+".pods.namespaceSelector", &p.Pods.NamespaceSelector),
			Selector:          c.pods(path+".pods.podSelector", &p.Pods.PodSelector),
		}}
	case side == "from":
		c.wrong(path, "", "must be namespaces or pods in an ingress rule")
	case len(p.Networks) > 0:
		return c.networks(path+".networks", p.Networks)
	case p.Nodes != nil:
		c.wrong(path+".nodes", "", "is not supported: list the addresses in networks")
	default:
		c.wrong(path+".domainNames", "", "is not supported: list the addresses in networks")
	}
	return nil
}

// networks converts a list of networks: the v3 API wants those of one rule to
// be of one family.
func (c *converter) networks(path string, networks []string) []v3.EntityRule {
	var four, six []string
	for i, n := range networks {
		if n = c.cidr(path+"["+strconv.Itoa(i)+"]", n); strings.Contains(n, ":") {
			six = append(six, n)
		} else {
			four = append(four, n)
		}
	}
	var out []v3.EntityRule
	for _, nets := range [][]string{four, six} {
		if len(nets) > 0 {
			out = append(out, v3.EntityRule{Nets: nets})
		}
	}
	return out
}

// clusterProtocols converts what a rule says of protocols and ports. A name of
// a port matches whatever protocol the port has; an empty list, and an empty
// entry, match everything.
func (c *converter) clusterProtocols(path string, protocols []ClusterProtocol) []protocolPorts {
	sets, names := map[string]*portSet{}, &portSet{}
	for i := range protocols {
		p := &protocols[i]
		at := path + "[" + strconv.Itoa(i) + "]"
		set := 0
		for _, one := range []struct {
			key, protocol string
			ports         *ClusterPorts
		}{{"tcp", v3.ProtocolTCP, p.TCP}, {"udp", v3.ProtocolUDP, p.UDP}, {"sctp", v3.ProtocolSCTP, p.SCTP}} {
			if one.ports == nil {
				continue
			}
			set++
			if sets[one.protocol] == nil {
				sets[one.protocol] = &portSet{}
			}
			c.clusterPort(at+"."+one.key+".destinationPort", one.ports.DestinationPort, sets[one.protocol])
		}
		if p.DestinationNamedPort != "" {
			set++
			names.names = append(names.names, p.DestinationNamedPort)
		}
		switch {
		case set > 1:
			c.wrong(at, "", "must have exactly one of tcp, udp, sctp and destinationNamedPort")
		case set == 0:
			return []protocolPorts{{}}
		}
	}
	if len(protocols) == 0 {
		return []protocolPorts{{}}
	}
	var out []protocolPorts
	if len(names.names) > 0 {
		out = append(out, protocolPorts{ports: names.list()})
	}
	return append(out, listed(sets)...)
}

func (c *converter) clusterPort(path string, p *ClusterPort, to *portSet) {
	switch {
	case p == nil:
		to.all = true
	case p.Number != nil && p.Range == nil:
		c.rangeOf(path+".number", *p.Number, *p.Number, to)
	case p.Range != nil && p.Number == nil:
		c.rangeOf(path+".range", p.Range.Start, p.Range.End, to)
	default:
		c.wrong(path, "", "must have exactly one of number and range")
	}
}

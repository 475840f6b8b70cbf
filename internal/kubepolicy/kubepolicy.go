// Package kubepolicy says in the terms of the projectcalico.org/v3 API what
// Kubernetes' own objects mean: network policies as policies, namespaces and
// service accounts as profiles, pods as endpoints, and what is behind a
// service. It follows Calico's documented conversion.
package kubepolicy

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
)

// onlyPods is the part of a selector that keeps host endpoints and network
// sets out.
const onlyPods = selector.OrchestratorLabel + " == 'k8s'"

// Order is that of every converted NetworkPolicy (documented Calico
// behaviour): policies that state an order below it come before.
const Order = 1000

// NetworkPolicy converts the spec of a networking.k8s.io/v1 NetworkPolicy.
// Whatever cannot be converted is left out, and told in the errors, whose
// paths begin with "spec": every rule allows, so what is left out is denied
// where nothing else allows it; with a podSelector that cannot be converted
// the policy denies everything to every pod of its namespace. Without policyTypes the policy is for ingress
// alone; defaults are for whoever stores the object to give.
func NetworkPolicy(s *v3.KubernetesNetworkPolicySpec) (v3.NetworkPolicySpec, v3.FieldErrors) {
	c := &converter{}
	out := v3.NetworkPolicySpec{
		Tier: v3.TierDefault, Order: new(float64(Order)), Types: slices.Clone(s.PolicyTypes),
		Selector: c.pods("spec.podSelector", &s.PodSelector),
	}
	if len(out.Types) == 0 {
		out.Types = []v3.PolicyType{v3.TypeIngress}
	}
	if len(c.errs) > 0 { // for whom the rules are is not known: for nobody
		out.Selector = onlyPods
		return out, c.errs
	}
	for i, r := range s.Ingress {
		at := "spec.ingress[" + strconv.Itoa(i) + "]"
		for _, m := range c.matches(at+".from", r.From, at+".ports", r.Ports) {
			rule := v3.Rule{Action: v3.ActionAllow, Protocol: m.protocol, Source: m.peer}
			rule.Destination.Ports = m.ports
			out.Ingress = append(out.Ingress, rule)
		}
	}
	for i, r := range s.Egress {
		at := "spec.egress[" + strconv.Itoa(i) + "]"
		for _, m := range c.matches(at+".to", r.To, at+".ports", r.Ports) {
			rule := v3.Rule{Action: v3.ActionAllow, Protocol: m.protocol, Destination: m.peer}
			rule.Destination.Ports = m.ports
			out.Egress = append(out.Egress, rule)
		}
	}
	return out, c.errs
}

// converter gathers what cannot be converted.
type converter struct{ errs v3.FieldErrors }

func (c *converter) wrong(path, value, rule string) {
	c.errs = append(c.errs, v3.FieldError{Path: path, Value: value, Rule: rule})
}

// match is one combination of a peer and a protocol.
type match struct {
	peer     v3.EntityRule
	protocol *v3.Protocol
	ports    []v3.Port
}

// matches multiplies peers by protocols: by protocol first, in order of their
// names, then by peer.
func (c *converter) matches(peersAt string, peers []v3.KubernetesPolicyPeer, portsAt string, ports []v3.KubernetesPolicyPort) []match {
	var out []match
	ends := c.peers(peersAt, peers)
	for _, p := range c.ports(portsAt, ports) {
		for _, end := range ends {
			out = append(out, match{end, p.protocol, p.ports})
		}
	}
	return out
}

// peers converts a list of peers; an empty one is everybody.
func (c *converter) peers(path string, peers []v3.KubernetesPolicyPeer) []v3.EntityRule {
	if len(peers) == 0 {
		return []v3.EntityRule{{}}
	}
	var out []v3.EntityRule
	for i := range peers {
		before := len(c.errs)
		e := c.peer(path+"["+strconv.Itoa(i)+"]", &peers[i])
		if len(c.errs) == before {
			out = append(out, e)
		}
	}
	return out
}

func (c *converter) peer(path string, p *v3.KubernetesPolicyPeer) v3.EntityRule {
	switch {
	case p.IPBlock != nil:
		if p.PodSelector != nil || p.NamespaceSelector != nil {
			c.wrong(path+".ipBlock", p.IPBlock.CIDR, "must not be set beside podSelector or namespaceSelector")
		}
		e := v3.EntityRule{Nets: []string{c.cidr(path+".ipBlock.cidr", p.IPBlock.CIDR)}}
		for i, s := range p.IPBlock.Except {
			e.NotNets = append(e.NotNets, c.cidr(path+".ipBlock.except["+strconv.Itoa(i)+"]", s))
		}
		return e
	case p.PodSelector == nil && p.NamespaceSelector == nil:
		c.wrong(path, "", "must have one of podSelector, namespaceSelector and ipBlock")
		return v3.EntityRule{}
	}
	e := v3.EntityRule{Selector: onlyPods}
	if p.PodSelector != nil {
		e.Selector = c.pods(path+".podSelector", p.PodSelector)
	}
	if p.NamespaceSelector != nil {
		e.NamespaceSelector = c.namespaces(path+".namespaceSelector", p.NamespaceSelector)
	}
	return e
}

// pods converts a selector of pods.
func (c *converter) pods(path string, s *v3.LabelSelector) string {
	return strings.Join(append([]string{onlyPods}, c.terms(path, s)...), " && ")
}

// namespaces converts a selector of namespaces; an empty one is all of them.
func (c *converter) namespaces(path string, s *v3.LabelSelector) string {
	terms := c.terms(path, s)
	if len(terms) == 0 {
		return "all()"
	}
	return strings.Join(terms, " && ")
}

// terms converts a label selector: labels sorted by key, then expressions.
func (c *converter) terms(path string, s *v3.LabelSelector) []string {
	var terms []string
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		terms = append(terms, k+" == "+c.quoted(path+".matchLabels["+strconv.Quote(k)+"]", s.MatchLabels[k]))
	}
	for i, e := range s.MatchExpressions {
		at := path + ".matchExpressions[" + strconv.Itoa(i) + "]"
		switch e.Operator {
		case "In":
			terms = append(terms, e.Key+" in "+c.set(at+".values", e.Values))
		case "NotIn":
			terms = append(terms, e.Key+" not in "+c.set(at+".values", e.Values))
		case "Exists":
			terms = append(terms, "has("+e.Key+")")
		case "DoesNotExist":
			terms = append(terms, "! has("+e.Key+")")
		default:
			c.wrong(at+".operator", e.Operator, "must be In, NotIn, Exists or DoesNotExist")
		}
	}
	for _, t := range terms {
		if _, err := selector.Parse(t); err != nil {
			c.wrong(path, "", err.Error())
		}
	}
	return terms
}

func (c *converter) set(path string, values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = c.quoted(path+"["+strconv.Itoa(i)+"]", v)
	}
	return "{" + strings.Join(quoted, ", ") + "}"
}

func (c *converter) quoted(path, value string) string {
	switch {
	case !strings.Contains(value, "'"):
		return "'" + value + "'"
	case !strings.Contains(value, `"`):
		return `"` + value + `"`
	}
	c.wrong(path, value, "must not hold both kinds of quote")
	return "''"
}
